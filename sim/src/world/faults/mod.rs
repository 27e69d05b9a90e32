//! What goes wrong: the plan's faults, begun and ended when their time has come.
//!
//! Each fault is counted under its name only when it has really done something to somebody; what it then changes in
//! the cluster's life (messages lost in a cut, syncs that failed) is counted where it happens.

mod links;
mod when;

use quorate_core::types::MemberId;

use super::{Event, World};
use crate::check::Violation;
use crate::network::Ill;
use crate::plan::{Kind, RotPlace, Target, Trigger};
use crate::random::{Purpose, Stream};
use crate::trace::line;

/// How long until data are altered if there were none.
const AGAIN_NS: u64 = 250_000_000;

/// How a fault of the plan stands.
pub(super) struct FaultState {
    /// For what can only be drawn when it happens.
    stream: Stream,
    /// Whom it hit.
    pub(super) target: Option<MemberId>,
    /// The process that it hit, for what ends with that.
    life: u64,
    stage: FaultStage,
    /// How often it has taken a step.
    steps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultStage {
    Waiting,
    Going,
    Over,
}

impl FaultState {
    pub(super) fn new(seed: u64, number: usize) -> Self {
        Self {
            stream: Stream::new(seed, Purpose::Faults, number as u64 + 1),
            target: None,
            life: 0,
            stage: FaultStage::Waiting,
            steps: 0,
        }
    }
}

impl World {
    /// Whether faults strike: of those that change no member at least one has begun, and nothing heals yet.
    pub(super) fn is_struck(&self) -> bool {
        let mut faults = self.faults.iter().zip(&self.options.plan);
        self.is_safety()
            && faults.any(|(state, fault)| {
                let is_change = matches!(
                    fault.kind,
                    Kind::LostDisk | Kind::ReplaceMember | Kind::UpdateUrls
                );
                state.stage != FaultStage::Waiting && !is_change
            })
    }

    /// For what can only be drawn when a fault happens.
    pub(super) fn fault_stream(&mut self, number: usize) -> &mut Stream {
        &mut self.faults[number].stream
    }

    /// Queues the beginnings of all faults.
    pub(super) fn schedule_plan(&mut self) {
        for number in 0..self.options.plan.len() {
            let from = &self.options.plan[number].from;
            let at_ns = from.latest_ns();
            if matches!(from, Trigger::When { .. }) {
                self.awaited.push(number);
            }
            self.at(at_ns, Event::FaultBegins(number));
        }
    }

    fn draw_target(&mut self, number: usize) -> Option<MemberId> {
        let leader = self.leader();
        let everybody = self.members();
        let target = self.options.plan[number].target.clone();
        let hit = match target {
            Target::SameAs(other) | Target::NotSameAs(other) => self.faults[other].target,
            _ => None,
        };
        let stream = &mut self.faults[number].stream;
        let mut others_than = |one: Option<MemberId>| {
            let others: Vec<_> = everybody
                .iter()
                .copied()
                .filter(|member| Some(*member) != one)
                .collect();
            (!others.is_empty()).then(|| *stream.pick(&others))
        };
        match target {
            Target::Any => others_than(None),
            Target::Leader => leader.or_else(|| others_than(None)),
            Target::Follower => others_than(leader),
            Target::Member(place) => {
                let mut machines = self.machines.iter();
                machines
                    .find(|(_, machine)| machine.number == place)
                    .map(|(member, _)| *member)
            }
            Target::SameAs(_) => hit,
            Target::NotSameAs(_) => others_than(hit),
        }
    }

    /// A fault's time has come.
    pub(super) fn begin_fault(&mut self, number: usize) -> Result<(), Violation> {
        if !self.is_safety() || self.faults[number].stage != FaultStage::Waiting {
            return Ok(());
        }
        self.awaited.retain(|awaited| *awaited != number);
        self.faults[number].stage = FaultStage::Over;
        let Some(member) = self.draw_target(number) else {
            return Ok(());
        };
        let kind = self.options.plan[number].kind.clone();
        if self.machines[&member].process.is_none() && needs_process(&kind) {
            return Ok(()); // There is nobody to hit.
        }
        let state = &mut self.faults[number];
        state.target = Some(member);
        state.life = self.machines[&member].life;
        self.note(kind.name(), member, number as u64);
        if !kind.is_momentary() {
            self.faults[number].stage = FaultStage::Going;
            let until = &self.options.plan[number].until;
            let at_ns = self.now_ns + until.latest_ns();
            if matches!(until, Trigger::When { .. }) {
                self.awaited.push(number);
            }
            self.at(at_ns, Event::FaultEnds(number));
        }
        if self.inflict(number, member, &kind)? {
            self.count(kind.name());
        } else if matches!(kind, Kind::Alter(_)) {
            // There was no image yet, or nothing in it.
            self.faults[number].stage = FaultStage::Waiting;
            self.at(self.now_ns + AGAIN_NS, Event::FaultBegins(number));
        }
        Ok(())
    }

