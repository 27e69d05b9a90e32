//! Changes of the members: what is checked before one is proposed, and the end of a member that was removed.
//!
//! The checks here are those of the member that was asked, from what it sees of the others; whether a change fits the
//! members at all is decided when it is applied, the same way everywhere (`crate::member`).

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::Node;
use crate::boundary::{MembersChange, Output};
use crate::consensus::Proposal;
use crate::error::RequestError;
use crate::member;
use crate::types::{Index, MemberId, Ticket};

/// A member counts as connected when its links have been up for this long; etcd's value.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// A learner is ready when it has this much of the leader's log, in hundredths; etcd's value.
const READY_PERCENT: u64 = 90;
/// How long a removed member stays, so that the others hear that its removal is committed; etcd's value.
const FAREWELL: Duration = Duration::from_secs(1);
/// etcd's words.
const REMOVED: &str = "the member has been permanently removed from the cluster";

impl Node {
    /// Proposes a change, or refuses it.
    pub(super) fn on_change(&mut self, ticket: Ticket, change: &MembersChange) {
        if let Err(refusal) = self.check_change(change) {
            return self.reply(ticket, Err(refusal));
        }
        let payload = member::conf_change(ticket.0, change).encode_to_vec();
        self.proposals
            .open(self.now, ticket, Proposal::Change(Bytes::from(payload)));
    }

    /// The links to another member came up or went down.
    pub(super) fn on_activity(&mut self, member: MemberId, is_active: bool) {
        if is_active {
            self.active_since.entry(member).or_insert(self.now);
        } else {
            self.active_since.remove(&member);
        }
    }

    fn check_change(&self, change: &MembersChange) -> Result<(), RequestError> {
        let is_strict = self.config.strict_reconfig_check;
        match change {
            MembersChange::Add(member) if is_strict => self.check_addition(member.is_learner),
            MembersChange::Remove(member) if is_strict => self.check_removal(*member),
            MembersChange::Promote(member) => self.check_promotion(*member),
            MembersChange::Add(_) | MembersChange::Remove(_) | MembersChange::UpdateUrls { .. } => {
                Ok(())
            }
        }
    }

    /// The new member counts as one that is down.
    fn check_addition(&self, is_learner: bool) -> Result<(), RequestError> {
        let voters = self.state.membership.voters().count();
        let started = self.started_voters(None);
        let is_first_addition = voters == 1 && started == 1;
        if !is_learner && !is_first_addition && started < quorum(voters + 1) {
            return Err(RequestError::MemberNotEnoughStarted);
        }
        if voters > 1 && self.connected_voters() < quorum(voters + 1) {
            return Err(RequestError::Unhealthy);
        }
        Ok(())
    }

    fn check_removal(&self, id: MemberId) -> Result<(), RequestError> {
        let membership = &self.state.membership;
        if membership
            .member(id)
            .is_some_and(|member| member.is_learner)
        {
            return Ok(());
        }
        let voters = membership.voters().count();
        let left = membership.voters().filter(|voter| voter.id != id).count();
        if self.started_voters(Some(id)) < quorum(left) {
            return Err(RequestError::MemberNotEnoughStarted);
        }
        // Who is down is no part of the quorum that works.
        if id != self.config.member && !self.active_since.contains_key(&id) {
            return Ok(());
        }
        if self.connected_voters().saturating_sub(1) < 1 + (voters - 1) / 2 {
            return Err(RequestError::Unhealthy);
        }
        Ok(())
    }

    fn check_promotion(&self, id: MemberId) -> Result<(), RequestError> {
        let own = self.consensus.matched(self.config.member);
        let own = own.ok_or(RequestError::NotLeader)?;
        let matched = self.consensus.matched(id);
        let matched = matched.ok_or(RequestError::MemberNotFound)?;
        if !is_ready(matched, own) {
            return Err(RequestError::LearnerNotReady);
        }
        // The learner counts as started.
        let voters = self.state.membership.voters().count() + 1;
        let is_strict = self.config.strict_reconfig_check;
        if is_strict && self.started_voters(None) + 1 < quorum(voters) {
            return Err(RequestError::MemberNotEnoughStarted);
        }
        Ok(())
    }

    /// Voters that have published themselves.
    fn started_voters(&self, except: Option<MemberId>) -> usize {
        let voters = self.state.membership.voters();
        voters
            .filter(|voter| Some(voter.id) != except && !voter.name.is_empty())
            .count()
    }

    /// This member, if it votes, and the voters that it has been connected to for long enough.
    fn connected_voters(&self) -> usize {
        let is_connected = |id: MemberId| {
            let since = self.active_since.get(&id);
            since.is_some_and(|since| self.now.since(*since) > HEALTH_INTERVAL)
        };
        let voters = self.state.membership.voters();
        voters
            .filter(|voter| voter.id == self.config.member || is_connected(voter.id))
            .count()
    }

    /// This member is none any more: from now on it only helps the others to hear of it.
    pub(super) fn say_farewell(&mut self) {
        self.leaving.get_or_insert(self.now.after(FAREWELL));
    }

    /// Ends a member that was removed, when it is time.
    pub(super) fn leave_when_due(&mut self) {
        if !self.stopped && self.leaving.is_some_and(|end| end <= self.now) {
            self.stopped = true;
            self.out.push(Output::Stop(REMOVED.to_owned()));
        }
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

fn is_ready(learner: Index, leader: Index) -> bool {
    u128::from(learner.0) * 100 >= u128::from(leader.0) * u128::from(READY_PERCENT)
}
