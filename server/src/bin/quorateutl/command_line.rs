//! Arguments by the rules and with the words of cobra and pflag, which etcdutl uses: flags anywhere, commands by any
//! unique beginning, usage behind each mistake.
//!
//! What there is stands in a tree of [`Command`]; nothing here knows what a command does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::Failure;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Duration,
}

/// A flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    /// As on the command line.
    pub(crate) default: &'static str,
    pub(crate) usage: &'static str,
    pub(crate) required: bool,
}

/// Which arguments a command takes besides flags, as far as cobra looks at that.
#[derive(Debug)]
pub(crate) enum Take {
    Any,
    One,
    OneOf(&'static [&'static str]),
}

/// A command, or a group of commands.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What its usage line says behind its name.
    pub(crate) arguments: &'static str,
    pub(crate) about: &'static str,
    pub(crate) take: Take,
    pub(crate) flags: &'static [Flag],
    pub(crate) commands: &'static [Command],
    /// None for a group.
    pub(crate) run: Option<Run>,
}

pub(crate) type Run = fn(&Arguments) -> Result<(), Failure>;

/// What was said on the command line, defaults included.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    values: BTreeMap<&'static str, String>,
    pub(crate) positional: Vec<String>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Print this to stdout, and all is well.
    Usage(String),
    /// Print this to stderr, and fail.
    Misused(String),
    Run(Run, Arguments),
}

impl Arguments {
    pub(crate) fn text(&self, flag: &str) -> &str {
        &self.values[flag]
    }

    pub(crate) fn is_set(&self, flag: &str) -> bool {
        parse_bool(self.text(flag)) == Some(true)
    }

    /// A flag of [`Kind::Int`]; its text was checked.
    pub(crate) fn int(&self, flag: &str) -> i64 {
        self.text(flag).parse().expect("the text was checked")
    }

    /// A flag of [`Kind::Uint`]; its text was checked.
    pub(crate) fn uint(&self, flag: &str) -> u64 {
        self.text(flag).parse().expect("the text was checked")
    }

    /// `--timeout`; none for no limit.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let timeout = parse_duration(self.text("timeout")).expect("the text was checked");
        (!timeout.is_zero()).then_some(timeout)
    }
}

/// Finds the command and reads its flags.
pub(crate) fn parse(root: &'static Command, global: &'static [Flag], words: &[String]) -> Parsed {
    let mut path = vec![root];
    let mut rest = Vec::new();
    let mut words = words.iter().peekable();
    let mut wants_help = false;
    // The command comes first, though flags may stand between its words.
    while let Some(word) = words.next() {
        let command = *path.last().expect("begins with the root");
        if word.starts_with('-') && word.len() > 1 {
            rest.push(word.clone());
            let flag = global
                .iter()
                .find(|flag| *word == format!("--{}", flag.name) || *word == short_of(flag));
            if flag.is_some()
                && let Some(value) = words.next()
            {
                rest.push(value.clone());
            }
            continue;
        }
        if path.len() == 1 && word == "help" {
            wants_help = true;
            continue;
        }
        match find(command, word) {
            Some(found) => path.push(found),
            None if path.len() == 1 && !wants_help => return unknown_command(root, word),
            None => rest.push(word.clone()),
        }
        if path.last().is_some_and(|last| last.commands.is_empty()) {
            rest.extend(words.by_ref().cloned());
        }
    }
    let command = *path.last().expect("begins with the root");
    let usage = usage(&path, global);
    let misused =
        |message: String| Parsed::Misused(format!("Error: {message}\n{usage}\nError: {message}\n"));
    match read(command, global, &rest) {
        Err(message) => misused(message),
        Ok((_, true)) => Parsed::Usage(usage),
        Ok(_) if wants_help => Parsed::Usage(usage),
        Ok((arguments, false)) => match command.run {
            None => Parsed::Usage(usage),
            Some(run) => match check(&path, command, &rest, &arguments) {
                Ok(()) => Parsed::Run(run, arguments),
                Err(message) => misused(message),
            },
        },
    }
}

