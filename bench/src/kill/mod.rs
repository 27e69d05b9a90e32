//! The kill test: a cluster of real processes under load, killed and paused at random, judged by what clients saw.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb as pb;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Cluster;
use crate::patience::until_by_attempts;
use crate::recorded::{self, Manner, Shared};

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
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for number in 0..options.clients {
        let members = cluster
            .client_urls()
            .iter()
            .map(|url| recorded::connect(url))
            .collect::<Result<Vec<_>, _>>()?;
        let manner = Manner {
            number,
            seed: options.seed,
            rest: Duration::ZERO,
            is_over: Arc::clone(&is_over),
        };
        clients.push(tokio::spawn(recorded::client(
            Arc::clone(&shared),
            manner,
            members,
        )));
    }
    let hurt = hurt(&mut cluster, &options).await;
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    hurt?;
    let urls = cluster.client_urls();
    let verdict = recorded::judge(&urls, &shared, None, options.history.as_deref()).await;
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
    for url in urls {
        let mut client = recorded::connect(url)?;
        until_by_attempts(
            &format!("{url} serves"),
            Duration::from_secs(2),
            async || {
                let get = pb::RangeRequest {
                    key: Bytes::from_static(b"probe"),
                    ..Default::default()
                };
                let answer = client.range(get).await;
                answer.map_err(|status| status.to_string())
            },
        )
        .await?;
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
