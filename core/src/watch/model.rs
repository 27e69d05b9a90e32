//! Random histories, watches and readers against a plain model: what is delivered is the history, filtered.
//!
//! The model keeps every event ever made. Each response is checked when it is pulled, for the properties that the
//! simulator's watch checker has: filtered, ordered, unique, atomic, reliable, bookmarkable, previous values correct,
//! created before any event, cancelled only where a compaction allows it; and in the end everything has arrived.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quorate_proto::mvccpb;

use crate::mvcc::Store;
use crate::types::{LeaseId, Revision};

use super::*;

/// One write: the number of a key, and its value or nothing for a deletion.
type Write = (u8, Option<u8>);

/// What a replicated entry does.
#[derive(Clone, Debug)]
enum Entry {
    Txn(Vec<Write>),
    /// Compacts so many hundredths of the revisions.
    Compact(u8),
}

#[derive(Clone, Debug)]
struct Create {
    stream: u8,
    key: u8,
    /// 0 is a single key, otherwise the length of the range; from 6 on it has no end.
    keys: u8,
    /// Relative to the current revision; `None` is "from now on".
    start: Option<i8>,
    /// Bits: prev_kv, fragment, progress_notify, no puts, no deletions.
    options: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Entry),
    /// A snapshot with these entries replaces the store.
    Snapshot(Vec<Entry>),
    Sweep(u8),
    Create(Create),
    Cancel(u8),
    AskProgress(u8),
    Advance,
    Pull {
        stream: u8,
        responses: u8,
    },
    Pass,
    Reopen(u8),
}

fn entry() -> impl Strategy<Value = Entry> {
    let write = || (0..5u8, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        6 => write().prop_map(|write| Entry::Txn(vec![write])),
        2 => prop::collection::vec(write(), 1..8).prop_map(Entry::Txn),
        1 => (0..=100u8).prop_map(Entry::Compact),
    ]
}

