//! The plan of a run: what goes wrong, where, from when and until when.
//!
//! A plan is a list, drawn before the run begins, from the seed alone or from a scenario. Each of its faults has a
//! random stream of its own for what can only be chosen when it happens, so that taking one fault out of a plan changes
//! nothing about the others: a plan is what a shrinker would edit.

use std::fmt;

use crate::random::Stream;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its name; other faults may refer to its target by it.
    pub name: String,
    /// What happens.
    pub kind: Kind,
    /// To whom.
    pub target: Target,
    /// When it begins.
    pub from: Trigger,
    /// When it ends, counted from its beginning; nothing to what is over at once.
    pub until: Trigger,
}

/// When something happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Trigger {
    /// At a time.
    At(u64),
    /// As soon as something holds, but not later than a time.
    When {
        /// What must hold.
        predicate: Predicate,
        /// The time at which it happens in any case.
        at_most_ns: u64,
    },
}

/// Whom a fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any member.
    Any,
    /// The leader, or any member while there is none.
    Leader,
    /// Any member that does not lead.
    Follower,
    /// The member with this number, from 1.
    Member(u64),
    /// Whom an earlier fault of the plan hit.
    SameAs(usize),
    /// Anybody but the one whom an earlier fault of the plan hit.
    NotSameAs(usize),
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kill -9`; the process is started again in the end.
    Crash,
    /// The machine loses its power.
    PowerLoss,
    /// All machines do.
    PowerLossAll,
    /// One member after the other is stopped and started, with a pause between them.
    RollingRestart,
    /// The power goes in the middle of the disk operation after so many more.
    Fuse(u64),
    /// The next sync fails.
    FailedSync,
    /// Only so many more bytes fit.
    FullDisk(u64),
    /// Disk operations take so many times as long.
    SlowDisk(u64),
    /// The disk answers nothing until the fault ends.
    StalledDisk,
    /// A sector changes where it lies.
    Rot(RotPlace),
    /// Something in the data of a member is not what it was, and nothing on its disk shows that.
    Alter(Alteration),
    /// A sector of the next sync goes nowhere, and is missed when the power goes.
    LostWrite,
    /// A sector of the next sync goes to another place, and that shows when the power goes.
    MisdirectedWrite,
    /// The process stands still; its clock goes on.
    Pause,
    /// The machine is suspended: process and monotonic clock stand still.
    Suspend,
    /// Links are cut.
    Partition(Shape, Way),
    /// Links are cut and healed in turn, each for so long.
    Flap(Shape, Way, u64),
    /// The target's links take so many times as long.
    SlowLinks(u64),
    /// The target's links lose so many messages in a million.
    LossyLinks(u32),
    /// The target's links carry so many bytes in a second.
    NarrowLinks(u64),
    /// The target's connections break.
    Reset,
    /// The monotonic clock runs at this rate, in a million.
    ClockRate(u64),
    /// The wall clock is set forward or back by so many milliseconds.
    WallJump(i64),
    /// Leadership is handed over to somebody else.
    Transfer,
    /// The machine is gone, with its disk. Somebody removes the member, and adds another one in its place.
    LostDisk,
    /// A member that works is removed, and another one is added in its place.
    ReplaceMember,
    /// The member is to be reached at other addresses from now on.
    UpdateUrls,
}

/// Which files rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotPlace {
    /// Any of them.
    Anywhere,
    /// The log's.
    Log,
    /// The checkpoint's.
    Image,
}

/// What is altered in the data of a member: one key that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// Its value.
    Value,
    /// The revision of its last change.
    Revision,
    /// It is missing.
    Missing,
    /// There is another one beside it.
    Extra,
}

impl Alteration {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Value, Self::Revision, Self::Missing, Self::Extra];
}

/// Which links a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Those of the target.
    Isolate,
    /// Those between the target with some others, so many in all, and the rest.
    Split(u64),
    /// Those between two halves, drawn by lot.
    Halves,
    /// Those between two halves, the target being on both sides.
    Bridge,
    /// All.
    Shatter,
}

/// In which direction links are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both.
    Both,
    /// From the target's side to the others.
    Out,
    /// From the others to the target's side.
    In,
}

/// A condition on the state of the cluster: all of its comparisons hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predicate {
    /// As it was written.
    pub text: String,
    /// What must hold.
    pub comparisons: Vec<Comparison>,
}

/// A comparison of two numbers. One that is not known fails it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What stands on the left.
    pub left: Term,
    /// The relation.
    pub relation: Relation,
    /// What stands on the right.
    pub right: Term,
}

/// A number: a constant, or what a subject shows plus a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// What shows it, if anything.
    pub shown: Option<(Subject, Field)>,
    /// Added to it.
    pub plus: i64,
}

/// How two numbers are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Relation {
    Less,
    AtMost,
    Equal,
    NotEqual,
    AtLeast,
    More,
}

/// Who shows a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The cluster as a whole: the committed log.
    Cluster,
    /// The member that leads.
    Leader,
    /// The member with this number.
    Member(u64),
    /// Whom this fault of the plan hit.
    TargetOf(usize),
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of Raft and of the store")]
pub enum Field {
    Term,
    Committed,
    Applied,
    Last,
    Durable,
    Revision,
    Compacted,
    /// 1 while it leads.
    Leads,
    /// 1 while it has a process.
    Runs,
    /// Checkpoints that it has written.
    Checkpoints,
    /// Snapshots that it has installed.
    Snapshots,
    /// Voters of the cluster.
    Voters,
    /// Of a fault: 1 once it has begun.
    Begun,
    /// Of a fault: 1 once it is over, or will never be.
    Over,
}

/// How often which kinds happen in a random run. Weights are relative to each other; 0 is never.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// The mean time between two faults.
    pub interval_ns: u64,
    /// How long a fault lasts, about.
    pub length_ns: u64,
    /// The kinds with their weights, in a fixed order.
    pub weights: Vec<(&'static str, u64)>,
}

/// The names of the kinds that a random run draws from, as scenarios name them.
pub const KINDS: &[&str] = &[
    "crash",
    "power-loss",
    "power-loss-all",
    "rolling-restart",
    "fuse",
    "failed-sync",
    "full-disk",
    "slow-disk",
    "stalled-disk",
    "rot",
    "lost-write",
    "misdirected-write",
    "pause",
    "suspend",
    "partition",
    "flap",
    "slow-links",
    "lossy-links",
    "narrow-links",
    "reset",
    "clock-rate",
    "wall-jump",
    "transfer",
    "lost-disk",
    "replace-member",
    "update-urls",
];

/// A kind that comes only in runs that end by looking for it.
pub const ALTERED: &str = "altered-data";

/// Kinds that come less often than the others where they come at all: each of them costs the cluster a lot.
const RARE: &[&str] = &[
    "power-loss-all",
    "rolling-restart",
    "failed-sync",
    "full-disk",
    "rot",
    "lost-write",
    "misdirected-write",
    "lost-disk",
    "replace-member",
];
/// The leader is hit more often than chance would have it, in a million.
const LEADER_PPM: u32 = 350_000;
/// Disk operations until a fuse blows, at most.
const FUSE_OPERATIONS_MAX: u64 = 30;

impl Swarm {
    /// The mixture of a run, in which each kind is absent half of the time.
    pub fn draw(stream: &mut Stream, election_ns: u64) -> Self {
        let weights = KINDS.iter().map(|kind| {
            let weight = match stream.chance(500_000) {
                true => 0,
                false => stream.between(1, 10),
            };
            let is_rare = RARE.contains(kind);
            (*kind, if is_rare { weight.div_ceil(4) } else { weight })
        });
        let weights = weights.collect();
        let intervals = [200 * MILLISECOND, SECOND, 3 * SECOND, 2 * election_ns];
        let lengths = [50 * MILLISECOND, 500 * MILLISECOND, 2 * election_ns];
        Self {
            interval_ns: *stream.pick(&intervals),
            length_ns: *stream.pick(&lengths),
            weights,
        }
    }

    /// The faults of a run that is to be hit until `end_ns`.
    pub fn plan(&self, stream: &mut Stream, members: u64, end_ns: u64) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut at_ns = stream.with_tail(self.interval_ns);
        while at_ns < end_ns {
            if let Some(name) = self.draw_kind(stream) {
                let kind = draw_kind(stream, name, members, self.length_ns);
                faults.push(Fault {
                    name: format!("{name}-{}", faults.len()),
                    kind,
                    target: match stream.chance(LEADER_PPM) {
                        true => Target::Leader,
                        false => Target::Any,
                    },
                    from: Trigger::At(at_ns),
                    until: Trigger::At(stream.with_tail(self.length_ns)),
                });
            }
            at_ns += stream.with_tail(self.interval_ns);
        }
        faults
    }

    fn draw_kind(&self, stream: &mut Stream) -> Option<&'static str> {
        let total = self.weights.iter().map(|(_, weight)| weight).sum::<u64>();
        let mut left = (total > 0).then(|| stream.below(total))?;
        for &(kind, weight) in &self.weights {
            match left.checked_sub(weight) {
                None => return Some(kind),
                Some(rest) => left = rest,
            }
        }
        None
    }
}

/// A fault of this name, with its numbers drawn.
pub fn draw_kind(stream: &mut Stream, name: &str, members: u64, length_ns: u64) -> Kind {
    match name {
        "crash" => Kind::Crash,
        "power-loss" => Kind::PowerLoss,
        "power-loss-all" => Kind::PowerLossAll,
        "rolling-restart" => Kind::RollingRestart,
        "fuse" => Kind::Fuse(stream.below(FUSE_OPERATIONS_MAX)),
        "failed-sync" => Kind::FailedSync,
        "full-disk" => Kind::FullDisk(4096),
        "slow-disk" => Kind::SlowDisk(*stream.pick(&[5, 30, 100])),
        "stalled-disk" => Kind::StalledDisk,
        "rot" => Kind::Rot(*stream.pick(&[RotPlace::Anywhere, RotPlace::Log, RotPlace::Image])),
        "lost-write" => Kind::LostWrite,
        "misdirected-write" => Kind::MisdirectedWrite,
        "pause" => Kind::Pause,
        "suspend" => Kind::Suspend,
        "partition" => Kind::Partition(draw_shape(stream, members), draw_way(stream)),
        "flap" => {
            let period_ns = (length_ns / stream.between(4, 12)).max(MILLISECOND);
            Kind::Flap(draw_shape(stream, members), draw_way(stream), period_ns)
        }
        "slow-links" => Kind::SlowLinks(*stream.pick(&[10, 100])),
        "lossy-links" => Kind::LossyLinks(*stream.pick(&[100_000, 500_000])),
        "narrow-links" => Kind::NarrowLinks(*stream.pick(&[2_000, 20_000])),
        "reset" => Kind::Reset,
        "clock-rate" => Kind::ClockRate(*stream.pick(&[950_000, 990_000, 1_010_000, 1_050_000])),
        "wall-jump" => {
            let by_ms = *stream.pick(&[1, 1000, 3_600_000, 86_400_000]);
            Kind::WallJump(if stream.chance(500_000) {
                by_ms
            } else {
                -by_ms
            })
        }
        "transfer" => Kind::Transfer,
        "lost-disk" => Kind::LostDisk,
        "replace-member" => Kind::ReplaceMember,
        "update-urls" => Kind::UpdateUrls,
        other => unreachable!("{other} is no kind of fault"),
    }
}

fn draw_shape(stream: &mut Stream, members: u64) -> Shape {
    match stream.below(10) {
        0..=3 => Shape::Isolate,
        4 | 5 => Shape::Halves,
        6 | 7 => Shape::Split(stream.between(1, members)),
        8 => Shape::Bridge,
        _ => Shape::Shatter,
    }
}

fn draw_way(stream: &mut Stream) -> Way {
    match stream.below(10) {
        0..=6 => Way::Both,
        7 | 8 => Way::Out,
        _ => Way::In,
    }
}

impl Kind {
    /// Its name, as scenarios name it and as it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerLoss => "power-loss",
            Self::PowerLossAll => "power-loss-all",
            Self::RollingRestart => "rolling-restart",
            Self::Fuse(_) => "fuse",
            Self::FailedSync => "failed-sync",
            Self::FullDisk(_) => "full-disk",
            Self::SlowDisk(_) => "slow-disk",
            Self::StalledDisk => "stalled-disk",
            Self::Rot(_) => "rot",
            Self::Alter(_) => ALTERED,
            Self::LostWrite => "lost-write",
            Self::MisdirectedWrite => "misdirected-write",
            Self::Pause => "pause",
            Self::Suspend => "suspend",
            Self::Partition(..) => "partition",
            Self::Flap(..) => "flap",
            Self::SlowLinks(_) => "slow-links",
            Self::LossyLinks(_) => "lossy-links",
            Self::NarrowLinks(_) => "narrow-links",
            Self::Reset => "reset",
            Self::ClockRate(_) => "clock-rate",
            Self::WallJump(_) => "wall-jump",
            Self::Transfer => "transfer",
            Self::LostDisk => "lost-disk",
            Self::ReplaceMember => "replace-member",
            Self::UpdateUrls => "update-urls",
        }
    }

    /// Whether it is over as soon as it has happened.
    pub fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::Fuse(_)
                | Self::FailedSync
                | Self::Rot(_)
                | Self::Alter(_)
                | Self::LostWrite
                | Self::MisdirectedWrite
                | Self::Reset
                | Self::WallJump(_)
                | Self::Transfer
                | Self::LostDisk
                | Self::ReplaceMember
                | Self::UpdateUrls
        )
    }
}

impl Trigger {
    /// The time at which it comes at the latest.
    pub fn latest_ns(&self) -> u64 {
        match self {
            Self::At(at_ns) => *at_ns,
            Self::When { at_most_ns, .. } => *at_most_ns,
        }
    }
}

impl Relation {
    /// Whether two numbers are related so.
    pub fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::AtLeast => left >= right,
            Self::More => left > right,
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at_ns) => write!(f, "{:.3} s", *at_ns as f64 / 1e9),
            Self::When {
                predicate,
                at_most_ns,
            } => {
                let at_most = *at_most_ns as f64 / 1e9;
                write!(f, "when {} (at most {at_most:.3} s)", predicate.text)
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            kind,
            target,
            from,
            until,
        } = self;
        write!(f, "{name:<20} {kind:?} at {target:?}, from {from}")?;
        if kind.is_momentary() {
            return Ok(());
        }
        write!(f, ", for {until}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn every_kind_is_drawn_under_its_own_name() {
        let stream = &mut Stream::new(1, Purpose::Options, 0);
        for name in KINDS {
            assert_eq!(draw_kind(stream, name, 3, SECOND).name(), *name);
        }
    }

    #[test]
    fn a_plan_ends_before_the_run_does_and_holds_only_what_has_weight() {
        let stream = &mut Stream::new(1, Purpose::Options, 0);
        let mut swarm = Swarm::draw(stream, SECOND);
        swarm.interval_ns = 100 * MILLISECOND;
        for (kind, weight) in &mut swarm.weights {
            *weight = u64::from(*kind == "pause" || *kind == "reset");
        }
        let plan = swarm.plan(stream, 3, 60 * SECOND);
        assert!(plan.len() > 100);
        let is_wanted = |fault: &Fault| matches!(fault.kind, Kind::Pause | Kind::Reset);
        assert!(plan.iter().all(is_wanted));
        assert!(
            plan.iter()
                .all(|fault| fault.from.latest_ns() < 60 * SECOND)
        );
    }
}
