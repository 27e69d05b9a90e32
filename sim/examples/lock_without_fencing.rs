//! A lock on a lease is no lock: its holder may stand still for longer than the lease lives, and go on as if it held it.
//!
//! Two workers count under a lock. The first version writes when it believes that it holds the lock; the second hands its
//! fencing token (the revision at which it took the lock) to the store with every write. Run it to see in which seeds the
//! first one loses an addition: `cargo run -p quorate-sim --example lock_without_fencing`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_sim::embedded::{Client, Cluster, Error, Options};

const LOCK: &str = "lock";
const COUNT: &str = "count";
const TTL_SECONDS: i64 = 2;
const ROUNDS: i64 = 6;

fn put(key: &'static str, value: String, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        ..pb::PutRequest::default()
    };
    pb::RequestOp {
        request: Some(Request::RequestPut(put)),
    }
}

/// The lock as it was at this revision; 0 is a lock that nobody holds.
fn lock_is_at(revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: LOCK.into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..pb::Compare::default()
    }
}

/// Takes the lock for as long as the lease lives; gives the fencing token.
async fn lock(client: &Client, lease: i64) -> Result<i64, Error> {
    client.grant(lease, TTL_SECONDS).await?;
    loop {
        let take = pb::TxnRequest {
            compare: vec![lock_is_at(0)],
            success: vec![put(LOCK, lease.to_string(), lease)],
            failure: Vec::new(),
        };
        let taken = client.txn(take).await?;
        if taken.succeeded {
            return Ok(taken.header.map_or(0, |header| header.revision));
        }
        client.sleep(Duration::from_millis(100)).await;
        client.keep_alive(lease).await?;
    }
}

/// Adds one under the lock. Says whether it did.
async fn add(client: &Client, lease: i64, fenced: bool) -> Result<bool, Error> {
    let token = lock(client, lease).await?;
    let count = client.get(COUNT).await?;
    let count: u64 = count.map_or(0, |kv| {
        std::str::from_utf8(&kv.value).unwrap().parse().unwrap()
    });
    client.sleep(Duration::from_millis(200)).await;
    let write = pb::TxnRequest {
        compare: if fenced {
            vec![lock_is_at(token)]
        } else {
            Vec::new()
        },
        success: vec![put(COUNT, (count + 1).to_string(), 0)],
        failure: Vec::new(),
    };
    let written = client.txn(write).await?.succeeded;
    // One that has expired need not be ended.
    let _ = client.revoke(lease).await;
    Ok(written)
}

/// How many additions were lost in the run of a seed.
fn lost_additions(seed: u64, fenced: bool) -> u64 {
    let mut cluster = Cluster::new(seed, Options::default());
    let added = Rc::new(Cell::new(0));
    let workers: Vec<_> = (1..=2)
        .map(|worker: i64| {
            let (client, added) = (cluster.client(), Rc::clone(&added));
            cluster.spawn(async move {
                for round in 0..ROUNDS {
                    if add(&client, worker * 1000 + round, fenced).await == Ok(true) {
                        added.set(added.get() + 1);
                    }
                }
            })
        })
        .collect();
    // One worker after the other stands still for longer than a lease lives, each time at another moment.
    for pause in 0..8 {
        cluster.run_for(Duration::from_millis(300 + seed * 37 % 400));
        let worker = workers[pause % workers.len()];
        cluster.pause_task(worker);
        cluster.run_for(Duration::from_secs(TTL_SECONDS as u64 * 3));
        cluster.resume_task(worker);
    }
    assert!(
        cluster.run_until_idle(Duration::from_secs(300)),
        "workers end"
    );
    let client = cluster.client();
    let count = cluster.block_on(async move { client.get(COUNT).await });
    let count = count.expect("a healthy cluster answers");
    let count: u64 = count.map_or(0, |kv| {
        std::str::from_utf8(&kv.value).unwrap().parse().unwrap()
    });
    added.get() - count
}

fn main() {
    for seed in 0..20 {
        let (careless, fenced) = (lost_additions(seed, false), lost_additions(seed, true));
        println!("seed {seed:2}: without fencing {careless} additions lost, with fencing {fenced}");
    }
}

#[test]
fn a_lease_alone_loses_additions_and_a_fencing_token_does_not() {
    let seeds = 0..12;
    assert!(seeds.clone().any(|seed| lost_additions(seed, false) > 0));
    assert!(seeds.clone().all(|seed| lost_additions(seed, true) == 0));
}
