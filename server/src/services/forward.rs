//! What only the leader can answer: asked here if this member leads, on the leader's peer port if not.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use quorate_core::boundary::{Request, Response};
use quorate_core::error::RequestError;
use quorate_core::types::{LeaseId, MemberId};
use quorate_net::peer::{CallError, Transport};
use quorate_proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::cluster;
use crate::io::core;

/// Between two tries while there is no leader, or the leader does not answer; etcd's pause.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The granted TTL of a renewed lease; 0 when it is unknown or expired.
pub(super) async fn renew(id: LeaseId) -> Result<i64, RequestError> {
    let here = || async move {
        match core::request(Request::LeaseRenew(id)).await? {
            Response::LeaseRenewed { ttl } => Ok(ttl),
            _ => Err(mismatch()),
        }
    };
    let there =
        move |peers: Arc<Transport>, leader| async move { peers.lease_renew(leader, id).await };
    match by_leader(here, there, unknown_lease).await {
        Err(RequestError::LeaseNotFound) => Ok(0),
        renewed => renewed,
    }
}

/// The remaining time of a lease; the header is the caller's.
pub(super) async fn time_to_live(
    request: &pb::LeaseTimeToLiveRequest,
) -> Result<pb::LeaseTimeToLiveResponse, RequestError> {
    let (id, keys) = (LeaseId(request.id), request.keys);
    let here = || async move {
        match core::request(Request::LeaseTimeToLive { id, keys }).await? {
            Response::LeaseTimeToLive(response) => Ok(response),
            _ => Err(mismatch()),
        }
    };
    let there = move |peers: Arc<Transport>, leader| async move {
        peers.lease_time_to_live(leader, id, keys).await
    };
    by_leader(here, there, unknown_lease).await
}

/// Promotes a learner: only the leader knows how far it is.
pub(super) async fn promote(
    learner: MemberId,
    token: Option<HeaderValue>,
) -> Result<Vec<pb::Member>, RequestError> {
    let here = || cluster::promote_here(learner);
    let there = |peers: Arc<Transport>, leader| {
        let token = token.clone();
        async move { peers.promote(leader, learner, token).await }
    };
    by_leader(here, there, refused_promotion).await
}

fn refused_promotion(error: &CallError) -> Option<RequestError> {
    match error {
        CallError::NotFound(_) => Some(RequestError::MemberNotFound),
        CallError::Refused { status, text } if *status == StatusCode::PRECONDITION_FAILED => {
            let not_ready = RequestError::LearnerNotReady;
            Some(if text == not_ready.message() {
                not_ready
            } else {
                RequestError::MemberNotLearner
            })
        }
        _ => None,
    }
}

fn unknown_lease(error: &CallError) -> Option<RequestError> {
    matches!(error, CallError::NotFound(_)).then_some(RequestError::LeaseNotFound)
}

/// Tries until the leader has answered, or refused for good, or the time for a request is over.
async fn by_leader<T, Here, There>(
    here: impl Fn() -> Here,
    there: impl Fn(Arc<Transport>, MemberId) -> There,
    refused: impl Fn(&CallError) -> Option<RequestError>,
) -> Result<T, RequestError>
where
    Here: Future<Output = Result<T, RequestError>>,
    There: Future<Output = Result<T, CallError>>,
{
    let state = core::state();
    let deadline = Instant::now() + state.limits.request_timeout;
    loop {
        let leader = state.leader();
        match (leader, core::peers()) {
            (Some(leader), _) if leader == state.member => match here().await {
                // Leadership went just now.
                Err(RequestError::NotLeader | RequestError::LeaderChanged) => {}
                answered => return answered,
            },
            (Some(leader), Some(peers)) => match there(peers, leader).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if let Some(refusal) = refused(&error) {
                        return Err(refusal);
                    }
                    debug!(leader = leader.0, error = %error, "the leader did not answer")
                }
            },
            _ => {}
        }
        if Instant::now() >= deadline {
            return Err(if leader.is_none() {
                RequestError::NoLeader
            } else {
                RequestError::Timeout
            });
        }
        sleep(RETRY_PAUSE).await;
    }
}

fn mismatch() -> RequestError {
    RequestError::Other("quorate: the node answered another kind of request".into())
}
