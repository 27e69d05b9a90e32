//! `quorate-sim judge`: a history from a file, judged without a cluster.
//!
//! Exit codes: 0 linearizable, 1 not, 2 when the file cannot be read or the search is too long.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use quorate_sim::history::{Compared, Fault, read_lines};

/// Judges a file; `-` is the standard input.
pub(crate) fn judge(file: &Path) -> ExitCode {
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        match File::open(file) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => return fail(file, &error.to_string()),
        }
    };
    let (history, lines) = match read_lines(input) {
        Ok(read) => read,
        Err(error) => return fail(file, &error.to_string()),
    };
    if history.0.is_empty() {
        return fail(file, "there is nothing in it");
    }
    let begun = Instant::now();
    let line = |operation: usize| lines[operation];
    match history.judge() {
        Ok(compared) => {
            let Compared {
                writes,
                reads,
                unknown,
                unknown_seen,
                groups,
                ..
            } = compared;
            println!(
                "linearizable: {} operations, {writes} writes and {reads} reads answered, {unknown} writes unknown of \
                 which {unknown_seen} were seen, {groups} groups of keys, {:.1?}",
                history.0.len(),
                begun.elapsed()
            );
            ExitCode::SUCCESS
        }
        Err(Fault::Violation {
            operation,
            other,
            reason,
        }) => {
            let other = other.map(|other| format!(" (against line {})", line(other)));
            println!(
                "NOT linearizable: line {}{}: {reason}",
                line(operation),
                other.unwrap_or_default()
            );
            ExitCode::from(1)
        }
        Err(Fault::Malformed { operation, reason }) => {
            fail(file, &format!("line {}: {reason}", line(operation)))
        }
        Err(Fault::GaveUp { operation }) => {
            let line = line(operation);
            fail(file, &format!("the search became too long at line {line}"))
        }
    }
}

fn fail(file: &Path, reason: &str) -> ExitCode {
    eprintln!("{}: {reason}", file.display());
    ExitCode::from(2)
}
