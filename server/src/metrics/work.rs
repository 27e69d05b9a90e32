//! The numbers of the threads behind the services: the node's own counts, applied requests, compactions, snapshots.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quorate_core::node::{Applied, Counts, LEASE_TTL_BOUNDS};

use super::per_core::FROM_100_US;
use super::value::{Buckets, Counter, Gauge, Histogram, HistogramSnapshot};
use super::{FROM_1_MS, FROM_100_MS_TO_51_S};

/// What etcd calls the requests that are applied, the frequent ones first.
pub(super) const OPERATIONS: [&str; 30] = [
    "Put",
    "Txn",
    "DeleteRange",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Compaction",
    "Range",
    "Alarm",
    "Authenticate",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserGet",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthUserList",
    "AuthRoleList",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGet",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
    "ClusterVersionSet",
    "ClusterMemberAttrSet",
    "DowngradeInfoSet",
    "DowngradeVersionTest",
    "unknown",
];

/// Reasons for which promotions were refused that are told apart; the others are one.
const REASONS_MAX: usize = 32;

/// Bounds from 10 ms to 655 s.
const FROM_10_MS_TO_655_S: Buckets = Buckets {
    bounds: &[
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
        163.84, 327.68, 655.36,
    ],
    unit: 1e-9,
};

/// Bounds from 100 ms to 410 s.
const FROM_100_MS_TO_410_S: Buckets = Buckets {
    bounds: &[
        0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6,
    ],
    unit: 1e-9,
};

/// Bounds from 100 ms to 820 s, shown in milliseconds.
const FROM_100_MS_IN_MS: Buckets = Buckets {
    bounds: &[
        100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0, 12_800.0, 25_600.0, 51_200.0,
        102_400.0, 204_800.0, 409_600.0, 819_200.0,
    ],
    unit: 1e-6,
};

/// The TTLs of leases, in seconds.
const LEASE_TTLS: Buckets = Buckets {
    bounds: &[
        1.0,
        2.0,
        4.0,
        8.0,
        16.0,
        32.0,
        64.0,
        128.0,
        256.0,
        512.0,
        1024.0,
        2048.0,
        4096.0,
        8192.0,
        16_384.0,
        32_768.0,
        65_536.0,
        131_072.0,
        262_144.0,
        524_288.0,
        1_048_576.0,
        2_097_152.0,
        4_194_304.0,
        8_388_608.0,
    ],
    unit: 1.0,
};

/// How many at once.
const BATCHES: Buckets = Buckets {
    bounds: &[
        1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0,
    ],
    unit: 1.0,
};

/// What is done behind the services.
#[derive(Debug)]
pub struct WorkMetrics {
    counts: Mutex<Counts>,
    applied: Vec<[Histogram; 2]>,
    /// Requests that took longer than they should to be applied.
    pub slow_applies: Counter,
    /// When the compaction that is under way was begun.
    compaction_began: Mutex<Option<Instant>>,
    /// How long compactions took.
    pub compaction: Histogram,
    /// When the last one ended, in seconds since 1970.
    pub compaction_ended: Gauge,

    /// Inputs that the node took in one go.
    pub consensus_batch: Histogram,
    /// Writes that one sync of the log covered.
    pub wal_batch: Histogram,
    /// Bytes written to the log.
    pub wal_bytes: Counter,

    /// How long calls for a defragmentation took, which write a checkpoint.
    defragmentation: Histogram,
    /// Those that are under way.
    defragmenting: Gauge,

    /// Bytes of images that clients did not take in time, so that they went through a file.
    pub backup_spilled: Counter,
    /// How long images took on their way to a client or a member, from when they were asked for.
    pub image_sent: Histogram,
    /// How long it took to store images that came.
    pub image_saved: Histogram,
    /// How long the syncs of these took.
    pub image_synced: Histogram,
    /// Received images that are being read or put in their place.
    pub installing: Gauge,

    /// Learners promoted here.
    pub promotions: Counter,
    promotions_refused: Mutex<BTreeMap<String, u64>>,
}

impl Default for WorkMetrics {
    fn default() -> Self {
        let pair = |_| [Histogram::new(FROM_100_US), Histogram::new(FROM_100_US)];
        Self {
            counts: Mutex::default(),
            applied: OPERATIONS.iter().map(pair).collect(),
            slow_applies: Counter::default(),
            compaction_began: Mutex::default(),
            compaction: Histogram::new(FROM_100_MS_IN_MS),
            compaction_ended: Gauge::default(),
            consensus_batch: Histogram::new(BATCHES),
            wal_batch: Histogram::new(BATCHES),
            wal_bytes: Counter::default(),
            defragmentation: Histogram::new(FROM_100_MS_TO_410_S),
            defragmenting: Gauge::default(),
            backup_spilled: Counter::default(),
            image_sent: Histogram::new(FROM_10_MS_TO_655_S),
            image_saved: Histogram::new(FROM_100_MS_TO_51_S),
            image_synced: Histogram::new(FROM_1_MS),
            installing: Gauge::default(),
            promotions: Counter::default(),
            promotions_refused: Mutex::default(),
        }
    }
}

