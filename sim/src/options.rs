//! The options of a run: a pure function of its seed.
//!
//! Swarm testing: whole classes of faults are often absent, so that a rare interplay of the others is not drowned,
//! and every knob is drawn, mostly small, since the bugs of this field need small numbers.

use std::time::Duration;

use quorate_core::boundary::APPEND_BYTES_MAX;

use crate::load::Load;
use crate::network::NetworkOptions;
use crate::plan::{ALTERED, Alteration, Fault, Kind, Shape, Swarm, Target, Trigger, Way};
use crate::random::{Purpose, Stream};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;

/// Runs with wall clocks that forget the time, in a million.
const FORGETFUL_PPM: u32 = 100_000;

/// Runs in which a leader is cut off, in a million.
const DEPOSED_PPM: u32 = 150_000;

/// Runs in which a member's data are altered, in a million.
const ALTERED_PPM: u32 = 120_000;

/// Runs with a quota that is soon reached, in a million.
const QUOTA_PPM: u32 = 140_000;

/// What clients of a standard run aim at, so that in spite of faults they come to twenty operations a second.
const STANDARD_RATE: u64 = 30;

/// Everything that makes one run different from another, besides its random streams.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voters: 1, 3 or 5.
    pub members: u64,
    /// The heartbeat interval.
    pub tick: Duration,
    /// The election timeout in ticks.
    pub election_ticks: u32,
    /// Whether members ask before they campaign.
    pub pre_vote: bool,
    /// How long a request waits at a member.
    pub request_timeout: Duration,
    /// How long load and faults go on.
    pub safety_ns: u64,
    /// Whether all members lose power in the end, to see what is left.
    pub final_power_loss: bool,
    /// How the clients behave.
    pub load: Load,
    /// How the members keep things.
    pub storage: StorageOptions,
    /// How long disks take.
    pub disk: DiskOptions,
    /// The network.
    pub network: NetworkOptions,
    /// The clocks.
    pub clocks: ClockOptions,
    /// What goes wrong.
    pub plan: Vec<Fault>,
    /// How long a machine stays off that went off by itself, about.
    pub restart_ns: u64,
    /// How many bytes databases may grow to beyond an empty one.
    pub quota_room_bytes: Option<u64>,
    /// Which data members compare with each other, and when.
    pub comparisons: ComparisonOptions,
    /// Whether first only a core of the cluster heals, and must work alone, while the rest stays as bad as it can be.
    pub core_first: bool,
    /// Where the power goes, exactly.
    pub crash_point: Option<CrashPoint>,
}

/// A disk operation in whose middle the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// The member on whose disk it is, by number from 1.
    pub member: u64,
    /// How many operations of that disk come before it.
    pub operation: u64,
    /// Whether the machines of all other members lose their power at the same moment.
    pub takes_all: bool,
}

/// When members compare their data.
#[derive(Clone, Copy, Debug)]
pub struct ComparisonOptions {
    /// Before each start with data (feature gate InitialCorruptCheck).
    pub at_start: bool,
    /// How often the leader has everything compared; zero is never.
    pub everything: Duration,
    /// How often the leader has compactions compared.
    pub compactions: Option<Duration>,
}

/// The clocks.
#[derive(Clone, Copy, Debug)]
pub struct ClockOptions {
    /// Rates of the members' clocks differ from the truth by at most this much, in a million.
    pub rate_ppm: u64,
    /// Whether wall clocks show the same time whenever a process starts, as where nothing keeps them.
    pub forget: bool,
}

/// The members' thresholds.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// `Config::checkpoint_bytes_min`.
    pub checkpoint_bytes_min: u64,
    /// `Config::log_bytes_in_memory_max`.
    pub log_bytes_in_memory_max: usize,
    /// `Config::append_bytes_max`.
    pub append_bytes_max: u64,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// Whether segments are prepared ahead of their use.
    pub prepares_segments: bool,
    /// How many inputs a member may gather before a turn.
    pub turn_ns: u64,
}

/// The disks' speed.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// A write into the page cache.
    pub write_ns: u64,
    /// A sync.
    pub sync_ns: u64,
    /// Syncs that take a hundred times as long, in a million.
    pub stall_ppm: u32,
    /// Sectors that a power loss leaves half written, in a million of those that it takes.
    pub torn_ppm: u32,
}

