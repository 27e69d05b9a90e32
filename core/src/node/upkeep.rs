//! What a member does by itself: ticks, patience that ends, lease expiry, its own announcement, compaction in
//! slices, checkpoints.

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::membershippb;

use super::{Node, nanos};
use crate::apply::State;
use crate::boundary::{Output, Response, SnapshotRecord};
use crate::checkpoint::SharedJob;
use crate::error::RequestError;
use crate::types::{Index, MemberId, Term, Ticket, Time};

/// An own proposal that had no effect for this long is made again.
pub(super) const PROPOSAL_RETRY: Duration = Duration::from_secs(2);
/// Rows that one flush removes for a compaction: about a millisecond.
const COMPACT_ROWS_PER_FLUSH: usize = 2000;
/// Leases revoked at most per flush; the lessor paces them.
const REVOKES_PER_FLUSH: usize = 500;

/// Who leads, and since when.
#[derive(Debug)]
pub(super) struct Leadership {
    pub(super) leader: Option<MemberId>,
    /// When the present leader was first seen.
    pub(super) elected: Time,
    pub(super) changes: u64,
    /// The term in which this member, leading, has begun to let leases end.
    pub(super) promoted: Option<Term>,
    /// Hand-overs under way: (ticket, to whom, until when).
    pub(super) transfers: Vec<(Ticket, MemberId, Time)>,
}

impl Leadership {
    pub(super) fn new(now: Time) -> Self {
        Self {
            leader: None,
            elected: now,
            changes: 0,
            promoted: None,
            transfers: Vec::new(),
        }
    }
}

/// The member's own proposals.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) is_published: bool,
    pub(super) wants_no_space_alarm: bool,
    publish_due: Time,
    pub(super) version_due: Time,
    alarm_due: Time,
}

impl Upkeep {
    pub(super) fn new(now: Time) -> Self {
        Self {
            is_published: false,
            wants_no_space_alarm: false,
            publish_due: now,
            version_due: now,
            alarm_due: now,
        }
    }
}

/// When to checkpoint, and who waits for it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The applied index of the newest durable one.
    pub(super) last: Index,
    /// Bytes of entries applied since the newest one began.
    pub(super) bytes_since: u64,
    /// How large the data were by then.
    data_bytes: u64,
    /// The same, with what the log says of it; `None` before the first.
    pub(super) record: Option<SnapshotRecord>,
    /// The one being written.
    pub(super) in_flight: Option<SnapshotRecord>,
    /// Where the cluster's version went down; a checkpoint from there on is wanted.
    pub(super) lowered: Option<Index>,
    /// Requests for one.
    pub(super) waiting: Vec<Ticket>,
    /// Requests for what one would hold.
    pub(super) images: Vec<Ticket>,
}

impl Checkpoints {
    /// Those of a member whose state was just read from its checkpoint, if it has one.
    pub(super) fn new(state: &State) -> Self {
        Self {
            last: state.index,
            record: (state.index > Index(0)).then(|| record_of(state)),
            bytes_since: 0,
            data_bytes: state.store.size_bytes(),
            in_flight: None,
            lowered: None,
            waiting: Vec::new(),
            images: Vec::new(),
        }
    }

    /// A received image has replaced the newest one.
    pub(super) fn on_installed(&mut self, record: SnapshotRecord, data_bytes: u64) {
        assert!(
            self.in_flight.is_none(),
            "nothing replaces what is installed"
        );
        self.last = record.index;
        self.record = Some(record);
        self.bytes_since = 0;
        self.data_bytes = data_bytes;
    }
}

/// What the log says of a checkpoint of this state.
pub(super) fn record_of(state: &State) -> SnapshotRecord {
    SnapshotRecord {
        index: state.index,
        term: state.term,
        conf_state: state.membership.conf_state(),
    }
}

impl Node {
    /// Lets time pass for Raft. After a stall at most one election timeout is made up.
    pub(super) fn run_ticks(&mut self) {
        self.note_late_heartbeats();
        let mut budget = self.config.election_ticks;
        while self.tick_due <= self.now {
            if budget == 0 {
                self.tick_due = self.now.after(self.config.tick);
                break;
            }
            budget -= 1;
            self.tick_due = self.tick_due.after(self.config.tick);
            self.consensus.tick();
        }
    }

    /// A leader's tick is when its heartbeats leave.
    fn note_late_heartbeats(&mut self) {
        let is_late = self.tick_due.after(self.config.tick) <= self.now;
        if is_late && self.consensus.is_leader() {
            let followers = self.state.membership.members().count() - 1;
            self.measured.counts.heartbeats_late += followers as u64;
        }
    }

    /// A new process has heard of no leader for longer than its clock says: it need not wait the whole timeout.
    /// With pre-vote this disturbs nobody (etcd: `--initial-election-tick-advance`).
    pub(super) fn shorten_first_election(&mut self) {
        if self.config.pre_vote {
            for _ in 1..self.config.election_ticks {
                self.consensus.tick();
            }
        }
    }

