//! What members put into the log: requests, and changes of the members.

use bytes::Bytes;
use raft::eraftpb;

use super::{Consensus, disguise};
use crate::types::MemberId;

/// What is to be put into the log.
#[derive(Clone, Debug)]
pub(crate) enum Proposal {
    /// An encoded request.
    Request(Bytes),
    /// An encoded change of the members.
    Change(Bytes),
}

impl Consensus {
    /// Puts entries into the log in one step, here or at the leader. `false`: there is no leader that takes them
    /// now, and nothing happened.
    pub(crate) fn propose(&mut self, proposals: Vec<Proposal>) -> bool {
        // A leader that was removed takes nothing, and does not say so: what it is sent is lost.
        let is_member = |leader: MemberId| self.raw.raft.prs().get(leader.0).is_some();
        if !self.leader().is_some_and(is_member) {
            return false;
        }
        let entries: Vec<_> = proposals.into_iter().map(entry_of).collect();
        let mut message = eraftpb::Message {
            from: self.member,
            entries: entries.into(),
            ..Default::default()
        };
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        let accepted = self.raw.raft.step(message).is_ok();
        self.reseed();
        accepted
    }

    /// Whether a change of the members that was proposed now would be dropped: the one before it is not applied yet, or
    /// this leader does not know yet whether there is one.
    pub(crate) fn has_pending_change(&self) -> bool {
        self.is_leader() && self.raw.raft.has_pending_conf()
    }
}

fn entry_of(proposal: Proposal) -> eraftpb::Entry {
    let (kind, data) = match proposal {
        Proposal::Request(data) => (eraftpb::EntryType::EntryNormal, data),
        Proposal::Change(data) => (eraftpb::EntryType::EntryConfChange, disguise::put_on(&data)),
    };
    let mut entry = eraftpb::Entry {
        data,
        ..eraftpb::Entry::default()
    };
    entry.set_entry_type(kind);
    entry
}
