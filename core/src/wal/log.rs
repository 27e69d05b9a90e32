//! Where each entry of the log lies: the index that the writer and recovery keep and that reads use.
//!
//! This module owns the rules by which later records replace earlier ones. It never touches a disk.
//!
//! The log is a row of spans without gaps. A span is a stretch of one segment that holds consecutive entries of one
//! term; other kinds of records may lie between them. An entry at an index that exists cuts off everything from
//! there on, as Raft does; a snapshot record that the log does not reach, or contradicts, starts the log anew.

use crate::types::{Index, Term};

/// A span is closed when it is this long, so that a read decodes at most so much before what it looks for.
const SPAN_BYTES_MAX: u64 = 64 * 1024;

/// Where a frame lies, and where the chain stood before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The sequence number of the segment.
    pub(super) sequence: u64,
    /// The frame's offset in it.
    pub(super) offset: u64,
    /// The chain's value before the frame.
    pub(super) checksum: u32,
}

/// Consecutive entries of one term in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first entry.
    pub(super) first: Index,
    /// The last entry that is still valid; the segment may hold later ones, which were replaced.
    pub(super) last: Index,
    /// The term of all of them.
    pub(super) term: Term,
    /// The frame of the first entry.
    pub(super) position: Position,
}

/// The row of spans.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Sorted and without gaps.
    spans: Vec<Span>,
    /// What lies under the first span, as far as it is known.
    base: Option<Base>,
}

/// The snapshot under the log.
#[derive(Clone, Copy, Debug)]
struct Base {
    index: Index,
    term: Term,
    /// Whether the next entry must be the one after it. Not so where the log's head was purged: an old snapshot
    /// record may stand there whose next entries are gone.
    adjoins: bool,
}

/// Why an entry cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// Entries are missing between this index and the new one.
    Gap(Index),
    /// The entry before has this later term.
    TermGoesBack(Term),
}

impl Log {
    /// The first and last index, if there are entries.
    pub(super) fn range(&self) -> Option<(Index, Index)> {
        Some((self.spans.first()?.first, self.spans.last()?.last))
    }

    /// The last index that the log or the snapshot under it covers; 0 when nothing is known.
    pub(super) fn last(&self) -> Index {
        self.spans
            .last()
            .map(|span| span.last)
            .or(self.base.map(|base| base.index))
            .unwrap_or_default()
    }

    /// The term of the entry at `index`, if the log holds it.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        self.spans_from(index).first().map(|span| span.term)
    }

    /// The first index of each run of one term, and that term, up to `last`; empty if the log does not hold `last`.
    pub(super) fn terms_up_to(&self, last: Index) -> Vec<(Index, Term)> {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        if self.term(last).is_some() {
            for span in self.spans.iter().take_while(|span| span.first <= last) {
                if terms.last().is_none_or(|&(_, term)| term != span.term) {
                    terms.push((span.first, span.term));
                }
            }
        }
        terms
    }

    /// The spans from the one that holds `index` on; empty if none does.
    pub(super) fn spans_from(&self, index: Index) -> &[Span] {
        match self.spans.partition_point(|span| span.last < index) {
            at if self.spans.get(at).is_some_and(|span| span.first <= index) => &self.spans[at..],
            _ => &[],
        }
    }

    /// Adds an entry. One at an index that exists replaces it and all that follow.
    pub(super) fn add_entry(
        &mut self,
        index: Index,
        term: Term,
        position: Position,
    ) -> Result<(), Misplaced> {
        let last = self.last();
        if self.spans.is_empty()
            && let Some(base) = self.base
        {
            if index <= base.index {
                return Ok(()); // The snapshot holds it.
            }
            if base.adjoins && index > base.index.next() {
                return Err(Misplaced::Gap(base.index));
            }
        } else if !self.spans.is_empty() && index > last.next() {
            return Err(Misplaced::Gap(last));
        }
        if let Some(before) = self.term_under(index).filter(|&before| before > term) {
            return Err(Misplaced::TermGoesBack(before));
        }
        let follows = index == last.next();
        self.cut_from(index);
        match self.spans.last_mut() {
            // After a cut the frames behind the last span are replaced entries: it cannot grow over them.
            Some(span) if follows && span.takes(term, position) => span.last = index,
            _ => self.spans.push(Span {
                first: index,
                last: index,
                term,
                position,
            }),
        }
        Ok(())
    }

    /// Whether a snapshot starts the log anew, because the log does not reach it or contradicts it.
    pub(super) fn is_restarted_by(&self, index: Index, term: Term) -> bool {
        match (self.range(), self.base) {
            (Some((first, last)), _) => {
                index > last || (index >= first && self.term(index) != Some(term))
            }
            (None, Some(base)) => index > base.index,
            (None, None) => true,
        }
    }

    /// Starts the log anew after a snapshot.
    pub(super) fn restart(&mut self, index: Index, term: Term) {
        // In a log whose head was purged, an old snapshot record may come first whose next entries are gone.
        let known = index == Index(0) || self.base.is_some() || !self.spans.is_empty();
        self.base = Some(Base {
            index,
            term,
            adjoins: known && self.base.is_none_or(|base| base.adjoins),
        });
        self.spans.clear();
    }

    /// Says that the next entry of a log without entries is the one after this.
    pub(super) fn begin_after(&mut self, index: Index, term: Term) {
        assert!(self.spans.is_empty(), "the log has entries");
        self.base = Some(Base {
            index,
            term,
            adjoins: true,
        });
    }

    /// Forgets the entries in segments before `sequence`.
    pub(super) fn purge_before(&mut self, sequence: u64) {
        let keep_from = self
            .spans
            .partition_point(|span| span.position.sequence < sequence);
        if let Some(purged) = self.spans.drain(..keep_from).next_back() {
            self.base = Some(Base {
                index: purged.last,
                term: purged.term,
                adjoins: true,
            });
        }
    }

    /// The term of what stands right before `index`.
    fn term_under(&self, index: Index) -> Option<Term> {
        let before = Index(index.0 - 1);
        self.term(before).or(self
            .base
            .filter(|base| base.index == before)
            .map(|base| base.term))
    }

    fn cut_from(&mut self, index: Index) {
        let keep = self.spans.partition_point(|span| span.first < index);
        self.spans.truncate(keep);
        if let Some(span) = self.spans.last_mut() {
            span.last = span.last.min(Index(index.0 - 1));
        }
    }
}

