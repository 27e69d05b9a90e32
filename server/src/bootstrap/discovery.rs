//! The members of a new cluster find each other in another cluster, by a token that they share.
//!
//! ```text
//!   /_etcd/registry/<token>/_config/size          how many they are; whoever plans the cluster writes it
//!   /_etcd/registry/<token>/members/<member id>   name=peer URL[,name=peer URL]; each member writes its own
//! ```
//!
//! The first of them by creation make the cluster; who comes later is told that it is full. A member waits for the others
//! for as long as that takes, and for the other cluster, too.

use std::time::Duration;

use quorate_core::types::MemberId;
use quorate_net::client::{self, Client, ClientError, Endpoint, EndpointError, Security};
use quorate_proto::etcdserverpb as pb;
use tracing::{info, warn};

use crate::config::{Discovery, parse_cluster};

const REGISTRY: &str = "/_etcd/registry";
/// A pause doubles so many times.
const DOUBLINGS_MAX: u32 = 8;
/// etcd's refusal of a login where none is needed.
const AUTH_IS_OFF: &str = "etcdserver: authentication is not enabled";

/// Why there is no cluster for this member.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Nobody has planned a cluster with this token.
    #[error("discovery: size key not found")]
    SizeNotFound,
    /// The planned size is no size.
    #[error("discovery: size key is bad")]
    BadSize,
    /// There are enough members without this one.
    #[error("discovery: cluster is full")]
    Full,
    /// Some member wrote no peer URL where one should be.
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// An endpoint is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The other cluster does not let this member in.
    #[error(transparent)]
    Refused(#[from] ClientError),
    /// The files for TLS with the other cluster are of no use.
    #[cfg(not(madsim))]
    #[error(transparent)]
    Security(#[from] quorate_net::tls::TlsError),
}

/// Registers this member, waits until the cluster is complete, and gives its members as `--initial-cluster` would.
pub(super) async fn join(
    discovery: &Discovery,
    member: MemberId,
    own_entry: &str,
) -> Result<String, DiscoveryError> {
    info!("Bootstrapping cluster using v3 discovery.");
    let registry = Registry {
        client: connect(discovery).await?,
        prefix: format!("{REGISTRY}/{}", discovery.token),
        own: format!("{:x}", member.0),
    };
    registry.look().await?;
    registry.register(own_entry).await;
    loop {
        let seen = registry.look().await?;
        if seen.entries.len() >= seen.size {
            let cluster = seen.entries[..seen.size].join(",");
            parse_cluster(&cluster).map_err(|_| DiscoveryError::InvalidUrl)?;
            info!(cluster, "discovery joined cluster successfully");
            return Ok(cluster);
        }
        info!(
            "clusterSize" = seen.size,
            "found-peers" = seen.entries.len(),
            "waiting for peers from discovery service"
        );
        registry.wait(seen.revision + 1).await;
    }
}

async fn connect(discovery: &Discovery) -> Result<Client, DiscoveryError> {
    let endpoints = discovery.endpoints.iter().map(|text| text.parse());
    let config = client::Config {
        endpoints: endpoints.collect::<Result<Vec<Endpoint>, _>>()?,
        dial_timeout: discovery.dial_timeout,
        call_timeout: Some(discovery.request_timeout),
        keep_alive: discovery.keep_alive,
        security: security(discovery)?,
        ..client::Config::default()
    };
    let client = Client::new(config.clone())?;
    if discovery.user.is_empty() {
        return Ok(client);
    }
    match client
        .authenticate(&discovery.user, &discovery.password)
        .await
    {
        Ok(token) => Ok(Client::new(client::Config {
            token: Some(token),
            ..config
        })?),
        Err(error) if error.to_string() == AUTH_IS_OFF => Ok(client),
        Err(error) => Err(error.into()),
    }
}

fn security(discovery: &Discovery) -> Result<Security, DiscoveryError> {
    #[cfg(not(madsim))]
    if let Some(info) = &discovery.security {
        return Ok(Security::tls(info)?);
    }
    let _ = discovery;
    Ok(Security::default())
}

/// What is written about one cluster.
struct Registry {
    client: Client,
    prefix: String,
    /// The last part of the own key.
    own: String,
}

/// What was written there at one revision.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    size: usize,
    /// The members' entries, oldest first.
    entries: Vec<String>,
    revision: i64,
}

impl Registry {
    fn members(&self) -> String {
        format!("{}/members/", self.prefix)
    }

    fn own_key(&self) -> String {
        format!("{}{}", self.members(), self.own)
    }

    /// Reads until there is an answer.
    async fn look(&self) -> Result<Seen, DiscoveryError> {
        let size_key = format!("{}/_config/size", self.prefix);
        let size = self.read(size_key, Vec::new()).await;
        let [size] = &size.kvs[..] else {
            return Err(DiscoveryError::SizeNotFound);
        };
        let size = parse_size(&size.value).ok_or(DiscoveryError::BadSize)?;
        let first = self.members();
        let mut end = first.clone().into_bytes();
        *end.last_mut().expect("it ends with a slash") += 1;
        let read = self.read(first, end).await;
        seen(size, &read, &self.own_key())
    }

