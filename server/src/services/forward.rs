//! What only the leader can answer: asked here if this member leads, on the leader's peer port if not.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::boundary::{Request, Response};
use quorate_core::error::RequestError;
use quorate_core::types::{LeaseId, MemberId};
use quorate_net::peer::{CallError, Transport};
use quorate_proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep};
use tracing::debug;

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
    match by_leader(here, there).await {
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
    by_leader(here, there).await
}

/// Tries until the leader has answered or the time for a request is over.
async fn by_leader<T, Here, There>(
    here: impl Fn() -> Here,
    there: impl Fn(Arc<Transport>, MemberId) -> There,
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
                Err(CallError::NotFound(_)) => return Err(RequestError::LeaseNotFound),
                Err(error) => {
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
