//! What goes wrong during a run: one fault after the other, most of them for a while.

use std::time::Duration;

use madsim::net::NetSim;
use quorate_net::rt::simulated as network;
use quorate_sim::random::{Purpose, Stream};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::options::{Fault, Options};
use crate::planned::Plan;
use crate::world;

/// After a fault that lasts comes its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repair {
    /// One of a rolling restart.
    Stop(usize),
    Restart(usize),
    /// Once the process has ended by itself.
    RestartStopped(usize),
    Resume(usize),
    /// All links.
    Join,
    Delay,
    Disk(usize),
}

/// The faults of a run.
pub struct Faults {
    options: Options,
    pub(crate) draw: Stream,
    /// What ends when.
    pub(crate) repairs: Vec<(Instant, Repair)>,
    plan: Plan,
}

impl Faults {
    /// Those of a seed.
    pub fn new(seed: u64, options: Options) -> Self {
        Self {
            plan: Plan::new(options.plan.clone()),
            options,
            draw: Stream::new(seed, Purpose::Faults, 0),
            repairs: Vec::new(),
        }
    }

    /// Lets things go wrong until the time of safety is over.
    pub async fn rage(&mut self, cluster: &mut Cluster) {
        let end = Instant::now() + self.options.safety;
        let begun = Instant::now();
        // As good as never.
        let mean = self.options.fault_every.unwrap_or(4 * self.options.safety);
        let mut next = match self.options.fault_every {
            Some(mean) => begun + self.soon(mean),
            None => end,
        };
        while Instant::now() < end && world::with(|world| world.violation().is_none()) {
            self.take_power(cluster);
            self.repair(cluster, false);
            self.follow_plan(cluster, begun).await;
            if Instant::now() >= next {
                next = Instant::now() + self.soon(mean);
                if let Some(fault) = self.choose() {
                    self.strike(cluster, fault);
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        if self.options.final_blackout {
            self.strike(cluster, Fault::Blackout);
        }
    }

    /// Begins what is due of the plan.
    async fn follow_plan(&mut self, cluster: &mut Cluster, begun: Instant) {
        let mut plan = std::mem::take(&mut self.plan);
        while let Some(number) = plan.due(begun) {
            plan.begin(number, self, cluster).await;
        }
        self.plan = plan;
    }

    /// Ends everything that is wrong. Stopped processes may need a moment: call it until it says that all is well.
    pub fn heal(&mut self, cluster: &mut Cluster) -> bool {
        self.take_power(cluster);
        self.repair(cluster, true);
        network::give_up_silent();
        world::with(|world| {
            world.disks.iter().for_each(|disk| {
                if !disk.is_dark() {
                    disk.heal();
                }
            });
            self.repairs.is_empty() && world.disks.iter().all(|disk| !disk.is_dark())
        })
    }

    fn soon(&mut self, mean: Duration) -> Duration {
        Duration::from_nanos(self.draw.with_tail(mean.as_nanos() as u64))
    }

    fn choose(&mut self) -> Option<Fault> {
        let total: u64 = self.options.faults.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut place = self.draw.below(total);
        for (fault, weight) in &self.options.faults {
            if place < *weight {
                return Some(*fault);
            }
            place -= weight;
        }
        unreachable!("the weights add up")
    }

    fn later(&mut self, least_ms: u64, most_ms: u64, repair: Repair) {
        let after = Duration::from_millis(self.draw.between(least_ms, most_ms));
        self.repairs.push((Instant::now() + after, repair));
    }

    fn strike(&mut self, cluster: &mut Cluster, fault: Fault) {
        let machine = self.draw.below(cluster.members() as u64) as usize;
        if needs_process(fault) && (!cluster.is_up(machine) || cluster.has_ended(machine)) {
            return;
        }
        world::note(|| format!("fault {} at m{machine}", fault.name()));
        world::with(|world| *world.faults.entry(fault.name()).or_default() += 1);
        match fault {
            Fault::Kill => {
                cluster.kill(machine);
                self.later(0, 3_000, Repair::Restart(machine));
            }
            Fault::PowerLoss => {
                cluster.lose_power(machine);
                self.later(0, 3_000, Repair::Restart(machine));
            }
            Fault::Blackout => {
                for machine in 0..cluster.members() {
                    if cluster.is_up(machine) {
                        cluster.lose_power(machine);
                        self.later(0, 2_000, Repair::Restart(machine));
                    }
                }
            }
            Fault::Stop => {
                cluster.stop(machine);
                self.later(0, 1_000, Repair::RestartStopped(machine));
            }
            Fault::Pause => {
                cluster.pause(machine);
                self.later(50, 4_000, Repair::Resume(machine));
            }
            Fault::Partition => self.partition(cluster),
            Fault::OneWay => {
                let outward = self.draw.chance(500_000);
                let members = cluster.members();
                cluster.cut(|from, to| {
                    let hit = if outward { from } else { to };
                    hit == machine && from < members && to < members
                });
                self.later(100, 5_000, Repair::Join);
            }
            Fault::Reset | Fault::Silence => {
                let other = self.draw.below(cluster.machines() as u64) as usize;
                cluster.break_links(machine, other, fault == Fault::Silence);
            }
            Fault::Slow => {
                let most = Duration::from_millis(self.draw.between(20, 500));
                set_delay(Duration::ZERO, most);
                self.later(100, 3_000, Repair::Delay);
            }
            Fault::SlowDisk => {
                let factor = self.draw.between(5, 100) as u32;
                world::with(|world| world.disk_factor[machine] = factor);
                self.later(100, 4_000, Repair::Disk(machine));
            }
            Fault::SyncFails => world::with(|world| world.disks[machine].fail_next_sync()),
            Fault::Fuse => {
                let operations = self.draw.below(60);
                world::with(|world| world.disks[machine].set_fuse(operations));
            }
        }
    }

    /// Switches off the machines whose fuse has blown. A process that was writing to its log has ended by itself by now, but
    /// one whose snapshot met the cut would live on, with a disk that refuses everything.
    fn take_power(&mut self, cluster: &mut Cluster) {
        for machine in 0..cluster.members() {
            let is_dark = world::with(|world| world.disks[machine].is_dark());
            if is_dark && cluster.is_up(machine) {
                cluster.lose_power(machine);
                self.later(0, 3_000, Repair::Restart(machine));
            }
        }
    }

    fn partition(&mut self, cluster: &Cluster) {
        let sides: Vec<bool> = (0..cluster.machines())
            .map(|_| self.draw.chance(500_000))
            .collect();
        cluster.cut(|from, to| sides[from] != sides[to]);
        self.later(100, 6_000, Repair::Join);
    }

    fn repair(&mut self, cluster: &mut Cluster, all: bool) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.repairs)
            .into_iter()
            .partition(|(when, _)| all || *when <= now);
        self.repairs = later;
        for (when, repair) in due {
            match repair {
                Repair::Stop(_) if all => {}
                Repair::Stop(machine) => {
                    if cluster.is_up(machine) && !cluster.has_ended(machine) {
                        cluster.stop(machine);
                        self.later(0, 500, Repair::RestartStopped(machine));
                    }
                }
                Repair::Restart(machine) => cluster.restart(machine),
                Repair::RestartStopped(machine) if cluster.has_stopped(machine) => {
                    cluster.restart(machine);
                }
                Repair::RestartStopped(_) => self.repairs.push((when, repair)),
                Repair::Resume(machine) => cluster.resume(machine),
                Repair::Join => cluster.join(),
                Repair::Delay => set_delay(self.options.delay.0, self.options.delay.1),
                Repair::Disk(machine) => world::with(|world| world.disk_factor[machine] = 1),
            }
        }
    }
}

/// Whether a fault needs a process that runs.
fn needs_process(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Kill
            | Fault::PowerLoss
            | Fault::Stop
            | Fault::Pause
            | Fault::SyncFails
            | Fault::Fuse
    )
}

/// How long messages take from now on.
pub fn set_delay(least: Duration, most: Duration) {
    NetSim::current().update_config(|config| config.send_latency = least..most);
}
