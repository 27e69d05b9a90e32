//! Log lines in etcd's shape, so that what reads etcd's logs reads ours.
//!
//! Owns the process-wide receiver of `tracing` events, and in [`lines`] the lines that tools wait for. Never used on
//! a hot path: a line is formatted, and written with one call, while a lock is held. Spans are not looked at.
//!
//! ```text
//! {"level":"info","ts":"2026-08-20T15:13:15.123456+0100","caller":"log/lines.rs:42","msg":"…","field":…}
//! 2026-08-20T15:13:15.123456+0100<tab>info<tab>log/lines.rs:42<tab>…<tab>{"field": …}
//! ```
//!
//! Fields keep their type; one given with `?` whose text is a JSON array (as that of a list of strings is) becomes an
//! array. An error event with the target [`FATAL`] is written with level `fatal`.

mod journal;
mod line;
pub mod lines;
mod rotation;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::config::{ConfigError, LogConfig, LogLevel, LogOutput, Rotation};

use self::journal::Journal;
use self::line::Line;
use self::rotation::RotatingFile;

/// The target of events that tell why the process ends.
pub const FATAL: &str = "fatal";

/// Sends this process's log lines where `config` says, from now on.
///
/// # Errors
/// When an output cannot be opened, or a receiver was installed before.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let logger = Logger::open(config)?;
    tracing::subscriber::set_global_default(logger).map_err(|error| ConfigError(error.to_string()))
}

/// Receives the events of `tracing`.
struct Logger {
    /// The most talkative level of our own events.
    level: Level,
    /// Whether events without [`FATAL`] are dropped.
    fatal_only: bool,
    console: bool,
    sinks: Mutex<Vec<Sink>>,
}

enum Sink {
    Stderr,
    Stdout,
    Journal(Journal),
    File(File),
    RotatingFile(RotatingFile),
    #[cfg(test)]
    Memory(std::sync::mpsc::Sender<String>),
}

impl Sink {
    fn open(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        if let Some(rotation) = rotation {
            return RotatingFile::open(path, rotation).map(Self::RotatingFile);
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self::File(file))
    }

    /// A line that cannot be written is lost: there is nowhere to say so.
    fn write(&mut self, line: &Line) {
        let bytes = line.text.as_bytes();
        let _lost = match self {
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::Stdout => io::stdout().lock().write_all(bytes),
            Self::Journal(journal) => journal.write(line),
            Self::File(file) => file.write_all(bytes),
            Self::RotatingFile(file) => file.write(bytes),
            #[cfg(test)]
            Self::Memory(lines) => lines.send(line.text.clone()).map_err(io::Error::other),
        };
    }
}

impl Logger {
    fn open(config: &LogConfig) -> Result<Self, ConfigError> {
        let mut sinks = Vec::new();
        for output in &config.outputs {
            sinks.push(match output {
                LogOutput::Stderr => Sink::Stderr,
                LogOutput::Stdout => Sink::Stdout,
                LogOutput::Journal => Sink::Journal(Journal::open().map_err(|error| {
                    ConfigError(format!("can't find journal (dial unixgram {error})"))
                })?),
                LogOutput::File(path) => Sink::open(path, config.rotation).map_err(|error| {
                    let path = path.display().to_string();
                    ConfigError(format!("open sink {path:?}: open {path}: {error}"))
                })?,
            });
        }
        Ok(Self::new(config, sinks))
    }

    fn new(config: &LogConfig, sinks: Vec<Sink>) -> Self {
        let level = match config.level {
            LogLevel::Debug => Level::DEBUG,
            LogLevel::Info => Level::INFO,
            LogLevel::Warn => Level::WARN,
            LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => Level::ERROR,
        };
        let fatal_only = config.level > LogLevel::Error;
        Self {
            level,
            fatal_only,
            console: config.console,
            sinks: Mutex::new(sinks),
        }
    }

    /// Libraries below us are heard only when something is wrong: their debug lines are many.
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target.starts_with("quorate") || target == FATAL;
        let level = if ours {
            self.level
        } else {
            self.level.min(Level::WARN)
        };
        metadata.is_event() && *metadata.level() <= level && (!self.fatal_only || target == FATAL)
    }
}

