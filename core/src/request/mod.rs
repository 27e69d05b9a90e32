//! What can be said about a request without knowing the state: whether it is legal, and what it costs.
//!
//! The checks are those of etcd's API layer, in its order and with its errors, quirks included. A request that has
//! passed them is legal for everything behind; what depends on the state is checked when the request is applied.

mod overlap;
#[cfg(test)]
mod tests;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request;

use crate::error::RequestError;
use crate::mvcc::{has_filters, is_default_order};

/// What etcd adds to key and value when it asks whether a put fits.
const PUT_OVERHEAD_BYTES: u64 = 256;
/// What a lease costs.
pub const LEASE_GRANT_BYTES: u64 = 64;

/// Checks a range.
pub fn check_range(request: &pb::RangeRequest) -> Result<(), RequestError> {
    if request.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(RequestError::InvalidSortOption);
    }
    Ok(())
}

/// Checks a range that is answered in pieces.
pub fn check_range_stream(request: &pb::RangeRequest) -> Result<(), RequestError> {
    check_range(request)?;
    if !is_default_order(request) {
        return Err(RequestError::Unimplemented(
            "RangeStream does not support custom sort orders".into(),
        ));
    }
    if has_filters(request) {
        return Err(RequestError::Unimplemented(
            "RangeStream does not support revision filters".into(),
        ));
    }
    Ok(())
}

/// Checks a put.
pub fn check_put(request: &pb::PutRequest) -> Result<(), RequestError> {
    if request.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(RequestError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(RequestError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
pub fn check_delete_range(request: &pb::DeleteRangeRequest) -> Result<(), RequestError> {
    if request.key.is_empty() {
        Err(RequestError::EmptyKey)
    } else {
        Ok(())
    }
}

/// Checks a transaction: first everything in it, then that no list of operations changes a key twice.
pub fn check_txn(request: &pb::TxnRequest, operations_max: usize) -> Result<(), RequestError> {
    check_operations(request, operations_max)?;
    overlap::check(&request.success)?;
    overlap::check(&request.failure)?;
    Ok(())
}

fn check_operations(request: &pb::TxnRequest, operations_max: usize) -> Result<(), RequestError> {
    let longest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    // What this level takes is not left for the transactions in it.
    let remaining = operations_max
        .checked_sub(longest)
        .ok_or(RequestError::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(RequestError::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete)?,
            Some(Request::RequestTxn(txn)) => check_operations(txn, remaining)?,
            None => return Err(RequestError::KeyNotFound),
        }
    }
    Ok(())
}

/// Whether a transaction can be answered without the log: its two lists hold nothing but ranges. A nested
/// transaction makes it a write, whatever that one holds.
pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    let is_range =
        |operation: &pb::RequestOp| matches!(operation.request, Some(Request::RequestRange(_)));
    request.success.iter().chain(&request.failure).all(is_range)
}

/// Whether a read-only transaction is content with what this member knows. One without operations is, too.
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    let is_serializable = |operation: &pb::RequestOp| matches!(&operation.request, Some(Request::RequestRange(range)) if range.serializable);
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(is_serializable)
}

/// What a put counts against the quota.
pub fn put_cost_bytes(request: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// What a transaction counts against the quota: its dearer list, nested ones included.
pub fn txn_cost_bytes(request: &pb::TxnRequest) -> u64 {
    let list =
        |operations: &[pb::RequestOp]| operations.iter().map(operation_cost_bytes).sum::<u64>();
    list(&request.success).max(list(&request.failure))
}

fn operation_cost_bytes(operation: &pb::RequestOp) -> u64 {
    match &operation.request {
        Some(Request::RequestPut(put)) => put_cost_bytes(put),
        Some(Request::RequestTxn(txn)) => txn_cost_bytes(txn),
        _ => 0,
    }
}

/// Whether a request of this cost fits into a database of this size; what costs nothing always does. A negative
/// quota is none.
pub fn fits_quota(size_bytes: u64, cost_bytes: u64, quota_bytes: i64) -> bool {
    match u64::try_from(quota_bytes) {
        Ok(quota_bytes) => cost_bytes == 0 || size_bytes.saturating_add(cost_bytes) < quota_bytes,
        Err(_) => true,
    }
}
