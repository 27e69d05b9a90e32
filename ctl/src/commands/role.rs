//! `role add`, `delete`, `get`, `list`, `grant-permission`, `revoke-permission`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::{Args, Subcommand};
use quorate_proto::authpb::{Permission, permission};
use quorate_proto::etcdserverpb as pb;

use super::{NO_END, prefix_end, text};
use crate::failure::Failure;
use crate::globals::{Context, Patience, Session};
use crate::output::Answer;

/// `role`.
#[derive(Debug, Args)]
pub(crate) struct Role {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Debug, Subcommand)]
enum RoleCommand {
    /// Adds a new role
    Add {
        /// <role name>
        args: Vec<OsString>,
    },
    /// Deletes a role
    Delete {
        /// <role name>
        args: Vec<OsString>,
    },
    /// Gets detailed information of a role
    Get {
        /// <role name>
        args: Vec<OsString>,
    },
    /// Lists all roles
    List {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Grants a key to a role
    GrantPermission {
        /// <role name> <permission type> <key> [endkey]
        args: Vec<OsString>,
        #[command(flatten)]
        keys: Keys,
    },
    /// Revokes a key from a role
    RevokePermission {
        /// <role name> <key> [endkey]
        args: Vec<OsString>,
        #[command(flatten)]
        keys: Keys,
    },
}

/// Which keys a permission is for.
#[derive(Clone, Copy, Debug, Args)]
struct Keys {
    /// Use prefix
    #[arg(long)]
    prefix: bool,
    /// Use keys that are greater than or equal to the given key using byte compare
    #[arg(long)]
    from_key: bool,
}

impl Role {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            RoleCommand::Add { args } => add(context, &args).await,
            RoleCommand::Delete { args } => delete(context, &args).await,
            RoleCommand::Get { args } => {
                let name = one_role(&args, "get")?;
                let session = context.open(Patience::Endless).await?;
                show(&session, name).await
            }
            RoleCommand::List { args } => list(context, &args).await,
            RoleCommand::GrantPermission { args, keys } => grant(context, &args, keys).await,
            RoleCommand::RevokePermission { args, keys } => revoke(context, &args, keys).await,
        }
    }
}

/// Prints a role's permissions.
pub(super) async fn show(session: &Session, role: String) -> Result<(), Failure> {
    let request = pb::AuthRoleGetRequest { role: role.clone() };
    let answer = session.client.role_get(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    session.printer.print(Answer::Role(&role, &response))
}

/// The one role that a command is about.
fn one_role(args: &[OsString], command: &str) -> Result<String, Failure> {
    match args {
        [name] => Ok(text(name)),
        _ => Err(Failure::arguments(format!(
            "role {command} command requires role name as its argument"
        ))),
    }
}

async fn add(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let name = one_role(args, "add")?;
    let session = context.open(Patience::Endless).await?;
    let words = format!("Role {name} created");
    let answer = session
        .client
        .role_add(pb::AuthRoleAddRequest { name })
        .await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    let header = &response.header;
    session.printer.print(Answer::Done {
        words: &words,
        header,
    })
}

async fn delete(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let role = one_role(args, "delete")?;
    let session = context.open(Patience::Endless).await?;
    let words = format!("Role {role} deleted");
    let request = pb::AuthRoleDeleteRequest { role };
    let answer = session.client.role_delete(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    let header = &response.header;
    session.printer.print(Answer::Done {
        words: &words,
        header,
    })
}

async fn list(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    if !args.is_empty() {
        return Err(Failure::arguments(
            "role list command requires no arguments",
        ));
    }
    let session = context.open(Patience::Endless).await?;
    let answer = session.client.role_list(pb::AuthRoleListRequest {}).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    session.printer.print(Answer::Roles(&response))
}

async fn grant(context: &Context, args: &[OsString], keys: Keys) -> Result<(), Failure> {
    let [name, kind, key, end @ ..] = args else {
        let words = "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(Failure::arguments(words));
    };
    let kind = text(kind);
    let Some(permission) = permission::Type::from_str_name(&kind.to_uppercase()) else {
        return Err(Failure::arguments(format!(
            "invalid permission type: {kind}"
        )));
    };
    let (key, range_end) = keys.range(key.as_bytes(), end)?;
    let name = text(name);
    let session = context.open(Patience::Endless).await?;
    let words = format!("Role {name} updated");
    let request = pb::AuthRoleGrantPermissionRequest {
        name,
        perm: Some(Permission {
            perm_type: permission.into(),
            key: key.into(),
            range_end: range_end.into(),
        }),
    };
    let answer = session.client.role_grant_permission(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    let header = &response.header;
    session.printer.print(Answer::Done {
        words: &words,
        header,
    })
}

async fn revoke(context: &Context, args: &[OsString], keys: Keys) -> Result<(), Failure> {
    let [role, key, end @ ..] = args else {
        let words =
            "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Failure::arguments(words));
    };
    let (first, range_end) = keys.range(key.as_bytes(), end)?;
    let role = text(role);
    let session = context.open(Patience::Endless).await?;
    let key = text(key);
    let what = match range_end.as_slice() {
        b"" => format!("key {key}"),
        NO_END => format!("range [{key}, <open ended>"),
        end => format!("range [{key}, {})", String::from_utf8_lossy(end)),
    };
    let words = format!("Permission of {what} is revoked from role {role}");
    let request = pb::AuthRoleRevokePermissionRequest {
        role,
        key: first.into(),
        range_end: range_end.into(),
    };
    let answer = session.client.role_revoke_permission(request).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    let header = &response.header;
    session.printer.print(Answer::Done {
        words: &words,
        header,
    })
}

impl Keys {
    /// Key and range end of a permission. No key stands for the first one there can be.
    fn range(self, key: &[u8], end: &[OsString]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        if self.prefix && self.from_key && (key.is_empty() || end.is_empty()) {
            let words = "--from-key and --prefix flags are mutually exclusive";
            return Err(Failure::arguments(words));
        }
        if key.is_empty() {
            let is_open = self.prefix || self.from_key;
            let end = if is_open { NO_END } else { b"" };
            return Ok((vec![0], end.to_vec()));
        }
        let flag = match self {
            Self { prefix: true, .. } => Some("--prefix"),
            Self { from_key: true, .. } => Some("--from-key"),
            _ => None,
        };
        let end = match (end.first(), flag) {
            (Some(_), Some(flag)) => {
                let words = format!("unexpected endkey argument with {flag} flag");
                return Err(Failure::arguments(words));
            }
            (Some(end), None) => end.as_bytes().to_vec(),
            (None, Some("--prefix")) => prefix_end(key),
            (None, Some(_)) => NO_END.to_vec(),
            (None, None) => Vec::new(),
        };
        Ok((key.to_vec(), end))
    }
}
