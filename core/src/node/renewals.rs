//! Renewals of leases: who waits for one, and what it still waits for.
//!
//! Only the leader renews, and only once it has confirmed that it leads: a leader that was deposed without hearing of
//! it would acknowledge what its successor never knows, and let the client's lease end early (etcd#15247). So a renewal
//! first rides on a round of heartbeats that began after it came, together with the reads, and then on the log if a
//! checkpoint or a revocation of its lease is on its way. This file decides nothing about leases; that is the lessor's.

use std::collections::BTreeMap;

use quorate_proto::etcdserverpb as pb;

use super::Node;
use crate::boundary::Response;
use crate::error::RequestError;
use crate::lease::Renewal;
use crate::types::{LeaseId, Term, Ticket, Time};

/// A renewal without an answer.
#[derive(Debug)]
pub(super) struct Renewing {
    lease: LeaseId,
    came: Time,
    /// The term in which this member led when it came; its answer is of that term or none.
    term: Term,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A round of heartbeats has yet to tell that this member leads; among the reads under the same ticket.
    Unconfirmed,
    /// This member led after the renewal came.
    Confirmed,
    /// And has asked the log to clear the lease's checkpoint.
    Clearing,
}

/// Renewals without an answer.
pub(super) type Renewals = BTreeMap<Ticket, Renewing>;

impl Node {
    pub(super) fn on_renew(&mut self, ticket: Ticket, lease: LeaseId) {
        if !self.state.lessor.is_leader() {
            return self.reply(ticket, Err(RequestError::NotLeader));
        }
        let renewing = Renewing {
            lease,
            came: self.now,
            term: self.consensus.term(),
            stage: Stage::Unconfirmed,
        };
        let known = self.renewals.insert(ticket, renewing);
        assert!(known.is_none(), "ticket {} is used twice", ticket.0);
        self.reads.arrive(self.now, ticket);
    }

    /// This member led after the renewal of this ticket came; `false` if the ticket is none of a renewal.
    pub(super) fn confirm_renewal(&mut self, ticket: Ticket) -> bool {
        let renewing = self.renewals.get_mut(&ticket);
        let is_renewal = renewing.is_some();
        if let Some(renewing) = renewing {
            renewing.stage = Stage::Confirmed;
        }
        is_renewal
    }

    /// Tries each confirmed renewal; those that must wait for the log stay. Who leads no longer answers none.
    pub(super) fn retry_renewals(&mut self) {
        let (leads, term) = (self.state.lessor.is_leader(), self.consensus.term());
        let tried = self.renewals.extract_if(.., |_, renewing| {
            renewing.stage != Stage::Unconfirmed || !leads || renewing.term != term
        });
        for (ticket, renewing) in tried.collect::<Vec<_>>() {
            if !leads || renewing.term != term {
                if renewing.stage == Stage::Unconfirmed {
                    self.reads.forget(ticket);
                }
                self.reply(ticket, Err(RequestError::NotLeader));
                continue;
            }
            match self.state.lessor.renew(self.now, renewing.lease) {
                Renewal::Renewed(ttl) => {
                    self.measured.counts.leases_renewed += 1;
                    self.reply(ticket, Ok(Response::LeaseRenewed { ttl }));
                }
                Renewal::Unknown => self.reply(ticket, Ok(Response::LeaseRenewed { ttl: 0 })),
                Renewal::NotLeader => self.reply(ticket, Err(RequestError::NotLeader)),
                Renewal::Expired => {
                    self.renewals.insert(ticket, renewing);
                }
                Renewal::ClearFirst(checkpoint) => self.clear_first(ticket, renewing, checkpoint),
            }
        }
    }

    fn clear_first(&mut self, ticket: Ticket, renewing: Renewing, checkpoint: pb::LeaseCheckpoint) {
        if renewing.stage == Stage::Confirmed {
            let checkpoints = vec![checkpoint];
            self.propose_own(pb::InternalRaftRequest {
                lease_checkpoint: Some(pb::LeaseCheckpointRequest { checkpoints }),
                ..Default::default()
            });
        }
        let stage = Stage::Clearing;
        self.renewals.insert(ticket, Renewing { stage, ..renewing });
    }

    /// Ends the waiting of the confirmed ones that came at or before `start_last`; the others end with the reads.
    pub(super) fn expire_renewals(&mut self, start_last: Time) {
        let late = self.renewals.extract_if(.., |_, renewing| {
            renewing.stage != Stage::Unconfirmed && renewing.came <= start_last
        });
        for (ticket, _) in late.collect::<Vec<_>>() {
            self.reply(ticket, Err(RequestError::Timeout));
        }
    }
}
