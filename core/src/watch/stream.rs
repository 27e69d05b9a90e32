//! One watch stream: its watches, and what it has to say, in order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

use crate::types::Time;

use super::watcher::WatcherKey;

/// What the ids and the term, which the shell fills in, add to a header at most.
const HEADER_REST_BYTES: usize = 33;

/// A stream.
///
/// ```text
/// parts     rest of a response that is being sent in fragments; goes first
/// queue     Control  Events(w1)  Progress(7)  Events(w2)  Control ..      goes in this order
/// ```
///
/// `Events` stands for all that its watcher has when it comes to the front, but for what is above the revision of a
/// `Progress` in the queue: that comes after it.
#[derive(Debug)]
pub(super) struct Stream {
    /// By the id that the client knows.
    pub(super) watches: BTreeMap<i64, WatcherKey>,
    /// The next id given out, unless it is taken.
    next_id: i64,
    pub(super) parts: VecDeque<pb::WatchResponse>,
    queue: VecDeque<Item>,
    /// Watchers that wait for the first `Progress`: what they have is above it.
    deferred: Vec<WatcherKey>,
    /// The revisions of the `Progress` items in the queue, which never fall.
    barriers: VecDeque<i64>,
    /// The number of `Control` items in the queue.
    controls: usize,
    /// Whether the hub's list of ready streams names this one.
    pub(super) listed: bool,
    opened: Time,
    progress_interval: Duration,
    /// Watches with progress_notify.
    pub(super) notified: usize,
    /// When their next tick is scheduled.
    pub(super) tick_at: Option<Time>,
}

/// Something to say.
#[derive(Debug)]
pub(super) enum Item {
    /// Answers a request.
    Control(Box<pb::WatchResponse>),
    /// A watcher has something.
    Events(WatcherKey),
    /// Everything up to this revision has been said, by one watch or by the whole stream.
    Progress {
        watcher: Option<WatcherKey>,
        revision: i64,
    },
}

impl Stream {
    pub(super) fn new(opened: Time, progress_interval: Duration) -> Self {
        Self {
            watches: BTreeMap::new(),
            next_id: 0,
            parts: VecDeque::new(),
            queue: VecDeque::new(),
            deferred: Vec::new(),
            barriers: VecDeque::new(),
            controls: 0,
            listed: false,
            opened,
            progress_interval,
            notified: 0,
            tick_at: None,
        }
    }

    /// The id for a new watch: the one wished for, or with 0 the next free one; `None` if it is taken.
    pub(super) fn take_id(&mut self, wished: i64) -> Option<i64> {
        if wished != 0 {
            return (!self.watches.contains_key(&wished)).then_some(wished);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    pub(super) fn push(&mut self, item: Item) {
        match &item {
            Item::Control(_) => self.controls += 1,
            Item::Progress { revision, .. } => {
                assert!(
                    self.barriers.back().is_none_or(|last| last <= revision),
                    "progress never falls"
                );
                self.barriers.push_back(*revision);
            }
            Item::Events(_) => {}
        }
        self.queue.push_back(item);
    }

    /// Puts a watcher back that has something more, from the revision `next` on.
    pub(super) fn push_again(&mut self, watcher: WatcherKey, next: i64) {
        match self.barriers.front() {
            None => self.queue.push_back(Item::Events(watcher)),
            Some(barrier) if next > *barrier => self.deferred.push(watcher),
            Some(_) => self.queue.push_front(Item::Events(watcher)),
        }
    }

    /// Puts a watcher back that had no turn.
    pub(super) fn push_front(&mut self, watcher: WatcherKey) {
        self.queue.push_front(Item::Events(watcher));
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        match &item {
            Item::Control(_) => self.controls -= 1,
            Item::Progress { .. } => {
                self.barriers.pop_front();
                for watcher in self.deferred.drain(..).rev() {
                    self.queue.push_front(Item::Events(watcher));
                }
            }
            Item::Events(_) => {}
        }
        Some(item)
    }

    /// The revision up to which watchers may speak now.
    pub(super) fn barrier(&self) -> i64 {
        self.barriers.front().copied().unwrap_or(i64::MAX)
    }

    /// Answers that wait, of either kind: the bound is on their sum.
    pub(super) fn answers_waiting(&self) -> usize {
        self.controls + self.barriers.len()
    }

    /// Whether a watcher has its turn in the queue; panics if it has two.
    pub(super) fn has_queued(&self, watcher: WatcherKey) -> bool {
        let turns = self
            .queue
            .iter()
            .filter(|item| matches!(item, Item::Events(key) if *key == watcher))
            .count();
        let turns = turns + self.deferred.iter().filter(|key| **key == watcher).count();
        assert!(turns <= 1, "watcher_has_one_turn: {watcher:?}");
        turns == 1
    }

    pub(super) fn is_idle(&self) -> bool {
        self.parts.is_empty() && self.queue.is_empty()
    }

    /// The first tick after `now`: ticks are counted from the opening of the stream.
    pub(super) fn next_tick(&self, now: Time) -> Time {
        let interval = self.progress_interval.as_nanos();
        let elapsed = now.since(self.opened).as_nanos();
        let until = u64::try_from((elapsed / interval + 1) * interval).unwrap_or(u64::MAX);
        Time(self.opened.0.saturating_add(until))
    }
}

/// Splits a response that is too large, event by event; a single event is never split. All parts but the last are
/// marked as fragments.
pub(super) fn fragments(
    mut response: pb::WatchResponse,
    bytes_max: usize,
) -> VecDeque<pb::WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() + HEADER_REST_BYTES < bytes_max {
        return VecDeque::from([response]);
    }
    let events = std::mem::take(&mut response.events);
    response.fragment = true;
    let empty = response.encoded_len() + HEADER_REST_BYTES;
    let mut parts = VecDeque::new();
    let mut part = response.clone();
    let mut bytes = empty;
    for event in events {
        let length = event.encoded_len();
        let added = 1 + prost::length_delimiter_len(length) + length;
        if !part.events.is_empty() && bytes + added >= bytes_max {
            parts.push_back(std::mem::replace(&mut part, response.clone()));
            bytes = empty;
        }
        bytes += added;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push_back(part);
    parts
}
