//! What a scenario says of the cluster and of the world around it: `[cluster]`, `[storage]`, `[disk]`, `[network]`,
//! `[comparisons]`, `[clocks]`, `[time]`.
//!
//! What it leaves out has a fixed value (`base = "steady"`, in which nothing goes wrong by itself) or the value that the
//! seed would have without a scenario (`base = "swarm"`). The members' thresholds are always drawn unless they are given.

use std::time::Duration;

use super::draw::{Choice, Draws, Number};
use super::source::ScenarioError;
use super::table::Table;
use super::units::Unit;
use crate::load::Load;
use crate::network::NetworkOptions;
use crate::options::{ClockOptions, ComparisonOptions, DiskOptions, Options};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;

/// Where values come from that a scenario leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Three members, a good network, good disks and good clocks.
    Steady,
    /// What the seed has without a scenario, but for faults and load.
    Swarm,
}

/// The settings of a scenario: what it says, by table and key.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    base: Base,
    numbers: Vec<(&'static str, Number)>,
    flags: Vec<(&'static str, Choice<bool>)>,
}

/// Each table with its numbers.
const NUMBERS: &[(&str, &[(&str, Unit)])] = &[
    (
        "cluster",
        &[
            ("members", Unit::Count(1, 5)),
            ("tick", Unit::Duration(1_000_000)),
            ("election_ticks", Unit::Count(2, 50)),
            ("request_timeout", Unit::Duration(1_000_000)),
        ],
    ),
    (
        "storage",
        &[
            ("checkpoint_bytes", Unit::Bytes(1, 1 << 40)),
            ("log_memory_bytes", Unit::Bytes(0, 1 << 30)),
            ("append_bytes", Unit::Bytes(0, 1 << 30)),
            ("segment_bytes", Unit::Bytes(8192, 64 << 20)),
            ("turn", Unit::Duration(1_000)),
            ("quota", Unit::Bytes(8_000, 1 << 30)),
            ("watch_response_bytes", Unit::Bytes(100, 64 << 20)),
        ],
    ),
    (
        "disk",
        &[
            ("write", Unit::Duration(1_000)),
            ("sync", Unit::Duration(1_000)),
            ("stalls", Unit::Share),
            ("torn", Unit::Share),
        ],
    ),
    (
        "network",
        &[
            ("delay", Unit::Duration(1_000)),
            ("loss", Unit::Share),
            ("repeat", Unit::Share),
            ("overtake", Unit::Share),
            ("bytes_per_second", Unit::Bytes(1_000, 1 << 30)),
            ("queue", Unit::Count(1, 1 << 20)),
        ],
    ),
    (
        "comparisons",
        &[
            ("everything", Unit::Duration(10_000_000)),
            ("compactions", Unit::Duration(10_000_000)),
        ],
    ),
    ("clocks", &[("deviation", Unit::Deviation)]),
    (
        "time",
        &[
            ("safety", Unit::Duration(100_000_000)),
            ("restart", Unit::Duration(1_000_000)),
        ],
    ),
];
/// Each table with its flags.
const FLAGS: &[(&str, &[&str])] = &[
    ("cluster", &["pre_vote"]),
    ("storage", &["prepares_segments"]),
    ("network", &["hold"]),
    ("comparisons", &["at_start"]),
    ("clocks", &["forget"]),
    ("time", &["core_first", "power_loss_at_end"]),
];

impl Settings {
    pub(super) fn read(base: Base, root: &mut Table<'_>) -> Result<Self, ScenarioError> {
        let (mut numbers, mut flags) = (Vec::new(), Vec::new());
        for (title, keys) in NUMBERS {
            let Some(mut table) = root.table(title)? else {
                continue;
            };
            for &(key, unit) in *keys {
                if let Some(number) = table.number(key, unit)? {
                    numbers.push((key, number));
                }
            }
            let of_table = FLAGS.iter().find(|(of, _)| of == title);
            for key in of_table.map_or(&[][..], |(_, keys)| keys) {
                if let Some(flag) = table.flag(key)? {
                    flags.push((*key, flag));
                }
            }
            table.finish()?;
        }
        Ok(Self {
            base,
            numbers,
            flags,
        })
    }

    fn number(&self, key: &str) -> Option<&Number> {
        let mut numbers = self.numbers.iter();
        numbers
            .find(|(known, _)| *known == key)
            .map(|(_, number)| number)
    }

    /// The least number of members of any run.
    pub(super) fn members_least(&self) -> u64 {
        match (self.number("members"), self.base) {
            (Some(number), _) => number.least() as u64,
            (None, Base::Steady) => 3,
            (None, Base::Swarm) => 1,
        }
    }

    /// The longest time that load and faults can take.
    pub(super) fn safety_most_ns(&self) -> i64 {
        match (self.number("safety"), self.base) {
            (Some(number), _) => number.most(),
            (None, Base::Steady) => STEADY_SAFETY_NS as i64,
            (None, Base::Swarm) => i64::MAX,
        }
    }

    /// The options of a seed, without load and faults.
    pub(super) fn options(&self, seed: u64, draws: Draws) -> Options {
        let mut options = Options::draw_calm(seed);
        options.load = Load::of(Vec::new());
        if self.base == Base::Steady {
            steady(&mut options);
        }
        let mut patience = None;
        for (key, number) in &self.numbers {
            let number = draws.number(key, number) as u64;
            if *key == "request_timeout" {
                patience = Some(Duration::from_nanos(number));
            }
            set_number(&mut options, key, number);
        }
        for (key, flag) in &self.flags {
            let flag = draws.choice(key, flag);
            match *key {
                "pre_vote" => options.pre_vote = flag,
                "prepares_segments" => options.storage.prepares_segments = flag,
                "hold" => options.network.hold = flag,
                "at_start" => options.comparisons.at_start = flag,
                "forget" => options.clocks.forget = flag,
                "core_first" => options.core_first = flag,
                _ => options.final_power_loss = flag,
            }
        }
        options.request_timeout =
            patience.unwrap_or(Duration::from_secs(2) + 2 * options.election());
        options
    }
}

const STEADY_SAFETY_NS: u64 = 10 * SECOND;

/// A cluster and a world in which nothing goes wrong by itself.
fn steady(options: &mut Options) {
    options.members = 3;
    options.tick = Duration::from_millis(50);
    options.election_ticks = 10;
    options.pre_vote = true;
    options.safety_ns = STEADY_SAFETY_NS;
    options.final_power_loss = false;
    options.core_first = false;
    options.restart_ns = 500 * MILLISECOND;
    options.disk = DiskOptions {
        write_ns: 10_000,
        sync_ns: MILLISECOND,
        stall_ppm: 0,
        torn_ppm: 0,
    };
    options.network = NetworkOptions {
        delay_ns: MILLISECOND,
        loss_ppm: 0,
        repeat_ppm: 0,
        overtake_ppm: 0,
        hold: false,
        bandwidth: 0,
        queue_max: u32::MAX,
    };
    options.clocks = ClockOptions {
        rate_ppm: 0,
        forget: false,
    };
    options.comparisons = ComparisonOptions::NEVER;
}

fn set_number(options: &mut Options, key: &str, number: u64) {
    let Options {
        storage,
        disk,
        network,
        ..
    } = options;
    match key {
        "members" => options.members = number,
        "tick" => options.tick = Duration::from_nanos(number),
        "election_ticks" => options.election_ticks = number as u32,
        "request_timeout" => {} // What is left out depends on the election timeout.
        "checkpoint_bytes" => storage.checkpoint_bytes_min = number,
        "log_memory_bytes" => storage.log_bytes_in_memory_max = number as usize,
        "append_bytes" => storage.append_bytes_max = number,
        "segment_bytes" => storage.segment_bytes = number,
        "quota" => options.quota_room_bytes = Some(number),
        "turn" => storage.turn_ns = number,
        "watch_response_bytes" => options.load.watch_response_bytes_max = number as usize,
        "write" => disk.write_ns = number,
        "sync" => disk.sync_ns = number,
        "stalls" => disk.stall_ppm = number as u32,
        "torn" => disk.torn_ppm = number as u32,
        "delay" => network.delay_ns = number,
        "loss" => network.loss_ppm = number as u32,
        "repeat" => network.repeat_ppm = number as u32,
        "overtake" => network.overtake_ppm = number as u32,
        "bytes_per_second" => network.bandwidth = number,
        "queue" => network.queue_max = number as u32,
        "everything" => options.comparisons.everything = Duration::from_nanos(number),
        "compactions" => options.comparisons.compactions = Some(Duration::from_nanos(number)),
        "deviation" => options.clocks.rate_ppm = number,
        "safety" => options.safety_ns = number,
        "restart" => options.restart_ns = number,
        other => unreachable!("{other} is in no table"),
    }
}