    async fn read(&self, key: String, range_end: Vec<u8>) -> pb::RangeResponse {
        let request = pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..pb::RangeRequest::default()
        };
        until_answered("cluster status check", async || {
            self.client.range(request.clone()).await
        })
        .await
    }

    async fn register(&self, entry: &str) {
        let request = pb::PutRequest {
            key: self.own_key().into(),
            value: entry.to_owned().into(),
            ..pb::PutRequest::default()
        };
        // Writing it twice does no harm: what counts is when it was created.
        until_answered("register member itself", async || {
            self.client.put(request.clone()).await
        })
        .await;
        info!(
            "memberKey" = self.own_key(),
            "memberInfo" = entry,
            "register member itself successfully"
        );
    }

    /// Until something may have changed since before `revision`.
    async fn wait(&self, revision: i64) {
        let first = self.members();
        let mut end = first.clone().into_bytes();
        *end.last_mut().expect("it ends with a slash") += 1;
        let mut watches = self.client.watches();
        let request = pb::WatchCreateRequest {
            key: first.into(),
            range_end: end.into(),
            start_revision: revision,
            ..pb::WatchCreateRequest::default()
        };
        watches.add(request).await;
        loop {
            match watches.next().await {
                Ok((_, response)) if response.events.is_empty() && !response.canceled => {}
                Ok(_) => return,
                Err(error) => {
                    warn!(%error, "failed to watch the discovery service");
                    return pause(0).await;
                }
            }
        }
    }
}

/// Repeats a request for as long as the other cluster has no answer.
async fn until_answered<T>(reason: &str, attempt: impl AsyncFn() -> Result<T, ClientError>) -> T {
    let mut retries = 0;
    loop {
        match attempt().await {
            Ok(answer) => return answer,
            Err(error) => {
                retries += 1;
                warn!(reason, %error, "retry connecting to discovery service");
                pause(retries).await;
            }
        }
    }
}

async fn pause(retries: u32) {
    tokio::time::sleep(Duration::from_secs(1 << retries.min(DOUBLINGS_MAX))).await;
}

fn parse_size(value: &[u8]) -> Option<usize> {
    let size = std::str::from_utf8(value).ok()?.parse().ok()?;
    (size > 0).then_some(size)
}

/// What a range of the members says, to the one with this key.
fn seen(size: usize, read: &pb::RangeResponse, own_key: &str) -> Result<Seen, DiscoveryError> {
    let mut known: Vec<_> = read.kvs.iter().filter_map(entry_of).collect();
    known.sort_unstable_by_key(|(created, ..)| *created);
    let is_among_first = known
        .iter()
        .take(size)
        .any(|(_, key, _)| *key == own_key.as_bytes());
    if known.len() >= size && !is_among_first {
        return Err(DiscoveryError::Full);
    }
    Ok(Seen {
        size,
        entries: known.into_iter().map(|(.., entry)| entry).collect(),
        revision: read.header.as_ref().map_or(0, |header| header.revision),
    })
}

/// When a member has registered itself, under which key, and as what; what is no such thing is passed over.
fn entry_of(registered: &quorate_proto::mvccpb::KeyValue) -> Option<(i64, &[u8], String)> {
    let entry = String::from_utf8_lossy(&registered.value).trim().to_owned();
    if !entry.contains('=') {
        let key = String::from_utf8_lossy(&registered.key);
        warn!(
            "memberKey" = %key,
            "memberInfo" = entry,
            "invalid peer info returned from discovery service"
        );
        return None;
    }
    Some((registered.create_revision, &registered.key, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(members: &[(&'static str, &'static str, i64)]) -> pb::RangeResponse {
        let kv = |&(key, value, created): &(&'static str, &'static str, i64)| {
            quorate_proto::mvccpb::KeyValue {
                key: key.into(),
                value: value.into(),
                create_revision: created,
                ..Default::default()
            }
        };
        pb::RangeResponse {
            kvs: members.iter().map(kv).collect(),
            header: Some(pb::ResponseHeader {
                revision: 9,
                ..pb::ResponseHeader::default()
            }),
            ..pb::RangeResponse::default()
        }
    }

    #[test]
    fn who_came_first_makes_the_cluster_and_who_comes_later_finds_it_full() {
        let read = registered(&[("a", "m1=u1", 5), ("b", " m2=u2\n", 3), ("c", "junk", 2)]);
        let entries = |size, own| seen(size, &read, own).map(|seen| seen.entries);
        assert_eq!(entries(2, "a").unwrap(), ["m2=u2", "m1=u1"]);
        assert_eq!(entries(3, "new").unwrap().len(), 2, "there is room");
        assert!(matches!(entries(2, "new"), Err(DiscoveryError::Full)));
        assert!(matches!(entries(1, "a"), Err(DiscoveryError::Full)));
        assert_eq!(seen(1, &read, "b").unwrap().revision, 9);
    }

    #[test]
    fn a_size_is_a_number_above_zero() {
        assert_eq!(parse_size(b"3"), Some(3));
        for bad in [&b"0"[..], b"-1", b"", b"three", b" 3", b"\xff"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
