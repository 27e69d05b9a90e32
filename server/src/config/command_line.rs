//! The command line, in Go's syntax.
//!
//! One dash or two, a switch takes a value only with `=`, any other flag takes the next argument whatever it looks like,
//! and the first free argument ends the flags.

use super::flags::{Kind, find};
use super::settings::Settings;

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
pub(super) fn parse(arguments: &[String]) -> Result<CommandLine, String> {
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
                    .map_err(|reason| refusal(name, value, &reason))
            }
        };
        set?;
    }
    Ok(CommandLine::Flags(settings))
}

/// etcd takes a list for one flag whose values are named, and then names the one that it does not know once more.
fn refusal(name: &str, value: &str, reason: &str) -> String {
    let text = format!("invalid value {value:?} for flag -{name}: {reason}");
    if name == "v2-deprecation" {
        format!("{text} {value:?}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn flags(line: &str) -> Settings {
        match parse(&arguments(line)).unwrap() {
            CommandLine::Flags(settings) => settings,
            other => panic!("{line}: {other:?}"),
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
            parse(&arguments("--pre-vote false")).unwrap(),
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
                "--v2-deprecation=not-yet",
                "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
            ),
            (
                "--feature-gates=x=true",
                "invalid value \"x=true\" for flag -feature-gates: unrecognized feature gate: x",
            ),
            ("--=foo", "bad flag syntax: --=foo"),
            ("---x=foo", "bad flag syntax: ---x=foo"),
        ] {
            assert_eq!(parse(&arguments(line)).unwrap_err(), want, "{line}");
        }
    }

    #[test]
    fn the_first_free_argument_ends_the_flags() {
        for line in ["foo --nosuch", "--name=a foo", "- --nosuch", "-- foo"] {
            assert!(
                matches!(parse(&arguments(line)), Ok(CommandLine::Free(_))),
                "{line}"
            );
        }
        assert!(matches!(
            parse(&arguments("--name=a --")),
            Ok(CommandLine::Flags(_))
        ));
        assert!(matches!(
            parse(&arguments("-h --nosuch")),
            Ok(CommandLine::Help)
        ));
    }
}
