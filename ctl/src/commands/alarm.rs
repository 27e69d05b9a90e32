//! `alarm list` and `alarm disarm`.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use quorate_net::client::{Client, ClientError};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;

use crate::failure::Failure;
use crate::globals::{Context, Patience};
use crate::output::Answer;

/// `alarm`.
#[derive(Debug, Args)]
pub(crate) struct Alarm {
    #[command(subcommand)]
    command: AlarmCommand,
}

#[derive(Debug, Subcommand)]
enum AlarmCommand {
    /// Lists all alarms
    List {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Disarms all alarms
    Disarm {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
}

impl Alarm {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (name, args, disarms) = match &self.command {
            AlarmCommand::List { args } => ("list", args, false),
            AlarmCommand::Disarm { args } => ("disarm", args, true),
        };
        if !args.is_empty() {
            let words = format!("alarm {name} command accepts no arguments");
            return Err(Failure::arguments(words));
        }
        let session = context.open(Patience::Short).await?;
        let answer = if disarms {
            disarm(&session.client).await
        } else {
            list(&session.client).await
        };
        let response = answer.map_err(|error| Failure::call(&error))?;
        session.printer.print(Answer::Alarms(&response))
    }
}

/// All alarms.
pub(super) async fn list(client: &Client) -> Result<pb::AlarmResponse, ClientError> {
    client.alarm(pb::AlarmRequest::default()).await
}

/// Clears every alarm that there is; the answer has no header, since there may have been several.
async fn disarm(client: &Client) -> Result<pb::AlarmResponse, ClientError> {
    let mut cleared = pb::AlarmResponse::default();
    for alarm in list(client).await?.alarms {
        let request = pb::AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        cleared.alarms.extend(client.alarm(request).await?.alarms);
    }
    Ok(cleared)
}
