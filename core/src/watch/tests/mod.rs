//! The rules of the watch API, each by its name.

mod creation;
mod delivery;
mod progress;
mod slow;

use expect_test::Expect;

use crate::mvcc::Store;
use crate::types::{LeaseId, Revision};

use super::*;

/// A store, a hub and one stream that is read at once.
struct World {
    store: Store,
    hub: Hub,
    now: Time,
    stream: StreamId,
}

fn config() -> HubConfig {
    HubConfig {
        response_bytes_max: 1000,
        progress_interval: Duration::from_secs(600),
        seed: 7,
    }
}

/// A request to watch the keys from `key` to `end`.
fn watch(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

impl World {
    /// The store has key `a` = `1` at revision 2 and key `b` = `1` at revision 3.
    fn new() -> Self {
        let mut hub = Hub::new(config());
        let stream = hub.open(Time(0));
        let mut world = Self {
            store: Store::new(),
            hub,
            now: Time(0),
            stream,
        };
        world.put("a", "1");
        world.put("b", "1");
        world
    }

    fn put(&mut self, key: &str, value: &str) {
        self.txn(&[(key, Some(value))]);
    }

    fn delete(&mut self, key: &str) {
        self.txn(&[(key, None)]);
    }

    fn txn(&mut self, writes: &[(&str, Option<&str>)]) {
        let mut txn = self.store.begin();
        for (key, value) in writes {
            match value {
                Some(value) => {
                    txn.put(key.as_bytes(), value.as_bytes(), LeaseId(0));
                }
                None => {
                    txn.delete_range(key.as_bytes(), b"", |_, _| {});
                }
            }
        }
        txn.end();
    }

    /// Compacts, and removes what can be removed.
    fn compact(&mut self, revision: i64) {
        self.store.compact(Revision(revision)).unwrap();
        self.store.compact_step(usize::MAX);
    }

    fn ask(&mut self, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.hub
            .handle(self.now, self.stream, request, &self.store.view());
    }

    fn create(&mut self, request: pb::WatchCreateRequest) {
        self.ask(RequestUnion::CreateRequest(request));
    }

    fn cancel(&mut self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest {
            watch_id,
        }));
    }

    fn ask_progress(&mut self) {
        self.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    fn advance(&mut self) {
        loop {
            self.hub.advance(self.now, &self.store.view());
            self.hub.check();
            if !self.hub.lags {
                return;
            }
        }
    }

    /// One response.
    fn pull(&mut self) -> Option<pb::WatchResponse> {
        let view = self.store.view();
        loop {
            let response = self.hub.next(self.stream, &view);
            self.hub.check();
            if response.is_some() {
                return response;
            }
            // It may have stopped because it has read enough for one call.
            if self.hub.ready().is_empty() {
                return None;
            }
        }
    }

    fn pull_all(&mut self) -> Vec<pb::WatchResponse> {
        std::iter::from_fn(|| self.pull()).collect()
    }

    fn check_pulled(&mut self, expected: Expect) {
        let lines: Vec<_> = self.pull_all().iter().map(show).collect();
        expected.assert_eq(&lines.join("\n"));
    }

    fn check(&mut self, expected: Expect) {
        self.advance();
        self.check_pulled(expected);
    }
}

fn show(response: &pb::WatchResponse) -> String {
    let mut line = format!(
        "{} rev {}",
        response.watch_id,
        response.header.as_ref().unwrap().revision
    );
    for (flag, name) in [
        (response.created, " created"),
        (response.canceled, " canceled"),
        (response.fragment, " fragment"),
    ] {
        line += if flag { name } else { "" };
    }
    if response.compact_revision != 0 {
        line += &format!(" compacted {}", response.compact_revision);
    }
    if !response.cancel_reason.is_empty() {
        line += &format!(" ({})", response.cancel_reason);
    }
    for event in &response.events {
        let kv = event.kv.as_ref().unwrap();
        let text = |bytes: &[u8]| match String::from_utf8_lossy(bytes) {
            text if text.len() > 9 => format!("{}bytes", text.len()),
            text => text.replace('\0', "NUL"),
        };
        line += &match event.r#type {
            0 => format!(
                " | {}={} @{}",
                text(&kv.key),
                text(&kv.value),
                kv.mod_revision
            ),
            _ => format!(" | -{} @{}", text(&kv.key), kv.mod_revision),
        };
        if let Some(previous) = &event.prev_kv {
            line += &format!(
                " (was {} @{})",
                text(&previous.value),
                previous.mod_revision
            );
        }
    }
    line
}