    pub(super) fn run_upkeep(&mut self) {
        self.watch_leadership();
        self.end_patience();
        self.compact_a_slice();
        self.checkpoint_when_due();
        self.give_images();
        if self.leaving.is_some() {
            return;
        }
        if self.consensus.is_single_voter() && !self.consensus.is_leader() {
            self.consensus.campaign();
        }
        if !self.may_propose_own() {
            return;
        }
        self.publish();
        self.raise_no_space();
        self.compare_when_due();
        if self.consensus.is_leader() {
            self.end_leases();
            self.settle_cluster_version();
        }
    }

    /// Whether what this member proposes by itself has a chance: there is a leader, who stays.
    pub(super) fn may_propose_own(&self) -> bool {
        self.leaving.is_none()
            && self.consensus.leader().is_some()
            && !self.consensus.is_transferring()
    }

    fn watch_leadership(&mut self) {
        let leader = self.consensus.leader();
        if leader != self.leadership.leader {
            self.leadership.leader = leader;
            if leader.is_some() {
                self.leadership.changes += 1;
                self.leadership.elected = self.now;
                self.upkeep.version_due = self.now;
            }
        }
        if !self.consensus.is_leader() && self.state.lessor.is_leader() {
            self.state.lessor.demote();
            self.leadership.promoted = None;
        }
        let transfers = std::mem::take(&mut self.leadership.transfers);
        for (ticket, target, until) in transfers {
            if leader == Some(target) {
                self.reply(ticket, Ok(Response::LeaderTransferred(target)));
            } else if until <= self.now {
                let text = "etcdserver: request timed out, leader transfer took too long";
                self.reply(ticket, Err(RequestError::Other(text.into())));
            } else {
                self.leadership.transfers.push((ticket, target, until));
            }
        }
    }

    pub(super) fn on_transfer(&mut self, ticket: Ticket, target: Option<MemberId>) {
        let me = self.config.member;
        if !self.consensus.is_leader() {
            // Who only wants to be rid of leadership has what it wants.
            let nobody_asked = Ok(Response::LeaderTransferred(
                self.consensus.leader().unwrap_or(me),
            ));
            let answer = if target.is_none() {
                nobody_asked
            } else {
                Err(RequestError::NotLeader)
            };
            return self.reply(ticket, answer);
        }
        let Some(target) = target.or_else(|| self.consensus.best_successor()) else {
            return self.reply(ticket, Ok(Response::LeaderTransferred(me)));
        };
        if target == me {
            return self.reply(ticket, Ok(Response::LeaderTransferred(me)));
        }
        if !self.consensus.is_voter(target) {
            return self.reply(ticket, Err(RequestError::BadLeaderTransferee));
        }
        self.consensus.transfer_leader(target);
        let until = self
            .now
            .after(self.config.tick * self.config.election_ticks * 3 / 2);
        self.leadership.transfers.push((ticket, target, until));
    }

    /// Answers those who have waited for too long.
    fn end_patience(&mut self) {
        let Some(start_last) = self.now.0.checked_sub(nanos(self.config.request_timeout)) else {
            return;
        };
        let start_last = Time(start_last);
        if self
            .proposals
            .oldest()
            .is_some_and(|oldest| oldest <= start_last)
        {
            for (ticket, started) in self.proposals.expire(start_last) {
                self.compactions.retain(|(waiting, _)| *waiting != ticket);
                self.reply(ticket, Err(self.timeout_error(started)));
            }
        }
        if self
            .reads
            .oldest()
            .is_some_and(|oldest| oldest <= start_last)
        {
            for (ticket, _) in self.reads.expire(start_last) {
                self.renewals.remove(&ticket);
                if !self.give_up_comparison(ticket) {
                    self.reply(ticket, Err(RequestError::Timeout));
                }
            }
        }
        self.expire_renewals(start_last);
    }

    /// etcd's rule: a proposal that began while a leader was being lost and replaced failed because of that.
    fn timeout_error(&self, started: Time) -> RequestError {
        let elected = self.leadership.elected;
        let election = self.config.tick * self.config.election_ticks;
        let lost = Time(elected.0.saturating_sub(2 * nanos(election)));
        if lost < started && started < elected {
            RequestError::TimeoutDueToLeaderFail
        } else {
            RequestError::Timeout
        }
    }

    fn compact_a_slice(&mut self) {
        if self.state.store.is_compacting() && self.state.store.compact_step(COMPACT_ROWS_PER_FLUSH)
        {
            for (ticket, response) in std::mem::take(&mut self.compactions) {
                if self.proposals.close(ticket) {
                    self.reply(ticket, Ok(response));
                }
            }
        }
    }

