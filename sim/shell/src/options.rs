//! The options of a run: a pure function of its seed.

use std::time::Duration;

use quorate_server::simulated::Tuning;
use quorate_sim::random::{Purpose, Stream};

/// Everything that makes one run different from another, besides its random streams.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voters.
    pub members: usize,
    /// IO cores of a member.
    pub cores: usize,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// The election timeout in heartbeats.
    pub election_ticks: u32,
    /// The members' thresholds.
    pub tuning: Tuning,
    /// Clients that read and write, with what they do.
    pub callers: Vec<Mix>,
    /// Clients that hold leases.
    pub tenants: u64,
    /// Clients that watch.
    pub watchers: u64,
    /// Keys.
    pub keys: u64,
    /// The longest value.
    pub value_bytes_max: u64,
    /// How long a call may take.
    pub call_timeout: Duration,
    /// Lease TTLs are at most this many seconds.
    pub lease_ttl_max: u64,
    /// How long load and faults go on.
    pub safety: Duration,
    /// The delay of a message, at least and at most.
    pub delay: (Duration, Duration),
    /// The mean time that a sync takes.
    pub sync: Duration,
    /// Whether reads and writes of sockets move less than they could.
    pub pieces: bool,
    /// How many of the sectors that a power loss takes are half written, in a million.
    pub torn_ppm: u32,
    /// The mean time between two faults; none is no faults.
    pub fault_every: Option<Duration>,
    /// The kinds of faults that happen, each with a weight.
    pub faults: Vec<(Fault, u64)>,
    /// What goes wrong besides, as a scenario has it.
    pub plan: Vec<quorate_sim::plan::Fault>,
    /// Whether all lose power at the end of load and faults.
    pub final_blackout: bool,
}

/// What a client does: shares of each kind of call, in a hundred; compactions take the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Puts.
    pub put: u64,
    /// Deletions.
    pub delete: u64,
    /// Transactions: compare and swap.
    pub txn: u64,
    /// Reads.
    pub range: u64,
    /// The mean pause between two calls.
    pub think: Duration,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed and started again.
    Kill,
    /// A machine loses power, in silence, and comes back.
    PowerLoss,
    /// All machines lose power at once.
    Blackout,
    /// A process is asked to stop and started again.
    Stop,
    /// A process stands still.
    Pause,
    /// Machines and clients fall into two groups that do not hear each other.
    Partition,
    /// One machine hears no other, or no other hears it.
    OneWay,
    /// Connections are reset.
    Reset,
    /// Connections go silent without an end.
    Silence,
    /// Messages take long.
    Slow,
    /// A disk takes long.
    SlowDisk,
    /// A sync fails: the process ends, and is started again.
    SyncFails,
    /// The power goes in the middle of a disk operation.
    Fuse,
}

/// Every kind, with its name in reports.
pub const FAULTS: &[(Fault, &str)] = &[
    (Fault::Kill, "kill"),
    (Fault::PowerLoss, "power-loss"),
    (Fault::Blackout, "blackout"),
    (Fault::Stop, "stop"),
    (Fault::Pause, "pause"),
    (Fault::Partition, "partition"),
    (Fault::OneWay, "one-way"),
    (Fault::Reset, "reset"),
    (Fault::Silence, "silence"),
    (Fault::Slow, "slow"),
    (Fault::SlowDisk, "slow-disk"),
    (Fault::SyncFails, "sync-fails"),
    (Fault::Fuse, "fuse"),
];

impl Fault {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        let known = FAULTS.iter().find(|(fault, _)| *fault == self);
        known.map_or("?", |(_, name)| name)
    }
}

impl Mix {
    /// Some of everything.
    pub fn usual(think: Duration) -> Self {
        Self {
            put: 35,
            delete: 7,
            txn: 20,
            range: 36,
            think,
        }
    }
}

impl Options {
    /// The election timeout.
    pub fn election(&self) -> Duration {
        self.heartbeat * self.election_ticks
    }

    /// Those of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut draw = Stream::new(seed, Purpose::Options, 0);
        let millis = Duration::from_millis;
        let members = if draw.chance(150_000) { 1 } else { 3 };
        let heartbeat = millis(*draw.pick(&[20, 50, 100]));
        let delay_min = *draw.pick(&[0, 1, 2]);
        let delay_max = delay_min + draw.between(1, heartbeat.as_millis() as u64 / 5);
        let clients = draw.between(1, 5);
        let think = millis(*draw.pick(&[5, 30, 150]));
        let faults = FAULTS
            .iter()
            .map(|(fault, _)| (*fault, draw.between(0, 4)))
            .filter(|(_, weight)| *weight > 1)
            .collect();
        Self {
            members,
            cores: draw.between(1, 3) as usize,
            heartbeat,
            election_ticks: 10,
            tuning: Tuning {
                segment_bytes: *draw.pick(&[64 << 10, 256 << 10, 1 << 20]),
                checkpoint_bytes_min: *draw.pick(&[16 << 10, 128 << 10, 1 << 20]),
                log_bytes_in_memory_max: *draw.pick(&[4 << 10, 64 << 10, 1 << 20]),
            },
            callers: vec![Mix::usual(think); clients as usize],
            tenants: clients.div_ceil(2),
            watchers: draw.between(0, 3),
            keys: draw.between(1, 12),
            value_bytes_max: *draw.pick(&[16, 256, 4096, 40_000]),
            // Some wait for longer than a member does, and hear its own "timed out".
            call_timeout: millis(draw.between(500, 12_000)),
            lease_ttl_max: draw.between(1, 5),
            safety: Duration::from_secs(draw.between(5, 20)),
            delay: (millis(delay_min), millis(delay_max)),
            sync: Duration::from_micros(*draw.pick(&[0, 200, 2_000, 10_000])),
            pieces: draw.chance(400_000),
            torn_ppm: if draw.chance(300_000) { 500_000 } else { 0 },
            fault_every: (!draw.chance(100_000)).then(|| millis(draw.between(300, 4_000))),
            faults,
            plan: Vec::new(),
            final_blackout: false,
        }
    }
}
