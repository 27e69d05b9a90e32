//! The plan that a seed makes of the faults of a scenario.

use super::draw::{Draws, Number};
use super::fault::{Cut, FaultSpec, Length, Moment, Until};
use super::source::ScenarioError;
use super::table::Table;
use super::units::Unit;
use crate::plan::{
    ALTERED, Comparison, Fault, Field, KINDS, Kind, Predicate, Relation, Shape, Subject, Swarm,
    Target, Term, Trigger,
};

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1000 * MILLISECOND;
/// What waits for something without a limit waits as long as a run can be.
const FOREVER_NS: i64 = 30 * 24 * 3600 * SECOND;

/// Random faults besides those of the list.
#[derive(Clone, Debug)]
pub(super) struct SwarmSpec {
    pub(super) kinds: Vec<&'static str>,
    every: Number,
    lasts: Number,
}

impl SwarmSpec {
    pub(super) fn read(mut table: Table<'_>) -> Result<Self, ScenarioError> {
        let names: Vec<_> = KINDS.iter().map(|name| (*name, *name)).collect();
        let value = table.require("kinds", "an array of kinds of faults")?;
        let items = value.array("an array of kinds of faults")?;
        if items.is_empty() {
            return Err(value.error("found no kinds, expected at least one"));
        }
        let kinds = items.iter().map(|item| item.one_of(&names));
        let kinds = kinds.collect::<Result<_, _>>()?;
        let every = table.number("every", Unit::Duration(MILLISECOND))?;
        let lasts = table.number("lasts", Unit::Duration(MILLISECOND))?;
        table.finish()?;
        Ok(Self {
            kinds,
            every: every.unwrap_or(Number::Fixed(SECOND)),
            lasts: lasts.unwrap_or(Number::Fixed(500 * MILLISECOND)),
        })
    }

    pub(super) fn plan(&self, draws: Draws, members: u64, safety_ns: u64) -> Vec<Fault> {
        let swarm = Swarm {
            interval_ns: draws.number("swarm.every", &self.every) as u64,
            length_ns: draws.number("swarm.lasts", &self.lasts) as u64,
            weights: self.kinds.iter().map(|kind| (*kind, 1)).collect(),
        };
        let stream = &mut draws.stream("swarm");
        swarm.plan(stream, members, safety_ns)
    }
}

/// The plan of a seed, and the ids of the faults that are not in it: by their `p`, or since they speak of one that is not.
pub(super) fn plan(
    faults: &[FaultSpec],
    draws: Draws,
    safety_ns: u64,
) -> (Vec<Fault>, Vec<String>) {
    let (mut plan, mut absent) = (Vec::new(), Vec::new());
    // Where each fault of the file is in the plan.
    let mut places = Vec::new();
    for spec in faults {
        let name = format!("fault.{}", spec.id);
        let is_in = draws.stream(&format!("{name}.p")).chance(spec.p_ppm as u32);
        let first = plan.len();
        if is_in
            && spec
                .add(draws, &name, safety_ns, &places, &mut plan)
                .is_some()
        {
            places.push(Some(first));
        } else {
            places.push(None);
            absent.push(spec.id.clone());
        }
    }
    (plan, absent)
}

impl FaultSpec {
    /// Adds it to a plan, as often as it happens. `None` if it speaks of a fault that is not in the plan.
    fn add(
        &self,
        draws: Draws,
        name: &str,
        safety_ns: u64,
        places: &[Option<usize>],
        plan: &mut Vec<Fault>,
    ) -> Option<()> {
        let times = draws.number(&format!("{name}.repeat"), &self.times);
        let mut added = Vec::new();
        let mut shift_ns = 0;
        for round in 0..times {
            let name = match round {
                0 => name.to_owned(),
                _ => format!("{name}.{round}"),
            };
            let previous = (round > 0).then(|| plan.len() + added.len() - 1);
            let from = self.from(draws, &name, places, previous, shift_ns)?;
            // Its end may speak of itself, by the number after those before it.
            let own = Some(plan.len() + added.len());
            let with_own: Vec<_> = places.iter().copied().chain([own]).collect();
            let until = self.until(draws, &name, &with_own, &from, safety_ns)?;
            let target = match draws.choice(&format!("{name}.node"), &self.node) {
                Target::SameAs(fault) => Target::SameAs(places[fault]?),
                Target::NotSameAs(fault) => Target::NotSameAs(places[fault]?),
                target => target,
            };
            added.push(Fault {
                name: match round {
                    0 => self.id.clone(),
                    _ => format!("{}.{}", self.id, round + 1),
                },
                kind: self.kind(draws, &name),
                target,
                from,
                until,
            });
            shift_ns += draws.number(&format!("{name}.every"), &self.every);
        }
        plan.extend(added);
        Some(())
    }

