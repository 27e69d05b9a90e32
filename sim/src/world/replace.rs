//! A machine that is gone for good, or is to go, and somebody who puts another member in its place, as an operator would: the
//! one that goes is removed, a new one is added as a learner and promoted as soon as the leader agrees.
//!
//! One at a time: two lost disks of three are more than a cluster can bear. The operator asks again and again until
//! what he wants stands in the log, also while everything heals.

use quorate_core::boundary::MembersChange;
use quorate_core::checkpoint::MemberRecord;
use quorate_core::member::member_id;
use quorate_core::types::MemberId;

use super::clients::PROBE;
use super::machine::Machine;
use super::workload::Call;
use super::{Event, World};
use crate::check::Violation;
use crate::random::{Purpose, Stream};

/// How long the operator waits before he looks, and asks, again.
const PATIENCE_NS: u64 = 150_000_000;

/// How often a removed member is switched off when somebody looks, in a million.
const SWITCHED_OFF_PPM: u32 = 100_000;

/// A place that another member takes.
pub(super) struct Replacement {
    lost: MemberId,
    new: MemberRecord,
    stream: Stream,
    is_done: bool,
}

impl World {
    /// Counts a run whose members change while something else goes wrong as well.
    pub(super) fn note_changes(&mut self) {
        let changes = self.raft.history.changes();
        if std::mem::replace(&mut self.changes_seen, changes) != changes && self.is_struck() {
            self.counts.insert("run with changes under faults", 1);
        }
    }

    /// Whether nobody is being replaced.
    pub(super) fn are_replaced(&self) -> bool {
        self.replacements.iter().all(|it| it.is_done)
    }

    /// Another member is to take the place of one, whose machine may be gone with its disk. `false` if the cluster could
    /// not bear that.
    pub(super) fn begin_replacement(&mut self, member: MemberId, is_gone: bool) -> bool {
        // Those that are left may go by the members before the last change: with two lost disks of three they may be one
        // of two then.
        let bearable = (self.options.members as usize - 1) / 2;
        if !self.are_replaced() || self.replacements.len() >= bearable {
            return false;
        }
        if is_gone {
            self.go_dark(member);
            let machine = self.machines.get_mut(&member).expect("a member");
            machine.is_lost = true;
        }
        let number = self.machines.len() as u64 + 1;
        let peer_urls = vec![format!("http://10.0.0.{number}:2380")];
        let new = MemberRecord {
            id: member_id(&peer_urls, "", Some(self.now_ns as i64)),
            peer_urls,
            name: String::new(),
            client_urls: Vec::new(),
            is_learner: true,
        };
        self.note("gives its place to", member, new.id.0);
        let mut machine = Machine::new(self.seed, number, &self.options);
        machine.joins = true;
        // Nobody starts it before it is added.
        machine.is_lost = true;
        self.machines.insert(new.id, machine);
        self.raft.add(new.id);
        let place = self.replacements.len();
        self.replacements.push(Replacement {
            lost: member,
            new,
            stream: Stream::new(self.seed, Purpose::Heal, place as u64 + 1),
            is_done: false,
        });
        self.at(self.now_ns + PATIENCE_NS, Event::Replace(place));
        true
    }

    /// The operator's next step.
    pub(super) fn replace(&mut self, place: usize) -> Result<(), Violation> {
        let Replacement { lost, new, .. } = &self.replacements[place];
        let (lost, new) = (*lost, new.clone());
        let members = self.raft.history.last();
        if !members.voters.contains(&lost) && !self.machines[&lost].is_lost {
            // Sooner or later it is switched off, whether it has heard of its removal or not.
            let is_added = members.voters.contains(&new.id);
            if self.replacements[place].stream.chance(SWITCHED_OFF_PPM) || is_added {
                self.switch_off(lost);
            }
        }
        let members = self.raft.history.last();
        let change = if members.voters.contains(&lost) {
            Some(MembersChange::Remove(lost))
        } else if members.voters.contains(&new.id) {
            None
        } else if members.learners.contains(&new.id) {
            self.start_joining(new.id);
            Some(MembersChange::Promote(new.id))
        } else {
            Some(MembersChange::Add(new))
        };
        let Some(change) = change else {
            self.replacements[place].is_done = true;
            self.count("member replaced");
            return Ok(());
        };
        self.ask_for_change(place, change)?;
        let pause_ns = self.replacements[place].stream.with_tail(PATIENCE_NS);
        self.at(self.now_ns + pause_ns, Event::Replace(place));
        Ok(())
    }

    /// Somebody gives a member other addresses: new ones, or by mistake those of another member, which is refused.
    pub(super) fn change_urls(&mut self, member: MemberId) -> Result<(), Violation> {
        let number = self.now_ns / 1_000 % 1_000_000;
        let taken = self.founders[0].peer_urls[0].clone();
        let peer_urls = match number % 4 {
            0 => vec![taken],
            1 => vec![
                format!("http://10.1.0.{number}:2380"),
                "http://10.1.1.1:2380".to_owned(),
            ],
            _ => vec![format!("http://10.1.0.{number}:2380")],
        };
        let running = self
            .members()
            .into_iter()
            .filter(|it| self.machines[it].process.is_some());
        let running: Vec<_> = running.collect();
        if running.is_empty() {
            return Ok(());
        }
        self.count("change of addresses asked for");
        let asked = running[number as usize % running.len()];
        let change = MembersChange::UpdateUrls { member, peer_urls };
        self.ask(asked, PROBE, self.now_ns, Call::Change(change))
    }

    /// Whether a member is none any more.
    pub(super) fn is_removed(&self, member: MemberId) -> bool {
        let members = self.raft.history.last();
        !members.voters.contains(&member) && !members.learners.contains(&member)
    }

    /// A member that was removed ends.
    pub(super) fn switch_off(&mut self, member: MemberId) {
        self.count("removed member switched off");
        self.crash(member);
        self.leave_home(member);
        self.machines.get_mut(&member).expect("a member").is_lost = true;
    }

    /// The new member has been added: its process begins.
    fn start_joining(&mut self, member: MemberId) {
        let machine = self.machines.get_mut(&member).expect("it was made");
        if machine.joins && std::mem::take(&mut machine.is_lost) {
            let life = machine.life;
            self.at(self.now_ns, Event::Boot { member, life });
        }
    }

    fn ask_for_change(&mut self, place: usize, change: MembersChange) -> Result<(), Violation> {
        let runs = |member: &MemberId| self.machines[member].process.is_some();
        let running: Vec<_> = self.members().into_iter().filter(runs).collect();
        let leader = self.leader();
        let asked = match (&change, leader) {
            (MembersChange::Promote(_), leader) => leader, // Only it knows how far the learner is.
            _ if running.is_empty() => None,
            _ => Some(*self.replacements[place].stream.pick(&running)),
        };
        let is_asked = |open: &super::machine::OpenRequest| matches!(open.call, Call::Change(_));
        let Some(member) = asked.filter(|member| running.contains(member)) else {
            return Ok(());
        };
        let process = self.machines[&member].process.as_ref();
        if process.is_some_and(|process| process.open.values().any(is_asked)) {
            return Ok(());
        }
        self.count("change of members asked for");
        self.ask(member, PROBE, self.now_ns, Call::Change(change))
    }
}
