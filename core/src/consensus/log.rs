//! The Raft log as raft-rs reads it: a window of entries in memory over the whole log on disk.
//!
//! ```text
//!   first            window_first                       last
//!     |  on disk only     |  in memory (and on disk)      |
//!     +-------------------+-------------------------------+
//! ```
//!
//! raft-rs wants to read entries at once. What left the window is asked for with [`Log::take_wanted`] and given
//! back with [`Log::supply`]; raft-rs then tries again. Terms of all indexes stay in memory, as a handful of
//! (first index, term) pairs. This module never writes: the node emits what must become durable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// A read of old entries that raft-rs waits for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) context: GetEntriesContext,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) bytes_max: u64,
}

/// The log of one member.
#[derive(Debug)]
pub(super) struct Log {
    hard_state: HardState,
    conf_state: ConfState,
    /// The first index that the disk still has.
    first: u64,
    /// Term of the entry just before `first`.
    base_term: u64,
    /// Contiguous; the first has index `window_first`.
    window: VecDeque<Entry>,
    window_first: u64,
    window_bytes: usize,
    /// (first index, term) of each run of entries with one term, ascending; covers `first..=last`.
    terms: Vec<(u64, u64)>,
    /// Entries read back from the disk, contiguous; kept until the next answer.
    read_back: Vec<Entry>,
    wanted: RefCell<Vec<Wanted>>,
    /// Whether a read is on its way; one at a time.
    reading: Cell<bool>,
    /// The checkpoint that can be sent to a follower; its content lies on the disk.
    checkpoint: Option<Snapshot>,
    /// Followers for whom there is no checkpoint that would do.
    snapshot_wanted: RefCell<BTreeSet<u64>>,
}

/// What an entry costs in memory, about: itself, its payload, and what an allocation costs.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len() + 16
}

