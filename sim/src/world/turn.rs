//! A turn of a member, and the carrying out of what it wants.
//!
//! A turn is what the server's consensus thread does: the inbox into the node, one flush, the outputs in order.

use quorate_core::boundary::{Input, MembersChange, Output, Request};
use quorate_core::types::{MemberId, Ticket};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Message;

use super::machine::LogWork;
use super::{Doing, Event, World, name};
use crate::check::members::Members;
use crate::check::raft::Position;
use crate::check::{Violation, purging, state};
use crate::network::Delivery;
use crate::trace::line;

/// Turns after which the whole content is compared, in a million.
const AUDIT_CONTENT_PPM: u32 = 5_000;
/// Turns after which the platter is read, in a million.
const AUDIT_PLATTER_PPM: u32 = 300;
/// A message that could not be delivered is noticed so often, in a million.
const UNREACHABLE_PPM: u32 = 300_000;

impl World {
    /// Gives a member something to take at its next turn.
    pub(super) fn give(&mut self, member: MemberId, input: Input) {
        let turn_ns = self.options.storage.turn_ns;
        let machine = self.machines.get_mut(&member).expect("a member");
        let Some(process) = machine.process.as_mut() else {
            return;
        };
        process.inbox.push(input);
        let latency_ns = machine.timing.between(1_000, turn_ns);
        self.turn_at(member, self.now_ns + latency_ns);
    }

    /// Makes sure that a turn comes at this time or before.
    pub(super) fn turn_at(&mut self, member: MemberId, at_ns: u64) {
        let machine = self.machines.get_mut(&member).expect("a member");
        let process = machine.process.as_mut().expect("a running member");
        if process.turn_at_ns.is_none_or(|planned| at_ns < planned) {
            process.turn_at_ns = Some(at_ns);
            // The next tick is planned by every turn before it; once is enough.
            if !process.turns_queued.contains(&at_ns) {
                process.turns_queued.push(at_ns);
                self.in_process(at_ns, member, Doing::Turn);
            }
        }
    }

    pub(super) fn turn(&mut self, member: MemberId) -> Result<(), Violation> {
        let now_ns = self.now_ns;
        self.note_size(member);
        let machine = self.machines.get_mut(&member).expect("a member");
        let now = machine.clock.read(now_ns);
        let process = machine.process.as_mut().expect("a running member");
        process.turns_queued.retain(|queued| *queued > now_ns);
        if process.turn_at_ns.is_none_or(|planned| planned > now_ns) {
            return Ok(()); // Another turn came first, and has taken everything.
        }
        process.turn_at_ns = None;
        let applied_before = process.node.applied().0;
        process.applied_before = applied_before;
        let mut inputs = std::mem::replace(&mut process.inbox, std::mem::take(&mut self.inputs));
        if inputs.is_empty() || process.node.deadline() <= now {
            process.node.handle(now, Input::Wake);
        }
        let mut promotions = Vec::new();
        for input in inputs.drain(..) {
            promotions.extend(promotion(&input));
            process.node.handle(now, input);
        }
        self.inputs = inputs;
        let mut outputs = std::mem::take(&mut self.outputs);
        process.node.flush(&mut outputs);
        process.node.check();
        self.note_shrinking(member, &outputs);
        // Writes first, for the oracles: what a message or an answer promises may rest on them.
        for output in &outputs {
            if let Output::Write(write) = output {
                self.mark_write(member, write);
                self.raft.on_write(&mut self.facts, member, write)?;
                self.images.check_write(&mut self.facts, member, write)?;
            }
        }
        self.judge_changes(member, &outputs, &promotions)?;
        self.observe(member, outputs.len())?;
        self.judge_peers(member, &outputs)?;
        self.judge_leases_of_turn(member, applied_before)?;
        let mut advanced = false;
        for output in outputs.drain(..) {
            advanced |= matches!(output, Output::StoreAdvanced);
            self.carry_out(member, output)?;
            if self.machines[&member].process.is_none() {
                return Ok(());
            }
        }
        self.outputs = outputs;
        self.serve_watches(member, advanced)?;
        self.plan_turn(member);
        self.look_for_triggers();
        self.audit(member)
    }

