//! What operators do with a large store: backups, restores, restarts, new members. Time and peak memory, side by side.
//!
//! Each figure is the median of its rounds, which alternate between the servers, as in the comparison of ordinary load.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use quorate_net::grpc::etcdserverpb::cluster_client::ClusterClient;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb as pb;
use tokio::io::AsyncWriteExt as _;

use super::report::Row;
use super::work::Work;
use super::{Figures, Subject, fill, process, report, restart, round, row, start};
use crate::cluster::free_ports;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: super::Options,
    /// Quorate's tool for backups.
    #[arg(long, default_value = "target/release/quorateutl")]
    ours_utl: PathBuf,
    /// etcd's tool for backups.
    #[arg(long)]
    etcd_utl: PathBuf,
}

/// Puts in flight while backups are taken.
const IN_FLIGHT: usize = 64;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The key that a new member must have.
const PROBE: Bytes = Bytes::from_static(b"probe");

/// A server, its tools, and what was measured.
struct Side<'a> {
    subject: Subject,
    server: &'a Path,
    utl: &'a Path,
    directory: PathBuf,
}

/// How long something took, and the most memory that it held meanwhile.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    megabytes: f64,
}

/// Measures everything and writes the report.
pub(crate) async fn run(options: &Options) -> Result<bool, String> {
    let common = &options.common;
    let temporary = std::env::temp_dir().join(format!("quorate-upkeep-{}", std::process::id()));
    let directory = common.directory.clone().unwrap_or(temporary);
    let outcome = measure_all(options, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    let rows = outcome?;
    report::store(&common.output, "upkeep", &rows)?;
    Ok(true)
}

async fn measure_all(options: &Options, directory: &Path) -> Result<Vec<Row>, String> {
    let common = &options.common;
    let mut sides = Vec::new();
    for (name, server, utl) in [
        ("quorate", &common.ours, &options.ours_utl),
        ("etcd", &common.etcd, &options.etcd_utl),
    ] {
        let subject = start(name, server, directory, 1).await?;
        fill(common, &subject)?;
        let directory = directory.join(name);
        sides.push(Side {
            subject,
            server,
            utl,
            directory,
        });
    }
    let mut rows = Vec::new();
    puts(common, &sides, &mut rows)?;
    for side in &sides {
        forget_history(side).await?;
    }
    let mut saves = [Vec::new(), Vec::new()];
    let mut restores = [Vec::new(), Vec::new()];
    let mut joins = [Vec::new(), Vec::new()];
    for _ in 0..common.rounds {
        for (of, side) in saves.iter_mut().zip(&sides) {
            of.push(save(side).await?);
        }
        for (of, side) in restores.iter_mut().zip(&sides) {
            of.push(restore(side)?);
        }
    }
    push("snapshot save", "server", &saves, &mut rows);
    push("snapshot restore", "tool", &restores, &mut rows);
    let times = [
        restart(&mut sides[0].subject).await?,
        restart(&mut sides[1].subject).await?,
    ];
    rows.push(row(
        "restart to first linearizable read".into(),
        "s",
        times[0],
        times[1],
        false,
    ));
    for number in 0..common.rounds {
        for (of, side) in joins.iter_mut().zip(&mut sides) {
            of.push(join(side, number).await?);
        }
    }
    push(
        "new member to its first read",
        "new member",
        &joins,
        &mut rows,
    );
    Ok(rows)
}

/// Leaves nothing but the keys: the faster server has taken more puts by now, and would have more to carry.
async fn forget_history(side: &Side<'_>) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: compact: {error}", side.subject.name);
    let url = side.subject.cluster.client_urls()[0].clone();
    let client = KvClient::connect(url.clone()).await;
    let mut kv = client.map_err(|error| fail(&error))?;
    let client = MaintenanceClient::connect(url).await;
    let mut maintenance = client.map_err(|error| fail(&error))?;
    let status = maintenance.status(pb::StatusRequest {}).await;
    let header = status.map_err(|error| fail(&error))?.into_inner().header;
    let compact = pb::CompactionRequest {
        revision: header.unwrap_or_default().revision,
        physical: true,
    };
    kv.compact(compact).await.map_err(|error| fail(&error))?;
    let freed = maintenance.defragment(pb::DefragmentRequest {}).await;
    freed.map(drop).map_err(|error| fail(&error))
}

/// Two rows: the time, and the peak of whose memory counts.
fn push(what: &str, whose: &str, costs: &[Vec<Cost>; 2], rows: &mut Vec<Row>) {
    let median = |side: usize, figure: fn(&Cost) -> f64| {
        let mut values: Vec<_> = costs[side].iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut add = |what: String, unit, figure: fn(&Cost) -> f64| {
        let (ours, etcd) = (median(0, figure), median(1, figure));
        eprintln!("{what}: quorate {ours:.2} {unit}, etcd {etcd:.2} {unit}");
        rows.push(row(what, unit, ours, etcd, false));
    };
    add(what.to_owned(), "s", |cost| cost.seconds);
    add(format!("{what}: {whose}'s memory at most"), "MB", |cost| {
        cost.megabytes
    });
}

/// What goes on beside puts, again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The call `Hash`: Quorate writes a checkpoint for it, etcd reads all of its file.
    Checkpoints,
    Backups,
}

const BESIDE: [(Beside, &str); 3] = [
    (Beside::Nothing, ""),
    (Beside::Checkpoints, " while checkpoints are written"),
    (Beside::Backups, " while backups are taken"),
];

/// Puts by themselves and beside other work, in rounds that alternate: the disk is not the same from one minute to the
/// next.
fn puts(options: &super::Options, sides: &[Side<'_>], rows: &mut Vec<Row>) -> Result<(), String> {
    let mut figures = BESIDE.map(|_| [Vec::new(), Vec::new()]);
    for _ in 0..options.rounds {
        for (of_both, (beside, _)) in figures.iter_mut().zip(BESIDE) {
            for (of, side) in of_both.iter_mut().zip(sides) {
                of.push(puts_beside(options, side, beside)?);
            }
        }
    }
    for (of_both, (_, name)) in figures.iter().zip(BESIDE) {
        let [ours, etcd] = of_both.each_ref().map(|rounds| super::median(rounds));
        let what = format!("put, {IN_FLIGHT} in flight{name}");
        super::push_rows(&what, ours, etcd, rows);
    }
    Ok(())
}

fn puts_beside(
    options: &super::Options,
    side: &Side<'_>,
    beside: Beside,
) -> Result<Figures, String> {
    let is_over = AtomicBool::new(beside == Beside::Nothing);
    std::thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            while !is_over.load(Ordering::Relaxed) {
                if beside == Beside::Backups {
                    runtime.block_on(save(side))?;
                } else {
                    runtime.block_on(hash(side))?;
                }
            }
            Ok::<_, String>(())
        });
        let figures = round(options, &side.subject, Work::Put, IN_FLIGHT);
        is_over.store(true, Ordering::Relaxed);
        saver.join().expect("the saver does not panic")?;
        figures
    })
}