fn create() -> impl Strategy<Value = Create> {
    (
        0..2u8,
        0..5u8,
        0..8u8,
        prop::option::weighted(0.6, -30..8i8),
        0..32u8,
    )
        .prop_map(|(stream, key, keys, start, options)| Create {
            stream,
            key,
            keys,
            start,
            options,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => entry().prop_map(Step::Apply),
        1 => prop::collection::vec(entry(), 0..12).prop_map(Step::Snapshot),
        2 => any::<u8>().prop_map(Step::Sweep),
        4 => create().prop_map(Step::Create),
        1 => any::<u8>().prop_map(Step::Cancel),
        2 => (0..2u8).prop_map(Step::AskProgress),
        6 => Just(Step::Advance),
        6 => (0..2u8, 1..12u8).prop_map(|(stream, responses)| Step::Pull { stream, responses }),
        1 => Just(Step::Pass),
        1 => (0..2u8).prop_map(Step::Reopen),
    ]
}

/// An event as it was made, with the value before.
#[derive(Clone, Debug)]
struct Made {
    main: i64,
    key: Vec<u8>,
    kv: mvccpb::KeyValue,
    previous: Option<mvccpb::KeyValue>,
}

/// What a client knows of its watch.
#[derive(Debug)]
struct Client {
    request: pb::WatchCreateRequest,
    /// The revisions that it must see begin here.
    first: i64,
    /// Events of the model that it has seen or need not see.
    seen: usize,
    created: bool,
    canceled: bool,
    /// It has asked for its end: what it has not got yet is dropped.
    ending: bool,
    /// The revision of the last event that came.
    delivered: i64,
    /// Nothing up to here may come any more.
    promised: i64,
    /// The store had this revision when everything had been pulled; 0 if it was replaced since.
    drained: i64,
}

#[derive(Debug)]
struct World {
    store: Store,
    entries: Vec<Entry>,
    history: Vec<Made>,
    hub: Hub,
    now: Time,
    streams: [StreamId; 2],
    clients: BTreeMap<(StreamId, i64), Client>,
    /// A response of which parts are missing.
    partial: BTreeMap<StreamId, pb::WatchResponse>,
    facts: usize,
}

impl World {
    fn new() -> Self {
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

    fn revision(&self) -> i64 {
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

    fn ask(&mut self, stream: StreamId, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        self.hub
            .handle(self.now, stream, request, &self.store.view());
    }

    fn wanted(client: &Client, made: &Made) -> bool {
        let tombstone = made.kv.create_revision == 0;
        let keys = KeyRange::parse(&client.request.key, &client.request.range_end).unwrap();
        made.main >= client.first
            && keys.contains(&made.key)
            && !client.request.filters.contains(&i32::from(tombstone))
    }

    /// Whether the client has seen all that it wants up to a revision.
    fn has_all(&self, client: &Client, revision: i64) -> bool {
        let unseen = self.history[client.seen..].iter();
        unseen
            .take_while(|made| made.main <= revision)
            .all(|made| !Self::wanted(client, made))
    }

    /// Pulls; answers whether there may be more.
    fn pull(&mut self, stream: StreamId) -> bool {
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

    fn check_response(&mut self, stream: StreamId, response: pb::WatchResponse) {
        let revision = response.header.as_ref().unwrap().revision;
        assert!(revision <= self.revision());
        if response.watch_id == NO_WATCH {
            assert!(response.events.is_empty() && !response.created && !response.canceled);
            // A compaction may have overtaken a watch between the request and this answer.
            let told = |((of, _), client): &(&(StreamId, i64), &Client)| {
                *of == stream && client.created && !client.canceled && !client.ending
            };
            for ((_, id), client) in self.clients.iter().filter(told) {
                assert!(
                    self.has_all(client, revision),
                    "watch {id}: progress {revision} overtook events"
                );
                assert!(
                    revision >= client.request.start_revision,
                    "watch {id}: progress {revision} says nothing"
                );
            }
            for (_, client) in self
                .clients
                .iter_mut()
                .filter(|((of, _), client)| *of == stream && client.created)
            {
                assert!(client.promised <= revision, "progress never falls");
                assert!(
                    client.delivered <= revision,
                    "progress is not below what came before it"
                );
                client.promised = revision;
                self.facts += 1;
            }
            return;
        }
        let mut client = self
            .clients
            .remove(&(stream, response.watch_id))
            .expect("no response of an unknown watch");
        if response.created {
            assert!(!client.created && !response.canceled && response.events.is_empty());
            client.created = true;
        } else if response.canceled {
            self.check_cancellation(&client, &response);
            client.canceled = true;
        } else if response.events.is_empty() {
            assert!(
                client.request.progress_notify,
                "only who asked is told progress"
            );
            assert!(self.has_all(&client, revision) && revision >= client.request.start_revision);
            assert!(client.promised <= revision);
            assert!(
                client.delivered <= revision,
                "progress is not below what came before it"
            );
            client.promised = revision;
        } else {
            self.check_events(&mut client, &response);
            assert!(
                self.has_all(&client, revision),
                "the header's revision is true"
            );
        }
        self.facts += 1;
        self.clients.insert((stream, response.watch_id), client);
    }

    fn check_cancellation(&self, client: &Client, response: &pb::WatchResponse) {
        assert!(client.created && !client.canceled);
        assert_eq!(response.compact_revision, self.store.compact_revision().0);
        assert_eq!(
            (
                response.header.as_ref().unwrap().revision,
                response.cancel_reason.as_str()
            ),
            (0, "")
        );
        assert!(
            client.first.max(client.promised + 1) < response.compact_revision,
            "nothing it wants was compacted"
        );
        let since = self
            .history
            .iter()
            .filter(|made| made.main > client.drained);
        assert!(
            client.drained == 0 || since.count() > 3,
            "a live watch was cancelled although it read everything"
        );
    }

    fn check_events(&self, client: &mut Client, response: &pb::WatchResponse) {
        assert!(
            client.created && !client.canceled,
            "events only while the watch lives"
        );
        for event in &response.events {
            let rest = &self.history[client.seen..];
            let skipped = rest
                .iter()
                .position(|made| Self::wanted(client, made))
                .expect("no event twice");
            let made = &rest[skipped];
            client.seen += skipped + 1;
            client.delivered = made.main;
            assert_eq!(event.kv.as_ref(), Some(&made.kv));
            assert_eq!(event.r#type == 1, made.kv.create_revision == 0);
            assert!(
                made.main > client.promised,
                "an event came after progress had passed it"
            );
            let compacted = self.store.compact_revision().0;
            match &event.prev_kv {
                Some(_) => {
                    assert!(client.request.prev_kv);
                    assert_eq!(event.prev_kv, made.previous);
                }
                None => assert!(
                    !client.request.prev_kv || made.previous.is_none() || made.main - 1 < compacted,
                    "the previous value is missing"
                ),
            }
        }
        let last = &self.history[client.seen - 1];
        let rest = self.history[client.seen..]
            .iter()
            .take_while(|made| made.main == last.main);
        assert!(
            !rest.clone().any(|made| Self::wanted(client, made)),
            "a revision was torn apart"
        );
    }

    fn step(&mut self, step: Step) {
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
    fn drain(&mut self) {
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

fn run(steps: Vec<Vec<Step>>) {
    let mut world = World::new();
    for part in steps {
        for step in part {
            world.step(step);
        }
        world.drain();
        for stream in world.streams {
            world.ask(
                stream,
                RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
            );
            let of = |((id, _), _): &(&(StreamId, i64), &Client)| *id == stream;
            let future = |client: &Client| client.request.start_revision > world.revision();
            let clients: Vec<_> = world
                .clients
                .iter()
                .filter(of)
                .map(|(_, client)| client)
                .collect();
            let expected = !clients.is_empty()
                && clients
                    .iter()
                    .all(|client| !client.canceled && !future(client));
            assert_eq!(
                world.pull(stream),
                expected,
                "progress of a synced stream, and only of such a one"
            );
        }
    }
    world.now = Time(u64::MAX / 2);
    world.drain();
}

proptest! {
    #[test]
    fn delivered_is_the_history_filtered(
        steps in prop::collection::vec(prop::collection::vec(step(), 1..80), 1..4),
    ) {
        run(steps);
    }
}