    /// What the member says of itself.
    fn observe(&mut self, member: MemberId, outputs: usize) -> Result<(), Violation> {
        let process = self.machines[&member]
            .process
            .as_ref()
            .expect("a running member");
        let position = Position {
            term: process.node.term().0,
            committed: process.node.committed().0,
            applied: process.node.applied().0,
            leads: process.node.is_leader(),
        };
        let before = self.raft.position(member);
        if position.leads && !before.leads {
            *self.counts.entry("leader elected").or_default() += 1;
        }
        self.raft
            .on_position(&mut self.facts, &mut self.ledger, member, position)?;
        let view = process.node.view();
        if !self.corruption.is_altered(member) {
            state::check_revisions(
                &mut self.facts,
                &self.ledger,
                member,
                position.applied,
                &view,
            )?;
        }
        self.images
            .check_applied(&mut self.facts, member, position.applied)?;
        if position.applied != before.applied {
            self.judge_configuration(member)?;
            self.note_changes();
        }
        self.mark_position(member, before, position)?;
        let Position {
            term,
            committed,
            applied,
            leads,
        } = position;
        let words = [
            1,
            member.0,
            term,
            committed,
            applied,
            u64::from(leads),
            outputs as u64,
        ];
        self.trace.event(self.now_ns, &words, &[], || {
            let role = if leads { " leads" } else { "" };
            let state = format!("term {term} committed {committed} applied {applied}{role}");
            line(&name(member), "turn", state)
        });
        Ok(())
    }

    fn carry_out(&mut self, member: MemberId, output: Output) -> Result<(), Violation> {
        match output {
            Output::Send { to, message } => self.send(member, to, &message)?,
            Output::SendSnapshot { to, message } => self.send_snapshot(member, to, message)?,
            Output::Discard(install) => self.discard(member, &install)?,
            Output::Write(write) => {
                let entries = write.entries.iter().fold(0, |sum, entry| sum + entry.index);
                self.note("wants a write", member, write.number.0 << 32 | entries);
                self.want_log_work(member, LogWork::Append(write));
            }
            Output::ReadEntries {
                first,
                last,
                bytes_max,
            } => {
                self.count("old entries read");
                self.want_log_work(
                    member,
                    LogWork::Read {
                        first,
                        last,
                        bytes_max,
                    },
                );
            }
            Output::Checkpoint(job) => {
                let (index, applied) = (job.index().0, self.raft.position(member).applied);
                purging::Images::check_wanted(&mut self.facts, member, index, applied)?;
                self.want_checkpoint(member, job);
            }
            Output::Reply { ticket, result } => self.on_reply(member, ticket, result)?,
            Output::GatherHashes {
                number,
                revision,
                peers,
            } => self.gather(member, number, revision, peers),
            Output::Compared(findings) => self.judge_findings(member, &findings)?,
            Output::StoreAdvanced | Output::Peers(_) | Output::Token(_) => {}
            Output::Stop(_) if self.is_removed(member) => {
                self.count("removed member said farewell");
                self.switch_off(member);
            }
            Output::Stop(reason) => {
                // No request of a run makes a member stop.
                return Err(Violation::new(
                    "contract.output",
                    format!("{member:?} stops: {reason}"),
                ));
            }
        }
        Ok(())
    }

    fn send(&mut self, from: MemberId, to: MemberId, message: &Message) -> Result<(), Violation> {
        self.raft.on_send(&mut self.facts, from, message)?;
        self.mark_message(message);
        let sent = self.network.send(self.now_ns, from, to, message);
        let count = u64::from(sent.first.is_some()) + u64::from(sent.again.is_some());
        let words = [2, from.0, to.0, count];
        let bytes = sent
            .first
            .as_ref()
            .map_or(&[][..], |delivery| &delivery.bytes);
        self.trace.event(self.now_ns, &words, bytes, || {
            let kind = message.kind().map(|kind| kind.as_str_name());
            let refusal = if message.reject { " refusal" } else { "" };
            let content = format!(
                "{} term {} index {} commit {} entries {}{refusal} x{count}",
                kind.unwrap_or("?"),
                message.term,
                message.index,
                message.commit,
                message.entries.len(),
            );
            line(&name(from), format_args!("sends to {}", name(to)), content)
        });
        if sent.is_refused {
            self.learns_unreachable(from, to);
        }
        for delivery in [sent.first, sent.again].into_iter().flatten() {
            self.at(delivery.at_ns, Event::Deliver(delivery));
        }
        Ok(())
    }

