//! `user add`, `delete`, `get`, `list`, `passwd`, `grant-role`, `revoke-role`.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use quorate_proto::authpb::UserAddOptions;
use quorate_proto::etcdserverpb as pb;

use super::{role, text};
use crate::failure::Failure;
use crate::globals::{Context, Patience, Session};
use crate::go::number::parse_bool;
use crate::output::{self, Answer};
use crate::password;

/// `user`.
#[derive(Debug, Args)]
pub(crate) struct User {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Adds a new user
    Add(Add),
    /// Deletes a user
    Delete {
        /// <user name>
        args: Vec<OsString>,
    },
    /// Gets detailed information of a user
    Get {
        /// <user name>
        args: Vec<OsString>,
        /// Show permissions of roles granted to the user
        #[arg(long)]
        detail: bool,
    },
    /// Lists all users
    List {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Changes password of user
    Passwd {
        /// <user name>
        args: Vec<OsString>,
        /// If true, read password from stdin without interactive terminal
        #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
              default_value = "true", default_missing_value = "true", value_parser = parse_bool)]
        interactive: bool,
    },
    /// Grants a role to a user
    GrantRole {
        /// <user name> <role name>
        args: Vec<OsString>,
    },
    /// Revokes a role from a user
    RevokeRole {
        /// <user name> <role name>
        args: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct Add {
    /// <user name or user:password>
    args: Vec<OsString>,
    /// Read password from stdin without interactive terminal
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", value_parser = parse_bool)]
    interactive: bool,
    /// Supply password from the command line flag
    #[arg(long, default_value = "")]
    new_user_password: String,
    /// Create a user without password (CN based auth only)
    #[arg(long)]
    no_password: bool,
}

impl User {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            UserCommand::Add(add) => add.run(context).await,
            UserCommand::Delete { args } => delete(context, &args).await,
            UserCommand::Get { args, detail } => get(context, &args, detail).await,
            UserCommand::List { args } => list(context, &args).await,
            UserCommand::Passwd { args, interactive } => passwd(context, &args, interactive).await,
            UserCommand::GrantRole { args } => grant_role(context, &args).await,
            UserCommand::RevokeRole { args } => revoke_role(context, &args).await,
        }
    }
}

/// The one user that a command is about.
fn one_user(args: &[OsString], command: &str) -> Result<String, Failure> {
    match args {
        [name] => Ok(text(name)),
        _ => Err(Failure::arguments(format!(
            "user {command} command requires user name as its argument"
        ))),
    }
}

fn user_and_role(args: &[OsString], command: &str) -> Result<(String, String), Failure> {
    match args {
        [user, role] => Ok((text(user), text(role))),
        _ => Err(Failure::arguments(format!(
            "user {command} requires user name and role name as its argument"
        ))),
    }
}

impl Add {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let argument = one_user(&self.args, "add")?;
        let session = context.open(Patience::Endless).await?;
        let request = self.request(argument)?;
        let words = format!("User {} created", request.name);
        let answer = session.client.user_add(request).await;
        let response = answer.map_err(|error| Failure::call(&error))?;
        done(&session, &words, &response.header)
    }

    /// The password comes from the flag, from the argument after a colon, from a terminal, or from stdin.
    fn request(&self, argument: String) -> Result<pb::AuthUserAddRequest, Failure> {
        let (name, password) = if self.no_password {
            (argument, String::new())
        } else if !self.new_user_password.is_empty() {
            (argument, self.new_user_password.clone())
        } else if let Some((name, password)) = argument.split_once(':') {
            if name.is_empty() {
                return Err(Failure::arguments("empty user name is not allowed"));
            }
            (name.to_string(), password.to_string())
        } else {
            let password = password::new_of(&argument, self.interactive)?;
            (argument, password)
        };
        Ok(pb::AuthUserAddRequest {
            name,
            password,
            options: Some(UserAddOptions {
                no_password: self.no_password,
            }),
            ..pb::AuthUserAddRequest::default()
        })
    }
}

fn done(
    session: &Session,
    words: &str,
    header: &Option<pb::ResponseHeader>,
) -> Result<(), Failure> {
    session.printer.print(Answer::Done { words, header })
}

async fn delete(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let name = one_user(args, "delete")?;
    let session = context.open(Patience::Endless).await?;
    let words = format!("User {name} deleted");
    let answer = session
        .client
        .user_delete(pb::AuthUserDeleteRequest { name })
        .await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    done(&session, &words, &response.header)
}

async fn get(context: &Context, args: &[OsString], detail: bool) -> Result<(), Failure> {
    let name = one_user(args, "get")?;
    let session = context.open(Patience::Endless).await?;
    let request = pb::AuthUserGetRequest { name: name.clone() };
    let answer = session.client.user_get(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    if !detail {
        return session.printer.print(Answer::User(&name, &response));
    }
    output::write(format!("User: {name}\n").as_bytes())?;
    for name in response.roles {
        output::write(b"\n")?;
        role::show(&session, name).await?;
    }
    Ok(())
}

async fn list(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    if !args.is_empty() {
        return Err(Failure::arguments(
            "user list command requires no arguments",
        ));
    }
    let session = context.open(Patience::Endless).await?;
    let answer = session.client.user_list(pb::AuthUserListRequest {}).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    session.printer.print(Answer::Users(&response))
}

async fn passwd(context: &Context, args: &[OsString], interactive: bool) -> Result<(), Failure> {
    let name = one_user(args, "passwd")?;
    let password = password::new_of(&name, interactive)?;
    let session = context.open(Patience::Endless).await?;
    let request = pb::AuthUserChangePasswordRequest {
        name,
        password,
        ..pb::AuthUserChangePasswordRequest::default()
    };
    let answer = session.client.user_change_password(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    done(&session, "Password updated", &response.header)
}

async fn grant_role(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let (user, role) = user_and_role(args, "grant command")?;
    let session = context.open(Patience::Endless).await?;
    let words = format!("Role {role} is granted to user {user}");
    let request = pb::AuthUserGrantRoleRequest { user, role };
    let answer = session.client.user_grant_role(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    done(&session, &words, &response.header)
}

async fn revoke_role(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let (name, role) = user_and_role(args, "revoke-role")?;
    let session = context.open(Patience::Endless).await?;
    let words = format!("Role {role} is revoked from user {name}");
    let request = pb::AuthUserRevokeRoleRequest { name, role };
    let answer = session.client.user_revoke_role(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    done(&session, &words, &response.header)
}
