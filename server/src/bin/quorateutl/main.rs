//! quorateutl: what is done to files while no server works on them, equal to etcdutl 3.7.1 in arguments, output and exit
//! codes.
//!
//! ```text
//!   arguments ─► command_line ─► status, hashkv, restore, defrag, migrate ─► core::offline ─► MmapDisk
//!                                     └─► output: simple, fields, json, table
//! ```
//!
//! A file that is only looked at is never changed, and nothing is left behind by a command that is refused; etcdutl is
//! less strict with both. What it logs stands in the same form on stderr.
#![forbid(unsafe_code)]

mod command_line;
mod completion;
mod defrag;
mod files;
mod hashkv;
mod log;
mod migrate;
mod output;
mod restore;
mod status;

use std::process::ExitCode;

use command_line::{Arguments, Command, Flag, Kind, Parsed, Take};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The binary's name, in usage and errors.
const NAME: &str = "quorateutl";

/// etcdutl's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Something was wrong with the files.
    General = 1,
    /// There is no such form of output.
    Feature = 4,
    /// The arguments are wrong.
    Arguments = 128,
}

/// The end of a command that did not end well.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    fn general(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::General, message)
    }

    fn arguments(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::Arguments, message)
    }
}

/// Flags of every command.
const GLOBAL: &[Flag] = &[
    Flag {
        name: "timeout",
        short: None,
        kind: Kind::Duration,
        default: "10s",
        usage: "time to wait to obtain a file lock on db file, 0 to block indefinitely",
        required: false,
    },
    Flag {
        name: "write-out",
        short: Some('w'),
        kind: Kind::Text,
        default: "simple",
        usage: "set the output format (fields, json, protobuf, simple, table)",
        required: false,
    },
];

const fn group(name: &'static str, about: &'static str, commands: &'static [Command]) -> Command {
    Command {
        name,
        arguments: "",
        about,
        take: Take::Any,
        flags: &[],
        commands,
        run: None,
    }
}

const ROOT: Command = group(
    NAME,
    "",
    &[
        Command {
            name: "completion",
            arguments: " [bash|zsh|fish|powershell]",
            about: "Generate completion script",
            take: Take::OneOf(completion::SHELLS),
            flags: &[],
            commands: &[],
            run: Some(completion::run),
        },
        Command {
            name: "defrag",
            arguments: " [flags]",
            about: "Defragments the storage of the etcd",
            take: Take::Any,
            flags: defrag::FLAGS,
            commands: &[],
            run: Some(defrag::run),
        },
        Command {
            name: "hashkv",
            arguments: " <filename> [flags]",
            about: "Prints the KV history hash of a given file",
            take: Take::One,
            flags: hashkv::FLAGS,
            commands: &[],
            run: Some(hashkv::run),
        },
        Command {
            name: "migrate",
            arguments: " [flags]",
            about: "Migrates schema of etcd data dir files to make them compatible with different etcd version",
            take: Take::Any,
            flags: migrate::FLAGS,
            commands: &[],
            run: Some(migrate::run),
        },
        group(
            "snapshot",
            "Manages etcd node snapshots",
            &[
                Command {
                    name: "restore",
                    arguments: " <filename> --data-dir {output dir} [options] [flags]",
                    about: "Restores an etcd member snapshot to an etcd directory",
                    take: Take::Any,
                    flags: restore::FLAGS,
                    commands: &[],
                    run: Some(restore::run),
                },
                Command {
                    name: "status",
                    arguments: " <filename> [flags]",
                    about: "Gets backend snapshot status of a given file",
                    take: Take::Any,
                    flags: &[],
                    commands: &[],
                    run: Some(status::run),
                },
            ],
        ),
        Command {
            name: "version",
            arguments: " [flags]",
            about: "Prints the version of etcdutl",
            take: Take::Any,
            flags: &[],
            commands: &[],
            run: Some(version),
        },
    ],
);

/// The etcdutl that this one equals, in the lines that tools read.
fn version(_: &Arguments) -> Result<(), Failure> {
    output::write("etcdutl version: 3.7.1\nAPI version: 3.7\n");
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match command_line::parse(&ROOT, GLOBAL, &words) {
        Parsed::Usage(text) => {
            output::write(&text);
            ExitCode::SUCCESS
        }
        Parsed::Misused(text) => {
            eprint!("{text}");
            ExitCode::from(Exit::General as u8)
        }
        Parsed::Run(run, arguments) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("Error: {}", failure.message);
                ExitCode::from(failure.exit as u8)
            }
        },
    }
}
