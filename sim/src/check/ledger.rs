//! The ledger: the committed log as the oracles know it, with what each entry did to the model.

use std::collections::BTreeMap;

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Entry;

use crate::model::{Applied, Model};

/// One committed entry.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The entry.
    pub entry: Entry,
    /// Its request's id and result, if it is one.
    pub applied: Option<(u64, Applied)>,
    /// The store's revision after it.
    pub revision: i64,
    /// The compact revision after it.
    pub compacted: i64,
}

impl Committed {
    /// The lease that this entry asks to end.
    pub fn revoked(&self) -> Option<i64> {
        let request = pb::InternalRaftRequest::decode(self.entry.payload()).ok()?;
        request.lease_revoke.map(|revoke| revoke.id)
    }
}

/// All of them, from index 1 on.
#[derive(Debug)]
pub struct Ledger {
    committed: Vec<Committed>,
    model: Model,
    /// The indexes of the entries with a request id; more than one only if a proposal was repeated.
    by_id: BTreeMap<u64, Vec<u64>>,
}

impl Ledger {
    /// An empty one.
    pub fn new(model: Model) -> Self {
        Self {
            committed: Vec::new(),
            model,
            by_id: BTreeMap::new(),
        }
    }

    /// The last committed index.
    pub fn last(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The entry at an index.
    pub fn get(&self, index: u64) -> Option<&Committed> {
        self.committed
            .get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// The model after the last committed entry. It answers for every earlier revision, too.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Revision and compact revision of the store that has applied everything up to an index.
    pub fn revisions_at(&self, index: u64) -> Option<(i64, i64)> {
        if index == 0 {
            return Some((1, -1));
        }
        self.get(index)
            .map(|entry| (entry.revision, entry.compacted))
    }

    /// Where the entries with a request id are.
    pub fn indexes_of(&self, id: u64) -> &[u64] {
        self.by_id.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last() + 1, "the ledger has no gaps");
        let applied = self.model.apply(&entry);
        if let Some((id, _)) = applied {
            self.by_id.entry(id).or_default().push(entry.index);
        }
        self.committed.push(Committed {
            entry,
            applied,
            revision: self.model.revision(),
            compacted: self.model.compacted(),
        });
    }
}