impl WorkMetrics {
    /// Shows what the node has counted; for the thread that drives it, after each batch. Answers how long a compaction
    /// took that is over now.
    pub fn publish(&self, counts: Counts) -> Option<Duration> {
        let before = std::mem::replace(
            &mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner),
            counts,
        );
        if (before.compactions, before.is_compacting) != (counts.compactions, counts.is_compacting)
        {
            return self.time_compaction(&before, &counts);
        }
        None
    }

    /// What was published last.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that was applied, and whether that took longer than `slow`.
    pub fn request_applied(&self, applied: &Applied, slow: Duration) {
        let index = OPERATIONS
            .iter()
            .position(|known| *known == applied.operation);
        let index = index.expect("operations are named by the table");
        self.applied[index][usize::from(applied.succeeded)].observe(applied.took);
        if applied.took > slow {
            self.slow_applies.increment();
        }
    }

    /// Notes that a defragmentation begins; it is under way until the note is dropped.
    pub fn defragment(&self) -> Defragmenting<'_> {
        self.defragmenting.add(1);
        Defragmenting {
            work: self,
            began: Instant::now(),
        }
    }

    /// How long defragmentations took, and how many are under way.
    pub(super) fn defragmentations(&self) -> (HistogramSnapshot, i64) {
        (self.defragmentation.snapshot(), self.defragmenting.value())
    }

    /// Notes that a learner was not promoted.
    pub fn promotion_refused(&self, reason: &str) {
        let mut refused = self
            .promotions_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let reason = if refused.contains_key(reason) || refused.len() < REASONS_MAX {
            reason
        } else {
            "other"
        };
        *refused.entry(reason.to_owned()).or_default() += 1;
    }

    /// Refused promotions by their reasons.
    pub(super) fn promotions_refused(&self) -> BTreeMap<String, u64> {
        let refused = self
            .promotions_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// The durations of one of [`OPERATIONS`].
    pub(super) fn apply_duration(&self, operation: usize, succeeded: bool) -> HistogramSnapshot {
        self.applied[operation][usize::from(succeeded)].snapshot()
    }

    /// Compactions that overlap are timed as one.
    fn time_compaction(&self, before: &Counts, now: &Counts) -> Option<Duration> {
        let mut began = self
            .compaction_began
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !before.is_compacting && began.is_none() {
            *began = Some(Instant::now());
        }
        if now.is_compacting {
            return None;
        }
        let took = began.take()?.elapsed();
        self.compaction.observe(took);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.compaction_ended
            .set(since.map_or(0, |since| since.as_secs() as i64));
        Some(took)
    }
}

/// A defragmentation that is under way.
#[derive(Debug)]
pub struct Defragmenting<'a> {
    work: &'a WorkMetrics,
    began: Instant,
}

impl Defragmenting<'_> {
    /// It came to its end.
    pub fn done(self) {
        self.work.defragmentation.observe(self.began.elapsed());
    }
}

impl Drop for Defragmenting<'_> {
    fn drop(&mut self) {
        self.work.defragmenting.add(-1);
    }
}

/// The granted TTLs as a histogram.
pub(super) fn lease_ttls(counts: &Counts) -> HistogramSnapshot {
    assert_eq!(
        LEASE_TTLS.bounds.len(),
        LEASE_TTL_BOUNDS,
        "the node counts by the same bounds"
    );
    HistogramSnapshot {
        buckets: LEASE_TTLS,
        counts: counts.lease_ttls.to_vec(),
        sum: counts.lease_ttl_seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_is_timed_from_its_first_slice_to_its_last() {
        let work = WorkMetrics::default();
        let counts = |compactions, is_compacting| Counts {
            compactions,
            is_compacting,
            ..Counts::default()
        };
        work.publish(counts(1, true));
        work.publish(counts(2, true));
        assert_eq!(work.compaction.snapshot().count(), 0, "it goes on");
        work.publish(counts(2, false));
        assert_eq!(work.compaction.snapshot().count(), 1);
        assert!(work.compaction_ended.value() > 1_700_000_000);
        // One that is over within a batch.
        work.publish(counts(3, false));
        assert_eq!(work.compaction.snapshot().count(), 2);
        work.publish(counts(3, false));
        assert_eq!(work.compaction.snapshot().count(), 2);
    }

    #[test]
    fn what_takes_long_to_apply_is_counted_as_slow() {
        let work = WorkMetrics::default();
        let put = |took| Applied {
            operation: "Put",
            succeeded: true,
            took,
        };
        let slow = Duration::from_millis(100);
        work.request_applied(&put(slow), slow);
        work.request_applied(&put(slow + Duration::from_millis(1)), slow);
        assert_eq!(work.apply_duration(0, true).count(), 2);
        assert_eq!(work.slow_applies.value(), 1);
    }

    #[test]
    fn a_defragmentation_that_is_given_up_is_under_way_no_longer() {
        let work = WorkMetrics::default();
        let defragmenting = work.defragment();
        assert_eq!(work.defragmentations().1, 1);
        drop(defragmenting);
        work.defragment().done();
        let (durations, under_way) = work.defragmentations();
        assert_eq!((durations.count(), under_way), (1, 0));
    }

    #[test]
    fn reasons_do_not_fill_the_memory() {
        let work = WorkMetrics::default();
        for reason in 0..1000 {
            work.promotion_refused(&reason.to_string());
        }
        let refused = work.promotions_refused();
        assert!(refused.len() <= REASONS_MAX + 1);
        assert_eq!(refused.values().sum::<u64>(), 1000);
    }
}
