//! Applying what changes keys: puts, deletions, transactions, compactions, and the end of a lease.
//!
//! Each is a pure function of store, leases and request, the same on every member. Whatever can be refused is refused
//! before the first write. Only the member whose client waits needs the answer; [`Answer::Unwanted`] lets the
//! others skip what would be read for it, never what is checked.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::mvccpb::KeyValue;

use crate::error::RequestError;
use crate::lease::Lessor;
use crate::mvcc::{Store, WriteTxn};
use crate::types::{LeaseId, Revision};

/// Whether anybody here waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A client of this member waits.
    Wanted,
    /// The answer is dropped: it may lack keys that were only to be shown.
    Unwanted,
}

/// Applies a put.
pub fn put(
    store: &mut Store,
    lessor: &mut Lessor,
    request: &pb::PutRequest,
) -> Result<pb::PutResponse, RequestError> {
    let previous = check_put(store, lessor, request)?;
    let mut txn = store.begin();
    let response = put_in(&mut txn, lessor, request, previous);
    txn.end();
    Ok(response)
}

/// Applies a deletion.
pub fn delete_range(
    store: &mut Store,
    lessor: &mut Lessor,
    request: &pb::DeleteRangeRequest,
    answer: Answer,
) -> Result<pb::DeleteRangeResponse, RequestError> {
    let mut txn = store.begin();
    let response = delete_range_in(&mut txn, lessor, request, answer)?;
    txn.end();
    Ok(response)
}

/// Applies a transaction. All compares, also those of nested transactions, and all checks of the path they choose
/// are made on the state before; then nothing can fail any more.
pub fn txn(
    store: &mut Store,
    lessor: &mut Lessor,
    request: &pb::TxnRequest,
    answer: Answer,
) -> Result<pb::TxnResponse, RequestError> {
    let path = choose(store, request);
    check_path(store, lessor, &path)?;
    let mut txn = store.begin();
    let mut response = run(&mut txn, lessor, &path, answer)?;
    let revision = txn.end();
    response.header = Some(header(revision));
    Ok(response)
}

/// Applies a compaction: reads below it are refused from now on. The rows go step by step later.
pub fn compact(
    store: &mut Store,
    request: &pb::CompactionRequest,
) -> Result<pb::CompactionResponse, RequestError> {
    store.compact(Revision(request.revision))?;
    Ok(pb::CompactionResponse {
        header: Some(header(store.revision())),
    })
}

/// Deletes the keys of an ended lease, in byte order and in one revision; returns the revision of the store, which
/// is the old one if none of the keys exists.
pub fn delete_leased_keys(
    store: &mut Store,
    lessor: &mut Lessor,
    mut keys: Vec<Bytes>,
) -> Revision {
    keys.sort_unstable();
    let mut txn = store.begin();
    for key in &keys {
        txn.delete_range(key, &[], |key, lease| detach(lessor, lease, key));
    }
    txn.end()
}

/// The checks of a put, and the key as it is before if the put needs it.
fn check_put(
    store: &Store,
    lessor: &Lessor,
    request: &pb::PutRequest,
) -> Result<Option<KeyValue>, RequestError> {
    if request.lease != 0 && !lessor.contains(LeaseId(request.lease)) {
        return Err(RequestError::LeaseNotFound);
    }
    let needs_previous = request.ignore_value || request.ignore_lease;
    let previous = if needs_previous || request.prev_kv {
        store.get(&request.key)
    } else {
        None
    };
    if needs_previous && previous.is_none() {
        return Err(RequestError::KeyNotFound);
    }
    Ok(previous)
}

fn put_in(
    txn: &mut WriteTxn<'_>,
    lessor: &mut Lessor,
    request: &pb::PutRequest,
    previous: Option<KeyValue>,
) -> pb::PutResponse {
    // The key may be gone if an operation before deleted it (checks see the state before). etcd dies of that; here
    // what is to be kept is then empty.
    let kept = previous.clone().unwrap_or_default();
    let value = if request.ignore_value {
        &kept.value
    } else {
        &request.value
    };
    let lease = LeaseId(if request.ignore_lease {
        kept.lease
    } else {
        request.lease
    });
    let old_lease = txn.put(&request.key, value, lease);
    if old_lease != lease {
        detach(lessor, old_lease, &request.key);
    }
    // Even if it is the old one: a restored key may name a lease that did not exist then. One that does not exist now
    // (only an old lease that is kept can be such) is left alone.
    if lease.0 != 0 {
        lessor.attach(lease, &request.key);
    }
    pb::PutResponse {
        header: Some(header(txn.revision())),
        prev_kv: previous.filter(|_| request.prev_kv),
    }
}

