//! A running etcd cluster becomes one of Quorate, and etcd again, one member at a time, while clients use it.
//!
//! A member of the other kind joins as a learner, is promoted, gets the leadership if the leaving member has it, and the
//! old one is removed. At every step all members agree on HashKV; in the end the history is judged.

use std::path::PathBuf;

use clap::Args;

use crate::fleet::Server;
use crate::fleet::trial::{Load, Trial};
use crate::lifecycle::server;

/// What is replaced by what.
#[derive(Args)]
pub(crate) struct Options {
    /// etcd's binary.
    #[arg(long)]
    etcd: PathBuf,
    /// Quorate's binary.
    #[arg(long)]
    server: PathBuf,
    /// How many members the cluster has.
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// How often it goes there and back.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    #[command(flatten)]
    load: Load,
    /// More arguments for every member.
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Migrates there and back; `true` if everything holds.
pub(crate) async fn run(options: &Options) -> Result<bool, String> {
    let etcd = server(&options.etcd, &options.extra)?;
    let ours = server(&options.server, &options.extra)?;
    let mut trial = Trial::begin(&options.load, &etcd, options.members, None).await?;
    for round in 1..=options.rounds {
        replace_all(&mut trial, &ours, round).await?;
        replace_all(&mut trial, &etcd, round).await?;
    }
    trial.finish().await
}

/// Replaces every member by one of a server, the leader among them.
async fn replace_all(trial: &mut Trial, by: &Server, round: usize) -> Result<(), String> {
    for old in trial.fleet.names() {
        let new = trial.fleet.next_name();
        let name = &by.name;
        trial
            .step(&format!("{round}: {name} joins as {new}"), async |trial| {
                trial.fleet.join(by).await
            })
            .await?;
        trial
            .step(&format!("{round}: {new} leads"), async |trial| {
                trial.fleet.make_leader(&new).await
            })
            .await?;
        trial
            .step(&format!("{round}: {old} is removed"), async |trial| {
                trial.fleet.remove(&old).await
            })
            .await?;
    }
    Ok(())
}
