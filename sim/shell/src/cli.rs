//! The command: many seeds, each in a process of its own.
//!
//! A process a seed, since statics and thread-locals of libraries survive a run and would make the next one depend on
//! it. Exit codes: 0 everything holds, 1 a property is violated, 2 misused.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use quorate_server::simulated::EXITED;
use serde_json::{Value, json};

use crate::options::{FAULTS, Options};
use crate::run::{Report, run};
use crate::subjects::Subjects;

/// Real time after which a run counts as hanging.
const WALL_MAX: Duration = Duration::from_secs(300);

/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(
    name = "quorate-sim-shell",
    about = "Simulates whole members with their own async code"
)]
struct Arguments {
    #[command(subcommand)]
    command: Wanted,
}

#[derive(Subcommand)]
enum Wanted {
    /// Run seeds.
    Run {
        /// Scenario files, names of files in scenarios/, and directories; without any, everything is drawn from the seed.
        #[arg(value_name = "SCENARIO|DIR")]
        scenarios: Vec<String>,
        /// FIRST..LAST, the last one excluded.
        #[arg(long, value_parser = seeds)]
        seeds: (u64, u64),
        /// Seeds at once.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// One line of JSON a seed.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed with a readable trace.
    Repro {
        /// The seed.
        seed: u64,
        /// A scenario file, or the name of one in scenarios/.
        scenario: Option<String>,
    },
    /// Run each seed in two processes and compare the hashes of the traces.
    CheckDeterminism {
        /// FIRST..LAST, the last one excluded.
        #[arg(long, value_parser = seeds)]
        seeds: (u64, u64),
        /// Seeds at once.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Run one seed in this process and print its report as JSON.
    #[command(hide = true)]
    One {
        /// The seed.
        seed: u64,
        /// A scenario file.
        scenario: Option<String>,
        /// Print the trace.
        #[arg(long)]
        verbose: bool,
    },
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(first, last)| {
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first < last).then_some((first, last))
    });
    parsed.ok_or_else(|| "expected FIRST..LAST".to_owned())
}

/// Runs the command.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Wanted::Run {
            scenarios,
            seeds,
            jobs,
            json,
        } => match Subjects::find(&scenarios, seeds) {
            Ok(subjects) => run_all(&subjects, jobs, json),
            Err(error) => misused(&error),
        },
        Wanted::Repro { seed, scenario } => one(seed, scenario.as_deref(), true),
        Wanted::One {
            seed,
            scenario,
            verbose,
        } => one(seed, scenario.as_deref(), verbose),
        Wanted::CheckDeterminism { seeds, jobs } => check_determinism(seeds, jobs),
    }
}

/// Runs one seed here.
fn one(seed: u64, scenario: Option<&str>, verbose: bool) -> ExitCode {
    let options = match options_of(seed, scenario) {
        Ok(options) => options,
        Err(error) => return misused(&error),
    };
    let panicked = catch_panics();
    if std::env::var_os("RUST_LOG").is_some() {
        // The members' own log lines, among those of the trace.
        madsim::runtime::init_logger();
    }
    // Not of the simulated world: real time, for a run that spins.
    std::thread::spawn(|| {
        std::thread::sleep(WALL_MAX);
        eprintln!("the run hangs");
        std::process::exit(1);
    });
    // A fresh thread, whose hash maps take their keys from the seed.
    let ran = std::thread::spawn(move || run(seed, options, verbose)).join();
    let line = match &ran {
        Ok(report) => describe(seed, report),
        Err(_) => {
            let what = panicked.lock().map(|text| text.clone()).unwrap_or_default();
            json!({"seed": seed, "verdict": "violated", "property": "panic", "detail": what})
        }
    };
    println!("{line}");
    let holds = line["verdict"] == "ok";
    if !holds && verbose {
        println!("reproduce it: {}", repro(seed, scenario));
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn misused(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(2)
}

fn options_of(seed: u64, scenario: Option<&str>) -> Result<Options, String> {
    let Some(path) = scenario else {
        return Ok(Options::draw(seed));
    };
    match &quorate_sim::scenario::find(path).map_err(|error| error.to_string())?[..] {
        [scenario] => crate::scenario::options(scenario, seed),
        _ => Err(format!("{path}: expected one scenario")),
    }
}

/// The command that shows a run again.
fn repro(seed: u64, scenario: Option<&str>) -> String {
    let file = scenario.map_or(String::new(), |file| format!(" {file}"));
    format!("cargo sim-shell repro {seed}{file}")
}

/// Keeps the first panic that is not the end of a simulated process.
fn catch_panics() -> &'static Mutex<String> {
    static FIRST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        if text.contains(EXITED) {
            return;
        }
        eprintln!("{text}");
        if let Ok(mut first) = FIRST.lock()
            && first.is_empty()
        {
            *first = text;
        }
    }));
    &FIRST
}

fn describe(seed: u64, report: &Report) -> Value {
    let violation = report.violation.as_ref();
    let facts: BTreeMap<_, _> = report
        .facts
        .iter()
        .filter(|(_, count)| *count > 0)
        .chain(report.own.0.iter().map(|(name, count)| (*name, *count)))
        .collect();
    json!({
        "seed": seed,
        "verdict": if violation.is_some() { "violated" } else { "ok" },
        "property": violation.map_or("", |violation| violation.property),
        "detail": violation.map_or("", |violation| violation.detail.as_str()),
        "trace_hash": report.hash.to_string(),
        "events": report.events,
        "sim_seconds": report.simulated.as_secs_f64(),
        "calls": report.calls.0,
        "answered": report.calls.1,
        "watched": report.watched,
        "facts": facts,
        "faults": report.faults,
    })
}

