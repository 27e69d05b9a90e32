//! One run: a cluster lives through a time of load and faults, is healed, and then judged.
//!
//! ```text
//!   begin ─► load and faults ─► heal ─► every member serves, all agree ─► the load's history against the log
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::lease;
use quorate_net::client::Client;
use quorate_net::rt::simulated as network;
use quorate_proto::etcdserverpb as pb;
use quorate_sim::check::linearizability::{self, Read};
use quorate_sim::check::{Facts, Violation};
use quorate_sim::trace::TraceHash;
use tokio::time::{Instant, sleep};

use crate::appended::committed;
use crate::clients::{self, client_of};
use crate::cluster::Cluster;
use crate::faults::{Faults, set_delay};
use crate::judge::{Judge, Own};
use crate::options::Options;
use crate::world::{self, Eyes, World};

/// Simulated time that a healed cluster may take until everything is as it should be.
const SETTLING_MAX: Duration = Duration::from_secs(60);

/// Between two looks at what settles.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// No run takes longer, in simulated time.
const RUN_MAX: Duration = Duration::from_secs(600);

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What does not hold.
    pub violation: Option<Violation>,
    /// The hash of the trace.
    pub hash: TraceHash,
    /// Events of the trace.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Calls of clients, and those that were answered.
    pub calls: (usize, usize),
    /// Responses of watches.
    pub watched: usize,
    /// Facts of the checkers of quorate-sim.
    pub facts: Facts,
    /// Facts of this tier's own checkers.
    pub own: Own,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
}

/// Runs a seed on this thread, which must be fresh: it keeps what statics hold.
pub fn run(seed: u64, options: Options, verbose: bool) -> Report {
    let mut config = madsim::Config::default();
    config.net.send_latency = options.delay.0..options.delay.1;
    let mut runtime = madsim::runtime::Runtime::with_seed_and_config(seed, config);
    runtime.set_time_limit(RUN_MAX);
    runtime.block_on(async move {
        World::begin(seed, options.clone(), verbose);
        network::observe(Box::new(Eyes));
        quorate_server::simulated::direct(Box::new(Eyes));
        world::note(|| format!("{options:?}"));
        let mut ending = Ending::default();
        let lived = live(seed, &options, &mut ending).await;
        if let Err(violation) = lived {
            world::violated(violation);
        }
        report(ending)
    })
}

#[derive(Default)]
struct Ending {
    facts: Option<Facts>,
    own: Own,
}

async fn live(seed: u64, options: &Options, ending: &mut Ending) -> Result<(), Violation> {
    let mut cluster = Cluster::start();
    for (client, mix) in (1..).zip(options.callers.iter().copied()) {
        cluster.add_client(move || clients::call(client, mix));
    }
    for client in 0..options.tenants {
        cluster.add_client(move || clients::hold_leases(client + 20));
    }
    for client in 0..options.watchers {
        cluster.add_client(move || clients::watch(client + 40));
    }
    set_delay(options.delay.0, options.delay.1);
    let mut faults = Faults::new(seed, options.clone());
    faults.rage(&mut cluster).await;
    world::note(|| "healing".to_owned());
    let deadline = Instant::now() + SETTLING_MAX;
    while !faults.heal(&mut cluster) {
        check_patience(deadline, || "a process does not end".to_owned())?;
        sleep(LOOK_INTERVAL).await;
    }
    world::with(|world| world.load_goes_on = false);
    let applied = settle(cluster.members(), deadline).await?;
    if let Some(violation) = world::with(|world| world.violation().cloned()) {
        return Err(violation);
    }
    let lease = lease::Config::new(options.heartbeat, options.election_ticks, false);
    let mut judge = world::with(|world| {
        let entries = committed(&world.logs, applied)?;
        Ok(Judge::new(entries, &world.first_written, lease.ttl_min))
    })?;
    let judged = judge_end(&mut judge, cluster.members(), deadline).await;
    ending.facts = Some(judge.facts);
    ending.own = judge.own;
    judged
}

fn check_patience(deadline: Instant, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Violation::new("converge.live", what()))
}

