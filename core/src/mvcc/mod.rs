//! The multi-version store: every revision of every key that no compaction has removed, in memory.
//!
//! It owns keys, values, revisions and compaction; it never touches a file, and it knows leases only as numbers on
//! keys. One [`Store`] writes, any number of [`View`]s read meanwhile, sharing the data behind one lock that is held
//! only shortly: by the writer for one transaction, by readers for some hundred keys. A reader fixes its revision
//! when it begins, and rows above it do not exist for it; that is how a transaction becomes visible all at once.
//!
//! ```text
//!   index    key -> newest row               history   every row by revision
//!     |                                         |
//!     v                                         v
//!   arena    row -> previous row of the key, main, sub, encoded KeyValue
//! ```
//!
//! A row is the encoded `mvccpb.KeyValue` that etcd would keep, made once: the answers to ranges, the events of
//! watches, the database image and `HashKV` are views of these bytes.
//!
//! Unit tests run with tiny chunks, leaves, segments and slices, so that short tests cross every boundary.

mod arena;
mod compact;
mod compare;
mod counts;
mod hash;
mod heads;
mod history;
mod index;
mod range;
mod record;
mod restore;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod view;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::types::Revision;

pub use counts::Counts;
pub(crate) use range::{has_filters, is_default_order};
pub use restore::RestoreError;
pub use store::{Store, WriteTxn};
pub use view::{Pin, View};

/// One revision of one key, as it stands in the `key` bucket of the database image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Main revision.
    pub main: i64,
    /// Position within the main revision.
    pub sub: i64,
    /// Whether the key was deleted by this revision.
    pub tombstone: bool,
    /// The encoded `mvccpb.KeyValue`; for a tombstone it holds the key alone.
    pub key_value: Bytes,
}

/// The answer of `HashKV`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// -1 when never compacted.
    pub compact_revision: Revision,
    /// The revision that was hashed.
    pub hash_revision: Revision,
}

/// Whether these are the bytes of a `KeyValue`, as the store reads them.
pub(crate) fn is_key_value(encoded: &[u8]) -> bool {
    record::parse(encoded).is_some()
}

/// A header of which only the revision is known here.
fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision,
        ..pb::ResponseHeader::default()
    }
}
