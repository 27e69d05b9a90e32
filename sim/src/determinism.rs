//! Determinism: each seed twice, in two processes; the hashes of the traces must be equal.

use std::io;
use std::process::{Command, ExitCode, Stdio};

use quorate_sim::scenario::ScenarioError;
use serde_json::json;

use crate::cli::{RunArguments, say};

/// A run whose two traces differ.
struct Difference {
    seed: u64,
    /// The scenario's file or the flag that tells what was run, with a blank before it; often nothing.
    argument: String,
    /// The first event that differs.
    event: String,
}

/// Checks the seeds. Exit code 1 when a seed's traces differ.
pub(crate) fn check(arguments: &RunArguments) -> Result<ExitCode, ScenarioError> {
    let subjects = arguments.subjects()?;
    let subjects = subjects
        .iter()
        .filter(|subject| subject.skipped().is_none());
    let seeds = arguments.range();
    let runs = subjects.count() as u64 * (seeds.end - seeds.start);
    Ok(match compare(arguments, runs) {
        Ok(differing) => {
            tell(arguments, runs, &differing);
            ExitCode::from(u8::from(!differing.is_empty()))
        }
        Err(error) => {
            eprintln!("cannot run the second process: {error}");
            ExitCode::from(2)
        }
    })
}

/// The runs that differ.
fn compare(arguments: &RunArguments, runs: u64) -> io::Result<Vec<Difference>> {
    let seeds = arguments.range();
    let seeds = format!("{}..{}", seeds.start, seeds.end);
    let jobs = arguments.jobs.to_string();
    let mut parts = vec!["run", "--hashes", "--seeds", &seeds, "--jobs", &jobs];
    parts.extend(arguments.scenarios.iter().map(String::as_str));
    if arguments.standard {
        parts.push("--standard");
    }
    let first = start(&parts)?;
    let second = start(&parts)?;
    let (first, second) = (first.wait_with_output()?, second.wait_with_output()?);
    let (first, second) = (sorted_lines(&first.stdout), sorted_lines(&second.stdout));
    if first.len() as u64 != runs || second.len() as u64 != runs {
        return Err(io::Error::other("a process ended before its last seed"));
    }
    let mut differing = Vec::new();
    for ((run, hash), (_, other)) in first.iter().zip(&second) {
        if hash != other {
            let (argument, seed) = run;
            differing.push(Difference {
                event: first_difference(*seed, argument)?,
                seed: *seed,
                argument: argument.clone(),
            });
        }
    }
    Ok(differing)
}

fn start(parts: &[&str]) -> io::Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(parts).stdout(Stdio::piped()).spawn()
}

/// What was run, its seed and the hash, of each line.
fn sorted_lines(output: &[u8]) -> Vec<((String, u64), String)> {
    let text = String::from_utf8_lossy(output);
    let parse = |line: &str| {
        let (seed, rest) = line.split_once(' ')?;
        let hash = rest.split(' ').next()?;
        let argument = rest.strip_prefix(hash)?;
        Some(((argument.to_owned(), seed.parse().ok()?), hash.to_owned()))
    };
    let mut lines: Vec<_> = text.lines().filter_map(parse).collect();
    lines.sort_unstable();
    lines
}

/// The first line of the readable traces that differs.
fn first_difference(seed: u64, argument: &str) -> io::Result<String> {
    let seed = seed.to_string();
    let mut parts = vec!["repro", seed.as_str()];
    parts.extend(Some(argument.trim_start()).filter(|argument| !argument.is_empty()));
    let first = start(&parts)?.wait_with_output()?.stdout;
    let second = start(&parts)?.wait_with_output()?.stdout;
    let (first, second) = (
        String::from_utf8_lossy(&first),
        String::from_utf8_lossy(&second),
    );
    let differing = first
        .lines()
        .zip(second.lines())
        .find(|(one, other)| one != other);
    Ok(differing.map_or_else(
        || "the readable traces are equal".to_owned(),
        |(one, other)| format!("{one} | {other}"),
    ))
}

/// The command that shows it again.
fn again(difference: &Difference) -> String {
    let Difference { seed, argument, .. } = difference;
    format!("cargo run --release -p quorate-sim -- check-determinism{argument} --seed {seed}")
}

fn tell(arguments: &RunArguments, runs: u64, differing: &[Difference]) {
    if arguments.json {
        let differing = differing.iter().map(|difference| {
            json!({
                "scenario": difference.argument.trim_start(),
                "seed": difference.seed,
                "first_difference": difference.event,
                "repro": again(difference),
            })
        });
        let differing = differing.collect::<Vec<_>>();
        say(json!({"seeds": runs, "differing": differing}).to_string());
        return;
    }
    for difference in differing {
        let Difference {
            seed,
            argument,
            event,
        } = difference;
        say(format_args!("seed {seed}{argument} DIFFERS: {event}"));
        say(format_args!("  {}", again(difference)));
    }
    say(format_args!(
        "{runs} runs, each twice, {} differ",
        differing.len()
    ));
}