/// Runs one seed in a process of its own.
fn child(seed: u64, scenario: Option<&str>) -> Value {
    let began = Instant::now();
    let program = std::env::current_exe().expect("this program has a path");
    let ran = Command::new(program)
        .args(["one", &seed.to_string()])
        .args(scenario)
        .output();
    let output = ran.expect("this program can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let mut line: Value = serde_json::from_str(last).unwrap_or_else(|_| {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        json!({"seed": seed, "verdict": "violated", "property": "process", "detail": words})
    });
    line["scenario"] = json!(scenario);
    line["wall_seconds"] = json!(began.elapsed().as_secs_f64());
    line
}

/// Gives each seed to `work`, `jobs` at once.
fn for_all(seeds: (u64, u64), jobs: usize, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.1 {
                        return;
                    }
                    work(seed);
                }
            });
        }
    });
}

/// What many runs came to.
struct Sum {
    began: Instant,
    spoke: Instant,
    runs: u64,
    /// The command that shows each failure again, and what it was.
    failed: Vec<(String, String)>,
    sim_seconds: f64,
    counts: BTreeMap<String, u64>,
    facts: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
}

impl Sum {
    fn add(&mut self, line: &Value, as_json: bool) {
        self.runs += 1;
        self.sim_seconds += line["sim_seconds"].as_f64().unwrap_or_default();
        for name in ["events", "calls", "answered", "watched"] {
            let count = line[name].as_u64().unwrap_or_default();
            *self.counts.entry(name.to_owned()).or_default() += count;
        }
        for (name, sums) in [("facts", &mut self.facts), ("faults", &mut self.faults)] {
            for (name, count) in line[name].as_object().into_iter().flatten() {
                *sums.entry(name.clone()).or_default() += count.as_u64().unwrap_or_default();
            }
        }
        if as_json {
            println!("{line}");
        }
        if line["verdict"] != "ok" {
            let seed = line["seed"].as_u64().unwrap_or_default();
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let what = format!("{}: {}", text("property"), text("detail"));
            let again = repro(seed, line["scenario"].as_str());
            eprintln!("seed {seed} {what}\n  reproduce it: {again}");
            self.failed.push((again, what));
        }
        if self.spoke.elapsed() > PROGRESS_INTERVAL {
            self.spoke = Instant::now();
            let (runs, failed) = (self.runs, self.failed.len());
            eprintln!("{runs} runs, {failed} failed, {:.2} seeds/s", self.speed());
        }
    }

    fn speed(&self) -> f64 {
        self.runs as f64 / self.began.elapsed().as_secs_f64()
    }

    fn end(&self) {
        println!(
            "{} runs, {} failed, {:.0} simulated seconds in {:.0} s, {:.2} seeds/s",
            self.runs,
            self.failed.len(),
            self.sim_seconds,
            self.began.elapsed().as_secs_f64(),
            self.speed()
        );
        let list = |title: &str, counts: &BTreeMap<String, u64>| {
            let words: Vec<_> = counts
                .iter()
                .map(|(name, n)| format!("{name} {n}"))
                .collect();
            println!("{title}: {}", words.join(", "));
        };
        list("counts", &self.counts);
        list("faults", &self.faults);
        list("facts", &self.facts);
        for (again, what) in &self.failed {
            let short: String = what.chars().take(200).collect();
            println!("FAILED {short}\n  {again}");
        }
    }
}

fn run_all(subjects: &Subjects, jobs: usize, as_json: bool) -> ExitCode {
    let sum = Mutex::new(Sum {
        began: Instant::now(),
        spoke: Instant::now(),
        runs: 0,
        failed: Vec::new(),
        sim_seconds: 0.0,
        counts: BTreeMap::new(),
        facts: BTreeMap::new(),
        faults: FAULTS
            .iter()
            .map(|(_, name)| ((*name).to_owned(), 0))
            .collect(),
    });
    let runs = &subjects.runs;
    for_all((0, runs.len() as u64), jobs, |number| {
        let (seed, file) = &runs[number as usize];
        let line = child(*seed, file.as_deref());
        sum.lock().expect("no thread panics").add(&line, as_json);
    });
    let sum = sum.into_inner().expect("no thread panics");
    if !as_json {
        sum.end();
        subjects.tell_skipped();
    }
    let absent = subjects.never_injected(&sum.faults);
    for fault in &absent {
        eprintln!("the fault {fault} was never injected");
    }
    if sum.failed.is_empty() && absent.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check_determinism(seeds: (u64, u64), jobs: usize) -> ExitCode {
    let differing = Mutex::new(Vec::new());
    for_all(seeds, jobs, |seed| {
        let (one, other) = (child(seed, None), child(seed, None));
        let hash = |line: &Value| line["trace_hash"].as_str().map(str::to_owned);
        if hash(&one).is_none() || hash(&one) != hash(&other) {
            differing.lock().expect("no thread panics").push(seed);
        }
    });
    let mut differing = differing.into_inner().expect("no thread panics");
    differing.sort_unstable();
    println!(
        "{} seeds in two processes each, {} differ",
        seeds.1 - seeds.0,
        differing.len()
    );
    for seed in &differing {
        println!("seed {seed}: {}", first_difference(*seed));
    }
    if differing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The first line in which two traces of a seed differ.
fn first_difference(seed: u64) -> String {
    let program = std::env::current_exe().expect("this program has a path");
    let trace = || {
        let mut command = Command::new(&program);
        let ran = command
            .args(["one", &seed.to_string(), "--verbose"])
            .output();
        let output = ran.expect("this program can be started again");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (one, other) = (trace(), trace());
    let differs = one
        .lines()
        .zip(other.lines())
        .find(|(one, other)| one != other);
    match differs {
        Some((one, other)) => format!("{one}\n      against {other}"),
        None => "the traces are equal this time".to_owned(),
    }
}
