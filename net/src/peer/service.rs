//! The peer port: what other members ask of this one.
//!
//! ```text
//! POST /raft                    one message                                 204
//! GET  /raft/stream/LANE/ID     the messages for member ID, as they come    200, a body without end
//! POST /raft/snapshot           a message and an image                      204 when it is stored
//! GET  /raft/probing            is anybody there
//! GET  /members  /version  /downgrade/enabled  /members/hashkv
//! POST /leases  /leases/internal  /members/promote/ID
//! ```
//!
//! Statuses and texts are etcd's, since an etcd on the other side acts on them: 403 and 410 end the peer's process, and
//! are given to removed members only, or for a message that was meant for another member. What comes from outside
//! reaches the member as [`PeerEvent`]s or through [`LocalNode`]; nothing else is decided here.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use quorate_core::{LeaseId, MemberId, RequestError, Revision};
use quorate_proto::raftpb::{Message, MessageType};
use quorate_proto::{etcdserverpb as pb, leasepb};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::client::{CollectError, JSON, PROMOTE_PATH, PROTOBUF, collect};
use super::codec::Stream;
use super::endpoint::Connection;
use super::identity::{
    SERVER_VERSION, X_CLUSTER_ID, X_PEER_URLS, X_RAFT_TO, X_SERVER_FROM, X_SERVER_VERSION,
    parse_hex,
};
use super::json::{self, Versions};
use super::lane::LaneBody;
use super::limits::{
    CONNECTIONS_MAX, IO_TIMEOUT, LEASE_APPLY_TIMEOUT, LEASE_REQUEST_BYTES_MAX, MESSAGE_BYTES_MAX,
    REDIAL_INTERVAL,
};
use super::probe;
use super::snapshot::IncomingSnapshot;
use super::transport::{PeerEvent, Transport};
use crate::rt::{JoinSet, TcpListener, Timer};

/// What the peer port needs to know of the member behind it.
pub trait LocalNode: Send + Sync + 'static {
    /// Whether this id has been a member and was removed.
    fn is_removed(&self, member: MemberId) -> bool;

    /// All members, as this one knows them.
    fn members(&self) -> Vec<pb::Member>;

    /// What this member runs.
    fn versions(&self) -> Versions;

    /// Renews a lease, on the leader, once it has applied what was committed when the call came; the TTL in seconds.
    fn lease_renew(&self, id: LeaseId) -> impl Future<Output = Result<i64, RequestError>> + Send;

    /// The remaining time of a lease and, if `keys`, its keys; likewise.
    fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> impl Future<Output = Result<pb::LeaseTimeToLiveResponse, RequestError>> + Send;

    /// Stores a snapshot and gives it to the member; how many bytes it had.
    fn receive_snapshot<B>(
        &self,
        message: Message,
        image: IncomingSnapshot<B>,
    ) -> impl Future<Output = Result<u64, String>> + Send
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display;

    /// Promotes a learner, on the leader, for the caller of this token; the members after it.
    fn promote(
        &self,
        learner: MemberId,
        token: Option<HeaderValue>,
    ) -> impl Future<Output = Result<Vec<pb::Member>, RequestError>> + Send;

    /// The hash of the store at a revision, zero being the current one; only the header's revision is used.
    fn hash_kv(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<pb::HashKvResponse, RequestError>> + Send;

    /// Whether the cluster is in a downgrade, after a linearizable read.
    fn downgrade_enabled(&self) -> impl Future<Output = Result<bool, RequestError>> + Send;
}

/// The body of an answer: whole, or a stream.
pub type PeerBody = Either<Full<Bytes>, LaneBody>;

/// Answers the peer port's requests.
#[derive(Debug)]
pub struct Service<N> {
    transport: Arc<Transport>,
    node: Arc<N>,
}

impl<N: LocalNode> Service<N> {
    /// The service for this member's links.
    pub fn new(transport: Arc<Transport>, node: Arc<N>) -> Self {
        Self { transport, node }
    }

