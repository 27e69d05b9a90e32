//! Quotas: a member without room for a request refuses it, and one with room does not say that it has none.
//!
//! What a request takes, and what a database holds at least, are counted here by themselves, so that a member that
//! counts wrongly is seen as well as one that does not ask.

use quorate_core::types::MemberId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use super::{Facts, Violation};

/// What etcd counts for a put beside its key and its value.
const PUT_BYTES: u64 = 256;
/// What it counts for a lease.
const LEASE_BYTES: u64 = 64;

/// How much a member's database may hold, and how much there was of it.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The quota.
    pub quota_bytes: u64,
    /// What the database held when the request came to the member.
    pub came_bytes: u64,
    /// What it held at least when the member applied the request, where that is known.
    pub applied_bytes: Option<u64>,
}

/// A request was answered with success.
pub fn check_done(
    facts: &mut Facts,
    member: MemberId,
    request: &pb::InternalRaftRequest,
    room: Room,
) -> Result<(), Violation> {
    let cost_bytes = cost_bytes(request);
    if cost_bytes == 0 {
        return Ok(());
    }
    let quota_bytes = room.quota_bytes;
    let mut check = |when: &str, bytes: u64| {
        let fits = bytes + cost_bytes < quota_bytes;
        facts.expect("quota.refused", fits, || {
            format!(
                "{member:?} takes {cost_bytes} bytes, its database had {bytes} of {quota_bytes} when the request {when}"
            )
        })
    };
    check("came", room.came_bytes)?;
    match room.applied_bytes {
        Some(bytes) => check("was applied", bytes),
        None => Ok(()),
    }
}

/// A member says that there is no space for a request that was done; its database held no more than `peak_bytes` when it
/// applied that.
pub fn check_no_space(
    facts: &mut Facts,
    member: MemberId,
    request: &pb::InternalRaftRequest,
    peak_bytes: u64,
    quota_bytes: u64,
) -> Result<(), Violation> {
    let cost_bytes = cost_bytes(request);
    let is_over = cost_bytes > 0 && peak_bytes + cost_bytes >= quota_bytes;
    facts.expect("quota.space", is_over, || {
        format!(
            "{member:?} has no space for {request:?}, its database has {peak_bytes} of {quota_bytes} bytes"
        )
    })
}

/// The size that a member goes by is no less than that of an empty database and the keys and values that it holds.
pub fn check_size(
    facts: &mut Facts,
    member: MemberId,
    (size_bytes, empty_bytes): (u64, u64),
    kvs: &[quorate_proto::mvccpb::KeyValue],
) -> Result<(), Violation> {
    let held_bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let least_bytes = empty_bytes + held_bytes as u64;
    facts.expect("quota.refused", size_bytes >= least_bytes, || {
        format!("{member:?} counts {size_bytes} bytes, with its keys and values it has {least_bytes} at least")
    })
}

/// What a request takes, as etcd counts it: of a transaction the list that takes more.
pub fn cost_bytes(request: &pb::InternalRaftRequest) -> u64 {
    let put = request.put.as_ref().map_or(0, cost_of_put);
    let txn = request.txn.as_ref().map_or(0, cost_of_txn);
    let grant = request.lease_grant.as_ref().map_or(0, |_| LEASE_BYTES);
    put + txn + grant
}

fn cost_of_put(put: &pb::PutRequest) -> u64 {
    PUT_BYTES + put.key.len() as u64 + put.value.len() as u64
}

fn cost_of_txn(txn: &pb::TxnRequest) -> u64 {
    let lists = [&txn.success, &txn.failure].map(|list| {
        let costs = list.iter().map(|operation| match &operation.request {
            Some(Request::RequestPut(put)) => cost_of_put(put),
            Some(Request::RequestTxn(txn)) => cost_of_txn(txn),
            _ => 0,
        });
        costs.sum::<u64>()
    });
    lists[0].max(lists[1])
}

#[cfg(test)]
mod tests {
    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    fn put(value: &'static [u8]) -> pb::PutRequest {
        pb::PutRequest {
            key: "k".into(),
            value: value.into(),
            ..pb::PutRequest::default()
        }
    }

    fn request(put: pb::PutRequest) -> pb::InternalRaftRequest {
        pb::InternalRaftRequest {
            put: Some(put),
            ..pb::InternalRaftRequest::default()
        }
    }

    #[test]
    fn a_put_over_the_quota_that_is_done_is_seen() {
        let mut facts = Facts::new();
        let mut check = |came_bytes, applied_bytes| {
            let room = Room {
                quota_bytes: 1000,
                came_bytes,
                applied_bytes,
            };
            let done = check_done(&mut facts, MemberId(1), &request(put(b"v")), room);
            done.map_err(|violation| violation.property)
        };
        // It takes 258 bytes.
        assert_eq!(check(741, None), Ok(()));
        assert_eq!(check(741, Some(741)), Ok(()));
        assert_eq!(check(742, None), Err("quota.refused"));
        assert_eq!(check(0, Some(742)), Err("quota.refused"));
        assert!(facts.iter().any(|fact| fact == ("quota.refused", 6)));
    }

    #[test]
    fn what_takes_no_space_is_done_over_the_quota() {
        let mut facts = Facts::new();
        let room = Room {
            quota_bytes: 1000,
            came_bytes: 5000,
            applied_bytes: Some(5000),
        };
        let delete = pb::InternalRaftRequest {
            delete_range: Some(pb::DeleteRangeRequest::default()),
            ..pb::InternalRaftRequest::default()
        };
        check_done(&mut facts, MemberId(1), &delete, room).unwrap();
        assert!(facts.iter().any(|fact| fact == ("quota.refused", 0)));
    }

    #[test]
    fn a_refusal_with_room_left_is_seen() {
        let mut facts = Facts::new();
        let mut check = |peak_bytes, request| {
            check_no_space(&mut facts, MemberId(1), request, peak_bytes, 1000).is_ok()
        };
        let (some, nothing) = (request(put(b"v")), pb::InternalRaftRequest::default());
        assert!(check(742, &some));
        assert!(!check(741, &some));
        assert!(!check(5000, &nothing), "nothing needs no space");
    }

    #[test]
    fn a_database_that_counts_less_than_it_holds_is_seen() {
        let kv = KeyValue {
            key: "key".into(),
            value: "value".into(),
            ..KeyValue::default()
        };
        let mut facts = Facts::new();
        let kvs = [kv];
        check_size(&mut facts, MemberId(1), (108, 100), &kvs).unwrap();
        assert!(check_size(&mut facts, MemberId(1), (107, 100), &kvs).is_err());
    }

    #[test]
    fn of_a_transaction_the_dearer_list_counts_nested_ones_included() {
        let operation = |request| pb::RequestOp {
            request: Some(request),
        };
        let inner = pb::TxnRequest {
            success: vec![operation(Request::RequestPut(put(b"1234")))],
            ..pb::TxnRequest::default()
        };
        let txn = pb::TxnRequest {
            success: vec![operation(Request::RequestPut(put(b"")))],
            failure: vec![
                operation(Request::RequestTxn(inner)),
                operation(Request::RequestRange(pb::RangeRequest::default())),
            ],
            ..pb::TxnRequest::default()
        };
        let txn = pb::InternalRaftRequest {
            txn: Some(txn),
            ..pb::InternalRaftRequest::default()
        };
        assert_eq!(cost_bytes(&txn), 261);
        let grant = pb::InternalRaftRequest {
            lease_grant: Some(pb::LeaseGrantRequest::default()),
            ..pb::InternalRaftRequest::default()
        };
        assert_eq!(cost_bytes(&grant), 64);
    }
}
