//! Where log lines go, in which shape, and how their file is replaced when it is full.
//!
//! Owns the meaning of `--logger`, `--log-…` and `--enable-log-rotation`, which etcd checks before everything else, in
//! its order and words. Never opens a file: that is done when the log is.

use std::path::PathBuf;

use serde_json::Value;

use super::ConfigError;
use super::settings::Settings;

/// How and where to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `--log-level`.
    pub level: LogLevel,
    /// `--log-format`: JSON lines, or text for people.
    pub console: bool,
    /// `--log-outputs`; each place once.
    pub outputs: Vec<LogOutput>,
    /// `--log-rotation-config-json`, if files are to be rotated.
    pub rotation: Option<Rotation>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            console: false,
            outputs: vec![LogOutput::Stderr],
            rotation: None,
        }
    }
}

/// From which level on lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator may want to know.
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    Error,
    /// Only what ends the process.
    Panic,
    /// The same, a step higher.
    Fatal,
}

/// One place for log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The journal of systemd.
    Journal,
    /// A file, appended to.
    File(PathBuf),
}

/// When a log file makes way for a new one, and how long it is kept afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file does not grow beyond this, but for a single line that is longer.
    pub bytes_max: u64,
    /// After so many days a file is removed; 0 is never.
    pub age_days_max: u64,
    /// So many files are kept beside the current one; 0 is all.
    pub backups_max: usize,
    /// Whether names of files carry this machine's time instead of UTC.
    pub local_time: bool,
    /// Whether they are compressed, by gzip.
    pub compress: bool,
}

const MEGABYTE: u64 = 1 << 20;
/// What `maxsize` 0 means.
const MEGABYTES_DEFAULT: u64 = 100;

/// All outputs but this one are for nothing when it is among them.
const DISCARD: &str = "/dev/null";
const JOURNAL: &str = "systemd/journal";

/// Reads and checks the log's settings.
pub(super) fn log_config(settings: &Settings) -> Result<LogConfig, ConfigError> {
    match settings.text("logger").as_str() {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
        other => return Err(format!("unknown logger option {other:?}").into()),
    }
    let mut outputs = settings.list("log-outputs");
    if outputs.is_empty() {
        outputs.push("default".to_owned());
    }
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return Err("multi logoutput for \"default\" is not supported yet".into());
    }
    let rotation = if settings.bool("enable-log-rotation") {
        check_rotated(&outputs)?;
        Some(Rotation::parse(&settings.text("log-rotation-config-json"))?)
    } else {
        None
    };
    if outputs.len() > 1 && outputs.iter().any(|output| output == JOURNAL) {
        let quoted: Vec<_> = outputs.iter().map(|output| format!("{output:?}")).collect();
        return Err(format!(
            "running with systemd/journal but other '--log-outputs' values ([{}]) are configured with 'default'; \
             override 'default' value with something else",
            quoted.join(" ")
        )
        .into());
    }
    Ok(LogConfig {
        level: level(&settings.text("log-level"))?,
        console: console(&settings.text("log-format"))?,
        outputs: places(outputs),
        rotation,
    })
}

fn level(text: &str) -> Result<LogLevel, ConfigError> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "info" | "" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "panic" | "dpanic" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        _ => return Err(format!("unrecognized level: {text:?}").into()),
    })
}

fn console(format: &str) -> Result<bool, ConfigError> {
    match format {
        "json" | "" => Ok(false),
        "console" => Ok(true),
        other => Err(format!("unknown log format: {other}, supported values json, console").into()),
    }
}

