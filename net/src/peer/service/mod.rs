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

mod answers;
mod leases;
mod questions;
mod raft;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use quorate_core::{LeaseId, MemberId, RequestError, Revision};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Message;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, warn};

use self::answers::{only, text, whole};
use super::client::PROMOTE_PATH;
use super::endpoint::Connection;
use super::identity::X_CLUSTER_ID;
use super::json::Versions;
use super::lane::LaneBody;
use super::limits::{CONNECTIONS_MAX, IO_TIMEOUT, REDIAL_INTERVAL};
use super::probe;
use super::security::PeerTls;
use super::snapshot::IncomingSnapshot;
use super::transport::Transport;
use crate::rt::{JoinSet, Listener, Timer};

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
    pub async fn serve(
        self: Arc<Self>,
        listener: impl Into<Listener>,
        stop: impl Future<Output = ()>,
    ) {
        self.serve_as(listener.into(), None, stop).await;
    }

    /// As [`Service::serve`], with TLS.
    pub async fn serve_securely(
        self: Arc<Self>,
        listener: impl Into<Listener>,
        tls: PeerTls,
        stop: impl Future<Output = ()>,
    ) {
        self.serve_as(listener.into(), Some(tls), stop).await;
    }

    async fn serve_as(
        self: Arc<Self>,
        listener: Listener,
        tls: Option<PeerTls>,
        stop: impl Future<Output = ()>,
    ) {
        let write_timeout = self.transport.wire().write_timeout;
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
            let accepted = accepted.and_then(|(stream, remote)| {
                stream.set_nodelay(true)?;
                Ok((stream, remote))
            });
            match accepted {
                Ok((stream, remote)) => {
                    let service = Arc::clone(&self);
                    let tls = tls.clone();
                    connections.spawn(async move {
                        let connection = match tls {
                            None => Connection::new(stream, write_timeout),
                            Some(tls) => tls
                                .accept(stream, remote)
                                .await
                                .map(|secured| Connection::secured(secured, write_timeout)),
                        };
                        // A handshake that failed was logged where its rules are known.
                        if let Ok(connection) = connection {
                            service.serve_connection(connection).await;
                        }
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

    /// Adds the id of the cluster.
    fn named(&self, mut response: Response<PeerBody>) -> Response<PeerBody> {
        response
            .headers_mut()
            .insert(&X_CLUSTER_ID, self.transport.identity().cluster_header());
        response
    }
}
