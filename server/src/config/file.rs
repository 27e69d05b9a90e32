//! The configuration file: YAML, and so JSON too, with etcd's keys.
//!
//! A key is a flag's name, but for the groups that etcd nests (`client-transport-security.cert-file`). Values are
//! typed: durations are whole numbers of nanoseconds, lists are lists. A key without a value leaves the default.

use std::path::Path;

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};

use super::ConfigError;
use super::flags::{Flag, Kind, Section, find};
use super::notice::Notice;
use super::settings::{Settings, Value};

/// etcd reads these from the command line alone.
const NOT_IN_FILES: [&str; 7] = [
    "raft-read-timeout",
    "raft-write-timeout",
    "client-crl-file",
    "peer-crl-file",
    "discovery-fallback",
    "config-file",
    "version",
];

/// The nested keys: group, key in it, flag.
const NESTED: [(&str, &str, &str); 33] = [
    ("client-transport-security", "cert-file", "cert-file"),
    ("client-transport-security", "key-file", "key-file"),
    (
        "client-transport-security",
        "client-cert-file",
        "client-cert-file",
    ),
    (
        "client-transport-security",
        "client-key-file",
        "client-key-file",
    ),
    (
        "client-transport-security",
        "client-cert-auth",
        "client-cert-auth",
    ),
    (
        "client-transport-security",
        "trusted-ca-file",
        "trusted-ca-file",
    ),
    ("client-transport-security", "auto-tls", "auto-tls"),
    (
        "client-transport-security",
        "allowed-hostname",
        "client-cert-allowed-hostname",
    ),
    ("peer-transport-security", "cert-file", "peer-cert-file"),
    ("peer-transport-security", "key-file", "peer-key-file"),
    (
        "peer-transport-security",
        "client-cert-file",
        "peer-client-cert-file",
    ),
    (
        "peer-transport-security",
        "client-key-file",
        "peer-client-key-file",
    ),
    (
        "peer-transport-security",
        "client-cert-auth",
        "peer-client-cert-auth",
    ),
    (
        "peer-transport-security",
        "trusted-ca-file",
        "peer-trusted-ca-file",
    ),
    ("peer-transport-security", "auto-tls", "peer-auto-tls"),
    (
        "peer-transport-security",
        "allowed-cn",
        "peer-cert-allowed-cn",
    ),
    (
        "peer-transport-security",
        "allowed-hostname",
        "peer-cert-allowed-hostname",
    ),
    (
        "peer-transport-security",
        "skip-client-san-verification",
        "peer-skip-client-san-verification",
    ),
    ("socket-options", "reuse-port", "socket-reuse-port"),
    ("socket-options", "reuse-address", "socket-reuse-address"),
    ("discovery-config", "token", "discovery-token"),
    (
        "discovery-config.client",
        "endpoints",
        "discovery-endpoints",
    ),
    (
        "discovery-config.client",
        "dial-timeout",
        "discovery-dial-timeout",
    ),
    (
        "discovery-config.client",
        "request-timeout",
        "discovery-request-timeout",
    ),
    (
        "discovery-config.client",
        "keepalive-time",
        "discovery-keepalive-time",
    ),
    (
        "discovery-config.client",
        "keepalive-timeout",
        "discovery-keepalive-timeout",
    ),
    (
        "discovery-config.client.secure",
        "insecure-transport",
        "discovery-insecure-transport",
    ),
    (
        "discovery-config.client.secure",
        "insecure-skip-tls-verify",
        "discovery-insecure-skip-tls-verify",
    ),
    ("discovery-config.client.secure", "cert", "discovery-cert"),
    ("discovery-config.client.secure", "key", "discovery-key"),
    (
        "discovery-config.client.secure",
        "cacert",
        "discovery-cacert",
    ),
    ("discovery-config.client.auth", "username", "discovery-user"),
    (
        "discovery-config.client.auth",
        "password",
        "discovery-password",
    ),
];

/// The settings of the file at `path`, which replace all others.
pub(super) fn read(path: &str, notices: &mut Vec<Notice>) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(Path::new(path))
        .map_err(|error| format!("open {path}: {error}"))?;
    let settings = parse(&text, notices)?;
    notices.push(Notice::info(
        "loaded server configuration, other configuration command line flags and environment variables will be \
         ignored if provided",
        vec![("path", path.to_owned())],
    ));
    Ok(settings)
}

fn parse(text: &str, notices: &mut Vec<Notice>) -> Result<Settings, ConfigError> {
    let documents = Yaml::load_from_str(text)
        .map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    let mut settings = Settings::default();
    match documents.first() {
        None | Some(Yaml::Value(Scalar::Null)) => {}
        Some(document) => add_group("", document, &mut settings, notices)?,
    }
    Ok(settings)
}