fn unknown_command(root: &Command, word: &str) -> Parsed {
    let name = root.name;
    let message = format!("Error: unknown command \"{word}\" for \"{name}\"\n");
    Parsed::Misused(format!(
        "{message}Run '{name} --help' for usage.\n{message}"
    ))
}

/// The command of that name, or the only one that begins so.
fn find(command: &'static Command, word: &str) -> Option<&'static Command> {
    let exact = command.commands.iter().find(|inner| inner.name == word);
    exact.or_else(|| {
        let mut matching = command
            .commands
            .iter()
            .filter(|inner| inner.name.starts_with(word));
        matching.next().filter(|_| matching.next().is_none())
    })
}

/// Reads flags and arguments; whether help was asked for comes with them.
fn read(
    command: &'static Command,
    global: &'static [Flag],
    words: &[String],
) -> Result<(Arguments, bool), String> {
    let flags: Vec<&'static Flag> = command.flags.iter().chain(global).collect();
    let mut arguments = Arguments::default();
    let defaults = flags
        .iter()
        .map(|flag| (flag.name, flag.default.to_owned()));
    arguments.values.extend(defaults);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            arguments.positional.extend(words.by_ref().cloned());
        } else if word == "--help" || word == "-h" {
            return Ok((arguments, true));
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let flag = flags.iter().find(|flag| flag.name == name);
            let flag = flag.ok_or_else(|| format!("unknown flag: --{name}"))?;
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => words
                    .next()
                    .ok_or_else(|| format!("flag needs an argument: --{name}"))?
                    .clone(),
            };
            set(&mut arguments, flag, value)?;
        } else if word.len() > 1 && word.starts_with('-') {
            read_short(&mut arguments, &flags, word, &mut words)?;
        } else {
            arguments.positional.push(word.clone());
        }
    }
    Ok((arguments, false))
}

