//! Requests that wait for their answer: proposals on their way through the log, and reads that wait for the leader's
//! confirmation and for this member to catch up.
//!
//! Each open ticket is answered exactly once, at the latest when its time is over.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::consensus::Proposal;
use crate::types::{Index, Ticket, Time};

/// Proposals between their request and their application.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Not yet given to consensus: there is no leader, or the batch is still filling.
    queued: VecDeque<(Ticket, Proposal)>,
    /// All unanswered ones that a client waits for.
    open: BTreeMap<Ticket, Time>,
    /// The same by age: all have the same patience.
    by_age: VecDeque<(Time, Ticket)>,
}

impl Proposals {
    /// A proposal that a client waits for.
    pub(super) fn open(&mut self, now: Time, ticket: Ticket, proposal: Proposal) {
        let known = self.open.insert(ticket, now);
        assert!(known.is_none(), "ticket {} is used twice", ticket.0);
        self.by_age.push_back((now, ticket));
        self.queued.push_back((ticket, proposal));
    }

    /// A proposal of this member itself: nobody waits.
    pub(super) fn queue(&mut self, ticket: Ticket, payload: Bytes) {
        self.queued.push_back((ticket, Proposal::Request(payload)));
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// What is queued, in order, for one step of consensus: without changes of the members, or with one at most, since
    /// Raft drops a second one.
    pub(super) fn queued(&self, may_change: bool) -> Vec<Proposal> {
        let mut changes = usize::from(!may_change);
        let now = self.queued.iter().filter(|(_, proposal)| {
            let goes = !is_change(proposal) || changes == 0;
            changes += usize::from(is_change(proposal));
            goes
        });
        now.map(|(_, proposal)| proposal.clone()).collect()
    }

    /// Consensus has taken what was queued.
    pub(super) fn on_accepted(&mut self, may_change: bool) {
        let mut changes = usize::from(!may_change);
        self.queued.retain(|(_, proposal)| {
            let waits = is_change(proposal) && changes > 0;
            changes += usize::from(is_change(proposal));
            waits
        });
    }

    /// Whether somebody waits for this proposal.
    pub(super) fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Ends the waiting of a proposal; `false` if nobody waits.
    pub(super) fn close(&mut self, ticket: Ticket) -> bool {
        self.open.remove(&ticket).is_some()
    }

    /// Ends the waiting of those that came at or before `start_last`: (ticket, when it came).
    pub(super) fn expire(&mut self, start_last: Time) -> Vec<(Ticket, Time)> {
        let mut expired = Vec::new();
        while let Some(&(started, ticket)) = self
            .by_age
            .front()
            .filter(|(started, _)| *started <= start_last)
        {
            self.by_age.pop_front();
            if self.open.remove(&ticket).is_some() {
                expired.push((ticket, started));
            }
        }
        if !expired.is_empty() {
            self.queued
                .retain(|(ticket, _)| expired.iter().all(|(gone, _)| gone != ticket));
        }
        expired
    }

    /// When the oldest proposal came.
    pub(super) fn oldest(&mut self) -> Option<Time> {
        while let Some((started, ticket)) = self.by_age.front() {
            if self.open.contains_key(ticket) {
                return Some(*started);
            }
            self.by_age.pop_front();
        }
        None
    }
}

fn is_change(proposal: &Proposal) -> bool {
    matches!(proposal, Proposal::Change(_))
}

/// A read: its ticket and when it came.
type Read = (Ticket, Time);

/// Rounds that may be without an answer at a time. Where the way to the leader and back takes longer than that many
/// retries, the oldest is given up.
const ATTEMPTS_MAX: usize = 32;

/// A round that confirms leadership, under a context of its own, with the reads that came before it and after the
/// round before.
#[derive(Debug)]
struct Attempt {
    context: Bytes,
    began: Time,
    reads: Vec<Read>,
}

/// Linearizable reads. A read that comes while a round is under way waits for the next one, since the confirmation of a
/// round that began before it proves nothing about it. A round without an answer is followed by another after a while,
/// but it still counts when its answer comes late: it may have far to go.
#[derive(Debug, Default)]
pub(super) struct Reads {
    arrived: Vec<Read>,
    /// Without an answer, the oldest first.
    attempts: VecDeque<Attempt>,
    /// Confirmed: may run once this index is applied. Ascending.
    confirmed: VecDeque<(Index, Vec<Read>)>,
}

impl Reads {
    pub(super) fn arrive(&mut self, now: Time, ticket: Ticket) {
        self.arrived.push((ticket, now));
    }

    pub(super) fn open_count(&self) -> usize {
        let attempted = self.attempts.iter().map(|attempt| attempt.reads.len());
        let confirmed = self.confirmed.iter().map(|(_, reads)| reads.len());
        self.arrived.len() + attempted.sum::<usize>() + confirmed.sum::<usize>()
    }

    /// Whether reads wait for a round to begin: none is under way, or the newest began at or before `began_last`.
    pub(super) fn may_begin(&self, began_last: Option<Time>) -> bool {
        match self.attempts.back() {
            None => !self.arrived.is_empty(),
            Some(newest) => began_last.is_some_and(|last| newest.began <= last),
        }
    }

