//! The simulator's command line.
#![forbid(unsafe_code)]

mod batch;
mod cli;
mod determinism;
mod explain;
mod json;
mod judge;
mod report;
mod subject;

/// A run allocates for every message and entry; this takes a tenth off it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
