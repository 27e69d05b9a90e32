//! Clients: one operation at a time, at some member, with limited patience.
//!
//! A client that gives up does not know what became of its operation. The oracles do: they judge each answer when it
//! leaves the member, whether the client still listens or not.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::{Input, Request, Response};
use quorate_core::error::RequestError;
use quorate_core::types::{LeaseId, MemberId, Ticket};
use quorate_proto::etcdserverpb as pb;

use super::machine::OpenRequest;
use super::quota::{OPERATOR, is_no_space};
use super::sessions::Session;
use super::workload::{Call, probe_put};
use super::{Event, World, name};
use crate::check::linearizability::{self, Read};
use crate::check::lock::Entered;
use crate::check::{Violation, contract, convergence, durability};
use crate::load::{Group, Target};
use crate::random::{Purpose, Stream};
use crate::trace::line;

/// The client that settling asks with.
pub(super) const PROBE: usize = usize::MAX;

/// One client.
pub(super) struct Client {
    pub(super) number: u64,
    pub(super) stream: Stream,
    /// What it belongs to.
    pub(super) group: Group,
    /// Counts its operations.
    pub(super) operation: u64,
    /// What it does now, and where.
    current: Option<(MemberId, Call)>,
    /// The highest revision that it has seen.
    pub(super) revision_seen: i64,
    /// The mod revision that each key had when it was seen last.
    pub(super) revisions: BTreeMap<Bytes, i64>,
    /// Leases that it asked for, whatever became of them.
    pub(super) leases: Vec<i64>,
    /// The key that a compare-and-swap chain goes on with.
    pub(super) chain: Option<Bytes>,
    /// The user as whom it acts, if its group has users.
    pub(super) user: &'static str,
    /// Its lease, and what it does with it.
    pub(super) session: Option<Session>,
}