    /// Does it. `false` if nothing came of it.
    fn inflict(&mut self, number: usize, member: MemberId, kind: &Kind) -> Result<bool, Violation> {
        match kind {
            Kind::Crash => {
                self.crash(member);
                self.faults[number].life = self.machines[&member].life;
            }
            Kind::PowerLoss => {
                self.go_dark(member);
                self.faults[number].life = self.machines[&member].life;
            }
            Kind::PowerLossAll => self.lose_all_power()?,
            Kind::RollingRestart => self.step_fault(number)?,
            Kind::Pause => self.pause(member),
            Kind::Suspend => {
                self.pause(member);
                let now_ns = self.now_ns;
                let machine = self.machines.get_mut(&member).expect("a member");
                machine.clock.freeze(now_ns);
            }
            Kind::Transfer => self.transfer_leadership(member),
            Kind::LostDisk => return Ok(self.begin_replacement(member, true)),
            Kind::UpdateUrls => self.change_urls(member)?,
            Kind::Alter(what) => return self.alter(number, member, *what),
            Kind::ReplaceMember => return Ok(self.begin_replacement(member, false)),
            Kind::ClockRate(rate) => {
                let now_ns = self.now_ns;
                let machine = self.machines.get_mut(&member).expect("a member");
                machine.clock.set_rate(now_ns, *rate);
                // A process that stands still takes no turn meanwhile, and its leases get older all the same.
                self.leases.on_rate(*rate);
                self.look_at_clock(member);
            }
            Kind::WallJump(by_ms) => {
                let machine = self.machines.get_mut(&member).expect("a member");
                machine.clock.jump_wall(*by_ms);
            }
            Kind::Partition(shape, way) => return Ok(self.partition(number, member, *shape, *way)),
            Kind::Flap(..) => self.step_fault(number)?,
            Kind::SlowLinks(times) => return Ok(self.afflict(number, member, Ill::Slow(*times))),
            Kind::LossyLinks(ppm) => return Ok(self.afflict(number, member, Ill::Lossy(*ppm))),
            Kind::NarrowLinks(bytes) => {
                return Ok(self.afflict(number, member, Ill::Narrow(*bytes)));
            }
            Kind::Reset => return Ok(self.reset_connections(number, member)),
            _ => return Ok(self.inflict_disk(number, member, kind)),
        }
        Ok(true)
    }

    /// The faults of a disk.
    fn inflict_disk(&mut self, number: usize, member: MemberId, kind: &Kind) -> bool {
        let machine = self.machines.get_mut(&member).expect("a member");
        let disk = &machine.disk;
        match kind {
            Kind::Fuse(operations) => disk.set_fuse(*operations),
            Kind::FailedSync => disk.fail_next_sync(),
            Kind::FullDisk(room) => disk.set_capacity(Some(disk.bytes_used() + room)),
            Kind::SlowDisk(times) => machine.slowness = *times,
            Kind::StalledDisk => {
                let length_ns = self.options.plan[number].until.latest_ns();
                machine.stalled_until_ns = self.now_ns + length_ns;
            }
            Kind::LostWrite => disk.lose_next_write(),
            Kind::MisdirectedWrite => disk.misdirect_next_write(),
            Kind::Rot(place) => {
                let rotten = disk.rot(|path| match place {
                    RotPlace::Anywhere => true,
                    RotPlace::Log => path.starts_with("member/wal/"),
                    RotPlace::Image => path == quorate_core::checkpoint::DATABASE,
                });
                let Some(rotten) = rotten else { return false };
                self.trace.event(self.now_ns, &[10], rotten.as_bytes(), || {
                    line(&super::name(member), "has rot", &rotten)
                });
            }
            other => unreachable!("{other:?} is not a fault of a disk"),
        }
        true
    }

