//! The numbers of one IO core: those that every request touches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::grpc::{METHODS, MethodMetrics, method_index};
use super::value::{Buckets, Counter, Histogram};
use super::{FROM_1_MS, HistogramSnapshot};

/// The label `type` of `etcd_server_request_duration_seconds`.
pub const REQUEST_TYPES: [&str; 32] = [
    "Range",
    "ReadonlyTxn",
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "Authenticate",
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
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
    "Unknown",
];

/// More distinct versions than this are counted as unknown: a client chooses the text.
const CLIENT_VERSIONS_MAX: usize = 64;
/// And longer ones are not kept.
const CLIENT_VERSION_BYTES_MAX: usize = 64;

/// Bounds from 100 µs to 52 s.
pub(super) const FROM_100_US: Buckets = Buckets {
    bounds: &[
        0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024,
        0.2048, 0.4096, 0.8192, 1.6384, 3.2768, 6.5536, 13.1072, 26.2144, 52.4288,
    ],
    unit: 1e-9,
};

/// The numbers that the threads of one IO core write.
#[derive(Debug)]
pub struct CoreMetrics {
    /// Bytes from gRPC clients, frames included.
    pub client_received_bytes: Counter,
    /// Bytes to gRPC clients, frames included.
    pub client_sent_bytes: Counter,
    /// Ranges that were read, those of transactions that only read included.
    pub ranges: Counter,
    /// Events handed to watch streams.
    pub events: Counter,
    /// How long responses with events took to be made.
    pub watch_response: Histogram,
    /// The same for each of their events.
    pub watch_event: Histogram,
    /// How long answers to creations and cancellations took to be made.
    pub watch_control: Histogram,
    /// How long progress notifications took to be made.
    pub watch_progress: Histogram,
    /// Requests of watch streams that could not be read.
    pub watch_broken: Counter,
    /// Requests of keep-alive streams that could not be read.
    pub keep_alive_broken: Counter,
    methods: Vec<MethodMetrics>,
    request_duration: Vec<[Histogram; 2]>,
    range_duration: [Histogram; 2],
    client_requests: Mutex<BTreeMap<(String, &'static str), u64>>,
}

impl CoreMetrics {
    fn new(extensive: bool) -> Self {
        let pair = |buckets| [Histogram::new(buckets), Histogram::new(buckets)];
        Self {
            client_received_bytes: Counter::default(),
            client_sent_bytes: Counter::default(),
            ranges: Counter::default(),
            events: Counter::default(),
            watch_response: Histogram::new(FROM_1_MS),
            watch_event: Histogram::new(FROM_1_MS),
            watch_control: Histogram::new(FROM_1_MS),
            watch_progress: Histogram::new(FROM_1_MS),
            watch_broken: Counter::default(),
            keep_alive_broken: Counter::default(),
            methods: METHODS
                .iter()
                .map(|_| MethodMetrics::new(extensive))
                .collect(),
            request_duration: REQUEST_TYPES.iter().map(|_| pair(FROM_1_MS)).collect(),
            range_duration: pair(FROM_100_US),
            client_requests: Mutex::default(),
        }
    }

    /// The method with this index of [`method_index`].
    pub fn method(&self, index: usize) -> &MethodMetrics {
        &self.methods[index]
    }

    /// The method with a path such as `/etcdserverpb.KV/Put`, if it is counted.
    pub fn method_at(&self, path: &str) -> Option<&MethodMetrics> {
        method_index(path).map(|index| self.method(index))
    }

    /// Notes how long a request of this type (one of [`REQUEST_TYPES`]) took from its arrival to its answer.
    pub fn request_done(&self, request_type: &str, succeeded: bool, took: Duration) {
        let index = REQUEST_TYPES
            .iter()
            .position(|known| *known == request_type);
        let index = index.expect("request types are named by the table");
        self.request_duration[index][usize::from(succeeded)].observe(took);
    }

    /// Notes a response of a watch stream: how many events it has, and how long it took to be made.
    pub fn watch_answered(&self, events: usize, is_control: bool, took: Duration) {
        if events > 0 {
            self.events.add(events as u64);
            self.watch_response.observe(took);
            self.watch_event.observe(took / events as u32);
        } else if is_control {
            self.watch_control.observe(took);
        } else {
            self.watch_progress.observe(took);
        }
    }

    /// Notes how long a read of the store took.
    pub fn range_done(&self, succeeded: bool, took: Duration) {
        self.range_duration[usize::from(succeeded)].observe(took);
    }

