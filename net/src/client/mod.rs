//! A client of the whole API: several endpoints, failover, and the retry rules of etcd's own client.
//!
//! ```text
//!   request ─► the endpoint in use ──ok──► answer
//!                  │ cannot connect, or (reads only) Unavailable
//!                  └──► the next endpoint, until the deadline
//! ```
//!
//! The rule that matters: **a write that may have reached a server is never sent again.** It is retried only if no
//! connection could be made, so that nothing was sent. A read is repeated as long as servers answer `Unavailable`.
//! Streams (watch, keep-alive) are opened on one endpoint and belong to their caller.

mod auth;
mod endpoint;
mod error;
mod members;
mod security;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

pub use endpoint::{Endpoint, EndpointError};
pub use error::ClientError;
pub use security::Security;
pub use watch::Watches;

use crate::grpc::etcdserverpb::auth_client::AuthClient;
use crate::grpc::etcdserverpb::cluster_client::ClusterClient;
use crate::grpc::etcdserverpb::kv_client::KvClient;
use crate::grpc::etcdserverpb::lease_client::LeaseClient;
use crate::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::grpc::etcdserverpb::watch_client::WatchClient;

/// Between two attempts when every endpoint was tried; etcd's value.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`, `http://host:port`, `https://host:port`, `unix:///path` or `unixs:///path`; tried in order.
    pub endpoints: Vec<Endpoint>,
    /// For making one connection.
    pub dial_timeout: Duration,
    /// For one call with all its retries; `None` waits for ever.
    pub call_timeout: Option<Duration>,
    /// How often a connection in use is tested, and how long an answer may take; `None` never tests.
    pub keep_alive: Option<(Duration, Duration)>,
    /// The largest request in bytes that is sent.
    pub request_bytes_max: usize,
    /// The largest answer in bytes that is accepted; etcd's clients take anything.
    pub response_bytes_max: usize,
    /// Sent as `token` metadata.
    pub token: Option<String>,
    /// For endpoints that are spoken to by TLS.
    pub security: Security,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec![Endpoint::default()],
            dial_timeout: Duration::from_secs(2),
            call_timeout: Some(Duration::from_secs(5)),
            keep_alive: None,
            request_bytes_max: 2 << 20,
            response_bytes_max: i32::MAX as usize,
            token: None,
            security: Security::default(),
        }
    }
}

/// Whether a call may be sent again although a server may have carried it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing.
    Safe,
    /// It must happen at most once.
    Never,
}

/// A client; cheap calls may run at the same time.
#[derive(Debug)]
pub struct Client {
    config: Config,
    token: Option<MetadataValue<Ascii>>,
    connections: Vec<tokio::sync::Mutex<Option<Channel>>>,
    /// The endpoint in use.
    current: AtomicUsize,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(config: Config) -> Result<Self, ClientError> {
        if config.endpoints.is_empty() {
            return Err(ClientError::NoEndpoints);
        }
        let token = config.token.as_deref().map(str::parse).transpose();
        let token = token.map_err(|_| ClientError::Token)?;
        let connections = config
            .endpoints
            .iter()
            .map(|_| tokio::sync::Mutex::default())
            .collect();
        Ok(Self {
            config,
            token,
            connections,
            current: AtomicUsize::new(0),
        })
    }

