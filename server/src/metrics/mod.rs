//! The numbers that a member tells about itself, under etcd's names.
//!
//! Owns the numbers and the text of `/metrics`; [`exposition`] writes the classic Prometheus format byte for byte as
//! etcd's library does, which the crates for Rust do not (they rename counters or print numbers differently). What
//! the member knows anyway (leader, revisions, sizes) is not counted here but given as [`Gauges`] at a scrape.
//!
//! ```text
//! IO cores ──► CoreMetrics, one for each ─┐
//! consensus, log, peers ──► Metrics ──────┼──► render(Gauges) ──► text
//! the member's status ──► Gauges ─────────┘
//! ```
//!
//! Hot numbers are kept once for each IO core, so that no two cores write to one cache line; a scrape adds them up.

mod exposition;
mod grpc;
mod per_core;
mod process;
mod render;
mod value;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quorate_core::types::MemberId;

use self::per_core::Cores;
use crate::config::FeatureGates;

pub use self::exposition::CONTENT_TYPE;
pub use self::grpc::{CODES, METHODS, Method, MethodMetrics, MethodType, method_index};
pub use self::per_core::{CoreMetrics, REQUEST_TYPES};
pub use self::value::{Buckets, Counter, Gauge, Histogram, HistogramSnapshot};
pub use self::work::WorkMetrics;

/// Bounds from 1 ms to 8 s.
const FROM_1_MS: Buckets = Buckets {
    bounds: &[
        0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096,
        8.192,
    ],
    unit: 1e-9,
};

/// Bounds from 100 µs to 3 s.
const FROM_100_US_TO_3_S: Buckets = Buckets {
    bounds: &[
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024,
        0.2048, 0.4096, 0.8192, 1.6384, 3.2768,
    ],
    unit: 1e-9,
};

/// Bounds from 10 ms to 164 s.
const FROM_10_MS: Buckets = Buckets {
    bounds: &[
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
        163.84,
    ],
    unit: 1e-9,
};

/// Bounds from 100 ms to 51 s.
const FROM_100_MS_TO_51_S: Buckets = Buckets {
    bounds: &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2],
    unit: 1e-9,
};

/// What never changes while a member runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member.
    pub member: MemberId,
    /// Which features are on.
    pub gates: FeatureGates,
    /// `--metrics=extensive`.
    pub extensive: bool,
}

/// All numbers of one member; shared by all its threads.
#[derive(Debug)]
pub struct Metrics {
    identity: Identity,
    cores: Cores,
    /// What is done behind the services.
    pub work: WorkMetrics,

    /// How long syncs of the log took.
    pub wal_fsync: Histogram,
    /// How long writes to the log took, without their sync.
    pub wal_write: Histogram,
    /// How long checkpoints took; what etcd calls a commit of its backend.
    pub checkpoint: Histogram,

    /// Proposals of this member that were not applied.
    pub proposals_failed: Counter,
    /// Linearizable reads that failed.
    pub read_indexes_failed: Counter,
    /// Linearizable reads that took too long.
    pub read_indexes_slow: Counter,

    /// How long hashes of the whole store took.
    pub hash: Histogram,
    /// How long hashes of a revision took.
    pub hash_revision: Histogram,

    /// `/health` answered well.
    pub health_success: Counter,
    /// `/health` answered badly.
    pub health_failures: Counter,
    health_checks: Mutex<BTreeMap<(&'static str, &'static str), HealthCheck>>,

    peers: Mutex<BTreeMap<MemberId, Arc<PeerMetrics>>>,
}

/// The results of one health check.
#[derive(Clone, Copy, Debug, Default)]
struct HealthCheck {
    succeeded: u64,
    failed: u64,
    last_succeeded: bool,
}

/// The numbers of the link to one peer.
#[derive(Debug)]
pub struct PeerMetrics {
    /// Bytes of messages sent.
    pub sent_bytes: Counter,
    /// Bytes of messages received.
    pub received_bytes: Counter,
    /// Messages that could not be sent.
    pub sent_failures: Counter,
    /// Messages that could not be received.
    pub received_failures: Counter,
    /// How often the link was lost.
    pub disconnected: Counter,
    /// 1 while the link works.
    pub active: Gauge,
    /// Round-trip times.
    pub round_trip: Histogram,
    /// Images that go there.
    pub snapshots_sent: SnapshotMetrics,
    /// Images that come from there.
    pub snapshots_received: SnapshotMetrics,
}

/// The images that went one way between this member and another.
#[derive(Debug)]
pub struct SnapshotMetrics {
    /// Those that arrived.
    pub succeeded: Counter,
    /// Those that did not.
    pub failed: Counter,
    /// Those that are on their way.
    pub in_flight: Gauge,
    /// How long those took that arrived.
    pub duration: Histogram,
}