    pub(super) fn on_delivery(&mut self, delivery: Delivery) {
        let (from, to) = (delivery.from, delivery.to);
        self.trace.event(
            self.now_ns,
            &[3, from.0, to.0, delivery.number],
            &[],
            || {
                let what = format!("hears from {}", name(from));
                line(&name(to), what, format_args!("message {}", delivery.number))
            },
        );
        let message = self.network.arrive(delivery);
        let is_up = self.machines[&to].process.is_some();
        if let (Some(message), true) = (message, is_up) {
            return self.give(to, Input::Receive { from, message });
        }
        self.learns_unreachable(from, to);
    }

    /// A sender may hear that something did not arrive.
    fn learns_unreachable(&mut self, from: MemberId, to: MemberId) {
        let sender = self.machines.get_mut(&from).expect("a member");
        if sender.process.is_some() && sender.timing.chance(UNREACHABLE_PPM) {
            self.give(from, Input::Unreachable(to));
        }
    }

    /// The next turn comes at the deadline, if nothing comes before.
    fn plan_turn(&mut self, member: MemberId) {
        let machine = &self.machines[&member];
        let process = machine.process.as_ref().expect("a running member");
        let deadline = process.node.deadline().min(process.hub.deadline());
        if let Some(at_ns) = machine.clock.when(deadline) {
            self.turn_at(member, at_ns.max(self.now_ns + 1_000));
        }
    }

    /// Now and then looks closer than every turn could afford.
    fn audit(&mut self, member: MemberId) -> Result<(), Violation> {
        if self.audit.chance(AUDIT_CONTENT_PPM) {
            self.audit_content(member)?;
        }
        if self.audit.chance(AUDIT_PLATTER_PPM) {
            self.audit_platter(member)?;
        }
        Ok(())
    }

    pub(super) fn audit_content(&mut self, member: MemberId) -> Result<(), Violation> {
        if self.corruption.is_altered(member) {
            return Ok(());
        }
        let process = self.machines[&member]
            .process
            .as_ref()
            .expect("a running member");
        let applied = process.node.applied().0;
        if applied >= self.options.members {
            let listed = process.node.status().members;
            let (learners, voters) = listed.iter().partition(|member| member.is_learner);
            let ids =
                |members: Vec<&pb::Member>| members.iter().map(|it| MemberId(it.id)).collect();
            let found = Members::new(ids(voters), ids(learners));
            let urls = listed
                .iter()
                .map(|it| (MemberId(it.id), it.peer_urls.clone()));
            let urls = urls.collect();
            let addresses = &self.raft.addresses;
            addresses.check(&mut self.facts, member, applied, &urls)?;
            let history = &self.raft.history;
            history.check(&mut self.facts, member, applied, &found)?;
            self.judge_configuration(member)?;
        }
        self.audit_rules(member)?;
        let process = self.machines[&member].process.as_ref();
        let view = process.expect("a running member").node.view();
        state::check_content(&mut self.facts, &self.ledger, member, &view)?;
        self.judge_size(member, &view)?;
        // Round revisions, so that members at different ones are compared, too.
        let round = view.revision().0 / 8 * 8;
        for revision in [0, round] {
            let at = if revision == 0 {
                view.revision().0
            } else {
                revision
            };
            if self.ledger.model().is_empty_at(at) {
                continue; // Where nothing is left, etcd's hash depends on when it is made (docs/bugs.md, Q3).
            }
            if let Some(hash) = self
                .hashes
                .check(&mut self.facts, member, &view, revision)?
            {
                let words = [7, member.0, u64::from(hash.hash)];
                self.trace.event(self.now_ns, &words, &[], || {
                    line(&name(member), "hashes", format_args!("{hash:?}"))
                });
            }
        }
        Ok(())
    }
}

/// A promotion that a member is asked for.
fn promotion(input: &Input) -> Option<(Ticket, MemberId)> {
    match input {
        Input::Request {
            ticket,
            request: Request::ChangeMembers(MembersChange::Promote(learner)),
        } => Some((*ticket, *learner)),
        _ => None,
    }
}