    /// A fault's next step: the next restart, or the links cut or healed.
    pub(super) fn step_fault(&mut self, number: usize) -> Result<(), Violation> {
        let state = &mut self.faults[number];
        if state.stage != FaultStage::Going {
            return Ok(());
        }
        let step = state.steps;
        state.steps += 1;
        match self.options.plan[number].kind {
            Kind::Flap(shape, way, period_ns) => {
                let member = self.faults[number].target.expect("a fault that goes on");
                if step.is_multiple_of(2) {
                    self.partition(number, member, shape, way);
                } else {
                    self.mend_links(number);
                }
                self.at(self.now_ns + period_ns, Event::FaultSteps(number));
            }
            Kind::RollingRestart => {
                let count = self.members().len() as u64;
                let period_ns = self.options.plan[number].until.latest_ns() / count;
                let member = self.members()[(step % count) as usize];
                if self.machines[&member].process.is_some() {
                    self.crash(member);
                    let life = self.machines[&member].life;
                    let at_ns = self.now_ns + period_ns / 3;
                    self.at(at_ns, Event::Boot { member, life });
                }
                if step + 1 < count {
                    self.at(self.now_ns + period_ns, Event::FaultSteps(number));
                }
            }
            _ => unreachable!("only these take steps"),
        }
        Ok(())
    }

    pub(super) fn lose_all_power(&mut self) -> Result<(), Violation> {
        let members = self.members();
        for member in members {
            self.lose_power(member)?;
        }
        Ok(())
    }

    /// A fault's end has come.
    pub(super) fn end_fault(&mut self, number: usize) {
        if self.faults[number].stage != FaultStage::Going {
            return;
        }
        self.awaited.retain(|awaited| *awaited != number);
        self.faults[number].stage = FaultStage::Over;
        let member = self.faults[number].target.expect("a fault that goes on");
        let kind = self.options.plan[number].kind.clone();
        self.note("is rid of", member, number as u64);
        let now_ns = self.now_ns;
        let is_same_life = self.machines[&member].life == self.faults[number].life;
        let machine = self.machines.get_mut(&member).expect("a member");
        match kind {
            Kind::Crash | Kind::PowerLoss => {
                let life = self.faults[number].life;
                self.at(now_ns, Event::Boot { member, life });
            }
            Kind::Pause | Kind::Suspend => {
                machine.clock.thaw(now_ns);
                if is_same_life && machine.is_paused {
                    self.resume(member);
                }
            }
            Kind::ClockRate(_) => {
                machine.clock.set_rate(now_ns, 1_000_000);
                self.look_at_clock(member);
            }
            Kind::SlowDisk(_) => machine.slowness = 1,
            Kind::StalledDisk => machine.stalled_until_ns = now_ns,
            Kind::FullDisk(_) => machine.disk.set_capacity(None),
            Kind::Partition(..)
            | Kind::Flap(..)
            | Kind::SlowLinks(_)
            | Kind::LossyLinks(_)
            | Kind::NarrowLinks(_) => self.mend_links(number),
            _ => {}
        }
    }

    /// Ends everything that goes on; what has not begun never will.
    pub(super) fn end_all_faults(&mut self) {
        for number in 0..self.faults.len() {
            self.end_fault(number);
            self.faults[number].stage = FaultStage::Over;
        }
        self.awaited.clear();
    }

    /// A clock runs differently now: what was planned by it is planned anew.
    fn look_at_clock(&mut self, member: MemberId) {
        if self.machines[&member].process.is_some() {
            self.turn_at(member, self.now_ns + 1_000);
        }
    }
}

/// Whether there must be a process for a fault to mean something.
fn needs_process(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Partition(..)
            | Kind::Flap(..)
            | Kind::SlowLinks(_)
            | Kind::LossyLinks(_)
            | Kind::NarrowLinks(_)
            | Kind::Rot(_)
            | Kind::Alter(_)
            | Kind::WallJump(_)
            | Kind::RollingRestart
            | Kind::PowerLossAll
            | Kind::LostDisk
    )
}
