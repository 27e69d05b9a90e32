//! What the oracles that follow the log of the whole cluster are told, turn by turn.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::boundary::{Output, Response};
use quorate_core::checkpoint::DATABASE;
use quorate_core::corruption::Finding;
use quorate_core::error::RequestError;
use quorate_core::types::{MemberId, Ticket};
use quorate_proto::etcdserverpb as pb;

use super::clients::Answer;
use super::machine::OpenRequest;
use super::workload::Call;
use super::{World, name};
use crate::check::contract::{self, Asked};
use crate::check::history::{self, Tampered};
use crate::check::lease::Promise;
use crate::check::{Violation, configuration, confirmed};
use crate::load::Work;
use crate::random::{Purpose, Stream};
use crate::trace::line;

/// Images that are read again when they are written, in a million.
const AUDIT_IMAGE_PPM: u32 = 200_000;

impl World {
    /// A client asks for something that concerns a lease.
    pub(super) fn note_lease_call(&mut self, call: &Call) {
        match call {
            Call::Renew(lease) => self.leases.on_touched(self.now_ns, *lease),
            Call::Propose(request) => {
                if let Some(revoke) = &request.lease_revoke {
                    self.leases.on_given_back(revoke.id);
                }
            }
            _ => {}
        }
    }

    /// A member has taken a turn, and before it had applied everything up to `before`.
    pub(super) fn judge_leases_of_turn(
        &mut self,
        member: MemberId,
        before: u64,
    ) -> Result<(), Violation> {
        let machine = &self.machines[&member];
        let process = machine.process.as_ref().expect("a running member");
        self.leases.on_rate(machine.clock.rate());
        let shown_from = |id: u64| {
            let mut machines = self.machines.iter();
            let by = machines.find(|(member, _)| member.0 & 0xffff == id >> 48);
            let process = by.and_then(|(_, machine)| machine.process.as_ref());
            process.map_or(0, |process| process.log_had.start)
        };
        let new = self.leases.seen() + 1;
        contract::check_once(&mut self.facts, &self.ledger, new, shown_from)?;
        self.leases
            .follow(&mut self.facts, self.now_ns, &self.ledger)?;
        let applied = process.node.applied().0;
        if applied <= before {
            return Ok(());
        }
        if self.corruption.is_altered(member) {
            return Ok(());
        }
        let view = process.node.view();
        let span = (before, applied);
        self.leases
            .check_keys(&mut self.facts, &self.ledger, member, span, &view)
    }

    /// A member refuses a request.
    pub(super) fn judge_error(
        &mut self,
        member: MemberId,
        open: &OpenRequest,
        error: &RequestError,
    ) -> Result<(), Violation> {
        if *error == RequestError::Stopped && self.is_removed(member) {
            return Ok(()); // It says so to all who wait, and ends.
        }
        let asked = match &open.call {
            Call::Propose(request) => asked(request),
            Call::Read(_) => Asked::Read,
            Call::Renew(_) | Call::TimeToLive(_) => Asked::OfLeader,
            _ => Asked::Other,
        };
        let waited = Duration::from_nanos(self.now_ns - open.came_ns);
        let patience = self.options.request_timeout;
        contract::check_error(&mut self.facts, asked, error, waited, patience)
    }

    /// A member answers what only a confirmed leader may.
    pub(super) fn judge_confirmed(
        &mut self,
        member: MemberId,
        open: &OpenRequest,
        result: &Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        match result {
            Ok(Response::ReadReady | Response::LeaseRenewed { .. }) => {
                let term = self.raft.position(member).term;
                confirmed::check_answer(&mut self.facts, member, term, open.led)
            }
            _ => Ok(()),
        }
    }

    /// A member answers what concerns a lease.
    pub(super) fn judge_lease(
        &mut self,
        open: &OpenRequest,
        result: &Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        let promise = |lease, ttl| Promise {
            lease,
            ttl,
            came_ns: open.came_ns,
        };
        match (&open.call, result) {
            (Call::Renew(lease), Ok(Response::LeaseRenewed { ttl })) if *ttl > 0 => {
                self.count("lease renewed");
                self.leases
                    .on_renewed(&mut self.facts, promise(*lease, *ttl))
            }
            (Call::Propose(_), Ok(Response::LeaseGrant(granted))) => self
                .leases
                .on_granted(&mut self.facts, promise(granted.id, granted.ttl)),
            _ => Ok(()),
        }
    }

    /// A member has written an image of its state: now and then it is read again.
    pub(super) fn audit_written_image(
        &mut self,
        member: MemberId,
        index: u64,
    ) -> Result<(), Violation> {
        let disk = &self.machines[&member].disk;
        if !self.image_audit.chance(AUDIT_IMAGE_PPM) || disk.is_spoilt() {
            return Ok(());
        }
        match disk.read_file(DATABASE) {
            Some(image) => self.judge_image(member, index, image),
            None => Ok(()),
        }
    }

    /// An image was written by a member or sent to it.
    pub(super) fn judge_image(
        &mut self,
        member: MemberId,
        index: u64,
        image: Bytes,
    ) -> Result<(), Violation> {
        if self.corruption.is_altered(member) {
            return Ok(());
        }
        self.count("image looked into");
        let known = (&self.ledger, &self.raft.history);
        self.snapshots
            .check(&mut self.facts, known, member, index, image)
    }

