//! The environment, by etcd's rules: a variable for each flag, under two prefixes, and never in a flag's way.

use std::fmt::Write as _;

use super::flags::FLAGS;
use super::notice::Notice;
use super::settings::Settings;

/// The prefixes of environment variables: etcd's and our own mean the same.
pub(super) const PREFIXES: [&str; 2] = ["ETCD_", "QUORATE_"];

/// The variable of a flag, without its prefix.
pub(super) fn variable(flag_name: &str) -> String {
    flag_name.to_ascii_uppercase().replace('-', "_")
}

/// The value of a flag in the environment, if any of its variables holds one, and the name of the variable.
pub(super) fn value_of<'a>(
    environment: &'a [(String, String)],
    flag_name: &str,
) -> Result<Option<(&'a str, &'a str)>, String> {
    let suffix = variable(flag_name);
    let is_variable = |name: &str| {
        PREFIXES
            .iter()
            .any(|prefix| name.strip_prefix(prefix) == Some(suffix.as_str()))
    };
    let mut found = environment
        .iter()
        .filter(|(name, value)| !value.is_empty() && is_variable(name))
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let Some(first) = found.next() else {
        return Ok(None);
    };
    match found.find(|(_, value)| *value != first.1) {
        None => Ok(Some(first)),
        Some(other) => {
            let mut names = [first.0, other.0];
            names.sort_unstable();
            Err(format!(
                "environment variables {} and {} are set to different values",
                names[0], names[1]
            ))
        }
    }
}

/// Why the environment was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadEnvironment {
    /// A variable and a flag say the same thing: etcd ends at once.
    Shadowed(String),
    /// An ordinary error.
    Value(String),
}

/// Adds what the environment says to `settings`, which hold the command line.
pub(super) fn apply(
    settings: &mut Settings,
    environment: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<(), BadEnvironment> {
    let from_flags = settings.clone();
    let mut result = Ok(());
    for flag in FLAGS.iter().filter(|flag| !from_flags.is_set(flag.name)) {
        match value_of(environment, flag.name) {
            Ok(None) => {}
            Ok(Some((name, value))) => match settings.set(flag, value) {
                Ok(()) => notices.push(Notice::info(
                    "recognized and used environment variable",
                    vec![
                        ("variable-name", name.to_owned()),
                        ("variable-value", value.to_owned()),
                    ],
                )),
                Err(reason) => {
                    result = Err(BadEnvironment::Value(format!(
                        "invalid value {value:?} for {name}: {reason}"
                    )));
                }
            },
            Err(conflict) => result = Err(BadEnvironment::Value(conflict)),
        }
    }
    for (name, value) in environment {
        let Some(suffix) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
            continue;
        };
        let flag = FLAGS.iter().find(|flag| variable(flag.name) == suffix);
        // etcd sees even an empty variable in the way of a flag.
        if flag.is_some_and(|flag| from_flags.is_set(flag.name)) {
            return Err(BadEnvironment::Shadowed(name.clone()));
        }
        if flag.is_none() || value.is_empty() {
            let mut text = name.clone();
            write!(text, "={value}").expect("a string takes all");
            notices.push(Notice::warn(
                "unrecognized environment variable",
                vec![("environment-variable", text)],
            ));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::command_line::{self, CommandLine};
    use super::super::notice::NoticeLevel;
    use super::*;

    fn flags(line: &str) -> Settings {
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        match command_line::parse(&arguments) {
            Ok(CommandLine::Flags(settings)) => settings,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn both_prefixes_name_a_flag_and_must_not_disagree() {
        let mut notices = Vec::new();
        let mut settings = flags("--data-dir=d");
        let environment = variables(&[
            ("ETCD_NAME", "a"),
            ("QUORATE_NAME", "a"),
            ("QUORATE_MAX_TXN_OPS", "7"),
            ("PATH", "x"),
        ]);
        apply(&mut settings, &environment, &mut notices).unwrap();
        assert_eq!(
            (settings.text("name"), settings.unsigned("max-txn-ops")),
            ("a".to_owned(), 7)
        );
        assert!(
            notices
                .iter()
                .all(|notice| notice.level == NoticeLevel::Info),
            "{notices:?}"
        );

        let environment = variables(&[("QUORATE_NAME", "b"), ("ETCD_NAME", "a")]);
        assert_eq!(
            apply(&mut flags(""), &environment, &mut notices),
            Err(BadEnvironment::Value(
                "environment variables ETCD_NAME and QUORATE_NAME are set to different values"
                    .to_owned()
            ))
        );
    }

    #[test]
    fn a_variable_in_the_way_of_a_flag_is_fatal_for_either_prefix() {
        for name in ["ETCD_NAME", "QUORATE_NAME"] {
            assert_eq!(
                apply(
                    &mut flags("--name=a"),
                    &variables(&[(name, "a")]),
                    &mut Vec::new()
                ),
                Err(BadEnvironment::Shadowed(name.to_owned()))
            );
        }
    }

    #[test]
    fn empty_variables_set_nothing_and_unknown_ones_only_warn() {
        let mut notices = Vec::new();
        let mut settings = flags("");
        let environment = variables(&[("ETCD_NAME", ""), ("ETCD_FOO", "1")]);
        apply(&mut settings, &environment, &mut notices).unwrap();
        assert!(!settings.is_set("name"));
        let warned: Vec<_> = notices
            .iter()
            .map(|notice| notice.fields[0].1.as_str())
            .collect();
        assert_eq!(warned, ["ETCD_NAME=", "ETCD_FOO=1"]);
    }

    #[test]
    fn a_bad_variable_is_named_in_the_message() {
        assert_eq!(
            apply(
                &mut flags(""),
                &variables(&[("ETCD_HEARTBEAT_INTERVAL", "x")]),
                &mut Vec::new()
            ),
            Err(BadEnvironment::Value(
                "invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL: parse error".to_owned()
            ))
        );
    }
}
