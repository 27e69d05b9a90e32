//! The side-by-side benchmark: both servers on this machine, the same load from the same client, ratios.
//!
//! Rounds alternate between the servers, so that a disturbance of the machine hits both; each figure is the median of
//! its rounds. Two clients are used: one that costs almost nothing (`raw`), which shows the server, and tonic's own
//! (`ordinary`), which shows what a usual program gets on the same cores.

pub(crate) mod load;
mod ordinary;
pub(crate) mod process;
mod raw;
mod report;
pub(crate) mod upkeep;
mod work;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb as pb;

use crate::cluster::Cluster;
use report::Row;
use work::Work;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Quorate's server.
    #[arg(long, default_value = "target/release/quorate")]
    ours: PathBuf,
    /// etcd's server.
    #[arg(long)]
    etcd: PathBuf,
    /// Members of each cluster.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Keys in the store for the reads, the memory and the restart.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Length of one round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds of each measurement and server; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections of the cheap client.
    #[arg(long, default_value_t = 4)]
    connections: u64,
    /// Where table, chart and raw figures go.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
    /// Where the servers keep their data: the file system that is measured.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// A server under measurement.
struct Subject {
    name: &'static str,
    cluster: Cluster,
}

/// What one round showed.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
}

/// Measures everything and writes the report.
pub(crate) async fn run(options: &Options) -> Result<bool, String> {
    let temporary = std::env::temp_dir().join(format!("quorate-compare-{}", std::process::id()));
    let directory = options.directory.clone().unwrap_or(temporary);
    let outcome = measure_all(options, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    let rows = outcome?;
    report::store(
        &options.output,
        &format!("compare-{}", options.members),
        &rows,
    )?;
    Ok(true)
}

async fn measure_all(options: &Options, directory: &Path) -> Result<Vec<Row>, String> {
    let mut ours = start("quorate", &options.ours, directory, options.members).await?;
    let mut etcd = start("etcd", &options.etcd, directory, options.members).await?;
    let mut rows = Vec::new();
    let fill = [fill(options, &ours)?, fill(options, &etcd)?];
    rows.push(row(
        format!("load of {} keys", options.keys),
        "s",
        fill[0],
        fill[1],
        false,
    ));
    rows.push(memory("resident memory after the load", &ours, &etcd));
    for work in [Work::LinearizableGet, Work::SerializableGet] {
        compare(options, &ours, &etcd, work, 256, &mut rows).await?;
    }
    compare_ordinary(options, &ours, &etcd, Work::LinearizableGet, &mut rows).await?;
    compare(options, &ours, &etcd, Work::Range(100), 64, &mut rows).await?;
    compare(options, &ours, &etcd, Work::Range(10_000), 4, &mut rows).await?;
    rows.push(memory("resident memory after reads", &ours, &etcd));
    let restart = [restart(&mut ours).await?, restart(&mut etcd).await?];
    rows.push(row(
        "restart to first linearizable read".into(),
        "s",
        restart[0],
        restart[1],
        false,
    ));
    for in_flight in [1, 64, 256, 1000] {
        compare(options, &ours, &etcd, Work::Put, in_flight, &mut rows).await?;
    }
    compare_ordinary(options, &ours, &etcd, Work::Put, &mut rows).await?;
    Ok(rows)
}

fn row(what: String, unit: &'static str, ours: f64, etcd: f64, more_is_better: bool) -> Row {
    Row {
        what,
        unit,
        ours,
        etcd,
        more_is_better,
    }
}

async fn start(
    name: &'static str,
    binary: &Path,
    directory: &Path,
    members: usize,
) -> Result<Subject, String> {
    let directory = directory.join(name);
    std::fs::create_dir_all(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let quota = ["--quota-backend-bytes=8589934592", "--log-level=error"].map(String::from);
    let mut cluster = Cluster::new(binary, &directory, members, &quota)?;
    for number in 0..members {
        cluster.start(number)?;
    }
    let subject = Subject { name, cluster };
    wait_for_read(&subject).await?;
    Ok(subject)
}

/// Waits for the first linearizable read; returns how long it took.
async fn wait_for_read(subject: &Subject) -> Result<f64, String> {
    let began = Instant::now();
    let url = subject.cluster.client_urls()[0].clone();
    while began.elapsed() < Duration::from_secs(120) {
        if let Ok(mut client) = KvClient::connect(url.clone()).await {
            let get = pb::RangeRequest {
                key: Bytes::from_static(b"0"),
                ..Default::default()
            };
            if client.range(get).await.is_ok() {
                return Ok(began.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(format!(
        "{} does not answer within two minutes",
        subject.name
    ))
}

impl Subject {
    fn processes(&self) -> Vec<u32> {
        (0..self.cluster.size())
            .filter_map(|number| self.cluster.process_id(number))
            .collect()
    }

    fn cpu_seconds(&self) -> f64 {
        self.processes().into_iter().map(process::cpu_seconds).sum()
    }

    /// The first member's address: the load goes to one member, as a client's does.
    fn address(&self) -> String {
        self.cluster.client_urls()[0]
            .trim_start_matches("http://")
            .to_string()
    }
}

/// One kind of load against both, in turns.
async fn compare(
    options: &Options,
    ours: &Subject,
    etcd: &Subject,
    work: Work,
    in_flight: usize,
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (of, subject) in figures.iter_mut().zip([ours, etcd]) {
            of.push(round(options, subject, work, in_flight)?);
        }
    }
    let [ours, etcd] = figures.map(|figures| median(&figures));
    let what = format!("{}, {in_flight} in flight", work.name());
    push_rows(&what, ours, etcd, rows);
    Ok(())
}

async fn compare_ordinary(
    options: &Options,
    ours: &Subject,
    etcd: &Subject,
    work: Work,
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    let mut figures = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (of, subject) in figures.iter_mut().zip([ours, etcd]) {
            let cpu = subject.cpu_seconds();
            let duration = Duration::from_secs(options.seconds);
            let latency = ordinary::run(
                &subject.cluster.client_urls()[0],
                work,
                options.keys,
                256,
                duration,
            )
            .await?;
            of.push(figures_of(&latency, duration, subject.cpu_seconds() - cpu));
        }
    }
    let [ours, etcd] = figures.map(|figures| median(&figures));
    push_rows(
        &format!("{}, 256 in flight, ordinary client", work.name()),
        ours,
        etcd,
        rows,
    );
    Ok(())
}

fn push_rows(what: &str, ours: Figures, etcd: Figures, rows: &mut Vec<Row>) {
    eprintln!(
        "{what}: ours {ours:?}\n{:indent$}  etcd {etcd:?}",
        "",
        indent = what.len()
    );
    rows.push(row(
        what.to_string(),
        "1/s",
        ours.per_second,
        etcd.per_second,
        true,
    ));
    rows.push(row(
        format!("{what}: p50"),
        "ms",
        ours.p50_ms,
        etcd.p50_ms,
        false,
    ));
    rows.push(row(
        format!("{what}: p99"),
        "ms",
        ours.p99_ms,
        etcd.p99_ms,
        false,
    ));
    rows.push(row(
        format!("{what}: server CPU"),
        "us/op",
        ours.cpu_us,
        etcd.cpu_us,
        false,
    ));
}

/// One round of the cheap client.
fn round(
    options: &Options,
    subject: &Subject,
    work: Work,
    in_flight: usize,
) -> Result<Figures, String> {
    let connections = options.connections.min(in_flight as u64);
    let duration = Duration::from_secs(options.seconds);
    let until = Instant::now() + duration;
    let cpu = subject.cpu_seconds();
    let each = in_flight / usize::try_from(connections).expect("few connections");
    let seen = load(subject, work, connections, options.keys, each, until)?;
    Ok(figures_of(&seen, duration, subject.cpu_seconds() - cpu))
}

/// Writes every key once; returns the seconds it took.
fn fill(options: &Options, subject: &Subject) -> Result<f64, String> {
    let began = Instant::now();
    let far = began + Duration::from_secs(3600);
    load(
        subject,
        Work::Fill,
        options.connections,
        options.keys,
        64,
        far,
    )?;
    Ok(began.elapsed().as_secs_f64())
}

/// The cheap client's load on a subject.
fn load(
    subject: &Subject,
    work: Work,
    connections: u64,
    keys: u64,
    in_flight: usize,
    until: Instant,
) -> Result<Histogram<u64>, String> {
    let address = subject.address();
    load::drive(&address, work, connections, keys, in_flight, until)
        .map_err(|error| format!("{} at {address}: {error}", subject.name))
}

fn figures_of(latency: &Histogram<u64>, duration: Duration, cpu_seconds: f64) -> Figures {
    let count = latency.len() as f64;
    Figures {
        per_second: count / duration.as_secs_f64(),
        p50_ms: latency.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: latency.value_at_quantile(0.99) as f64 / 1000.0,
        cpu_us: cpu_seconds * 1e6 / count.max(1.0),
    }
}

/// Each figure's median by itself.
fn median(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<_> = rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        per_second: of(|round| round.per_second),
        p50_ms: of(|round| round.p50_ms),
        p99_ms: of(|round| round.p99_ms),
        cpu_us: of(|round| round.cpu_us),
    }
}

fn memory(what: &str, ours: &Subject, etcd: &Subject) -> Row {
    let of = |subject: &Subject| {
        let bytes = subject
            .processes()
            .first()
            .map_or((0, 0), |process| process::resident_bytes(*process));
        eprintln!(
            "{what}: {} holds {} MB, of which {} MB are not files",
            subject.name,
            bytes.0 >> 20,
            bytes.1 >> 20
        );
        bytes.0 as f64 / 1e6
    };
    row(what.to_string(), "MB", of(ours), of(etcd), false)
}

/// Kills the first member and starts it again; returns the seconds until it answers.
async fn restart(subject: &mut Subject) -> Result<f64, String> {
    let mut times = Vec::new();
    for _ in 0..3 {
        for number in 0..subject.cluster.size() {
            subject.cluster.kill(number);
        }
        for number in 0..subject.cluster.size() {
            subject.cluster.start(number)?;
        }
        times.push(wait_for_read(subject).await?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[1])
}
