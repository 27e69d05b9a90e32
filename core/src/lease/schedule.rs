//! When leases end and when what is left of them is noted: what only the leader knows.
//!
//! Every lease stands in exactly one of two places: among the `expiries`, or, once it was handed out, among the few
//! that are being revoked. So a renewal moves one entry of an ordered set, and nothing ever looks at all leases.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{LeaseId, Time};

use super::{REVOKE_RETRY, REVOKE_WINDOW, REVOKES_IN_FLIGHT_MAX, REVOKES_PER_WINDOW};

#[derive(Debug)]
pub(super) struct Schedule {
    /// Leases that are not being revoked, by expiry.
    expiries: BTreeSet<(Time, LeaseId)>,
    /// Leases that are being revoked, with the moment to try again; at most [`REVOKES_IN_FLIGHT_MAX`].
    revoking: BTreeMap<LeaseId, Time>,
    /// Until when `window_left` counts.
    window_end: Time,
    /// How many leases may still be handed out in this window.
    window_left: usize,
    /// Long leases, by the moment at which to note what is left of them.
    checkpoints: BTreeSet<(Time, LeaseId)>,
}

impl Schedule {
    pub(super) fn new(now: Time, expiries: &[(Time, LeaseId)]) -> Self {
        Self {
            expiries: expiries.iter().copied().collect(),
            revoking: BTreeMap::new(),
            window_end: now,
            window_left: REVOKES_PER_WINDOW,
            checkpoints: BTreeSet::new(),
        }
    }

    pub(super) fn insert_expiry(&mut self, id: LeaseId, expiry: Time) {
        assert!(
            self.expiries.insert((expiry, id)),
            "a new lease is not scheduled yet"
        );
    }

    /// Moves a lease that has not expired.
    pub(super) fn move_expiry(&mut self, id: LeaseId, from: Time, to: Time) {
        assert!(
            self.expiries.remove(&(from, id)),
            "a lease that has not expired waits for its expiry"
        );
        self.insert_expiry(id, to);
    }

    /// Moves the next note about a lease; [`Time::NEVER`] is none.
    pub(super) fn move_checkpoint(&mut self, id: LeaseId, from: Time, to: Time) {
        if from != Time::NEVER {
            assert!(
                self.checkpoints.remove(&(from, id)),
                "a lease knows when its note is due"
            );
        }
        if to != Time::NEVER {
            self.checkpoints.insert((to, id));
        }
    }

    /// Forgets a lease that was revoked.
    pub(super) fn remove(&mut self, id: LeaseId, expiry: Time, checkpoint_at: Time) {
        if self.revoking.remove(&id).is_none() {
            assert!(
                self.expiries.remove(&(expiry, id)),
                "a lease is either revoked or waits for its expiry"
            );
        }
        self.move_checkpoint(id, checkpoint_at, Time::NEVER);
    }

    /// Hands out what must be revoked now: first what was tried in vain, then what has expired since.
    pub(super) fn expired(&mut self, now: Time, limit: usize) -> Vec<LeaseId> {
        if now >= self.window_end {
            self.window_end = now.after(REVOKE_WINDOW);
            self.window_left = REVOKES_PER_WINDOW;
        }
        let limit = limit.min(self.window_left);
        let mut due = Vec::new();
        for (id, retry_at) in &mut self.revoking {
            if due.len() < limit && *retry_at <= now {
                *retry_at = now.after(REVOKE_RETRY);
                due.push(*id);
            }
        }
        while due.len() < limit && self.revoking.len() < REVOKES_IN_FLIGHT_MAX {
            let Some((_, id)) = self
                .expiries
                .first()
                .copied()
                .filter(|(expiry, _)| *expiry <= now)
            else {
                break;
            };
            self.expiries.pop_first();
            self.revoking.insert(id, now.after(REVOKE_RETRY));
            due.push(id);
        }
        self.window_left -= due.len();
        due
    }

    /// The lease whose note is due first, if one is due now.
    pub(super) fn next_checkpoint(&self, now: Time) -> Option<LeaseId> {
        self.checkpoints
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, id)| *id)
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self) -> Time {
        let checkpoint = self.checkpoints.first().map_or(Time::NEVER, |(at, _)| *at);
        let retry = self.revoking.values().min().copied().unwrap_or(Time::NEVER);
        let room = self.revoking.len() < REVOKES_IN_FLIGHT_MAX;
        let expiry = self
            .expiries
            .first()
            .filter(|_| room)
            .map_or(Time::NEVER, |(at, _)| *at);
        let revoke = retry.min(expiry);
        let revoke = if self.window_left == 0 {
            revoke.max(self.window_end)
        } else {
            revoke
        };
        checkpoint.min(revoke)
    }

    /// Checks the schedule against the leases: id, expiry, moment of the next note.
    pub(super) fn check(&self, leases: impl Iterator<Item = (LeaseId, Time, Time)>) {
        let (mut count, mut notes) = (0, 0);
        for (id, expiry, checkpoint_at) in leases {
            count += 1;
            let waits = self.expiries.contains(&(expiry, id));
            assert!(
                waits != self.revoking.contains_key(&id),
                "lease_waits_or_is_revoked: {id:?}"
            );
            if checkpoint_at != Time::NEVER {
                notes += 1;
                assert!(
                    self.checkpoints.contains(&(checkpoint_at, id)),
                    "lease_note_is_scheduled: {id:?}"
                );
            }
        }
        assert_eq!(
            self.expiries.len() + self.revoking.len(),
            count,
            "schedule_knows_no_other_lease"
        );
        assert_eq!(self.checkpoints.len(), notes, "notes_are_of_leases");
        assert!(
            self.revoking.len() <= REVOKES_IN_FLIGHT_MAX,
            "revokes_in_flight_are_bounded"
        );
    }
}
