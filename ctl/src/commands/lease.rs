//! `lease grant`, `revoke`, `timetolive`, `list`, `keep-alive`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_net::client::{Client, ClientError};
use quorate_proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Streaming};

use crate::failure::{Exit, Failure, describe};
use crate::globals::{Context, Patience, Session};
use crate::go::number::parse_int;
use crate::output::{Answer, Format};

/// Between two tries to reach a server.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// `lease`.
#[derive(Debug, Args)]
pub(crate) struct Lease {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// Creates leases
    Grant {
        /// <ttl>
        args: Vec<OsString>,
    },
    /// Revokes leases
    Revoke {
        /// <leaseID>
        args: Vec<OsString>,
    },
    /// Get lease information
    Timetolive {
        /// <leaseID>
        args: Vec<OsString>,
        /// Get keys attached to this lease
        #[arg(long)]
        keys: bool,
    },
    /// List all active leases
    List {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Keeps leases alive (renew)
    KeepAlive {
        /// <leaseID>
        args: Vec<OsString>,
        /// Resets the keep-alive time to its original value and exits immediately
        #[arg(long)]
        once: bool,
    },
}

impl Lease {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            LeaseCommand::Grant { args } => grant(context, &args).await,
            LeaseCommand::Revoke { args } => revoke(context, &args).await,
            LeaseCommand::Timetolive { args, keys } => time_to_live(context, &args, keys).await,
            LeaseCommand::List { .. } => list(context).await,
            LeaseCommand::KeepAlive { args, once } => keep_alive(context, &args, once).await,
        }
    }
}

fn one<'a>(args: &'a [OsString], otherwise: &str) -> Result<&'a [u8], Failure> {
    match args {
        [arg] => Ok(arg.as_bytes()),
        _ => Err(Failure::arguments(otherwise)),
    }
}

fn lease_id(text: &[u8]) -> Result<i64, Failure> {
    parse_int(text, 16).map_err(|error| {
        Failure::arguments(format!("bad lease ID arg ({error}), expecting ID in Hex"))
    })
}

/// Some lease commands call every error one of the connection.
fn connection(error: ClientError) -> Failure {
    Failure::new(Exit::Connection, describe(&error))
}

async fn grant(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let ttl = one(args, "lease grant command needs TTL argument")?;
    let ttl =
        parse_int(ttl, 10).map_err(|error| Failure::arguments(format!("bad TTL ({error})")))?;
    let session = context.open(Patience::Short).await?;
    let request = pb::LeaseGrantRequest { ttl, id: 0 };
    let answer = session.client.lease_grant(request).await;
    let response = answer.map_err(|error| {
        let error = describe(&error);
        Failure::new(Exit::General, format!("failed to grant lease ({error})"))
    })?;
    session.printer.print(Answer::Grant(&response))
}

async fn revoke(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let id = lease_id(one(args, "lease revoke command needs 1 argument")?)?;
    let session = context.open(Patience::Short).await?;
    let answer = session
        .client
        .lease_revoke(pb::LeaseRevokeRequest { id })
        .await;
    let response = answer.map_err(|error| {
        let error = describe(&error);
        Failure::new(Exit::General, format!("failed to revoke lease ({error})"))
    })?;
    session.printer.print(Answer::Revoke(id, &response))
}

async fn time_to_live(context: &Context, args: &[OsString], keys: bool) -> Result<(), Failure> {
    let id = one(args, "lease timetolive command needs lease ID as argument")?;
    let session = context.open(Patience::Endless).await?;
    let id = lease_id(id)?;
    let request = pb::LeaseTimeToLiveRequest { id, keys };
    let answer = session.client.lease_time_to_live(request).await;
    let response = answer.map_err(connection)?;
    session.printer.print(Answer::TimeToLive(&response, keys))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let session = context.open(Patience::Endless).await?;
    let response = session.client.lease_leases().await.map_err(connection)?;
    session.printer.print(Answer::Leases(&response))
}

async fn keep_alive(context: &Context, args: &[OsString], once: bool) -> Result<(), Failure> {
    let id = lease_id(one(
        args,
        "lease keep-alive command needs lease ID as argument",
    )?)?;
    let session = context.open(Patience::Endless).await?;
    if once {
        return keep_alive_once(&session, id).await;
    }
    keep_alive_long(&session, id).await?;
    if session.printer.format == Format::Simple {
        let words = format!("lease {id:016x} expired or revoked.\n");
        crate::output::write(words.as_bytes())?;
    }
    Ok(())
}

/// A keep-alive stream and the way into it.
struct Stream {
    requests: tokio::sync::mpsc::Sender<pb::LeaseKeepAliveRequest>,
    responses: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Stream {
    /// Opens one with its first request sent.
    async fn open(client: &Client, id: i64) -> Result<Self, ClientError> {
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        let request = pb::LeaseKeepAliveRequest { id };
        requests.try_send(request).expect("the channel is new");
        let responses = client.lease_keep_alive(receiver).await?;
        Ok(Self {
            requests,
            responses,
        })
    }

    async fn answer(&mut self) -> Result<pb::LeaseKeepAliveResponse, ClientError> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(tonic::Status::unavailable("the stream is over").into()),
            Err(status) => Err(status.into()),
        }
    }
}

/// Repeats until a server has an answer, good or bad.
async fn keep_alive_once(session: &Session, id: i64) -> Result<(), Failure> {
    loop {
        let answer = match Stream::open(&session.client, id).await {
            Ok(mut stream) => stream.answer().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(response) if response.ttl <= 0 => {
                let words = "etcdserver: requested lease not found";
                return Err(Failure::new(Exit::Connection, words));
            }
            Ok(response) => return session.printer.print(Answer::KeepAlive(&response)),
            Err(error) if matches!(error.code(), Code::Unavailable | Code::Internal) => {
                sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(connection(error)),
        }
    }
}

/// Renews at every third of the time to live until the lease is gone, or must be gone since no server could be reached
/// for as long as it lives.
async fn keep_alive_long(session: &Session, id: i64) -> Result<(), Failure> {
    let mut deadline = Instant::now() + session.dial_timeout + Duration::from_secs(1);
    loop {
        if let Ok(Ok(mut stream)) = timeout_at(deadline, Stream::open(&session.client, id)).await {
            while let Ok(Ok(response)) = timeout_at(deadline, stream.answer()).await {
                let Ok(ttl_secs @ 1..) = u64::try_from(response.ttl) else {
                    return Ok(());
                };
                session.printer.print(Answer::KeepAlive(&response))?;
                let ttl = Duration::from_secs(ttl_secs);
                deadline = Instant::now() + ttl;
                sleep(ttl / 3).await;
                let request = pb::LeaseKeepAliveRequest { id };
                if stream.requests.send(request).await.is_err() {
                    break;
                }
            }
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            tokio::time::sleep_until(deadline).await;
            return Ok(());
        }
        sleep(RETRY_PAUSE).await;
    }
}