    /// Accepts connections until `stop` is ready; then all connections end.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&places).acquire_owned();
            let accepted = async {
                let place = place.await.expect("the semaphore is never closed");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = &mut stop => return,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            match accepted.and_then(|(stream, _)| Connection::tcp(stream)) {
                Ok(connection) => {
                    let service = Arc::clone(&self);
                    connections.spawn(async move {
                        service.serve_connection(connection).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: accepting again at once would spin.
                    warn!(%error, "failed to accept a peer connection");
                    sleep(REDIAL_INTERVAL).await;
                }
            }
        }
    }

    /// Serves one connection until it ends.
    pub async fn serve_connection(self: Arc<Self>, connection: Connection) {
        let handler = service_fn(|request| {
            let service = Arc::clone(&self);
            async move { Ok::<_, Infallible>(service.handle(request).await) }
        });
        let served = http1::Builder::new()
            .timer(Timer::new())
            .header_read_timeout(IO_TIMEOUT)
            .serve_connection(TokioIo::new(connection), handler)
            .await;
        if let Err(error) = served {
            debug!(%error, "peer connection ended");
        }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        match path {
            "/raft" => self.raft(&parts, body).await,
            "/raft/snapshot" => self.snapshot(&parts, body).await,
            probe::PATH => whole(StatusCode::OK, "text/plain; charset=utf-8", probe::answer()),
            "/members" => only(&Method::GET, &parts).unwrap_or_else(|| self.named(self.members())),
            "/members/hashkv" => self.hash_kv(&parts, body).await,
            "/version" => only(&Method::GET, &parts).unwrap_or_else(|| self.version()),
            "/downgrade/enabled" => self.downgrade_enabled(&parts).await,
            "/leases" | "/leases/internal" => self.lease(&parts, body).await,
            _ if path.starts_with(PROMOTE_PATH) => self.promote(&parts).await,
            _ if path.starts_with("/raft/stream/") => self.stream(&parts),
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    async fn raft<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if let Some(refusal) = self.refuse_peer(&Method::POST, parts) {
            return refusal;
        }
        self.add_remote(parts);
        let Ok(body) = collect(
            body,
            usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX),
        )
        .await
        else {
            return self.named(text(StatusCode::BAD_REQUEST, "error reading raft message"));
        };
        let bytes = body.len();
        let Ok(message) = Message::decode(body) else {
            return self.named(text(
                StatusCode::BAD_REQUEST,
                "error unmarshalling raft message",
            ));
        };
        let from = MemberId(message.from);
        if self.node.is_removed(from) {
            return self.named(forbidden("cannot process message from removed member"));
        }
        if message.to != self.transport.identity().member.0 {
            return self.named(forbidden("cannot process message to mismatch member"));
        }
        if message.r#type == i32::from(MessageType::MsgSnap) {
            // Its image does not come this way; an envelope alone must not reach the member.
            return self.named(text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "error processing raft message",
            ));
        }
        self.transport.received(from, bytes);
        self.transport
            .deliver(vec![PeerEvent::Received { from, message }]);
        self.named(empty(StatusCode::NO_CONTENT))
    }

    async fn snapshot<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        if let Some(refusal) = self.refuse_peer(&Method::POST, parts) {
            return refusal;
        }
        self.add_remote(parts);
        let mut incoming = IncomingSnapshot::new(body);
        let message = match incoming.message().await {
            Ok(message) => message,
            Err(error) => {
                let error = format!("error decoding raft message: {error}");
                return self.named(text(StatusCode::BAD_REQUEST, &error));
            }
        };
        if message.r#type != i32::from(MessageType::MsgSnap) {
            return self.named(text(StatusCode::BAD_REQUEST, "wrong raft message type"));
        }
        let from = MemberId(message.from);
        if self.node.is_removed(from) {
            return self.named(forbidden("cannot process message from removed member"));
        }
        if message.to != self.transport.identity().member.0 {
            return self.named(forbidden("cannot process message to mismatch member"));
        }
        let peer = format!("{:x}", from.0);
        info!(peer, "receiving database snapshot");
        match self.node.receive_snapshot(message, incoming).await {
            Ok(bytes) => {
                info!(peer, bytes, "received and saved database snapshot");
                self.transport.received(from, 0);
                self.named(empty(StatusCode::NO_CONTENT))
            }
            Err(error) => {
                warn!(peer, error, "failed to save incoming database snapshot");
                let error = format!("failed to save KV snapshot: {error}");
                self.named(text(StatusCode::INTERNAL_SERVER_ERROR, &error))
            }
        }
    }

    async fn promote(&self, parts: &Parts) -> Response<PeerBody> {
        if let Some(refusal) = only(&Method::POST, parts) {
            return refusal;
        }
        let id = parts.uri.path().trim_start_matches(PROMOTE_PATH);
        let Ok(id) = id.parse() else {
            let error = format!("member {id} not found in cluster");
            return self.named(text(StatusCode::NOT_FOUND, &error));
        };
        let token = parts.headers.get(AUTHORIZATION).cloned();
        let promoted = self.node.promote(MemberId(id), token).await;
        self.named(match promoted {
            Ok(members) => whole(StatusCode::OK, JSON, json::write_members(members)),
            Err(RequestError::MemberNotFound) => {
                text(StatusCode::NOT_FOUND, "membership: ID not found")
            }
            Err(error @ RequestError::LearnerNotReady) => {
                text(StatusCode::PRECONDITION_FAILED, error.message())
            }
            Err(RequestError::MemberNotLearner) => text(
                StatusCode::PRECONDITION_FAILED,
                "membership: can only promote a learner member",
            ),
            Err(error) => {
                warn!(error = error.message(), "failed to promote a member");
                whole(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    JSON,
                    br#"{"message":"Internal Server Error"}"#.to_vec(),
                )
            }
        })
    }

    fn stream(&self, parts: &Parts) -> Response<PeerBody> {
        let mut response = match self.refuse_peer(&Method::GET, parts) {
            Some(refusal) => refusal,
            None => self.named(self.open_stream(parts)),
        };
        response
            .headers_mut()
            .insert(&X_SERVER_VERSION, HeaderValue::from_static(SERVER_VERSION));
        response
    }

    fn open_stream(&self, parts: &Parts) -> Response<PeerBody> {
        let path = parts.uri.path().trim_start_matches("/raft/stream/");
        let (lane, from) = path.split_once('/').unwrap_or((path, ""));
        let Some(stream) = Stream::ALL.into_iter().find(|stream| stream.name() == lane) else {
            return text(StatusCode::NOT_FOUND, "invalid path");
        };
        let Some(from) = parse_hex(from).map(MemberId) else {
            return text(StatusCode::NOT_FOUND, "invalid from");
        };
        if self.node.is_removed(from) {
            warn!(peer = %format_args!("{:x}", from.0), "rejected stream from removed member");
            return text(StatusCode::GONE, "removed member");
        }
        // Before a lane is attached, which would cut the one that is in use.
        let own = self.transport.identity().member.0;
        let is_meant = parts
            .headers
            .get(&X_RAFT_TO)
            .is_some_and(|to| to == format!("{own:x}").as_str());
        if !is_meant && self.transport.knows(from) {
            return text(StatusCode::PRECONDITION_FAILED, "to field mismatch");
        }
        match self.transport.attach(from, stream) {
            Some(body) => Response::new(Either::Right(body)),
            None => {
                if let Some(urls) = parts
                    .headers
                    .get(&X_PEER_URLS)
                    .and_then(|urls| urls.to_str().ok())
                {
                    self.transport.add_remote(from, urls);
                }
                text(StatusCode::NOT_FOUND, "error sender not found")
            }
        }
    }

    fn members(&self) -> Response<PeerBody> {
        whole(
            StatusCode::OK,
            JSON,
            json::write_members(self.node.members()),
        )
    }

    fn version(&self) -> Response<PeerBody> {
        whole(
            StatusCode::OK,
            JSON,
            serde_json::to_vec(&self.node.versions()).expect("strings"),
        )
    }

    async fn downgrade_enabled(&self, parts: &Parts) -> Response<PeerBody> {
        if let Some(refusal) = only(&Method::GET, parts) {
            return refusal;
        }
        self.named(match self.node.downgrade_enabled().await {
            Ok(enabled) => whole(
                StatusCode::OK,
                "text/plain",
                enabled.to_string().into_bytes(),
            ),
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed linearized read: {error}"),
            ),
        })
    }

    async fn hash_kv<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if let Some(refusal) = only(&Method::GET, parts) {
            return refusal;
        }
        let cluster = parts.headers.get(&X_CLUSTER_ID);
        if cluster
            .is_some_and(|id| !id.is_empty() && id != self.transport.identity().cluster_header())
        {
            return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
        }
        let Ok(body) = collect(body, LEASE_REQUEST_BYTES_MAX).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body");
        };
        let Ok(revision) = json::read_hash_request(&body) else {
            return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.node.hash_kv(Revision(revision)).await {
            Ok(answer) => self.named(whole(
                StatusCode::OK,
                JSON,
                json::write_hash_answer(&answer),
            )),
            Err(error) => {
                let message = error.message();
                text(
                    StatusCode::BAD_REQUEST,
                    message.strip_prefix("etcdserver: ").unwrap_or(message),
                )
            }
        }
    }

    async fn lease<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if parts.method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        let body = match collect(body, LEASE_REQUEST_BYTES_MAX).await {
            Ok(body) => body,
            Err(CollectError::TooLarge) => {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
            }
            Err(CollectError::Stalled | CollectError::Broken(_)) => {
                return text(StatusCode::BAD_REQUEST, "error reading body");
            }
        };
        let is_renewal = parts.uri.path() == "/leases";
        let answered = if is_renewal {
            self.lease_renew(body).await
        } else {
            self.lease_time_to_live(body).await
        };
        match answered {
            Ok(answer) => whole(StatusCode::OK, PROTOBUF, answer),
            Err(LeaseRefusal::Malformed) => {
                text(StatusCode::BAD_REQUEST, "error unmarshalling request")
            }
            Err(LeaseRefusal::Late) => {
                let late = "waiting for node to catch up its applied index has timed out";
                text(StatusCode::REQUEST_TIMEOUT, late)
            }
            Err(LeaseRefusal::Failed(RequestError::LeaseNotFound)) => {
                text(StatusCode::NOT_FOUND, "lease not found")
            }
            Err(LeaseRefusal::Failed(error)) if is_renewal => {
                text(StatusCode::BAD_REQUEST, error.message())
            }
            Err(LeaseRefusal::Failed(error)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, error.message())
            }
        }
    }

    async fn lease_renew(&self, body: Bytes) -> Result<Vec<u8>, LeaseRefusal> {
        let request =
            pb::LeaseKeepAliveRequest::decode(body).map_err(|_| LeaseRefusal::Malformed)?;
        let ttl = within_apply_timeout(self.node.lease_renew(LeaseId(request.id))).await?;
        Ok(pb::LeaseKeepAliveResponse {
            header: None,
            id: request.id,
            ttl,
        }
        .encode_to_vec())
    }

    async fn lease_time_to_live(&self, body: Bytes) -> Result<Vec<u8>, LeaseRefusal> {
        let request =
            leasepb::LeaseInternalRequest::decode(body).map_err(|_| LeaseRefusal::Malformed)?;
        let request = request
            .lease_time_to_live_request
            .ok_or(LeaseRefusal::Malformed)?;
        let asked = self
            .node
            .lease_time_to_live(LeaseId(request.id), request.keys);
        let mut answer = within_apply_timeout(asked).await?;
        // Whoever forwarded the question fills in its own; an etcd expects the message to be there.
        answer.header = Some(pb::ResponseHeader::default());
        Ok(leasepb::LeaseInternalResponse {
            lease_time_to_live_response: Some(answer),
        }
        .encode_to_vec())
    }

    /// The checks that every request for raft passes first.
    fn refuse_peer(&self, method: &Method, parts: &Parts) -> Option<Response<PeerBody>> {
        if let Some(refusal) = only(method, parts) {
            return Some(refusal);
        }
        let refusal = self.transport.identity().check(&parts.headers).err()?;
        let from = parts.headers.get(&X_SERVER_FROM);
        warn!(?from, path = parts.uri.path(), %refusal, "refused request of peer");
        Some(self.named(text(StatusCode::PRECONDITION_FAILED, &refusal.to_string())))
    }

    fn add_remote(&self, parts: &Parts) {
        let header = |name| {
            parts
                .headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        if let (Some(from), Some(urls)) = (
            header(&X_SERVER_FROM).and_then(parse_hex),
            header(&X_PEER_URLS),
        ) {
            self.transport.add_remote(MemberId(from), urls);
        }
    }

    /// Adds the id of the cluster.
    fn named(&self, mut response: Response<PeerBody>) -> Response<PeerBody> {
        response
            .headers_mut()
            .insert(&X_CLUSTER_ID, self.transport.identity().cluster_header());
        response
    }
}

