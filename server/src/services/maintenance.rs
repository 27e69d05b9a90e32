//! The Maintenance service: status, hashes, alarms, leadership.

use std::time::{Duration, Instant};

use quorate_core::boundary::{Request as NodeRequest, Response as Answer};
use quorate_core::error::RequestError;
use quorate_core::types::{MemberId, Revision};
use quorate_net::grpc::etcdserverpb::maintenance_server;
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status, async_trait};

use super::caller::Caller;
use super::leader_watch::ResponseStream;
use super::propose::propose;
use super::{downgrade, mismatch, snapshot, status};
use crate::comparison;
use crate::config::ETCD_VERSION;
use crate::io::core;
use crate::state::ServerState;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maintenance;

#[async_trait]
impl maintenance_server::Maintenance for Maintenance {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        Caller::of(&request).require_user().await?;
        Ok(Response::new(status_response(&core::state())))
    }

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let caller = Caller::of(&request);
        let alarm = request.into_inner();
        if alarm.action() == pb::alarm_request::AlarmAction::Get {
            caller.require_user().await?;
        } else {
            caller.require_admin().await?;
        }
        // Also a GET goes through the log in etcd: the answer is linearizable.
        match propose(&caller, |internal| internal.alarm = Some(alarm)).await? {
            Answer::Alarm(mut response) => {
                core::with(|core| core.state().fill(&mut response.header));
                Ok(Response::new(response))
            }
            _ => Err(mismatch()),
        }
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let revision = Revision(request.into_inner().revision);
        let state = core::state();
        let hashed = comparison::hash_own(&state, revision)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(state.header(0)),
            hash: hashed.hash.hash,
            compact_revision: hashed.hash.compact_revision.0,
            hash_revision: hashed.hash.hash_revision.0,
        }))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let target = MemberId(request.into_inner().target_id);
        let state = core::state();
        check_move(&state, target).map_err(|error| status(&error))?;
        if target != state.member {
            transfer(target, state.limits.request_timeout).await?;
        }
        // etcd sends no header here.
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let state = core::state();
        let begun = Instant::now();
        snapshot::checkpoint_now(&state).await?;
        state.metrics.hash.observe(begun.elapsed());
        Ok(Response::new(pb::HashResponse {
            header: Some(state.header(0)),
            hash: state.image().hash,
        }))
    }

    /// There is nothing to stop the world for: a new image has no free pages.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let state = core::state();
        let defragmenting = state.metrics.work.defragment();
        snapshot::checkpoint_now(&state).await?;
        defragmenting.done();
        // etcd sends no header here.
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    type SnapshotStream = ResponseStream<pb::SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Caller::of(&request).require_admin().await?;
        Ok(Response::new(snapshot::blobs(&core::state()).await?))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        downgrade::downgrade(request.into_inner())
            .await
            .map(Response::new)
    }
}

fn status_response(state: &ServerState) -> pb::StatusResponse {
    let seen = state.status();
    let mut errors = Vec::new();
    if seen.leader.is_none() {
        errors.push(RequestError::NoLeader.message().to_owned());
    }
    for alarm in seen.alarms.iter() {
        errors.push(format!(
            "memberID:{} alarm:{} ",
            alarm.member_id,
            alarm.alarm().as_str_name()
        ));
    }
    let downgrade = seen.downgrade.clone().unwrap_or_default();
    let downgrade_info = pb::DowngradeInfo {
        enabled: downgrade.enabled,
        target_version: downgrade.target_version,
    };
    pb::StatusResponse {
        header: Some(state.header(0)),
        version: ETCD_VERSION.to_owned(),
        db_size: bytes(seen.size_bytes),
        leader: seen.leader.map_or(0, |leader| leader.0),
        raft_index: seen.committed.0,
        raft_term: seen.term.0,
        raft_applied_index: seen.applied.0,
        errors,
        db_size_in_use: bytes(seen.size_in_use_bytes),
        is_learner: seen.is_learner,
        // The format of the store follows the cluster version once that is decided.
        storage_version: seen.cluster_version.clone().unwrap_or_default(),
        db_size_quota: state.limits.quota_bytes,
        downgrade_info: Some(downgrade_info),
    }
}

fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Leadership moves only from here, and only to a voter.
fn check_move(state: &ServerState, target: MemberId) -> Result<(), RequestError> {
    let seen = state.status();
    if seen.leader != Some(state.member) {
        return Err(RequestError::NotLeader);
    }
    if !seen
        .members
        .iter()
        .any(|member| member.id == target.0 && !member.is_learner)
    {
        return Err(RequestError::BadLeaderTransferee);
    }
    Ok(())
}

async fn transfer(target: MemberId, patience: Duration) -> Result<(), Status> {
    let asked = core::request(NodeRequest::TransferLeader(Some(target)));
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RequestError::Timeout)) | Err(_) => Err(Status::unknown(
            "etcdserver: request timed out, leader transfer took too long",
        )),
        Ok(Err(error)) => Err(status(&error)),
    }
}
