//! Databases that may not grow: what a member refuses, and an operator who makes room.
//!
//! As in the server a request that does not fit is refused before it is proposed, and raises the alarm for the member
//! that was asked; what was on its way already is looked at again when it is applied. The operator deletes, compacts,
//! waits until every member has room, and ends the alarm; again and again, also while everything heals.

use bytes::Bytes;
use quorate_core::boundary::Output;
use quorate_core::error::RequestError;
use quorate_core::mvcc::{Store, View};
use quorate_core::request::{LEASE_GRANT_BYTES, fits_quota, put_cost_bytes, txn_cost_bytes};
use quorate_core::types::{MemberId, Revision};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;

use super::ending::Stage;
use super::machine::OpenRequest;
use super::workload::{Call, delete, key, propose};
use super::{Event, World};
use crate::check::Violation;
use crate::check::quota::{self, Room};

/// The client that the operator is.
pub(super) const OPERATOR: usize = usize::MAX - 1;

/// How long he waits before he looks again, about.
const LOOK_NS: u64 = 150_000_000;
/// Room that there must be before he ends the alarm.
const ROOM_BYTES: u64 = 4_000;
/// The rows of an entry take no more than this beside twice its length.
const ROW_BYTES_MAX: u64 = 4096;

/// A member's database before the present turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    bytes: u64,
    compacted: Revision,
    /// Whether it may have lost rows since.
    may_have_shrunk: bool,
}

impl World {
    /// The quota in bytes, as members are told; -1 is none.
    pub(super) fn quota_bytes(&self) -> i64 {
        let empty_bytes = Store::new().size_bytes();
        let room = self.options.quota_room_bytes;
        room.map_or(-1, |room| (empty_bytes + room) as i64)
    }

    /// Whether a member must refuse a request before it proposes it; then it raises the alarm.
    pub(super) fn refuse_by_quota(
        &mut self,
        member: MemberId,
        call: &Call,
    ) -> Result<bool, Violation> {
        let Call::Propose(request) = call else {
            return Ok(false);
        };
        let is_judged = matches!(self.stage, Stage::Suspecting { .. });
        if self.options.quota_room_bytes.is_none() || is_judged {
            return Ok(false);
        }
        let size_bytes = self.size_of(member).expect("a running member");
        if fits_quota(size_bytes, cost_bytes(request), self.quota_bytes()) {
            return Ok(false);
        }
        self.count("refused: over the quota");
        let (member_id, action) = (member.0, AlarmAction::Activate);
        self.ask(
            member,
            OPERATOR,
            self.now_ns,
            switch_alarm(member_id, action),
        )?;
        Ok(true)
    }

    /// How large the database of a running member is, where that matters.
    pub(super) fn size_for_quota(&self, member: MemberId) -> u64 {
        let matters = self.options.quota_room_bytes.is_some();
        let size = matters.then(|| self.size_of(member));
        size.flatten().unwrap_or_default()
    }

    fn size_of(&self, member: MemberId) -> Option<u64> {
        let process = self.machines[&member].process.as_ref()?;
        Some(process.node.view().size_bytes())
    }

    /// Before a turn of a member: how large its database is.
    pub(super) fn note_size(&mut self, member: MemberId) {
        if self.options.quota_room_bytes.is_none() {
            return;
        }
        let machine = self.machines.get_mut(&member).expect("a member");
        let node = &machine.process.as_ref().expect("a running member").node;
        let view = node.view();
        machine.before = Before {
            bytes: view.size_bytes(),
            compacted: view.compact_revision(),
            may_have_shrunk: node.counts().is_compacting,
        };
    }

    /// After its flush: whether it can have lost rows in the turn.
    pub(super) fn note_shrinking(&mut self, member: MemberId, outputs: &[Output]) {
        if self.options.quota_room_bytes.is_none() {
            return;
        }
        let machine = self.machines.get_mut(&member).expect("a member");
        let view = machine.process.as_ref().expect("it runs").node.view();
        let is_install =
            |output: &Output| matches!(output, Output::Write(write) if write.install.is_some());
        let before = &mut machine.before;
        before.may_have_shrunk |=
            view.compact_revision() != before.compacted || outputs.iter().any(is_install);
    }

    /// A request through the log is answered with success.
    pub(super) fn judge_room(
        &mut self,
        member: MemberId,
        open: &OpenRequest,
        request: &pb::InternalRaftRequest,
    ) -> Result<(), Violation> {
        // Who is asked whether it refuses in a corrupt cluster is asked over the quota, too.
        let is_judged = matches!(self.stage, Stage::Suspecting { .. });
        if self.options.quota_room_bytes.is_none() || is_judged {
            return Ok(());
        }
        let before = self.machines[&member].before;
        let room = Room {
            quota_bytes: self.quota_bytes() as u64,
            came_bytes: open.size_bytes,
            applied_bytes: (!before.may_have_shrunk).then_some(before.bytes),
        };
        quota::check_done(&mut self.facts, member, request, room)
    }

