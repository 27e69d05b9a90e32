//! The watch server: many watch streams over one history.
//!
//! A watch is a cursor into the revision-ordered history of the store, not a queue of copies. The [`Hub`] owns the
//! streams and cursors of one thread of the server, or of one node of the simulator. It never blocks, never calls
//! back and never drops an event: its driver lets it follow the store ([`Hub::advance`]), asks which streams have
//! something to say ([`Hub::ready`]) and pulls responses ([`Hub::next`]) only while the client can take more.
//!
//! ```text
//!              advance                      next
//! history ───► read once ──► index by key ──► Live: pending events, shared between watchers
//!    │                                        │ too many pending, not pulled for long
//!    │                                        ▼
//!    └──────────────── read when pulled ────► Behind: a revision, and nothing else
//!                                             │ has caught up: Live again
//!                                             │ compaction overtook it: cancelled
//! ```
//!
//! So an event costs what it matches, a watcher that is not read costs nothing, and one far behind gets on in slices.
//! Between [`Hub::advance`] calls the hub pins the store at its revision: a compaction takes nothing away that a live
//! watcher has not been shown.
//!
//! Responses carry the revision in their header; ids and term are the shell's to fill in. A revision of 0 (in the
//! cancellation of a watch that a compaction overtook) stays 0. Whether a client may watch a key is decided before
//! [`Hub::handle`]: who may not is answered with [`Hub::refuse`].

mod deliver;
mod events;
#[cfg(test)]
mod model;
mod ranges;
mod stream;
#[cfg(test)]
mod tests;
mod watcher;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;

use crate::error::RequestError;
use crate::mvcc::{Pin, Row, View};
use crate::types::Time;

use events::Recent;
use ranges::{Index, KeyRange};
use stream::{Item, Stream};
use watcher::{Feed, Pending, Watcher, WatcherKey};

/// The id that stands for no watch, or for the whole stream.
pub const NO_WATCH: i64 = -1;
/// Revisions in one response at most; a client that catches up gets several responses.
pub const RESPONSE_REVISIONS_MAX: usize = 1000;
/// Answers to requests that may wait on one stream; then the driver must not read on ([`Hub::accepts`]).
pub const ANSWERS_WAITING_MAX: usize = 128;
/// The shortest progress interval.
pub const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Events that may wait for a live watcher; with more it is behind.
const PENDING_MAX: usize = if cfg!(test) { 4 } else { 256 };
/// Events that are kept for live watchers that do not read at once.
const RECENT_BYTES_MAX: usize = if cfg!(test) { 2048 } else { 16 << 20 };
/// Rows that one [`Hub::advance`] looks at before it lets others on.
const ADVANCE_ROWS_MAX: usize = if cfg!(test) { 8 } else { 16_384 };
/// Rows that one [`Hub::next`] looks at before it lets others on.
const PULL_ROWS_MAX: usize = if cfg!(test) { 3 } else { 2048 };

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// Names a stream within a hub; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a hub is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// A response of this size is split for those who asked for it, and a response that catches up ends at about
    /// this size: `--max-request-bytes` and 512 KiB.
    pub response_bytes_max: usize,
    /// `--watch-progress-notify-interval`; raised to [`PROGRESS_INTERVAL_MIN`], and by up to a tenth for each stream.
    pub progress_interval: Duration,
    /// Everything random comes from here.
    pub seed: u64,
}

/// The watch server of one thread.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    streams: BTreeMap<StreamId, Stream>,
    watchers: BTreeMap<WatcherKey, Watcher>,
    /// The live watchers by key.
    index: Index,
    /// Live watchers have been shown everything up to this revision.
    revision: i64,
    /// Keeps the rows above that revision, while there are live watchers.
    pin: Option<Pin>,
    /// Whether the store is known to be further.
    lags: bool,
    recent: Recent,
    /// Events that wait for live watchers: without any, the recent events are of no use.
    pending: usize,
    /// Streams that have something to say since they were last named by [`Hub::ready`].
    ready: Vec<StreamId>,
    /// Streams with watches that want progress, by their next tick.
    ticks: BTreeSet<(Time, StreamId)>,
    streams_opened: u64,
    watchers_made: u64,
}

