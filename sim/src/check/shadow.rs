//! What each member's log holds, as the oracles follow it from outside: in its memory, and on its disk.
//!
//! A write enters the memory's log when the node emits it and the disk's when the driver reports it as durable.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::boundary::Write;
use quorate_core::types::WriteNumber;
use quorate_proto::raftpb::{Entry, HardState};

/// A log from index 1 on.
#[derive(Clone, Debug, Default)]
pub struct ShadowLog(Vec<Entry>);

/// One member's log.
#[derive(Clone, Debug, Default)]
pub struct Shadow {
    /// As the node has it.
    pub memory: ShadowLog,
    /// As the disk has it.
    pub durable: ShadowLog,
    /// The hard state on the disk.
    pub hard_state: HardState,
    /// For each term: how far the log on the disk reached while that was its term. One sync may cover a write and the
    /// one that takes its entries back in a later term; what the first allowed to say may still be said, as if it had
    /// been on its way for long.
    reached: BTreeMap<u64, u64>,
    /// Writes that are not durable yet.
    waiting: VecDeque<Write>,
    /// The last write that was emitted.
    pub write_last: WriteNumber,
}

impl ShadowLog {
    /// The last index.
    pub fn last(&self) -> u64 {
        self.0.len() as u64
    }

    /// The entry at an index.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.0.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    /// The term of the entry at an index; 0 before the first.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Puts entries at their places; what stood at or after the first one is gone. `false` if there is a gap.
    pub fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(first) = entries.first() else {
            return true;
        };
        if first.index == 0 || first.index > self.last() + 1 {
            return false;
        }
        self.0.truncate(first.index as usize - 1);
        for entry in entries {
            if entry.index != self.last() + 1 {
                return false;
            }
            self.0.push(entry.clone());
        }
        true
    }

    /// Keeps the entries up to an index.
    pub fn truncate(&mut self, last: u64) {
        self.0.truncate(last as usize);
    }
}

impl Shadow {
    /// The node wants this written. `false` if it leaves a gap.
    pub fn emit(&mut self, write: &Write) -> bool {
        self.write_last = write.number;
        self.waiting.push_back(write.clone());
        self.memory.append(&write.entries)
    }

    /// Everything up to this write is on the disk.
    pub fn written(&mut self, number: WriteNumber) {
        while let Some(write) = self.waiting.pop_front_if(|write| write.number <= number) {
            self.durable.append(&write.entries);
            if let Some(hard_state) = write.hard_state {
                self.hard_state = hard_state;
            }
            let reached = self.reached.entry(self.hard_state.term).or_default();
            *reached = self.durable.last().max(*reached);
        }
    }

    /// Whether the disk held the log up to an index when a message of this term said so.
    pub fn has_reached(&self, term: u64, index: u64) -> bool {
        if term == self.hard_state.term {
            return self.durable.last() >= index;
        }
        let is_past = term < self.hard_state.term;
        let reached = self.reached.get(&term).copied().unwrap_or(0);
        is_past && reached.max(self.durable.last()) >= index
    }

    /// The member starts anew from what its disk holds after index `base`.
    pub fn restart(&mut self, base: u64, entries: &[Entry], hard_state: HardState) {
        self.durable.truncate(base);
        self.durable.append(entries);
        self.memory = self.durable.clone();
        self.hard_state = hard_state;
        self.reached.clear();
        self.waiting.clear();
        self.write_last = WriteNumber(0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn write(number: u64, entries: &[(u64, u64)]) -> Write {
        let entry = |&(index, term): &(u64, u64)| Entry::normal(term, index, Bytes::new());
        Write {
            number: WriteNumber(number),
            entries: entries.iter().map(entry).collect(),
            hard_state: None,
            snapshot: None,
            must_sync: true,
        }
    }

    #[test]
    fn the_disk_follows_the_memory_write_by_write() {
        let mut shadow = Shadow::default();
        assert!(shadow.emit(&write(1, &[(1, 1), (2, 1)])));
        assert!(shadow.emit(&write(2, &[(2, 2)])));
        assert_eq!((shadow.memory.term(2), shadow.durable.last()), (Some(2), 0));
        shadow.written(WriteNumber(1));
        assert_eq!(shadow.durable.term(2), Some(1));
        shadow.written(WriteNumber(2));
        assert_eq!(shadow.durable.term(2), Some(2));
        assert!(!shadow.emit(&write(3, &[(5, 2)])), "a gap");
    }

    #[test]
    fn what_one_sync_wrote_and_took_back_was_there() {
        let mut shadow = Shadow::default();
        let state = |term| {
            Some(HardState {
                term,
                ..HardState::default()
            })
        };
        for (number, term, entries) in [(1, 1, &[(1, 1), (2, 1), (3, 1)][..]), (2, 2, &[(2, 2)])] {
            let hard_state = state(term);
            assert!(shadow.emit(&Write {
                hard_state,
                ..write(number, entries)
            }));
        }
        assert!(!shadow.has_reached(1, 3), "not yet");
        shadow.written(WriteNumber(2));
        assert!(shadow.has_reached(1, 3) && !shadow.has_reached(1, 4));
        assert!(shadow.has_reached(2, 2) && !shadow.has_reached(2, 3));
        assert!(!shadow.has_reached(3, 1), "a term that is not on the disk");
    }
}
