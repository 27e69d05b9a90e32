//! What `--help` and `--version` print, and what a misused flag is answered with.

use std::fmt::Write as _;

use super::ETCD_VERSION;
use super::flags::{FLAGS, Kind, Section, Support};
use super::gates::GATES;

/// The first part of the help text, which also follows a misused flag.
pub(super) fn usage() -> String {
    "Usage:

  quorate [flags]
    Start a member.

  quorate --version
    Show the version.

  quorate -h | --help
    Show all flags.

  quorate --config-file
    Read all settings from this file; all other flags and environment variables are then ignored.
    Durations in it are whole numbers of nanoseconds.

Every flag can also be given as an environment variable: --data-dir is ETCD_DATA_DIR or QUORATE_DATA_DIR.
"
    .to_owned()
}

const SECTIONS: [(Section, &str); 10] = [
    (Section::Member, "Member"),
    (Section::Clustering, "Clustering"),
    (Section::Security, "Security"),
    (Section::Auth, "Auth"),
    (Section::Profiling, "Profiling and Monitoring"),
    (Section::Logging, "Logging"),
    (Section::Tracing, "Distributed tracing"),
    (Section::Features, "Features"),
    (Section::Unsafe, "Unsafe feature"),
    (Section::Meta, "Meta"),
];

/// The whole help text.
pub(super) fn flags_text() -> String {
    let mut text = usage();
    for (section, title) in SECTIONS {
        write!(text, "\n{title}:\n").expect("a string takes all");
        for flag in FLAGS.iter().filter(|flag| flag.section == section) {
            let default = if flag.name == "data-dir" {
                "${name}.etcd"
            } else {
                flag.default
            };
            let remark = match flag.support {
                Support::NotYet => " Not supported yet.".to_owned(),
                Support::NoEffect(reason) => format!(" No effect: {reason}."),
                Support::Works | Support::Obsolete => String::new(),
            };
            write!(
                text,
                "  --{} '{default}'\n    {}{remark}\n",
                flag.name, flag.help
            )
            .expect("a string takes all");
            if flag.kind == Kind::Gates {
                text.push_str(&gates_text());
            }
        }
    }
    text
}

fn gates_text() -> String {
    let mut text = String::new();
    for gate in &GATES {
        let stage = gate.stage.label();
        let remark = if gate.support == Support::NotYet {
            ", not supported yet"
        } else {
            ""
        };
        writeln!(
            text,
            "    {}=true|false ({stage} default={}{remark})",
            gate.name, gate.default
        )
        .expect("a string takes all");
    }
    text
}

/// The text of `--version`; tools look for the line of etcd's version.
pub fn version_text() -> String {
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    format!(
        "quorate Version: {}\netcd Version: {ETCD_VERSION}\nGit SHA: {}\nOS/Arch: {os}/{architecture}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("QUORATE_GIT_SHA").unwrap_or("unknown"),
    )
}
