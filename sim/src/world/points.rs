//! Counts what is worth reaching: the points of `crate::points` that nothing else counts. It looks and changes nothing
//! but the counts.

use prost::Message as _;
use quorate_core::boundary::{Response, Write};
use quorate_core::error::RequestError;
use quorate_core::types::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{Message, MessageType};

use super::World;
use super::workload::Call;
use crate::check::Violation;
use crate::check::raft::Position;
use crate::load::WatchStart;

/// What is remembered to tell that something changed.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Who became leader last.
    leader: Option<MemberId>,
    /// The last committed index that was looked at.
    committed: u64,
    /// Who entered the lock last, and the term then.
    lock: Option<(u64, u64)>,
}

impl World {
    /// A member wants something written.
    pub(super) fn mark_write(&mut self, member: MemberId, write: &Write) {
        let last = self.raft.shadow(member).memory.last();
        let first = write.entries.first();
        if first.is_some_and(|first| first.index <= last) {
            self.count("entries overwritten");
        }
    }

    /// A member's position has changed.
    pub(super) fn mark_position(
        &mut self,
        member: MemberId,
        before: Position,
        now: Position,
    ) -> Result<(), Violation> {
        if now.leads && !before.leads {
            let previous = self.remembered.leader.replace(member);
            if previous.is_some_and(|previous| previous != member) {
                self.count("leader changed");
            }
            if self.leaders().count() > 1 {
                self.count("two leaders at once");
            }
        }
        let first = self.remembered.committed + 1;
        self.remembered.committed = self.ledger.last();
        for index in first..=self.ledger.last() {
            self.mark_committed(index, now)?;
        }
        Ok(())
    }

    fn mark_committed(&mut self, index: u64, by: Position) -> Result<(), Violation> {
        let committed = self.ledger.get(index).expect("it was committed");
        let entry = &committed.entry;
        let is_of_earlier_term = by.leads && entry.term < by.term;
        let request = committed
            .applied
            .as_ref()
            .and_then(|_| pb::InternalRaftRequest::decode(entry.data.clone()?).ok());
        if is_of_earlier_term && index > self.options.members {
            self.count("entries of an earlier term committed");
        }
        let Some(request) = request else {
            return Ok(());
        };
        if request.lease_revoke.is_some() {
            // Clients' requests have even ids here, those of the members themselves odd ones.
            let is_own = request
                .header
                .as_ref()
                .is_some_and(|header| header.id % 2 == 1);
            self.count(if is_own {
                "lease expired"
            } else {
                "lease revoked"
            });
        }
        if request.compaction.is_some() {
            self.count("compaction done");
        }
        if let Some(alarm) = &request.alarm {
            let id = request.header.as_ref().map_or(request.id, |it| it.id);
            self.judge_alarm(id, alarm)?;
        }
        Ok(())
    }

    /// A message is sent.
    pub(super) fn mark_message(&mut self, message: &Message) {
        let kind = match message.kind() {
            Ok(MessageType::MsgVoteResp) => "vote refused",
            Ok(MessageType::MsgPreVoteResp) => "pre-vote refused",
            Ok(MessageType::MsgAppResp) => "append refused",
            _ => return,
        };
        if message.reject {
            self.count(kind);
        }
    }

    /// A member answers.
    pub(super) fn mark_reply(&mut self, response: &Response) {
        match response {
            Response::Txn(response) if response.succeeded => self.count("txn succeeded"),
            Response::Txn(_) => self.count("txn failed"),
            Response::LeaseGrant(_) => self.count("lease granted"),
            Response::LeaseRenewed { ttl: 0 } => self.count("lease not renewed"),
            Response::LeaseRenewed { .. } => self.count("lease renewed"),
            Response::AuthChanged(_) => self.count("users or roles changed"),
            _ => {}
        }
    }

    /// A member answers that it does not.
    pub(super) fn mark_refusal(&mut self, call: &Call, error: &RequestError) {
        self.count("request refused");
        self.mark_denied(error);
        let is_txn = matches!(call, Call::Propose(request) if request.txn.is_some());
        if is_txn && *error == RequestError::Compacted {
            self.count("txn refused: compacted");
        }
    }

    /// Somebody may not do what it wants to.
    pub(super) fn mark_denied(&mut self, error: &RequestError) {
        match error {
            RequestError::PermissionDenied => self.count("user denied"),
            RequestError::UserEmpty => self.count("nobody denied"),
            RequestError::AuthOldRevision => {
                self.count("credentials of an earlier revision refused")
            }
            _ => {}
        }
    }

    /// A client has entered a lock or an office.
    pub(super) fn mark_entered(&mut self, client: u64) {
        let members = self.machines.keys();
        let term = members.map(|member| self.raft.position(*member).term).max();
        let now = (client, term.unwrap_or_default());
        let before = self.remembered.lock.replace(now);
        if before.is_some_and(|(holder, term)| holder != client && term < now.1) {
            self.count("lock handed over");
        }
    }

    /// A watch begins at a member with this revision, or goes on if it had no start.
    pub(super) fn mark_watch(&mut self, start: Option<WatchStart>, next: i64, revision: i64) {
        let kind = match start {
            None => "watch resumed",
            Some(WatchStart::Now) => return,
            Some(WatchStart::Future { .. }) => "watch from the future",
            Some(WatchStart::Compacted) => "watch from below the compact revision",
            Some(WatchStart::Beginning | WatchStart::Past { .. }) if next <= revision => {
                "watch from the past"
            }
            Some(_) => return,
        };
        self.count(kind);
    }
}
