//! The end of a run: a part heals and must work, then everything heals and must be the same everywhere.
//!
//! ```text
//!   Safety ──► (Liveness of a core, the rest as bad as it can be) ──► Settling ──► Imaging ──► Expiring ──► over
//!                                                                         ▲           │
//!                                                                         └───────────┘ power loss of all, if the run has that
//! ```
//!
//! A run in which a member's data were altered ends otherwise (`altering.rs`).
//!
//! Settled means: all members (of the core) run and have applied everything, each of them has answered a new write and a
//! new linearizable read and told a watch of a change, a lease was granted (and has ended, of a core), one of them leads and has done so for a while, no request is without an answer, every watch
//! has heard everything. In the end all states are equal, and so are the checkpoints that all members write, byte by byte;
//! and the leases that are left, which nobody renews any more, end in time.
//!
//! The core may be excused only if the disks prove that it cannot work: too many of them hold something that is not what
//! was written there.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::checkpoint::DATABASE;
use quorate_core::mvcc::View;
use quorate_core::types::{MemberId, Revision};

use super::altering::Refusals;
use super::clients::PROBE;
use super::machine::OpenRequest;
use super::workload::{Call, probe_grant};
use super::{Event, World};
use crate::check::Violation;
use crate::check::convergence::{self, Ending};
use crate::network::Ill;
use crate::trace::line;

/// The network's name for what makes those outside of the core ill.
const OUTSIDE: usize = usize::MAX;
/// The links of a slow member take about this long at most. A read then needs longer than a member waits before it asks
/// anew, and less than a client waits: it takes four such ways, each with its tail.
const SLOW_NS_MAX: u64 = 100_000_000;
/// A leader must stay for so many election timeouts.
const STABLE_ELECTIONS: u64 = 2;
/// Leases from this number on are asked for by settling.
const PROBE_LEASES: i64 = 1 << 40;
/// How often it is looked at.
pub(super) const LOOK_NS: u64 = 100_000_000;

/// Where a run stands.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Load and faults together.
    Safety,
    /// Healed, and judged.
    Settling {
        /// Who must work: all members, or the core.
        core: BTreeSet<MemberId>,
        /// Whether it is a core.
        is_core: bool,
        /// It must have settled by then.
        until_ns: u64,
        /// The leader, and since when.
        leader: (Option<MemberId>, u64),
        /// What each member has answered since: (writes, reads).
        answered: BTreeMap<MemberId, (u64, u64)>,
        /// A lease that must be granted, and by a core alone be ended.
        lease: i64,
        /// Whether the power loss at the end is over, or there is none.
        is_last: bool,
    },
    /// Somebody's data were altered: it must be found.
    Suspecting {
        /// By then.
        until_ns: u64,
        /// What was done to bring it to light.
        steps: u64,
        /// What a cluster does that knows of it.
        refusals: Refusals,
    },
    /// All members write a checkpoint.
    Imaging {
        /// They must have done so by then.
        until_ns: u64,
        /// As in `Settling`.
        is_last: bool,
    },
    /// The leases that are left end.
    Expiring {
        /// The leader, and since when; a new one begins their time anew.
        leader: (Option<MemberId>, u64),
        /// They must have ended by then, whoever leads.
        until_ns: u64,
    },
}

impl World {
    pub(super) fn is_safety(&self) -> bool {
        matches!(self.stage, Stage::Safety)
    }