    /// A member says that there is no space, although the log has done what was asked: it must have been over its quota when
    /// it applied that.
    pub(super) fn judge_no_space(
        &mut self,
        member: MemberId,
        id: u64,
        request: &pb::InternalRaftRequest,
    ) -> Result<bool, Violation> {
        let indexes = self.ledger.indexes_of(id);
        let is_done = |index: &u64| {
            let committed = self.ledger.get(*index).expect("an index of the ledger");
            matches!(&committed.applied, Some((_, Ok(_))))
        };
        if self.options.quota_room_bytes.is_none() || !indexes.iter().any(is_done) {
            return Ok(false);
        }
        let before = self.raft.position(member).applied;
        let process = self.machines[&member].process.as_ref();
        let view = process.expect("a running member").node.view();
        let first = process.expect("it runs").applied_before + 1;
        // Rows may come and go within a turn: what it has applied can have made its database so large at most.
        let applied = (first..=before).filter_map(|index| self.ledger.get(index));
        let added: u64 = applied
            .map(|it| 2 * it.entry.payload().len() as u64 + ROW_BYTES_MAX)
            .sum();
        let before = self.machines[&member].before;
        let peak = before.bytes.max(view.size_bytes()) + added;
        let quota = self.quota_bytes() as u64;
        quota::check_no_space(&mut self.facts, member, request, peak, quota)?;
        self.count("done, and said to be refused");
        if !self.has_no_space() {
            self.owes_alarm.insert(member);
        }
        Ok(true)
    }

    /// What a member counts, now and then, beside what it holds.
    pub(super) fn judge_size(&mut self, member: MemberId, view: &View) -> Result<(), Violation> {
        if self.options.quota_room_bytes.is_none() {
            return Ok(());
        }
        let held = view.range(&crate::check::state::everything());
        let kvs = held.expect("the present can be read").kvs;
        let room_bytes = self.options.quota_room_bytes.unwrap_or_default();
        let empty_bytes = self.quota_bytes() as u64 - room_bytes;
        let sizes = (view.size_bytes(), empty_bytes);
        quota::check_size(&mut self.facts, member, sizes, &kvs)
    }

    /// NOSPACE stands in the log.
    pub(super) fn judge_no_space_alarm(&mut self, member: MemberId) -> Result<(), Violation> {
        let is_known = self.machines.contains_key(&member);
        let may_be = self.options.quota_room_bytes.is_some() && is_known;
        self.facts.expect("quota.space", may_be, || {
            format!("{member:?} raises NOSPACE, and there is no quota")
        })?;
        self.owes_alarm.clear();
        self.count("alarm: NOSPACE");
        Ok(())
    }

    /// Who has applied something over its quota, and has not raised the alarm since. Until it has the run does not end.
    pub(super) fn owes_alarm(&self) -> Option<MemberId> {
        self.owes_alarm.first().copied()
    }

    /// A process ends, and with it what it was about to say.
    pub(super) fn forget_owed_alarm(&mut self, member: MemberId) {
        self.owes_alarm.remove(&member);
    }

    /// The operator looks after the alarm.
    pub(super) fn operate(&mut self) -> Result<(), Violation> {
        let after_ns = self.operator.with_tail(LOOK_NS);
        self.at(self.now_ns + after_ns, Event::Operate);
        let alarms = self.ledger.model().alarms();
        let no_space = pb::AlarmType::Nospace as i32;
        let raised: Vec<_> = alarms.iter().filter(|it| it.alarm == no_space).collect();
        let looked_after: Vec<_> = match &self.stage {
            Stage::Settling { core, .. } => core.iter().copied().collect(),
            _ => self.members(),
        };
        let sizes = looked_after.iter().map(|it| (*it, self.size_of(*it)));
        let running: Vec<_> = sizes.filter_map(|(it, size)| Some((it, size?))).collect();
        if raised.is_empty() || running.is_empty() {
            return Ok(());
        }
        let quota = self.quota_bytes() as u64;
        let is_full = running.iter().any(|(_, size)| size + ROOM_BYTES >= quota);
        let (asked, _) = *self.operator.pick(&running);
        if !is_full {
            self.count("alarm ended by the operator");
            for alarm in raised {
                let call = switch_alarm(alarm.member_id, AlarmAction::Deactivate);
                self.ask(asked, OPERATOR, self.now_ns, call)?;
            }
            return Ok(());
        }
        let call = match self.operator.chance(500_000) {
            true => delete_everything(),
            false => {
                let revision = self.ledger.model().revision();
                let physical = false;
                propose(|it| it.compaction = Some(pb::CompactionRequest { revision, physical }))
            }
        };
        self.ask(asked, OPERATOR, self.now_ns, call)
    }

    /// Whether members take nothing more for want of space.
    pub(super) fn has_no_space(&self) -> bool {
        self.ledger.model().has_alarm(pb::AlarmType::Nospace)
    }
}

/// All keys that clients share; locks, elections and registers have others.
fn delete_everything() -> Call {
    delete(pb::DeleteRangeRequest {
        key: key(0),
        range_end: Bytes::from_static(b"key."),
        ..pb::DeleteRangeRequest::default()
    })
}

fn switch_alarm(member_id: u64, action: AlarmAction) -> Call {
    propose(|it| {
        it.alarm = Some(pb::AlarmRequest {
            action: action as i32,
            member_id,
            alarm: pb::AlarmType::Nospace as i32,
        });
    })
}

/// What the server counts a request for.
fn cost_bytes(request: &pb::InternalRaftRequest) -> u64 {
    if request.lease_grant.is_some() {
        return LEASE_GRANT_BYTES;
    }
    let put = request.put.as_ref().map_or(0, put_cost_bytes);
    put + request.txn.as_ref().map_or(0, txn_cost_bytes)
}

/// Whether a refusal is for want of space.
pub(super) fn is_no_space<T>(result: &Result<T, RequestError>) -> bool {
    matches!(result, Err(RequestError::NoSpace))
}
