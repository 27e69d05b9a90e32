//! The standard `grpc.health.v1.Health` service, as etcd registers it: one service, the empty name, always serving.

use futures_util::stream::{self, StreamExt as _};
use quorate_net::grpc::health::HealthStatus;
use quorate_net::grpc::health::health_server;
use quorate_net::grpc::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status, async_trait};

use super::leader_watch::ResponseStream;

/// The service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health;

#[async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.into_inner().service.is_empty() {
            Ok(Response::new(HealthCheckResponse {
                status: HealthStatus::Serving as i32,
            }))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    type WatchStream = ResponseStream<HealthCheckResponse>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = if request.into_inner().service.is_empty() {
            HealthStatus::Serving
        } else {
            HealthStatus::ServiceUnknown
        };
        // The status never changes: the stream stays open without another word.
        let first = stream::iter([Ok(HealthCheckResponse {
            status: status as i32,
        })]);
        Ok(Response::new(Box::pin(first.chain(stream::pending()))))
    }
}
