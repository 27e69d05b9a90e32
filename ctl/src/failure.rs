//! How a command ends when it does not end well: etcdctl's exit codes, and its words on stderr.

use std::process::ExitCode;

use quorate_net::client::ClientError;
use tonic::Code;

/// etcdctl's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The server refused, or something that has no code of its own.
    General = 1,
    /// No connection; some lease commands use it for all errors.
    Connection = 2,
    /// What was read from stdin is not a request.
    Input = 3,
    /// A flag has a value that is not supported.
    Feature = 4,
    /// The server ended a watch.
    Interrupted = 5,
    /// The arguments are wrong.
    Arguments = 128,
}

/// The end of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    /// Complete lines for stderr; empty when all has been said.
    words: String,
}

impl Failure {
    /// A failure that is reported as `Error: ` and the message.
    pub(crate) fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self {
            exit,
            words: format!("Error: {message}\n"),
        }
    }

    /// A failure whose words, possibly none, are complete.
    pub(crate) fn said(exit: Exit, words: String) -> Self {
        Self { exit, words }
    }

    /// Wrong arguments.
    pub(crate) fn arguments(message: impl std::fmt::Display) -> Self {
        Self::new(Exit::Arguments, message)
    }

    /// A call that failed.
    pub(crate) fn call(error: &ClientError) -> Self {
        Self::new(Exit::General, describe(error))
    }

    /// Writes the words and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        eprint!("{}", self.words);
        ExitCode::from(self.exit as u8)
    }
}

impl From<std::io::Error> for Failure {
    /// Output that nobody reads any more.
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::General, error)
    }
}

/// An error in Go's words: what etcd's client knows by name is its message alone; anything else shows its code. That
/// nobody could be reached is only a matter of time to etcdctl; the reason goes to stderr as a log line.
pub(crate) fn describe(error: &ClientError) -> String {
    match error {
        ClientError::Connect(reason) => {
            log_line(
                "warn",
                "no endpoint could be reached",
                "error",
                &reason.to_string(),
            );
            "context deadline exceeded".to_string()
        }
        ClientError::Status(status) if status.code() == Code::DeadlineExceeded => {
            "context deadline exceeded".to_string()
        }
        ClientError::Status(status) if status.message().starts_with("etcdserver: ") => {
            status.message().to_string()
        }
        ClientError::Status(status) => format!(
            "rpc error: code = {:?} desc = {}",
            status.code(),
            status.message()
        ),
        other => other.to_string(),
    }
}

/// A line of JSON on stderr, shaped as etcdctl's log lines.
pub(crate) fn log_line(level: &str, message: &str, name: &str, value: &str) {
    log_fields(level, message, &[(name, value.to_owned())]);
}

/// The same with any number of fields.
pub(crate) fn log_fields(level: &str, message: &str, fields: &[(&str, String)]) {
    use crate::output::json::Json;
    let mut line = Json::object()
        .field("level", Json::text(level))
        .field("ts", Json::text(format!("{:.6}", jiff::Timestamp::now())))
        .field("msg", Json::text(message));
    for (name, value) in fields {
        line = line.field(name, Json::text(value));
    }
    eprintln!("{}", line.finish());
}
