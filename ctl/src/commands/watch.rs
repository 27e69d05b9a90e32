//! `watch`: prints events until the server ends the watch, and may run a command for each.
//!
//! With `-i`, lines of stdin add watchers (`watch ...`) or ask for progress (`progress`); all share one stream.

use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;

use clap::{Args, Command, FromArgMatches};
use quorate_net::client::{ClientError, Watches};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::Event;
use tokio::sync::mpsc;

use super::prefix_range;
use crate::failure::{Exit, Failure, describe};
use crate::globals::{Context, Patience, go_int};
use crate::go::quote::quote;
use crate::operation::split_words;
use crate::output::{Answer, Printer};

const KEY_VARIABLE: &str = "ETCDCTL_WATCH_KEY";
const END_VARIABLE: &str = "ETCDCTL_WATCH_RANGE_END";
const BAD_COUNT: &str = "bad number of arguments";

/// Flags of `watch`, on the command line and in interactive lines.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// [key or prefix] [range_end]
    args: Vec<OsString>,
    /// [exec-command arg1 arg2 ...]
    #[arg(last = true)]
    exec: Vec<OsString>,
    /// Interactive mode
    #[arg(short, long)]
    interactive: bool,
    /// Watch on a prefix if prefix is set
    #[arg(long)]
    prefix: bool,
    /// Revision to start watching
    #[arg(long, default_value = "0", value_parser = go_int)]
    rev: i64,
    /// get the previous key-value pair before the event happens
    #[arg(long)]
    prev_kv: bool,
    /// get periodic watch progress notification from server
    #[arg(long)]
    progress_notify: bool,
}

/// Key and range end from the environment.
#[derive(Debug)]
struct Environment {
    key: Vec<u8>,
    range_end: Vec<u8>,
}

/// What to do with a watcher's events.
#[derive(Debug)]
struct Watcher {
    exec: Vec<OsString>,
    request: pb::WatchCreateRequest,
}

impl Watch {
    /// Watches.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let environment = Environment::read()?;
        if self.interactive {
            return interactive(context, &environment).await;
        }
        let ends_with_separator = std::env::args_os()
            .next_back()
            .is_some_and(|last| last == "--");
        let args = self.positional(ends_with_separator, &environment)?;
        let known = [KEY_VARIABLE, END_VARIABLE];
        let session = context.open_with(Patience::Endless, &known).await?;
        let watcher = self.watcher(args).map_err(Failure::arguments)?;

        let mut watches = session.client.watches();
        watches.add(watcher.request).await;
        loop {
            let (_, response) = next(&mut watches).await;
            print(&session.printer, &response)?;
            run_for_events(&watcher.exec, &response).await?;
            if response.canceled {
                let words = "watch is canceled by the server";
                return Err(Failure::new(Exit::Interrupted, words));
            }
        }
    }

    /// The key and, if there is one, the range end.
    fn positional(
        &self,
        ends_with_separator: bool,
        environment: &Environment,
    ) -> Result<Vec<Vec<u8>>, Failure> {
        if ends_with_separator {
            let words = "bad number of arguments (found separator --, but no commands)";
            return Err(Failure::arguments(words));
        }
        let args: Vec<Vec<u8>> = self
            .args
            .iter()
            .map(|arg| arg.as_bytes().to_vec())
            .collect();
        if environment.key.is_empty() {
            return Ok(args);
        }
        if !args.is_empty() {
            let words = "bad number of arguments (found conflicting environment key)";
            return Err(Failure::arguments(words));
        }
        let mut args = vec![environment.key.clone()];
        if !environment.range_end.is_empty() {
            args.push(environment.range_end.clone());
        }
        Ok(args)
    }

    fn watcher(self, args: Vec<Vec<u8>>) -> Result<Watcher, &'static str> {
        let mut args = args.into_iter();
        let key = args.next().ok_or(BAD_COUNT)?;
        let range_end = match (args.next(), args.next()) {
            (Some(_), None) if self.prefix => {
                return Err("`range_end` and `--prefix` are mutually exclusive");
            }
            (Some(range_end), None) => Some(range_end),
            // Like etcdctl: with three arguments, only the first counts.
            _ => None,
        };
        let (key, range_end) = if self.prefix {
            prefix_range(key)
        } else {
            (key, range_end.unwrap_or_default())
        };
        let request = pb::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: self.rev,
            progress_notify: self.progress_notify,
            prev_kv: self.prev_kv,
            ..pb::WatchCreateRequest::default()
        };
        Ok(Watcher {
            exec: self.exec,
            request,
        })
    }
}

impl Environment {
    fn read() -> Result<Self, Failure> {
        let variable = |name| {
            std::env::var_os(name)
                .map(OsStringExt::into_vec)
                .unwrap_or_default()
        };
        let (key, range_end) = (variable(KEY_VARIABLE), variable(END_VARIABLE));
        if key.is_empty() && !range_end.is_empty() {
            let range_end = quote(&range_end);
            return Err(Failure::arguments(format!(
                "{KEY_VARIABLE} is empty but got {END_VARIABLE}={range_end}"
            )));
        }
        Ok(Self { key, range_end })
    }
}

