//! The Election service.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::stream;
use quorate_net::grpc::v3electionpb::election_server;
use quorate_proto::mvccpb::event::EventType;
use quorate_proto::mvccpb::{Event, KeyValue};
use quorate_proto::{etcdserverpb as pb, v3electionpb as epb};
use tonic::{Request, Response, Status, async_trait};

use super::{
    Place, Watching, delete, end_of, if_created_at, operation, places, prefix_of, session,
    take_place, unknown, wait_for_older,
};
use crate::services::caller::Caller;
use crate::services::leader_watch::{ResponseStream, until_leaderless};
use crate::services::{admission, kv};

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Election;

#[async_trait]
impl election_server::Election for Election {
    async fn campaign(
        &self,
        request: Request<epb::CampaignRequest>,
    ) -> Result<Response<epb::CampaignResponse>, Status> {
        let caller = Caller::of(&request);
        let won = campaign(&caller, request.into_inner()).await;
        won.map(Response::new).map_err(unknown)
    }

    async fn proclaim(
        &self,
        request: Request<epb::ProclaimRequest>,
    ) -> Result<Response<epb::ProclaimResponse>, Status> {
        let caller = Caller::of(&request);
        let epb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader.ok_or_else(no_leader_given)?;
        let header = proclaim(&caller, &leader, value).await.map_err(unknown)?;
        Ok(Response::new(epb::ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<epb::LeaderRequest>,
    ) -> Result<Response<epb::LeaderResponse>, Status> {
        let caller = Caller::of(&request);
        let prefix = prefix_of(&request.into_inner().name);
        let found = first_place(&caller, &prefix).await.map_err(unknown)?;
        let kv = found.kvs.into_iter().next();
        let kv = kv.ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(Response::new(epb::LeaderResponse {
            header: found.header,
            kv: Some(kv),
        }))
    }

    type ObserveStream = ResponseStream<epb::LeaderResponse>;

    async fn observe(
        &self,
        request: Request<epb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let caller = Caller::of(&request);
        let requires_leader = admission::requires_leader(request.metadata().as_ref());
        let observer = Observer {
            caller,
            prefix: prefix_of(&request.into_inner().name),
            looks_at: Sight::Nothing,
            seen: VecDeque::new(),
        };
        let responses = stream::unfold(observer, |mut observer| async move {
            let response = observer.next().await?;
            Some((Ok(response), observer))
        });
        Ok(Response::new(until_leaderless(requires_leader, responses)))
    }

    async fn resign(
        &self,
        request: Request<epb::ResignRequest>,
    ) -> Result<Response<epb::ResignResponse>, Status> {
        let caller = Caller::of(&request);
        let leader = request.into_inner().leader.ok_or_else(no_leader_given)?;
        let leave = vec![delete(leader.key.clone())];
        let resign = if_created_at(&leader.key, leader.rev, leave, Vec::new());
        let resigned = kv::txn_for(&caller, resign).await.map_err(unknown)?;
        Ok(Response::new(epb::ResignResponse {
            header: resigned.header,
        }))
    }
}

fn no_leader_given() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

async fn campaign(
    caller: &Caller,
    request: epb::CampaignRequest,
) -> Result<epb::CampaignResponse, Status> {
    let lease = session(caller, request.lease).await?;
    let prefix = prefix_of(&request.name);
    let taken = take_place(caller, &prefix, lease, request.value.clone()).await?;
    let place = Place::new(caller, taken.key.clone(), taken.created).await?;
    let leader = epb::LeaderKey {
        name: request.name,
        key: taken.key,
        rev: taken.created,
        lease,
    };
    if taken
        .value_before
        .is_some_and(|value| value != request.value)
    {
        proclaim(caller, &leader, request.value).await?;
    }
    let waited = wait_for_older(caller, &prefix, taken.created).await;
    // Who could not wait stays a candidate, and may come back; only a call that was given up gives its place up.
    place.keep();
    waited?;
    Ok(epb::CampaignResponse {
        header: taken.header,
        leader: Some(leader),
    })
}

/// Changes what the leader says.
async fn proclaim(
    caller: &Caller,
    leader: &epb::LeaderKey,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let put = pb::PutRequest {
        key: leader.key.clone(),
        value,
        lease: leader.lease,
        ..Default::default()
    };
    let put = operation(pb::request_op::Request::RequestPut(put));
    let txn = if_created_at(&leader.key, leader.rev, vec![put], Vec::new());
    let said = kv::txn_for(caller, txn).await?;
    if said.succeeded {
        Ok(said.header)
    } else {
        Err(Status::unknown("election: not leader"))
    }
}

async fn first_place(caller: &Caller, prefix: &Bytes) -> Result<pb::RangeResponse, Status> {
    let first = pb::RangeRequest {
        limit: 1,
        ..places(prefix, pb::range_request::SortOrder::Ascend)
    };
    kv::range_for(caller, first).await
}

/// Sees what the leaders of an election say, one after the other.
struct Observer {
    caller: Caller,
    prefix: Bytes,
    looks_at: Sight,
    /// Seen, and not told yet.
    seen: VecDeque<epb::LeaderResponse>,
}

enum Sight {
    /// The queue has to be read.
    Nothing,
    /// Nobody is a candidate.
    Queue(Watching),
    /// The place of this leader.
    Leader(Watching),
}

impl Observer {
    /// The next thing that a leader says; none when the queue could not be read, which ends the stream as in etcd.
    async fn next(&mut self) -> Option<epb::LeaderResponse> {
        loop {
            if let Some(response) = self.seen.pop_front() {
                return Some(response);
            }
            match &mut self.looks_at {
                Sight::Nothing => self.read().await?,
                Sight::Queue(watching) => {
                    let response = watching.events().await;
                    self.see_candidate(response);
                }
                Sight::Leader(watching) => {
                    let response = watching.events().await;
                    self.hear(response);
                }
            }
        }
    }

    async fn read(&mut self) -> Option<()> {
        let found = first_place(&self.caller, &self.prefix).await.ok()?;
        let header = found.header?;
        match found.kvs.into_iter().next() {
            Some(kv) => self.see(header, kv),
            None => {
                let end = end_of(&self.prefix);
                let queue = Watching::range(self.prefix.clone(), end, header.revision);
                self.looks_at = Sight::Queue(queue);
            }
        }
        Some(())
    }

    fn see_candidate(&mut self, response: Option<pb::WatchResponse>) {
        let Some(response) = response else {
            self.looks_at = Sight::Nothing;
            return;
        };
        let puts = |event: &Event| event.r#type() == EventType::Put;
        let first = response.events.into_iter().find(puts);
        if let (Some(kv), Some(header)) = (first.and_then(|event| event.kv), response.header) {
            let revision = kv.mod_revision;
            self.see(pb::ResponseHeader { revision, ..header }, kv);
        }
    }

    /// There is a leader: what it says now, and from now on.
    fn see(&mut self, header: pb::ResponseHeader, kv: KeyValue) {
        let watching = Watching::key(kv.key.clone(), header.revision + 1);
        self.looks_at = Sight::Leader(watching);
        self.seen.push_back(epb::LeaderResponse {
            header: Some(header),
            kv: Some(kv),
        });
    }

    fn hear(&mut self, response: Option<pb::WatchResponse>) {
        let Some(response) = response else {
            self.looks_at = Sight::Nothing;
            return;
        };
        for event in response.events {
            if event.r#type() == EventType::Delete {
                self.looks_at = Sight::Nothing;
                return;
            }
            self.seen.push_back(epb::LeaderResponse {
                header: response.header,
                kv: event.kv,
            });
        }
    }
}