impl Span {
    fn takes(&self, term: Term, position: Position) -> bool {
        self.term == term
            && self.position.sequence == position.sequence
            && position.offset - self.position.offset < SPAN_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(offset: u64) -> Position {
        Position {
            sequence: offset / 1_000_000,
            offset: offset % 1_000_000,
            checksum: 0,
        }
    }

    /// A log that began with snapshot 0.
    fn fresh() -> Log {
        let mut log = Log::default();
        note_snapshot(&mut log, 0, 0);
        log
    }

    fn note_snapshot(log: &mut Log, index: u64, term: u64) {
        if log.is_restarted_by(Index(index), Term(term)) {
            log.restart(Index(index), Term(term));
        }
    }

    #[test]
    fn a_gap_and_a_term_that_goes_back_are_refused() {
        let mut log = fresh();
        assert_eq!(
            log.add_entry(Index(2), Term(1), at(0)),
            Err(Misplaced::Gap(Index(0)))
        );
        log.add_entry(Index(1), Term(3), at(0)).unwrap();
        assert_eq!(
            log.add_entry(Index(3), Term(3), at(8)),
            Err(Misplaced::Gap(Index(1)))
        );
        assert_eq!(
            log.add_entry(Index(2), Term(2), at(8)),
            Err(Misplaced::TermGoesBack(Term(3)))
        );
        log.add_entry(Index(1), Term(2), at(8)).unwrap();
        assert_eq!(log.range(), Some((Index(1), Index(1))));
    }

    #[test]
    fn a_snapshot_beyond_or_against_the_log_starts_it_anew() {
        let mut log = fresh();
        for index in 1..=9 {
            log.add_entry(Index(index), Term(1), at(index * 8)).unwrap();
        }
        note_snapshot(&mut log, 5, 1);
        assert_eq!(log.range(), Some((Index(1), Index(9))));
        note_snapshot(&mut log, 8, 2);
        assert_eq!((log.range(), log.last()), (None, Index(8)));
        log.add_entry(Index(9), Term(2), at(100)).unwrap();
        note_snapshot(&mut log, 20, 2);
        assert_eq!((log.range(), log.last()), (None, Index(20)));
        assert_eq!(
            log.add_entry(Index(22), Term(2), at(200)),
            Err(Misplaced::Gap(Index(20)))
        );
        log.add_entry(Index(21), Term(2), at(200)).unwrap();
    }

    #[test]
    fn a_log_whose_head_was_purged_may_begin_anywhere() {
        let mut log = Log::default();
        note_snapshot(&mut log, 5, 1);
        assert_eq!(log.last(), Index(5));
        log.add_entry(Index(9), Term(1), at(0)).unwrap();
        assert_eq!(log.range(), Some((Index(9), Index(9))));
    }

    proptest! {
        /// Against a plain map from index to (term, offset), where a new entry removes all after it.
        #[test]
        fn the_latest_version_of_each_index_is_found(
            writes in proptest::collection::vec((0..12_u64, 0..3_u64, 8..90_000_u64), 1..80),
        ) {
            let mut log = fresh();
            let mut frames: Vec<(u64, u64, u64)> = Vec::new(); // offset, index, term
            let mut model: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            let (mut offset, mut term) = (0, 1);
            for (back, terms, bytes) in writes {
                let last = model.keys().next_back().copied().unwrap_or(0);
                let index = (last + 1).saturating_sub(back).max(1);
                term += u64::from(terms == 0);
                log.add_entry(Index(index), Term(term), at(offset)).unwrap();
                frames.push((offset, index, term));
                model.split_off(&index);
                model.insert(index, (term, offset));
                offset += bytes / 8 * 8;
            }
            prop_assert_eq!(log.last().0, *model.keys().next_back().unwrap());
            for (&index, &(term, offset)) in &model {
                prop_assert_eq!(log.term(Index(index)), Some(Term(term)));
                let span = log.spans_from(Index(index))[0];
                // Reading on from the span's first frame, the first entry with the index is the valid one.
                let start = span.position.sequence * 1_000_000 + span.position.offset;
                let found = frames.iter().find(|frame| frame.0 >= start && frame.1 == index).unwrap();
                prop_assert_eq!(found, &(offset, index, term));
            }
        }
    }
}