    /// The endpoints, in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.config.endpoints
    }

    /// A client of one of this client's endpoints alone, or of another one, with the same settings.
    pub fn with_endpoint(&self, endpoint: Endpoint) -> Result<Self, ClientError> {
        self.with_endpoints(vec![endpoint])
    }

    /// A client of other endpoints, with the same settings and no connections yet.
    pub fn with_endpoints(&self, endpoints: Vec<Endpoint>) -> Result<Self, ClientError> {
        Self::new(Config {
            endpoints,
            ..self.config.clone()
        })
    }

    /// The connection of an endpoint, made if there is none.
    async fn connection(&self, number: usize) -> Result<Channel, EndpointError> {
        let mut connection = self.connections[number].lock().await;
        if let Some(channel) = &*connection {
            return Ok(channel.clone());
        }
        let channel = self.config.endpoints[number]
            .connect(
                self.config.dial_timeout,
                self.config.keep_alive,
                &self.config.security,
            )
            .await?;
        *connection = Some(channel.clone());
        Ok(channel)
    }

    /// Makes a call on the endpoint in use, going on to others as the rules allow.
    async fn call<T, F>(
        &self,
        repeat: Repeat,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = self
            .config
            .call_timeout
            .map(|timeout| Instant::now() + timeout);
        let mut last = None;
        loop {
            for _ in 0..self.config.endpoints.len() {
                let number = self.current.load(Ordering::Relaxed) % self.config.endpoints.len();
                let sent = AtomicBool::new(false);
                match within(deadline, self.attempt(number, &sent, &call)).await {
                    // What an earlier attempt ended with says nothing of one that was sent.
                    None if sent.into_inner() => return Err(ClientError::Deadline),
                    None => return Err(last.unwrap_or(ClientError::Deadline)),
                    Some(Ok(response)) => return Ok(response.into_inner()),
                    Some(Err(error)) if !error.may_repeat(repeat == Repeat::Safe) => {
                        return Err(error);
                    }
                    Some(Err(error)) => {
                        last = Some(error);
                        let next = (number + 1) % self.config.endpoints.len();
                        self.current.store(next, Ordering::Relaxed);
                    }
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() + RETRY_PAUSE >= deadline) {
                return Err(last.unwrap_or(ClientError::Deadline));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt<T, F>(
        &self,
        number: usize,
        sent: &AtomicBool,
        call: &impl Fn(Channel) -> F,
    ) -> Result<Response<T>, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let channel = self
            .connection(number)
            .await
            .map_err(ClientError::Connect)?;
        sent.store(true, Ordering::Relaxed);
        let answer = call(channel).await;
        if answer
            .as_ref()
            .is_err_and(|status| status.code() == Code::Unavailable)
        {
            // The connection may be gone; the next use makes a new one.
            *self.connections[number].lock().await = None;
        }
        answer.map_err(ClientError::from)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// As [`Client::request`], refused by a member that knows no leader.
    fn request_with_leader<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        request
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
        request
    }

    fn kv(&self, channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel)
            .max_decoding_message_size(self.config.response_bytes_max)
            .max_encoding_message_size(self.config.request_bytes_max)
    }

    /// Reads keys.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(request.clone());
            async move { self.kv(channel).range(request).await }
        })
        .await
    }

    /// Reads keys with the streamed call, and puts the pieces together.
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(request.clone());
            async move {
                let mut pieces = self.kv(channel).range_stream(request).await?.into_inner();
                let mut whole = pb::RangeResponse::default();
                while let Some(piece) = pieces.message().await? {
                    let piece = piece.range_response.unwrap_or_default();
                    whole.header = piece.header.or(whole.header);
                    whole.kvs.extend(piece.kvs);
                    whole.more |= piece.more;
                    whole.count = whole.count.max(piece.count);
                }
                Ok(Response::new(whole))
            }
        })
        .await
    }

    /// Writes a key.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request.clone());
            async move { self.kv(channel).put(request).await }
        })
        .await
    }

    /// Deletes keys.
    pub async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request.clone());
            async move { self.kv(channel).delete_range(request).await }
        })
        .await
    }

    /// Carries out a transaction. One that only reads is repeated like a read.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, ClientError> {
        let is_range = |operation: &pb::RequestOp| {
            matches!(
                operation.request,
                Some(pb::request_op::Request::RequestRange(_))
            )
        };
        let only_reads = request.success.iter().chain(&request.failure).all(is_range);
        let repeat = if only_reads {
            Repeat::Safe
        } else {
            Repeat::Never
        };
        self.call(repeat, |channel| {
            let request = self.request(request.clone());
            async move { self.kv(channel).txn(request).await }
        })
        .await
    }

    /// Compacts the history.
    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request);
            async move { self.kv(channel).compact(request).await }
        })
        .await
    }

    /// Grants a lease.
    pub async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request);
            async move { LeaseClient::new(channel).lease_grant(request).await }
        })
        .await
    }

    /// Ends a lease.
    pub async fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request);
            async move { LeaseClient::new(channel).lease_revoke(request).await }
        })
        .await
    }

    /// What is left of a lease.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(request);
            async move { LeaseClient::new(channel).lease_time_to_live(request).await }
        })
        .await
    }

    /// All leases.
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(pb::LeaseLeasesRequest {});
            async move { LeaseClient::new(channel).lease_leases(request).await }
        })
        .await
    }

    /// Opens a keep-alive stream: one answer for each request, in order.
    pub async fn lease_keep_alive(
        &self,
        requests: tokio::sync::mpsc::Receiver<pb::LeaseKeepAliveRequest>,
    ) -> Result<Streaming<pb::LeaseKeepAliveResponse>, ClientError> {
        let channel = self.any_connection().await?;
        let requests =
            self.request_with_leader(tokio_stream::wrappers::ReceiverStream::new(requests));
        let answer = LeaseClient::new(channel).lease_keep_alive(requests).await;
        answer.map(Response::into_inner).map_err(ClientError::from)
    }

    /// Opens a watch stream, which ends when its member loses the leader.
    pub async fn watch(
        &self,
        requests: tokio::sync::mpsc::Receiver<pb::WatchRequest>,
    ) -> Result<Streaming<pb::WatchResponse>, ClientError> {
        let channel = self.any_connection().await?;
        let requests =
            self.request_with_leader(tokio_stream::wrappers::ReceiverStream::new(requests));
        let mut client =
            WatchClient::new(channel).max_decoding_message_size(self.config.response_bytes_max);
        let answer = client.watch(requests).await;
        answer.map(Response::into_inner).map_err(ClientError::from)
    }

    /// The members of the cluster.
    pub async fn member_list(
        &self,
        linearizable: bool,
    ) -> Result<pb::MemberListResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(pb::MemberListRequest { linearizable });
            async move { ClusterClient::new(channel).member_list(request).await }
        })
        .await
    }

    /// What the member of the endpoint in use says of itself.
    pub async fn status(&self) -> Result<pb::StatusResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(pb::StatusRequest {});
            async move { MaintenanceClient::new(channel).status(request).await }
        })
        .await
    }

    /// The hash of the history up to a revision; 0 is the present one.
    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(pb::HashKvRequest { revision });
            async move { MaintenanceClient::new(channel).hash_kv(request).await }
        })
        .await
    }

    /// The whole state of the member of the endpoint in use: blobs of its image, then their digest.
    pub async fn snapshot(&self) -> Result<Streaming<pb::SnapshotResponse>, ClientError> {
        self.call(Repeat::Safe, |channel| {
            let request = self.request(pb::SnapshotRequest {});
            async move { MaintenanceClient::new(channel).snapshot(request).await }
        })
        .await
    }

    /// Lists, raises or clears alarms.
    pub async fn alarm(&self, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request);
            async move { MaintenanceClient::new(channel).alarm(request).await }
        })
        .await
    }

    /// Has the member of the endpoint in use give back unused space.
    pub async fn defragment(&self) -> Result<pb::DefragmentResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(pb::DefragmentRequest {});
            async move { MaintenanceClient::new(channel).defragment(request).await }
        })
        .await
    }

    /// Looks whether the cluster can go to an earlier version, begins it or ends it.
    pub async fn downgrade(
        &self,
        request: pb::DowngradeRequest,
    ) -> Result<pb::DowngradeResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(request.clone());
            async move { MaintenanceClient::new(channel).downgrade(request).await }
        })
        .await
    }

    /// Asks the member of the endpoint in use, which must lead, to hand over to another one.
    pub async fn move_leader(&self, target_id: u64) -> Result<pb::MoveLeaderResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(pb::MoveLeaderRequest { target_id });
            async move { MaintenanceClient::new(channel).move_leader(request).await }
        })
        .await
    }

    /// Trades a name and a password for a token.
    pub async fn authenticate(&self, name: &str, password: &str) -> Result<String, ClientError> {
        let request = pb::AuthenticateRequest {
            name: name.to_string(),
            password: password.to_string(),
        };
        let response = self.call(Repeat::Safe, |channel| {
            let request = self.request(request.clone());
            async move { AuthClient::new(channel).authenticate(request).await }
        });
        Ok(response.await?.token)
    }

    /// A connection to the first endpoint that takes one.
    async fn any_connection(&self) -> Result<Channel, ClientError> {
        self.channel().await.map(|(_, channel)| channel)
    }

    /// The connection in use, or one to the first endpoint that takes one, for calls that are not made here; and the
    /// endpoint's number for [`Client::give_up`]. Retries are the business of the caller.
    pub async fn channel(&self) -> Result<(usize, Channel), ClientError> {
        let mut last = None;
        for _ in 0..self.config.endpoints.len() {
            let number = self.current.load(Ordering::Relaxed) % self.config.endpoints.len();
            match self.connection(number).await {
                Ok(channel) => return Ok((number, channel)),
                Err(error) => {
                    last = Some(error);
                    self.current.store(
                        (number + 1) % self.config.endpoints.len(),
                        Ordering::Relaxed,
                    );
                }
            }
        }
        Err(last.map_or(ClientError::NoEndpoints, ClientError::Connect))
    }

    /// The next call goes to the next endpoint, though nothing is wrong with the connection to this one.
    pub fn go_on(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection to an endpoint is of no use: the next call goes to the next endpoint, over a new one.
    pub async fn give_up(&self, number: usize) {
        *self.connections[number].lock().await = None;
        let (count, order) = (self.config.endpoints.len(), Ordering::Relaxed);
        // Somebody else may have gone on already.
        let _ = self.current.fetch_update(order, order, |current| {
            (current % count == number).then_some((number + 1) % count)
        });
    }
}

/// The future's output, or `None` when the deadline comes first.
async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => crate::rt::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
