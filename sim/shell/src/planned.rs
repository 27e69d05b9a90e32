//! The faults of a scenario's plan, begun when their time has come. They end as random faults do.

use std::time::Duration;

use quorate_sim::plan::{
    Comparison, Fault as Planned, Field, Kind, Shape, Subject, Target, Term, Trigger, Way,
};
use tokio::time::Instant;

use crate::clients::client_of;
use crate::cluster::Cluster;
use crate::faults::{Faults, Repair};
use crate::world;

/// How long a member may take to say who leads.
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// The plan of a run.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    faults: Vec<Planned>,
    states: Vec<State>,
}

/// How a fault of the plan stands.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    begun: bool,
    /// When it is over.
    end: Option<Instant>,
    /// Whom it hit.
    target: Option<usize>,
}

impl Plan {
    pub(crate) fn new(faults: Vec<Planned>) -> Self {
        let states = vec![State::default(); faults.len()];
        Self { faults, states }
    }

    /// A fault that is due.
    pub(crate) fn due(&self, begun: Instant) -> Option<usize> {
        (0..self.faults.len()).find(|number| {
            let latest = begun + Duration::from_nanos(self.faults[*number].from.latest_ns());
            !self.states[*number].begun && (Instant::now() >= latest || self.holds(*number))
        })
    }

    fn holds(&self, number: usize) -> bool {
        let Trigger::When { predicate, .. } = &self.faults[number].from else {
            return false;
        };
        predicate.comparisons.iter().all(|comparison| {
            let Comparison {
                left,
                relation,
                right,
            } = *comparison;
            relation.holds(self.value(left), self.value(right))
        })
    }

    fn value(&self, term: Term) -> i64 {
        let shown = match term.shown {
            Some((Subject::TargetOf(fault), field)) => {
                let state = &self.states[fault];
                let is_over = state.end.is_some_and(|end| Instant::now() >= end);
                i64::from(match field {
                    Field::Over => is_over,
                    _ => state.begun,
                })
            }
            _ => 0,
        };
        shown + term.plus
    }

    /// Begins a fault.
    pub(crate) async fn begin(
        &mut self,
        number: usize,
        faults: &mut Faults,
        cluster: &mut Cluster,
    ) {
        let fault = self.faults[number].clone();
        let target = self.target(&fault.target, faults, cluster).await;
        let length = Duration::from_nanos(fault.until.latest_ns());
        self.states[number] = State {
            begun: true,
            end: Some(Instant::now() + length),
            target: Some(target),
        };
        let is_there = cluster.is_up(target) && !cluster.has_ended(target);
        if !is_there && needs_process(&fault.kind) {
            return;
        }
        world::note(|| format!("{} at m{target}: {:?}", fault.name, fault.kind));
        world::with(|world| *world.faults.entry(fault.kind.name()).or_default() += 1);
        inflict(&fault.kind, target, length, faults, cluster);
    }

    async fn target(&self, target: &Target, faults: &mut Faults, cluster: &Cluster) -> usize {
        let members = cluster.members();
        let leader = match target {
            Target::Leader | Target::Follower => leader(cluster).await,
            _ => None,
        };
        let mut other_than = |one: Option<usize>| {
            let others: Vec<_> = (0..members).filter(|other| Some(*other) != one).collect();
            match others.is_empty() {
                true => 0,
                false => *faults.draw.pick(&others),
            }
        };
        let hit = |fault: usize| self.states[fault].target;
        match *target {
            Target::Leader => leader.unwrap_or_else(|| other_than(None)),
            Target::Follower => other_than(leader),
            Target::Member(number) => (number as usize - 1).min(members - 1),
            Target::SameAs(fault) => hit(fault).unwrap_or_else(|| other_than(None)),
            Target::NotSameAs(fault) => other_than(hit(fault)),
            _ => other_than(None),
        }
    }
}

/// Who leads, as far as a member says so of itself.
async fn leader(cluster: &Cluster) -> Option<usize> {
    let mut best = None;
    for machine in (0..cluster.members()).filter(|machine| cluster.is_up(*machine)) {
        if let Ok(status) = client_of(&[machine], ANSWER_MAX).status().await {
            let id = status.header.as_ref().map(|header| header.member_id);
            if id == Some(status.leader) {
                best = best.max(Some((status.raft_term, machine)));
            }
        }
    }
    best.map(|(_, machine)| machine)
}

fn inflict(
    kind: &Kind,
    machine: usize,
    length: Duration,
    faults: &mut Faults,
    cluster: &mut Cluster,
) {
    let end = Instant::now() + length;
    match kind {
        Kind::Crash => {
            cluster.kill(machine);
            faults.repairs.push((end, Repair::Restart(machine)));
        }
        Kind::PowerLoss => {
            cluster.lose_power(machine);
            faults.repairs.push((end, Repair::Restart(machine)));
        }
        Kind::PowerLossAll => {
            for machine in 0..cluster.members() {
                if cluster.is_up(machine) {
                    cluster.lose_power(machine);
                    let after = Duration::from_millis(faults.draw.between(50, 1_000));
                    let back = Instant::now() + after;
                    faults.repairs.push((back, Repair::Restart(machine)));
                }
            }
        }
        Kind::RollingRestart => {
            let members = cluster.members() as u32;
            for machine in 0..members {
                let at = Instant::now() + length * machine / members;
                faults.repairs.push((at, Repair::Stop(machine as usize)));
            }
        }
        Kind::Pause => {
            cluster.pause(machine);
            faults.repairs.push((end, Repair::Resume(machine)));
        }
        Kind::Partition(shape, way) => {
            partition(*shape, *way, machine, faults, cluster);
            faults.repairs.push((end, Repair::Join));
        }
        Kind::Reset => {
            for other in 0..cluster.machines() {
                cluster.break_links(machine, other, false);
            }
        }
        Kind::SlowDisk(times) => {
            world::with(|world| world.disk_factor[machine] = *times as u32);
            faults.repairs.push((end, Repair::Disk(machine)));
        }
        Kind::FailedSync => world::with(|world| world.disks[machine].fail_next_sync()),
        Kind::Fuse(operations) => world::with(|world| world.disks[machine].set_fuse(*operations)),
        other => unreachable!("{other:?} is refused when the scenario is read"),
    }
}

/// Cuts links between members; clients reach all of them.
fn partition(shape: Shape, way: Way, machine: usize, faults: &mut Faults, cluster: &Cluster) {
    let members = cluster.members();
    let mut inside = vec![false; members];
    inside[machine] = true;
    let others: Vec<_> = (0..members).filter(|other| *other != machine).collect();
    let size = match shape {
        Shape::Isolate => 1,
        Shape::Split(size) => size as usize,
        _ => members / 2,
    };
    for place in 1..size.min(members) {
        inside[others[(machine + place) % others.len()]] = true;
    }
    if shape == Shape::Halves && faults.draw.chance(500_000) {
        inside
            .iter_mut()
            .for_each(|is_inside| *is_inside = !*is_inside);
    }
    cluster.cut(|from, to| {
        if from >= members || to >= members || inside[from] == inside[to] {
            return false;
        }
        match way {
            Way::Both => true,
            Way::Out => inside[from],
            Way::In => inside[to],
        }
    });
}

fn needs_process(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::PowerLossAll | Kind::RollingRestart | Kind::Partition(..) | Kind::SlowDisk(_)
    )
}
