//! The mutator: transactions, one at a time.

use std::collections::VecDeque;
use std::sync::{Arc, RwLockWriteGuard};

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::arena::{LONE_RECORD_BYTES, Location};
use super::compact::Job;
use super::counts::Counts;
use super::range::{self, Count};
use super::state::{KeyRange, Shared, State};
use super::view::View;
use super::{compare, record};
use crate::error::RequestError;
use crate::types::{LeaseId, Revision};

/// What an empty database image takes.
const IMAGE_BYTES_MIN: u64 = 20 << 10;

/// The store, as the one who writes to it holds it. Reading is done through a [`View`].
#[derive(Debug)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
    /// Compactions whose rows are still to be removed, oldest first.
    pub(super) jobs: VecDeque<Job>,
    /// Whether the last step of a compaction had to wait for a reader.
    pub(super) is_held: bool,
    /// How it was used; what another store did before it took this one's place is not counted.
    pub(super) counts: Counts,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store at revision 1.
    pub fn new() -> Self {
        Self::from_state(State::new())
    }

    pub(super) fn from_state(state: State) -> Self {
        Self {
            shared: Arc::new(Shared::new(state)),
            jobs: VecDeque::new(),
            is_held: false,
            counts: Counts::default(),
        }
    }

    /// How it was used so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A reading handle.
    pub fn view(&self) -> View {
        View {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The current main revision.
    pub fn revision(&self) -> Revision {
        Revision(self.shared.revision())
    }

    /// Reads below this are refused; -1 when never compacted.
    pub fn compact_revision(&self) -> Revision {
        Revision(self.shared.compacted())
    }

    /// Takes the contents of another store, as when a snapshot arrives. Views stay valid and show the new contents.
    pub fn replace(&mut self, other: Self) {
        self.jobs = other.jobs;
        self.is_held = false;
        let mut other = other.shared.write();
        let mut state = self.shared.write();
        let epoch = state.epoch + 1;
        std::mem::swap(&mut *state, &mut *other);
        state.epoch = epoch;
        self.shared.publish(&state);
    }

    /// The key as it is now.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        let state = self.shared.read();
        get(&state, key, state.revision)
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        let before = self.shared.revision();
        WriteTxn {
            shared: &self.shared,
            guard: None,
            before,
            changes: 0,
            did: Counts::default(),
            counts: &mut self.counts,
        }
    }

    /// Whether all conditions hold now.
    pub(crate) fn all_hold(&self, compares: &[pb::Compare]) -> bool {
        compare::all_hold(&self.shared, self.shared.revision(), compares)
    }

    /// Whether a range inside a transaction may be read now.
    pub(crate) fn check_txn_range(&self, request: &pb::RangeRequest) -> Result<(), RequestError> {
        compare::check_range(&self.shared, self.shared.revision(), request)
    }

    /// An honest estimate of the size of the database image, rows that a compaction still has to remove included.
    pub fn size_bytes(&self) -> u64 {
        self.view().size_bytes()
    }

    /// Panics if the index is not sound. Looks at every key.
    pub fn check(&self) {
        let state = self.shared.read();
        state.index.check(&state.arena);
        assert!(
            state.floor <= state.compacted,
            "rows are removed only below the compaction"
        );
        assert!(
            state.compacted <= state.revision,
            "compaction never passes the revision"
        );
        assert_eq!(
            state.revision,
            self.shared.revision(),
            "the published revision is the state's"
        );
    }
}

/// A transaction of the store: its changes become visible together, when it ends. It cannot be undone, so all that
/// may be refused is checked before; dropping it ends it.
#[derive(Debug)]
pub struct WriteTxn<'a> {
    shared: &'a Shared,
    /// The lock is kept from one change to the next, but not while ranges are read.
    guard: Option<RwLockWriteGuard<'a, State>>,
    /// The revision before the transaction.
    before: i64,
    changes: i64,
    /// What it has done so far.
    did: Counts,
    /// Where that is added at the end.
    counts: &'a mut Counts,
}

