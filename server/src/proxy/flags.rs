//! Flags as cobra and pflag read them, which etcd uses for its sub-commands: two dashes, a switch takes a value only
//! with `=`, lists are separated by commas and add up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::config::{parse_bool, parse_go_duration};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Text,
    List,
    Number,
    Unsigned,
    Unsigned32,
    Duration,
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As on the command line.
    pub(super) default: &'static str,
    pub(super) usage: &'static str,
}

/// A flag, for the tables.
pub(super) const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    usage: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        usage,
    }
}

/// What was said on the command line, defaults included.
#[derive(Debug)]
pub(super) struct Values(BTreeMap<&'static str, String>);

/// What a command line comes to.
#[derive(Debug)]
pub(super) enum Parsed {
    Values(Values),
    /// The usage was asked for.
    Help(String),
    Misused {
        message: String,
        usage: String,
    },
}

impl Values {
    pub(super) fn text(&self, name: &str) -> &str {
        &self.0[name]
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        parse_bool(self.text(name)) == Some(true)
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let items = self.text(name).split(',').map(str::to_owned);
        items.filter(|item| !item.is_empty()).collect()
    }

    /// A flag that is a number.
    pub(super) fn number(&self, name: &str) -> i64 {
        self.text(name).parse().expect("it was checked")
    }

    /// No time at all if it was negative.
    pub(super) fn duration(&self, name: &str) -> Duration {
        let nanoseconds = parse_go_duration(self.text(name)).expect("it was checked");
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    }
}

/// The words without the command's name, which may come after some of its flags; none if it is another command or
/// none. As cobra, which does not know the flags yet: a word behind a flag without `=` is that flag's value.
pub(super) fn without_command(words: &[String], command: &str) -> Option<Vec<String>> {
    let mut number = 0;
    loop {
        let word = words.get(number)?;
        match word.strip_prefix('-') {
            None if word == command => break,
            None if word.is_empty() => number += 1,
            None => return None,
            Some("-") => return None,
            Some("-help" | "h") => number += 1,
            Some(flag) if flag.contains('=') => number += 1,
            // More than one letter behind one dash are switches.
            Some(flag) if !flag.starts_with('-') && flag.len() != 1 => number += 1,
            Some(_) => number += 2,
        }
    }
    Some([&words[..number], &words[number + 1..]].concat())
}

/// Reads what follows the command's name.
pub(super) fn parse(title: &str, flags: &'static [Flag], words: &[String]) -> Parsed {
    let mut values: BTreeMap<_, _> = flags
        .iter()
        .map(|flag| (flag.name, flag.default.to_owned()))
        .collect();
    match read(flags, words, &mut values) {
        Ok(true) => Parsed::Help(usage(title, flags)),
        Ok(false) => Parsed::Values(Values(values)),
        Err(message) => Parsed::Misused {
            message,
            usage: usage(title, flags),
        },
    }
}

/// Whether help was asked for. Free words are taken and ignored, as by etcd.
fn read(
    flags: &'static [Flag],
    words: &[String],
    values: &mut BTreeMap<&'static str, String>,
) -> Result<bool, String> {
    let mut given: Vec<&str> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if word == "-h" || word == "--help" {
            return Ok(true);
        }
        let Some(body) = word.strip_prefix("--") else {
            if let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
                let first = letters.chars().next().unwrap_or_default();
                return Err(format!("unknown shorthand flag: {first:?} in -{letters}"));
            }
            continue;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let flag = flags.iter().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".to_owned(),
            (None, _) => words
                .next()
                .cloned()
                .ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        check(flag, &value)
            .map_err(|why| format!("invalid argument {value:?} for \"--{name}\" flag: {why}"))?;
        let known = values.get_mut(flag.name).expect("each flag has a default");
        if flag.kind == Kind::List && given.contains(&flag.name) {
            known.push(',');
            known.push_str(&value);
        } else {
            *known = value;
        }
        given.push(flag.name);
    }
    Ok(false)
}

