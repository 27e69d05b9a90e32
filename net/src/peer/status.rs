//! What is known about the link to one peer: whether it works, since when, and what went over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::MemberId;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Live counters of a link, shared by everything that works on it.
#[derive(Debug)]
pub(crate) struct Status {
    member: MemberId,
    link: Mutex<Link>,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_failures: AtomicU64,
    pub(crate) received_failures: AtomicU64,
    disconnects: AtomicU64,
}

#[derive(Debug, Default)]
struct Link {
    active_since: Option<Instant>,
    round_trip: Option<Duration>,
    probes: u64,
    healthy: bool,
}

/// The link to one peer at one moment, for metrics and for the checks before a change of membership.
#[derive(Clone, Copy, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub member: MemberId,
    /// When the link became active; `None` while it is not.
    pub active_since: Option<Instant>,
    /// Which of the two streams the peer has opened, so that messages to it take them: msgapp, message.
    pub streams: [bool; 2],
    /// The round trip of the last probe that was answered.
    pub round_trip: Option<Duration>,
    /// Probes answered so far: a change says that `round_trip` is new.
    pub probes: u64,
    /// Whether the last probe was answered.
    pub healthy: bool,
    /// Bytes of raft messages sent.
    pub sent_bytes: u64,
    /// Bytes of raft messages received.
    pub received_bytes: u64,
    /// Messages or streams that could not be delivered.
    pub sent_failures: u64,
    /// Streams that broke while they were read.
    pub received_failures: u64,
    /// How often the link went from active to inactive.
    pub disconnects: u64,
}

impl Status {
    pub(crate) fn new(member: MemberId) -> Self {
        Self {
            member,
            link: Mutex::default(),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_failures: AtomicU64::new(0),
            received_failures: AtomicU64::new(0),
            disconnects: AtomicU64::new(0),
        }
    }

    pub(crate) fn member(&self) -> MemberId {
        self.member
    }

    /// Something arrived at the peer or came from it.
    pub(crate) fn activate(&self) {
        let mut link = self.lock();
        if link.active_since.is_none() {
            link.active_since = Some(Instant::now());
            info!(peer = %format_args!("{:x}", self.member.0), "peer became active");
        }
    }

    /// Something on the link failed.
    pub(crate) fn deactivate(&self, source: &str, reason: &str) {
        let peer = format_args!("{:x}", self.member.0);
        if self.lock().active_since.take().is_some() {
            self.disconnects.fetch_add(1, Ordering::Relaxed);
            warn!(%peer, source, reason, "peer became inactive");
        } else {
            debug!(%peer, source, reason, "peer stays inactive");
        }
    }

    pub(crate) fn probed(&self, round_trip: Option<Duration>) {
        let mut link = self.lock();
        link.healthy = round_trip.is_some();
        if round_trip.is_some() {
            link.round_trip = round_trip;
            link.probes += 1;
        }
    }

    pub(crate) fn read(&self, streams: [bool; 2]) -> PeerStatus {
        let link = self.lock();
        PeerStatus {
            member: self.member,
            active_since: link.active_since,
            streams,
            round_trip: link.round_trip,
            probes: link.probes,
            healthy: link.healthy,
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_failures: self.sent_failures.load(Ordering::Relaxed),
            received_failures: self.received_failures.load(Ordering::Relaxed),
            disconnects: self.disconnects.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        // Plain fields, each set at once.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
