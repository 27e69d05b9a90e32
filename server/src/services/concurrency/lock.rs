//! The Lock service.

use bytes::Bytes;
use quorate_net::grpc::v3lockpb::lock_server;
use quorate_proto::{etcdserverpb as pb, v3lockpb};
use tonic::{Request, Response, Status, async_trait};

use super::{Place, prefix_of, session, take_place, unknown, wait_for_older};
use crate::services::caller::Caller;
use crate::services::kv;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock;

#[async_trait]
impl lock_server::Lock for Lock {
    async fn lock(
        &self,
        request: Request<v3lockpb::LockRequest>,
    ) -> Result<Response<v3lockpb::LockResponse>, Status> {
        let caller = Caller::of(&request);
        let locked = lock(&caller, request.into_inner()).await;
        locked.map(Response::new).map_err(unknown)
    }

    async fn unlock(
        &self,
        request: Request<v3lockpb::UnlockRequest>,
    ) -> Result<Response<v3lockpb::UnlockResponse>, Status> {
        let caller = Caller::of(&request);
        let delete = pb::DeleteRangeRequest {
            key: request.into_inner().key,
            ..Default::default()
        };
        let deleted = kv::delete_for(&caller, delete).await.map_err(unknown)?;
        Ok(Response::new(v3lockpb::UnlockResponse {
            header: deleted.header,
        }))
    }
}

async fn lock(
    caller: &Caller,
    request: v3lockpb::LockRequest,
) -> Result<v3lockpb::LockResponse, Status> {
    let lease = session(caller, request.lease).await?;
    let prefix = prefix_of(&request.name);
    let taken = take_place(caller, &prefix, lease, Bytes::new()).await?;
    if taken.first_created == taken.created {
        return Ok(v3lockpb::LockResponse {
            header: taken.header,
            key: taken.key,
        });
    }
    let place = Place::new(caller, taken.key.clone(), taken.created).await?;
    wait_for_older(caller, &prefix, taken.created).await?;
    // The lease may have ended meanwhile.
    let own = pb::RangeRequest {
        key: taken.key.clone(),
        ..Default::default()
    };
    let found = kv::range_for(caller, own).await?;
    place.keep();
    if found.kvs.is_empty() {
        return Err(Status::unknown("mutex: session is expired"));
    }
    Ok(v3lockpb::LockResponse {
        header: found.header,
        key: taken.key,
    })
}
