//! A watch that the member itself keeps, on the hub of this IO core.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use quorate_core::watch::StreamId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::event::EventType;

use crate::io::core;

/// A stream with one watch; dropping it ends both.
pub(super) struct Watching(StreamId);

impl Watching {
    /// Watches a key from a revision on.
    pub(super) fn key(key: Bytes, start_revision: i64) -> Self {
        Self::range(key, Bytes::new(), start_revision)
    }

    /// Watches a range of keys from a revision on.
    pub(super) fn range(key: Bytes, range_end: Bytes, start_revision: i64) -> Self {
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            ..Default::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let id = core::with(|core| {
            core.watches(|watches| {
                let id = watches.open();
                watches.handle(id, request);
                id
            })
        });
        Self(id)
    }

    /// The next response that has events; none when the watch has ended, since what it wants was compacted.
    pub(super) async fn events(&mut self) -> Option<pb::WatchResponse> {
        loop {
            let mut response = self.next().await;
            if response.canceled {
                return None;
            }
            if !response.events.is_empty() {
                core::with(|core| {
                    let revision = response.header.as_ref().map_or(0, |header| header.revision);
                    let filled = core.state().header_without_revision();
                    response.header = Some(pb::ResponseHeader { revision, ..filled });
                });
                return Some(response);
            }
        }
    }

    /// Waits until a key of this watch is deleted, or until nobody can say any more whether one was.
    pub(super) async fn deleted(mut self) {
        while let Some(response) = self.events().await {
            let mut events = response.events.iter();
            if events.any(|event| event.r#type() == EventType::Delete) {
                return;
            }
        }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let id = self.0;
        poll_fn(move |context| {
            let next = core::with(|core| core.watches(|watches| watches.next(id, context.waker())));
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        core::if_alive(|core| core.watches(|watches| watches.close(self.0)));
    }
}
