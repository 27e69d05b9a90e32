//! How events reach watchers: following the store, and answering a pull.

use quorate_proto::{etcdserverpb as pb, mvccpb};

use super::*;

impl Hub {
    /// The next response of a stream, if it has one. Call it only while the client can take more, and until there is
    /// none; if that came from reading far enough for one call, [`Hub::ready`] names the stream again.
    pub fn next(&mut self, id: StreamId, view: &View) -> Option<pb::WatchResponse> {
        let mut rows_left = PULL_ROWS_MAX;
        loop {
            let stream = self.streams.get_mut(&id)?;
            if let Some(part) = stream.parts.pop_front() {
                return Some(part);
            }
            let response = match stream.pop()? {
                Item::Control(response) => Some(*response),
                Item::Progress { watcher, revision } => self.progress(watcher, revision),
                Item::Events(key) if rows_left == 0 => {
                    stream.push_front(key);
                    self.list(id);
                    return None;
                }
                Item::Events(key) => self.serve(id, key, view, &mut rows_left),
            };
            if response.is_some() {
                return response;
            }
        }
    }

    /// Shows live watchers what is new in the store.
    pub(super) fn follow(&mut self, view: &View) {
        if view.revision().0 <= self.revision {
            self.lags = false;
            return;
        }
        // Pinned before anything is read, so that what comes after these rows cannot go before the next call.
        let pin = view.pin_current();
        let target = pin.revision.0;
        if self.index.is_empty() {
            self.skip_to_present(view);
            self.pin = None;
            return;
        }
        if self.pending == 0 {
            self.recent.clear();
        }
        let first = self.revision + 1;
        let (rows, next) = events::revisions(view, first, target, ADVANCE_ROWS_MAX);
        let pinned = self
            .pin
            .as_ref()
            .is_some_and(|pin| pin.holds() && pin.revision.0 < first);
        let compacted = view.compact_revision().0;
        if !pinned && first < compacted {
            self.lose_history(compacted);
            self.lags = self.revision < view.revision().0;
            return;
        }
        let mut found = Vec::new();
        for row in &rows {
            found.clear();
            self.index.find(events::key_of(row), &mut found);
            self.show(view, row, &found);
        }
        self.revision = next - 1;
        self.lags = self.revision < target;
        if !self.lags {
            self.pin = Some(pin);
        }
    }

    /// Goes to the present without looking at what came meanwhile: for a hub without live watchers.
    pub(super) fn skip_to_present(&mut self, view: &View) {
        assert!(self.index.is_empty(), "nobody misses what is skipped");
        let pin = view.pin_current();
        self.revision = self.revision.max(pin.revision.0);
        self.pin = Some(pin);
        self.lags = false;
        self.recent.clear();
    }

    /// Gives a watcher that has been shown everything below some revision its place.
    pub(super) fn settle(&mut self, key: WatcherKey) {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("only a watcher that exists is settled");
        let Feed::Behind(next) = watcher.feed else {
            panic!("a watcher is settled when it is behind")
        };
        if next > self.revision {
            watcher.first = next;
            watcher.feed = Feed::Live(VecDeque::new());
            self.index.insert(&watcher.keys, key);
        } else {
            self.queue(key);
        }
    }

    /// The store was replaced by one that has forgotten what live watchers have not been shown. They are behind now,
    /// and will be told when they are pulled; those who wait for later revisions miss nothing.
    fn lose_history(&mut self, compacted: i64) {
        let shown = self.revision;
        let next = |watcher: &Watcher| watcher.next().unwrap_or(watcher.first.max(shown + 1));
        let losing: Vec<_> = (self.watchers.iter())
            .filter(|(_, watcher)| {
                matches!(watcher.feed, Feed::Live(_)) && watcher.first.max(shown + 1) < compacted
            })
            .map(|(key, watcher)| (*key, next(watcher)))
            .collect();
        for (key, next) in losing {
            self.fall_behind(key, next);
            self.queue(key);
        }
        self.revision = compacted - 1;
        self.pin = None;
    }

