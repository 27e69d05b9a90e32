//! The Watch service.

use quorate_net::grpc::etcdserverpb::watch_server;
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::leader_watch::ResponseStream;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch;

#[async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = ResponseStream<pb::WatchResponse>;

    async fn watch(
        &self,
        _request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(super::not_offered("Watch"))
    }
}
