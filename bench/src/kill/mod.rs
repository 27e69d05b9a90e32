//! The kill test: a cluster of real processes under load, killed and paused at random, judged by what clients saw.

mod load;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_sim::history::{Compared, Fault, History, Operation, Step, write_line};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::transport::Channel;

use crate::cluster::Cluster;
use load::Shared;

/// What to kill, and how often.
#[derive(Args)]
pub(crate) struct Options {
    /// The server to test; it takes etcd's flags.
    #[arg(long)]
    binary: PathBuf,
    /// Where the members keep their data; must not exist. A temporary directory by default.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// How many members.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// How many faults.
    #[arg(long, default_value_t = 50)]
    faults: usize,
    /// How many clients.
    #[arg(long, default_value_t = 12)]
    clients: usize,
    /// The seed of the faults and of the load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what the clients saw into this file, one operation a line, as `quorate-sim judge` reads it.
    #[arg(long)]
    history: Option<PathBuf>,
    /// More arguments for every member.
    #[arg(last = true)]
    extra: Vec<String>,
}

/// How long the cluster may take to serve again after a fault, and all members to agree in the end.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Runs the test; `true` if everything holds.
pub(crate) async fn run(options: Options) -> Result<bool, String> {
    let temporary = std::env::temp_dir().join(format!(
        "quorate-kill-{}-{}",
        std::process::id(),
        options.seed
    ));
    let directory = options.directory.clone().unwrap_or(temporary);
    std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut cluster = Cluster::new(&options.binary, &directory, options.members, &options.extra)?;
    for number in 0..cluster.size() {
        cluster.start(number)?;
    }
    wait_until_served(&cluster.client_urls()).await?;
    let shared = Shared::new();
    let mut clients = Vec::new();
    for number in 0..options.clients {
        let members = cluster
            .client_urls()
            .iter()
            .map(|url| load::connect(url))
            .collect::<Result<Vec<_>, _>>()?;
        clients.push(tokio::spawn(load::client(
            Arc::clone(&shared),
            number,
            members,
            options.seed,
        )));
    }
    let hurt = hurt(&mut cluster, &options).await;
    shared.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    hurt?;
    let verdict = judge(&mut cluster, &shared, options.history.as_deref()).await;
    drop(cluster);
    match verdict {
        Ok(report) => {
            println!("{report}");
            if options.directory.is_none() {
                let _ = std::fs::remove_dir_all(&directory);
            }
            Ok(true)
        }
        Err(violation) => {
            println!(
                "VIOLATION {violation}\ndata and logs are in {}",
                directory.display()
            );
            Ok(false)
        }
    }
}

/// Carries out the faults, one after the other, with some healthy time between them.
async fn hurt(cluster: &mut Cluster, options: &Options) -> Result<(), String> {
    let mut random = SmallRng::seed_from_u64(options.seed);
    let mut longest = Duration::ZERO;
    for fault in 1..=options.faults {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1500))).await;
        let number = random.random_range(0..cluster.size());
        let rest = Duration::from_millis(random.random_range(0..2500));
        let name = match random.random_range(0..10) {
            0..5 => {
                cluster.kill(number);
                tokio::time::sleep(rest).await;
                cluster.start(number)?;
                format!("kill -9 of member {number}")
            }
            5..7 => {
                (0..cluster.size()).for_each(|number| cluster.kill(number));
                tokio::time::sleep(rest / 4).await;
                (0..cluster.size()).try_for_each(|number| cluster.start(number))?;
                "kill -9 of all members".to_string()
            }
            _ => {
                let leader = leader(&cluster.client_urls()).await.unwrap_or(number);
                cluster.pause(leader, true);
                tokio::time::sleep(rest + Duration::from_millis(500)).await;
                cluster.pause(leader, false);
                format!("pause of the leader, member {leader}")
            }
        };
        let began = Instant::now();
        wait_until_served(&cluster.client_urls()).await?;
        longest = longest.max(began.elapsed());
        eprintln!(
            "fault {fault}: {name}, served again after {:.1?}",
            began.elapsed()
        );
        if let Some((number, log)) = cluster.died() {
            return Err(format!(
                "member {number} ended by itself after fault {fault}:\n{log}"
            ));
        }
    }
    eprintln!("longest time until all members served again: {longest:.1?}");
    Ok(())
}