    fn from(
        &self,
        draws: Draws,
        name: &str,
        places: &[Option<usize>],
        previous: Option<usize>,
        shift_ns: i64,
    ) -> Option<Trigger> {
        let name = format!("{name}.from");
        Some(match &self.from {
            // The first round draws the time; the others follow it.
            Moment::At(at) if previous.is_none() => Trigger::At(draws.number(&name, at) as u64),
            Moment::At(at) => {
                let first = draws.number(&format!("fault.{}.from", self.id), at);
                Trigger::At((first + shift_ns) as u64)
            }
            Moment::When(predicate, at_most) => {
                let mut predicate = placed(predicate, places)?;
                if let Some(previous) = previous {
                    predicate.comparisons.push(is_over(previous));
                }
                Trigger::When {
                    predicate,
                    at_most_ns: limit(draws, &name, at_most),
                }
            }
        })
    }

    fn until(
        &self,
        draws: Draws,
        name: &str,
        places: &[Option<usize>],
        from: &Trigger,
        safety_ns: u64,
    ) -> Option<Trigger> {
        let name = format!("{name}.until");
        Some(match &self.until {
            _ if self.form.length == Length::Moment => Trigger::At(0),
            Until::End => Trigger::At(safety_ns),
            Until::For(length) => Trigger::At(draws.number(&name, length) as u64),
            Until::At(at) => {
                let at = draws.number(&name, at) as u64;
                Trigger::At(at.saturating_sub(from.latest_ns()).max(1))
            }
            Until::When(predicate, at_most) => Trigger::When {
                predicate: placed(predicate, places)?,
                at_most_ns: limit(draws, &name, at_most),
            },
        })
    }
    fn number(&self, draws: Draws, name: &str, key: &str) -> i64 {
        let mut numbers = self.numbers.iter();
        let found = numbers.find(|(known, _)| *known == key);
        let (_, number) = found.expect("the form has it");
        draws.number(&format!("{name}.{key}"), number)
    }

    fn kind(&self, draws: Draws, name: &str) -> Kind {
        let number = |key: &str| self.number(draws, name, key);
        let shape = || match draws.choice(&format!("{name}.shape"), &self.shape) {
            Cut::Isolate => Shape::Isolate,
            Cut::Split => Shape::Split(number("size") as u64),
            Cut::Halves => Shape::Halves,
            Cut::Bridge => Shape::Bridge,
            Cut::Shatter => Shape::Shatter,
        };
        let way = || draws.choice(&format!("{name}.way"), &self.way);
        match self.form.name {
            "crash" => Kind::Crash,
            "power-loss" => Kind::PowerLoss,
            "power-loss-all" => Kind::PowerLossAll,
            "rolling-restart" => Kind::RollingRestart,
            "fuse" => Kind::Fuse(number("operations") as u64),
            "failed-sync" => Kind::FailedSync,
            "full-disk" => Kind::FullDisk(number("room") as u64),
            "slow-disk" => Kind::SlowDisk(number("times") as u64),
            "stalled-disk" => Kind::StalledDisk,
            "rot" => Kind::Rot(draws.choice(&format!("{name}.place"), &self.place)),
            ALTERED => Kind::Alter(draws.choice(&format!("{name}.change"), &self.alteration)),
            "lost-write" => Kind::LostWrite,
            "misdirected-write" => Kind::MisdirectedWrite,
            "pause" => Kind::Pause,
            "suspend" => Kind::Suspend,
            "partition" => Kind::Partition(shape(), way()),
            "flap" => Kind::Flap(shape(), way(), number("period") as u64),
            "slow-links" => Kind::SlowLinks(number("times") as u64),
            "lossy-links" => Kind::LossyLinks(number("loss") as u32),
            "narrow-links" => Kind::NarrowLinks(number("bytes_per_second") as u64),
            "reset" => Kind::Reset,
            "clock-rate" => Kind::ClockRate(number("rate") as u64),
            "wall-jump" => Kind::WallJump(number("by") / MILLISECOND),
            "transfer" => Kind::Transfer,
            "lost-disk" => Kind::LostDisk,
            "replace-member" => Kind::ReplaceMember,
            "update-urls" => Kind::UpdateUrls,
            other => unreachable!("{other} is no kind of fault"),
        }
    }
}

fn limit(draws: Draws, name: &str, at_most: &Option<Number>) -> u64 {
    let at_most = at_most.as_ref();
    at_most.map_or(FOREVER_NS, |at_most| draws.number(name, at_most)) as u64
}

fn is_over(fault: usize) -> Comparison {
    let constant = |plus| Term { shown: None, plus };
    Comparison {
        left: Term {
            shown: Some((Subject::TargetOf(fault), Field::Over)),
            plus: 0,
        },
        relation: Relation::Equal,
        right: constant(1),
    }
}

/// A condition whose faults are numbered by their place in the plan.
fn placed(predicate: &Predicate, places: &[Option<usize>]) -> Option<Predicate> {
    let place = |term: Term| {
        let shown = match term.shown {
            Some((Subject::TargetOf(fault), field)) => {
                Some((Subject::TargetOf(places[fault]?), field))
            }
            shown => shown,
        };
        Some(Term { shown, ..term })
    };
    let comparisons = predicate.comparisons.iter().map(|comparison| {
        Some(Comparison {
            left: place(comparison.left)?,
            right: place(comparison.right)?,
            ..*comparison
        })
    });
    Some(Predicate {
        text: predicate.text.clone(),
        comparisons: comparisons.collect::<Option<_>>()?,
    })
}
