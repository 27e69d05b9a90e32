//! `endpoint health`, `endpoint status`, `endpoint hashkv`: each endpoint is asked by itself.

use std::ffi::OsString;
use std::time::Instant;

use clap::{Args, Subcommand};
use quorate_net::client::{self, Client, ClientError};
use quorate_proto::etcdserverpb as pb;
use tokio::task::JoinSet;
use tonic::Code;

use super::alarm;
use crate::failure::{Exit, Failure, describe};
use crate::globals::{Context, Patience, Session, go_int};
use crate::go::duration;
use crate::output::{Answer, HashKv, Health, Status};

/// `endpoint`.
#[derive(Debug, Args)]
pub(crate) struct Endpoint {
    /// use all endpoints from the cluster member list
    #[arg(long, global = true)]
    cluster: bool,
    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    /// Checks the healthiness of endpoints specified in `--endpoints` flag
    Health {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Prints out the status of endpoints specified in `--endpoints` flag
    Status {
        #[arg(hide = true)]
        args: Vec<OsString>,
    },
    /// Prints the KV history hash for each endpoint in --endpoints
    Hashkv {
        #[arg(hide = true)]
        args: Vec<OsString>,
        /// maximum revision to hash (default: latest revision)
        #[arg(long, default_value = "0", value_parser = go_int)]
        rev: i64,
    },
}

impl Endpoint {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.open(Patience::Short).await?;
        let clients = clients(&session, self.cluster).await?;
        match self.command {
            EndpointCommand::Health { .. } => health(&session, clients).await,
            EndpointCommand::Status { .. } => status(&session, clients).await,
            EndpointCommand::Hashkv { rev, .. } => hash_kv(&session, clients, rev).await,
        }
    }
}

/// A client for each endpoint that was given, or for each client URL of the cluster's members.
pub(super) async fn clients(session: &Session, cluster: bool) -> Result<Vec<Client>, Failure> {
    let endpoints: Vec<client::Endpoint> = if cluster {
        let members = session.client.member_list(true).await.map_err(|error| {
            let error = describe(&error);
            let words = format!("failed to fetch endpoints from etcd cluster member list: {error}");
            Failure::new(Exit::General, words)
        })?;
        let urls = members
            .members
            .iter()
            .flat_map(|member| &member.client_urls);
        let endpoints: Result<_, client::EndpointError> = urls.map(|url| url.parse()).collect();
        endpoints.map_err(Failure::arguments)?
    } else {
        session.client.endpoints().to_vec()
    };
    let clients = endpoints
        .into_iter()
        .map(|endpoint| session.client.with_endpoint(endpoint));
    clients
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::call(&error))
}

pub(super) fn name(client: &Client) -> String {
    client.endpoints()[0].to_string()
}

/// Asks all at once; the order of the output is that of the answers.
async fn health(session: &Session, clients: Vec<Client>) -> Result<(), Failure> {
    let mut asked = JoinSet::new();
    for client in clients {
        asked.spawn(async move { health_of(&client).await });
    }
    let list = asked.join_all().await;
    session.printer.print(Answer::Health(&list))?;
    if list.iter().any(|health| !health.error.is_empty()) {
        return Err(Failure::new(Exit::General, "unhealthy cluster"));
    }
    Ok(())
}

/// A linearizable read of any key goes through consensus; so does the refusal of one.
async fn health_of(client: &Client) -> Health {
    let start = Instant::now();
    let request = pb::RangeRequest {
        key: "health".into(),
        ..pb::RangeRequest::default()
    };
    let answer = client.range(request).await;
    let took = duration::format(start.elapsed());
    let error = match answer {
        Err(error) if error.code() != Code::PermissionDenied => describe(&error),
        _ => alarms_of(client).await,
    };
    Health {
        endpoint: name(client),
        took,
        error,
    }
}

/// Empty when there is no alarm.
async fn alarms_of(client: &Client) -> String {
    let Ok(response) = alarm::list(client).await else {
        return "Unable to fetch the alarm list".to_string();
    };
    if response.alarms.is_empty() {
        return String::new();
    }
    let names = response.alarms.iter().map(|alarm| match alarm.alarm() {
        pb::AlarmType::Nospace => "NOSPACE ",
        pb::AlarmType::Corrupt => "CORRUPT ",
        pb::AlarmType::None => "UNKNOWN ",
    });
    format!("Active Alarm(s): {}", names.collect::<String>())
}

async fn status(session: &Session, clients: Vec<Client>) -> Result<(), Failure> {
    let mut list = Vec::new();
    let mut has_failed = false;
    for client in &clients {
        let endpoint = name(client);
        match client.status().await {
            Ok(response) => list.push(Status { endpoint, response }),
            Err(error) => {
                complain("status", &endpoint, &error);
                has_failed = true;
            }
        }
    }
    session.printer.print(Answer::Status(&list))?;
    if has_failed {
        return Err(Failure::said(Exit::General, String::new()));
    }
    Ok(())
}

async fn hash_kv(session: &Session, clients: Vec<Client>, revision: i64) -> Result<(), Failure> {
    let mut list = Vec::new();
    let mut failure = None;
    for client in &clients {
        let endpoint = name(client);
        match client.hash_kv(revision).await {
            Ok(response) => list.push(HashKv { endpoint, response }),
            Err(error) => {
                let words = complain("hash", &endpoint, &error);
                failure = Some(Failure::new(Exit::General, words));
            }
        }
    }
    session.printer.print(Answer::HashKv(&list))?;
    failure.map_or(Ok(()), Err)
}

fn complain(what: &str, endpoint: &str, error: &ClientError) -> String {
    let error = describe(error);
    eprintln!("Failed to get the {what} of endpoint {endpoint} ({error})");
    error
}