/// Waits until every member takes a write, then until all have applied the same. Gives the index.
async fn settle(members: usize, deadline: Instant) -> Result<u64, Violation> {
    for machine in 0..members {
        let client = client_of(&[machine], Duration::from_secs(5));
        loop {
            let put = pb::PutRequest {
                key: Bytes::from_static(b"settled"),
                value: Bytes::from(format!("m{machine}")),
                ..pb::PutRequest::default()
            };
            match client.put(put).await {
                Ok(_) => break,
                Err(error) => {
                    check_patience(deadline, || format!("m{machine} takes no write: {error}"))?;
                    sleep(LOOK_INTERVAL).await;
                }
            }
        }
    }
    let statuses: Vec<Client> = (0..members)
        .map(|machine| client_of(&[machine], Duration::from_secs(5)))
        .collect();
    let mut before = Vec::new();
    loop {
        let mut seen = Vec::new();
        for client in &statuses {
            if let Ok(status) = client.status().await {
                seen.push((status.raft_index, status.raft_applied_index));
            }
        }
        let first = seen.first().copied();
        let all_equal =
            seen.len() == members && seen.iter().all(|one| Some(*one) == first && one.0 == one.1);
        // Twice the same, with all calls and leases at an end in between.
        if all_equal && before == seen {
            return Ok(first.map_or(0, |(_, applied)| applied));
        }
        check_patience(deadline, || format!("members do not agree: {seen:?}"))?;
        before = seen;
        sleep(Duration::from_secs(10)).await;
    }
}

/// Judges what members hold at the end and what clients saw.
async fn judge_end(judge: &mut Judge, members: usize, deadline: Instant) -> Result<(), Violation> {
    let newest = judge.ledger.model().revision();
    let mut hashes = Vec::new();
    for machine in 0..members {
        let client = client_of(&[machine], Duration::from_secs(5));
        let asked = |error: quorate_net::client::ClientError| {
            Violation::new("converge.live", format!("m{machine}: {error}"))
        };
        let everything = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            serializable: true,
            ..pb::RangeRequest::default()
        };
        let mut response = client.range(everything.clone()).await.map_err(asked)?;
        let header = response.header.take().unwrap_or_default();
        response.header = Some(pb::ResponseHeader {
            revision: header.revision,
            ..pb::ResponseHeader::default()
        });
        let read = Read {
            request: &everything,
            result: &Ok(response),
            revision: header.revision,
            compacted: -1,
        };
        let facts = &mut judge.facts;
        linearizability::on_read(facts, "converge.equal", &judge.ledger, &read, newest)?;
        let hash = client.hash_kv(0).await.map_err(asked)?;
        hashes.push((hash.hash, hash.compact_revision, hash.hash_revision));
        let leases = client.lease_leases().await.map_err(asked)?;
        let mut listed: Vec<_> = leases.leases.iter().map(|lease| lease.id).collect();
        listed.sort_unstable();
        let expected: Vec<_> = judge.ledger.model().leases().collect();
        judge
            .facts
            .expect("converge.equal", listed == expected, || {
                format!("m{machine} lists the leases {listed:?}, the log says {expected:?}")
            })?;
    }
    let all_equal = hashes.iter().all(|hash| *hash == hashes[0]);
    judge.facts.expect("converge.equal", all_equal, || {
        format!("members have the hashes {hashes:?}")
    })?;
    loop {
        let history = world::with(|world| world.history.clone());
        match judge.judge(&history) {
            // A watcher may need a moment to connect again.
            Err(violation)
                if violation.property == "watch.delivery"
                    && violation.detail.contains("was never told")
                    && Instant::now() < deadline =>
            {
                sleep(LOOK_INTERVAL * 10).await;
            }
            judged => return judged,
        }
    }
}

fn report(ending: Ending) -> Report {
    world::with(|world| {
        let calls = &world.history.calls;
        let answered = calls
            .iter()
            .filter(|call| matches!(call.outcome, crate::history::Outcome::Answered(_)));
        Report {
            violation: world.violation().cloned(),
            hash: world.trace.hash(),
            events: world.trace.events(),
            simulated: Duration::from_nanos(world.now_ns()),
            calls: (calls.len(), answered.count()),
            watched: world
                .history
                .watches
                .iter()
                .map(|it| it.responses.len())
                .sum(),
            facts: ending.facts.unwrap_or_default(),
            own: ending.own,
            faults: world.faults.clone(),
        }
    })
}