fn add_group(
    group: &str,
    node: &Yaml<'_>,
    settings: &mut Settings,
    notices: &mut Vec<Notice>,
) -> Result<(), ConfigError> {
    let Yaml::Mapping(pairs) = node else {
        let place = if group.is_empty() {
            "configuration file"
        } else {
            group
        };
        return Err(format!("invalid {place}: keys with values are expected").into());
    };
    for (key, value) in pairs {
        let Some(key) = key.as_str() else {
            return Err("the keys of a configuration file are texts".into());
        };
        let path = if group.is_empty() {
            key.to_owned()
        } else {
            format!("{group}.{key}")
        };
        let is_group = NESTED
            .iter()
            .any(|(name, _, _)| *name == path || name.starts_with(&format!("{path}.")));
        if is_group && !matches!(value, Yaml::Value(Scalar::Null)) {
            add_group(&path, value, settings, notices)?;
        } else if let Some(flag) = flag_of(group, key) {
            add_value(&path, flag, value, settings)?;
        } else if !is_group {
            notices.push(Notice::warn(
                "unknown key in the configuration file",
                vec![("key", path)],
            ));
        }
    }
    Ok(())
}

fn flag_of(group: &str, key: &str) -> Option<&'static Flag> {
    let nested = |name: &str| NESTED.iter().any(|(_, _, flag)| *flag == name);
    match group {
        "" => find(key).filter(|flag| {
            !nested(key) && !NOT_IN_FILES.contains(&key) && flag.section != Section::Obsolete
        }),
        group => {
            let (_, _, flag) = NESTED
                .iter()
                .find(|(name, inner, _)| *name == group && *inner == key)?;
            find(flag)
        }
    }
}

fn add_value(
    path: &str,
    flag: &'static Flag,
    node: &Yaml<'_>,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    let mismatch = |expected: &str| {
        ConfigError(format!(
            "configuration file: {path}: {expected} is expected"
        ))
    };
    let value = match (flag.kind, node) {
        (_, Yaml::Value(Scalar::Null)) => return Ok(()),
        (Kind::Bool, Yaml::Value(Scalar::Boolean(value))) => Value::Bool(*value),
        (Kind::Bool, Yaml::Value(Scalar::String(text))) => {
            Value::Bool(old_bool(text).ok_or_else(|| mismatch("true or false"))?)
        }
        (Kind::Bool, _) => return Err(mismatch("true or false")),
        (Kind::Unsigned(max), Yaml::Value(Scalar::Integer(number))) => {
            let number = u64::try_from(*number).ok().filter(|number| *number <= max);
            Value::Unsigned(number.ok_or_else(|| mismatch(&format!("a number from 0 to {max}")))?)
        }
        (Kind::Signed, Yaml::Value(Scalar::Integer(number))) => Value::Signed(*number),
        (Kind::Unsigned(_) | Kind::Signed, _) => return Err(mismatch("a whole number")),
        (Kind::Duration, Yaml::Value(Scalar::Integer(nanoseconds))) => {
            Value::Duration(*nanoseconds)
        }
        (Kind::Duration, _) => return Err(mismatch("a whole number of nanoseconds")),
        (Kind::Set | Kind::List, Yaml::Sequence(items)) if flag.name != "host-whitelist" => {
            let texts: Option<Vec<_>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            let mut texts = texts.ok_or_else(|| mismatch("a list of texts"))?;
            if flag.kind == Kind::Set {
                texts.sort();
                texts.dedup();
            }
            Value::List(texts)
        }
        (Kind::Set | Kind::List, _) if flag.name != "host-whitelist" => {
            return Err(mismatch("a list of texts"));
        }
        (_, Yaml::Value(Scalar::String(text))) => return add_text(path, flag, text, settings),
        _ => return Err(mismatch("a text")),
    };
    settings.set_value(flag, value);
    Ok(())
}

fn add_text(
    path: &str,
    flag: &'static Flag,
    text: &str,
    settings: &mut Settings,
) -> Result<(), ConfigError> {
    let keeps_default = matches!(
        flag.kind,
        Kind::Urls | Kind::Set | Kind::Choice(_) | Kind::Gates
    );
    if text.is_empty() && keeps_default {
        return Ok(());
    }
    settings.set(flag, text).map_err(|reason| {
        ConfigError(match flag.kind {
            Kind::Urls => format!("unexpected error setting up {path}: {reason}"),
            Kind::Choice(_) if flag.name == "initial-cluster-state" => {
                format!("unexpected clusterState {text:?}")
            }
            _ => reason,
        })
    })
}