/// Why a lease call gets no answer.
enum LeaseRefusal {
    Malformed,
    Late,
    Failed(RequestError),
}

async fn within_apply_timeout<T>(
    asked: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, LeaseRefusal> {
    match timeout(LEASE_APPLY_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Err(_) | Ok(Err(RequestError::TimeoutWaitAppliedIndex | RequestError::Timeout)) => {
            Err(LeaseRefusal::Late)
        }
        Ok(Err(error)) => Err(LeaseRefusal::Failed(error)),
    }
}

/// The refusal of every method but one.
fn only(method: &Method, parts: &Parts) -> Option<Response<PeerBody>> {
    if parts.method == method {
        return None;
    }
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    refusal.headers_mut().insert(
        ALLOW,
        HeaderValue::from_str(method.as_str()).expect("a method is a token"),
    );
    Some(refusal)
}

/// An error as Go's `http.Error` writes it.
fn text(status: StatusCode, message: &str) -> Response<PeerBody> {
    let mut response = whole(
        status,
        "text/plain; charset=utf-8",
        format!("{message}\n").into_bytes(),
    );
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn forbidden(message: &str) -> Response<PeerBody> {
    whole(
        StatusCode::FORBIDDEN,
        JSON,
        serde_json::json!({ "message": message })
            .to_string()
            .into_bytes(),
    )
}

fn empty(status: StatusCode) -> Response<PeerBody> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

fn whole(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<PeerBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