    /// Makes name and client URLs known; each start does so, until it is seen in the log.
    fn publish(&mut self) {
        if self.upkeep.is_published || self.now < self.upkeep.publish_due {
            return;
        }
        self.upkeep.publish_due = self.now.after(PROPOSAL_RETRY);
        let member_attributes = Some(membershippb::Attributes {
            name: self.config.name.clone(),
            client_urls: self.config.client_urls.clone(),
        });
        let set = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.config.member.0,
            member_attributes,
        };
        self.propose_own(pb::InternalRaftRequest {
            cluster_member_attr_set: Some(set),
            ..Default::default()
        });
    }

    fn raise_no_space(&mut self) {
        if !self.upkeep.wants_no_space_alarm || self.now < self.upkeep.alarm_due {
            return;
        }
        // Proposals get lost: it is said until it stands in the log.
        self.upkeep.alarm_due = self.now.after(PROPOSAL_RETRY);
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate as i32,
            member_id: self.config.member.0,
            alarm: pb::AlarmType::Nospace as i32,
        };
        self.propose_own(pb::InternalRaftRequest {
            alarm: Some(alarm),
            ..Default::default()
        });
    }

    /// The leader proposes what its clock says about leases; the log decides.
    fn end_leases(&mut self) {
        if self.now < self.state.lessor.deadline() {
            return;
        }
        for id in self.state.lessor.expired(self.now, REVOKES_PER_FLUSH) {
            self.measured.counts.leases_expired += 1;
            let lease_revoke = Some(pb::LeaseRevokeRequest { id: id.0 });
            self.propose_own(pb::InternalRaftRequest {
                lease_revoke,
                ..Default::default()
            });
        }
        loop {
            let checkpoints = self.state.lessor.due_checkpoints(self.now);
            if checkpoints.is_empty() {
                break;
            }
            let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
            self.propose_own(pb::InternalRaftRequest {
                lease_checkpoint,
                ..Default::default()
            });
        }
    }

    fn checkpoint_when_due(&mut self) {
        if self.checkpoints.in_flight.is_some()
            || self.state.store.is_compacting()
            || self.consensus.is_restoring()
            || self.consensus.is_sending_checkpoint()
        {
            return;
        }
        let is_new = self.state.index > self.checkpoints.last;
        if !is_new {
            for ticket in std::mem::take(&mut self.checkpoints.waiting) {
                self.reply(ticket, Ok(Response::Checkpointed(self.checkpoints.last)));
            }
            return;
        }
        // Measured by the data of the last checkpoint, not by those of now: while keys are only added, both grow alike,
        // and the log would never catch up.
        let bytes_due = self
            .checkpoints
            .data_bytes
            .max(self.config.checkpoint_bytes_min);
        let is_lowered = self
            .checkpoints
            .lowered
            .is_some_and(|index| index > self.checkpoints.last);
        let is_wanted =
            !self.checkpoints.waiting.is_empty() || self.consensus.wants_checkpoint() || is_lowered;
        if self.checkpoints.bytes_since < bytes_due && !is_wanted {
            return;
        }
        self.checkpoints.bytes_since = 0;
        self.checkpoints.data_bytes = self.state.store.size_bytes();
        self.checkpoints.in_flight = Some(record_of(&self.state));
        self.consensus.offer_checkpoint(None);
        self.out
            .push(Output::Checkpoint(Box::new(self.state.checkpoint())));
    }

    /// An image shows a compaction as done or not begun: one by half would leave rows that belong to neither.
    fn give_images(&mut self) {
        if self.checkpoints.images.is_empty()
            || self.state.store.is_compacting()
            || self.consensus.is_restoring()
        {
            return;
        }
        let job = SharedJob::new(self.state.checkpoint());
        for ticket in std::mem::take(&mut self.checkpoints.images) {
            self.reply(ticket, Ok(Response::Image(job.clone())));
        }
    }

    /// The image is in place: the log may say so.
    pub(super) fn on_checkpointed(&mut self, index: Index, done: bool) {
        let record = self
            .checkpoints
            .in_flight
            .take()
            .expect("a checkpoint was under way");
        assert_eq!(record.index, index, "the checkpoint that was asked for");
        if done {
            self.checkpoints.last = index;
            self.checkpoints.record = Some(record.clone());
            let purge_before = self.purge_before(index);
            self.consensus
                .write_snapshot_record(record, purge_before, &mut self.out);
        }
        self.consensus
            .offer_checkpoint(self.checkpoints.record.as_ref());
        let answer = if done {
            Ok(Response::Checkpointed(index))
        } else {
            Err(RequestError::Other(
                "the checkpoint could not be written".into(),
            ))
        };
        for ticket in std::mem::take(&mut self.checkpoints.waiting) {
            self.reply(ticket, answer.clone());
        }
    }
}
