//! Snapshots in consensus: which checkpoint a follower can get, and what happens to the log when one arrives.
//!
//! ```text
//!   leader     entries gone ─► wants a checkpoint ─► offered ─► MsgSnap leaves ─► the driver says how it went
//!   follower   MsgSnap + image ─► raft restores ─► log anew, Write{install, record} ─► Written ─► acknowledged
//! ```
//!
//! Between the restoring and its write raft-rs has not yet applied what its log begins after, and would panic if it
//! campaigned then: it does not tick, and nobody can make it.

use quorate_proto::raftpb;
use raft::eraftpb;

use super::{Consensus, convert};
use crate::boundary::SnapshotRecord;
use crate::checkpoint::Install;
use crate::types::{Index, MemberId, WriteNumber};

/// A snapshot that raft has taken, on its way into the log.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) record: SnapshotRecord,
    pub(super) install: Install,
}

/// A snapshot whose write is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restoring {
    pub(super) index: u64,
    pub(super) write: WriteNumber,
}

impl Consensus {
    /// The checkpoint that can be sent: the one on the disk. `None` while it is being replaced. Followers that have
    /// waited for it are tried again.
    pub(crate) fn offer_checkpoint(&mut self, record: Option<&SnapshotRecord>) {
        let checkpoint = record.map(|record| {
            let members = convert::conf_state_in(&record.conf_state);
            convert::snapshot_at(record.index.0, record.term.0, members)
        });
        let is_there = checkpoint.is_some();
        self.raw.mut_store().set_checkpoint(checkpoint);
        if is_there {
            for member in self.raw.mut_store().take_snapshot_wanted() {
                if self.is_leader() && self.raw.raft.prs().get(member).is_some() {
                    self.raw.raft.send_append(member);
                }
            }
        }
    }

    /// Whether a follower waits for a checkpoint that would do for it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.is_leader() && self.raw.store().is_snapshot_wanted()
    }

    /// Whether the present checkpoint is about to be sent.
    pub(crate) fn is_sending_checkpoint(&self) -> bool {
        let is_snapshot = |message: &eraftpb::Message| {
            message.get_msg_type() == eraftpb::MessageType::MsgSnapshot
        };
        self.raw.raft.msgs.iter().any(is_snapshot)
    }

    /// How the sending of a snapshot ended.
    pub(crate) fn report_snapshot(&mut self, to: MemberId, done: bool) {
        let status = if done {
            raft::SnapshotStatus::Finish
        } else {
            raft::SnapshotStatus::Failure
        };
        self.raw.report_snapshot(to.0, status);
        self.reseed();
    }

    /// Whether a snapshot is on its way into the log.
    pub(crate) fn is_restoring(&self) -> bool {
        self.accepted.is_some() || self.restoring.is_some()
    }

    /// Takes a snapshot of the leader, whose image this is. Gives the image back if raft has no use for it: this
    /// member is as far already, or the sender leads no more.
    pub(crate) fn receive_snapshot(
        &mut self,
        message: raftpb::Message,
        record: SnapshotRecord,
        install: Install,
    ) -> Result<(), Install> {
        assert!(!self.is_restoring(), "one snapshot at a time");
        let Ok(message) = convert::message_in(message) else {
            return Err(install);
        };
        // A refused message is a lost one to its sender.
        let _ = self.raw.step(message);
        self.reseed();
        if self.raw.raft.raft_log.unstable_snapshot().is_none() {
            return Err(install);
        }
        self.accepted = Some(Accepted { record, install });
        Ok(())
    }

    /// The log begins anew after the snapshot of this `Ready`.
    pub(super) fn restart_log(&mut self, ready: &raft::Ready) -> Accepted {
        let accepted = self.accepted.take().expect("raft has no other snapshot");
        let metadata = ready.snapshot().get_metadata();
        assert_eq!(
            metadata.index, accepted.record.index.0,
            "raft restores the snapshot that was received"
        );
        let members = metadata.get_conf_state().clone();
        self.raw
            .mut_store()
            .restart(metadata.index, metadata.term, members);
        accepted
    }

    /// The write of a snapshot is durable: for raft, too, everything up to it is applied now.
    pub(super) fn end_restoring(&mut self, number: WriteNumber) {
        if let Some(done) = self
            .restoring
            .take_if(|restoring| restoring.write <= number)
        {
            self.raw.advance_apply_to(done.index);
        }
    }

    /// How far a member's log is known to be, for the leader; `None` if it has no such member or does not lead.
    pub(crate) fn matched(&self, member: MemberId) -> Option<Index> {
        let progress = self.raw.raft.prs().get(member.0);
        progress
            .filter(|_| self.is_leader())
            .map(|progress| Index(progress.matched))
    }
}
