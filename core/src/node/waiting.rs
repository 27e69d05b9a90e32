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

/// A batch of reads under one context.
#[derive(Debug)]
struct Attempt {
    context: Bytes,
    began: Time,
    reads: Vec<Read>,
}

/// Linearizable reads. One batch is under way at a time; a read that comes later waits for the next batch, since the
/// confirmation of a round that began before it proves nothing about it.
#[derive(Debug, Default)]
pub(super) struct Reads {
    arrived: Vec<Read>,
    attempt: Option<Attempt>,
    /// Confirmed: may run once this index is applied. Ascending.
    confirmed: VecDeque<(Index, Vec<Read>)>,
}

impl Reads {
    pub(super) fn arrive(&mut self, now: Time, ticket: Ticket) {
        self.arrived.push((ticket, now));
    }

    pub(super) fn open_count(&self) -> usize {
        let attempted = self
            .attempt
            .as_ref()
            .map_or(0, |attempt| attempt.reads.len());
        self.arrived.len()
            + attempted
            + self
                .confirmed
                .iter()
                .map(|(_, reads)| reads.len())
                .sum::<usize>()
    }

    pub(super) fn may_begin(&self) -> bool {
        self.attempt.is_none() && !self.arrived.is_empty()
    }

    /// All waiting reads become one attempt under a context that was never used before.
    pub(super) fn begin(&mut self, now: Time, context: Bytes) {
        let reads = std::mem::take(&mut self.arrived);
        self.attempt = Some(Attempt {
            context,
            began: now,
            reads,
        });
    }

    /// Gives up an attempt that has had no answer since `began_last`: its reads wait for another one.
    pub(super) fn abandon(&mut self, began_last: Time) {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.began <= began_last) {
            self.arrived.splice(0..0, attempt.reads);
        }
    }

    /// A confirmation; one for an attempt that was given up is ignored.
    pub(super) fn confirm(&mut self, context: &[u8], index: Index) {
        if let Some(attempt) = self.attempt.take_if(|attempt| attempt.context == context) {
            self.confirmed.push_back((index, attempt.reads));
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
        if let Some(attempt) = &mut self.attempt {
            attempt.reads.retain(others);
        }
        for (_, reads) in &mut self.confirmed {
            reads.retain(others);
        }
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
        if let Some(attempt) = &mut self.attempt {
            keep(&mut attempt.reads);
        }
        for (_, reads) in &mut self.confirmed {
            keep(reads);
        }
        expired
    }

    /// When the attempt under way began.
    pub(super) fn attempt_began(&self) -> Option<Time> {
        self.attempt.as_ref().map(|attempt| attempt.began)
    }

    /// When the oldest read came.
    pub(super) fn oldest(&self) -> Option<Time> {
        let attempted = self.attempt.iter().flat_map(|attempt| &attempt.reads);
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
        assert!(!reads.may_begin());
        reads.confirm(b"a", Index(5));
        assert_eq!(reads.release(Index(4)), []);
        assert_eq!(reads.release(Index(5)), [Ticket(1)]);
        assert!(reads.may_begin());
    }

    #[test]
    fn a_late_confirmation_of_an_abandoned_attempt_releases_nothing() {
        let mut reads = Reads::default();
        reads.arrive(Time(1), Ticket(1));
        reads.begin(Time(1), Bytes::from_static(b"a"));
        reads.abandon(Time(1));
        reads.begin(Time(2), Bytes::from_static(b"b"));
        reads.confirm(b"a", Index(1));
        assert_eq!(reads.release(Index(9)), []);
        reads.confirm(b"b", Index(2));
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
