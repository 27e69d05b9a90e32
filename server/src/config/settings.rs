//! From texts to typed settings: the command line and the environment, by the table of flags.
//!
//! Owns Go's flag syntax and etcd's rules for environment variables. Never looks at what a setting means: that is the
//! parent's work.
//!
//! The syntax is Go's and not the usual one: one dash or two, a switch takes a value only with `=`, any other flag
//! takes the next argument whatever it looks like, and the first free argument ends the flags.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::flags::{FLAGS, Flag, Kind, find};
use super::gates::FeatureGates;
use super::go_syntax::{parse_bool, parse_duration, parse_signed, parse_unsigned};
use super::url::Url;

/// The value of one flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// In nanoseconds.
    Duration(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    Gates(FeatureGates),
    Nothing,
}

impl Value {
    /// Reads `text` as a value of `flag`.
    pub(super) fn parse(flag: &Flag, text: &str) -> Result<Self, String> {
        let list = || text.split(',').map(str::to_owned).collect::<Vec<_>>();
        Ok(match flag.kind {
            Kind::Text => Self::Text(text.to_owned()),
            Kind::Bool => Self::Bool(parse_bool(text).ok_or("parse error")?),
            Kind::Unsigned(max) => match parse_unsigned(text).map_err(|misread| misread.words())? {
                number if number > max => return Err("value out of range".to_owned()),
                number => Self::Unsigned(number),
            },
            Kind::Signed => Self::Signed(parse_signed(text).map_err(|misread| misread.words())?),
            Kind::Duration => {
                Self::Duration(parse_duration(text).map_err(|misread| misread.words())?)
            }
            Kind::Urls if text.is_empty() => Self::Urls(Vec::new()),
            // Origins may be "all", which is no URL; they are looked at as texts.
            Kind::Urls if flag.name == "cors" && text == "*" => Self::List(list()),
            Kind::Urls if flag.name == "cors" => {
                Self::List(super::url::texts(&Url::parse_list(text)?))
            }
            Kind::Urls => Self::Urls(Url::parse_list(text)?),
            Kind::Set if text.is_empty() => Self::List(Vec::new()),
            Kind::Set => {
                let mut texts = list();
                texts.sort();
                texts.dedup();
                Self::List(texts)
            }
            Kind::List if text.is_empty() => Self::List(Vec::new()),
            Kind::List => Self::List(list()),
            // The default of a choice need not be one of its values: it then means "not chosen".
            Kind::Choice(_) if text == flag.default => Self::Text(text.to_owned()),
            Kind::Choice(choices) if choices.contains(&text) => Self::Text(text.to_owned()),
            Kind::Choice(_) => return Err("invalid value".to_owned()),
            Kind::Gates => {
                let mut gates = FeatureGates::default();
                gates.merge(text)?;
                Self::Gates(gates)
            }
            Kind::Obsolete => Self::Nothing,
        })
    }

    fn default_of(flag: &Flag) -> Self {
        Self::parse(flag, flag.default).expect("the defaults of the table are values")
    }
}

/// The flags that were set, each with its last value.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Sets `flag` from a text.
    pub(super) fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        // Gates are the one flag whose values add up.
        if let Some(Value::Gates(gates)) = self.values.get_mut(flag.name) {
            return gates.merge(text);
        }
        self.set_value(flag, Value::parse(flag, text)?);
        Ok(())
    }

    pub(super) fn set_value(&mut self, flag: &'static Flag, value: Value) {
        self.values.insert(flag.name, value);
    }

    /// Whether the flag was given, at whatever value.
    pub(super) fn is_set(&self, name: &str) -> bool {
        assert!(find(name).is_some(), "unknown flag {name}");
        self.values.contains_key(name)
    }

    /// The flags that were given.
    pub(super) fn set_flags(&self) -> impl Iterator<Item = &'static Flag> {
        FLAGS
            .iter()
            .filter(|flag| self.values.contains_key(flag.name))
    }

    /// Whether the flag differs from its default.
    pub(super) fn is_changed(&self, flag: &Flag) -> bool {
        self.values
            .get(flag.name)
            .is_some_and(|value| *value != Value::default_of(flag))
    }

    fn value(&self, name: &str) -> Value {
        let flag = find(name).expect("flags are named by the table");
        self.values
            .get(name)
            .cloned()
            .unwrap_or_else(|| Value::default_of(flag))
    }

    pub(super) fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("{name} is no text but {other:?}"),
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => value,
            other => panic!("{name} is no switch but {other:?}"),
        }
    }

    pub(super) fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Unsigned(number) => number,
            other => panic!("{name} is no unsigned number but {other:?}"),
        }
    }

    pub(super) fn signed(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Signed(number) => number,
            other => panic!("{name} is no number but {other:?}"),
        }
    }

    /// In nanoseconds.
    pub(super) fn duration(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Duration(nanoseconds) => nanoseconds,
            other => panic!("{name} is no duration but {other:?}"),
        }
    }

    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => panic!("{name} is no list of URLs but {other:?}"),
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(texts) => texts,
            Value::Urls(urls) => super::url::texts(&urls),
            other => panic!("{name} is no list but {other:?}"),
        }
    }

    pub(super) fn gates(&self) -> FeatureGates {
        match self.value("feature-gates") {
            Value::Gates(gates) => gates,
            other => panic!("feature-gates holds {other:?}"),
        }
    }
}

