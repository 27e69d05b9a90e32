//! The gRPC services of etcd's client API.
//!
//! A service decodes, asks the node or reads the view, and encodes; it decides nothing about the store. The stubs
//! are tonic's; [`Services::call`] is their router and the place of what holds for every call: overload, metadata,
//! learners.

mod admission;
mod auth;
mod caller;
mod cluster;
mod concurrency;
mod downgrade;
mod forward;
mod health;
mod image;
mod kv;
mod leader_watch;
mod lease;
mod maintenance;
mod measure;
mod propose;
mod quota;
mod range_stream;
mod snapshot;
mod watch;

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body as HttpBody;
use quorate_core::error::RequestError;
use quorate_net::grpc::etcdserverpb::auth_server::AuthServer;
use quorate_net::grpc::etcdserverpb::cluster_server::ClusterServer;
use quorate_net::grpc::etcdserverpb::kv_server::KvServer;
use quorate_net::grpc::etcdserverpb::lease_server::LeaseServer;
use quorate_net::grpc::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_net::grpc::etcdserverpb::watch_server::WatchServer;
use quorate_net::grpc::health::health_server::HealthServer;
use quorate_net::grpc::v3electionpb::election_server::ElectionServer;
use quorate_net::grpc::v3lockpb::lock_server::LockServer;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service as _;

pub(crate) use self::caller::CertificateName;
pub(crate) use self::cluster::promote_for;
pub(crate) use self::kv::compact_here;
use self::measure::Call;
use crate::state::ServerState;

/// All services of one IO core.
#[derive(Debug)]
pub(crate) struct Services {
    state: Arc<ServerState>,
    kv: KvServer<kv::Kv>,
    watch: WatchServer<watch::Watch>,
    lease: LeaseServer<lease::Lease>,
    cluster: ClusterServer<cluster::Cluster>,
    maintenance: MaintenanceServer<maintenance::Maintenance>,
    auth: AuthServer<auth::Auth>,
    lock: LockServer<concurrency::Lock>,
    election: ElectionServer<concurrency::Election>,
    health: HealthServer<health::Health>,
}

impl Services {
    /// The services of a member.
    pub(crate) fn new(state: &Arc<ServerState>) -> Self {
        let receive_max = state.limits.receive_bytes_max();
        Self {
            state: Arc::clone(state),
            kv: KvServer::new(kv::Kv).max_decoding_message_size(receive_max),
            watch: WatchServer::new(watch::Watch).max_decoding_message_size(receive_max),
            lease: LeaseServer::new(lease::Lease).max_decoding_message_size(receive_max),
            cluster: ClusterServer::new(cluster::Cluster).max_decoding_message_size(receive_max),
            maintenance: MaintenanceServer::new(maintenance::Maintenance)
                .max_decoding_message_size(receive_max),
            auth: AuthServer::new(auth::Auth).max_decoding_message_size(receive_max),
            lock: LockServer::new(concurrency::Lock).max_decoding_message_size(receive_max),
            election: ElectionServer::new(concurrency::Election)
                .max_decoding_message_size(receive_max),
            health: HealthServer::new(health::Health),
        }
    }

    /// Begins to answer one gRPC call.
    pub(crate) fn call<B>(self: &Arc<Self>, request: Request<B>) -> Answering
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let call = Call::begin(
            &self.state.metrics,
            self.state.spans.as_ref(),
            request.uri().path(),
            request.headers(),
        );
        let refused = admission::admit(&self.state, request.uri().path(), request.headers());
        let progress = match refused {
            Ok(()) => self.route(request),
            Err(refused) => Progress::Answered(status(&refused).into_http()),
        };
        Answering {
            services: Arc::clone(self),
            call,
            progress,
        }
    }

    /// Each server is cloned for its call alone: that is a counted reference and its limits.
    fn route<B>(&self, request: Request<B>) -> Progress
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let path = request.uri().path();
        let service = path
            .get(1..)
            .and_then(|path| path.split_once('/'))
            .map_or("", |(service, _)| service);
        Progress::Running(match service {
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Watch" => self.watch.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Cluster" => self.cluster.clone().call(request),
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request),
            "etcdserverpb.Auth" => self.auth.clone().call(request),
            "grpc.health.v1.Health" => self.health.clone().call(request),
            "v3lockpb.Lock" => self.lock.clone().call(request),
            "v3electionpb.Election" => self.election.clone().call(request),
            unknown => {
                let refused = Status::unimplemented(format!("unknown service {unknown}"));
                return Progress::Answered(refused.into_http());
            }
        })
    }
}

/// A call that is being answered. Small on purpose: it is moved a few times.
pub(crate) struct Answering {
    services: Arc<Services>,
    call: Call,
    progress: Progress,
}

enum Progress {
    /// Refused at once.
    Answered(Response<Body>),
    /// With its service.
    Running(Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>),
    /// The answer was given.
    Ended,
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = match std::mem::replace(&mut self.progress, Progress::Ended) {
            Progress::Answered(response) => response,
            Progress::Running(mut running) => match running.as_mut().poll(context) {
                Poll::Ready(Ok(response)) => response,
                Poll::Pending => {
                    self.progress = Progress::Running(running);
                    return Poll::Pending;
                }
            },
            Progress::Ended => panic!("polled after it was ready"),
        };
        admission::reword_too_large(&mut response);
        let Self { services, call, .. } = &mut *self;
        let state = &services.state;
        call.end(&state.metrics, state.limits.slow_unary, &mut response);
        Poll::Ready(Ok(response))
    }
}

/// The gRPC status of a refused request.
fn status(error: &RequestError) -> Status {
    Status::new(Code::from(error.code() as i32), error.message())
}

/// The status of an answer of another kind than the request: a bug, but no reason to end the process.
fn mismatch() -> Status {
    Status::internal("quorate: the node answered another kind of request")
}