impl Default for SnapshotMetrics {
    fn default() -> Self {
        Self {
            succeeded: Counter::default(),
            failed: Counter::default(),
            in_flight: Gauge::default(),
            duration: Histogram::new(FROM_100_MS_TO_51_S),
        }
    }
}

impl SnapshotMetrics {
    /// One sets out.
    pub fn begin(&self) -> Instant {
        self.in_flight.add(1);
        Instant::now()
    }

    /// And is there or not.
    pub fn end(&self, began: Instant, succeeded: bool) {
        self.in_flight.add(-1);
        if succeeded {
            self.succeeded.increment();
            self.duration.observe(began.elapsed());
        } else {
            self.failed.increment();
        }
    }

    /// Whether there ever was one.
    fn is_used(&self) -> bool {
        self.succeeded.value() + self.failed.value() > 0 || self.in_flight.value() > 0
    }
}

impl Default for PeerMetrics {
    fn default() -> Self {
        Self {
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            sent_failures: Counter::default(),
            received_failures: Counter::default(),
            disconnected: Counter::default(),
            active: Gauge::default(),
            round_trip: Histogram::new(FROM_100_US_TO_3_S),
            snapshots_sent: SnapshotMetrics::default(),
            snapshots_received: SnapshotMetrics::default(),
        }
    }
}

/// What the member knows at the moment of a scrape. A field without a value is left out of the text.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Whether a leader is known.
    pub has_leader: bool,
    /// Whether it is this member.
    pub is_leader: bool,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Leaders seen so far.
    pub leader_changes: Option<u64>,
    /// The cluster version as `3.7.0`, once decided.
    pub cluster_version: Option<String>,
    /// The commit index.
    pub committed: u64,
    /// The applied index.
    pub applied: u64,
    /// Proposals that wait.
    pub proposals_pending: u64,
    /// The effective quota; what etcd tells when there is none is 0.
    pub quota_bytes: i64,
    /// Bytes counted against the quota.
    pub db_bytes: i64,
    /// Those that are in use.
    pub db_bytes_in_use: i64,
    /// The current revision.
    pub revision: i64,
    /// The last compacted revision; -1 when there was no compaction.
    pub compact_revision: i64,
    /// The revision of users, roles and the switch.
    pub auth_revision: u64,
    /// Keys that exist.
    pub keys: Option<u64>,
    /// Watch streams that are open.
    pub watch_streams: Option<u64>,
    /// Watchers on them.
    pub watchers: Option<u64>,
    /// Watchers that lag.
    pub slow_watchers: Option<u64>,
    /// Events that wait for their streams.
    pub events_pending: u64,
    /// By how many revisions the last watcher lags.
    pub watch_lag: u64,
    /// Inputs that wait for the node.
    pub consensus_waiting: u64,
    /// All members, this one included.
    pub members: Vec<MemberId>,
    /// Alarms that are raised: of whom, and the name of which.
    pub alarms: Vec<(MemberId, &'static str)>,
}

/// How many file descriptors this process may have, as far as the system tells.
pub fn file_descriptor_limit() -> Option<u64> {
    process::Process::read().fds_max.map(|limit| limit as u64)
}

impl Metrics {
    /// Numbers that start at zero.
    pub fn new(identity: Identity) -> Self {
        Self {
            cores: Cores::new(identity.extensive),
            identity,
            work: WorkMetrics::default(),
            wal_fsync: Histogram::new(FROM_1_MS),
            wal_write: Histogram::new(FROM_1_MS),
            checkpoint: Histogram::new(FROM_1_MS),
            proposals_failed: Counter::default(),
            read_indexes_failed: Counter::default(),
            read_indexes_slow: Counter::default(),
            hash: Histogram::new(FROM_10_MS),
            hash_revision: Histogram::new(FROM_10_MS),
            health_success: Counter::default(),
            health_failures: Counter::default(),
            health_checks: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// The numbers of the calling thread's core.
    pub fn core(&self) -> &CoreMetrics {
        self.cores.mine()
    }

    /// The numbers of the link to `peer`; keep the handle.
    pub fn peer(&self, peer: MemberId) -> Arc<PeerMetrics> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(peer).or_default())
    }

    /// Notes the result of the check `name` of `/livez` or `/readyz`.
    pub fn health_checked(&self, kind: &'static str, name: &'static str, succeeded: bool) {
        let mut checks = self
            .health_checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let check = checks.entry((kind, name)).or_default();
        check.last_succeeded = succeeded;
        *(if succeeded {
            &mut check.succeeded
        } else {
            &mut check.failed
        }) += 1;
    }
}

#[cfg(test)]
mod tests;
