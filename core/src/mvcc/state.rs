//! What readers and the mutator share: rows, index, history and the revisions that say what of them counts.
//!
//! Every method here runs under the lock and is short: walking a range takes at most [`SLICE_KEYS`] steps a call and
//! says where to go on. Rows of a transaction that has not ended lie above `revision`, where no reader looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::arena::{Arena, LONE_RECORD_BYTES, Lane, Location, NewRow};
use super::compact::Remembered;
use super::history::History;
use super::index::{Index, Place};
use super::record::{self, Fields};
use crate::error::RequestError;

/// Steps along keys or older rows that are made under one hold of the lock.
pub(super) const SLICE_KEYS: usize = if cfg!(test) { 4 } else { 128 };

/// What a row takes in the image besides its record: key, and the element in a page's table.
const IMAGE_ROW_BYTES: u64 = 17 + 16;

/// The keys that a request names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRange<'a> {
    pub(super) from: &'a [u8],
    end: End<'a>,
}

#[derive(Clone, Copy, Debug)]
enum End<'a> {
    /// The one key.
    Single,
    /// Exclusive.
    Before(&'a [u8]),
    /// Every key from the first on.
    None,
}

impl<'a> KeyRange<'a> {
    /// Reads a pair of fields as etcd does.
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::None,
            end => End::Before(end),
        };
        Self { from: key, end }
    }
}

/// The store's data behind one lock.
#[derive(Debug)]
pub(super) struct Shared {
    state: RwLock<State>,
    /// Revisions at which somebody reads for longer than one hold of the lock, with their number.
    pins: RwLock<BTreeMap<i64, usize>>,
    /// `State::revision`, for those who want nothing else.
    revision: AtomicI64,
    /// `State::compacted`, likewise.
    compacted: AtomicI64,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        let (revision, compacted) = (state.revision.into(), state.compacted.into());
        Self {
            state: RwLock::new(state),
            pins: RwLock::default(),
            revision,
            compacted,
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("the mutator has not panicked")
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("the mutator has not panicked")
    }