/// A backup over the wire into a file.
async fn save(side: &Side<'_>) -> Result<Cost, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: snapshot: {error}", side.subject.name);
    let url = side.subject.cluster.client_urls()[0].clone();
    let process = side.subject.processes()[0];
    // Something new, so that no earlier image will do.
    put_probe(&url).await?;
    process::forget_peak(process);
    let began = Instant::now();
    let client = MaintenanceClient::connect(url).await;
    let mut client = client.map_err(|error| fail(&error))?;
    let stream = client.snapshot(pb::SnapshotRequest {}).await;
    let mut stream = stream.map_err(|error| fail(&error))?.into_inner();
    let file = tokio::fs::File::create(side.backup()).await;
    let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file.map_err(|it| fail(&it))?);
    while let Some(message) = stream.message().await.map_err(|error| fail(&error))? {
        let written = file.write_all(&message.blob).await;
        written.map_err(|error| fail(&error))?;
    }
    file.flush().await.map_err(|error| fail(&error))?;
    let synced = file.into_inner().sync_all().await;
    synced.map_err(|error| fail(&error))?;
    Ok(Cost {
        seconds: began.elapsed().as_secs_f64(),
        megabytes: process::peak_bytes(process) as f64 / 1e6,
    })
}

/// The hash of everything.
async fn hash(side: &Side<'_>) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: hash: {error}", side.subject.name);
    let url = side.subject.cluster.client_urls()[0].clone();
    let client = MaintenanceClient::connect(url).await;
    let hash = client
        .map_err(|error| fail(&error))?
        .hash(pb::HashRequest {})
        .await;
    hash.map(drop).map_err(|error| fail(&error))
}