impl Log {
    /// A log after a snapshot. `older` are the entries up to the snapshot that the disk still has, as (first index,
    /// term) of each run of one term; the term before the first of them is not known, so that one counts as gone. That
    /// holds for the very first entry, too: a log that was restored from a backup has it, and does not hold what the
    /// backup holds, so that nobody may begin with it.
    pub(super) fn new(
        hard_state: HardState,
        conf_state: ConfState,
        snapshot_index: u64,
        snapshot_term: u64,
        older: Vec<(u64, u64)>,
        entries: Vec<Entry>,
    ) -> Self {
        let (first, base_term) = match older.first() {
            Some(&(index, term)) if index <= snapshot_index => (index + 1, term),
            _ => (snapshot_index + 1, snapshot_term),
        };
        let terms = if first <= snapshot_index {
            older
        } else {
            Vec::new()
        };
        let mut log = Self {
            hard_state,
            conf_state,
            first,
            base_term,
            window: VecDeque::new(),
            window_first: snapshot_index + 1,
            window_bytes: 0,
            terms,
            read_back: Vec::new(),
            wanted: RefCell::default(),
            reading: Cell::new(false),
            checkpoint: None,
            snapshot_wanted: RefCell::default(),
        };
        log.append(entries);
        log
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn last(&self) -> u64 {
        self.window_first + self.window.len() as u64 - 1
    }

    /// Appends entries, cutting off what they overwrite.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(start) = entries.first().map(|entry| entry.index) else {
            return;
        };
        assert!(
            start >= self.window_first,
            "an entry at {start} would overwrite what left memory"
        );
        assert!(
            start <= self.last() + 1,
            "a gap before {start}, the log ends at {}",
            self.last()
        );
        self.truncate(start);
        for entry in entries {
            assert_eq!(entry.index, self.last() + 1, "entries are contiguous");
            if self
                .terms
                .last()
                .is_none_or(|&(_, term)| term != entry.term)
            {
                self.terms.push((entry.index, entry.term));
            }
            self.window_bytes += entry_bytes(&entry);
            self.window.push_back(entry);
        }
    }

    fn truncate(&mut self, from: u64) {
        while self.last() >= from && !self.window.is_empty() {
            let entry = self.window.pop_back().expect("not empty");
            self.window_bytes -= entry_bytes(&entry);
        }
        while self.terms.last().is_some_and(|&(first, _)| first >= from) {
            self.terms.pop();
        }
        self.read_back.retain(|entry| entry.index < from);
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(super) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Lets go of entries up to `applied` while the window is larger than `bytes_max`. At least the last entry stays.
    pub(super) fn shrink(&mut self, applied: u64, bytes_max: usize) {
        while self.window_bytes > bytes_max && self.window.len() > 1 && self.window_first <= applied
        {
            let entry = self.window.pop_front().expect("more than one");
            self.window_bytes -= entry_bytes(&entry);
            self.window_first += 1;
        }
    }

    /// The reads of old entries to make now.
    pub(super) fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut *self.wanted.borrow_mut())
    }

    /// The checkpoint that a follower can get instead of entries; `None` while it is being replaced.
    pub(super) fn set_checkpoint(&mut self, checkpoint: Option<Snapshot>) {
        self.checkpoint = checkpoint;
    }

    /// The followers that have waited for a checkpoint.
    pub(super) fn take_snapshot_wanted(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.snapshot_wanted.borrow_mut())
    }

    /// Whether a follower waits for a checkpoint.
    pub(super) fn is_snapshot_wanted(&self) -> bool {
        !self.snapshot_wanted.borrow().is_empty()
    }

    /// Starts the log anew after a snapshot.
    pub(super) fn restart(&mut self, index: u64, term: u64, conf_state: ConfState) {
        self.conf_state = conf_state;
        self.first = index + 1;
        self.base_term = term;
        self.window.clear();
        self.window_first = index + 1;
        self.window_bytes = 0;
        self.terms.clear();
        self.read_back.clear();
    }

    /// The disk has lost what lies before `kept`, or before the window: a follower that needs it needs a snapshot.
    pub(super) fn lose_before(&mut self, kept: u64) {
        let kept = kept.min(self.window_first);
        if self.first < kept {
            self.base_term = Storage::term(self, kept - 1).expect("in the log");
            self.first = kept;
            let run = self
                .terms
                .partition_point(|&(first, _)| first <= self.first);
            self.terms.drain(..run.saturating_sub(1));
        }
    }

    /// Takes entries that were read from the disk.
    pub(super) fn supply(&mut self, entries: Vec<Entry>) {
        self.reading.set(false);
        self.read_back = entries;
    }

    /// Entries of the window in `[low, high)`, at least one, up to about `bytes_max`.
    fn in_window(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let start = usize::try_from(low - self.window_first).expect("in the window");
        let count = usize::try_from(high - low).expect("in the window");
        limited(self.window.range(start..start + count), bytes_max)
    }

    fn of_read_back(&self, low: u64, high: u64, bytes_max: u64) -> Option<Vec<Entry>> {
        let start = self.read_back.iter().position(|entry| entry.index == low)?;
        Some(limited(
            self.read_back[start..]
                .iter()
                .take_while(|entry| entry.index < high),
            bytes_max,
        ))
    }
}

fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut chosen = Vec::new();
    let mut bytes = 0u64;
    for entry in entries {
        bytes += entry_bytes(entry) as u64;
        if !chosen.is_empty() && bytes > bytes_max {
            break;
        }
        chosen.push(entry.clone());
    }
    chosen
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        assert!(
            high <= self.last() + 1,
            "entries up to {high} of a log that ends at {}",
            self.last()
        );
        if low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if low >= self.window_first {
            return Ok(self.in_window(low, high, bytes_max));
        }
        if let Some(entries) = self.of_read_back(low, high, bytes_max) {
            return Ok(entries);
        }
        assert!(
            context.can_async(),
            "applied entries stay in memory until they are applied"
        );
        if !self.reading.replace(true) {
            let last = high.min(self.window_first) - 1;
            self.wanted.borrow_mut().push(Wanted {
                context,
                first: low,
                last,
                bytes_max,
            });
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index + 1 == self.first {
            return Ok(self.base_term);
        }
        if index < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > self.last() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let run = self.terms.partition_point(|&(first, _)| first <= index);
        Ok(self.terms[run - 1].1)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> Result<Snapshot> {
        // The entries after it must be there, and a member that it does not name would refuse it.
        let does = |checkpoint: &&Snapshot| {
            let metadata = checkpoint.get_metadata();
            let members = metadata.get_conf_state();
            metadata.index + 1 >= self.first
                && (members.voters.contains(&to) || members.learners.contains(&to))
        };
        if let Some(checkpoint) = self.checkpoint.as_ref().filter(does) {
            return Ok(checkpoint.clone());
        }
        self.snapshot_wanted.borrow_mut().insert(to);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![b'x'; 36].into(),
            ..Entry::default()
        }
    }

    fn log(range: std::ops::RangeInclusive<u64>) -> Log {
        let first = *range.start();
        let entries = range.map(|index| entry(index, 1 + index / 10)).collect();
        Log::new(
            HardState::default(),
            ConfState::default(),
            first - 1,
            0,
            Vec::new(),
            entries,
        )
    }

    fn read(log: &Log, low: u64, high: u64) -> Result<Vec<u64>> {
        log.entries(low, high, None, GetEntriesContext::empty(true))
            .map(|entries| entries.iter().map(|entry| entry.index).collect())
    }

    #[test]
    fn terms_outlive_the_entries_in_memory() {
        let mut log = log(1..=35);
        log.shrink(30, 0);
        assert_eq!(log.window_first, 31);
        for index in 1..=35 {
            assert_eq!(log.term(index).unwrap(), 1 + index / 10);
        }
        assert_eq!(log.term(0).unwrap(), 0);
        assert!(log.term(36).is_err());
    }

    #[test]
    fn entries_before_the_snapshot_can_be_read_back_if_the_disk_has_them() {
        let older = vec![(5, 1), (8, 2)];
        let log = Log::new(
            HardState::default(),
            ConfState::default(),
            10,
            2,
            older,
            vec![entry(11, 3)],
        );
        assert_eq!(
            (log.first_index().unwrap(), log.last_index().unwrap()),
            (6, 11)
        );
        let terms: Vec<_> = (5..=11).map(|index| log.term(index).unwrap()).collect();
        assert_eq!(terms, [1, 1, 1, 2, 2, 2, 3]);
        assert!(log.term(4).is_err());
    }

    #[test]
    fn a_log_on_the_disk_is_never_taken_for_all_there_is() {
        for older in [vec![(1, 1)], vec![(1, 1), (8, 2)]] {
            let state = HardState::default();
            let log = Log::new(state, ConfState::default(), 10, 2, older, Vec::new());
            assert_eq!(log.first_index().unwrap(), 2);
            assert!(log.term(0).is_err());
        }
    }

    #[test]
    fn what_left_memory_is_asked_for_once_and_served_when_supplied() {
        let mut log = log(1..=20);
        log.shrink(15, 0);
        assert!(read(&log, 5, 21).is_err());
        assert!(read(&log, 5, 21).is_err());
        let wanted = log.take_wanted();
        assert_eq!(wanted.len(), 1);
        assert_eq!((wanted[0].first, wanted[0].last), (5, 15));
        log.supply((5..=15).map(|index| entry(index, 1)).collect());
        assert_eq!(read(&log, 5, 21).unwrap(), (5..=15).collect::<Vec<_>>());
        assert_eq!(read(&log, 16, 21).unwrap(), (16..=20).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_disk_has_lost_counts_as_compacted() {
        let mut log = log(1..=35);
        log.shrink(25, 0);
        log.lose_before(u64::MAX);
        assert_eq!(log.first_index().unwrap(), 26);
        assert_eq!(log.term(25).unwrap(), 3);
        assert_eq!(log.term(30).unwrap(), 4);
        assert!(log.term(24).is_err());
        let read = log.entries(10, 36, None, GetEntriesContext::empty(true));
        assert_eq!(read.unwrap_err(), Error::Store(StorageError::Compacted));
    }

    #[test]
    fn an_append_replaces_the_tail_and_its_terms() {
        let mut log = log(1..=25);
        log.append(vec![entry(15, 7), entry(16, 8)]);
        assert_eq!(log.last(), 16);
        assert_eq!(log.term(14).unwrap(), 2);
        assert_eq!(log.term(15).unwrap(), 7);
        assert_eq!(log.term(16).unwrap(), 8);
    }
}