impl Subscriber for Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn new_span(&self, _attributes: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let line = line::format(event, &line::timestamp(), self.console);
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        for sink in sinks.iter_mut() {
            sink.write(&line);
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of what `work` logs.
    pub(super) fn logged(config: &LogConfig, work: impl FnOnce()) -> Vec<String> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let logger = Logger::new(config, vec![Sink::Memory(sender)]);
        tracing::subscriber::with_default(logger, work);
        receiver.try_iter().collect()
    }

    /// Replaces the two parts that change from run to run.
    pub(super) fn steady(line: &str) -> String {
        let value: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        let (time, caller) = (
            value["ts"].as_str().unwrap(),
            value["caller"].as_str().unwrap(),
        );
        let file = caller.split(':').next().unwrap();
        line.trim_end().replace(time, "TS").replace(caller, file)
    }

    #[test]
    fn a_line_has_level_time_caller_message_and_typed_fields_in_order() {
        let urls = vec!["http://a:1".to_owned(), "http://b:1".to_owned()];
        let lines = logged(&LogConfig::default(), || {
            tracing::info!(path = "a\"b\n", count = 3_u64, on = true, ?urls, error = %"no", "hello \"you\"");
            tracing::warn!("plain");
            tracing::error!(target: FATAL, index = -1, ratio = 0.5, "the end");
        });
        let lines: Vec<_> = lines.iter().map(|line| steady(line)).collect();
        assert_eq!(
            lines,
            [
                r#"{"level":"info","ts":"TS","caller":"log/mod.rs","msg":"hello \"you\"","path":"a\"b\n","count":3,"on":true,"urls":["http://a:1","http://b:1"],"error":"no"}"#,
                r#"{"level":"warn","ts":"TS","caller":"log/mod.rs","msg":"plain"}"#,
                r#"{"level":"fatal","ts":"TS","caller":"log/mod.rs","msg":"the end","index":-1,"ratio":0.5}"#,
            ]
        );
    }

    #[test]
    fn console_lines_are_for_people() {
        let config = LogConfig {
            console: true,
            ..LogConfig::default()
        };
        let lines = logged(&config, || {
            tracing::info!(args = ?["a", "b"], count = 3, "Running: ");
            tracing::warn!("plain");
        });
        let parts: Vec<Vec<&str>> = lines
            .iter()
            .map(|line| line.trim_end_matches('\n').split('\t').collect())
            .collect();
        assert_eq!(parts[0][1..2], ["info"]);
        assert_eq!(
            parts[0][3..],
            ["Running: ", r#"{"args": ["a", "b"], "count": 3}"#]
        );
        assert_eq!((parts[1].len(), parts[1][3]), (4, "plain"));
    }

    #[test]
    fn the_level_cuts_and_libraries_are_heard_only_when_something_is_wrong() {
        let at = |level| {
            let lines = logged(
                &LogConfig {
                    level,
                    ..LogConfig::default()
                },
                || {
                    tracing::debug!("debug");
                    tracing::info!("info");
                    tracing::info!(target: "h2::codec", "library info");
                    tracing::warn!(target: "h2::codec", "library warn");
                    tracing::error!("error");
                    tracing::error!(target: FATAL, "fatal");
                },
            );
            lines
                .iter()
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["msg"]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            at(LogLevel::Debug),
            ["debug", "info", "library warn", "error", "fatal"]
        );
        assert_eq!(
            at(LogLevel::Info),
            ["info", "library warn", "error", "fatal"]
        );
        assert_eq!(at(LogLevel::Warn), ["library warn", "error", "fatal"]);
        assert_eq!(at(LogLevel::Error), ["error", "fatal"]);
        assert_eq!(at(LogLevel::Fatal), ["fatal"]);
    }

    #[test]
    fn files_are_appended_to_and_each_output_gets_every_line() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        std::fs::write(&one, "before\n").unwrap();
        let outputs = vec![LogOutput::File(one.clone()), LogOutput::File(two.clone())];
        let logger = Logger::open(&LogConfig {
            outputs,
            ..LogConfig::default()
        })
        .map_err(|_| "opens")
        .unwrap();
        tracing::subscriber::with_default(logger, || tracing::info!("here"));
        let one = std::fs::read_to_string(one).unwrap();
        assert_eq!(
            one,
            format!("before\n{}", std::fs::read_to_string(two).unwrap())
        );
        assert!(one.contains("\"msg\":\"here\""));
        let nowhere = vec![LogOutput::File(directory.path().join("no/such"))];
        assert!(
            Logger::open(&LogConfig {
                outputs: nowhere,
                ..LogConfig::default()
            })
            .is_err()
        );
    }
}