fn delete_range_in(
    txn: &mut WriteTxn<'_>,
    lessor: &mut Lessor,
    request: &pb::DeleteRangeRequest,
    answer: Answer,
) -> Result<pb::DeleteRangeResponse, RequestError> {
    let mut prev_kvs = Vec::new();
    if request.prev_kv && answer == Answer::Wanted {
        let range = pb::RangeRequest {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            ..pb::RangeRequest::default()
        };
        prev_kvs = txn.range(&range)?.kvs;
    }
    let deleted = txn.delete_range(&request.key, &request.range_end, |key, lease| {
        detach(lessor, lease, key)
    });
    Ok(pb::DeleteRangeResponse {
        header: Some(header(txn.revision())),
        deleted,
        prev_kvs,
    })
}

/// The operations of a transaction that its compares have chosen.
#[derive(Debug)]
struct Path<'a> {
    succeeded: bool,
    operations: Vec<Operation<'a>>,
}

#[derive(Debug)]
enum Operation<'a> {
    Range(&'a pb::RangeRequest),
    Put(&'a pb::PutRequest),
    DeleteRange(&'a pb::DeleteRangeRequest),
    Txn(Path<'a>),
}

fn choose<'a>(store: &Store, request: &'a pb::TxnRequest) -> Path<'a> {
    let succeeded = store.all_hold(&request.compare);
    let list = if succeeded {
        &request.success
    } else {
        &request.failure
    };
    // An operation without a request was refused by the API.
    let requests = list
        .iter()
        .filter_map(|operation| operation.request.as_ref());
    let operations = requests.map(|request| match request {
        Request::RequestRange(range) => Operation::Range(range),
        Request::RequestPut(put) => Operation::Put(put),
        Request::RequestDeleteRange(delete) => Operation::DeleteRange(delete),
        Request::RequestTxn(txn) => Operation::Txn(choose(store, txn)),
    });
    Path {
        succeeded,
        operations: operations.collect(),
    }
}

fn check_path(store: &Store, lessor: &Lessor, path: &Path<'_>) -> Result<(), RequestError> {
    for operation in &path.operations {
        match operation {
            Operation::Range(range) => store.check_txn_range(range)?,
            Operation::Put(put) => drop(check_put(store, lessor, put)?),
            Operation::DeleteRange(_) => {}
            Operation::Txn(path) => check_path(store, lessor, path)?,
        }
    }
    Ok(())
}

fn run(
    txn: &mut WriteTxn<'_>,
    lessor: &mut Lessor,
    path: &Path<'_>,
    answer: Answer,
) -> Result<pb::TxnResponse, RequestError> {
    let mut responses = Vec::with_capacity(path.operations.len());
    for operation in &path.operations {
        let response = match operation {
            Operation::Range(_) if answer == Answer::Unwanted => {
                let header = Some(header(txn.revision()));
                Response::ResponseRange(pb::RangeResponse {
                    header,
                    ..pb::RangeResponse::default()
                })
            }
            Operation::Range(range) => Response::ResponseRange(txn.range(range)?),
            Operation::Put(put) => {
                let needs_previous = put.ignore_value || put.ignore_lease || put.prev_kv;
                let previous = if needs_previous {
                    txn.get(&put.key)
                } else {
                    None
                };
                Response::ResponsePut(put_in(txn, lessor, put, previous))
            }
            Operation::DeleteRange(delete) => {
                Response::ResponseDeleteRange(delete_range_in(txn, lessor, delete, answer)?)
            }
            Operation::Txn(path) => Response::ResponseTxn(run(txn, lessor, path, answer)?),
        };
        responses.push(pb::ResponseOp {
            response: Some(response),
        });
    }
    // The headers of nested answers stay zero; the outer one gets its revision at the end.
    Ok(pb::TxnResponse {
        header: Some(header(Revision(0))),
        succeeded: path.succeeded,
        responses,
    })
}

fn detach(lessor: &mut Lessor, lease: LeaseId, key: &[u8]) {
    if lease.0 != 0 {
        lessor.detach(lease, key);
    }
}

fn header(revision: Revision) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision: revision.0,
        ..pb::ResponseHeader::default()
    }
}
