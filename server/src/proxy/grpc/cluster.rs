//! Who is in the cluster, as clients of the proxy are to see it: the proxies, so that they do not pass them by.
//!
//! With `--resolver-prefix` a proxy writes itself below that prefix with a lease, as etcd's do, and lists all that are
//! there. Changes of the members are handed on.

use std::sync::Arc;
use std::time::Duration;

use quorate_net::client::{Client, ClientError};
use quorate_proto::etcdserverpb as pb;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tonic::{Response, Status};
use tracing::{info, warn};

/// Between two attempts to write this proxy's name.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Leases are renewed this often in their lifetime.
const RENEWALS: u32 = 3;

/// What is told of the members.
#[derive(Clone, Debug)]
pub(super) struct Members {
    /// `--advertise-client-url`; members are the members if it is empty.
    pub(super) own_address: String,
    /// Where proxies write themselves; empty if they do not.
    pub(super) prefix: String,
    pub(super) name: String,
    pub(super) client: Arc<Client>,
}

/// What a proxy writes of itself, in the words of etcd's resolver.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    op: u8,
    addr: String,
    /// JSON in a text.
    metadata: serde_json::Value,
}

impl Members {
    /// The list for clients; none if the members are to be asked.
    pub(super) async fn list(&self) -> Option<Result<Response<pb::MemberListResponse>, Status>> {
        if self.own_address.is_empty() {
            return None;
        }
        let mut members = Vec::new();
        if !self.prefix.is_empty() {
            match self.registered().await {
                Ok(registered) => members = registered,
                Err(error) => {
                    return Some(Err(Status::new(error.code(), error.to_string())));
                }
            }
        }
        if members.is_empty() {
            members.push(member(&self.name, &self.own_address));
        }
        let response = pb::MemberListResponse {
            members,
            ..pb::MemberListResponse::default()
        };
        Some(Ok(Response::new(response)))
    }

    /// The proxies that have written themselves.
    async fn registered(&self) -> Result<Vec<pb::Member>, ClientError> {
        // A key below the prefix is the prefix, a slash and the address; so is the end of them all with the next byte.
        let range = pb::RangeRequest {
            key: format!("{}/", self.prefix).into(),
            range_end: format!("{}0", self.prefix).into(),
            serializable: true,
            ..pb::RangeRequest::default()
        };
        let found = self.client.range(range).await?.kvs;
        let read = found.iter().filter_map(|kv| {
            let written: Written = serde_json::from_slice(&kv.value).ok()?;
            let metadata = match &written.metadata {
                serde_json::Value::String(text) => serde_json::from_str(text).ok()?,
                other => other.clone(),
            };
            let name = metadata.get("name").and_then(|name| name.as_str());
            Some(member(name.unwrap_or_default(), &written.addr))
        });
        Ok(read.collect())
    }

    /// Writes this proxy below the prefix and keeps it there for as long as the process lives.
    pub(super) async fn register(self, ttl: i64) {
        loop {
            match self.register_once(ttl).await {
                Ok(()) => warn!("session expired; possible network partition or server restart"),
                Err(error) => warn!(%error, "failed to create a session"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Until the lease cannot be kept any more.
    async fn register_once(&self, ttl: i64) -> Result<(), ClientError> {
        let grant = pb::LeaseGrantRequest { ttl, id: 0 };
        let lease = self.client.lease_grant(grant).await?;
        let metadata = serde_json::json!({"name": self.name}).to_string();
        let written = Written {
            op: 0,
            addr: self.own_address.clone(),
            metadata: metadata.into(),
        };
        let value = serde_json::to_vec(&written).expect("texts are JSON");
        let put = pb::PutRequest {
            key: format!("{}/{}", self.prefix, self.own_address).into(),
            value: value.into(),
            lease: lease.id,
            ..pb::PutRequest::default()
        };
        self.client.put(put).await?;
        info!(
            addr = self.own_address,
            "lease-ttl" = ttl,
            "registered session with lease"
        );
        let (requests, waiting) = mpsc::channel(1);
        let pause = Duration::from_secs(lease.ttl.unsigned_abs()) / RENEWALS;
        let renew = pb::LeaseKeepAliveRequest { id: lease.id };
        // A member begins its answer with the first renewal.
        let _ = requests.send(renew).await;
        let mut answers = self.client.lease_keep_alive(waiting).await?;
        loop {
            match answers.message().await {
                Ok(Some(answer)) if answer.ttl > 0 => tokio::time::sleep(pause).await,
                Ok(_) => return Ok(()),
                Err(status) => return Err(ClientError::from(status)),
            }
            if requests.send(renew).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn member(name: &str, address: &str) -> pb::Member {
    pb::Member {
        name: name.to_owned(),
        client_urls: vec![address.to_owned()],
        ..pb::Member::default()
    }
}