/// What the command line says.
#[derive(Debug)]
pub(super) enum CommandLine {
    /// These flags.
    Flags(Settings),
    /// `-h`, `--help`.
    Help,
    /// A free argument.
    Free(String),
}

/// Reads the arguments after the program's name; an error goes out together with the usage.
pub(super) fn parse_command_line(arguments: &[String]) -> Result<CommandLine, String> {
    let mut settings = Settings::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            return Ok(rest.next().map_or(CommandLine::Flags(settings), |free| {
                CommandLine::Free(free.clone())
            }));
        }
        let Some(body) = argument.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Ok(CommandLine::Free(argument.clone()));
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {argument}"));
        }
        let (name, given) = body
            .split_once('=')
            .map_or((body, None), |(name, value)| (name, Some(value)));
        let Some(flag) = find(name) else {
            if matches!(name, "h" | "help") {
                return Ok(CommandLine::Help);
            }
            return Err(format!("flag provided but not defined: -{name}"));
        };
        let set = match (flag.kind, given) {
            (Kind::Bool, given) => settings
                .set(flag, given.unwrap_or("true"))
                .map_err(|reason| {
                    format!(
                        "invalid boolean value {:?} for -{name}: {reason}",
                        given.unwrap_or("true")
                    )
                }),
            (Kind::Obsolete, given) => settings.set(flag, given.unwrap_or("true")),
            (_, given) => {
                let value = given.or_else(|| rest.next().map(String::as_str));
                let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                settings
                    .set(flag, value)
                    .map_err(|reason| format!("invalid value {value:?} for flag -{name}: {reason}"))
            }
        };
        set?;
    }
    Ok(CommandLine::Flags(settings))
}

/// What went well but should be logged once there is a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How bad it is.
    pub level: NoticeLevel,
    /// The message.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeLevel {
    /// Good to know.
    Info,
    /// Probably not wanted.
    Warn,
}