/// What a client hears.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// Its request went through the log, or the leader has answered it.
    Done(&'a Response),
    /// It has read.
    Read(&'a pb::RangeResponse),
    /// Nothing, or that it failed.
    Nothing,
}

impl Client {
    pub(super) fn new(seed: u64, number: u64, group: &Group) -> Self {
        Self {
            number,
            stream: Stream::new(seed, Purpose::Client, number),
            group: group.clone(),
            operation: 0,
            current: None,
            revision_seen: 1,
            revisions: BTreeMap::new(),
            leases: Vec::new(),
            chain: None,
            user: "",
            session: Session::new(number, &group.work),
        }
    }

    pub(super) fn pause_ns(&mut self) -> u64 {
        self.stream.with_tail(self.group.think_ns)
    }

    /// Takes an answer.
    fn hear(&mut self, now_ns: u64, call: &Call, answer: &Answer<'_>) -> Option<Entered> {
        match answer {
            Answer::Done(response) => self.learn(response),
            Answer::Read(response) => {
                if let Call::Read(request) = call
                    && request.revision == 0
                {
                    // It is not there, unless the answer says so.
                    self.revisions.insert(request.key.clone(), 0);
                }
                self.learn_range(response);
            }
            Answer::Nothing => {}
        }
        let session = self.session.as_mut()?;
        session.hear(now_ns, call, answer, &mut self.stream)
    }

    fn learn(&mut self, response: &Response) {
        let revision = match response {
            Response::Put(response) => response.header.as_ref(),
            Response::DeleteRange(response) => response.header.as_ref(),
            Response::Txn(response) => response.header.as_ref(),
            Response::Compact(response) => response.header.as_ref(),
            _ => None,
        };
        let revision = revision.map_or(0, |header| header.revision);
        self.revision_seen = self.revision_seen.max(revision);
    }

    fn learn_range(&mut self, response: &pb::RangeResponse) {
        for kv in &response.kvs {
            self.revision_seen = self.revision_seen.max(kv.mod_revision);
            self.revisions.insert(kv.key.clone(), kv.mod_revision);
        }
    }
}

impl World {
    pub(super) fn client_acts(&mut self, number: usize) {
        if !self.is_safety() {
            return;
        }
        self.count("operation");
        let now_ns = self.now_ns;
        let member = self.choose_member(number);
        let client = &mut self.clients[number];
        client.operation += 1;
        let call = client.draw_call(now_ns);
        client.current = Some((member, call.clone()));
        let operation = client.operation;
        let patience_ns = client
            .stream
            .with_tail(self.options.request_timeout.as_nanos() as u64);
        let way_ns = client.stream.with_tail(200_000);
        self.record_begin(number, &call);
        self.at(
            self.now_ns + way_ns,
            Event::ClientCalls {
                client: number,
                operation,
            },
        );
        self.at(
            self.now_ns + patience_ns,
            Event::ClientGivesUp {
                client: number,
                operation,
            },
        );
    }

    /// The member that a client asks next.
    fn choose_member(&mut self, number: usize) -> MemberId {
        let leader = self.leader();
        let mut members = self.members();
        let client = &mut self.clients[number];
        match (client.group.target, leader) {
            (Target::Each, _) => return members[number % members.len()],
            (Target::Leader, Some(leader)) => return leader,
            (Target::Follower, Some(leader)) if members.len() > 1 => {
                members.retain(|member| *member != leader);
            }
            _ => {}
        }
        *client.stream.pick(&members)
    }

    /// The request arrives at the member, if that one runs.
    pub(super) fn client_calls(&mut self, number: usize, operation: u64) -> Result<(), Violation> {
        let client = &self.clients[number];
        let current = client
            .current
            .clone()
            .filter(|_| client.operation == operation);
        let Some((member, call)) = current else {
            return Ok(());
        };
        let member = match call {
            Call::Renew(_) | Call::TimeToLive(_) => self.forward(member),
            _ => Some(member),
        };
        let member = member.filter(|member| self.machines[member].process.is_some());
        match member {
            Some(member) => self.ask(member, number, operation, call),
            None => self.client_hears(number, &call, &Answer::Nothing),
        }
    }

    /// Who answers what only a leader can: as in the server, the member that was asked passes it on to whom it takes
    /// for the leader.
    fn forward(&self, member: MemberId) -> Option<MemberId> {
        let process = self.machines[&member].process.as_ref()?;
        let leader = process.node.status().leader?;
        let is_cut = self.network.is_cut(member, leader) || self.network.is_cut(leader, member);
        (!is_cut).then_some(leader)
    }

    pub(super) fn client_gives_up(
        &mut self,
        number: usize,
        operation: u64,
    ) -> Result<(), Violation> {
        let client = &self.clients[number];
        let current = client.current.clone();
        match current.filter(|_| client.operation == operation) {
            Some((_, call)) => {
                self.count("operation abandoned");
                self.client_hears(number, &call, &Answer::Nothing)
            }
            None => Ok(()),
        }
    }

    /// A client knows more, and thinks about what to do next.
    fn client_hears(
        &mut self,
        number: usize,
        call: &Call,
        answer: &Answer<'_>,
    ) -> Result<(), Violation> {
        let Some(client) = self.clients.get_mut(number) else {
            return Ok(()); // Settling only wants to know that there is an answer.
        };
        client.current = None;
        self.record_end(number, answer);
        let client = &mut self.clients[number];
        let entered = client.hear(self.now_ns, call, answer);
        let pause_ns = client.pause_ns();
        self.at(self.now_ns + pause_ns, Event::ClientActs(number));
        match entered {
            Some(entered) => self.client_enters(number, &entered),
            None => Ok(()),
        }
    }

    /// Settling asks a member for a write and a read, and what leases it has.
    pub(super) fn probe_member(&mut self, member: MemberId) {
        let number = self.now_ns;
        let read = crate::check::state::everything();
        for call in [probe_put(number), Call::Read(read), Call::Leases] {
            let called = self.ask(member, PROBE, number, call);
            called.expect("nothing is answered at once");
        }
    }

    /// A request reaches a running member.
    pub(super) fn ask(
        &mut self,
        member: MemberId,
        client: usize,
        operation: u64,
        call: Call,
    ) -> Result<(), Violation> {
        let words = [4, member.0, client as u64, operation];
        let mut encoded = call.digest();
        self.trace.event(self.now_ns, &words, &encoded, || {
            line(
                &name(member),
                format_args!("is asked by {}", asker(client)),
                call.to_string(),
            )
        });
        if let Call::LocalRead(request) = &call {
            return self.local_read(member, client, &call, request);
        }
        if client != OPERATOR && self.refuse_by_quota(member, &call)? {
            return self.client_hears(client, &call, &Answer::Nothing);
        }
        let who = self.identity(member, client);
        self.note_lease_call(&call);
        let leader = self.leader();
        let size_bytes = self.size_for_quota(member);
        let machine = self.machines.get_mut(&member).expect("a member");
        let process = machine.process.as_mut().expect("a running member");
        let ticket = Ticket(process.ids.take());
        let (facts, ledger) = (&mut self.facts, &self.ledger);
        contract::check_id(facts, ledger, member, ticket.0, &process.log_had)?;
        let request = match &call {
            Call::Propose(_) => {
                // The header is the last field: it is the same whether it is encoded with the others or after them.
                let header = pb::RequestHeader {
                    id: ticket.0,
                    username: who.user.clone(),
                    auth_revision: who.revision,
                };
                let rest = pb::InternalRaftRequest {
                    header: Some(header),
                    ..pb::InternalRaftRequest::default()
                };
                rest.encode(&mut encoded).expect("a vector grows");
                Request::Propose(Bytes::from(encoded))
            }
            Call::Read(_) | Call::LocalRead(_) => Request::ReadIndex,
            Call::Renew(id) => Request::LeaseRenew(LeaseId(*id)),
            Call::TimeToLive(id) => Request::LeaseTimeToLive {
                id: LeaseId(*id),
                keys: true,
            },
            Call::Leases => Request::LeaseLeases,
            Call::Checkpoint => Request::Checkpoint,
            Call::Change(change) => Request::ChangeMembers(change.clone()),
            Call::Transfer => {
                Request::TransferLeader(leader.filter(|_| operation.is_multiple_of(2)))
            }
        };
        let open = OpenRequest {
            client,
            operation,
            call,
            floor: self.ledger.last(),
            who,
            led: self.raft.led(),
            came_ns: self.now_ns,
            size_bytes,
        };
        process.open.insert(ticket, open);
        self.give(member, Input::Request { ticket, request });
        Ok(())
    }

    /// A hand-over of leadership, which is a request like any other.
    pub(super) fn transfer_leadership(&mut self, member: MemberId) {
        self.count("leader transfer");
        let called = self.ask(member, PROBE, self.now_ns, Call::Transfer);
        called.expect("nothing is answered at once");
    }

    fn local_read(
        &mut self,
        member: MemberId,
        client: usize,
        call: &Call,
        request: &pb::RangeRequest,
    ) -> Result<(), Violation> {
        if self.machines[&member].is_paused {
            return self.client_hears(client, call, &Answer::Nothing);
        }
        let who = self.identity(member, client);
        if self.judge_permission(member, &who, request)?.is_err() {
            return self.client_hears(client, call, &Answer::Nothing);
        }
        let machine = self.machines.get_mut(&member).expect("a member");
        let process = machine.process.as_mut().expect("a running member");
        let view = process.node.view();
        let (result, revision) = (view.range(request), view.revision().0);
        let floor = std::mem::replace(&mut process.revision_shown, revision);
        let compacted = view.compact_revision().0;
        let read = Read {
            request,
            result: &result,
            revision,
            compacted,
        };
        if !self.corruption.is_altered(member) {
            linearizability::on_read(
                &mut self.facts,
                "serializable.read",
                &self.ledger,
                &read,
                floor,
            )?;
        }
        match &result {
            Ok(response) => self.client_hears(client, call, &Answer::Read(response)),
            Err(_) => self.client_hears(client, call, &Answer::Nothing),
        }
    }

    /// A member answers.
    pub(super) fn on_reply(
        &mut self,
        member: MemberId,
        ticket: Ticket,
        result: Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        let words = [5, member.0, ticket.0, u64::from(result.is_ok())];
        self.trace.event(self.now_ns, &words, &digest(&result), || {
            line(
                &name(member),
                "answers",
                format_args!("{:x}: {result:?}", ticket.0),
            )
        });
        let machine = self.machines.get_mut(&member).expect("a member");
        let process = machine.process.as_mut().expect("a running member");
        let open = process.open.remove(&ticket);
        let fits = open
            .as_ref()
            .is_some_and(|open| answers(&open.call, &result));
        self.facts.expect("contract.answer", fits, || {
            format!("{member:?} answers {ticket:?} with {result:?}, asked was {open:?}")
        })?;
        let open = open.expect("a request that fits");
        match &result {
            Ok(response) => self.mark_reply(response),
            Err(error) => {
                self.mark_refusal(&open.call, error);
                self.judge_error(member, &open, error)?;
            }
        }
        self.note_refusal(member, &open.call, &result);
        self.judge_confirmed(member, &open, &result)?;
        self.judge_lease(&open, &result)?;
        let mut answer = match &result {
            Ok(response) => Answer::Done(response),
            Err(_) => Answer::Nothing,
        };
        let read;
        match &open.call {
            Call::Propose(request) => {
                // Over the quota the client is told something else than the log has done.
                let is_done =
                    is_no_space(&result) && self.judge_no_space(member, ticket.0, request)?;
                if !is_done {
                    self.judge_write(member, ticket, &open, &result)?;
                }
            }
            Call::Read(request) if result.is_ok() => {
                read = self.judge_read(member, &open, request)?;
                answer = read.as_ref().map_or(Answer::Nothing, Answer::Read);
            }
            Call::Leases => self.judge_leases(member, &result)?,
            _ => {}
        }
        let is_listening =
            |client: &Client| client.operation == open.operation && client.current.is_some();
        if self.clients.get(open.client).is_some_and(is_listening) {
            return self.client_hears(open.client, &open.call, &answer);
        }
        Ok(())
    }

    fn judge_write(
        &mut self,
        member: MemberId,
        ticket: Ticket,
        open: &OpenRequest,
        result: &Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        if !self.corruption.is_altered(member) {
            linearizability::on_write(&mut self.facts, &self.ledger, ticket.0, open.floor, result)?;
        }
        if result.is_ok() {
            if let Call::Propose(request) = &open.call {
                self.judge_room(member, open, request)?;
            }
            self.count("write acknowledged");
            durability::on_ack(&mut self.facts, &self.raft, &self.ledger, ticket.0)?;
            self.note_answered(member, true);
        }
        Ok(())
    }

    fn judge_read(
        &mut self,
        member: MemberId,
        open: &OpenRequest,
        request: &pb::RangeRequest,
    ) -> Result<Option<pb::RangeResponse>, Violation> {
        let permitted = self.judge_permission(member, &open.who, request)?;
        if permitted.is_err() {
            return Ok(None);
        }
        let process = self.machines[&member]
            .process
            .as_ref()
            .expect("a running member");
        let view = process.node.view();
        let (result, revision) = (view.range(request), view.revision().0);
        let compacted = view.compact_revision().0;
        let read = Read {
            request,
            result: &result,
            revision,
            compacted,
        };
        let (floor, _) = self
            .ledger
            .revisions_at(open.floor)
            .expect("it was committed");
        if !self.corruption.is_altered(member) {
            linearizability::on_read(
                &mut self.facts,
                "linearizable.read",
                &self.ledger,
                &read,
                floor,
            )?;
        }
        self.note_answered(member, false);
        if result.is_err() && request.revision > 0 {
            self.count("read of a compacted revision refused");
        }
        Ok(result.ok())
    }

    /// A client believes that it holds a lock or an office.
    fn client_enters(&mut self, number: usize, entered: &Entered) -> Result<(), Violation> {
        self.count(entered.kind);
        self.mark_entered(number as u64);
        if self.corruption.is_anybody() {
            return Ok(());
        }
        self.locks
            .on_entered(&mut self.facts, &self.ledger, number as u64, entered)
    }

    /// Only where nothing was applied meanwhile is it known which moment the list is of.
    fn judge_leases(
        &mut self,
        member: MemberId,
        result: &Result<Response, RequestError>,
    ) -> Result<(), Violation> {
        let process = self.machines[&member]
            .process
            .as_ref()
            .expect("a running member");
        let last = self.ledger.last();
        let applied = self.raft.position(member).applied;
        if let Ok(Response::LeaseLeases(response)) = result
            && process.applied_before == last
            && applied == last
        {
            let mut listed: Vec<_> = response.leases.iter().map(|lease| lease.id).collect();
            listed.sort_unstable();
            let expected: Vec<_> = self.ledger.model().leases().collect();
            convergence::check_leases(&mut self.facts, member, &listed, &expected)?;
        }
        Ok(())
    }
}

/// A client as the trace calls it.
fn asker(client: usize) -> String {
    match client {
        PROBE => "the judge".to_owned(),
        OPERATOR => "the operator".to_owned(),
        _ => format!("client {client}"),
    }
}

/// An answer, in bytes.
fn digest(result: &Result<Response, RequestError>) -> Vec<u8> {
    match result {
        Ok(Response::Put(response)) => response.encode_to_vec(),
        Ok(Response::DeleteRange(response)) => response.encode_to_vec(),
        Ok(Response::Txn(response)) => response.encode_to_vec(),
        Ok(Response::ReadReady) => Vec::new(),
        rest => format!("{rest:?}").into_bytes(),
    }
}

/// Whether this can be an answer to that.
fn answers(call: &Call, result: &Result<Response, RequestError>) -> bool {
    let Ok(response) = result else { return true };
    match call {
        Call::Propose(request) => match response {
            Response::Put(_) => request.put.is_some(),
            Response::DeleteRange(_) => request.delete_range.is_some(),
            Response::Txn(_) => request.txn.is_some(),
            Response::Compact(_) => request.compaction.is_some(),
            Response::LeaseGrant(_) => request.lease_grant.is_some(),
            Response::LeaseRevoke(_) => request.lease_revoke.is_some(),
            Response::Alarm(_) => request.alarm.is_some(),
            Response::AuthChanged(_) | Response::UserGet(_) => super::auth::is_asked(request),
            _ => false,
        },
        Call::Read(_) => matches!(response, Response::ReadReady),
        Call::LocalRead(_) => false,
        Call::Renew(_) => matches!(response, Response::LeaseRenewed { .. }),
        Call::TimeToLive(_) => matches!(response, Response::LeaseTimeToLive(_)),
        Call::Leases => matches!(response, Response::LeaseLeases(_)),
        Call::Checkpoint => matches!(response, Response::Checkpointed(_)),
        Call::Transfer => matches!(response, Response::LeaderTransferred(_)),
        Call::Change(_) => matches!(response, Response::Members(_)),
    }
}