fn places(outputs: Vec<String>) -> Vec<LogOutput> {
    if outputs.iter().any(|output| output == DISCARD) {
        return vec![LogOutput::File(PathBuf::from(DISCARD))];
    }
    let mut places = Vec::new();
    for output in outputs {
        let place = match output.as_str() {
            "default" | "stderr" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            JOURNAL => LogOutput::Journal,
            path => LogOutput::File(PathBuf::from(path)),
        };
        // A configuration file may name a place twice.
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// One file at most can be rotated, and something else must be there if there is none.
fn check_rotated(outputs: &[String]) -> Result<(), ConfigError> {
    let files = outputs
        .iter()
        .filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout"))
        .count();
    if files > 1 || (files == 0 && outputs.len() == 1) {
        return Err(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined"
                .into(),
        );
    }
    Ok(())
}

impl Rotation {
    /// Reads the JSON of the flag. Keys that nobody knows are left alone, and a file's name among them.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("improperly formatted log rotation config: {error}"))?;
        let keys = match value {
            Value::Object(keys) => keys,
            Value::Null => serde_json::Map::new(),
            other => {
                let kind = kind(&other);
                return Err(format!(
                    "invalid log rotation config: json: cannot unmarshal {kind} into Go value of type \
                     embed.logRotationConfig"
                )
                .into());
            }
        };
        let (mut megabytes, mut age_days, mut backups) = (0, 0, 0);
        let (mut local_time, mut compress) = (false, false);
        for (key, value) in &keys {
            match key.to_ascii_lowercase().as_str() {
                "maxsize" => megabytes = number("maxsize", value)?,
                "maxage" => age_days = number("maxage", value)?,
                "maxbackups" => backups = number("maxbackups", value)?,
                "localtime" => local_time = switch("localtime", value)?,
                "compress" => compress = switch("compress", value)?,
                _ => {}
            }
        }
        // etcd takes it, and then writes no line at all.
        let megabytes = u64::try_from(megabytes)
            .map_err(|_| "invalid log rotation config: maxsize must not be negative")?;
        let megabytes = if megabytes == 0 {
            MEGABYTES_DEFAULT
        } else {
            megabytes
        };
        Ok(Self {
            bytes_max: megabytes.saturating_mul(MEGABYTE),
            age_days_max: u64::try_from(age_days).unwrap_or(0),
            backups_max: usize::try_from(backups).unwrap_or(0),
            local_time,
            compress,
        })
    }
}

fn number(key: &str, value: &Value) -> Result<i64, ConfigError> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => number
            .as_i64()
            .ok_or_else(|| misfit(&format!("number {number}"), key, "int")),
        other => Err(misfit(kind(other), key, "int")),
    }
}

fn switch(key: &str, value: &Value) -> Result<bool, ConfigError> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(on) => Ok(*on),
        other => Err(misfit(kind(other), key, "bool")),
    }
}

/// In the words of Go's library, which tools look for.
fn misfit(found: &str, key: &str, wanted: &str) -> ConfigError {
    format!(
        "invalid log rotation config: json: cannot unmarshal {found} into Go struct field \
         logRotationConfig.Logger.{key} of type {wanted}"
    )
    .into()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_of_a_rotation_is_lumberjacks_default() {
        let default = Rotation {
            bytes_max: 100 << 20,
            age_days_max: 0,
            backups_max: 0,
            local_time: false,
            compress: false,
        };
        for text in [
            super::super::flags::find("log-rotation-config-json")
                .unwrap()
                .default,
            "{}",
            "null",
            r#"{"maxsize": null, "filename": "x", "nosuch": [1], "maxage": -1}"#,
        ] {
            assert_eq!(Rotation::parse(text), Ok(default), "{text}");
        }
        let all =
            r#"{"MaxSize": 1, "maxage": 2, "maxbackups": 3, "localtime": true, "compress": true}"#;
        assert_eq!(
            Rotation::parse(all),
            Ok(Rotation {
                bytes_max: 1 << 20,
                age_days_max: 2,
                backups_max: 3,
                local_time: true,
                compress: true,
            })
        );
    }

    #[test]
    fn bad_rotations_are_refused_in_etcds_words() {
        let field = "invalid log rotation config: json: cannot unmarshal";
        for (text, want) in [
            (
                r#"{"maxsize": "x"}"#,
                format!(
                    "{field} string into Go struct field logRotationConfig.Logger.maxsize of type int"
                ),
            ),
            (
                r#"{"maxage": 1.5}"#,
                format!(
                    "{field} number 1.5 into Go struct field logRotationConfig.Logger.maxage of type int"
                ),
            ),
            (
                r#"{"maxbackups": true}"#,
                format!(
                    "{field} bool into Go struct field logRotationConfig.Logger.maxbackups of type int"
                ),
            ),
            (
                r#"{"compress": 1}"#,
                format!(
                    "{field} number into Go struct field logRotationConfig.Logger.compress of type bool"
                ),
            ),
            (
                "[1]",
                format!("{field} array into Go value of type embed.logRotationConfig"),
            ),
            (
                r#"{"maxsize": -1}"#,
                "invalid log rotation config: maxsize must not be negative".to_owned(),
            ),
        ] {
            assert_eq!(Rotation::parse(text).unwrap_err().0, want, "{text}");
        }
        for text in ["", "maxsize=1", r#"{"maxsize": 1"#, r#"{"maxsize": 1}}"#] {
            let error = Rotation::parse(text).unwrap_err().0;
            let (before, _) = error.split_once(": ").unwrap();
            assert_eq!(before, "improperly formatted log rotation config", "{text}");
        }
    }
}
