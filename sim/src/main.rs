//! The simulator's command line.
#![forbid(unsafe_code)]

mod cli;
mod determinism;
mod report;

fn main() -> std::process::ExitCode {
    cli::main()
}