/// `-w json`, `-wjson`, `-w=json`: no flag with a letter is without a value.
fn read_short<'a>(
    arguments: &mut Arguments,
    flags: &[&'static Flag],
    word: &str,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<(), String> {
    let mut letters = word[1..].chars();
    let letter = letters.next().expect("more than a dash");
    let flag = flags.iter().find(|flag| flag.short == Some(letter));
    let flag = flag.ok_or_else(|| format!("unknown shorthand flag: '{letter}' in {word}"))?;
    let attached = letters.as_str();
    let value = match attached.strip_prefix('=').unwrap_or(attached) {
        "" => words
            .next()
            .ok_or_else(|| format!("flag needs an argument: '{letter}' in {word}"))?
            .clone(),
        value => value.to_owned(),
    };
    set(arguments, flag, value)
}

fn set(arguments: &mut Arguments, flag: &'static Flag, value: String) -> Result<(), String> {
    check_value(flag, &value).map_err(|reason| {
        let name = match flag.short {
            Some(short) => format!("-{short}, --{}", flag.name),
            None => format!("--{}", flag.name),
        };
        format!("invalid argument {value:?} for {name:?} flag: {reason}")
    })?;
    arguments.values.insert(flag.name, value);
    Ok(())
}

fn check_value(flag: &Flag, value: &str) -> Result<(), String> {
    let syntax = |function: &str| format!("strconv.{function}: parsing {value:?}: invalid syntax");
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let out_of_range =
        |function: &str| format!("strconv.{function}: parsing {value:?}: value out of range");
    match flag.kind {
        Kind::Text => Ok(()),
        Kind::Bool => parse_bool(value)
            .map(drop)
            .ok_or_else(|| syntax("ParseBool")),
        Kind::Int if value.parse::<i64>().is_ok() => Ok(()),
        Kind::Int if is_number(value.trim_start_matches(['-', '+'])) => {
            Err(out_of_range("ParseInt"))
        }
        Kind::Int => Err(syntax("ParseInt")),
        Kind::Uint if value.parse::<u64>().is_ok() && !value.starts_with('+') => Ok(()),
        Kind::Uint if is_number(value) => Err(out_of_range("ParseUint")),
        Kind::Uint => Err(syntax("ParseUint")),
        Kind::Duration => parse_duration(value).map(drop),
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `1m30s`, in Go's units; no more than whole waits need.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(|| format!("time: missing unit in duration {text:?}"))?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = &rest[..letters];
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
            };
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// What cobra checks before a command runs: the arguments, then the required flags.
fn check(
    path: &[&Command],
    command: &Command,
    words: &[String],
    arguments: &Arguments,
) -> Result<(), String> {
    let given = &arguments.positional;
    match &command.take {
        Take::Any => {}
        Take::One | Take::OneOf(_) if given.len() != 1 => {
            return Err(format!("accepts 1 arg(s), received {}", given.len()));
        }
        Take::OneOf(allowed) if !allowed.contains(&given[0].as_str()) => {
            let path = names(path);
            return Err(format!("invalid argument {:?} for {path:?}", given[0]));
        }
        Take::One | Take::OneOf(_) => {}
    }
    let is_given = |flag: &Flag| {
        let long = format!("--{}", flag.name);
        words
            .iter()
            .any(|word| *word == long || word.starts_with(&format!("{long}=")))
    };
    let missing: Vec<String> = command
        .flags
        .iter()
        .filter(|flag| flag.required && !is_given(flag))
        .map(|flag| format!("{:?}", flag.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("required flag(s) {} not set", missing.join(", ")))
}

fn names(path: &[&Command]) -> String {
    let names: Vec<_> = path.iter().map(|command| command.name).collect();
    names.join(" ")
}

fn short_of(flag: &Flag) -> String {
    flag.short
        .map_or_else(String::new, |short| format!("-{short}"))
}

/// cobra's usage text.
fn usage(path: &[&Command], global: &[Flag]) -> String {
    let command = path.last().expect("begins with the root");
    let name = names(path);
    let mut text = if command.run.is_some() {
        format!("Usage:\n  {name}{}\n", command.arguments)
    } else {
        format!("Usage:\n  {name} [command]\n")
    };
    if !command.commands.is_empty() {
        text += "\nAvailable Commands:\n";
        let mut entries: Vec<_> = command
            .commands
            .iter()
            .map(|inner| (inner.name, inner.about))
            .collect();
        if path.len() == 1 {
            entries.push(("help", "Help about any command"));
        }
        entries.sort_unstable();
        for (name, about) in entries {
            writeln!(text, "  {name:<11} {about}").expect("a string takes all");
        }
    }
    let help = format!("help for {}", command.name);
    let own = command.flags.iter().map(flag_lines);
    let mut own: Vec<_> = own.chain([("  -h, --help".to_owned(), help)]).collect();
    let global = global.iter().map(flag_lines);
    let is_root = path.len() == 1;
    if is_root {
        own.extend(global.clone());
    }
    text += &flag_block("Flags", own);
    if !is_root {
        text += &flag_block("Global Flags", global.collect());
    }
    if !command.commands.is_empty() {
        let line =
            format!("\nUse \"{name} [command] --help\" for more information about a command.\n");
        text += &line;
    }
    text
}

fn flag_lines(flag: &Flag) -> (String, String) {
    let left = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    let kind = match flag.kind {
        Kind::Bool => "",
        Kind::Text => " string",
        Kind::Int => " int",
        Kind::Uint => " uint",
        Kind::Duration => " duration",
    };
    let default = match (flag.kind, flag.default) {
        (Kind::Bool, _) | (_, "" | "0") => String::new(),
        (Kind::Text, default) => format!(" (default {default:?})"),
        (_, default) => format!(" (default {default})"),
    };
    (format!("{left}{kind}"), format!("{}{default}", flag.usage))
}

fn flag_block(title: &str, mut lines: Vec<(String, String)>) -> String {
    lines.sort_by(|(left, _), (right, _)| left[6..].cmp(&right[6..]));
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    let mut text = format!("\n{title}:\n");
    for (left, right) in lines {
        writeln!(text, "{left:<width$}   {right}").expect("a string takes all");
    }
    text
}
