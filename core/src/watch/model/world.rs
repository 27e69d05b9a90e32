//! The model: a store with its hub, all that was ever written to it, and the clients that watch.

use std::collections::BTreeMap;

use quorate_proto::mvccpb;

use super::super::*;
use super::{Create, Entry, Step};
use crate::mvcc::Store;
use crate::types::{LeaseId, Revision};

/// An event as it was made, with the value before.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) main: i64,
    pub(super) key: Vec<u8>,
    pub(super) kv: mvccpb::KeyValue,
    pub(super) previous: Option<mvccpb::KeyValue>,
}

/// What a client knows of its watch.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) request: pb::WatchCreateRequest,
    /// The revisions that it must see begin here.
    pub(super) first: i64,
    /// Events of the model that it has seen or need not see.
    pub(super) seen: usize,
    pub(super) created: bool,
    pub(super) canceled: bool,
    /// It has asked for its end: what it has not got yet is dropped.
    pub(super) ending: bool,
    /// The revision of the last event that came.
    pub(super) delivered: i64,
    /// Nothing up to here may come any more.
    pub(super) promised: i64,
    /// The store had this revision when everything had been pulled; 0 if it was replaced since.
    pub(super) drained: i64,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) store: Store,
    pub(super) entries: Vec<Entry>,
    pub(super) history: Vec<Made>,
    pub(super) hub: Hub,
    pub(super) now: Time,
    pub(super) streams: [StreamId; 2],
    pub(super) clients: BTreeMap<(StreamId, i64), Client>,
    /// A response of which parts are missing.
    pub(super) partial: BTreeMap<StreamId, pb::WatchResponse>,
    pub(super) facts: usize,
}

impl World {
    pub(super) fn new() -> Self {
        let mut hub = Hub::new(HubConfig {
            response_bytes_max: 150,
            progress_interval: Duration::from_secs(1),
            seed: 1,
        });
        let streams = [hub.open(Time(0)), hub.open(Time(0))];
        Self {
            store: Store::new(),
            entries: Vec::new(),
            history: Vec::new(),
            hub,
            now: Time(0),
            streams,
            clients: BTreeMap::new(),
            partial: BTreeMap::new(),
            facts: 0,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        self.store.revision().0
    }

    fn apply(store: &mut Store, history: Option<&mut Vec<Made>>, entry: &Entry) {
        match entry {
            Entry::Txn(writes) => {
                let mut made = Vec::new();
                let mut txn = store.begin();
                for (number, (key, value)) in writes.iter().enumerate() {
                    let key = vec![b'a' + key];
                    if writes[..number]
                        .iter()
                        .any(|(earlier, _)| b'a' + earlier == key[0])
                    {
                        continue; // etcd refuses two writes of one key in one transaction.
                    }
                    let previous = txn.get(&key);
                    match value {
                        Some(value) => {
                            txn.put(&key, &vec![*value; usize::from(*value) / 4], LeaseId(0));
                        }
                        None => {
                            txn.delete_range(&key, b"", |_, _| {});
                        }
                    }
                    if value.is_some() || previous.is_some() {
                        let main = txn.revision().0;
                        let deleted = mvccpb::KeyValue {
                            key: key.clone().into(),
                            mod_revision: main,
                            ..Default::default()
                        };
                        let kv = txn.get(&key).unwrap_or(deleted);
                        made.push(Made {
                            main,
                            key,
                            kv,
                            previous,
                        });
                    }
                }
                txn.end();
                if let Some(history) = history {
                    history.extend(made);
                }
            }
            Entry::Compact(part) => {
                let revision = store.revision().0 * i64::from(*part) / 100;
                // Refused when it is compacted already; just as well.
                let _ = store.compact(Revision(revision));
            }
        }
    }

    fn install_snapshot(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries);
        let mut store = Store::new();
        self.history.clear();
        for entry in &self.entries {
            Self::apply(&mut store, Some(&mut self.history), entry);
            while !store.compact_step(usize::MAX) {}
        }
        self.store.replace(store);
        for client in self.clients.values_mut() {
            client.drained = 0;
        }
    }

    fn create(&mut self, create: &Create) {
        let stream = self.streams[usize::from(create.stream)];
        let current = self.revision();
        let option = |bit: u8| create.options & (1 << bit) != 0;
        let request = pb::WatchCreateRequest {
            key: vec![b'a' + create.key].into(),
            range_end: match create.keys {
                0 => vec![],
                length @ 1..6 => vec![b'a' + create.key + length],
                _ => vec![0],
            }
            .into(),
            start_revision: create
                .start
                .map_or(0, |start| (current + i64::from(start)).max(0)),
            prev_kv: option(0),
            fragment: option(1),
            progress_notify: option(2),
            filters: [3, 4]
                .into_iter()
                .filter(|bit| option(*bit))
                .map(|bit| i32::from(bit) - 3)
                .collect(),
            ..Default::default()
        };
        let mut id = 0;
        while self.clients.contains_key(&(stream, id)) {
            id += 1;
        }
        let request = pb::WatchCreateRequest {
            watch_id: id,
            ..request
        };
        let first = if request.start_revision == 0 {
            current + 1
        } else {
            request.start_revision
        };
        let client = Client {
            request: request.clone(),
            first,
            seen: 0,
            created: false,
            canceled: false,
            ending: false,
            delivered: 0,
            promised: 0,
            drained: 0,
        };
        self.ask(stream, RequestUnion::CreateRequest(request));
        // The id 0 means "choose one", and the hub counts on from the ids it chose before.
        let chosen = self.hub.streams[&stream].watches.iter();
        let newest = chosen
            .max_by_key(|(_, key)| **key)
            .expect("it was just created");
        self.clients.insert((stream, *newest.0), client);
    }