impl Notice {
    pub(super) fn info(message: &str, fields: Vec<(&'static str, String)>) -> Self {
        Self {
            level: NoticeLevel::Info,
            message: message.to_owned(),
            fields,
        }
    }

    pub(super) fn warn(message: &str, fields: Vec<(&'static str, String)>) -> Self {
        Self {
            level: NoticeLevel::Warn,
            message: message.to_owned(),
            fields,
        }
    }
}

/// The prefixes of environment variables: etcd's and our own mean the same.
pub(super) const PREFIXES: [&str; 2] = ["ETCD_", "QUORATE_"];

/// The variable of a flag, without its prefix.
pub(super) fn variable(flag_name: &str) -> String {
    flag_name.to_ascii_uppercase().replace('-', "_")
}

/// The value of a flag in the environment, if any of its variables holds one, and the name of the variable.
pub(super) fn from_environment<'a>(
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
pub(super) fn apply_environment(
    settings: &mut Settings,
    environment: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<(), BadEnvironment> {
    let from_flags = settings.clone();
    let mut result = Ok(());
    for flag in FLAGS.iter().filter(|flag| !from_flags.is_set(flag.name)) {
        match from_environment(environment, flag.name) {
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
    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn flags(line: &str) -> Settings {
        match parse_command_line(&arguments(line)).unwrap() {
            CommandLine::Flags(settings) => settings,
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
    fn every_default_is_a_value_of_its_flag() {
        for flag in FLAGS {
            Value::default_of(flag);
            assert_eq!(
                FLAGS.iter().filter(|other| other.name == flag.name).count(),
                1,
                "{}",
                flag.name
            );
        }
    }

    #[test]
    fn flags_take_one_dash_or_two_and_the_last_one_wins() {
        for line in [
            "--name=a",
            "-name=a",
            "--name a",
            "-name a",
            "--name b --name=a",
        ] {
            assert_eq!(flags(line).text("name"), "a", "{line}");
        }
        assert_eq!(
            flags("--name -x").text("name"),
            "-x",
            "a value may look like a flag"
        );
        assert_eq!(flags("--name a=b").text("name"), "a=b");
        assert_eq!(flags("--name=").text("name"), "");
    }

    #[test]
    fn switches_take_a_value_only_with_an_equals_sign() {
        assert!(!flags("--pre-vote=false").bool("pre-vote"));
        assert!(flags("--unsafe-no-fsync").bool("unsafe-no-fsync"));
        assert!(matches!(
            parse_command_line(&arguments("--pre-vote false")).unwrap(),
            CommandLine::Free(free) if free == "false"
        ));
    }

    #[test]
    fn bad_command_lines_are_refused_in_gos_words() {
        for (line, want) in [
            ("--nosuch", "flag provided but not defined: -nosuch"),
            (
                "--discovery=http://a",
                "flag provided but not defined: -discovery",
            ),
            (
                "--experimental-max-learners=1",
                "flag provided but not defined: -experimental-max-learners",
            ),
            ("--name", "flag needs an argument: -name"),
            (
                "--pre-vote=x",
                "invalid boolean value \"x\" for -pre-vote: parse error",
            ),
            (
                "--heartbeat-interval abc",
                "invalid value \"abc\" for flag -heartbeat-interval: parse error",
            ),
            (
                "--heartbeat-interval=-1",
                "invalid value \"-1\" for flag -heartbeat-interval: parse error",
            ),
            (
                "--max-concurrent-streams=4294967296",
                "invalid value \"4294967296\" for flag -max-concurrent-streams: value out of range",
            ),
            (
                "--max-learners=99999999999999999999",
                "invalid value \"99999999999999999999\" for flag -max-learners: value out of range",
            ),
            (
                "--grpc-keepalive-timeout=5",
                "invalid value \"5\" for flag -grpc-keepalive-timeout: parse error",
            ),
            (
                "--listen-peer-urls=foo",
                "invalid value \"foo\" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo",
            ),
            (
                "--cors=foo",
                "invalid value \"foo\" for flag -cors: URL scheme must be http, https, unix, or unixs: foo",
            ),
            (
                "--initial-cluster-state=s",
                "invalid value \"s\" for flag -initial-cluster-state: invalid value",
            ),
            (
                "--feature-gates=x=true",
                "invalid value \"x=true\" for flag -feature-gates: unrecognized feature gate: x",
            ),
            ("--=foo", "bad flag syntax: --=foo"),
            ("---x=foo", "bad flag syntax: ---x=foo"),
        ] {
            assert_eq!(
                parse_command_line(&arguments(line)).unwrap_err(),
                want,
                "{line}"
            );
        }
    }

    #[test]
    fn the_first_free_argument_ends_the_flags() {
        for line in ["foo --nosuch", "--name=a foo", "- --nosuch", "-- foo"] {
            assert!(
                matches!(
                    parse_command_line(&arguments(line)),
                    Ok(CommandLine::Free(_))
                ),
                "{line}"
            );
        }
        assert!(matches!(
            parse_command_line(&arguments("--name=a --")),
            Ok(CommandLine::Flags(_))
        ));
        assert!(matches!(
            parse_command_line(&arguments("-h --nosuch")),
            Ok(CommandLine::Help)
        ));
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
        apply_environment(&mut settings, &environment, &mut notices).unwrap();
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
            apply_environment(&mut flags(""), &environment, &mut notices),
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
                apply_environment(
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
        apply_environment(&mut settings, &environment, &mut notices).unwrap();
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
            apply_environment(
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
