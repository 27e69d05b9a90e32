//! One watch: what it wants, and how far it has come.

use std::collections::VecDeque;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;

use super::StreamId;
use super::ranges::KeyRange;

/// Names a watcher within a hub; never used again, unlike the ids that clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatcherKey(pub(super) u64);

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: StreamId,
    /// The id that the client knows.
    pub(super) id: i64,
    pub(super) keys: KeyRange,
    no_put: bool,
    no_delete: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    pub(super) progress_notify: bool,
    /// No event was sent since the last progress tick.
    pub(super) quiet: bool,
    /// Whether a progress message of its own waits in the queue: one is enough.
    pub(super) progress_queued: bool,
    /// No event before this revision concerns it.
    pub(super) first: i64,
    /// Progress below this revision would say nothing that it asked for.
    pub(super) progress_min: i64,
    /// Whether its stream's queue holds an item for it; always so while anything is left to be sent.
    pub(super) queued: bool,
    pub(super) feed: Feed,
}

/// How far a watcher has come.
#[derive(Debug)]
pub(super) enum Feed {
    /// It is indexed, and has been shown everything up to the hub's revision but these events.
    Live(VecDeque<Pending>),
    /// It is not indexed: it reads the history from this revision on when its stream is pulled, and costs nothing
    /// until then.
    Behind(i64),
    /// A compaction has overtaken it; only its id is left, until the client cancels it.
    Compacted,
}

/// An event that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) main: i64,
    /// Its place among the hub's recent events.
    pub(super) number: u64,
}

impl Watcher {
    /// The watcher that a request asks for, when the store is at `current`.
    pub(super) fn new(
        stream: StreamId,
        id: i64,
        keys: KeyRange,
        request: &pb::WatchCreateRequest,
        current: i64,
    ) -> Self {
        let filters = |filter| request.filters.contains(&(filter as i32));
        let first = if request.start_revision == 0 {
            current + 1
        } else {
            request.start_revision
        };
        Self {
            stream,
            id,
            keys,
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            quiet: true,
            progress_queued: false,
            first,
            progress_min: request.start_revision.max(current),
            queued: false,
            feed: Feed::Behind(first),
        }
    }

    /// Whether its filters let an event of its keys through.
    pub(super) fn wants(&self, tombstone: bool) -> bool {
        !(if tombstone {
            self.no_delete
        } else {
            self.no_put
        })
    }

    /// The first revision of which something is left to be sent, as far as known.
    pub(super) fn next(&self) -> Option<i64> {
        match &self.feed {
            Feed::Live(pending) => pending.front().map(|pending| pending.main),
            Feed::Behind(next) => Some(*next),
            Feed::Compacted => None,
        }
    }
}
