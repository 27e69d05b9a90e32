//! The Lease service: grant and revoke through the log, renewals and remaining times by the leader.

use futures_util::stream;
use quorate_core::boundary::{Request as NodeRequest, Response as Answer};
use quorate_core::request::LEASE_GRANT_BYTES;
use quorate_core::types::LeaseId;
use quorate_net::grpc::etcdserverpb::lease_server;
use quorate_proto::etcdserverpb as pb;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::caller::{Caller, Permit};
use super::leader_watch::{ResponseStream, until_leaderless};
use super::propose::{propose, propose_as};
use super::{admission, forward, mismatch, quota, status};
use crate::io::core;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease;

#[async_trait]
impl lease_server::Lease for Lease {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let caller = Caller::of(&request);
        caller.require_user().await?;
        grant_for(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let caller = Caller::of(&request);
        caller.require_user().await?;
        let revoke = request.into_inner();
        match propose(&caller, |internal| internal.lease_revoke = Some(revoke)).await? {
            Answer::LeaseRevoke(mut response) => {
                core::with(|core| core.state().fill(&mut response.header));
                Ok(Response::new(response))
            }
            _ => Err(mismatch()),
        }
    }

    type LeaseKeepAliveStream = ResponseStream<pb::LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let requires_leader = admission::requires_leader(request.metadata().as_ref());
        let caller = Caller::of(&request);
        let renewals = stream::try_unfold(
            (request.into_inner(), caller),
            |(mut requests, caller)| async move {
                let request = requests.message().await.inspect_err(|broken| {
                    if broken.code() != Code::Cancelled {
                        core::with(|core| {
                            core.state().metrics.core().keep_alive_broken.increment()
                        });
                    }
                })?;
                let Some(pb::LeaseKeepAliveRequest { id }) = request else {
                    return Ok(None);
                };
                // The revision is the one when the request was read.
                let header = core::with(|core| core.state().header(0));
                let permit = caller.permit_lease(Some(LeaseId(id)), true).await;
                permit.map_err(|error| status(&error))?.check_again()?;
                let ttl = forward::renew(LeaseId(id))
                    .await
                    .map_err(|error| status(&error))?;
                Ok(Some((
                    pb::LeaseKeepAliveResponse {
                        header: Some(header),
                        id,
                        ttl,
                    },
                    (requests, caller),
                )))
            },
        );
        Ok(Response::new(until_leaderless(requires_leader, renewals)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        caller.require_user().await?;
        let permit = if request.keys {
            let permit = caller.permit_lease(Some(LeaseId(request.id)), false).await;
            Some(permit.map_err(|error| status(&error))?)
        } else {
            None
        };
        let mut response = forward::time_to_live(&request)
            .await
            .map_err(|error| status(&error))?;
        permit.map_or(Ok(()), Permit::check_again)?;
        core::with(|core| response.header = Some(core.state().header(0)));
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let permit = Caller::of(&request).permit_lease(None, false).await;
        let permit = permit.map_err(|error| status(&error))?;
        match core::request(NodeRequest::LeaseLeases)
            .await
            .map_err(|error| status(&error))?
        {
            Answer::LeaseLeases(mut response) => {
                permit.check_again()?;
                core::with(|core| core.state().fill(&mut response.header));
                Ok(Response::new(response))
            }
            _ => Err(mismatch()),
        }
    }
}

/// Grants a lease in the name of a caller.
pub(super) async fn grant_for(
    caller: &Caller,
    mut grant: pb::LeaseGrantRequest,
) -> Result<pb::LeaseGrantResponse, Status> {
    quota::check(LEASE_GRANT_BYTES).await?;
    let ticket = core::take_ticket();
    if grant.id == 0 {
        // As etcd picks it: the request id without its sign.
        grant.id = (ticket.0 & i64::MAX as u64) as i64;
    }
    let granted = propose_as(ticket, caller, |internal| {
        internal.lease_grant = Some(grant);
    });
    match granted.await? {
        Answer::LeaseGrant(mut response) => {
            core::with(|core| core.state().fill(&mut response.header));
            Ok(response)
        }
        _ => Err(mismatch()),
    }
}
