//! The Cluster service: who the members are.

use quorate_net::grpc::etcdserverpb::cluster_server;
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status, async_trait};

use super::caller::Caller;
use super::not_offered;
use super::propose::read_index;
use crate::io::core;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster;

#[async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let caller = Caller::of(&request);
        if request.into_inner().linearizable {
            read_index().await?;
        }
        caller.require_user().await?;
        let state = core::state();
        Ok(Response::new(pb::MemberListResponse {
            header: Some(state.header_without_revision()),
            members: state.status().members.to_vec(),
        }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        Err(not_offered("MemberAdd"))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        Err(not_offered("MemberRemove"))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        Err(not_offered("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        Err(not_offered("MemberPromote"))
    }
}