    /// All waiting reads become part of a round under a context that was never used before.
    pub(super) fn begin(&mut self, now: Time, context: Bytes) {
        let reads = std::mem::take(&mut self.arrived);
        self.attempts.push_back(Attempt {
            context,
            began: now,
            reads,
        });
        if self.attempts.len() > ATTEMPTS_MAX {
            let oldest = self.attempts.pop_front().expect("there are many");
            self.attempts[0].reads.splice(0..0, oldest.reads);
        }
    }

    /// A confirmation: what was asked for before its round began has it. One for a round that was given up, or had an
    /// answer already, is ignored.
    pub(super) fn confirm(&mut self, context: &[u8], index: Index) {
        let place = self
            .attempts
            .iter()
            .position(|attempt| attempt.context == context);
        if let Some(place) = place {
            let attempts = self.attempts.drain(..=place);
            let reads = attempts.flat_map(|attempt| attempt.reads).collect();
            self.confirmed.push_back((index, reads));
        }
    }

    /// The reads that may run when everything up to `applied` is applied.
    pub(super) fn release(&mut self, applied: Index) -> Vec<Ticket> {
        let mut released = Vec::new();
        while let Some((_, reads)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            released.extend(reads.into_iter().map(|(ticket, _)| ticket));
        }
        released
    }

    /// Ends the waiting of one that has its answer from elsewhere.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        let others = |&(other, _): &Read| other != ticket;
        self.arrived.retain(others);
        for attempt in &mut self.attempts {
            attempt.reads.retain(others);
        }
        for (_, reads) in &mut self.confirmed {
            reads.retain(others);
        }
        self.forget_rounds_without_reads();
    }

    /// Ends the waiting of those that came at or before `start_last`.
    pub(super) fn expire(&mut self, start_last: Time) -> Vec<(Ticket, Time)> {
        let mut expired = Vec::new();
        let mut keep = |reads: &mut Vec<Read>| {
            reads.retain(|&(ticket, started)| {
                let late = started <= start_last;
                if late {
                    expired.push((ticket, started));
                }
                !late
            });
        };
        keep(&mut self.arrived);
        for attempt in &mut self.attempts {
            keep(&mut attempt.reads);
        }
        for (_, reads) in &mut self.confirmed {
            keep(reads);
        }
        self.forget_rounds_without_reads();
        expired
    }

    /// What nobody waits for any more is not tried again.
    fn forget_rounds_without_reads(&mut self) {
        if self.attempts.iter().all(|attempt| attempt.reads.is_empty()) {
            self.attempts.clear();
        }
    }

    /// When the newest round under way began.
    pub(super) fn newest_began(&self) -> Option<Time> {
        self.attempts.back().map(|attempt| attempt.began)
    }

    /// When the oldest read came.
    pub(super) fn oldest(&self) -> Option<Time> {
        let attempted = self.attempts.iter().flat_map(|attempt| &attempt.reads);
        let confirmed = self.confirmed.iter().flat_map(|(_, reads)| reads);
        self.arrived
            .iter()
            .chain(attempted)
            .chain(confirmed)
            .map(|&(_, started)| started)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_never_rides_on_a_round_that_began_before_it() {
        let mut reads = Reads::default();
        reads.arrive(Time(1), Ticket(1));
        reads.begin(Time(1), Bytes::from_static(b"a"));
        reads.arrive(Time(2), Ticket(2));
        assert!(!reads.may_begin(None));
        reads.confirm(b"a", Index(5));
        assert_eq!(reads.release(Index(4)), []);
        assert_eq!(reads.release(Index(5)), [Ticket(1)]);
        assert!(reads.may_begin(None));
    }

    #[test]
    fn a_late_confirmation_counts_for_what_came_before_its_round() {
        let mut reads = Reads::default();
        for (time, context) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            reads.arrive(Time(time), Ticket(time));
            assert!(reads.may_begin(Some(Time(time - 1))), "the newest is old");
            reads.begin(Time(time), Bytes::from_static(context));
        }
        reads.confirm(b"a", Index(1));
        assert_eq!(reads.release(Index(9)), [Ticket(1)]);
        reads.confirm(b"c", Index(3));
        assert_eq!(reads.release(Index(9)), [Ticket(2), Ticket(3)]);
        reads.confirm(b"b", Index(2));
        assert_eq!(reads.release(Index(9)), []);
        assert_eq!(reads.open_count(), 0);
    }

    #[test]
    fn rounds_that_nobody_answers_do_not_pile_up() {
        let mut reads = Reads::default();
        reads.arrive(Time(0), Ticket(1));
        for round in 0..100_u64 {
            reads.begin(Time(round), Bytes::from(round.to_be_bytes().to_vec()));
        }
        assert_eq!(reads.attempts.len(), ATTEMPTS_MAX);
        reads.confirm(&0_u64.to_be_bytes(), Index(1));
        assert_eq!(reads.release(Index(9)), []);
        reads.confirm(&99_u64.to_be_bytes(), Index(1));
        assert_eq!(reads.release(Index(9)), [Ticket(1)]);
    }

    #[test]
    fn each_ticket_ends_once() {
        let mut proposals = Proposals::default();
        proposals.open(Time(1), Ticket(1), Proposal::Request(Bytes::new()));
        proposals.open(Time(2), Ticket(2), Proposal::Request(Bytes::new()));
        assert!(proposals.close(Ticket(1)));
        assert!(!proposals.close(Ticket(1)));
        assert_eq!(proposals.expire(Time(2)), [(Ticket(2), Time(2))]);
        assert!(!proposals.close(Ticket(2)));
        assert_eq!(proposals.oldest(), None);
    }
}
