//! What every thread of the server may look at: who this member is, its last known status, its store.
//!
//! The consensus thread publishes here after each batch, before it releases the batch's answers, so that an answer
//! never shows a term or a leader older than itself. Everybody else only reads.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_core::mvcc::View;
use quorate_core::node::Status;
use quorate_core::types::{ClusterId, MemberId};
use quorate_core::wal::Metadata;
use quorate_proto::etcdserverpb as pb;
use tokio::sync::{Semaphore, watch};

use crate::auth::Guard;
use crate::http::Pages;
use crate::metrics::Metrics;
use crate::spans::Spans;

/// The bounds that one place decides and every service obeys.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `--max-request-bytes`: the largest encoded log entry a client can make.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`: the longest of a transaction's lists.
    pub txn_operations_max: usize,
    /// `--max-concurrent-streams` of one HTTP/2 connection.
    pub concurrent_streams_max: u32,
    /// Requests of one IO core that wait for the node; more are answered "too many requests".
    pub open_requests_max: usize,
    /// The same in bytes of proposals, so that large ones cannot fill the memory.
    pub open_bytes_max: usize,
    /// Ranges of more keys than this are read beside the core, so that its other connections go on.
    pub inline_range_keys_max: i64,
    /// The effective quota, as `Status` shows it.
    pub quota_bytes: i64,
    /// How long the member may know no leader before `hasleader` streams end.
    pub leader_loss: Duration,
    /// How long a request may wait for the node; its answer then is a timeout.
    pub request_timeout: Duration,
    /// `--grpc-keepalive-interval`: pings to an idle client; none is never.
    pub keepalive_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`: how long a client may take to answer one; none is forever.
    pub keepalive_timeout: Option<Duration>,
    /// Between two progress notifications of a watch that asked for them.
    pub watch_progress_interval: Duration,
    /// `--warning-apply-duration`: a request that takes longer to be applied is logged and counted.
    pub slow_apply: Duration,
    /// `--warning-unary-request-duration`: a unary call that takes longer is logged.
    pub slow_unary: Duration,
}

impl Limits {
    /// etcd takes messages of this much more than `--max-request-bytes`, for what is not the entry.
    const RECEIVE_OVERHEAD: usize = 512 * 1024;

    /// Streams of one connection where the flag sets no limit, as by default. Clients are told, and wait. etcd takes any
    /// number, so that one connection can fill its memory with calls that are begun and never sent.
    const STREAMS_MAX: u32 = 16_384;

    /// The streams that one HTTP/2 connection may have open.
    pub fn streams_max(&self) -> u32 {
        match self.concurrent_streams_max {
            u32::MAX => Self::STREAMS_MAX,
            limited => limited,
        }
    }

    /// The largest gRPC message that is decoded.
    pub fn receive_bytes_max(&self) -> usize {
        self.request_bytes_max + Self::RECEIVE_OVERHEAD
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            txn_operations_max: 128,
            concurrent_streams_max: u32::MAX,
            open_requests_max: 20_000,
            open_bytes_max: 256 << 20,
            inline_range_keys_max: 1_000,
            quota_bytes: 2 << 30,
            leader_loss: Duration::from_secs(3),
            request_timeout: Duration::from_secs(7),
            keepalive_interval: Some(Duration::from_secs(2 * 3600)),
            keepalive_timeout: Some(Duration::from_secs(20)),
            watch_progress_interval: Duration::from_secs(600),
            slow_apply: Duration::from_millis(100),
            slow_unary: Duration::from_millis(300),
        }
    }
}

/// The read-only side of one running member.
#[derive(Debug)]
pub struct ServerState {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The bounds of this server.
    pub limits: Limits,
    /// Reads the store.
    pub view: View,
    /// Who callers are.
    pub guard: Guard,
    /// The numbers that this server tells about itself.
    pub metrics: Arc<Metrics>,
    /// The plain HTTP pages.
    pub pages: Pages,
    /// Where the checkpoint image lies.
    pub database: PathBuf,
    /// Whose image is being made: one backup's at a time, since rows are pinned for it.
    pub(crate) backup_turn: Arc<Semaphore>,
    /// Where traces of calls go, if they are asked for.
    pub spans: Option<Spans>,
    status: watch::Sender<Arc<Status>>,
    // Copies of the status fields that each response needs, so that it takes no lock.
    term: AtomicU64,
    leader: AtomicU64,
    learner: AtomicBool,
    size_bytes: AtomicU64,
    image: Mutex<ImageFacts>,
    /// One entry for each core, written by it.
    watches: Mutex<Vec<Arc<WatchNumbers>>>,
}

/// What is known of a checkpoint image; all zero before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its length.
    pub bytes: u64,
    /// CRC-32C over its buckets, keys and values.
    pub hash: u32,
}

/// The watches of one core, for metrics.
#[derive(Debug, Default)]
pub(crate) struct WatchNumbers {
    pub(crate) streams: AtomicU64,
    pub(crate) watchers: AtomicU64,
    pub(crate) behind: AtomicU64,
    pub(crate) lag: AtomicU64,
    pub(crate) pending: AtomicU64,
}

/// The watches of all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// Open streams.
    pub streams: u64,
    /// Watches on them.
    pub watchers: u64,
    /// Those that are behind.
    pub behind: u64,
    /// By how many revisions the last of them is.
    pub lag: u64,
    /// Events that wait for their streams to be pulled.
    pub pending: u64,
}

impl ServerState {
    /// The state of a member that is about to start.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of the server, and told apart by its type"
    )]
    pub fn new(
        metadata: Metadata,
        limits: Limits,
        view: View,
        guard: Guard,
        status: Status,
        metrics: Arc<Metrics>,
        pages: Pages,
        database: PathBuf,
    ) -> Self {
        let state = Self {
            member: metadata.member,
            cluster: metadata.cluster,
            limits,
            view,
            guard,
            metrics,
            pages,
            database,
            backup_turn: Arc::new(Semaphore::new(1)),
            spans: None,
            status: watch::Sender::new(Arc::new(status.clone())),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            learner: AtomicBool::new(false),
            size_bytes: AtomicU64::new(0),
            image: Mutex::default(),
            watches: Mutex::default(),
        };
        state.copy_hot_fields(&status);
        state
    }

    /// The same, with calls traced.
    pub fn with_spans(self, spans: Option<Spans>) -> Self {
        Self { spans, ..self }
    }

    /// Makes a new status visible; for the consensus thread.
    pub fn publish(&self, status: Status) {
        self.copy_hot_fields(&status);
        self.status.send_replace(Arc::new(status));
    }

    /// The last published status.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// The status and its changes, for who waits for one.
    pub fn watch_status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.subscribe()
    }

    /// The leader, if this member knows one.
    pub fn leader(&self) -> Option<MemberId> {
        match self.leader.load(Ordering::Acquire) {
            0 => None,
            id => Some(MemberId(id)),
        }
    }

    /// Whether this member is a learner, which serves next to nothing.
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Acquire)
    }

    /// What counts against the quota.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// The header of a response; revision 0 means the live one, as etcd fills it.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        let revision = if revision == 0 {
            self.view.revision().0
        } else {
            revision
        };
        pb::ResponseHeader {
            revision,
            ..self.header_without_revision()
        }
    }

    /// The header of a membership response, where etcd leaves the revision unset.
    pub fn header_without_revision(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster.0,
            member_id: self.member.0,
            revision: 0,
            raft_term: self.term.load(Ordering::Acquire),
        }
    }

    /// Completes the header of an answer that holds at most a revision.
    pub fn fill(&self, header: &mut Option<pb::ResponseHeader>) {
        *header = Some(self.header(header.as_ref().map_or(0, |header| header.revision)));
    }

    /// The newest checkpoint image of this process.
    pub fn image(&self) -> ImageFacts {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new checkpoint image.
    pub(crate) fn set_image(&self, image: ImageFacts) {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = image;
    }

    /// Where a core that starts shall note its watches.
    pub(crate) fn watch_numbers(&self) -> Arc<WatchNumbers> {
        let numbers = Arc::new(WatchNumbers::default());
        self.watches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&numbers));
        numbers
    }

    /// The watches of all cores.
    pub fn watch_counts(&self) -> WatchCounts {
        let mut counts = WatchCounts::default();
        for core in &*self.watches.lock().unwrap_or_else(PoisonError::into_inner) {
            counts.streams += core.streams.load(Ordering::Relaxed);
            counts.watchers += core.watchers.load(Ordering::Relaxed);
            counts.behind += core.behind.load(Ordering::Relaxed);
            counts.pending += core.pending.load(Ordering::Relaxed);
            counts.lag = counts.lag.max(core.lag.load(Ordering::Relaxed));
        }
        counts
    }

    fn copy_hot_fields(&self, status: &Status) {
        self.term.store(status.term.0, Ordering::Release);
        self.leader.store(
            status.leader.map_or(0, |leader| leader.0),
            Ordering::Release,
        );
        self.learner.store(status.is_learner, Ordering::Release);
        self.size_bytes.store(status.size_bytes, Ordering::Release);
    }
}
