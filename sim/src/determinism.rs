//! Determinism: each seed twice, in two processes; the hashes of the traces must be equal.

use std::io;
use std::process::{Command, ExitCode, Stdio};

use serde_json::json;

use crate::cli::RunArguments;
use crate::report::repro;

/// Checks the seeds. Exit code 1 when a seed's traces differ.
pub(crate) fn check(arguments: &RunArguments) -> ExitCode {
    match compare(arguments) {
        Ok(differing) => {
            tell(arguments, &differing);
            if differing.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            }
        }
        Err(error) => {
            eprintln!("cannot run the second process: {error}");
            ExitCode::from(2)
        }
    }
}

/// The seeds that differ, each with the first event that does.
fn compare(arguments: &RunArguments) -> io::Result<Vec<(u64, String)>> {
    let seeds = format!("{}..{}", arguments.seeds.start, arguments.seeds.end);
    let jobs = arguments.jobs.to_string();
    let parts = ["run", "--hashes", "--seeds", &seeds, "--jobs", &jobs];
    let first = start(&parts)?;
    let second = start(&parts)?;
    let (first, second) = (first.wait_with_output()?, second.wait_with_output()?);
    let (first, second) = (sorted_lines(&first.stdout), sorted_lines(&second.stdout));
    let wanted = (arguments.seeds.end - arguments.seeds.start) as usize;
    if first.len() != wanted || second.len() != wanted {
        return Err(io::Error::other("a process ended before its last seed"));
    }
    let mut differing = Vec::new();
    for ((seed, hash), (_, other)) in first.iter().zip(&second) {
        if hash != other {
            differing.push((*seed, first_difference(*seed)?));
        }
    }
    Ok(differing)
}

fn start(parts: &[&str]) -> io::Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(parts).stdout(Stdio::piped()).spawn()
}

fn sorted_lines(output: &[u8]) -> Vec<(u64, String)> {
    let text = String::from_utf8_lossy(output);
    let parse = |line: &str| {
        let (seed, hash) = line.split_once(' ')?;
        Some((seed.parse().ok()?, hash.to_owned()))
    };
    let mut lines: Vec<_> = text.lines().filter_map(parse).collect();
    lines.sort_unstable();
    lines
}

/// The first line of the readable traces that differs.
fn first_difference(seed: u64) -> io::Result<String> {
    let seed = seed.to_string();
    let parts = ["repro", seed.as_str()];
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

fn tell(arguments: &RunArguments, differing: &[(u64, String)]) {
    let seeds = arguments.seeds.end - arguments.seeds.start;
    if arguments.json {
        let differing: Vec<_> = differing
            .iter()
            .map(|(seed, event)| json!({"seed": seed, "first_difference": event, "repro": repro(*seed)}))
            .collect();
        println!("{}", json!({"seeds": seeds, "differing": differing}));
        return;
    }
    for (seed, event) in differing {
        println!("seed {seed} DIFFERS: {event}\n  {}", repro(*seed));
    }
    println!("{seeds} seeds ran twice, {} differ", differing.len());
}