/// A data directory from the last backup.
fn restore(side: &Side<'_>) -> Result<Cost, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", side.utl.display());
    let directory = side.directory.join("restored");
    let _ = std::fs::remove_dir_all(&directory);
    let began = Instant::now();
    let mut child = Command::new(side.utl)
        .args(["snapshot", "restore"])
        .arg(side.backup())
        .arg("--data-dir")
        .arg(&directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| fail(&error))?;
    let mut peak = 0;
    loop {
        peak = peak.max(process::peak_bytes(child.id()));
        if let Some(status) = child.try_wait().map_err(|error| fail(&error))? {
            let seconds = began.elapsed().as_secs_f64();
            let _ = std::fs::remove_dir_all(&directory);
            let megabytes = peak as f64 / 1e6;
            return match status.success() {
                true => Ok(Cost { seconds, megabytes }),
                false => Err(fail(&status)),
            };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A member joins with an empty disk, until it answers a read with what was there before; then it is removed.
async fn join(side: &mut Side<'_>, number: usize) -> Result<Cost, String> {
    let fail = |error: &dyn std::fmt::Display| format!("a new member: {error}");
    let url = side.subject.cluster.client_urls()[0].clone();
    put_probe(&url).await?;
    let peer_url = format!("http://127.0.0.1:{}", free_ports(1)?[0]);
    let client = ClusterClient::connect(url).await;
    let client = client.map_err(|error| fail(&error))?;
    let added = patiently(async || {
        let peer_urls = vec![peer_url.clone()];
        let is_learner = false;
        let add = pb::MemberAddRequest {
            peer_urls,
            is_learner,
        };
        client.clone().member_add(add).await
    });
    let added = added.await.map_err(|error| fail(&error))?;
    let id = added.into_inner().member.unwrap_or_default().id;
    let directory = side.directory.join(format!("joined-{number}"));
    std::fs::create_dir_all(&directory).map_err(|error| fail(&error))?;
    let quota = ["--quota-backend-bytes=8589934592", "--log-level=warn"].map(String::from);
    let cluster = &mut side.subject.cluster;
    let place = cluster.join(side.server, &directory, &peer_url, &quota)?;
    let began = Instant::now();
    cluster.start(place)?;
    let process = cluster.process_id(place).expect("it was just started");
    let joined = cluster.client_urls()[place].clone();
    loop {
        if has_probe(&joined).await {
            break;
        }
        if began.elapsed() > PATIENCE || cluster.died().is_some() {
            return Err(fail(&"it never had what was there before"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cost = Cost {
        seconds: began.elapsed().as_secs_f64(),
        megabytes: process::peak_bytes(process) as f64 / 1e6,
    };
    let remove = pb::MemberRemoveRequest { id };
    let removed = patiently(async || client.clone().member_remove(remove).await);
    removed.await.map_err(|error| fail(&error))?;
    cluster.leave();
    std::fs::remove_dir_all(&directory).map_err(|error| fail(&error))?;
    Ok(cost)
}

/// A change of members is refused while anybody has been connected for less than five seconds.
async fn patiently<T>(
    change: impl AsyncFn() -> Result<T, tonic::Status>,
) -> Result<T, tonic::Status> {
    let began = Instant::now();
    loop {
        match change().await {
            Err(refusal)
                if refusal.code() == tonic::Code::Unavailable && began.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            outcome => return outcome,
        }
    }
}

impl Side<'_> {
    fn backup(&self) -> PathBuf {
        self.directory.join("backup.db")
    }
}

async fn put_probe(url: &str) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let client = KvClient::connect(url.to_owned()).await;
    let put = pb::PutRequest {
        key: PROBE,
        ..Default::default()
    };
    let put = client.map_err(|error| fail(&error))?.put(put).await;
    put.map(drop).map_err(|error| fail(&error))
}

async fn has_probe(url: &str) -> bool {
    let Ok(mut client) = KvClient::connect(url.to_owned()).await else {
        return false;
    };
    let get = pb::RangeRequest {
        key: PROBE,
        serializable: true,
        ..Default::default()
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), client.range(get)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.into_inner().count == 1))
}
