//! The gRPC services of etcd's client API.
//!
//! A service decodes, asks the node or reads the view, and encodes; it decides nothing about the store. The stubs
//! are tonic's; [`Services::call`] is their router and the place of what holds for every call: overload, metadata,
//! learners.

mod admission;
mod cluster;
mod forward;
mod health;
mod kv;
mod leader_watch;
mod lease;
mod maintenance;
mod measure;
mod propose;
mod range_stream;
mod snapshot;
mod watch;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use quorate_core::error::RequestError;
use quorate_net::grpc::etcdserverpb::cluster_server::ClusterServer;
use quorate_net::grpc::etcdserverpb::kv_server::KvServer;
use quorate_net::grpc::etcdserverpb::lease_server::LeaseServer;
use quorate_net::grpc::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_net::grpc::etcdserverpb::watch_server::WatchServer;
use quorate_net::grpc::health::health_server::HealthServer;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service as _;

use crate::state::ServerState;

/// All services of one IO core.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    state: Arc<ServerState>,
    kv: KvServer<kv::Kv>,
    watch: WatchServer<watch::Watch>,
    lease: LeaseServer<lease::Lease>,
    cluster: ClusterServer<cluster::Cluster>,
    maintenance: MaintenanceServer<maintenance::Maintenance>,
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
            health: HealthServer::new(health::Health),
        }
    }

    /// Answers one gRPC call.
    pub(crate) async fn call(self, request: Request<Incoming>) -> Response<Body> {
        let metrics = Arc::clone(&self.state.metrics);
        let call = measure::Call::begin(&metrics, request.uri().path(), request.headers());
        let response = self.route(request).await;
        call.end(&metrics, &response);
        response
    }

    async fn route(mut self, request: Request<Incoming>) -> Response<Body> {
        if let Err(refused) = admission::admit(&self.state, request.uri().path(), request.headers())
        {
            return status(&refused).into_http();
        }
        let path = request.uri().path();
        let service = path
            .get(1..)
            .and_then(|path| path.split_once('/'))
            .map_or("", |(service, _)| service);
        let answered = match service {
            "etcdserverpb.KV" => self.kv.call(request).await,
            "etcdserverpb.Watch" => self.watch.call(request).await,
            "etcdserverpb.Lease" => self.lease.call(request).await,
            "etcdserverpb.Cluster" => self.cluster.call(request).await,
            "etcdserverpb.Maintenance" => self.maintenance.call(request).await,
            "grpc.health.v1.Health" => self.health.call(request).await,
            "etcdserverpb.Auth" | "v3lockpb.Lock" | "v3electionpb.Election" => {
                return not_offered(service).into_http();
            }
            unknown => {
                return Status::unimplemented(format!("unknown service {unknown}")).into_http();
            }
        };
        let mut response = answered.unwrap_or_else(|never| match never {});
        admission::reword_too_large(&mut response);
        response
    }
}

/// The gRPC status of a refused request.
fn status(error: &RequestError) -> Status {
    Status::new(Code::from(error.code() as i32), error.message())
}

/// The status of a call that this version does not offer.
fn not_offered(what: &str) -> Status {
    Status::unimplemented(format!("quorate: {what} is not offered by this version"))
}

/// The status of an answer of another kind than the request: a bug, but no reason to end the process.
fn mismatch() -> Status {
    Status::internal("quorate: the node answered another kind of request")
}