    /// Lets the live watchers of a row's key have its event.
    fn show(&mut self, view: &View, row: &Row, found: &[WatcherKey]) {
        let takes = |key: &&WatcherKey| {
            let watcher = &self.watchers[key];
            watcher.first <= row.main && watcher.wants(row.tombstone)
        };
        let takers: Vec<_> = found.iter().filter(takes).copied().collect();
        if takers.is_empty() {
            return;
        }
        let event = events::event_of(row);
        let wanted = takers.iter().any(|key| self.watchers[key].prev_kv);
        let previous = if wanted {
            events::previous(view, &event)
        } else {
            None
        };
        let number = self.recent.push(event, previous, RECENT_BYTES_MAX);
        for key in takers {
            let watcher = self
                .watchers
                .get_mut(&key)
                .expect("an indexed watcher exists");
            let Feed::Live(pending) = &mut watcher.feed else {
                panic!("an indexed watcher is live")
            };
            pending.push_back(Pending {
                main: row.main,
                number,
            });
            self.pending += 1;
            if pending.len() > PENDING_MAX {
                let next = pending[0].main;
                self.fall_behind(key, next);
            }
            self.queue(key);
        }
    }

    /// Makes a live watcher one that reads the history itself.
    fn fall_behind(&mut self, key: WatcherKey, next: i64) {
        let watcher = self.watchers.get_mut(&key).expect("a live watcher exists");
        let Feed::Live(pending) = &watcher.feed else {
            panic!("only a live watcher falls behind")
        };
        self.pending -= pending.len();
        watcher.feed = Feed::Behind(next);
        self.index.remove(&watcher.keys, key);
    }

    /// Makes sure that the watcher's turn comes.
    fn queue(&mut self, key: WatcherKey) {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("only a watcher that exists is queued");
        if !watcher.queued {
            watcher.queued = true;
            let id = watcher.stream;
            self.say(id, Item::Events(key));
        }
    }

    /// A progress message whose turn has come: everything up to this revision was sent.
    fn progress(
        &mut self,
        watcher: Option<WatcherKey>,
        revision: i64,
    ) -> Option<pb::WatchResponse> {
        let mut watch_id = NO_WATCH;
        if let Some(key) = watcher {
            // A watch that was cancelled meanwhile hears nothing.
            let watcher = self.watchers.get_mut(&key)?;
            watcher.progress_queued = false;
            if matches!(watcher.feed, Feed::Compacted) {
                return None;
            }
            assert!(
                watcher.next().is_none_or(|next| next > revision),
                "progress does not overtake events"
            );
            watch_id = watcher.id;
        }
        Some(pb::WatchResponse {
            watch_id,
            ..with_revision(revision)
        })
    }

    /// A watcher's turn: a response if it has one, and its next turn if anything is left.
    fn serve(
        &mut self,
        id: StreamId,
        key: WatcherKey,
        view: &View,
        rows_left: &mut usize,
    ) -> Option<pb::WatchResponse> {
        let barrier = self.streams[&id].barrier();
        // A watcher that was cancelled meanwhile has no turn.
        let watcher = self.watchers.get_mut(&key)?;
        watcher.queued = false;
        let response = match watcher.next() {
            Some(next) if next <= barrier => match watcher.feed {
                Feed::Live(_) => self.take_pending(key, barrier, view, rows_left),
                _ => self.catch_up(key, barrier, view, rows_left),
            },
            _ => None,
        };
        let watcher = self.watchers.get_mut(&key).expect("a turn ends no watcher");
        let stream = self.streams.get_mut(&id).expect("a turn ends no stream");
        if let Some(next) = watcher.next() {
            watcher.queued = true;
            stream.push_again(key, next);
        }
        let response = response?;
        watcher.quiet &= response.events.is_empty();
        if !watcher.fragment {
            return Some(response);
        }
        stream.parts = stream::fragments(response, self.config.response_bytes_max);
        stream.parts.pop_front()
    }

