//! Reading handles.

use std::sync::Arc;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::{request_op, response_op};
use quorate_proto::mvccpb::KeyValue;

use super::range::{self, Count};
use super::state::{KeyRange, Shared, State};
use super::{HashKv, Row, compare, hash, record};
use crate::error::RequestError;
use crate::types::Revision;

/// A handle that reads while the store is written; cheap to clone, `Send + Sync`.
///
/// A read sees the store at one revision, fixed when it begins. It holds the store's lock only for some hundred keys
/// at a time; what it returns are views of the stored bytes, which it keeps alive.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) shared: Arc<Shared>,
}

impl View {
    /// The current main revision.
    pub fn revision(&self) -> Revision {
        Revision(self.shared.revision())
    }

    /// The compact revision; -1 when never compacted.
    pub fn compact_revision(&self) -> Revision {
        Revision(self.shared.compacted())
    }

    /// The key as it is now.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        let state = self.shared.read();
        let row = state.get(key, state.revision);
        (!row.is_tombstone()).then(|| record::decode(state.arena.share(row)))
    }

    /// The key as it was right before a revision, as a watch with `prev_kv` shows it; `None` if it did not exist
    /// or if that revision is compacted.
    pub fn get_before(&self, key: &[u8], revision: Revision) -> Option<KeyValue> {
        let state = self.shared.read();
        let row = if revision.0 - 1 < state.compacted {
            return None;
        } else {
            state.get(key, revision.0 - 1)
        };
        (!row.is_tombstone()).then(|| record::decode(state.arena.share(row)))
    }

    /// Answers a range with all of etcd's options; the header holds the revision only.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, RequestError> {
        range::range(&self.shared, None, request, Count::Wanted)
    }

    /// The same for one who goes through a range in pieces: `count` is not to be relied on, since counting what a past
    /// revision shows takes longer than reading a piece of it.
    pub fn range_uncounted(
        &self,
        request: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, RequestError> {
        range::range(&self.shared, None, request, Count::Unwanted)
    }

    /// Answers a read-only transaction, which holds nothing but ranges; the header holds the revision only.
    pub fn read_txn(&self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, RequestError> {
        let pin = self.pin_current();
        let revision = pin.revision.0;
        let succeeded = compare::all_hold(&self.shared, revision, &request.compare);
        let operations = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        for operation in operations {
            compare::check_range(&self.shared, revision, range_of(operation))?;
        }
        let mut responses = Vec::with_capacity(operations.len());
        for operation in operations {
            let response = range::range(
                &self.shared,
                Some(revision),
                range_of(operation),
                Count::Wanted,
            )?;
            responses.push(pb::ResponseOp {
                response: Some(response_op::Response::ResponseRange(response)),
            });
        }
        Ok(pb::TxnResponse {
            header: Some(super::header(revision)),
            succeeded,
            responses,
        })
    }

    /// `HashKV` at a revision, 0 is the current one.
    pub fn hash_kv(&self, revision: Revision) -> Result<HashKv, RequestError> {
        hash::hash_kv(self, revision.0)
    }

    /// Hashes kept of the latest compactions, in the order of their revision; without those that tell nothing, since no
    /// key was left.
    pub fn compaction_hashes(&self) -> Vec<HashKv> {
        let state = self.shared.read();
        let telling = state.hashes.iter().filter(|kept| kept.is_telling);
        telling.map(|kept| kept.hash).collect()
    }

    /// Whether a hash at a revision can be compared with that of another member. Not where the revision shows no key: it
    /// then depends on whether its member has compacted, in etcd too; nor where that is not known any more.
    pub fn is_telling_at(&self, revision: Revision) -> bool {
        let mut any = false;
        let mut resume = None;
        loop {
            let state = self.shared.read();
            if revision.0 < state.compacted {
                return false;
            }
            let all = KeyRange::new(&[], &[0]);
            resume = state.walk(all, resume.as_ref(), revision.0, |_| {
                any = true;
                false
            });
            if any || resume.is_none() {
                return any;
            }
        }
    }

    /// Up to `limit` rows of the history in revision order, from (main, sub) on. Whoever must not miss a row looks
    /// at [`Self::compact_revision`] afterwards: rows below it may be gone.
    pub fn history(&self, from: (i64, i64), limit: usize) -> Vec<Row> {
        let state = self.shared.read();
        let to = (state.revision + 1, 0);
        rows(&state, from, to, limit)
    }

    /// Holds off the removal of compacted rows, for a scan of the whole history as it is now.
    pub fn pin(&self) -> Pin {
        let state = self.shared.read();
        self.pin_at(&state, i64::MIN)
    }

    /// Holds off the removal of what the current revision shows, and of every row above it.
    pub fn pin_current(&self) -> Pin {
        let state = self.shared.read();
        self.pin_at(&state, state.revision)
    }

    fn pin_at(&self, state: &State, pinned: i64) -> Pin {
        self.shared.pin(pinned);
        Pin {
            view: self.clone(),
            pinned,
            epoch: state.epoch,
            revision: Revision(state.revision),
            compact_revision: Revision(state.compacted),
            scheduled: state.scheduled.map(Revision),
            finished: state.finished.map(Revision),
        }
    }

    /// An honest estimate of the size of the database image, rows that a compaction still has to remove included.
    pub fn size_bytes(&self) -> u64 {
        self.shared.read().size_bytes()
    }

    /// Bytes of memory that rows, index and history take.
    pub fn memory_bytes(&self) -> usize {
        let state = self.shared.read();
        state.arena.memory_bytes() + state.index.memory_bytes() + state.history.memory_bytes()
    }
}

/// Holds off the removal of compacted rows as long as it lives. Writes go on, above its revision.
#[derive(Debug)]
pub struct Pin {
    view: View,
    pinned: i64,
    epoch: u64,
    /// The revision of the store when it was pinned.
    pub revision: Revision,
    /// The compact revision when it was pinned.
    pub compact_revision: Revision,
    /// The last compaction asked for, `scheduledCompactRev` of the image.
    pub scheduled: Option<Revision>,
    /// The last compaction whose rows are gone, `finishedCompactRev` of the image.
    pub finished: Option<Revision>,
}

impl Pin {
    /// Up to `limit` rows in revision order, from (main, sub) to the pinned revision; `None` if the whole store was
    /// replaced meanwhile.
    pub fn history(&self, from: (i64, i64), limit: usize) -> Option<Vec<Row>> {
        let state = self.view.shared.read();
        (state.epoch == self.epoch).then(|| rows(&state, from, (self.revision.0 + 1, 0), limit))
    }

    /// Whether the store is still the one that was pinned: if it was replaced, nothing is held off.
    pub fn holds(&self) -> bool {
        self.is_valid(&self.view.shared.read())
    }

    /// Whether the store is still the one that was pinned.
    pub(super) fn is_valid(&self, state: &State) -> bool {
        state.epoch == self.epoch
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.view.shared.unpin(self.pinned);
    }
}

fn rows(state: &State, from: (i64, i64), to: (i64, i64), limit: usize) -> Vec<Row> {
    let place = state.history.seek(&state.arena, from);
    let row_of = |location| {
        let (main, sub) = state.arena.revision(location);
        Row {
            main,
            sub,
            tombstone: location.is_tombstone(),
            key_value: state.arena.share(location),
        }
    };
    state
        .history
        .iter(place)
        .take(limit)
        .map(row_of)
        .take_while(|row| (row.main, row.sub) < to)
        .collect()
}

fn range_of(operation: &pb::RequestOp) -> &pb::RangeRequest {
    match &operation.request {
        Some(request_op::Request::RequestRange(range)) => range,
        _ => panic!("a read-only transaction holds nothing but ranges"),
    }
}