impl Options {
    /// The options of a seed, with faults.
    pub fn draw(seed: u64) -> Self {
        let mut options = Self::draw_calm(seed);
        options.plan_swarm(seed);
        options.plan_deposition(seed);
        options.plan_alteration(seed);
        options.draw_quota(seed);
        options
    }

    /// The options of a seed for a cluster as people run it: three members with etcd's timers and twenty operations a
    /// second, with faults. What the simulator's speed is measured with.
    pub fn draw_standard(seed: u64) -> Self {
        let mut options = Self::draw_calm(seed);
        options.members = 3;
        options.tick = Duration::from_millis(100);
        options.election_ticks = 10;
        options.request_timeout = Duration::from_secs(4);
        options.safety_ns = 60 * SECOND;
        options.load.groups[0].clients = 8;
        options.load.set_rate(STANDARD_RATE);
        options.storage.append_bytes_max = APPEND_BYTES_MAX;
        options.plan_swarm(seed);
        options
    }

    /// The options of a seed, without faults.
    pub fn draw_calm(seed: u64) -> Self {
        let stream = &mut Stream::new(seed, Purpose::Options, 0);
        let members = *stream.pick(&[1, 3, 3, 3, 3, 3, 5, 5]);
        let tick_ms = *stream.pick(&[10, 20, 50, 100, 100]);
        let election_ticks = *stream.pick(&[5, 10, 10, 20]);
        let election_ns = tick_ms * MILLISECOND * u64::from(election_ticks);
        Self {
            members,
            tick: Duration::from_millis(tick_ms),
            election_ticks,
            pre_vote: !stream.chance(150_000),
            request_timeout: Duration::from_nanos(2 * SECOND + 2 * election_ns),
            // Beyond some elections a run only gets longer: its heartbeats cost the most.
            safety_ns: (*stream.pick(&[2, 3, 4, 6, 12]) * SECOND)
                .clamp(6 * election_ns, 40 * election_ns),
            final_power_loss: stream.chance(300_000),
            load: Load::draw(seed),
            storage: StorageOptions::draw(seed, stream),
            disk: DiskOptions::draw(stream, tick_ms * MILLISECOND),
            network: draw_network(stream, tick_ms * MILLISECOND),
            clocks: ClockOptions {
                rate_ppm: *stream.pick(&[0, 200, 50_000]),
                forget: Stream::new(seed, Purpose::Clock, u64::MAX).chance(FORGETFUL_PPM),
            },
            restart_ns: *stream.pick(&[50 * MILLISECOND, 500 * MILLISECOND, 2 * election_ns]),
            quota_room_bytes: None,
            comparisons: ComparisonOptions::draw(seed),
            core_first: stream.chance(400_000),
            crash_point: None,
            plan: Vec::new(),
        }
    }

    /// Adds random faults for the time of the run.
    pub fn plan_swarm(&mut self, seed: u64) {
        let stream = &mut Stream::new(seed, Purpose::Plan, 0);
        if stream.chance(80_000) {
            return; // Some runs go well.
        }
        let swarm = Swarm::draw(stream, self.election().as_nanos() as u64);
        self.plan
            .extend(swarm.plan(stream, self.members, self.safety_ns));
    }

    /// In some runs a leader is cut off for so long that the others elect another one, while clients go on asking it.
    fn plan_deposition(&mut self, seed: u64) {
        let stream = &mut Stream::new(seed, Purpose::Plan, 1);
        if self.members < 3 || !stream.chance(DEPOSED_PPM) {
            return;
        }
        let from_ns = stream.between(self.safety_ns / 4, self.safety_ns * 3 / 4);
        let elections = stream.between(2, 5);
        self.plan.push(Fault {
            name: "deposition".to_owned(),
            kind: Kind::Partition(
                Shape::Isolate,
                *stream.pick(&[Way::Both, Way::Both, Way::Out]),
            ),
            target: Target::Leader,
            from: Trigger::At(from_ns),
            until: Trigger::At(self.election().as_nanos() as u64 * elections),
        });
    }

    /// In some runs databases are full after a while.
    fn draw_quota(&mut self, seed: u64) {
        let stream = &mut Stream::new(seed, Purpose::Operator, 0);
        if !stream.chance(QUOTA_PPM) {
            return;
        }
        self.quota_room_bytes = Some(*stream.pick(&[10_000, 16_000, 30_000]));
        for group in &mut self.load.groups {
            // What nobody but its owner deletes must leave room.
            group.value_bytes_max = group.value_bytes_max.min(700);
        }
    }