    /// What waits for a live watcher.
    fn take_pending(
        &mut self,
        key: WatcherKey,
        barrier: i64,
        view: &View,
        rows_left: &mut usize,
    ) -> Option<pb::WatchResponse> {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("it is this watcher's turn");
        let Feed::Live(pending) = &mut watcher.feed else {
            panic!("only a live watcher has pending events")
        };
        let next = pending.front()?;
        if self.recent.get(next.number).is_none() {
            let next = next.main;
            self.fall_behind(key, next);
            return self.catch_up(key, barrier, view, rows_left);
        }
        let mut batch = Batch::new(self.config.response_bytes_max);
        while let Some(next) = pending
            .front()
            .filter(|next| next.main <= barrier && batch.accepts(next.main))
        {
            let shared = self
                .recent
                .get(next.number)
                .expect("the recent events are the newest");
            let mut event = shared.event.clone();
            if watcher.prev_kv {
                event.prev_kv = shared.previous.clone();
            }
            batch.add(next.main, event);
            pending.pop_front();
            self.pending -= 1;
        }
        let revision = batch.last;
        Some(pb::WatchResponse {
            watch_id: watcher.id,
            events: batch.events,
            ..with_revision(revision)
        })
    }

    /// What the history has for a watcher that is behind, as far as one call reads.
    fn catch_up(
        &mut self,
        key: WatcherKey,
        barrier: i64,
        view: &View,
        rows_left: &mut usize,
    ) -> Option<pb::WatchResponse> {
        let watcher = self
            .watchers
            .get_mut(&key)
            .expect("it is this watcher's turn");
        let Feed::Behind(first) = watcher.feed else {
            panic!("only a watcher that is behind catches up")
        };
        let last = self.revision.min(barrier);
        let (rows, mut next) = events::revisions(view, first, last, (*rows_left).max(1));
        *rows_left = rows_left.saturating_sub(rows.len().max(1));
        // Asked after reading: had rows gone before they were read, it would show.
        let compacted = view.compact_revision().0;
        if first < compacted {
            watcher.feed = Feed::Compacted;
            let canceled = pb::WatchResponse {
                watch_id: watcher.id,
                canceled: true,
                ..with_revision(0)
            };
            return Some(pb::WatchResponse {
                compact_revision: compacted,
                ..canceled
            });
        }
        let mut batch = Batch::new(self.config.response_bytes_max);
        for row in &rows {
            if !watcher.wants(row.tombstone) || !watcher.keys.contains(events::key_of(row)) {
                continue;
            }
            if !batch.accepts(row.main) {
                next = row.main;
                break;
            }
            let mut event = events::event_of(row);
            if watcher.prev_kv {
                event.prev_kv = events::previous(view, &event);
            }
            batch.add(row.main, event);
        }
        watcher.feed = Feed::Behind(next);
        let watch_id = watcher.id;
        if next > self.revision {
            self.settle(key);
        }
        // All of this watch up to here is in this response and those before it.
        let response = pb::WatchResponse {
            watch_id,
            events: batch.events,
            ..with_revision(next - 1)
        };
        (!response.events.is_empty()).then_some(response)
    }
}

/// Events of one response: whole revisions, and not too many.
pub(super) struct Batch {
    events: Vec<mvccpb::Event>,
    /// The revision of the last event.
    last: i64,
    revisions: usize,
    bytes_left: usize,
}

impl Batch {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            events: Vec::new(),
            last: 0,
            revisions: 0,
            bytes_left: bytes_max,
        }
    }

    /// Whether an event of this revision may come in: one that has begun goes in whole.
    pub(super) fn accepts(&self, main: i64) -> bool {
        main == self.last || (self.revisions < RESPONSE_REVISIONS_MAX && self.bytes_left > 0)
    }

    pub(super) fn add(&mut self, main: i64, event: mvccpb::Event) {
        self.revisions += usize::from(main != self.last);
        self.last = main;
        self.bytes_left = self
            .bytes_left
            .saturating_sub(prost::Message::encoded_len(&event));
        self.events.push(event);
    }
}
