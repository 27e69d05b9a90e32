//! The Lock and Election services: both are a queue of keys below a name.
//!
//! A **place** is the key `NAME/LEASE`, the lease in hexadecimal. The place that was made first holds the lock, or leads;
//! the others wait until all that are older are gone. A place ends with its lease, or when it is deleted. Everything goes
//! through the same calls as a client's own, in the name of the caller.
//!
//! etcd answers every error of these services with the code Unknown, whatever went wrong; so does this.

mod election;
mod lock;
mod watching;

use bytes::Bytes;
use quorate_core::auth::Identity;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::mvccpb::KeyValue;
use tonic::Status;

pub(super) use self::election::Election;
pub(super) use self::lock::Lock;
use self::watching::Watching;
use super::caller::Caller;
use super::propose::propose_unheard;
use super::{kv, lease, mismatch, status};
use crate::io::core;

/// Seconds of a lease that is granted because the caller brought none; etcd's value.
const SESSION_TTL: i64 = 60;

/// The error as these services show it.
fn unknown(error: Status) -> Status {
    Status::unknown(error.message())
}

/// The lease that a place hangs on: the caller's, or a new one.
async fn session(caller: &Caller, lease: i64) -> Result<i64, Status> {
    if lease != 0 {
        return Ok(lease);
    }
    caller.require_user().await?;
    let grant = pb::LeaseGrantRequest {
        ttl: SESSION_TTL,
        id: 0,
    };
    Ok(lease::grant_for(caller, grant).await?.id)
}

/// What stands before the lease in the keys of a queue.
fn prefix_of(name: &[u8]) -> Bytes {
    Bytes::from([name, b"/"].concat())
}

/// The end of a queue's keys: its prefix ends with a slash, and `0` is the byte after that.
fn end_of(prefix: &Bytes) -> Bytes {
    Bytes::from([&prefix[..prefix.len() - 1], b"0"].concat())
}

/// A place in a queue. Unless it is kept, it is given up when it is dropped: so it ends with the call that waits in it.
struct Place {
    key: Bytes,
    /// The revision that made it.
    created: i64,
    who: Identity,
    is_kept: bool,
}

impl Place {
    async fn new(caller: &Caller, key: Bytes, created: i64) -> Result<Self, Status> {
        let who = caller.identity().await.map_err(|error| status(&error))?;
        Ok(Self {
            key,
            created,
            who: who.unwrap_or_default(),
            is_kept: false,
        })
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let leave = if_created_at(
            &self.key,
            self.created,
            vec![delete(self.key.clone())],
            Vec::new(),
        );
        let who = std::mem::take(&mut self.who);
        core::if_alive(|_| {
            propose_unheard(who, |internal| internal.txn = Some(leave));
        });
    }
}

/// The place of a lease in a queue: its key, and the key's value before.
struct Taken {
    key: Bytes,
    header: Option<pb::ResponseHeader>,
    created: i64,
    /// The value of a place that the lease had already.
    value_before: Option<Bytes>,
    /// The revision that made the first place of the queue.
    first_created: i64,
}

/// Takes a place for this lease at the end of the queue, or finds the one that it has.
async fn take_place(
    caller: &Caller,
    prefix: &Bytes,
    lease: i64,
    value: Bytes,
) -> Result<Taken, Status> {
    let key = Bytes::from([prefix, hexadecimal(lease).as_bytes()].concat());
    let first = pb::RangeRequest {
        limit: 1,
        ..places(prefix, pb::range_request::SortOrder::Ascend)
    };
    let own = pb::RangeRequest {
        key: key.clone(),
        ..Default::default()
    };
    let enter = pb::PutRequest {
        key: key.clone(),
        value,
        lease,
        ..Default::default()
    };
    let txn = if_created_at(
        &key,
        0,
        vec![operation(Request::RequestPut(enter)), range(first.clone())],
        vec![range(own), range(first)],
    );
    let response = kv::txn_for(caller, txn).await?;
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let mut results = response.responses.into_iter();
    let mut next_kv = || match results.next()?.response? {
        pb::response_op::Response::ResponseRange(found) => found.kvs.into_iter().next(),
        _ => None,
    };
    let before: Option<KeyValue> = next_kv();
    let first = next_kv().ok_or_else(mismatch)?;
    let (created, value_before) = match before {
        Some(own) if !response.succeeded => (own.create_revision, Some(own.value)),
        _ => (revision, None),
    };
    Ok(Taken {
        key,
        header: response.header,
        created,
        value_before,
        first_created: first.create_revision,
    })
}

/// Waits until every place is gone that was made before this revision.
async fn wait_for_older(caller: &Caller, prefix: &Bytes, created: i64) -> Result<(), Status> {
    loop {
        let newest_older = pb::RangeRequest {
            limit: 1,
            max_create_revision: created - 1,
            ..places(prefix, pb::range_request::SortOrder::Descend)
        };
        let found = kv::range_for(caller, newest_older).await?;
        let Some(ahead) = found.kvs.into_iter().next() else {
            return Ok(());
        };
        let revision = found.header.map_or(0, |header| header.revision);
        Watching::key(ahead.key, revision).deleted().await;
    }
}

/// The places of a queue by the time they were made.
fn places(prefix: &Bytes, order: pb::range_request::SortOrder) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        sort_order: order.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..Default::default()
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn range(range: pb::RangeRequest) -> pb::RequestOp {
    operation(Request::RequestRange(range))
}

fn delete(key: Bytes) -> pb::RequestOp {
    operation(Request::RequestDeleteRange(pb::DeleteRangeRequest {
        key,
        ..Default::default()
    }))
}

/// A transaction on whether this revision made a key; 0 is that there is none.
fn if_created_at(
    key: &Bytes,
    created: i64,
    success: Vec<pb::RequestOp>,
    failure: Vec<pb::RequestOp>,
) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Create.into(),
            key: key.clone(),
            target_union: Some(pb::compare::TargetUnion::CreateRevision(created)),
            ..Default::default()
        }],
        success,
        failure,
    }
}

/// As Go writes it: a negative number with its sign.
fn hexadecimal(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{:x}", number.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_written_as_go_writes_them() {
        for (lease, text) in [(7, "7"), (0x694d_77aa, "694d77aa"), (-255, "-ff")] {
            assert_eq!(hexadecimal(lease), text);
        }
        assert_eq!(hexadecimal(i64::MIN), "-8000000000000000");
    }
}
