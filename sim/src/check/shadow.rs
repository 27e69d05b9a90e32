//! What each member's log holds, as the oracles follow it from outside: in its memory, and on its disk.
//!
//! A write enters the memory's log when the node emits it and the disk's when the driver reports it as durable. A
//! snapshot that starts the log anew stands for the committed entries up to it: the log holds those from then on.

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
    /// Durable writes whose first entry takes back what the terms before theirs may have put there.
    taken_back: Vec<TakenBack>,
    /// Writes that are not durable yet, with the entries that a snapshot stands for.
    waiting: VecDeque<(Write, Option<Vec<Entry>>)>,
    /// The last write that was emitted.
    pub write_last: WriteNumber,
}

/// One write that raised the term and took entries back: what was acknowledged in the terms between, from the first index
/// on, may never have stood in any write of its own.
#[derive(Clone, Copy, Debug)]
struct TakenBack {
    /// The term on the disk before.
    before: u64,
    /// The term after.
    after: u64,
    /// The first index.
    first: u64,
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

    /// Starts anew with these entries, from index 1 on.
    pub fn replace(&mut self, entries: Vec<Entry>) {
        self.0 = entries;
    }

    /// The entries up to an index.
    pub fn up_to(&self, last: u64) -> Vec<Entry> {
        self.0[..last as usize].to_vec()
    }
}

impl Shadow {
    /// The node wants this written; `restored` is what the log holds before it, if it starts the log anew. `false` if
    /// it leaves a gap.
    pub fn emit(&mut self, write: &Write, restored: Option<Vec<Entry>>) -> bool {
        self.write_last = write.number;
        if let Some(entries) = &restored {
            self.memory.replace(entries.clone());
        }
        self.waiting.push_back((write.clone(), restored));
        self.memory.append(&write.entries)
    }

    /// Everything up to this write is on the disk.
    pub fn written(&mut self, number: WriteNumber) {
        while let Some((write, restored)) = self
            .waiting
            .pop_front_if(|(write, _)| write.number <= number)
        {
            if let Some(entries) = restored {
                self.durable.replace(entries);
            }
            self.durable.append(&write.entries);
            let before = self.hard_state.term;
            if let Some(hard_state) = write.hard_state {
                self.hard_state = hard_state;
            }
            let after = self.hard_state.term;
            if let Some(first) = write.entries.first().filter(|_| after > before) {
                let first = first.index;
                self.taken_back.push(TakenBack {
                    before,
                    after,
                    first,
                });
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
        // One write may hold what a later leader made of the log, and the acknowledgement of what that took back. Only what
        // came and went between two writes may be missing: the term must have been passed within that one write, and the
        // index be one that it took back.
        let is_taken_back =
            |it: &TakenBack| (it.before..it.after).contains(&term) && it.first <= index;
        is_past
            && (reached.max(self.durable.last()) >= index
                || self.taken_back.iter().any(is_taken_back))
    }

    /// The member starts anew from what its disk holds: the entries that its checkpoint stands for, and those after.
    pub fn restart(&mut self, restored: Vec<Entry>, entries: &[Entry], hard_state: HardState) {
        self.durable.replace(restored);
        self.durable.append(entries);
        self.memory = self.durable.clone();
        self.hard_state = hard_state;
        self.reached.clear();
        self.taken_back.clear();
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
            ..Write::default()
        }
    }

    #[test]
    fn the_disk_follows_the_memory_write_by_write() {
        let mut shadow = Shadow::default();
        assert!(shadow.emit(&write(1, &[(1, 1), (2, 1)]), None));
        assert!(shadow.emit(&write(2, &[(2, 2)]), None));
        assert_eq!((shadow.memory.term(2), shadow.durable.last()), (Some(2), 0));
        shadow.written(WriteNumber(1));
        assert_eq!(shadow.durable.term(2), Some(1));
        shadow.written(WriteNumber(2));
        assert_eq!(shadow.durable.term(2), Some(2));
        let restored = vec![Entry::normal(3, 1, Bytes::new())];
        assert!(shadow.emit(&write(3, &[(2, 3)]), Some(restored)));
        shadow.written(WriteNumber(3));
        assert_eq!(
            (shadow.durable.term(1), shadow.durable.term(2)),
            (Some(3), Some(3))
        );
        assert!(!shadow.emit(&write(4, &[(5, 3)]), None), "a gap");
    }

    /// A log of three entries of term 1, and what came in term 2, in one sync.
    fn in_one_sync(second: &[(u64, u64)]) -> Shadow {
        let mut shadow = Shadow::default();
        for (number, term, entries) in [(1, 1, &[(1, 1), (2, 1), (3, 1)][..]), (2, 2, second)] {
            let hard_state = Some(HardState {
                term,
                ..HardState::default()
            });
            assert!(shadow.emit(
                &Write {
                    hard_state,
                    ..write(number, entries)
                },
                None
            ));
        }
        assert!(!shadow.has_reached(1, 3), "not yet");
        shadow.written(WriteNumber(2));
        shadow
    }

    #[test]
    fn what_one_sync_wrote_and_took_back_was_there() {
        let shadow = in_one_sync(&[(2, 2)]);
        assert!(shadow.has_reached(1, 3));
        assert!(shadow.has_reached(2, 2) && !shadow.has_reached(2, 3));
        assert!(!shadow.has_reached(3, 1), "a term that is not on the disk");
    }

    #[test]
    fn what_came_and_went_within_one_write_need_not_have_been_there() {
        let mut shadow = Shadow::default();
        let write = |number, term, entries: &[(u64, u64)]| Write {
            hard_state: Some(HardState {
                term,
                ..HardState::default()
            }),
            ..write(number, entries)
        };
        // Entries 2..=4 of term 1 came, and were taken back by term 3, before the second write.
        assert!(shadow.emit(&write(1, 1, &[(1, 1)]), None));
        assert!(shadow.emit(&write(2, 3, &[(2, 3)]), None));
        shadow.written(WriteNumber(2));
        assert!(shadow.has_reached(1, 4) && shadow.has_reached(2, 3));
        assert!(!shadow.has_reached(3, 3), "the present term must be there");
        // What a leader of the same term appends later excuses nothing.
        let mut shadow = Shadow::default();
        assert!(shadow.emit(&write(1, 1, &[(1, 1)]), None));
        assert!(shadow.emit(&write(2, 3, &[]), None));
        assert!(shadow.emit(&write(3, 3, &[(2, 3)]), None));
        shadow.written(WriteNumber(3));
        assert!(!shadow.has_reached(1, 4), "it was never written");
    }

    #[test]
    fn what_no_later_leader_took_back_must_be_there() {
        let shadow = in_one_sync(&[]);
        assert!(shadow.has_reached(1, 3) && !shadow.has_reached(1, 4));
    }
}