/// Waits until every member answers a linearizable read.
async fn wait_until_served(urls: &[String]) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY_MAX;
    for url in urls {
        let mut client = load::connect(url)?;
        loop {
            let get = pb::RangeRequest {
                key: Bytes::from_static(b"probe"),
                ..Default::default()
            };
            let answer = tokio::time::timeout(Duration::from_secs(2), client.range(get)).await;
            if matches!(answer, Ok(Ok(_))) {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "{url} does not serve within {RECOVERY_MAX:?}: {answer:?}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// The number of the member that leads.
async fn leader(urls: &[String]) -> Option<usize> {
    for (number, url) in urls.iter().enumerate() {
        let mut client = MaintenanceClient::connect(url.clone()).await.ok()?;
        let status = client.status(pb::StatusRequest {}).await.ok()?.into_inner();
        if status.leader != 0
            && status
                .header
                .is_some_and(|header| header.member_id == status.leader)
        {
            return Some(number);
        }
    }
    None
}

/// What the store says was written, in order: revision, key, value; no value for a deletion.
type Written = Vec<(i64, String, String)>;

/// Compares members with each other, and has the history judged.
async fn judge(
    cluster: &mut Cluster,
    shared: &Shared,
    file: Option<&Path>,
) -> Result<String, String> {
    let urls = cluster.client_urls();
    // What each member shows in the end is part of the history.
    for url in &urls {
        let mut member = load::connect(url)?;
        let all = load::read_all(shared, &mut member).await;
        let all = all.map_err(|status| format!("{url}: {status}"))?;
        shared.history.lock().expect("no panic").push(all);
    }
    let revision = current_revision(&urls[0]).await?;
    let mut logs = Vec::new();
    let mut hashes = Vec::new();
    for url in &urls {
        logs.push(written(url, revision).await?);
        hashes.push(hash(url, revision).await?);
    }
    if logs.iter().any(|log| *log != logs[0]) {
        return Err("members have written different things".into());
    }
    if hashes.iter().any(|hash| *hash != hashes[0]) {
        return Err(format!(
            "HashKV at revision {revision} differs: {hashes:x?}"
        ));
    }
    let history = History(std::mem::take(
        &mut *shared.history.lock().expect("no panic"),
    ));
    if let Some(file) = file {
        let lines: String = history
            .0
            .iter()
            .map(|operation| write_line(operation) + "\n")
            .collect();
        std::fs::write(file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    check_log(&history.0, &logs[0])?;
    let began = Instant::now();
    let Compared {
        writes,
        reads,
        unknown,
        unknown_seen,
        ..
    } = history.judge().map_err(|fault| match fault {
        Fault::Violation { operation, .. } => format!("{fault}\n  {:?}", history.0[operation]),
        fault => fault.to_string(),
    })?;
    if writes == 0 || reads == 0 {
        return Err("nothing was compared".into());
    }
    Ok(format!(
        "linearizable: {} operations ({writes} writes and {reads} reads answered, {unknown} writes unknown of which \
         {unknown_seen} were seen), judged in {:.1?}; {} members agree at revision {revision}, HashKV {:08x}",
        history.0.len(),
        began.elapsed(),
        urls.len(),
        hashes[0]
    ))
}

/// What the judge cannot know, since it sees no log: each value was written once at most, and an answered put where it was said.
fn check_log(history: &[Operation], log: &Written) -> Result<(), String> {
    let puts = log.iter().filter(|(_, _, value)| !value.is_empty());
    let mut at: BTreeMap<&str, i64> = BTreeMap::new();
    for (revision, _, value) in puts {
        if let Some(first) = at.insert(value, *revision) {
            return Err(format!(
                "{value} was written at revision {first} and again at {revision}"
            ));
        }
    }
    for operation in history {
        let (Step::Put { value, .. }, Some(answer)) = (&operation.success[0], &operation.answer)
        else {
            continue;
        };
        let wanted = answer.succeeded.then_some(answer.revision);
        let found = at.get(value.as_str()).copied();
        if found != wanted {
            return Err(format!("the log has it at {found:?}:\n  {operation:?}"));
        }
    }
    Ok(())
}

async fn current_revision(url: &str) -> Result<i64, String> {
    let mut client = KvClient::connect(url.to_string())
        .await
        .map_err(|error| error.to_string())?;
    let get = pb::RangeRequest {
        key: Bytes::from_static(b"probe"),
        ..Default::default()
    };
    let response = client
        .range(get)
        .await
        .map_err(|status| status.to_string())?
        .into_inner();
    Ok(response.header.map_or(0, |header| header.revision))
}

/// Everything that a member's watch shows from the first revision on.
async fn written(url: &str, revision: i64) -> Result<Written, String> {
    let mut client: WatchClient<Channel> = WatchClient::connect(url.to_string())
        .await
        .map_err(|error| error.to_string())?;
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: 1,
        ..Default::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let fail = |status: tonic::Status| format!("{url}: {status}");
    let mut stream = client.watch(requests).await.map_err(fail)?.into_inner();
    let mut written = Written::new();
    while written.last().is_none_or(|(last, ..)| *last < revision) {
        let next = tokio::time::timeout(RECOVERY_MAX, stream.message()).await;
        let response = next
            .map_err(|_| format!("{url}: no events up to revision {revision}"))?
            .map_err(fail)?;
        for event in response.ok_or("the watch ended")?.events {
            let kv = event.kv.ok_or("an event without a key")?;
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            written.push((kv.mod_revision, text(&kv.key), text(&kv.value)));
        }
    }
    Ok(written)
}

async fn hash(url: &str, revision: i64) -> Result<u32, String> {
    let mut client = MaintenanceClient::connect(url.to_string())
        .await
        .map_err(|error| error.to_string())?;
    let response = client
        .hash_kv(pb::HashKvRequest { revision })
        .await
        .map_err(|status| status.to_string())?;
    Ok(response.into_inner().hash)
}

#[cfg(test)]
mod tests {
    use quorate_sim::history::Found;

    use super::*;

    fn put(value: &str, revision: i64) -> Operation {
        Operation::put(0, 0, "k", value).answered(1, revision, vec![Found::Put])
    }

    fn log(values: &[(i64, &str)]) -> Written {
        let row = |(revision, value): &(i64, &str)| (*revision, "k".into(), (*value).into());
        values.iter().map(row).collect()
    }

    #[test]
    fn lost_doubled_and_refused_writes_are_found_in_the_log() {
        let sound = log(&[(2, "a"), (3, ""), (4, "")]);
        check_log(&[put("a", 2)], &sound).unwrap();
        assert!(check_log(&[put("b", 3)], &sound).is_err());
        assert!(check_log(&[put("a", 3)], &sound).is_err());
        assert!(check_log(&[], &log(&[(2, "a"), (3, "a")])).is_err());
        let mut refused = put("a", 2);
        refused.answer.as_mut().unwrap().succeeded = false;
        assert!(check_log(&[refused], &sound).is_err());
    }
}
