//! `downgrade validate`, `downgrade enable`, `downgrade cancel`.

use std::ffi::{OsStr, OsString};

use clap::{Args, Subcommand};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;

use super::text;
use crate::failure::Failure;
use crate::globals::{Context, Patience};
use crate::output::Answer;

/// `downgrade`.
#[derive(Debug, Args)]
pub(crate) struct Downgrade {
    #[command(subcommand)]
    command: DowngradeCommand,
}

#[derive(Debug, Subcommand)]
enum DowngradeCommand {
    /// Validate downgrade capability before starting downgrade
    Validate {
        /// <TARGET_VERSION>
        args: Vec<OsString>,
    },
    /// Start a downgrade action to cluster
    Enable {
        /// <TARGET_VERSION>
        args: Vec<OsString>,
    },
    /// Cancel the ongoing downgrade action to cluster
    Cancel {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
}

impl Downgrade {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (verb, action, version) = match &self.command {
            DowngradeCommand::Validate { args } => {
                ("validate", DowngradeAction::Validate, target(args)?)
            }
            DowngradeCommand::Enable { args } => ("enable", DowngradeAction::Enable, target(args)?),
            DowngradeCommand::Cancel { .. } => ("cancel", DowngradeAction::Cancel, String::new()),
        };
        let session = context.open(Patience::Short).await?;
        let request = pb::DowngradeRequest {
            action: action.into(),
            version,
        };
        let answer = session.client.downgrade(request).await;
        let response = &answer.map_err(|error| Failure::call(&error))?;
        session.printer.print(Answer::Downgrade { verb, response })
    }
}

fn target(args: &[OsString]) -> Result<String, Failure> {
    match args {
        [] => Err(Failure::arguments("TARGET_VERSION not provided")),
        [version] if version.is_empty() => Err(Failure::arguments("target version not provided")),
        [version] => Ok(text(OsStr::new(version))),
        _ => Err(Failure::arguments("too many arguments")),
    }
}
