//! The multi-version store (skeleton of the interface).
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::error::RequestError;
use crate::types::Revision;

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

/// The single mutator.
#[derive(Debug, Default)]
pub struct Store {}

/// A handle that reads while the store is written; cheap to clone, `Send + Sync`.
#[derive(Clone, Debug)]
pub struct View {}

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

impl Store {
    /// An empty store at revision 1.
    pub fn new() -> Self {
        Self {}
    }
    /// A reading handle.
    pub fn view(&self) -> View {
        View {}
    }
    /// The current main revision.
    pub fn revision(&self) -> Revision {
        todo!()
    }
}

impl View {
    /// The current main revision.
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// The compact revision; -1 when never compacted.
    pub fn compact_revision(&self) -> Revision {
        todo!()
    }
    /// Answers a range with all of etcd's options; the header holds the revision only.
    pub fn range(&self, _request: &pb::RangeRequest) -> Result<pb::RangeResponse, RequestError> {
        todo!()
    }
    /// Answers a read-only transaction; the header holds the revision only.
    pub fn read_txn(&self, _request: &pb::TxnRequest) -> Result<pb::TxnResponse, RequestError> {
        todo!()
    }
    /// `HashKV` at a revision, 0 is the current one.
    pub fn hash_kv(&self, _revision: Revision) -> Result<HashKv, RequestError> {
        todo!()
    }
    /// Up to `limit` rows of the history in revision order, from (main, sub) on.
    pub fn history(&self, _from: (i64, i64), _limit: usize) -> Vec<Row> {
        todo!()
    }
}
