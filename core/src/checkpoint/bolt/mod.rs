//! Dense bbolt images: a bulk writer, a reader for any image, and a checker with `bbolt check`'s rules.
//!
//! This module owns the page format. It never changes an image in place, keeps no cache and knows nothing of
//! what the buckets mean. All numbers are little-endian; page `p` begins at byte `p * page_size`:
//!
//! ```text
//! page     id u64 | flags u16 | count u16 | overflow u32 | content; `overflow` more pages belong to it, headless
//! meta     magic u32 | version u32 | page_size u32 | flags u32 | root u64 | sequence u64 | freelist u64
//!          | high water u64 | txid u64 | FNV-1a-64 of these 56 bytes    pages 0 and 1; the higher txid counts
//! freelist `count` page ids u64; a count of ffff means that the first u64 is the count
//! leaf     `count` times  flags u32 | pos u32 | key length u32 | value length u32,   then keys and values
//! branch   `count` times  pos u32 | key length u32 | child page u64,                 then keys
//!          pos counts from the first byte of its own element
//! bucket   a leaf item with flag 1, value: root page u64 | sequence u64; root page 0: a leaf page's image follows
//! ```
//!
//! What the writer emits, for any content exactly one image:
//!
//! ```text
//! | meta | meta | freelist, empty | pages of bucket 1 | pages of bucket 2 | ... | root leaf |
//! ```
//!
//! Behind each meta the writer puts a seal, where bbolt has nothing and a bbolt that changes the image leaves zeros:
//!
//! ```text
//! seal     magic u64 | CRC-32 of all pages from 2 on u32 | CRC-32 of these 12 bytes u32
//! ```

mod check;
mod page;
mod read;
mod seal;
mod write;

pub use check::Pages;
pub use read::{Bucket, Image, Item, Items};
use seal::Seal;
#[cfg(test)]
pub(super) use seal::without_seal;
pub use write::{MemoryFile, Writer, Written};

/// The page size that we write, and that etcd has on nearly all machines.
pub const PAGE_SIZE: usize = 4096;

/// The longest key that bbolt takes.
pub const KEY_BYTES_MAX: usize = 32_768;

const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET_HEADER: usize = 16;
const META_BYTES: usize = 64;

const FLAG_BRANCH: u16 = 1;
const FLAG_LEAF: u16 = 2;
const FLAG_META: u16 = 4;
const FLAG_FREELIST: u16 = 0x10;

/// Marks a leaf item as a bucket.
const ITEM_BUCKET: u32 = 1;

/// The transaction that every image of ours claims to come from. A constant, since images of equal content are equal;
/// even, since it stands in page 0 then, and the next transaction of a bbolt that opens the image goes to page 1.
const TXID: u64 = 2;

/// Pages 0 and 1 are meta pages; no tree lives there.
const FIRST_PAGE: u64 = 2;

/// The freelist is not stored: etcd writes none, so that a commit costs less.
const NO_FREELIST: u64 = u64::MAX;

/// The two meta pages' content.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meta {
    page_size: u32,
    /// The root bucket's root page.
    root: u64,
    /// The freelist's page, or [`NO_FREELIST`].
    freelist: u64,
    /// Pages in use, counted from page 0.
    high_water: u64,
    /// The transaction that wrote it.
    txid: u64,
}

impl Meta {
    const MAGIC: u32 = 0xed0c_daed;
    const VERSION: u32 = 2;

    fn encode(&self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[0..4].copy_from_slice(&Self::MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&Self::VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.high_water.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.txid.to_le_bytes());
        let sum = fnv1a(&bytes[..56]);
        bytes[56..64].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The meta in these bytes (without the page header), or why there is none.
    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < META_BYTES {
            return Err("no room for a meta page");
        }
        if page::u32_at(bytes, 0) != Self::MAGIC {
            return Err("no magic number");
        }
        if page::u32_at(bytes, 4) != Self::VERSION {
            return Err("not format version 2");
        }
        if page::u64_at(bytes, 56) != fnv1a(&bytes[..56]) {
            return Err("the checksum does not match");
        }
        Ok(Self {
            page_size: page::u32_at(bytes, 8),
            root: page::u64_at(bytes, 16),
            freelist: page::u64_at(bytes, 32),
            high_water: page::u64_at(bytes, 40),
            txid: page::u64_at(bytes, 48),
        })
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
