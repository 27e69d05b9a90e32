//! The sub-commands that stand between clients and members: `quorate gateway start`, `quorate grpc-proxy start`.
//!
//! Owns their command lines and their own processes' lives. Nothing here is part of a member: there is no data
//! directory, no core and no consensus.
//!
//! ```text
//!   clients ─► gateway    (bytes, to any member that takes connections) ─► members
//!   clients ─► grpc-proxy (calls; watches and renewals are shared)      ─► members
//! ```

mod discovery;
mod flags;
mod gateway;
mod grpc;

use std::process::ExitCode;

use self::flags::{Parsed, Values};
use crate::config::{LogConfig, LogLevel};
use crate::log;

/// A group of commands with one command.
struct Group {
    name: &'static str,
    about: &'static str,
    start_about: &'static str,
    flags: &'static [flags::Flag],
    run: fn(&Values, &[String]) -> Result<(), String>,
}

const GROUPS: [Group; 2] = [
    Group {
        name: "gateway",
        about: "gateway related command",
        start_about: "start the gateway",
        flags: gateway::FLAGS,
        run: gateway::run,
    },
    Group {
        name: "grpc-proxy",
        about: "grpc-proxy related command",
        start_about: "start the grpc proxy",
        flags: grpc::FLAGS,
        run: grpc::run,
    },
];

/// Runs the sub-command that the arguments begin with, if there is one of that name.
pub fn run(arguments: &[String]) -> Option<ExitCode> {
    let name = arguments.get(1)?;
    let group = GROUPS.iter().find(|group| group.name == name)?;
    let Some(words) = flags::without_command(&arguments[2..], "start") else {
        print!("{}", group_help(group));
        return Some(ExitCode::SUCCESS);
    };
    let title = format!("{} start", group.name);
    let values = match flags::parse(&title, group.flags, &words) {
        Parsed::Values(values) => values,
        Parsed::Help(usage) => {
            print!("{}\n\n{usage}", group.start_about);
            return Some(ExitCode::SUCCESS);
        }
        Parsed::Misused { message, usage } => {
            eprint!("Error: {message}\n{usage}\n{message}");
            return Some(ExitCode::FAILURE);
        }
    };
    Some(match (group.run)(&values, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    })
}

/// Lines go to stderr in etcd's shape.
fn log_to_stderr(level: LogLevel, arguments: &[String]) -> Result<(), String> {
    let config = LogConfig {
        level,
        ..LogConfig::default()
    };
    log::init(&config).map_err(|error| error.to_string())?;
    log::lines::running(arguments);
    Ok(())
}

fn group_help(group: &Group) -> String {
    let (name, about) = (group.name, group.about);
    format!(
        "{about}\n\nUsage:\n  quorate {name} [command]\n\nAvailable Commands:\n  start       {}\n\nFlags:\n  -h, --help   \
         help for {name}\n\nUse \"quorate {name} [command] --help\" for more information about a command.\n",
        group.start_about
    )
}
