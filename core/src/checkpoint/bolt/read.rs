//! Reads any bbolt image without copying values and without trusting a byte of it.
//!
//! Nothing here panics or runs for ever on hostile bytes: every access is bounded by its page, trees are at most
//! [`DEPTH_MAX`] deep, only a root may be empty, and keys must rise over the whole walk. The last two make a page
//! that is reached twice an error, so that a walk visits no more pages than the image has.

use bytes::Bytes;

use super::check::PageSet;
use super::page::{Kind, Page, Place, u64_at};
use super::{BUCKET_HEADER, FIRST_PAGE, ITEM_BUCKET, META_BYTES, Meta, NO_FREELIST, PAGE_HEADER};
use crate::checkpoint::ImageError;

/// Two children a page would hold 2^40 leaves in a tree of this depth.
const DEPTH_MAX: usize = 40;

/// The smallest and largest page sizes that bbolt looks for, as powers of two.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 10..=24;

/// A whole image whose meta pages make sense.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) bytes: Bytes,
    pub(super) meta: Meta,
}

/// One bucket of an image.
#[derive(Clone, Debug)]
pub struct Bucket {
    image: Image,
    place: Place,
    root: Root,
}

#[derive(Clone, Debug)]
enum Root {
    Page(u64),
    /// The bucket's whole value.
    Inline(Bytes),
}

/// What a bucket holds under a key.
#[derive(Clone, Debug)]
pub enum Item {
    /// A key and its value, both views into the image.
    Pair {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// A bucket in the bucket.
    Bucket(Bucket),
}

/// A bucket's items in key order; ends after the first error.
#[derive(Debug)]
pub struct Items {
    image: Image,
    stack: Vec<Frame>,
    /// The key of the last item: the next one is greater.
    last: Bytes,
    /// Where the checker notes each page that the walk enters.
    pub(super) visited: Option<PageSet>,
}

#[derive(Debug)]
struct Frame {
    page: Page,
    next: usize,
    /// All keys in the page are at least this; empty is no bound.
    lower: Bytes,
    /// All keys in the page are below this; `None` is no bound.
    upper: Option<Bytes>,
}

impl Image {
    /// Finds the current meta page and checks what it says against the image's length.
    pub fn open(bytes: Bytes) -> Result<Self, ImageError> {
        let meta = current_meta(&bytes)?;
        let place = Place {
            page: meta.txid % 2,
            offset: 0,
            bucket: Bytes::new(),
        };
        let in_use = meta.high_water.checked_mul(u64::from(meta.page_size));
        if in_use.is_none_or(|length| length > bytes.len() as u64) {
            let (pages, size) = (meta.high_water, meta.page_size);
            let problem = format!(
                "{} bytes, expected at least {pages} pages of {size} bytes",
                bytes.len()
            );
            return Err(place.damaged(0, problem));
        }
        for (what, page) in [("root", meta.root), ("freelist", meta.freelist)] {
            let stored = what == "root" || page != NO_FREELIST;
            if stored && !(FIRST_PAGE..meta.high_water).contains(&page) {
                let problem = format!(
                    "{what} page {page}, expected {FIRST_PAGE} to below {}",
                    meta.high_water
                );
                return Err(place.damaged(0, problem));
            }
        }
        Ok(Self { bytes, meta })
    }

    /// The bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.meta.page_size
    }

    /// The bytes in use: the image may be followed by preallocated space.
    pub fn length(&self) -> u64 {
        self.meta.high_water * u64::from(self.meta.page_size)
    }

    /// The root bucket, whose items are the top-level buckets.
    pub fn root(&self) -> Bucket {
        let place = Place {
            page: self.meta.root,
            offset: 0,
            bucket: Bytes::new(),
        };
        Bucket {
            image: self.clone(),
            place,
            root: Root::Page(self.meta.root),
        }
    }