impl Hub {
    /// A hub without streams.
    pub fn new(mut config: HubConfig) -> Self {
        config.progress_interval = config.progress_interval.max(PROGRESS_INTERVAL_MIN);
        Self {
            config,
            streams: BTreeMap::new(),
            watchers: BTreeMap::new(),
            index: Index::default(),
            revision: 0,
            pin: None,
            lags: false,
            recent: Recent::default(),
            pending: 0,
            ready: Vec::new(),
            ticks: BTreeSet::new(),
            streams_opened: 0,
            watchers_made: 0,
        }
    }

    /// Opens a stream.
    pub fn open(&mut self, now: Time) -> StreamId {
        let id = StreamId(self.streams_opened);
        self.streams_opened += 1;
        let interval = self.config.progress_interval;
        let jitter_max = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX);
        let jitter = mix(self.config.seed ^ mix(id.0)) % jitter_max;
        self.streams.insert(
            id,
            Stream::new(now, interval + Duration::from_nanos(jitter)),
        );
        id
    }

    /// Forgets a stream and its watches.
    pub fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        for watcher in stream.watches.values() {
            self.forget(*watcher);
        }
        if let Some(tick_at) = stream.tick_at {
            self.ticks.remove(&(tick_at, id));
        }
    }

    /// Whether the next request of a stream may be handled: no more than [`ANSWERS_WAITING_MAX`] answers wait for
    /// the client. A driver that pulls what it can first, and then stops reading requests, is always right.
    pub fn accepts(&self, id: StreamId) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|stream| stream.answers_waiting() < ANSWERS_WAITING_MAX)
    }

    /// Takes a request of the client. One without a known content is ignored, as is one on a closed stream.
    pub fn handle(&mut self, now: Time, id: StreamId, request: pb::WatchRequest, view: &View) {
        if !self.streams.contains_key(&id) {
            return;
        }
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(now, id, &request, view),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(id, request.watch_id, view),
            Some(RequestUnion::ProgressRequest(_)) => self.request_progress(id, view),
            None => {}
        }
    }

    /// Answers a creation that `error` forbids, instead of [`Hub::handle`]. The stream lives on.
    pub fn refuse(
        &mut self,
        id: StreamId,
        request: &pb::WatchCreateRequest,
        error: &RequestError,
        view: &View,
    ) {
        if !self.streams.contains_key(&id) {
            return;
        }
        if request.start_revision < 0 {
            return self.reject(id, COMPACTED, view);
        }
        self.reject(
            id,
            &format!(
                "rpc error: code = {:?} desc = {}",
                error.code(),
                error.message()
            ),
            view,
        );
    }

    /// Lets live watchers see what is new in the store, and does what is due by time. Call it when the store has
    /// advanced, and at the deadline.
    pub fn advance(&mut self, now: Time, view: &View) {
        self.follow(view);
        while let Some((at, id)) = self.ticks.first().copied().filter(|(at, _)| *at <= now) {
            self.ticks.remove(&(at, id));
            self.tick(now, id);
        }
    }

    /// The streams that have something to say, or may have, since they were last named here. Whoever cannot take it
    /// now pulls later, without being told again.
    pub fn ready(&mut self) -> Vec<StreamId> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|id| {
            self.streams.get_mut(id).is_some_and(|stream| {
                stream.listed = false;
                !stream.is_idle()
            })
        });
        ready
    }

    /// When to call [`Hub::advance`] and to look at [`Hub::ready`] at the latest, even if the store does not advance.
    pub fn deadline(&self) -> Time {
        if self.lags || !self.ready.is_empty() {
            return Time(0);
        }
        self.ticks.first().map_or(Time::NEVER, |(at, _)| *at)
    }

    /// How many watches there are, and how many of them are behind (etcd's `watcher_total`, `slow_watcher_total`).
    pub fn watchers(&self) -> (usize, usize) {
        let behind = self
            .watchers
            .values()
            .filter(|watcher| matches!(watcher.feed, Feed::Behind(_)))
            .count();
        (self.watchers.len(), behind)
    }

    /// How many events wait for their streams to be pulled, those of watches that are behind left out: nobody has
    /// looked at these yet.
    pub fn events_pending(&self) -> usize {
        self.pending
    }

    /// How many revisions the watch that is most behind has yet to look at.
    pub fn lag(&self) -> u64 {
        let behind = self.watchers.values().map(|watcher| match watcher.feed {
            Feed::Behind(from) => u64::try_from(self.revision + 1 - from).unwrap_or(0),
            Feed::Live(_) | Feed::Compacted => 0,
        });
        behind.max().unwrap_or(0)
    }

    /// Checks every invariant; panics with the name of the one that does not hold.
    pub fn check(&self) {
        let (mut pending, mut live) = (0, 0);
        for (key, watcher) in &self.watchers {
            let stream = &self.streams[&watcher.stream];
            assert_eq!(
                stream.watches.get(&watcher.id),
                Some(key),
                "stream_knows_its_watches"
            );
            assert_eq!(
                watcher.queued,
                stream.has_queued(*key),
                "queued_watcher_is_in_the_queue_once"
            );
            assert!(
                watcher.queued || watcher.next().is_none(),
                "watcher_with_events_is_queued: {watcher:?}"
            );
            match &watcher.feed {
                Feed::Live(events) => {
                    live += 1;
                    pending += events.len();
                    assert!(events.len() <= PENDING_MAX, "pending_events_are_bounded");
                    let shown = events
                        .iter()
                        .all(|event| event.main >= watcher.first && event.main <= self.revision);
                    assert!(shown, "pending_events_are_shown_and_wanted");
                }
                Feed::Behind(next) => assert!(
                    *next <= self.revision,
                    "watcher_behind_has_something_to_read"
                ),
                Feed::Compacted => {}
            }
        }
        assert_eq!(self.pending, pending, "pending_events_are_counted");
        assert_eq!(self.index.len(), live, "live_watchers_are_indexed");
        let watches: usize = self
            .streams
            .values()
            .map(|stream| stream.watches.len())
            .sum();
        assert_eq!(self.watchers.len(), watches, "watchers_belong_to_streams");
    }

    fn create(&mut self, now: Time, id: StreamId, request: &pb::WatchCreateRequest, view: &View) {
        if request.start_revision < 0 {
            return self.reject(id, COMPACTED, view);
        }
        let Some(keys) = KeyRange::parse(&request.key, &request.range_end) else {
            return self.reject(id, EMPTY_RANGE, view);
        };
        let stream = self.streams.get_mut(&id).expect("handled above");
        let Some(watch_id) = stream.take_id(request.watch_id) else {
            return self.reject(id, DUPLICATE_ID, view);
        };
        if self.index.is_empty() {
            // Nobody looks for what came meanwhile.
            self.skip_to_present(view);
        }
        let current = view.revision().0;
        let key = WatcherKey(self.watchers_made);
        self.watchers_made += 1;
        self.watchers
            .insert(key, Watcher::new(id, watch_id, keys, request, current));
        let stream = self.streams.get_mut(&id).expect("handled above");
        stream.watches.insert(watch_id, key);
        if request.progress_notify {
            stream.notified += 1;
            self.schedule_tick(now, id);
        }
        let created = pb::WatchResponse {
            watch_id,
            created: true,
            ..with_revision(current)
        };
        self.say(id, Item::Control(Box::new(created)));
        self.settle(key);
    }

    fn cancel(&mut self, id: StreamId, watch_id: i64, view: &View) {
        let stream = self.streams.get_mut(&id).expect("handled above");
        let Some(key) = stream.watches.remove(&watch_id) else {
            return;
        };
        let watcher = self.forget(key);
        stream_of(&mut self.streams, id).notified -= usize::from(watcher.progress_notify);
        let canceled = pb::WatchResponse {
            watch_id,
            canceled: true,
            ..with_revision(view.revision().0)
        };
        self.say(id, Item::Control(Box::new(canceled)));
    }

    /// Answers with progress of the whole stream if all its watches are live; else it says nothing at all.
    fn request_progress(&mut self, id: StreamId, view: &View) {
        self.follow(view);
        let stream = &self.streams[&id];
        let told = |key: &WatcherKey| {
            let watcher = &self.watchers[key];
            matches!(watcher.feed, Feed::Live(_)) && watcher.progress_min <= self.revision
        };
        let all_told = !stream.watches.is_empty() && stream.watches.values().all(told);
        if all_told && stream.answers_waiting() < ANSWERS_WAITING_MAX {
            self.say(
                id,
                Item::Progress {
                    watcher: None,
                    revision: self.revision,
                },
            );
        }
    }

    fn reject(&mut self, id: StreamId, reason: &str, view: &View) {
        let rejected = pb::WatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..with_revision(view.revision().0)
        };
        self.say(id, Item::Control(Box::new(rejected)));
    }

    fn schedule_tick(&mut self, now: Time, id: StreamId) {
        let stream = self.streams.get_mut(&id).expect("the stream has watches");
        if stream.tick_at.is_none() {
            let at = stream.next_tick(now);
            stream.tick_at = Some(at);
            self.ticks.insert((at, id));
        }
    }

    /// Tells progress to those who asked for it and heard nothing since the last tick.
    fn tick(&mut self, now: Time, id: StreamId) {
        let stream = stream_of(&mut self.streams, id);
        stream.tick_at = None;
        if stream.notified == 0 {
            return;
        }
        let keys: Vec<_> = stream.watches.values().copied().collect();
        for key in keys {
            let watcher = self
                .watchers
                .get_mut(&key)
                .expect("a watch of a stream exists");
            if !watcher.progress_notify {
                continue;
            }
            let told =
                matches!(watcher.feed, Feed::Live(_)) && watcher.progress_min <= self.revision;
            let quiet = std::mem::replace(&mut watcher.quiet, true);
            if told && quiet && !std::mem::replace(&mut watcher.progress_queued, true) {
                self.say(
                    id,
                    Item::Progress {
                        watcher: Some(key),
                        revision: self.revision,
                    },
                );
            }
        }
        self.schedule_tick(now, id);
    }

    /// Ends a watcher.
    fn forget(&mut self, key: WatcherKey) -> Watcher {
        let watcher = self
            .watchers
            .remove(&key)
            .expect("a watch of a stream exists");
        if let Feed::Live(pending) = &watcher.feed {
            self.pending -= pending.len();
            self.index.remove(&watcher.keys, key);
        }
        watcher
    }

    fn say(&mut self, id: StreamId, item: Item) {
        stream_of(&mut self.streams, id).push(item);
        self.list(id);
    }

    fn list(&mut self, id: StreamId) {
        let stream = stream_of(&mut self.streams, id);
        if !stream.listed {
            stream.listed = true;
            self.ready.push(id);
        }
    }
}

fn stream_of(streams: &mut BTreeMap<StreamId, Stream>, id: StreamId) -> &mut Stream {
    streams.get_mut(&id).expect("a watcher's stream is open")
}

fn with_revision(revision: i64) -> pb::WatchResponse {
    let header = pb::ResponseHeader {
        revision,
        ..pb::ResponseHeader::default()
    };
    pb::WatchResponse {
        header: Some(header),
        ..pb::WatchResponse::default()
    }
}

/// A fixed scrambling of 64 bits (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
