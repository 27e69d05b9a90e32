//! What the user asks for.
//!
//! Exit codes: 0 when everything holds, 1 when a seed failed or a checker had nothing to compare, 2 when the command
//! could not be carried out.

use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use quorate_sim::options::Options;
use quorate_sim::run::{SeedReport, catch_panics, run_options, run_seed};

use crate::determinism;
use crate::report::Summary;

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
#[command(
    name = "quorate-sim",
    version,
    about = "Deterministic simulation of Quorate clusters under faults"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run seeds and check every property; the default.
    Run(RunArguments),
    /// Run one seed again and print its events.
    Repro {
        /// The seed.
        seed: u64,
        /// Print the verdict only.
        #[arg(long)]
        quiet: bool,
    },
    /// Run each seed twice, in two processes, and compare the hashes of the traces.
    CheckDeterminism(RunArguments),
}

/// Which seeds, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// The seeds from A to B, without B.
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = parse_seeds)]
    pub(crate) seeds: Range<u64>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Seeds that run at the same time, each in its own thread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) jobs: u64,
    /// Three members with etcd's timers, twenty operations a second and faults, instead of what each seed draws: what
    /// speed is measured with.
    #[arg(long)]
    pub(crate) standard: bool,
    /// Print the hash of each seed's trace.
    #[arg(long, hide = true)]
    pub(crate) hashes: bool,
}

impl RunArguments {
    fn run_seed(&self, seed: u64) -> SeedReport {
        let options = match self.standard {
            true => Options::draw_standard(seed),
            false => Options::draw(seed),
        };
        run_options(seed, options, false)
    }
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text
        .split_once("..")
        .ok_or("expected A..B, such as 0..1000")?;
    let parse = |part: &str| {
        part.parse::<u64>()
            .map_err(|error| format!("{part}: {error}"))
    };
    let seeds = parse(first)?..parse(end)?;
    if seeds.is_empty() {
        Err("the range is empty".to_owned())
    } else {
        Ok(seeds)
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    catch_panics();
    match arguments.command {
        None => run(&arguments.run),
        Some(Command::Run(run_arguments)) => run(&run_arguments),
        Some(Command::Repro { seed, quiet }) => repro(seed, quiet),
        Some(Command::CheckDeterminism(run_arguments)) => determinism::check(&run_arguments),
    }
}

fn run(arguments: &RunArguments) -> ExitCode {
    let begun = Instant::now();
    let mut summary = Summary::new(arguments.seeds.end - arguments.seeds.start);
    let mut shown = Instant::now();
    for_each_report(arguments, |report| {
        if arguments.hashes {
            let hash = report
                .hash
                .map_or_else(|| "panic".to_owned(), |hash| hash.to_string());
            println!("{} {hash}", report.seed);
        } else if !arguments.json {
            summary.show_failure(&report);
        }
        summary.add(report);
        if !arguments.hashes && !arguments.json && shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            summary.show_progress(begun.elapsed());
        }
    });
    if arguments.hashes {
        return ExitCode::SUCCESS;
    }
    if arguments.json {
        summary.print_json(begun.elapsed());
    } else {
        summary.print(begun.elapsed());
    }
    if summary.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

/// Runs the seeds on as many threads as asked for. A run itself has none.
fn for_each_report(arguments: &RunArguments, mut take: impl FnMut(SeedReport)) {
    let next = AtomicU64::new(arguments.seeds.start);
    let end = arguments.seeds.end;
    std::thread::scope(|scope| {
        let (done, reports) = channel();
        for _ in 0..arguments.jobs {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(arguments.run_seed(seed)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        reports.iter().for_each(&mut take);
    });
}

fn repro(seed: u64, quiet: bool) -> ExitCode {
    say(&format!("seed {seed}: {:#?}", Options::draw(seed)));
    let report = run_seed(seed, !quiet);
    match &report.failure {
        None => {
            let hash = report
                .hash
                .map_or_else(String::new, |hash| hash.to_string());
            let events = report.events;
            say(&format!("seed {seed} holds: {events} events, trace {hash}"));
            ExitCode::SUCCESS
        }
        Some(failure) => {
            say(&format!("seed {seed} FAILS: {failure}"));
            ExitCode::from(1)
        }
    }
}

/// A line on stdout, for as long as somebody reads there.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds_are_understood_or_refused() {
        assert_eq!(parse_seeds("3..9"), Ok(3..9));
        for wrong in ["3", "9..3", "3..3", "a..b", "-1..4"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }
}