impl<'a> WriteTxn<'a> {
    /// The revision that reads of the transaction see: one more than before once something changed.
    pub fn revision(&self) -> Revision {
        Revision(self.before + i64::from(self.changes > 0))
    }

    /// The key as the transaction sees it.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        match &self.guard {
            Some(state) => get(state, key, self.revision().0),
            None => get(&self.shared.read(), key, self.revision().0),
        }
    }

    /// Answers a range as the transaction sees it.
    pub fn range(&mut self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, RequestError> {
        self.guard = None;
        self.did.ranges += 1;
        range::range(self.shared, Some(self.revision().0), request, Count::Wanted)
    }

    /// Writes a key; returns the lease that it had, 0 for none.
    pub fn put(&mut self, key: &[u8], value: &[u8], lease: LeaseId) -> LeaseId {
        self.did.puts += 1;
        self.did.put_bytes += (key.len() + value.len()) as u64;
        if key.len() + value.len() >= LONE_RECORD_BYTES {
            return self.put_long(key, value, lease);
        }
        let revision = self.take_revision();
        LeaseId(self.state().put(revision, key, value, lease.0))
    }

    /// Deletes keys, calling `deleted` with each and its lease, in key order; returns their number.
    pub fn delete_range(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        mut deleted: impl FnMut(&[u8], LeaseId),
    ) -> i64 {
        self.did.deletes += 1;
        let keys = KeyRange::new(key, range_end);
        let mut resume = None;
        let mut count = 0;
        loop {
            let revision = self.revision().0;
            let mut rows: Vec<Location> = Vec::new();
            let state = self.state();
            resume = state.walk(keys, resume.as_ref(), revision, |row| {
                rows.push(row);
                true
            });
            for row in rows {
                let revision = self.take_revision();
                let encoded = self.state().delete(revision, row);
                let fields = record::fields(&encoded);
                deleted(&encoded[fields.key], LeaseId(fields.lease));
                count += 1;
            }
            if resume.is_none() {
                return count;
            }
            self.guard = None; // Readers go on between slices; what they must not see is above their revision.
        }
    }

    /// Makes the changes visible; returns the revision of the store, which is the old one if nothing changed.
    pub fn end(self) -> Revision {
        self.revision()
    }

    /// A long record is encoded without holding the lock.
    fn put_long(&mut self, key: &[u8], value: &[u8], lease: LeaseId) -> LeaseId {
        self.guard = None;
        let revision = self.take_revision();
        let (mut numbers, old_lease) = self.shared.read().numbers(key, revision.0);
        numbers.lease = lease.0;
        let mut encoded = Vec::with_capacity(record::len_max(key, value));
        record::encode(&mut encoded, key, &numbers, value);
        encoded.shrink_to_fit();
        self.state().put_lone(revision, key, Bytes::from(encoded));
        LeaseId(old_lease)
    }

    fn state(&mut self) -> &mut State {
        self.guard.get_or_insert_with(|| self.shared.write())
    }

    fn take_revision(&mut self) -> (i64, i64) {
        self.changes += 1;
        (self.before + 1, self.changes - 1)
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        self.counts.end_txn(&self.did);
        // Half a transaction that a panic left must not be seen.
        if self.changes > 0 && !std::thread::panicking() {
            let revision = self.revision().0;
            let shared = self.shared;
            let state = self.state();
            state.revision = revision;
            shared.publish(state);
        }
    }
}

fn get(state: &State, key: &[u8], revision: i64) -> Option<KeyValue> {
    let row = state.get(key, revision);
    (!row.is_tombstone()).then(|| record::decode(state.arena.share(row)))
}

impl State {
    /// Bytes of the database image.
    pub(super) fn size_bytes(&self) -> u64 {
        // Pages are filled to about 98 %, and one page in a few hundred is a branch.
        IMAGE_BYTES_MIN + self.image_bytes + self.image_bytes / 40
    }
}