    /// The top-level bucket with this name.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, ImageError> {
        for item in self.root().items()? {
            match item? {
                Item::Bucket(bucket) if bucket.name() == name => return Ok(Some(bucket)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The valid meta with the highest transaction, as bbolt chooses it.
fn current_meta(bytes: &Bytes) -> Result<Meta, ImageError> {
    let place = Place {
        page: 0,
        offset: 0,
        bucket: Bytes::new(),
    };
    let first = meta_at(bytes, 0);
    // Without the first meta nobody says how large a page is: the second stands at one of a few places.
    let size = match &first {
        Ok(meta) => Some(meta.page_size as usize),
        Err(_) => PAGE_SIZES.map(|power| 1 << power).find(
            |size| matches!(meta_at(bytes, *size), Ok(meta) if meta.page_size as usize == *size),
        ),
    };
    let second = size.map_or(Err("not found"), |size| meta_at(bytes, size));
    let meta = match (first, second) {
        (Ok(first), Ok(second)) => {
            if first.txid > second.txid {
                first
            } else {
                second
            }
        }
        (Ok(meta), Err(_)) | (Err(_), Ok(meta)) => meta,
        (Err(first), Err(second)) => {
            return Err(place.damaged(
                0,
                format!("no valid meta page; page 0: {first}; page 1: {second}"),
            ));
        }
    };
    let size = meta.page_size;
    if !size.is_power_of_two() || !PAGE_SIZES.contains(&size.trailing_zeros()) {
        return Err(place.damaged(
            PAGE_HEADER + 8,
            format!("page size {size}, expected a power of two from 1 KiB to 16 MiB"),
        ));
    }
    Ok(meta)
}

fn meta_at(bytes: &Bytes, page: usize) -> Result<Meta, &'static str> {
    let start = page + PAGE_HEADER;
    Meta::decode(
        bytes
            .get(start..start + META_BYTES)
            .ok_or("beyond the end")?,
    )
}

impl Bucket {
    /// Its name; empty for the root bucket.
    pub fn name(&self) -> &[u8] {
        &self.place.bucket
    }

    /// Its items in key order.
    pub fn items(&self) -> Result<Items, ImageError> {
        self.items_noting(None)
    }

    /// The same, noting each page that is entered.
    pub(super) fn items_noting(&self, visited: Option<PageSet>) -> Result<Items, ImageError> {
        let mut items = Items {
            image: self.image.clone(),
            stack: Vec::new(),
            last: Bytes::new(),
            visited,
        };
        match &self.root {
            Root::Page(id) => items.enter(*id, &self.place, Bytes::new(), None)?,
            Root::Inline(value) => {
                let page = Page::inline(value, &self.place)?;
                items.stack.push(Frame {
                    page,
                    next: 0,
                    lower: Bytes::new(),
                    upper: None,
                });
            }
        }
        Ok(items)
    }

    /// Damage that concerns the bucket as a whole.
    pub(crate) fn damaged(&self, problem: String) -> ImageError {
        self.place.damaged(0, problem)
    }

    fn from_item(
        image: &Image,
        place: &Place,
        name: Bytes,
        value: Bytes,
        offset: u64,
    ) -> Result<Self, ImageError> {
        let place = Place {
            page: place.page,
            offset,
            bucket: name,
        };
        if value.len() < BUCKET_HEADER {
            return Err(place.damaged(
                0,
                format!(
                    "a bucket's value of {} bytes, expected at least 16",
                    value.len()
                ),
            ));
        }
        let root = match u64_at(&value, 0) {
            0 => Root::Inline(value),
            page => Root::Page(page),
        };
        Ok(Self {
            image: image.clone(),
            place,
            root,
        })
    }
}

impl Iterator for Items {
    type Item = Result<Item, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.step().transpose();
        if matches!(item, Some(Err(_))) {
            self.stack.clear();
        }
        item
    }
}

impl Items {
    fn step(&mut self) -> Result<Option<Item>, ImageError> {
        loop {
            let Some(frame) = self.stack.last_mut() else {
                return Ok(None);
            };
            let index = frame.next;
            if index == frame.page.count {
                self.stack.pop();
                continue;
            }
            frame.next += 1;
            match frame.page.kind {
                Kind::Leaf => return self.item(index).map(Some),
                Kind::Branch => self.descend(index)?,
            }
        }
    }

    /// Item `index` of the leaf on top of the stack.
    fn item(&mut self, index: usize) -> Result<Item, ImageError> {
        let frame = self.stack.last().expect("the caller looked at it");
        let element = frame.page.item(index)?;
        frame.check_key(index, &element.key)?;
        if element.key <= self.last {
            return Err(frame.page.place.damaged(
                PAGE_HEADER,
                format!("item {index} does not follow the key before it"),
            ));
        }
        self.last = element.key.clone();
        if element.flags != ITEM_BUCKET {
            return Ok(Item::Pair {
                key: element.key,
                value: element.value,
            });
        }
        Bucket::from_item(
            &self.image,
            &frame.page.place,
            element.key,
            element.value,
            element.value_offset,
        )
        .map(Item::Bucket)
    }

    /// Enters child `index` of the branch on top of the stack.
    fn descend(&mut self, index: usize) -> Result<(), ImageError> {
        let frame = self.stack.last().expect("the caller looked at it");
        let place = frame.page.place.clone();
        let (lower, child) = frame.page.child(index)?;
        frame.check_key(index, &lower)?;
        let upper = if index + 1 < frame.page.count {
            Some(frame.page.child(index + 1)?.0)
        } else {
            frame.upper.clone()
        };
        if upper.as_ref().is_some_and(|upper| *upper <= lower) {
            return Err(place.damaged(
                PAGE_HEADER,
                format!("child {} does not follow the key before it", index + 1),
            ));
        }
        self.enter(child, &place, lower, upper)
    }

    fn enter(
        &mut self,
        id: u64,
        parent: &Place,
        lower: Bytes,
        upper: Option<Bytes>,
    ) -> Result<(), ImageError> {
        if self.stack.len() == DEPTH_MAX {
            return Err(parent.damaged(0, format!("a tree deeper than {DEPTH_MAX} pages")));
        }
        let meta = &self.image.meta;
        let page = Page::open(
            &self.image.bytes,
            meta.page_size as usize,
            meta.high_water,
            id,
            parent,
        )?;
        let is_empty_root = self.stack.is_empty() && page.kind == Kind::Leaf;
        if page.count == 0 && !is_empty_root {
            return Err(page.place.damaged(
                10,
                "a page without elements that is not an empty bucket's root",
            ));
        }
        if let Some(visited) = &mut self.visited {
            visited.claim(id, page.overflow, &page.place)?;
        }
        self.stack.push(Frame {
            page,
            next: 0,
            lower,
            upper,
        });
        Ok(())
    }
}

impl Frame {
    fn check_key(&self, index: usize, key: &Bytes) -> Result<(), ImageError> {
        if *key < self.lower || self.upper.as_ref().is_some_and(|upper| key >= upper) {
            let problem =
                format!("the key of element {index} is outside the bounds that the parent gives");
            return Err(self.page.place.damaged(PAGE_HEADER, problem));
        }
        Ok(())
    }
}
