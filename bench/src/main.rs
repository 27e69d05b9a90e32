//! `quorate-bench`: Quorate beside a real etcd.
//!
//! Everything here drives two servers with the same requests and compares: what they answer (`differential`), how
//! fast they do it (`compare`), what is left after crashes (`kill`), after a whole life of a cluster (`lifecycle`) and
//! after a move from one to the other (`migrate`), what hostile clients do to them (`hostile`) and
//! whom they let do what (`auth-matrix`). It never contains an expected number; the other server is the measure.

mod cluster;
mod compare;
mod differential;
mod fleet;
mod hostile;
mod kill;
mod lifecycle;
mod migrate;
mod patience;
mod process;
mod recorded;
mod security;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Quorate beside a real etcd.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends the same random operations to two empty servers and compares every answer, watch event and hash.
    Differential(differential::Options),
    /// Measures both side by side under the same load and prints ratios.
    Compare(compare::Options),
    /// Measures backups, restores, restarts and new members of a large store side by side.
    Upkeep(compare::upkeep::Options),
    /// Loads one running server with the cheap client and prints what it took.
    Load(compare::load::Options),
    /// Kills and pauses the members of a cluster under load and checks what its clients saw.
    Kill(kill::Options),
    /// Takes a cluster under load through growth, replacements, cuts, full quotas and shrinking, beside a real etcd.
    Lifecycle(lifecycle::Options),
    /// Lets hostile clients at one member that others use, and shows what it costs them.
    Hostile(hostile::Options),
    /// Replaces a running etcd cluster by Quorate, one member at a time under load, and back.
    Migrate(migrate::Options),
    /// Makes every call as everybody who may come, with and without auth, on a new member of each of two servers.
    AuthMatrix(security::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Differential(options) => differential::run(options).await,
        Command::Compare(options) => compare::run(&options).await,
        Command::Upkeep(options) => compare::upkeep::run(&options).await,
        Command::Load(options) => compare::load::run(&options),
        Command::Kill(options) => kill::run(options).await,
        Command::Lifecycle(options) => lifecycle::run(options).await,
        Command::Hostile(options) => hostile::run(&options).await,
        Command::Migrate(options) => migrate::run(&options).await,
        Command::AuthMatrix(options) => security::run(&options).await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::from(2)
        }
    }
}