/// The words that YAML 1.1, which etcd reads, takes for truth values.
fn old_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => Some(true),
        "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::FLAGS;
    use super::super::{Config, Origin, Outcome, parse as parse_arguments, texts};
    use super::*;

    fn config(text: &str) -> Result<Config, ConfigError> {
        Config::new(&parse(text, &mut Vec::new())?, Origin::File, || None)
    }

    fn error(text: &str) -> String {
        config(text).unwrap_err().0
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "
# a member
name: 'm1'
data-dir: d
wal-dir:
heartbeat-interval: 50
election-timeout: 500
listen-client-urls: http://10.0.0.1:2379,http://127.0.0.1:2379
initial-cluster: \"\"
log-outputs: [stdout, stderr]
pre-vote: off
cors:
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
watch-progress-notify-interval: 60000000000
";
        let json = r#"{"name": "m1", "data-dir": "d", "heartbeat-interval": 50, "election-timeout": 500,
            "listen-client-urls": "http://10.0.0.1:2379,http://127.0.0.1:2379", "initial-cluster": "",
            "log-outputs": ["stdout", "stderr"], "pre-vote": false, "watch-progress-notify-interval": 60000000000}"#;
        for text in [yaml, json] {
            let config = config(text).unwrap();
            assert_eq!(
                (config.name.as_str(), config.election_ticks, config.pre_vote),
                ("m1", 10, false)
            );
            assert_eq!(
                texts(&config.listen_client_urls),
                ["http://10.0.0.1:2379", "http://127.0.0.1:2379"]
            );
            assert_eq!(
                texts(&config.advertise_client_urls),
                ["http://localhost:2379"],
                "not required in a file"
            );
            assert_eq!(
                (config.log.outputs.len(), config.cors.as_slice()),
                (2, &["*".to_owned()][..])
            );
            assert_eq!(config.watch_progress_notify_interval.as_secs(), 60);
            assert_eq!(config.initial_cluster, "");
        }
        assert_eq!(config("").unwrap().name, "default");
        assert_eq!(
            config("name: m1").unwrap().initial_cluster,
            "m1=http://localhost:2380"
        );
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_with_their_key() {
        for (text, want) in [
            (
                "heartbeat-interval: \"100\"",
                "configuration file: heartbeat-interval: a whole number is expected",
            ),
            (
                "max-concurrent-streams: -1",
                "configuration file: max-concurrent-streams: a number from 0 to 4294967295 is expected",
            ),
            ("name: [a]", "configuration file: name: a text is expected"),
            ("name: 5", "configuration file: name: a text is expected"),
            (
                "pre-vote: maybe",
                "configuration file: pre-vote: true or false is expected",
            ),
            (
                "grpc-keepalive-interval: 10m",
                "configuration file: grpc-keepalive-interval: a whole number of nanoseconds is expected",
            ),
            (
                "log-outputs: stderr",
                "configuration file: log-outputs: a list of texts is expected",
            ),
            (
                "listen-peer-urls: foo",
                "unexpected error setting up listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo",
            ),
            (
                "initial-cluster-state: foo",
                "unexpected clusterState \"foo\"",
            ),
            (
                "peer-transport-security: 5",
                "invalid peer-transport-security: keys with values are expected",
            ),
            (
                "- a",
                "invalid configuration file: keys with values are expected",
            ),
            (
                "discovery-config:\n  token: t",
                "both --discovery-token and --discovery-endpoints must be set",
            ),
        ] {
            assert_eq!(error(text), want, "{text}");
        }
        assert!(error("name: a\n\tb").starts_with("error converting YAML to JSON: yaml: "));
    }

    #[test]
    fn every_flag_has_a_key_or_is_known_to_have_none() {
        for flag in FLAGS
            .iter()
            .filter(|flag| flag.section != Section::Obsolete)
        {
            let nested = NESTED
                .iter()
                .any(|(group, key, name)| *name == flag.name && flag_of(group, key).is_some());
            let flat = flag_of("", flag.name).is_some();
            assert!(
                nested ^ flat ^ NOT_IN_FILES.contains(&flag.name),
                "{}",
                flag.name
            );
        }
    }

    #[test]
    fn unknown_keys_only_warn() {
        let mut notices = Vec::new();
        parse(
            "nosuch: 3\nclient-transport-security:\n  x: y\ncert-file: a\nv: 1\n",
            &mut notices,
        )
        .unwrap();
        let keys: Vec<_> = notices
            .iter()
            .map(|notice| notice.fields[0].1.as_str())
            .collect();
        assert_eq!(
            keys,
            ["nosuch", "client-transport-security.x", "cert-file", "v"]
        );
    }

    #[test]
    fn a_file_replaces_flags_and_variables() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yml");
        std::fs::write(&path, "data-dir: d\n").unwrap();
        let path = path.to_str().unwrap().to_owned();
        let environment = [("ETCD_NAME".to_owned(), "a".to_owned())];
        let by_flag = parse_arguments(
            &["--name=b".to_owned(), format!("--config-file={path}")],
            &environment,
        );
        let mut with_variable = environment.to_vec();
        with_variable.push(("QUORATE_CONFIG_FILE".to_owned(), path));
        let by_variable = parse_arguments(&["--name=b".to_owned()], &with_variable);
        for outcome in [by_flag, by_variable] {
            let Outcome::Run(config) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(
                (config.name.as_str(), config.data_dir.to_str()),
                ("default", Some("d"))
            );
        }
        let missing = parse_arguments(&["--config-file=/nosuch/file".to_owned()], &[]);
        let Outcome::Refused(refusal) = missing else {
            panic!("{missing:?}")
        };
        assert!(
            refusal
                .error
                .0
                .starts_with("open /nosuch/file: No such file or directory"),
            "{}",
            refusal.error
        );
    }
}