    /// In some runs the data of a member are altered, and somebody looks for it.
    fn plan_alteration(&mut self, seed: u64) {
        let stream = &mut Stream::new(seed, Purpose::Compare, 2);
        if self.members < 3 || !stream.chance(ALTERED_PPM) {
            return;
        }
        let from_ns = stream.between(self.safety_ns / 3, self.safety_ns * 9 / 10);
        self.plan.push(Fault {
            name: ALTERED.to_owned(),
            kind: Kind::Alter(*stream.pick(&Alteration::ALL)),
            target: stream
                .pick(&[Target::Any, Target::Any, Target::Leader])
                .clone(),
            from: Trigger::At(from_ns),
            until: Trigger::At(0),
        });
        // An image comes early.
        self.storage.checkpoint_bytes_min = *stream.pick(&[500, 2_000]);
        let interval = Duration::from_millis(*stream.pick(&[300, 2000]));
        // Who does not start is not told of by an alarm.
        let look = stream.below(4);
        self.comparisons.at_start = look == 3;
        match look {
            0 | 1 => self.comparisons.everything = interval,
            2 => self.comparisons.compactions = Some(interval),
            _ => {}
        }
    }

    /// The election timeout.
    pub fn election(&self) -> Duration {
        self.tick * self.election_ticks
    }
}

impl StorageOptions {
    fn draw(seed: u64, stream: &mut Stream) -> Self {
        let appends = &mut Stream::new(seed, Purpose::Options, 1);
        Self {
            // Entries that travel one by one are acknowledged one by one.
            append_bytes_max: *appends.pick(&[APPEND_BYTES_MAX, APPEND_BYTES_MAX, 0, 300]),
            checkpoint_bytes_min: *stream.pick(&[500, 2_000, 20_000, 1 << 40]),
            log_bytes_in_memory_max: *stream.pick(&[0, 1_000, 10_000, 1 << 30]),
            segment_bytes: *stream.pick(&[4_096, 8_192, 65_536]),
            prepares_segments: stream.chance(700_000),
            turn_ns: *stream.pick(&[2_000, 50_000, 2_000_000]),
        }
    }
}

impl ComparisonOptions {
    /// Nobody compares anything.
    pub const NEVER: Self = Self {
        at_start: false,
        everything: Duration::ZERO,
        compactions: None,
    };

    fn draw(seed: u64) -> Self {
        let stream = &mut Stream::new(seed, Purpose::Compare, 0);
        let often = Duration::from_millis(300);
        let now_and_then = Duration::from_secs(2);
        Self {
            at_start: stream.chance(250_000),
            everything: *stream.pick(&[Duration::ZERO, Duration::ZERO, now_and_then, often]),
            compactions: *stream.pick(&[None, None, Some(now_and_then), Some(often)]),
        }
    }
}

impl DiskOptions {
    fn draw(stream: &mut Stream, tick_ns: u64) -> Self {
        Self {
            write_ns: *stream.pick(&[2_000, 100_000]),
            sync_ns: *stream.pick(&[50_000, MILLISECOND, tick_ns / 2]),
            stall_ppm: *stream.pick(&[0, 0, 1_000, 20_000]),
            torn_ppm: *stream.pick(&[0, 500_000]),
        }
    }
}

fn draw_network(stream: &mut Stream, tick_ns: u64) -> NetworkOptions {
    NetworkOptions {
        delay_ns: *stream.pick(&[50_000, MILLISECOND, tick_ns / 4]),
        loss_ppm: *stream.pick(&[0, 0, 1_000, 20_000, 150_000]),
        repeat_ppm: *stream.pick(&[0, 0, 10_000, 200_000]),
        overtake_ppm: *stream.pick(&[0, 0, 50_000, 300_000]),
        hold: stream.chance(300_000),
        bandwidth: *stream.pick(&[0, 0, 0, 100_000, 1_000_000]),
        queue_max: *stream.pick(&[u32::MAX, u32::MAX, 8, 64]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_depend_on_the_seed_alone_and_vary() {
        let texts: Vec<_> = (0..50)
            .map(|seed| format!("{:?}", Options::draw(seed)))
            .collect();
        let again: Vec<_> = (0..50)
            .map(|seed| format!("{:?}", Options::draw(seed)))
            .collect();
        assert_eq!(texts, again);
        for (position, text) in texts.iter().enumerate() {
            assert!(!texts[..position].contains(text));
        }
    }
}
