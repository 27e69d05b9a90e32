//! The cheap client's load on one server: a thread for each connection. Also as a command of its own, for looking at
//! a server with a profiler while it works.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;

use super::work::{self, Work};
use super::{figures_of, process, raw};

/// One kind of load on a server that runs already.
#[derive(Args)]
pub(crate) struct Options {
    /// Its client address.
    #[arg(long, default_value = "127.0.0.1:2379")]
    address: String,
    /// What to do.
    #[arg(long, value_enum)]
    work: Kind,
    /// Keys in the store; `fill` writes each once.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Seconds of load; `fill` ends by itself.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Requests that are open at a time, on all connections together.
    #[arg(long, default_value_t = 256)]
    in_flight: u64,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: u64,
    /// The server's process, for its CPU time and memory.
    #[arg(long)]
    process: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Fill,
    Put,
    Get,
    SerializableGet,
    /// Ranges of 100 keys.
    Range,
}

impl Kind {
    fn work(self) -> Work {
        match self {
            Self::Fill => Work::Fill,
            Self::Put => Work::Put,
            Self::Get => Work::LinearizableGet,
            Self::SerializableGet => Work::SerializableGet,
            Self::Range => Work::Range(100),
        }
    }
}

/// Loads a server and prints what it took.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let began = Instant::now();
    let work = options.work.work();
    let until = match work {
        Work::Fill => began + Duration::from_secs(3600),
        _ => began + Duration::from_secs(options.seconds),
    };
    let connections = options.connections.min(options.in_flight);
    let each =
        usize::try_from(options.in_flight / connections).map_err(|error| error.to_string())?;
    let cpu = options.process.map_or(0.0, process::cpu_seconds);
    let seen = drive(
        &options.address,
        work,
        connections,
        options.keys,
        each,
        until,
    )?;
    let cpu = options.process.map_or(0.0, process::cpu_seconds) - cpu;
    let duration = match work {
        Work::Fill => began.elapsed(),
        _ => Duration::from_secs(options.seconds),
    };
    println!("{}: {:?}", work.name(), figures_of(&seen, duration, cpu));
    for quantile in [0.9, 0.999, 1.0] {
        let latency = seen.value_at_quantile(quantile) as f64 / 1000.0;
        println!("    {:.1} % within {latency:.2} ms", quantile * 100.0);
    }
    if let Some(process) = options.process {
        let (all, own) = process::resident_bytes(process);
        println!(
            "    resident: {:.1} MB, of which {:.1} MB are not files",
            all as f64 / 1e6,
            own as f64 / 1e6
        );
    }
    Ok(true)
}

/// Loads a server; the answer holds microseconds. A refused request is an error.
pub(super) fn drive(
    address: &str,
    work: Work,
    connections: u64,
    keys: u64,
    in_flight: usize,
    until: Instant,
) -> Result<Histogram<u64>, String> {
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|number| {
                let mut requests = work.requests(number, connections, keys);
                let count = match work {
                    Work::Fill => work::fill_requests(keys, connections, number),
                    _ => u64::MAX,
                };
                scope.spawn(move || {
                    raw::run(address, work.path(), in_flight, until, count, &mut requests)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("legal bounds");
    for seen in results {
        let seen = seen.map_err(|error| error.to_string())?;
        if seen.refused > 0 {
            return Err(format!(
                "refused {} of {} requests",
                seen.refused,
                seen.answered + seen.refused
            ));
        }
        latency.add(seen.latency).expect("equal bounds");
    }
    Ok(latency)
}