    /// Load and faults end.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.trace.event(self.now_ns, &[9], &[], || {
            line("all", "load and faults end", "")
        });
        self.end_all_faults();
        self.network.calm();
        self.heal_network();
        let members = self.members();
        for &member in &members {
            let machine = self.machines.get_mut(&member).expect("a member");
            machine.slowness = 1;
            machine.disk.heal();
            if machine.is_paused {
                self.resume(member);
            }
        }
        self.options.disk.stall_ppm = 0;
        if self.corruption.is_anybody() {
            self.heal_altered();
            return Ok(());
        }
        if self.options.core_first && members.len() > 2 && self.are_replaced() {
            return self.heal_core(&members);
        }
        self.heal_all();
        Ok(())
    }

    /// A core that has a quorum must work, whatever becomes of the rest.
    fn heal_core(&mut self, members: &[MemberId]) -> Result<(), Violation> {
        let quorum = members.len() / 2 + 1;
        let mut left: Vec<_> = self.intact(members).collect();
        if left.len() < quorum {
            self.excuse()?;
            return Ok(());
        }
        let mut core = BTreeSet::new();
        let size = self.healing.between(quorum as u64, left.len() as u64) as usize;
        while core.len() < size || !self.has_quorum(&core) {
            if left.is_empty() {
                self.count("no core could work alone");
                self.heal_all();
                return Ok(());
            }
            let place = self.healing.below(left.len() as u64) as usize;
            core.insert(left.swap_remove(place));
        }
        for member in members {
            if core.contains(member) {
                self.turn_on(*member);
            } else {
                self.make_worse(*member);
            }
        }
        self.count("core healed alone");
        self.begin_settling(core, true, false);
        Ok(())
    }

    /// Whether these have a quorum by whatever configuration any of them goes by. A change of members binds who has
    /// applied it: who has not elects by the members before, and a voter that was just promoted counts for nothing there.
    pub(super) fn has_quorum(&self, core: &BTreeSet<MemberId>) -> bool {
        let oldest = core.iter().map(|member| {
            let machine = &self.machines[member];
            // One that begins anew goes by its checkpoint first.
            match &machine.process {
                Some(process) => process.node.applied().0,
                None => machine.image_index,
            }
        });
        let mut binding = self.raft.history.since(oldest.min().unwrap_or(0));
        binding.all(|members| members.have_quorum(|it| core.contains(&it)))
    }

    /// Those whose disks are as they should be.
    fn intact(&self, members: &[MemberId]) -> impl Iterator<Item = MemberId> {
        let is_intact = |member: &&MemberId| !self.machines[member].disk.is_spoilt();
        members.iter().filter(is_intact).copied()
    }

    /// The cluster cannot be asked to work, since too many disks hold what was never written there. The proof is
    /// looked at; then everything is repaired.
    fn excuse(&mut self) -> Result<(), Violation> {
        let members = self.members();
        let intact = self.intact(&members).count();
        convergence::check_excuse(&mut self.facts, intact, members.len())?;
        self.count("liveness excused by damage");
        self.heal_all();
        Ok(())
    }

    /// Somebody outside of the core goes off, or is heard or hears no more, or only slowly.
    fn make_worse(&mut self, member: MemberId) {
        let others = self.members();
        let mut fate = self.healing.below(5);
        if !self.options.pre_vote {
            fate = fate.min(1); // Who hears badly, and campaigns without asking, deposes leader after leader.
        }
        if self.machines[&member].disk.is_spoilt() {
            fate = 0; // It might lead, and have nothing whole to send to a member of the core that is far behind.
        }
        let slowness = (SLOW_NS_MAX / self.options.network.delay_ns).clamp(1, 20);
        self.note("stays outside of the core", member, fate);
        if fate == 0 {
            self.crash(member);
            self.machines.get_mut(&member).expect("a member").is_off = true;
            return;
        }
        self.turn_on(member);
        for other in others.into_iter().filter(|other| *other != member) {
            let (out, back) = match fate {
                1 => (Ill::Cut, Ill::Cut),
                2 => (Ill::Slow(1), Ill::Cut),
                3 => (Ill::Cut, Ill::Slow(1)),
                _ => (Ill::Slow(slowness), Ill::Slow(slowness)),
            };
            self.network.afflict(OUTSIDE, member, other, out);
            self.network.afflict(OUTSIDE, other, member, back);
        }
    }

    /// A machine that is off is turned on, its disk repaired.
    fn turn_on(&mut self, member: MemberId) {
        let machine = self.machines.get_mut(&member).expect("a member");
        machine.is_off = false;
        if machine.process.is_none() {
            machine.repair_disk();
            let life = machine.life;
            self.at(self.now_ns, Event::Boot { member, life });
        }
    }

    /// Everything heals.
    fn heal_all(&mut self) {
        let members = self.heal_everywhere();
        self.begin_settling(members, false, !self.options.final_power_loss);
    }

    /// Network and disks are as they should be, and everybody is on.
    pub(super) fn heal_everywhere(&mut self) -> BTreeSet<MemberId> {
        self.trace.event(self.now_ns, &[12], &[], || {
            line("all", "everything heals", "")
        });
        self.heal_network();
        let members: BTreeSet<_> = self.members().into_iter().collect();
        for &member in &members {
            // A leader whose image is damaged has nothing to send to a follower that is far behind.
            let machine = self.machines.get_mut(&member).expect("a member");
            machine.repair_disk();
            self.turn_on(member);
        }
        members
    }

    pub(super) fn settling_until_ns(&self) -> u64 {
        let election_ns = self.options.election().as_nanos() as u64;
        let patience_ns = self.options.request_timeout.as_nanos() as u64;
        self.now_ns + 30_000_000_000 + 30 * election_ns + 4 * patience_ns
    }

    fn begin_settling(&mut self, core: BTreeSet<MemberId>, is_core: bool, is_last: bool) {
        self.watch_probes(&core);
        self.settled += 1;
        self.stage = Stage::Settling {
            core,
            is_core,
            until_ns: self.settling_until_ns(),
            leader: (None, self.now_ns),
            answered: BTreeMap::new(),
            lease: PROBE_LEASES + self.settled,
            is_last,
        };
        self.at(self.now_ns + LOOK_NS, Event::Settle);
    }

    /// Something was answered at a member.
    pub(super) fn note_answered(&mut self, member: MemberId, is_write: bool) {
        if let Stage::Settling { answered, .. } = &mut self.stage {
            let (writes, reads) = answered.entry(member).or_default();
            *(if is_write { writes } else { reads }) += 1;
        }
    }

    /// Looks whether it has settled. `false` when the run is over.
    pub(super) fn settle(&mut self) -> Result<bool, Violation> {
        self.watch_leader();
        self.count_in_new_members();
        let (is_core, until_ns, is_last) = match &self.stage {
            Stage::Safety => return Ok(true),
            Stage::Suspecting {
                until_ns, steps, ..
            } => return self.suspect(*until_ns, *steps),
            Stage::Imaging { until_ns, is_last } => {
                return self.compare_images(*until_ns, *is_last);
            }
            Stage::Expiring { leader, until_ns } => return self.end_leases(leader.1, *until_ns),
            Stage::Settling {
                is_core,
                until_ns,
                is_last,
                ..
            } => (*is_core, *until_ns, *is_last),
        };
        if let Some(missing) = self.missing() {
            if is_core && self.core_is_damaged() {
                self.excuse()?;
                return Ok(true);
            }
            let in_time = self.now_ns <= until_ns;
            self.facts.expect("converge.live", in_time, || missing)?;
            self.at(self.now_ns + LOOK_NS, Event::Settle);
            self.probe();
            return Ok(true);
        }
        self.facts.expect("converge.live", true, String::new)?;
        if is_core {
            self.count("core worked alone");
            self.heal_all();
            return Ok(true);
        }
        for watcher in &self.watchers {
            let missing = watcher.missing(&self.ledger);
            self.facts.expect("watch.live", missing.is_none(), || {
                missing.clone().unwrap_or_default()
            })?;
        }
        self.compare_endings()?;
        self.ask_for_images(self.settling_until_ns(), is_last)
    }

    /// Who has joined since everything healed must work, too.
    fn count_in_new_members(&mut self) {
        let members: BTreeSet<_> = self.members().into_iter().collect();
        if let Stage::Settling { core, is_core, .. } = &mut self.stage
            && !*is_core
            && *core != members
        {
            let new = members.difference(core).copied().collect();
            *core = members;
            self.watch_probes(&new);
        }
    }

    fn ask_for_images(&mut self, until_ns: u64, is_last: bool) -> Result<bool, Violation> {
        let members = self.members();
        for member in members {
            self.ask(member, PROBE, self.now_ns, Call::Checkpoint)?;
        }
        self.stage = Stage::Imaging { until_ns, is_last };
        self.at(self.now_ns + LOOK_NS, Event::Settle);
        Ok(true)
    }

    /// Whether a member of the core refuses what its disk holds.
    fn core_is_damaged(&self) -> bool {
        let Stage::Settling { core, .. } = &self.stage else {
            return false;
        };
        let members = self.members();
        let is_lost = |member: &MemberId| {
            let machine = &self.machines[member];
            machine.process.is_none() && machine.disk.is_spoilt()
        };
        core.iter().any(is_lost) && 2 * self.intact(&members).count() <= members.len()
    }

    fn watch_leader(&mut self) {
        let now_ns = self.now_ns;
        // A leader may well be outside of the core, as long as the core is served.
        let present = self.leader();
        if let Stage::Settling { leader, .. } | Stage::Expiring { leader, .. } = &mut self.stage
            && leader.0 != present
        {
            *leader = (present, now_ns);
        }
    }

    /// All members have written a checkpoint at the same index: the files are the same.
    fn compare_images(&mut self, until_ns: u64, is_last: bool) -> Result<bool, Violation> {
        let is_asked = |open: &OpenRequest| open.client == PROBE;
        let members = self.members();
        let waits = members.iter().find(|member| {
            let process = self.machines[member].process.as_ref();
            process.is_none_or(|process| process.open.values().any(is_asked))
        });
        if let Some(member) = waits {
            let missing = format!("{member:?} has not written its checkpoint");
            let in_time = self.now_ns <= until_ns;
            self.facts.expect("converge.live", in_time, || missing)?;
            self.at(self.now_ns + LOOK_NS, Event::Settle);
            return Ok(true);
        }
        // The log may have gone on between two checkpoints (a lease has ended): then they are written again.
        let index_of = |member| self.machines[member].image_index;
        let indexes: BTreeSet<_> = members.iter().map(index_of).collect();
        if indexes.len() > 1 {
            let missing = format!("the checkpoints are at {indexes:?}");
            let in_time = self.now_ns <= until_ns;
            self.facts.expect("converge.live", in_time, || missing)?;
            return self.ask_for_images(until_ns, is_last);
        }
        let images = members.iter().map(|member| {
            let image = self.machines[member].disk.read_file(DATABASE);
            (*member, image.unwrap_or_default())
        });
        let images: BTreeMap<_, _> = images.collect();
        self.count("images compared");
        convergence::check_images(&mut self.facts, &images)?;
        if is_last {
            let leader = (self.leader(), self.now_ns);
            let until_ns = self.settling_until_ns() + 2 * self.leases.longest_ns();
            self.stage = Stage::Expiring { leader, until_ns };
            return self.end_leases(self.now_ns, until_ns);
        }
        self.lose_all_power()?;
        let members = self.members().into_iter().collect();
        self.begin_settling(members, false, true);
        Ok(true)
    }

    /// Nobody renews any more, so that all leases end.
    fn end_leases(&mut self, since_ns: u64, until_ns: u64) -> Result<bool, Violation> {
        let election_ns = self.options.election().as_nanos() as u64;
        let all_ended =
            self.leases
                .check_ends(&mut self.facts, self.now_ns, since_ns, election_ns)?;
        let in_time = all_ended || self.now_ns <= until_ns;
        let missing = || "leases are left, and the leader changes all the time".to_owned();
        self.facts.expect("converge.live", in_time, missing)?;
        if !all_ended {
            self.at(self.now_ns + LOOK_NS, Event::Settle);
        }
        Ok(!all_ended)
    }

    /// Asks each member that has not answered yet, or has told nobody of a change, for a write and a read; and somebody for
    /// a lease.
    fn probe(&mut self) {
        let Stage::Settling {
            core,
            answered,
            lease,
            ..
        } = &self.stage
        else {
            return;
        };
        let (core, answered, lease) = (core.clone(), answered.clone(), *lease);
        for &member in &core {
            let has_answered = answered.get(&member);
            let has_answered = has_answered.is_some_and(|&(writes, reads)| writes > 0 && reads > 0);
            if has_answered && self.has_told(member) {
                continue;
            }
            if self.can_be_probed(member) {
                self.probe_member(member);
            }
        }
        if self.leases.has_ended(lease).is_none()
            && let Some(member) = core.into_iter().find(|it| self.can_be_probed(*it))
        {
            let called = self.ask(member, PROBE, self.now_ns, probe_grant(lease));
            called.expect("nothing is answered at once");
        }
    }

    /// Whether a member runs and has answered everything that settling has asked it.
    pub(super) fn can_be_probed(&self, member: MemberId) -> bool {
        let process = self.machines[&member].process.as_ref();
        let is_asked = |open: &OpenRequest| open.client == PROBE;
        process.is_some_and(|process| !process.open.values().any(is_asked))
    }

    /// What has not settled.
    fn missing(&self) -> Option<String> {
        let Stage::Settling {
            core,
            answered,
            leader,
            lease,
            is_core,
            ..
        } = &self.stage
        else {
            return None;
        };
        if !self.are_replaced() {
            return Some("a member is being replaced".to_owned());
        }
        if self.has_no_space() {
            return Some("there is no space".to_owned());
        }
        if let Some(member) = self.owes_alarm() {
            return Some(format!("{member:?} had no space, and raises no alarm"));
        }
        let last = self.ledger.last();
        for member in core {
            let Some(process) = &self.machines[member].process else {
                return Some(format!("{member:?} does not run"));
            };
            let (writes, reads) = answered.get(member).copied().unwrap_or_default();
            if writes == 0 || reads == 0 {
                return Some(format!(
                    "{member:?} has answered {writes} writes and {reads} reads"
                ));
            }
            if !self.has_told(*member) {
                return Some(format!("{member:?} has told its watch of no change"));
            }
            let position = self.raft.position(*member);
            if position.applied != last {
                return Some(format!(
                    "{member:?} is at {position:?}, committed are {last}"
                ));
            }
            if let Some((ticket, open)) = process.open.first_key_value() {
                return Some(format!("{member:?} owes an answer to {ticket:?}: {open:?}"));
            }
        }
        match self.leases.has_ended(*lease) {
            None => return Some(format!("lease {lease} is not granted")),
            Some(false) if *is_core => return Some(format!("lease {lease} does not end")),
            _ => {}
        }
        let members = self.members();
        let missed = (0..).zip(&self.watchers).find_map(|(number, watcher)| {
            let place = watcher.place(number, &members);
            let concerns = place.is_none_or(|member| core.contains(&member));
            watcher.missing(&self.ledger).filter(|_| concerns)
        });
        let stable_ns = STABLE_ELECTIONS * self.options.election().as_nanos() as u64;
        missed.or_else(|| match leader {
            (None, _) => Some("nobody leads".to_owned()),
            (Some(_), since_ns) if self.now_ns < since_ns + stable_ns => {
                Some("the leader changes all the time".to_owned())
            }
            _ => None,
        })
    }

    /// The hash at a revision between the compact revision and the present; where nothing is left there, it says nothing
    /// (docs/bugs.md, Q3).
    fn earlier_hash(&self, view: &View) -> Option<(i64, u32)> {
        let (now, compacted) = (view.revision().0, view.compact_revision().0);
        let at = (now + compacted.max(1)) / 2;
        let is_told = at > compacted && !self.ledger.model().is_empty_at(at);
        let hash = view.hash_kv(Revision(at)).ok().filter(|_| is_told)?;
        Some((at, hash.hash))
    }

    fn compare_endings(&mut self) -> Result<(), Violation> {
        let members = self.members();
        let mut endings = BTreeMap::new();
        for member in members {
            self.audit_content(member)?;
            self.audit_platter(member)?;
            let machine = &self.machines[&member];
            let process = machine.process.as_ref().expect("a running member");
            let view = process.node.view();
            let hash = view
                .hash_kv(Revision(0))
                .expect("the present can be hashed");
            let ending = Ending {
                applied: self.raft.position(member).applied,
                revision: view.revision().0,
                compacted: view.compact_revision().0,
                hash: hash.hash,
                earlier: self.earlier_hash(&view),
                alarms: process.node.status().alarms.to_vec(),
            };
            endings.insert(member, ending);
        }
        convergence::check(&mut self.facts, &endings)
    }
}
