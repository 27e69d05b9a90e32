//! The rules of `bbolt check`: each page below the high water mark is reached exactly once or free exactly once,
//! keys are in order and page types are right.

use super::page::{Place, u16_at, u32_at, u64_at};
use super::read::{Bucket, Image, Item};
use super::{FLAG_FREELIST, NO_FREELIST, PAGE_HEADER};
use crate::checkpoint::ImageError;

/// Nobody nests buckets; etcd does not at all. The limit keeps hostile images off the stack.
const NESTING_MAX: usize = 32;

/// How an image's pages are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Meta, freelist and tree pages, overflow pages included.
    pub used: u64,
    /// Pages in no use.
    pub free: u64,
    /// Key-value pairs in all buckets.
    pub pairs: u64,
}

/// A set of pages.
#[derive(Debug)]
pub(super) struct PageSet {
    bits: Vec<u64>,
    count: u64,
}

impl PageSet {
    fn new(high_water: u64) -> Self {
        let words =
            usize::try_from(high_water.div_ceil(64)).expect("the image holds a page for each");
        Self {
            bits: vec![0; words],
            count: 0,
        }
    }

    /// Adds `id` and the `overflow` pages after it, all below the high water mark; none may be in the set.
    pub(super) fn claim(
        &mut self,
        id: u64,
        overflow: u64,
        place: &Place,
    ) -> Result<(), ImageError> {
        for page in id..=id + overflow {
            let word =
                &mut self.bits[usize::try_from(page / 64).expect("below the high water mark")];
            let bit = 1 << (page % 64);
            if *word & bit != 0 {
                return Err(place.damaged(0, format!("page {page} is used twice")));
            }
            *word |= bit;
            self.count += 1;
        }
        Ok(())
    }
}

impl Image {
    /// Walks the whole image; the first violation of a rule is the error.
    pub fn check(&self) -> Result<Pages, ImageError> {
        let meta = &self.meta;
        let mut pages = PageSet::new(meta.high_water);
        pages.claim(
            0,
            1,
            &Place {
                page: 0,
                offset: 0,
                bucket: Default::default(),
            },
        )?;
        let listed = if meta.freelist == NO_FREELIST {
            None
        } else {
            Some(self.free_pages(&mut pages)?)
        };
        let mut pairs = 0;
        pages = check_bucket(&self.root(), pages, 0, &mut pairs)?;
        let used = pages.count;
        let Some(free) = listed else {
            // Whoever opens the image finds the free pages by this very walk.
            return Ok(Pages {
                used,
                free: meta.high_water - used,
                pairs,
            });
        };
        let place = self.place_of(meta.freelist);
        for page in free {
            if !(2..meta.high_water).contains(&page) {
                return Err(place.damaged(
                    PAGE_HEADER,
                    format!("free page {page} is outside the image"),
                ));
            }
            pages.claim(page, 0, &place)?;
        }
        if pages.count != meta.high_water {
            let lost = meta.high_water - pages.count;
            return Err(place.damaged(
                PAGE_HEADER,
                format!("{lost} pages are neither reachable nor free"),
            ));
        }
        Ok(Pages {
            used,
            free: meta.high_water - used,
            pairs,
        })
    }

    /// The ids in the stored freelist, whose own pages are claimed.
    fn free_pages(&self, pages: &mut PageSet) -> Result<Vec<u64>, ImageError> {
        let id = self.meta.freelist;
        let place = self.place_of(id);
        let size = self.meta.page_size as usize;
        let start = usize::try_from(place.offset).expect("inside the image");
        let header = &self.bytes[start..start + PAGE_HEADER];
        if u64_at(header, 0) != id || u16_at(header, 8) != FLAG_FREELIST {
            return Err(place.damaged(0, "expected a freelist page"));
        }
        let overflow = u64::from(u32_at(header, 12));
        if overflow >= self.meta.high_water - id {
            return Err(place.damaged(12, "the freelist reaches beyond the high water mark"));
        }
        pages.claim(id, overflow, &place)?;
        let length = (usize::try_from(overflow).expect("inside the image") + 1) * size;
        let content = &self.bytes[start + PAGE_HEADER..start + length];
        let (count, list) = match u16_at(header, 10) {
            u16::MAX => (u64_at(content, 0), &content[8..]),
            count => (u64::from(count), content),
        };
        if count > (list.len() / 8) as u64 {
            return Err(place.damaged(
                PAGE_HEADER,
                format!("{count} free pages do not fit into the freelist"),
            ));
        }
        let (ids, _) = list.as_chunks::<8>();
        Ok(ids
            .iter()
            .take(usize::try_from(count).expect("it fits"))
            .map(|id| u64::from_le_bytes(*id))
            .collect())
    }

    fn place_of(&self, page: u64) -> Place {
        Place {
            page,
            offset: page * u64::from(self.meta.page_size),
            bucket: Default::default(),
        }
    }
}

fn check_bucket(
    bucket: &Bucket,
    pages: PageSet,
    depth: usize,
    pairs: &mut u64,
) -> Result<PageSet, ImageError> {
    let mut items = bucket.items_noting(Some(pages))?;
    while let Some(item) = items.next() {
        match item? {
            Item::Pair { .. } => *pairs += 1,
            Item::Bucket(inner) => {
                if depth == NESTING_MAX {
                    return Err(
                        inner.damaged(format!("buckets nested more than {NESTING_MAX} deep"))
                    );
                }
                let pages = items.visited.take().expect("put there above");
                items.visited = Some(check_bucket(&inner, pages, depth + 1, pairs)?);
            }
        }
    }
    Ok(items.visited.take().expect("put there above"))
}
