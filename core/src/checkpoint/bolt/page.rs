//! One page of an image, with every access checked against the bytes that belong to it.

use std::ops::Range;

use bytes::Bytes;

use super::{
    BUCKET_HEADER, ELEMENT, FIRST_PAGE, FLAG_BRANCH, FLAG_LEAF, KEY_BYTES_MAX, PAGE_HEADER,
};
use crate::checkpoint::ImageError;

/// The little-endian number at `at`, which the caller has checked to be inside.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The little-endian number at `at`, which the caller has checked to be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number at `at`, which the caller has checked to be inside.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Where in the image we are: what every complaint names.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The page.
    pub(super) page: u64,
    /// The byte of the image where the page (or the inline bucket in it) begins.
    pub(super) offset: u64,
    /// The bucket's name, as far as it is known.
    pub(super) bucket: Bytes,
}

impl Place {
    /// Damage at `at` bytes from here.
    pub(super) fn damaged(&self, at: usize, problem: impl Into<String>) -> ImageError {
        ImageError::Damaged {
            page: self.page,
            offset: self.offset.saturating_add(at as u64),
            bucket: self.bucket.escape_ascii().to_string(),
            problem: problem.into(),
        }
    }
}

/// Whether a page holds items or children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Items.
    Leaf,
    /// Children.
    Branch,
}

/// A leaf or branch page with all bytes that belong to it.
#[derive(Clone, Debug)]
pub(super) struct Page {
    bytes: Bytes,
    /// Where it stands.
    pub(super) place: Place,
    /// Leaf or branch.
    pub(super) kind: Kind,
    /// Its elements, all of whose 16 bytes are inside the page.
    pub(super) count: usize,
    /// Pages that it takes beyond its first.
    pub(super) overflow: u64,
}

/// One element of a leaf page.
pub(super) struct LeafElement {
    /// 1 for a bucket.
    pub(super) flags: u32,
    /// The key.
    pub(super) key: Bytes,
    /// The value.
    pub(super) value: Bytes,
    /// Where the value begins in the image.
    pub(super) value_offset: u64,
}

impl Page {
    /// The tree page `id` of an image with `high_water` pages in use.
    pub(super) fn open(
        image: &Bytes,
        page_size: usize,
        high_water: u64,
        id: u64,
        parent: &Place,
    ) -> Result<Self, ImageError> {
        if id < FIRST_PAGE || id >= high_water {
            return Err(parent.damaged(
                0,
                format!(
                    "points to page {id}, expected {FIRST_PAGE} to {}",
                    high_water - 1
                ),
            ));
        }
        let start = usize::try_from(id).expect("below the high water mark, which the image holds")
            * page_size;
        let place = Place {
            page: id,
            offset: start as u64,
            bucket: parent.bucket.clone(),
        };
        let header = &image[start..start + PAGE_HEADER];
        let found = u64_at(header, 0);
        if found != id {
            return Err(place.damaged(0, format!("the header names page {found}, expected {id}")));
        }
        let overflow = u64::from(u32_at(header, 12));
        if overflow >= high_water - id {
            return Err(place.damaged(
                12,
                format!(
                    "{overflow} overflow pages reach beyond page {}",
                    high_water - 1
                ),
            ));
        }
        let end = start + (usize::try_from(overflow).expect("inside the image") + 1) * page_size;
        Self::parse(image.slice(start..end), place, overflow)
    }

    /// The leaf page inside the value of an inline bucket; `place` is where the value stands.
    pub(super) fn inline(value: &Bytes, place: &Place) -> Result<Self, ImageError> {
        if value.len() < BUCKET_HEADER + PAGE_HEADER {
            return Err(place.damaged(
                0,
                format!(
                    "an inline bucket of {} bytes, expected at least 32",
                    value.len()
                ),
            ));
        }
        let place = Place {
            offset: place.offset + BUCKET_HEADER as u64,
            ..place.clone()
        };
        let page = Self::parse(value.slice(BUCKET_HEADER..), place, 0)?;
        if page.kind != Kind::Leaf {
            return Err(page
                .place
                .damaged(8, "an inline bucket is a branch page, expected a leaf page"));
        }
        Ok(page)
    }

    fn parse(bytes: Bytes, place: Place, overflow: u64) -> Result<Self, ImageError> {
        let kind = match u16_at(&bytes, 8) {
            FLAG_LEAF => Kind::Leaf,
            FLAG_BRANCH => Kind::Branch,
            other => {
                return Err(place.damaged(
                    8,
                    format!("page type {other:#x}, expected leaf (2) or branch (1)"),
                ));
            }
        };
        let count = usize::from(u16_at(&bytes, 10));
        if PAGE_HEADER + count * ELEMENT > bytes.len() {
            return Err(place.damaged(
                10,
                format!("{count} elements do not fit into {} bytes", bytes.len()),
            ));
        }
        Ok(Self {
            bytes,
            place,
            kind,
            count,
            overflow,
        })
    }

    /// Element `index` of a leaf page.
    pub(super) fn item(&self, index: usize) -> Result<LeafElement, ImageError> {
        let at = PAGE_HEADER + index * ELEMENT;
        let flags = u32_at(&self.bytes, at);
        if flags > 1 {
            return Err(self.place.damaged(
                at,
                format!("item flags {flags:#x}, expected 0 or 1 (bucket)"),
            ));
        }
        let key_length = u32_at(&self.bytes, at + 8);
        let value_length = u32_at(&self.bytes, at + 12);
        let all = self.content(
            at,
            u32_at(&self.bytes, at + 4),
            u64::from(key_length) + u64::from(value_length),
        )?;
        let value_at = all.start + key_length as usize;
        let key = self.key(at, all.start..value_at)?;
        let value_offset = self.place.offset + value_at as u64;
        Ok(LeafElement {
            flags,
            key,
            value: self.bytes.slice(value_at..all.end),
            value_offset,
        })
    }

    /// Element `index` of a branch page: the child's lowest key and its page.
    pub(super) fn child(&self, index: usize) -> Result<(Bytes, u64), ImageError> {
        let at = PAGE_HEADER + index * ELEMENT;
        let key = self.content(
            at,
            u32_at(&self.bytes, at),
            u64::from(u32_at(&self.bytes, at + 4)),
        )?;
        Ok((self.key(at, key)?, u64_at(&self.bytes, at + 8)))
    }

    /// The bytes of the element at `at` that begin `position` bytes from it.
    fn content(&self, at: usize, position: u32, length: u64) -> Result<Range<usize>, ImageError> {
        let start = at as u64 + u64::from(position);
        let end = start + length;
        let first = PAGE_HEADER + self.count * ELEMENT;
        if start < first as u64 || end > self.bytes.len() as u64 {
            let problem = format!(
                "content at {start} to {end} of the page, expected within {first} to {}",
                self.bytes.len()
            );
            return Err(self.place.damaged(at, problem));
        }
        let inside = |position: u64| usize::try_from(position).expect("inside the page");
        Ok(inside(start)..inside(end))
    }

    fn key(&self, at: usize, range: Range<usize>) -> Result<Bytes, ImageError> {
        if range.is_empty() || range.len() > KEY_BYTES_MAX {
            let problem = format!(
                "a key of {} bytes, expected 1 to {KEY_BYTES_MAX}",
                range.len()
            );
            return Err(self.place.damaged(at, problem));
        }
        Ok(self.bytes.slice(range))
    }
}