    /// Makes the revisions of the state known to those who do not take the lock. Called under the write lock.
    pub(super) fn publish(&self, state: &State) {
        self.compacted.store(state.compacted, Ordering::Release);
        self.revision.store(state.revision, Ordering::Release);
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// Keeps all that a reader at this revision sees from being removed. Called under the read lock, so that no
    /// removal is under way.
    pub(super) fn pin(&self, revision: i64) {
        *self
            .pins
            .write()
            .expect("pins are counted without panics")
            .entry(revision)
            .or_default() += 1;
    }

    pub(super) fn unpin(&self, revision: i64) {
        let mut pins = self.pins.write().expect("pins are counted without panics");
        let count = pins.get_mut(&revision).expect("who unpins has pinned");
        *count -= 1;
        if *count == 0 {
            pins.remove(&revision);
        }
    }

    /// The lowest pinned revision. Called under the write lock.
    pub(super) fn pinned(&self) -> Option<i64> {
        self.pins
            .read()
            .expect("pins are counted without panics")
            .first_key_value()
            .map(|(revision, _)| *revision)
    }
}

/// The store's data.
#[derive(Debug)]
pub(super) struct State {
    pub(super) arena: Arena,
    pub(super) index: Index,
    pub(super) history: History,
    /// The current revision: that of the last transaction that has ended.
    pub(super) revision: i64,
    /// The main revision of the newest row; above `revision` while a transaction goes on, below it if the newest
    /// row was compacted.
    pub(super) newest: i64,
    /// Reads below this are refused; -1 when never compacted.
    pub(super) compacted: i64,
    /// Reads below this may miss rows, since their removal has begun.
    pub(super) floor: i64,
    /// The last compaction asked for.
    pub(super) scheduled: Option<i64>,
    /// The last compaction whose rows are gone.
    pub(super) finished: Option<i64>,
    /// Hashes made by the latest compactions, in the order of their revision.
    pub(super) hashes: VecDeque<Remembered>,
    /// Bytes that the rows take in the image.
    pub(super) image_bytes: u64,
    /// Counts the times that the whole store was replaced.
    pub(super) epoch: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            arena: Arena::default(),
            index: Index::new(),
            history: History::default(),
            revision: 1,
            newest: 0,
            compacted: -1,
            floor: -1,
            scheduled: None,
            finished: None,
            hashes: VecDeque::new(),
            image_bytes: 0,
            epoch: 0,
        }
    }

    /// The revision to read at when a request asks for one, 0 or less being the current one.
    pub(super) fn readable(&self, asked: i64, current: i64) -> Result<i64, RequestError> {
        if asked > current {
            return Err(RequestError::FutureRev);
        }
        let revision = if asked <= 0 { current } else { asked };
        if revision < self.compacted {
            Err(RequestError::Compacted)
        } else {
            Ok(revision)
        }
    }

    /// The row of the key that counts at a revision; a tombstone or [`Location::NONE`] if the key does not exist.
    pub(super) fn get(&self, key: &[u8], revision: i64) -> Location {
        match self.index.find(&self.arena, key) {
            Ok(place) => self.at(self.index.row(place), revision, &mut 0),
            Err(_) => Location::NONE,
        }
    }

    /// From the newest row of a key, the newest that is not above a revision. Counts its steps.
    pub(super) fn at(&self, newest: Location, revision: i64, steps: &mut usize) -> Location {
        let mut row = newest;
        if self.newest > revision {
            while !row.is_none() && self.arena.main(row) > revision {
                row = self.arena.previous(row);
                *steps += 1;
            }
        }
        row
    }

    /// Calls `visit` with each row that exists at a revision, in key order, until it says false. After some steps
    /// it stops by itself and returns the record of the key to go on after.
    pub(super) fn walk(
        &self,
        keys: KeyRange<'_>,
        resume: Option<&Bytes>,
        revision: i64,
        mut visit: impl FnMut(Location) -> bool,
    ) -> Option<Bytes> {
        let (from, to) = self.places(keys, resume);
        let mut steps = 0;
        let mut last = Location::NONE;
        for (_, newest) in self.index.iter(from, to) {
            if steps >= SLICE_KEYS {
                return Some(self.arena.share(last));
            }
            steps += 1;
            let row = self.at(newest, revision, &mut steps);
            if !row.is_tombstone() && !visit(row) {
                return None;
            }
            last = newest;
        }
        None
    }

    /// The number of keys that exist at a revision, if that can be told without visiting them.
    pub(super) fn count_at_once(&self, keys: KeyRange<'_>, revision: i64) -> Option<u64> {
        if self.newest > revision {
            return None;
        }
        let (from, to) = self.places(keys, None);
        Some(self.index.count_live(from, to))
    }

    /// Adds the number of keys that exist at a revision to `count`, leaf by leaf; a leaf without newer rows knows its
    /// number. After some steps it stops and returns the record of the key to go on after.
    pub(super) fn count(
        &self,
        keys: KeyRange<'_>,
        resume: Option<&Bytes>,
        revision: i64,
        count: &mut u64,
    ) -> Option<Bytes> {
        let (from, to) = self.places(keys, resume);
        let mut steps = 0;
        let mut last = Location::NONE;
        for part in self.index.leaves(from, to) {
            if steps >= SLICE_KEYS && !last.is_none() {
                return Some(self.arena.share(last));
            }
            steps += 1;
            if part.main_max <= revision {
                *count += part.live();
            } else {
                for newest in part.rows {
                    steps += 1;
                    let row = self.at(*newest, revision, &mut steps);
                    *count += u64::from(!row.is_tombstone());
                }
            }
            last = part.rows.last().copied().unwrap_or(last);
        }
        None
    }

    /// The bounds of a range in the index, or of what remains of it.
    fn places(&self, keys: KeyRange<'_>, resume: Option<&Bytes>) -> (Place, Place) {
        let from = match resume {
            None => self.index.find(&self.arena, keys.from),
            Some(last) => self
                .index
                .find(&self.arena, record::key(last))
                .map(Index::after),
        };
        let to = match keys.end {
            End::Single => from.map(Index::after),
            End::Before(end) => self.index.find(&self.arena, end),
            End::None => Ok(self.index.end()),
        };
        (
            from.unwrap_or_else(|place| place),
            to.unwrap_or_else(|place| place),
        )
    }

    /// The numbers that a put of this key at this revision gets, and the lease that the key has until then.
    pub(super) fn numbers(&self, key: &[u8], main: i64) -> (Fields, i64) {
        let newest = self
            .index
            .find(&self.arena, key)
            .map_or(Location::NONE, |place| self.index.row(place));
        self.numbers_after(newest, main)
    }

    fn numbers_after(&self, newest: Location, main: i64) -> (Fields, i64) {
        if newest.is_tombstone() {
            return (
                Fields {
                    create: main,
                    modified: main,
                    version: 1,
                    ..Fields::default()
                },
                0,
            );
        }
        let old = record::fields(self.arena.bytes(newest));
        let new = Fields {
            create: old.create,
            modified: main,
            version: old.version + 1,
            ..Fields::default()
        };
        (new, old.lease)
    }

    /// Adds a put; returns the lease that the key had.
    pub(super) fn put(
        &mut self,
        revision: (i64, i64),
        key: &[u8],
        value: &[u8],
        lease: i64,
    ) -> i64 {
        let found = self.index.find(&self.arena, key);
        let newest = found.map_or(Location::NONE, |place| self.index.row(place));
        let (mut numbers, old_lease) = self.numbers_after(newest, revision.0);
        numbers.lease = lease;
        let row = NewRow {
            previous: newest,
            main: revision.0,
            sub: revision.1,
            tombstone: false,
        };
        let len_max = record::len_max(key, value);
        let location = self.arena.append(Lane::New, row, len_max, |out| {
            record::encode(out, key, &numbers, value)
        });
        self.link(found, key, revision, location);
        old_lease
    }

    /// Adds a put whose long record was encoded beforehand.
    pub(super) fn put_lone(&mut self, revision: (i64, i64), key: &[u8], encoded: Bytes) {
        assert!(encoded.len() >= LONE_RECORD_BYTES, "a lone record is long");
        let found = self.index.find(&self.arena, key);
        let newest = found.map_or(Location::NONE, |place| self.index.row(place));
        let row = NewRow {
            previous: newest,
            main: revision.0,
            sub: revision.1,
            tombstone: false,
        };
        let location = self.arena.append_lone(row, encoded);
        self.link(found, key, revision, location);
    }

    /// Deletes the key of an existing row; returns that row's record.
    pub(super) fn delete(&mut self, revision: (i64, i64), newest: Location) -> Bytes {
        let encoded = self.arena.share(newest);
        let key = record::key(&encoded);
        let place = self.index.find(&self.arena, key);
        assert_eq!(
            place.map(|place| self.index.row(place)),
            Ok(newest),
            "only the newest row can be deleted"
        );
        let row = NewRow {
            previous: newest,
            main: revision.0,
            sub: revision.1,
            tombstone: true,
        };
        let len_max = record::len_max(key, &[]);
        let location = self.arena.append(Lane::New, row, len_max, |out| {
            record::encode_tombstone(out, key)
        });
        self.link(place, key, revision, location);
        encoded
    }

    fn link(
        &mut self,
        found: Result<Place, Place>,
        key: &[u8],
        revision: (i64, i64),
        row: Location,
    ) {
        match found {
            Ok(place) => self.index.replace(&self.arena, place, row),
            Err(place) => self.index.insert(&self.arena, place, key, row),
        }
        self.history.push(revision, row);
        self.newest = revision.0;
        self.image_bytes += self.image_row_bytes(row);
    }

    /// Bytes that a row takes in the image.
    pub(super) fn image_row_bytes(&self, row: Location) -> u64 {
        IMAGE_ROW_BYTES + u64::from(row.is_tombstone()) + self.arena.bytes(row).len() as u64
    }
}