fn check(flag: &Flag, value: &str) -> Result<(), String> {
    let syntax = |function: &str| format!("strconv.{function}: parsing {value:?}: invalid syntax");
    match flag.kind {
        Kind::Text | Kind::List => Ok(()),
        Kind::Bool => parse_bool(value)
            .map(drop)
            .ok_or_else(|| syntax("ParseBool")),
        Kind::Number => value
            .parse::<i64>()
            .map(drop)
            .map_err(|_| syntax("ParseInt")),
        Kind::Unsigned | Kind::Unsigned32 => value
            .parse::<u32>()
            .map(drop)
            .map_err(|_| syntax("ParseUint")),
        Kind::Duration => parse_go_duration(value)
            .map(drop)
            .map_err(|_| format!("time: invalid duration {value:?}")),
    }
}

fn usage(title: &str, flags: &[Flag]) -> String {
    let help = format!("help for {}", title.rsplit(' ').next().unwrap_or(title));
    let mut lines: Vec<_> = flags
        .iter()
        .map(|flag| {
            (
                flag.name,
                format!("      --{}{}", flag.name, word(flag.kind)),
                described(flag),
            )
        })
        .collect();
    lines.push(("help", "  -h, --help".to_owned(), help));
    lines.sort();
    let width = lines
        .iter()
        .map(|(_, left, _)| left.len())
        .max()
        .unwrap_or(0)
        + 3;
    let mut text = format!("Usage:\n  quorate {title} [flags]\n\nFlags:\n");
    for (_, left, right) in lines {
        writeln!(text, "{left:width$}{right}").expect("a string takes anything");
    }
    text
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "",
        Kind::Text => " string",
        Kind::List => " strings",
        Kind::Number => " int",
        Kind::Unsigned => " uint",
        Kind::Unsigned32 => " uint32",
        Kind::Duration => " duration",
    }
}

fn described(flag: &Flag) -> String {
    let default = match (flag.kind, flag.default) {
        (_, "" | "false" | "0" | "0s") => return flag.usage.to_owned(),
        (Kind::Text, default) => format!("{default:?}"),
        (Kind::List, default) => format!("[{default}]"),
        (_, default) => default.to_owned(),
    };
    format!("{} (default {default})", flag.usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        flag("endpoints", Kind::List, "a:1", "where"),
        flag("retry-delay", Kind::Duration, "1m0s", "how long"),
        flag("insecure", Kind::Bool, "false", "whether"),
        flag("count", Kind::Unsigned32, "4294967295", "how many"),
    ];

    fn read(line: &str) -> Parsed {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse("thing start", FLAGS, &words)
    }

    fn values(line: &str) -> Values {
        match read(line) {
            Parsed::Values(values) => values,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lists_add_up_once_they_are_given() {
        assert_eq!(values("").list("endpoints"), ["a:1"]);
        let given = values("--endpoints b:2,c:3 free --endpoints=d:4 --insecure");
        assert_eq!(given.list("endpoints"), ["b:2", "c:3", "d:4"]);
        assert!(given.is_set("insecure") && !values("--insecure=false").is_set("insecure"));
        let delay = values("--retry-delay 1m30s").duration("retry-delay");
        assert_eq!(delay, Duration::from_secs(90));
    }

    #[test]
    fn flags_may_stand_before_the_command() {
        let without = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            without_command(&words, "start").map(|words| words.join(" "))
        };
        for (line, expected) in [
            ("start --count 1", Some("--count 1")),
            ("--count=1 start --insecure", Some("--count=1 --insecure")),
            ("--count 1 start", Some("--count 1")),
            ("--help start", Some("--help")),
            ("--insecure start", None),
            ("stop start", None),
            ("-- start", None),
            ("", None),
        ] {
            assert_eq!(without(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_misused_is_named_in_etcds_words() {
        for (line, expected) in [
            ("--nosuch", "unknown flag: --nosuch"),
            ("--endpoints", "flag needs an argument: --endpoints"),
            (
                "--retry-delay abc",
                "invalid argument \"abc\" for \"--retry-delay\" flag: time: invalid duration \"abc\"",
            ),
        ] {
            match read(line) {
                Parsed::Misused { message, .. } => assert_eq!(message, expected),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_usage_is_laid_out_like_etcds() {
        let Parsed::Help(usage) = read("--help") else {
            panic!("it was asked for");
        };
        let expected = "Usage:\n  quorate thing start [flags]\n\nFlags:\n      \
                        --count uint32           how many (default 4294967295)\n      \
                        --endpoints strings      where (default [a:1])\n  \
                        -h, --help                   help for start\n      \
                        --insecure               whether\n      \
                        --retry-delay duration   how long (default 1m0s)\n";
        assert_eq!(usage, expected);
    }
}
