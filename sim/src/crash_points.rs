//! One script of operations, run once for every moment at which the power could go.
//!
//! A disk's operation is a write, a sync, a truncation or a change of names. The script is always the same up to the point
//! (it is drawn from one seed and has no faults), so that the n-th operation of a disk is the same one in all runs, and
//! all of them are tried: each run has the power go in the middle of the next one, until a run ends before its point comes.
//! What was not synced survives differently at each point. Every run then goes on to its end, as any other: everything
//! must recover, be served, and be equal everywhere, and a power loss of all machines follows.
//!
//! The last sweep damages copies instead: in each run, one sector each of all disks but one, after which all machines are
//! started anew. What is damaged is refused; nothing wrong is ever served.

use std::fmt;

use crate::load::{Group, Load, SessionWork, Work};
use crate::options::{CrashPoint, Options};
use crate::plan::{Fault, Kind, RotPlace, Target, Trigger};
use crate::run::{Failure, run_options};

const SECOND: u64 = 1_000_000_000;
/// The seed of the script.
const SEED: u64 = 7;
/// Operations that the script must have at least.
pub const OPERATIONS: u64 = 200;
/// A script does not have more disk operations than this.
const POINTS_MAX: u64 = 20_000;
/// Runs of the sweep that damages copies.
const DAMAGES: u64 = 400;

/// A set of runs.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// What it tries.
    pub name: &'static str,
    members: u64,
    cut: Cut,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The power of one machine.
    One { member: u64 },
    /// That of all, when the point of the first comes.
    All,
    /// None; sectors are damaged.
    Damage,
}

/// All sweeps.
pub const SWEEPS: [Sweep; 6] = [
    Sweep::new("the only member", 1, Cut::One { member: 1 }),
    Sweep::new("the first of three", 3, Cut::One { member: 1 }),
    Sweep::new("the second of three", 3, Cut::One { member: 2 }),
    Sweep::new("the third of three", 3, Cut::One { member: 3 }),
    Sweep::new("all of three at once", 3, Cut::All),
    Sweep::new("damage to two of three", 3, Cut::Damage),
];

/// What a sweep came to.
#[derive(Clone, Debug)]
pub struct Swept {
    /// Which it was.
    pub sweep: Sweep,
    /// Runs made.
    pub runs: u64,
    /// Points that were reached: runs in which the power went, or something was damaged.
    pub reached: u64,
    /// Client operations of the run that nothing cut.
    pub operations: u64,
    /// What went wrong, by point.
    pub failures: Vec<(u64, Failure)>,
}

impl Sweep {
    const fn new(name: &'static str, members: u64, cut: Cut) -> Self {
        Self { name, members, cut }
    }

    /// Makes every n-th of its runs, so many at a time.
    pub fn run(self, every: u64, jobs: u64) -> Swept {
        let parts = std::thread::scope(|scope| {
            let part = |job| scope.spawn(move || self.run_part(every * job, every * jobs));
            let parts: Vec<_> = (0..jobs).map(part).collect();
            let done = parts.into_iter().map(|part| part.join());
            done.map(|part| part.expect("a panic is a failure of its run"))
                .collect::<Vec<_>>()
        });
        let mut parts = parts.into_iter();
        let mut swept = parts.next().expect("a job at least");
        for part in parts {
            swept.runs += part.runs;
            swept.reached += part.reached;
            swept.operations = swept.operations.max(part.operations);
            swept.failures.extend(part.failures);
        }
        swept.failures.sort_by_key(|(point, _)| *point);
        swept
    }

    fn run_part(self, first: u64, step: u64) -> Swept {
        let mut swept = Swept {
            sweep: self,
            runs: 0,
            reached: 0,
            operations: 0,
            failures: Vec::new(),
        };
        let end = match self.cut {
            Cut::Damage => DAMAGES,
            _ => POINTS_MAX,
        };
        for point in (first..end).step_by(step as usize) {
            let report = run_options(SEED, self.options(point), false);
            swept.runs += 1;
            let count = |kind| report.counts.get(kind).copied().unwrap_or(0);
            let was_reached = count("fuse blown") + count("sector rotted") > 0;
            swept.reached += u64::from(was_reached);
            swept.operations = swept.operations.max(count("operation"));
            if let Some(failure) = report.failure {
                swept.failures.push((point, failure));
            } else if !was_reached && !matches!(self.cut, Cut::Damage) {
                break; // The script has ended before: there are no more points.
            }
        }
        swept
    }

    fn options(self, point: u64) -> Options {
        let mut options = Options::draw_calm(SEED);
        options.members = self.members;
        options.load = script();
        options.safety_ns = 6 * SECOND;
        options.final_power_loss = true;
        options.core_first = false;
        options.restart_ns = SECOND / 10;
        options.storage.checkpoint_bytes_min = 4_000;
        options.storage.log_bytes_in_memory_max = 1_000;
        options.storage.segment_bytes = 8_192;
        options.storage.prepares_segments = true;
        options.network.loss_ppm = 0;
        options.network.queue_max = u32::MAX;
        options.disk.stall_ppm = 0;
        options.disk.torn_ppm = 0;
        match self.cut {
            Cut::One { member } => options.crash_point = Some(point_of(member, point, false)),
            Cut::All => options.crash_point = Some(point_of(1, point, true)),
            Cut::Damage => options.plan = damage(point),
        }
        options
    }
}

fn point_of(member: u64, operation: u64, takes_all: bool) -> CrashPoint {
    CrashPoint {
        member,
        operation,
        takes_all,
    }
}

/// Something of everything that is written, forty operations a second.
fn script() -> Load {
    let group = |work| Group {
        clients: 2,
        keys: 6,
        value_bytes_max: 300,
        ..Group::of(work)
    };
    Load::of(vec![
        group(Work::Put).with_rate(14),
        group(Work::Txn).with_rate(10),
        group(Work::Delete).with_rate(5),
        group(Work::Range { is_local: false }).with_rate(8),
        group(Work::Lease(SessionWork::USUAL)).with_rate(4),
        group(Work::Compaction { behind_max: 10 }).with_rate(2),
        group(Work::Checkpoint).with_rate(2),
    ])
}

/// Two members have a sector changed, somewhere, some time; then all of them are started anew.
fn damage(point: u64) -> Vec<Fault> {
    let places = [RotPlace::Log, RotPlace::Image, RotPlace::Anywhere];
    let at_ns = SECOND + point * 37 % 400 * SECOND / 100;
    let fault = |name: &str, kind, target, at_ns| Fault {
        name: name.to_owned(),
        kind,
        target,
        from: Trigger::At(at_ns),
        until: Trigger::At(0),
    };
    let rot = |member: u64| {
        let place = places[((point + member) % 3) as usize];
        let kind = Kind::Rot(place);
        let target = Target::Member((point + member) % 3 + 1);
        fault("rot", kind, target, at_ns + member)
    };
    let restart = fault(
        "power",
        Kind::PowerLossAll,
        Target::Any,
        at_ns + SECOND / 50,
    );
    // The number of a fault keys what it draws: a run of its own needs numbers of its own.
    let mut plan = vec![rot(0), rot(1), restart];
    plan.rotate_left((point % 3) as usize);
    plan
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sweep,
            runs,
            reached,
            operations,
            failures,
        } = self;
        write!(
            f,
            "{}: {runs} runs of {operations} operations, {reached} points, {} failed",
            sweep.name,
            failures.len()
        )?;
        for (point, failure) in failures.iter().take(10) {
            write!(f, "\n  point {point}: {failure}")?;
        }
        Ok(())
    }
}
