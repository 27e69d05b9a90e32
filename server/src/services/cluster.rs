//! The Cluster service: who the members are, and changes of them.
//!
//! What a change needs to be safe is checked by the node; here it is only made from the request.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use quorate_core::boundary::{MembersChange, Request as NodeRequest, Response as Answer};
use quorate_core::checkpoint::MemberRecord;
use quorate_core::error::RequestError;
use quorate_core::member::member_id;
use quorate_core::types::MemberId;
use quorate_net::grpc::etcdserverpb::cluster_server;
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status, async_trait};
use tracing::info;

use super::caller::Caller;
use super::propose::read_index;
use super::{forward, mismatch, status};
use crate::config::Url;
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
        let caller = Caller::of(&request);
        let record = new_member(request.into_inner()).map_err(|error| status(&error))?;
        caller.require_admin().await?;
        let id = record.id;
        let members = change(MembersChange::Add(record)).await?;
        Ok(Response::new(pb::MemberAddResponse {
            header: Some(core::state().header_without_revision()),
            member: members.iter().find(|member| member.id == id.0).cloned(),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let id = MemberId(request.into_inner().id);
        let members = change(MembersChange::Remove(id)).await?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: Some(core::state().header_without_revision()),
            members,
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let pb::MemberUpdateRequest { id, peer_urls } = request.into_inner();
        let member = MemberId(id);
        let members = change(MembersChange::UpdateUrls { member, peer_urls }).await?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: Some(core::state().header_without_revision()),
            members,
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let caller = Caller::of(&request);
        caller.require_admin().await?;
        let id = MemberId(request.into_inner().id);
        let promoted = forward::promote(id, caller.token()).await;
        let members = promoted.map_err(|error| status(&error))?;
        Ok(Response::new(pb::MemberPromoteResponse {
            header: Some(core::state().header_without_revision()),
            members,
        }))
    }
}

/// The member that is to be added; its id comes from its URLs and the time.
fn new_member(request: pb::MemberAddRequest) -> Result<MemberRecord, RequestError> {
    let pb::MemberAddRequest {
        peer_urls,
        is_learner,
    } = request;
    let bad_urls = |_: String| RequestError::MemberBadURLs;
    let peer_urls = Url::parse_list(&peer_urls.join(",")).map_err(bad_urls)?;
    let peer_urls: Vec<_> = peer_urls.iter().map(ToString::to_string).collect();
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs() as i64);
    Ok(MemberRecord {
        id: member_id(&peer_urls, "", Some(seconds)),
        peer_urls,
        is_learner,
        ..MemberRecord::default()
    })
}

async fn change(change: MembersChange) -> Result<Vec<pb::Member>, Status> {
    apply(change).await.map_err(|error| status(&error))
}

async fn apply(change: MembersChange) -> Result<Vec<pb::Member>, RequestError> {
    let words = format!("{change:?}");
    match core::request(NodeRequest::ChangeMembers(change)).await? {
        Answer::Members(members) => {
            info!(change = words, "applied a configuration change");
            Ok(members)
        }
        _ => Err(RequestError::Other(mismatch().message().to_owned().into())),
    }
}

/// Promotes a learner; this member must lead.
pub(super) async fn promote_here(learner: MemberId) -> Result<Vec<pb::Member>, RequestError> {
    let promoted = apply(MembersChange::Promote(learner)).await;
    let work = &core::state().metrics.work;
    match &promoted {
        Ok(_) => work.promotions.increment(),
        // Its leader is asked instead.
        Err(RequestError::NotLeader) => {}
        Err(error) => work.promotion_refused(error.message()),
    }
    promoted
}

/// The same for another member's caller, who shows the token that it had there.
pub(crate) async fn promote_for(
    learner: MemberId,
    token: Option<HeaderValue>,
) -> Result<Vec<pb::Member>, RequestError> {
    let caller = Caller::with_token(token);
    if caller.require_admin().await.is_err() {
        return Err(RequestError::PermissionDenied);
    }
    promote_here(learner).await
}
