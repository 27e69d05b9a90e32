//! What watch fan-out and leases cost, without network and disk: `cargo run --release --example watch_and_lease_speed`.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "an example measures with a real clock"
)]

use std::time::{Duration, Instant};

use quorate_core::lease::{Config, Lessor};
use quorate_core::mvcc::Store;
use quorate_core::types::{LeaseId, Time};
use quorate_core::watch::{Hub, HubConfig, StreamId};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;

fn report(what: &str, count: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what:<70} {count:>9} in {seconds:7.3} s = {:>10.0}/s",
        count as f64 / seconds
    );
}

fn main() {
    fan_out(
        100,
        1,
        20_000,
        "100 watchers of one key, each event pulled at once",
    );
    fan_out(
        10_000,
        10_000,
        200_000,
        "10,000 watchers of a key each, writes spread over them",
    );
    prefixes(10_000, 200_000);
    catch_up(1_000_000);
    leases(1_000_000);
}

fn hub() -> Hub {
    Hub::new(HubConfig {
        response_bytes_max: 2 << 20,
        progress_interval: Duration::from_secs(600),
        seed: 1,
    })
}

fn put(store: &mut Store, key: usize) {
    let mut txn = store.begin();
    txn.put(format!("key/{key:06}/x").as_bytes(), &[7; 100], LeaseId(0));
    txn.end();
}

fn watch(hub: &mut Hub, store: &Store, request: pb::WatchCreateRequest) -> StreamId {
    let id = hub.open(Time(0));
    let request = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(request)),
    };
    hub.handle(Time(0), id, request, &store.view());
    id
}

/// Pulls everything; answers the number of events and their bytes on the wire.
fn pull(hub: &mut Hub, store: &Store) -> usize {
    let view = store.view();
    let mut events = 0;
    loop {
        hub.advance(Time(0), &view);
        let ready = hub.ready();
        if ready.is_empty() {
            return events;
        }
        for id in ready {
            while let Some(response) = hub.next(id, &view) {
                events += response.events.len();
                std::hint::black_box(prost::Message::encode_to_vec(&response));
            }
        }
    }
}

fn fan_out(watchers: usize, keys: usize, writes: usize, what: &str) {
    let (mut hub, mut store) = (hub(), Store::new());
    for watcher in 0..watchers {
        let key = format!("key/{:06}/x", watcher % keys).into();
        watch(
            &mut hub,
            &store,
            pb::WatchCreateRequest {
                key,
                ..Default::default()
            },
        );
    }
    pull(&mut hub, &store);
    let started = Instant::now();
    let mut events = 0;
    for write in 0..writes {
        put(&mut store, write % keys);
        if write % 10 == 9 {
            events += pull(&mut hub, &store);
        }
    }
    assert_eq!(events, writes * watchers / keys);
    report(what, events, started);
}

fn prefixes(watchers: usize, writes: usize) {
    let (mut hub, mut store) = (hub(), Store::new());
    for watcher in 0..watchers {
        let (key, range_end) = (
            format!("key/{watcher:06}/").into(),
            format!("key/{watcher:06}0").into(),
        );
        watch(
            &mut hub,
            &store,
            pb::WatchCreateRequest {
                key,
                range_end,
                ..Default::default()
            },
        );
    }
    pull(&mut hub, &store);
    let started = Instant::now();
    let mut events = 0;
    for write in 0..writes {
        put(&mut store, write * 7919 % watchers);
        if write % 10 == 9 {
            events += pull(&mut hub, &store);
        }
    }
    report(
        "10,000 watchers of a prefix each, writes spread over them",
        events,
        started,
    );
}

fn catch_up(writes: usize) {
    let (mut hub, mut store) = (hub(), Store::new());
    for write in 0..writes {
        put(&mut store, write % 1000);
    }
    let all = || pb::WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 2,
        ..Default::default()
    };
    watch(&mut hub, &store, all());
    let started = Instant::now();
    let events = pull(&mut hub, &store);
    report("one watcher of everything catches up", events, started);
    watch(
        &mut hub,
        &store,
        pb::WatchCreateRequest {
            key: "none".into(),
            range_end: "nonf".into(),
            ..all()
        },
    );
    let started = Instant::now();
    pull(&mut hub, &store);
    report(
        "one watcher of nothing catches up: rows passed",
        writes,
        started,
    );
}

fn leases(count: usize) {
    let mut lessor = Lessor::new(Config {
        ttl_min: 2,
        checkpoint: false,
    });
    let id =
        |number: usize| LeaseId((number as i64).wrapping_mul(0x1f3d_5b79_a1c3_e5d7) & i64::MAX | 1);
    let started = Instant::now();
    for number in 0..count {
        let _ = lessor.grant(Time(0), id(number), 600 + (number % 1000) as i64);
        lessor.attach(id(number), format!("key/{number}"));
    }
    report("grants with a key each, on a follower", count, started);
    let started = Instant::now();
    lessor.promote(Time(0), Duration::from_secs(1));
    report("promotion: leases", count, started);
    let started = Instant::now();
    for number in 0..count {
        std::hint::black_box(lessor.renew(Time(1_000_000), id(number * 7919 % count)));
    }
    report("renewals", count, started);
    let started = Instant::now();
    let mut now = 0;
    let mut expired = 0;
    while expired < 100_000 {
        now = lessor.deadline().0.max(now);
        for lease in lessor.expired(Time(now), usize::MAX) {
            lessor.revoke(lease).expect("an expired lease exists");
            expired += 1;
        }
    }
    report("expiries, revoked with their key", expired, started);
    let started = Instant::now();
    lessor.demote();
    report("demotion: leases", lessor.len(), started);
}
