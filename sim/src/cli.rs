//! What the user asks for.
//!
//! Exit codes: 0 when everything holds, 1 when a seed failed or nothing was looked at that should have been, 2 when the
//! command could not be carried out.

use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use quorate_sim::crash_points;
use quorate_sim::run::catch_panics;
use quorate_sim::scenario::{self, Scenario, ScenarioError};

use crate::batch::{Batch, Ran};
use crate::explain::explain;
use crate::judge::judge;
use crate::report::Report;
use crate::subject::Subject;
use crate::{determinism, json};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Seeds of a run without scenarios, if nothing is said.
const SEEDS: Range<u64> = 0..1000;
/// Seeds of each scenario, if nothing is said.
const SEEDS_OF_SCENARIO: Range<u64> = 0..20;

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
    /// Run seeds, of scenarios or with everything drawn, and check every property; the default.
    Run(RunArguments),
    /// Tell whether a history of clients, one operation a line, is linearizable.
    Judge {
        /// The file (docs/simulation.md says what is in it), or - for the standard input.
        file: PathBuf,
    },
    /// Run one seed again and print its events.
    Repro {
        /// The seed.
        seed: u64,
        /// A scenario file, or the name of one in scenarios/.
        scenario: Option<String>,
        /// What `run --standard` runs.
        #[arg(long, conflicts_with = "scenario")]
        standard: bool,
        /// Print the verdict only.
        #[arg(long)]
        quiet: bool,
    },
    /// Print what a seed makes of a scenario: the cluster, the load, and what goes wrong when.
    Explain {
        /// A scenario file, or the name of one in scenarios/; without one, what is drawn from the seed alone.
        scenario: Option<String>,
        /// The seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// List scenarios with what they hunt.
    List {
        /// Scenario files, and directories of them.
        #[arg(value_name = "SCENARIO|DIR", default_value = "scenarios")]
        scenarios: Vec<String>,
    },
    /// Run each seed twice, in two processes, and compare the hashes of the traces.
    CheckDeterminism(RunArguments),
    /// Run one script of 200 operations again and again, with the power going at each operation of a disk in turn; and with
    /// all copies of the data but one damaged.
    CrashPoints {
        /// Take only every n-th point.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        every: u64,
        /// Runs at the same time.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
        jobs: u64,
    },
}

/// Which seeds of what, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// Scenario files, names of files in scenarios/, and directories; without any, everything is drawn from the seed.
    #[arg(value_name = "SCENARIO|DIR")]
    pub(crate) scenarios: Vec<String>,
    /// One seed.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// The seeds from A to B, without B [default: 0..1000, with scenarios 0..20 of each].
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    pub(crate) seeds: Option<Range<u64>>,
    /// Print one JSON object a seed, and one for each scenario in the end, instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Seeds that run at the same time, each in its own thread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) jobs: u64,
    /// Three members with etcd's timers, twenty operations a second and faults, instead of what each seed draws: what
    /// speed is measured with.
    #[arg(long, conflicts_with = "scenarios")]
    pub(crate) standard: bool,
    /// Begin no run after this time, such as 90s or 10m.
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) time_limit: Option<Duration>,
    /// Begin no run after one has failed.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Print the hash of each seed's trace.
    #[arg(long, hide = true)]
    pub(crate) hashes: bool,
}

impl RunArguments {
    /// The seeds of each subject.
    pub(crate) fn range(&self) -> Range<u64> {
        let usual = match self.scenarios.is_empty() {
            true => SEEDS,
            false => SEEDS_OF_SCENARIO,
        };
        let one = self.seed.map(|seed| seed..seed.saturating_add(1));
        one.or_else(|| self.seeds.clone()).unwrap_or(usual)
    }

    /// What is run: the scenarios, or nothing but the seeds.
    pub(crate) fn subjects(&self) -> Result<Vec<Subject>, ScenarioError> {
        if self.scenarios.is_empty() {
            return Ok(vec![match self.standard {
                true => Subject::Standard,
                false => Subject::Drawn,
            }]);
        }
        let scenarios = find_all(&self.scenarios)?.into_iter().map(Box::new);
        Ok(scenarios.map(Subject::Scenario).collect())
    }
}