    /// What a member's leadership, if it leads, has let into the log and what it has accepted in this turn.
    pub(super) fn judge_changes(
        &mut self,
        member: MemberId,
        outputs: &[Output],
        promotions: &[(Ticket, MemberId)],
    ) -> Result<(), Violation> {
        let process = self.machines[&member].process.as_ref();
        let node = &process.expect("a running member").node;
        if !node.is_leader() {
            return Ok(());
        }
        let place = (node.term().0, node.applied().0);
        for output in outputs {
            if let Output::Write(write) = output {
                self.raft
                    .check_proposed(&mut self.facts, member, place, &write.entries)?;
            }
        }
        for (ticket, learner) in promotions {
            let is_answered = |output: &Output| matches!(output, Output::Reply { ticket: it, .. } if it == ticket);
            if !outputs.iter().any(is_answered) {
                self.raft
                    .check_promotion(&mut self.facts, member, *learner)?;
            }
        }
        Ok(())
    }

    /// What a member tells its transport last is where the others are now.
    pub(super) fn judge_peers(
        &mut self,
        member: MemberId,
        outputs: &[Output],
    ) -> Result<(), Violation> {
        let told = outputs.iter().rev().find_map(|output| match output {
            Output::Peers(peers) => Some(peers),
            _ => None,
        });
        let Some(told) = told else { return Ok(()) };
        let told = told
            .iter()
            .map(|peer| (peer.member, peer.peer_urls.clone()));
        let applied = self.raft.position(member).applied;
        let addresses = &self.raft.addresses;
        addresses.check_told(&mut self.facts, member, applied, &told.collect())
    }

    /// Who votes, as the member's Raft counts it.
    pub(super) fn judge_configuration(&mut self, member: MemberId) -> Result<(), Violation> {
        let process = self.machines[&member].process.as_ref();
        let node = &process.expect("a running member").node;
        let applied = node.applied().0;
        if applied < self.options.members {
            return Ok(()); // It is being founded, or knows nothing yet.
        }
        let expected = self.raft.history.at(applied);
        configuration::check(
            &mut self.facts,
            member,
            applied,
            &node.conf_state(),
            expected,
        )
    }

    /// A member has compared data.
    pub(super) fn judge_findings(
        &mut self,
        member: MemberId,
        findings: &[Finding],
    ) -> Result<(), Violation> {
        for finding in findings {
            let kind = finding.kind.to_string();
            self.trace
                .event(self.now_ns, &[14, member.0], kind.as_bytes(), || {
                    let what = format!("finds of {}", name(finding.member));
                    line(&name(member), what, format_args!("{:?}", finding.kind))
                });
            if finding.kind.is_damage() {
                self.count("other data found");
            }
        }
        let voters = self.raft.history.last().voters.len();
        self.corruption
            .on_compared(&mut self.facts, voters, member, findings)
    }

    /// An alarm stands in the log.
    pub(super) fn judge_alarm(
        &mut self,
        id: u64,
        alarm: &pb::AlarmRequest,
    ) -> Result<(), Violation> {
        let is_raised = alarm.action() == pb::alarm_request::AlarmAction::Activate;
        match alarm.alarm() {
            pb::AlarmType::Corrupt if is_raised => {
                self.count("alarm: CORRUPT");
                let member = MemberId(alarm.member_id);
                let voters = self.raft.history.last().voters.len();
                self.corruption
                    .on_alarm(&mut self.facts, voters, id, member)
            }
            pb::AlarmType::Nospace if is_raised => {
                self.judge_no_space_alarm(MemberId(alarm.member_id))
            }
            _ => Ok(()),
        }
    }

    /// A client begins an operation; those on registers are recorded.
    pub(super) fn record_begin(&mut self, number: usize, call: &Call) {
        if self.clients[number].group.work != Work::Register {
            return;
        }
        let (client, now_ns) = (number as u64, self.now_ns);
        let operation = match call {
            Call::Propose(request) => history::operation(client, now_ns, request),
            Call::Read(range) => Some(history::read(client, now_ns, range)),
            _ => None,
        };
        let operation = operation.expect("registers are put, read, swapped and deleted");
        self.recorder.begins(operation);
    }

    /// It hears something, or gives up.
    pub(super) fn record_end(&mut self, number: usize, answer: &Answer<'_>) {
        let now_ns = self.now_ns;
        self.recorder.ends(number as u64, |operation| match answer {
            Answer::Done(response) => history::answered(operation, now_ns, response),
            Answer::Read(range) => history::answered_read(operation, now_ns, range),
            Answer::Nothing => operation,
        });
    }

    /// The run is over: what clients of registers saw is judged from outside.
    pub(super) fn judge_history(&mut self) -> Result<(), Violation> {
        let recorded = self.recorder.take();
        if recorded.0.is_empty() {
            return Ok(());
        }
        let stream = &mut Stream::new(self.seed, Purpose::Audit, 1);
        let tampered = history::check(&mut self.facts, &self.ledger, &recorded, stream)?;
        self.count("history judged from outside");
        self.count(match tampered {
            Tampered::Seen => "falsified history seen by both",
            Tampered::Explained => "falsified history another log explains",
            Tampered::Harmless => "falsified history that is as good",
            Tampered::Nothing => return Ok(()),
        });
        Ok(())
    }
}

fn asked(request: &pb::InternalRaftRequest) -> Asked {
    let is_txn = request.txn.is_some();
    Asked::Proposal {
        puts: is_txn || request.put.is_some(),
        has_revision: is_txn || request.compaction.is_some(),
        grants: request.lease_grant.is_some(),
        revokes: request.lease_revoke.is_some(),
    }
}
