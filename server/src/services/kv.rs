//! The KV service: ranges, puts, deletes, transactions, compaction.

use std::sync::Arc;

use quorate_core::auth::{Identity, Rules, permit_read_txn};
use quorate_core::boundary::Response as Answer;
use quorate_core::error::RequestError;
use quorate_core::request;
use quorate_net::grpc::etcdserverpb::kv_server;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::response_op::Response as Operation;
use tonic::{Request, Response, Status, async_trait};

use super::caller::Caller;
use super::leader_watch::ResponseStream;
use super::propose::{propose, read_index};
use super::{mismatch, quota, range_stream, status};
use crate::io::core;
use crate::state::ServerState;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kv;

#[async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let caller = Caller::of(&request);
        range_for(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    type RangeStreamStream = ResponseStream<pb::RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let caller = Caller::of(&request);
        let range = request.into_inner();
        range_stream::check(&range)?;
        if !range.serializable {
            read_index().await?;
        }
        let may_read =
            |rules: &Rules, who: &Identity| rules.permit_range(who, &range.key, &range.range_end);
        let permit = caller.permit(may_read).await?;
        Ok(Response::new(range_stream::chunks(range, permit)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let caller = Caller::of(&request);
        let put = request.into_inner();
        quota::check(request::put_cost_bytes(&put)).await?;
        request::check_put(&put).map_err(|error| status(&error))?;
        match propose(&caller, |internal| internal.put = Some(put)).await? {
            Answer::Put(mut response) => {
                core::with(|core| core.state().fill(&mut response.header));
                Ok(Response::new(response))
            }
            _ => Err(mismatch()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let caller = Caller::of(&request);
        delete_for(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let caller = Caller::of(&request);
        txn_for(&caller, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = Caller::of(&request);
        caller.require_admin().await?;
        let compaction = request.into_inner();
        match propose(&caller, |internal| internal.compaction = Some(compaction)).await? {
            Answer::Compact(mut response) => {
                core::with(|core| core.state().fill(&mut response.header));
                Ok(Response::new(response))
            }
            _ => Err(mismatch()),
        }
    }
}

/// Reads a range in the name of a caller.
pub(super) async fn range_for(
    caller: &Caller,
    range: pb::RangeRequest,
) -> Result<pb::RangeResponse, Status> {
    if !range.serializable && core::state().is_learner() {
        return Err(status(&RequestError::NotSupportedForLearner));
    }
    request::check_range(&range).map_err(|error| status(&error))?;
    if !range.serializable {
        read_index().await?;
    }
    let may_read =
        |rules: &Rules, who: &Identity| rules.permit_range(who, &range.key, &range.range_end);
    let permit = caller.permit(may_read).await?;
    let response = read_range(range).await?;
    permit.check_again()?;
    Ok(response)
}

/// Deletes a range in the name of a caller.
pub(super) async fn delete_for(
    caller: &Caller,
    delete: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, Status> {
    request::check_delete_range(&delete).map_err(|error| status(&error))?;
    match propose(caller, |internal| internal.delete_range = Some(delete)).await? {
        Answer::DeleteRange(mut response) => {
            core::with(|core| core.state().fill(&mut response.header));
            Ok(response)
        }
        _ => Err(mismatch()),
    }
}

/// Carries out a transaction in the name of a caller.
pub(super) async fn txn_for(
    caller: &Caller,
    txn: pb::TxnRequest,
) -> Result<pb::TxnResponse, Status> {
    quota::check(request::txn_cost_bytes(&txn)).await?;
    let state = core::state();
    request::check_txn(&txn, state.limits.txn_operations_max).map_err(|error| status(&error))?;
    let mut response = if request::is_read_only(&txn) {
        if !request::is_serializable(&txn) {
            read_index().await?;
        }
        let permit = caller
            .permit(|rules, who| permit_read_txn(rules, who, &txn))
            .await?;
        // As many ranges as a transaction may hold, each of any size.
        let metrics = Arc::clone(&state.metrics);
        let response = beside(move || state.view.read_txn(&txn)).await?;
        permit.check_again()?;
        metrics.core().ranges.add(ranges(&response));
        response
    } else {
        match propose(caller, |internal| internal.txn = Some(txn)).await? {
            Answer::Txn(response) => response,
            _ => return Err(mismatch()),
        }
    };
    core::with(|core| core.state().fill(&mut response.header));
    Ok(response)
}

/// How many ranges a transaction has read.
fn ranges(response: &pb::TxnResponse) -> u64 {
    let operations = response
        .responses
        .iter()
        .filter_map(|operation| operation.response.as_ref());
    let ranges = operations.map(|operation| match operation {
        Operation::ResponseRange(_) => 1,
        Operation::ResponseTxn(nested) => ranges(nested),
        Operation::ResponsePut(_) | Operation::ResponseDeleteRange(_) => 0,
    });
    ranges.sum()
}

/// Compacts for this member itself. What is compacted already is done.
pub(crate) async fn compact_here(revision: i64) -> Result<(), Status> {
    let compaction = pb::CompactionRequest {
        revision,
        physical: false,
    };
    let fill = |internal: &mut pb::InternalRaftRequest| internal.compaction = Some(compaction);
    match propose(&Caller::nobody(), fill).await {
        Err(error) if error.message() == RequestError::Compacted.message() => Ok(()),
        answer => answer.map(drop),
    }
}

/// Reads a range: at once when it is small, on another thread when it could hold up the core.
async fn read_range(range: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
    let state = core::state();
    let mut response = if is_small(&range, &state)? {
        state.view.range(&range).map_err(|error| status(&error))?
    } else {
        let view = state.view.clone();
        beside(move || view.range(&range)).await?
    };
    state.fill(&mut response.header);
    Ok(response)
}

/// Whether the range holds few enough keys to be read without holding up the core.
fn is_small(range: &pb::RangeRequest, state: &ServerState) -> Result<bool, Status> {
    let inline_max = state.limits.inline_range_keys_max;
    if range.range_end.is_empty() || range.count_only {
        return Ok(true);
    }
    let is_sorted = range.sort_order != 0 || range.sort_target != 0;
    if range.limit > 0 && range.limit <= inline_max && !is_sorted {
        return Ok(true);
    }
    let count = pb::RangeRequest {
        count_only: true,
        ..range.clone()
    };
    Ok(state
        .view
        .range(&count)
        .map_err(|error| status(&error))?
        .count
        <= inline_max)
}

/// Runs a long read on a thread of its own, so that the other connections of this core go on.
pub(super) async fn beside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, RequestError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(|error| status(&error)),
        Err(_) => Err(Status::internal("quorate: the read was cut off")),
    }
}