fn find_all(paths: &[String]) -> Result<Vec<Scenario>, ScenarioError> {
    let found = paths.iter().map(|path| scenario::find(path));
    Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
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

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number of seconds, minutes or hours, such as 90s or 10m".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u32>().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * scale))
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    catch_panics();
    let done = match arguments.command {
        None => run(&arguments.run),
        Some(Command::Run(run_arguments)) => run(&run_arguments),
        Some(Command::Repro {
            seed,
            scenario,
            standard,
            quiet,
        }) => match standard {
            true => Ok(Subject::Standard),
            false => find_one(scenario.as_deref()),
        }
        .map(|subject| repeat(seed, &subject, quiet)),
        Some(Command::Explain { scenario, seed }) => find_one(scenario.as_deref()).map(|subject| {
            say(explain(&subject, seed));
            ExitCode::SUCCESS
        }),
        Some(Command::Judge { file }) => Ok(judge(&file)),
        Some(Command::List { scenarios }) => list(&scenarios),
        Some(Command::CheckDeterminism(run_arguments)) => determinism::check(&run_arguments),
        Some(Command::CrashPoints { every, jobs }) => Ok(cut_power(every, jobs)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

fn run(arguments: &RunArguments) -> Result<ExitCode, ScenarioError> {
    let mut subjects = arguments.subjects()?;
    let reason = |subject: &Subject| {
        let reason = subject.skipped()?;
        Some((subject.name().to_owned(), reason.to_owned()))
    };
    let skipped: Vec<_> = subjects.iter().filter_map(reason).collect();
    subjects.retain(|subject| subject.skipped().is_none());
    let batch = Batch {
        subjects: &subjects,
        seeds: arguments.range(),
        jobs: arguments.jobs as usize,
        time_limit: arguments.time_limit,
        stops_at_failure: arguments.fail_fast,
    };
    if arguments.hashes {
        batch.run(|ran| print_hash(&subjects, &ran));
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    let mut report = Report::new(&batch);
    let mut shown = Instant::now();
    batch.run(|ran| {
        let subject = &subjects[ran.subject];
        if arguments.json {
            say(json::of_seed(subject, &ran));
        } else {
            report.show_failure(subject, &ran.report);
        }
        report.add(ran);
        if shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            report.show_progress(begun.elapsed());
        }
    });
    if arguments.json {
        report.each_summary(|subject, summary| say(json::of_summary(subject, summary)));
        for (name, reason) in &skipped {
            say(json::of_skipped(name, reason));
        }
    } else {
        report.print(begun.elapsed());
        for (name, reason) in &skipped {
            say(format_args!("{name} was skipped: {reason}"));
        }
        report.print_verdict();
    }
    Ok(ExitCode::from(u8::from(!report.is_good())))
}

fn print_hash(subjects: &[Subject], ran: &Ran) {
    let hash = ran.report.hash;
    let hash = hash.map_or_else(|| "panic".to_owned(), |hash| hash.to_string());
    let argument = subjects[ran.subject].argument();
    say(format_args!("{} {hash}{argument}", ran.report.seed));
}

fn find_one(path: Option<&str>) -> Result<Subject, ScenarioError> {
    let Some(path) = path else {
        return Ok(Subject::Drawn);
    };
    let mut found = scenario::find(path)?;
    match (found.pop(), found.is_empty()) {
        (Some(scenario), true) => Ok(Subject::Scenario(Box::new(scenario))),
        _ => Err(ScenarioError::of_file(
            path,
            "found several scenarios, expected one",
        )),
    }
}

fn repeat(seed: u64, subject: &Subject, quiet: bool) -> ExitCode {
    say(explain(subject, seed));
    if !quiet {
        say(quorate_sim::trace::LEGEND);
    }
    let report = subject.run(seed, !quiet);
    match &report.failure {
        None => {
            let hash = report
                .hash
                .map_or_else(String::new, |hash| hash.to_string());
            let events = report.events;
            say(format_args!(
                "seed {seed} holds: {events} events, trace {hash}"
            ));
            ExitCode::SUCCESS
        }
        Some(failure) => {
            say(format_args!("seed {seed} FAILS: {failure}"));
            say(subject.repro(seed));
            ExitCode::from(1)
        }
    }
}

fn list(paths: &[String]) -> Result<ExitCode, ScenarioError> {
    for scenario in find_all(paths)? {
        let about = scenario.about.split_inclusive(". ").next();
        let about = about.unwrap_or_default().trim();
        say(format_args!("{:<34} {about}", scenario.name));
        if let Some(reason) = &scenario.skipped_in_simulation {
            say(format_args!("{:<34} skipped: {reason}", ""));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn cut_power(every: u64, jobs: u64) -> ExitCode {
    let begun = Instant::now();
    let mut is_good = true;
    for sweep in crash_points::SWEEPS {
        let swept = sweep.run(every, jobs);
        say(swept.to_string());
        is_good &= swept.failures.is_empty();
    }
    say(format_args!("{:.1} s", begun.elapsed().as_secs_f64()));
    ExitCode::from(u8::from(!is_good))
}

/// A line on stdout, for as long as somebody reads there.
pub(crate) fn say(line: impl std::fmt::Display) {
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

    #[test]
    fn time_limits_have_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["90", "s", "", "1.5m", "-3s", "3é"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
