//! `auth enable`, `auth disable` and `auth status`.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use quorate_net::client::{Client, ClientError};
use quorate_proto::etcdserverpb as pb;

use crate::failure::{Exit, Failure, describe};
use crate::globals::{Context, Patience};
use crate::output::{self, Answer};

/// The user and the role that auth cannot be without.
const ROOT: &str = "root";

/// `auth`.
#[derive(Debug, Args)]
pub(crate) struct Auth {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Enables authentication
    Enable {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Disables authentication
    Disable {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Returns authentication status
    Status {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
}

impl Auth {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (name, args) = match &self.command {
            AuthCommand::Enable { args } => ("enable", args),
            AuthCommand::Disable { args } => ("disable", args),
            AuthCommand::Status { args } => ("status", args),
        };
        if !args.is_empty() {
            let words = format!("auth {name} command does not accept any arguments");
            return Err(Failure::arguments(words));
        }
        let session = context.open(Patience::Short).await?;
        let client = &session.client;
        let call = |error| Failure::call(&error);
        match self.command {
            AuthCommand::Enable { .. } => {
                enable(client).await.map_err(call)?;
                output::write(b"Authentication Enabled\n")
            }
            AuthCommand::Disable { .. } => {
                let request = pb::AuthDisableRequest {};
                client.auth_disable(request).await.map_err(call)?;
                output::write(b"Authentication Disabled\n")
            }
            AuthCommand::Status { .. } => {
                let answer = client.auth_status(pb::AuthStatusRequest {}).await;
                let response =
                    answer.map_err(|error| Failure::new(Exit::General, describe(&error)))?;
                session.printer.print(Answer::AuthStatus(&response))
            }
        }
    }
}

/// Switches auth on; makes the role `root` and gives it to the user `root` when that is all that is missing.
async fn enable(client: &Client) -> Result<(), ClientError> {
    loop {
        match client.auth_enable(pb::AuthEnableRequest {}).await {
            Ok(_) => return Ok(()),
            Err(ClientError::Status(status))
                if status.message() == "etcdserver: root user does not have root role" => {}
            Err(error) => return Err(error),
        }
        let name = ROOT.to_string();
        client.role_add(pb::AuthRoleAddRequest { name }).await?;
        let (user, role) = (ROOT.to_string(), ROOT.to_string());
        client
            .user_grant_role(pb::AuthUserGrantRoleRequest { user, role })
            .await?;
    }
}