    /// Notes a request of a client that says it has this API version; `kind` is `unary` or `stream`.
    pub fn client_request(&self, version: Option<&str>, kind: &'static str) {
        let mut requests = self
            .client_requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let version = version
            .filter(|version| version.len() <= CLIENT_VERSION_BYTES_MAX)
            .unwrap_or("unknown");
        let is_known = requests.contains_key(&(version.to_owned(), kind));
        let kept = if is_known || requests.len() < CLIENT_VERSIONS_MAX {
            version
        } else {
            "unknown"
        };
        *requests.entry((kept.to_owned(), kind)).or_default() += 1;
    }
}

/// More threads than this share numbers, which is right but slower.
const CORES_MAX: usize = 16;

/// The cores of one member.
#[derive(Debug)]
pub(super) struct Cores {
    // Boxes of their own, so that two cores do not meet in one cache line.
    cores: [Box<CoreMetrics>; CORES_MAX],
}

impl Cores {
    pub(super) fn new(extensive: bool) -> Self {
        Self {
            cores: std::array::from_fn(|_| Box::new(CoreMetrics::new(extensive))),
        }
    }

    /// The core of the calling thread: threads are dealt out in the order in which they come.
    pub(super) fn mine(&self) -> &CoreMetrics {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % CORES_MAX;
        }
        &self.cores[MINE.with(|index| *index)]
    }

    /// The sum of a counter over all cores.
    pub(super) fn sum(&self, counter: impl Fn(&CoreMetrics) -> &Counter) -> u64 {
        self.cores.iter().map(|core| counter(core).value()).sum()
    }

    /// A histogram over all cores.
    pub(super) fn histogram(
        &self,
        histogram: impl Fn(&CoreMetrics) -> &Histogram,
    ) -> HistogramSnapshot {
        let mut snapshots = self.cores.iter().map(|core| histogram(core).snapshot());
        let mut total = snapshots.next().expect("there are cores");
        snapshots.for_each(|snapshot| total.add(&snapshot));
        total
    }

    /// The durations of requests with this number in [`REQUEST_TYPES`].
    pub(super) fn request_duration(
        &self,
        request_type: usize,
        succeeded: bool,
    ) -> HistogramSnapshot {
        self.histogram(|core| &core.request_duration[request_type][usize::from(succeeded)])
    }

    /// The durations of reads.
    pub(super) fn range_duration(&self, succeeded: bool) -> HistogramSnapshot {
        self.histogram(|core| &core.range_duration[usize::from(succeeded)])
    }

    /// The durations of a method's calls, if they are measured.
    pub(super) fn handling(&self, method: usize) -> Option<HistogramSnapshot> {
        self.cores[0].methods[method].handling.as_ref()?;
        Some(self.histogram(|core| {
            core.methods[method]
                .handling
                .as_ref()
                .expect("all cores measure alike")
        }))
    }

    /// Requests by client version and kind.
    pub(super) fn client_requests(&self) -> BTreeMap<(String, &'static str), u64> {
        let mut total = BTreeMap::new();
        for core in &self.cores {
            let requests = core
                .client_requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (key, count) in requests.iter() {
                *total.entry(key.clone()).or_default() += count;
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_several_threads_add_up() {
        let cores = Cores::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 * CORES_MAX {
                scope.spawn(|| {
                    cores
                        .mine()
                        .method_at("/etcdserverpb.KV/Put")
                        .unwrap()
                        .started
                        .increment();
                    cores
                        .mine()
                        .request_done("Put", true, Duration::from_millis(3));
                    cores.mine().client_request(Some("3.7"), "unary");
                });
            }
        });
        let count = 2 * CORES_MAX as u64;
        let put = method_index("/etcdserverpb.KV/Put").unwrap();
        assert_eq!(cores.sum(|core| &core.method(put).started), count);
        assert_eq!(cores.request_duration(2, true).count(), count);
        assert_eq!(cores.client_requests()[&("3.7".to_owned(), "unary")], count);
    }

    #[test]
    fn a_client_cannot_fill_the_memory_with_versions() {
        let core = CoreMetrics::new(false);
        for version in 0..1000 {
            core.client_request(Some(&version.to_string()), "unary");
        }
        core.client_request(Some(&"x".repeat(1000)), "unary");
        core.client_request(None, "unary");
        let requests = core.client_requests.into_inner().unwrap();
        assert!(requests.len() <= CLIENT_VERSIONS_MAX + 1);
        assert_eq!(requests.values().sum::<u64>(), 1002);
    }
}
