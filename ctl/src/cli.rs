//! Arguments: clap reads them, by the rules and with the words of cobra, which etcdctl uses.
//!
//! What differs between the two is settled in [`as_cobra`] (how flags are read) and [`explain`] (how mistakes are
//! named). The commands' own flags live with the commands.

use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::failure::{Exit, Failure};
use crate::globals::{Context, GlobalFlags};
use crate::go::number::parse_bool;

/// The binary's name, in usage and errors.
const NAME: &str = "quoratectl";

/// A simple command line client for Quorate and etcd.
#[derive(Debug, Parser)]
#[command(name = NAME, infer_subcommands = true, args_override_self = true)]
struct Arguments {
    #[command(flatten)]
    globals: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

/// Reads the arguments and carries out the command.
pub(crate) fn run(arguments: Vec<OsString>) -> Result<(), Failure> {
    let mut root = as_cobra(Arguments::command());
    let parsed = root.try_get_matches_from_mut(&arguments);
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => return refuse(&mut root, &arguments, &error),
    };
    let parsed = Arguments::from_arg_matches(&matches);
    let Arguments { globals, command } = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&mut root, &arguments, &error),
    };
    let context = Context::new(globals, &matches);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(command.run(&context));
    // A thread may still be reading stdin; the command is over all the same.
    runtime.shutdown_background();
    result
}

/// Makes a command read its flags as cobra does: `--flag=false` for booleans, anything after a flag that takes a value.
pub(crate) fn as_cobra(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .hide_default_value(true)
            .value_parser(parse_bool),
        ArgAction::Set | ArgAction::Append if !argument.is_positional() => {
            argument.allow_hyphen_values(true)
        }
        _ => argument,
    });
    command.mut_subcommands(as_cobra)
}

/// Help that was asked for, or words about a mistake.
fn refuse(
    root: &mut clap::Command,
    arguments: &[OsString],
    error: &clap::Error,
) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp => crate::output::write(error.render().to_string().as_bytes()),
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            if let Some(group) = group_of(root, arguments) {
                return crate::output::write(group.render_help().to_string().as_bytes());
            }
            let name = context(error, ContextKind::InvalidSubcommand);
            let Some(name) = name.filter(|_| error.kind() == ErrorKind::InvalidSubcommand) else {
                return crate::output::write(root.render_help().to_string().as_bytes());
            };
            let words = format!(
                "Error: unknown command \"{name}\" for \"{NAME}\"\nRun '{NAME} --help' for usage.\n"
            );
            Err(Failure::said(Exit::General, words))
        }
        _ => {
            let words = format!("Error: {}\n", explain(error));
            Err(Failure::said(Exit::General, words))
        }
    }
}

/// The command with sub-commands of its own that the arguments name.
fn group_of<'a>(
    root: &'a mut clap::Command,
    arguments: &[OsString],
) -> Option<&'a mut clap::Command> {
    let words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    let words: Vec<&str> = words.filter(|word| !word.starts_with('-')).collect();
    root.get_subcommands_mut()
        .find(|group| group.has_subcommands() && words.contains(&group.get_name()))
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    error.get(kind).map(ToString::to_string)
}

/// The mistake in cobra's words.
pub(crate) fn explain(error: &clap::Error) -> String {
    let argument = context(error, ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split([' ', '=', '[']).next().unwrap_or_default();
    let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with("--") => format!("unknown flag: {flag}"),
        ErrorKind::UnknownArgument => {
            let shorthand = flag.chars().nth(1).unwrap_or_default();
            format!("unknown shorthand flag: '{shorthand}' in {flag}")
        }
        ErrorKind::InvalidValue if value.is_empty() && flag == "--write-out" => {
            "flag needs an argument: 'w' in -w".to_string()
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("flag needs an argument: {flag}"),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            let flag = match flag {
                "--write-out" => "-w, --write-out",
                flag => flag,
            };
            let reason = reason.unwrap_or_else(|| "invalid syntax".to_string());
            format!("invalid argument \"{value}\" for \"{flag}\" flag: {reason}")
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            text.lines().next().unwrap_or_default().to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(arguments: &[&str]) -> String {
        let arguments = [NAME].into_iter().chain(arguments.iter().copied());
        let error = as_cobra(Arguments::command()).try_get_matches_from(arguments);
        explain(&error.expect_err("a mistake"))
    }

    #[test]
    fn the_definition_is_sound() {
        as_cobra(Arguments::command()).debug_assert();
    }

    #[test]
    fn mistakes_have_cobras_words() {
        assert_eq!(error(&["get", "a", "--foo"]), "unknown flag: --foo");
        assert_eq!(error(&["get", "-x"]), "unknown shorthand flag: 'x' in -x");
        assert_eq!(error(&["get", "--rev"]), "flag needs an argument: --rev");
        assert_eq!(error(&["get", "-w"]), "flag needs an argument: 'w' in -w");
        assert_eq!(
            error(&["get", "a", "--limit", "x"]),
            r#"invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax"#
        );
        assert_eq!(
            error(&["get", "a", "--keys-only=foo"]),
            r#"invalid argument "foo" for "--keys-only" flag: strconv.ParseBool: parsing "foo": invalid syntax"#
        );
        assert_eq!(
            error(&["--command-timeout", "5", "get", "a"]),
            r#"invalid argument "5" for "--command-timeout" flag: time: missing unit in duration "5""#
        );
    }
}
