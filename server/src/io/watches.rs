//! The watch streams of one IO core: the hub, and who waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use quorate_core::error::RequestError;
use quorate_core::mvcc::View;
use quorate_core::types::Time;
use quorate_core::watch::{Hub, HubConfig, StreamId};
use quorate_proto::etcdserverpb as pb;

use crate::driver::clock::Clock;
use crate::state::WatchNumbers;

/// The hub with its clock, its store and its waiting streams.
#[derive(Debug)]
pub(crate) struct Watches {
    hub: Hub,
    clock: Clock,
    view: View,
    /// Who to wake when a stream has something to say.
    waiting: BTreeMap<StreamId, Waker>,
    /// What metrics see of this core.
    numbers: Arc<WatchNumbers>,
    streams: u64,
}

impl Watches {
    pub(super) fn new(
        config: HubConfig,
        clock: Clock,
        view: View,
        numbers: Arc<WatchNumbers>,
    ) -> Self {
        Self {
            hub: Hub::new(config),
            clock,
            view,
            waiting: BTreeMap::new(),
            numbers,
            streams: 0,
        }
    }

    /// Opens a stream.
    pub(crate) fn open(&mut self) -> StreamId {
        self.streams += 1;
        self.hub.open(self.clock.now())
    }

    /// Forgets a stream.
    pub(crate) fn close(&mut self, id: StreamId) {
        self.waiting.remove(&id);
        self.hub.close(id);
        self.streams -= 1;
    }

    /// Whether the next request of a stream may be handled.
    pub(crate) fn accepts(&self, id: StreamId) -> bool {
        self.hub.accepts(id)
    }

    /// Takes a request of a client.
    pub(crate) fn handle(&mut self, id: StreamId, request: pb::WatchRequest) {
        self.hub.handle(self.clock.now(), id, request, &self.view);
    }

    /// Answers a creation that is not allowed.
    pub(crate) fn refuse(
        &mut self,
        id: StreamId,
        create: &pb::WatchCreateRequest,
        error: &RequestError,
    ) {
        self.hub.refuse(id, create, error, &self.view);
    }

    /// The next response of a stream, or a note to wake it when there may be one.
    pub(crate) fn next(&mut self, id: StreamId, waker: &Waker) -> Option<pb::WatchResponse> {
        let response = self.hub.next(id, &self.view);
        if response.is_none() {
            self.waiting
                .entry(id)
                .and_modify(|known| known.clone_from(waker))
                .or_insert_with(|| waker.clone());
        }
        response
    }

    /// Lets the hub follow the store and collects the streams that have something to say.
    pub(super) fn tick(&mut self, store_advanced: bool, wakers: &mut Vec<Waker>) {
        let now = self.clock.now();
        if !store_advanced && self.hub.deadline() > now {
            return;
        }
        self.hub.advance(now, &self.view);
        wakers.extend(
            self.hub
                .ready()
                .into_iter()
                .filter_map(|id| self.waiting.remove(&id)),
        );
    }

    /// Brings the numbers that metrics see up to date; looks at every watch.
    pub(crate) fn count(&self) {
        let (watchers, behind) = self.hub.watchers();
        let pending = self.hub.events_pending() as u64;
        self.numbers.pending.store(pending, Ordering::Relaxed);
        self.numbers.lag.store(self.hub.lag(), Ordering::Relaxed);
        self.numbers.streams.store(self.streams, Ordering::Relaxed);
        self.numbers
            .watchers
            .store(watchers as u64, Ordering::Relaxed);
        self.numbers.behind.store(behind as u64, Ordering::Relaxed);
    }

    /// When the next tick is due although nothing happened.
    pub(super) fn deadline(&self) -> Time {
        self.hub.deadline()
    }
}