    pub(super) fn ask(&mut self, stream: StreamId, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.hub
            .handle(self.now, stream, request, &self.store.view());
    }

    /// Pulls; answers whether there may be more.
    pub(super) fn pull(&mut self, stream: StreamId) -> bool {
        let Some(response) = self.hub.next(stream, &self.store.view()) else {
            return false;
        };
        self.hub.check();
        let response = match self.partial.remove(&stream) {
            None => response,
            Some(mut partial) => {
                assert_eq!(
                    partial.watch_id, response.watch_id,
                    "parts of one response are consecutive"
                );
                assert_eq!(partial.header, response.header);
                partial.events.extend(response.events);
                partial.fragment = response.fragment;
                partial
            }
        };
        if response.fragment {
            self.partial.insert(stream, response);
        } else {
            self.check_response(stream, response);
        }
        true
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Apply(entry) => {
                Self::apply(&mut self.store, Some(&mut self.history), &entry);
                self.entries.push(entry);
            }
            Step::Snapshot(entries) => self.install_snapshot(entries),
            Step::Sweep(rows) => {
                self.store.compact_step(usize::from(rows));
            }
            Step::Create(create) => self.create(&create),
            Step::Cancel(number) => {
                let chosen = self
                    .clients
                    .keys()
                    .nth(usize::from(number) % self.clients.len().max(1))
                    .copied();
                let Some((stream, id)) = chosen else { return };
                self.clients
                    .get_mut(&(stream, id))
                    .expect("just chosen")
                    .ending = true;
                // What was pulled in part is still completed; then there is the answer and nothing else.
                self.ask(
                    stream,
                    RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id }),
                );
                while self.pull_cancelled(stream, id) {}
            }
            Step::AskProgress(stream) => {
                let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                self.ask(self.streams[usize::from(stream)], request);
            }
            Step::Advance => self.hub.advance(self.now, &self.store.view()),
            Step::Pull { stream, responses } => {
                let stream = self.streams[usize::from(stream)];
                for _ in 0..responses {
                    self.pull(stream);
                }
            }
            Step::Pass => self.now = self.now.after(Duration::from_millis(700)),
            Step::Reopen(number) => {
                let old = std::mem::replace(
                    &mut self.streams[usize::from(number)],
                    self.hub.open(self.now),
                );
                self.hub.close(old);
                self.clients.retain(|(stream, _), _| *stream != old);
                self.partial.remove(&old);
            }
        }
        self.hub.check();
    }

    /// Pulls until a watch is gone; answers whether it is still there.
    fn pull_cancelled(&mut self, stream: StreamId, id: i64) -> bool {
        let view = self.store.view();
        let queue_ends_with_answer = |response: &pb::WatchResponse| {
            response.watch_id == id && response.canceled && response.compact_revision == 0
        };
        if self.partial.contains_key(&stream) || !self.hub.streams[&stream].parts.is_empty() {
            return self.pull(stream);
        }
        let Some(response) = self.hub.next(stream, &view) else {
            return true;
        };
        if queue_ends_with_answer(&response) {
            self.clients.remove(&(stream, id));
            return false;
        }
        let mut response = response;
        while response.fragment {
            let part = self
                .hub
                .next(stream, &view)
                .expect("the last part is no fragment");
            assert_eq!(part.watch_id, response.watch_id);
            response.events.extend(part.events);
            response.fragment = part.fragment;
        }
        assert!(
            response.watch_id != id || response.created || response.compact_revision > 0,
            "events after a cancel"
        );
        self.check_response(stream, response);
        true
    }

    /// Reads all there is.
    pub(super) fn drain(&mut self) {
        loop {
            self.hub.advance(self.now, &self.store.view());
            for stream in self.streams {
                while self.pull(stream) {}
            }
            if self.hub.ready().is_empty() && !self.hub.lags {
                break;
            }
        }
        let revision = self.revision();
        for ((_, id), client) in &mut self.clients {
            assert!(client.created, "watch {id} was answered");
            client.drained = revision;
        }
        for (key, client) in &self.clients {
            assert!(
                client.canceled || self.has_all(client, revision),
                "watch {key:?} missed something: {client:?}"
            );
        }
    }
}
