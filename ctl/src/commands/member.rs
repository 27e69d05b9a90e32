//! `member list`.

use clap::{Args, Subcommand};

use super::is_serializable;
use crate::failure::Failure;
use crate::globals::{Context, Patience};
use crate::output::Answer;

/// `member`.
#[derive(Debug, Args)]
pub(crate) struct Member {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Lists all members in the cluster
    List {
        #[arg(hide = true)]
        args: Vec<std::ffi::OsString>,
        /// Linearizable(l) or Serializable(s)
        #[arg(long, default_value = "l")]
        consistency: String,
    },
}

impl Member {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        // Further arguments are no mistake to etcdctl.
        let MemberCommand::List { consistency, .. } = self.command;
        let linearizable = !is_serializable(&consistency)?;
        let session = context.open(Patience::Short).await?;
        let answer = session.client.member_list(linearizable).await;
        let response = answer.map_err(|error| Failure::call(&error))?;
        session.printer.print(Answer::Members(&response))
    }
}
