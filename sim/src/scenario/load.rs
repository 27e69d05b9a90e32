//! The load of a scenario: `[[load]]`.

use super::draw::{Choice, Draws, Number};
use super::source::ScenarioError;
use super::table::{Table, Value};
use super::units::Unit;
use crate::load::{Group, KEYS_MAX, SessionWork, Target, WatchStart, WatchWork, Work};

const SECOND: i64 = 1_000_000_000;

/// A group of clients, some of whose numbers are still to be drawn.
#[derive(Clone, Debug)]
pub(super) struct LoadSpec {
    work: Work,
    clients: Number,
    keys: Number,
    value_bytes: Number,
    pace: Pace,
    target: Choice<Target>,
    /// What its kind of work adds, by key.
    more: Vec<(&'static str, Number)>,
    start: Option<WatchStart>,
}

#[derive(Clone, Debug)]
enum Pace {
    /// Operations of the whole group in a second.
    Rate(Number),
    /// Nanoseconds between two operations of a client.
    Pause(Number),
}

const TARGETS: &[(&str, Target)] = &[
    ("any", Target::Any),
    ("each-member", Target::Each),
    ("leader", Target::Leader),
    ("follower", Target::Follower),
];
const TTL: Unit = Unit::Seconds(1, 3600);

/// What each kind of work adds to the keys of `[[load]]`.
fn more_of(work: &Work) -> &'static [(&'static str, Unit)] {
    match work {
        Work::Mixed { .. } => &[
            ("compactions", Unit::Share),
            ("leases", Unit::Share),
            ("ttl", TTL),
        ],
        Work::Lease(_) => &[("ttl", TTL), ("silent", Unit::Share)],
        Work::Lock(_) | Work::Election(_) => &[
            ("ttl", TTL),
            ("hold", Unit::Duration(1)),
            ("silent", Unit::Share),
        ],
        Work::Watch(_) => &[("watches", Unit::Count(1, 16)), ("restless", Unit::Share)],
        Work::Compaction { .. } => &[("behind", Unit::Count(0, 1_000_000))],
        _ => &[],
    }
}

impl LoadSpec {
    pub(super) fn read(mut table: Table<'_>) -> Result<Self, ScenarioError> {
        let all = Work::all();
        let kind = table.require("kind", "the kind of work")?;
        let work = kind.one_of(&all)?;
        let is_watch = matches!(work, Work::Watch(_));
        let count = |table: &mut Table<'_>, key, most, usual| {
            let number = table.number(key, Unit::Count(1, most))?;
            Ok::<_, ScenarioError>(number.unwrap_or(Number::Fixed(usual)))
        };
        let clients = count(&mut table, "clients", 100, 1)?;
        let keys = count(&mut table, "keys", KEYS_MAX as i64, 6)?;
        let value_bytes = table.number("value_bytes", Unit::Bytes(1, 1_000_000))?;
        let target = table.named("target", |value| value.one_of(TARGETS))?;
        let pace = read_pace(&mut table, is_watch)?;
        let mut more = Vec::new();
        for &(key, unit) in more_of(&work) {
            if let Some(number) = table.number(key, unit)? {
                more.push((key, number));
            }
        }
        let mut start = None;
        if is_watch && let Some(value) = table.take("start") {
            start = read_start(value)?;
        }
        table.finish()?;
        Ok(Self {
            work,
            clients,
            keys,
            value_bytes: value_bytes.unwrap_or(Number::Fixed(64)),
            pace,
            target: target.unwrap_or(Choice(vec![Target::Any])),
            more,
            start,
        })
    }

    /// The group of a seed.
    pub(super) fn group(&self, draws: Draws, name: &str) -> Group {
        let draw = |key: &str, number: &Number| draws.number(&format!("{name}.{key}"), number);
        let mut work = self.work.clone();
        for (key, number) in &self.more {
            set(&mut work, key, draw(key, number) as u64);
        }
        if let Work::Watch(watch) = &mut work {
            watch.start = self.start;
        }
        let group = Group {
            work,
            clients: draw("clients", &self.clients) as u64,
            keys: draw("keys", &self.keys) as u64,
            value_bytes_max: draw("value_bytes", &self.value_bytes) as u64,
            think_ns: 0,
            target: draws.choice(&format!("{name}.target"), &self.target),
        };
        match &self.pace {
            Pace::Rate(rate) => group.with_rate(draw("rate", rate) as u64),
            Pace::Pause(pause) => Group {
                think_ns: draw("pause", pause) as u64,
                ..group
            },
        }
    }
}

fn read_pace(table: &mut Table<'_>, is_watch: bool) -> Result<Pace, ScenarioError> {
    let pause = table.number("pause", Unit::Duration(1))?;
    if is_watch {
        // How fast a watcher reads is up to what there is to read.
        return Ok(Pace::Pause(pause.unwrap_or(Number::Fixed(SECOND / 100))));
    }
    let rate = table.number("rate", Unit::Count(1, 100_000))?;
    match (pause, rate) {
        (Some(_), Some(_)) => {
            Err(table.error("found both `rate` and `pause`, expected one of them"))
        }
        (Some(pause), None) => Ok(Pace::Pause(pause)),
        (None, Some(rate)) => Ok(Pace::Rate(rate)),
        (None, None) => Ok(Pace::Pause(Number::Fixed(SECOND / 10))),
    }
}

fn read_start(value: Value<'_>) -> Result<Option<WatchStart>, ScenarioError> {
    let expected =
        "\"any\", \"now\", \"beginning\", \"compacted\", \"head - 30\" or \"head + 50..100\"";
    let text = value.text(expected)?;
    let number = |text: &str| text.trim().parse::<u32>().ok().map(u64::from);
    let start = match text {
        "any" => return Ok(None),
        "now" => Some(WatchStart::Now),
        "beginning" => Some(WatchStart::Beginning),
        "compacted" => Some(WatchStart::Compacted),
        _ => match text.strip_prefix("head ").map(|rest| rest.split_at(1)) {
            Some(("-", rest)) => number(rest).map(|behind_max| WatchStart::Past { behind_max }),
            Some(("+", rest)) => {
                let (first, last) = rest.split_once("..").unwrap_or((rest, rest));
                let ends = number(first).zip(number(last));
                ends.filter(|(first, last)| 0 < *first && first <= last)
                    .map(|(ahead_min, ahead_max)| WatchStart::Future {
                        ahead_min,
                        ahead_max,
                    })
            }
            _ => None,
        },
    };
    start
        .map(Some)
        .ok_or_else(|| value.unexpected(&format!("one of {expected}")))
}

fn set(work: &mut Work, key: &str, number: u64) {
    match work {
        Work::Mixed {
            compaction_ppm,
            lease_ppm,
            lease_ttl_max,
        } => match key {
            "compactions" => *compaction_ppm = number as u32,
            "leases" => *lease_ppm = number as u32,
            _ => *lease_ttl_max = number,
        },
        Work::Lease(session) | Work::Lock(session) | Work::Election(session) => {
            set_session(session, key, number);
        }
        Work::Watch(watch) => set_watch(watch, key, number),
        Work::Compaction { behind_max } => *behind_max = number,
        _ => unreachable!("{key} is read for kinds that have it"),
    }
}

fn set_session(session: &mut SessionWork, key: &str, number: u64) {
    match key {
        "ttl" => session.ttl_max = number,
        "hold" => session.hold_ns = number,
        _ => session.silent_ppm = number as u32,
    }
}

fn set_watch(watch: &mut WatchWork, key: &str, number: u64) {
    match key {
        "watches" => watch.watches_max = number,
        _ => watch.restless_ppm = number as u32,
    }
}