/// The next response; a stream that is over for good ends as a canceled watch does.
async fn next(watches: &mut Watches<'_>) -> (Vec<usize>, pb::WatchResponse) {
    match watches.next().await {
        Ok((numbers, response)) => {
            if response.canceled {
                eprintln!("watch was canceled ({})", reason(&response));
            }
            (numbers, response)
        }
        Err(error) => {
            eprintln!("watch was canceled ({})", describe(&error));
            let response = pb::WatchResponse {
                header: Some(pb::ResponseHeader::default()),
                canceled: true,
                ..pb::WatchResponse::default()
            };
            (Vec::new(), response)
        }
    }
}

fn reason(response: &pb::WatchResponse) -> String {
    if response.compact_revision != 0 {
        return "etcdserver: mvcc: required revision has been compacted".to_string();
    }
    if response.cancel_reason.is_empty() {
        return "etcdserver: mvcc: required revision is a future revision".to_string();
    }
    if response.cancel_reason.starts_with("rpc error: ") {
        return response.cancel_reason.clone();
    }
    describe(&ClientError::from(tonic::Status::failed_precondition(
        &response.cancel_reason,
    )))
}

fn print(printer: &Printer, response: &pb::WatchResponse) -> Result<(), Failure> {
    let revision = response.header.map_or(0, |header| header.revision);
    let is_progress = response.events.is_empty()
        && !response.canceled
        && !response.created
        && response.compact_revision == 0
        && revision != 0;
    if is_progress {
        crate::output::write(format!("progress notify: {revision}\n").as_bytes())?;
    }
    printer.print(Answer::Watch(response))
}

/// Runs the command once for each event, in order.
async fn run_for_events(exec: &[OsString], response: &pb::WatchResponse) -> Result<(), Failure> {
    let Some((program, arguments)) = exec.split_first() else {
        return Ok(());
    };
    let revision = response.header.map_or(0, |header| header.revision);
    for event in &response.events {
        let status = command(program, arguments, revision, event).status().await;
        let trouble = match status {
            Ok(status) if status.success() => continue,
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit status {code}"),
                (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let program = quote(program.as_bytes());
                format!("exec: {program}: executable file not found in $PATH")
            }
            Err(error) => error.to_string(),
        };
        let words: Vec<String> = exec.iter().map(|word| quote(word.as_bytes())).collect();
        let words = format!("command [{}] error ({trouble})\n", words.join(" "));
        return Err(Failure::said(Exit::General, words));
    }
    Ok(())
}

fn command(
    program: &OsString,
    arguments: &[OsString],
    revision: i64,
    event: &Event,
) -> tokio::process::Command {
    let kv = event.kv.clone().unwrap_or_default();
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env(
            "ETCD_WATCH_EVENT_TYPE",
            quote(event.r#type().as_str_name().as_bytes()),
        )
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value));
    command
}

/// Lines from stdin and events from the server, until there are no more lines.
async fn interactive(context: &Context, environment: &Environment) -> Result<(), Failure> {
    let known = [KEY_VARIABLE, END_VARIABLE];
    let session = context.open_with(Patience::Endless, &known).await?;
    let mut watches = session.client.watches();
    let mut execs: Vec<Vec<OsString>> = Vec::new();
    let mut lines = stdin_lines();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            (numbers, response) = next(&mut watches), if watches.has_watchers() => {
                for number in numbers {
                    print(&session.printer, &response)?;
                    run_for_events(&execs[number], &response).await?;
                }
                continue;
            }
        };
        let Some(line) = line else {
            let words = "error reading watch request line: EOF";
            return Err(Failure::new(Exit::Input, words));
        };
        let words = split_words(&line)?;
        let shown = String::from_utf8_lossy(&line);
        match words.first().map(Vec::as_slice) {
            None => eprintln!("Invalid command: {shown} (watch and progress supported)"),
            Some(b"watch") if words.len() < 2 && environment.key.is_empty() => {
                eprintln!("Invalid command {shown} (command type or key is not provided)");
            }
            Some(b"watch") => match parse_line(words, environment)? {
                Ok(watcher) => {
                    let number = watches.add(watcher.request).await;
                    assert_eq!(number, execs.len(), "watchers are numbered in order");
                    execs.push(watcher.exec);
                }
                Err(reason) => eprintln!("Invalid command {shown} ({reason})"),
            },
            Some(b"progress") => watches.request_progress().await,
            Some(_) => eprintln!("Invalid command {shown} (only support watch)"),
        }
    }
}

/// A watcher, or why there is none; some mistakes end the command.
fn parse_line(
    words: Vec<Vec<u8>>,
    environment: &Environment,
) -> Result<Result<Watcher, &'static str>, Failure> {
    let ends_with_separator = words.last().is_some_and(|word| word == b"--");
    let words = words.into_iter().map(OsString::from_vec);
    let command = crate::cli::as_cobra(Watch::augment_args(Command::new("watch")));
    let parsed = command
        .try_get_matches_from(words)
        .and_then(|matches| Watch::from_arg_matches(&matches));
    let watch = parsed.map_err(|error| Failure::arguments(crate::cli::explain(&error)))?;
    let args = watch.positional(ends_with_separator, environment)?;
    if args.is_empty() && watch.exec.is_empty() {
        return Err(Failure::arguments(BAD_COUNT));
    }
    Ok(watch.watcher(args))
}

/// Complete lines of stdin, read by a thread: stdin may be a terminal, which cannot be polled.
fn stdin_lines() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        while let Ok(1..) = input.read_until(b'\n', &mut line) {
            if line.pop() != Some(b'\n') || sender.blocking_send(std::mem::take(&mut line)).is_err()
            {
                return;
            }
        }
    });
    receiver
}
