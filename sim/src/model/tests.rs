//! The model against what etcd documents of revisions, transactions, compaction and leases.

use quorate_core::boundary::Response;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op;

use super::*;

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..pb::PutRequest::default()
    }
}

fn delete(key: &'static str, range_end: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: false,
    }
}

fn range(key: &'static str, range_end: &'static str, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        revision,
        ..pb::RangeRequest::default()
    }
}

fn apply(model: &mut Model, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Applied {
    let mut request = pb::InternalRaftRequest::default();
    fill(&mut request);
    model.apply_request(1, &request)
}

fn filled() -> Model {
    let mut model = Model::new(2);
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        apply(&mut model, |request| request.put = Some(put(key, value))).unwrap();
    }
    model
}

#[test]
fn versions_and_revisions_count_as_in_etcd() {
    let model = filled();
    assert_eq!(model.revision(), 4);
    let a = model.get(b"a", 4).unwrap();
    assert_eq!((a.create_revision, a.mod_revision, a.version), (2, 4, 2));
    assert_eq!(model.get(b"a", 3).unwrap().value, "1");
    assert_eq!(model.get(b"b", 2), None);
    assert_eq!(model.changes_from(3).len(), 2);
    assert_eq!(model.changes_from(5), []);
}

#[test]
fn deleting_nothing_is_no_revision() {
    let mut model = filled();
    apply(&mut model, |request| {
        request.delete_range = Some(delete("x", ""))
    })
    .unwrap();
    assert_eq!(model.revision(), 4);
    apply(&mut model, |request| {
        request.delete_range = Some(delete("a", "z"))
    })
    .unwrap();
    assert_eq!(model.revision(), 5);
    let deleted: Vec<_> = model
        .changes_from(5)
        .iter()
        .map(|change| &change.kv.key)
        .collect();
    assert_eq!(deleted, ["a", "b"]);
    assert_eq!(model.range(&range("a", "z", 0), 5, -1).unwrap().count, 0);
    assert_eq!(model.range(&range("a", "z", 4), 5, -1).unwrap().count, 2);
}

#[test]
fn a_transaction_is_one_revision_and_sees_itself() {
    let mut model = filled();
    let compare = pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: "a".into(),
        target_union: Some(TargetUnion::Version(2)),
        ..pb::Compare::default()
    };
    let operation = |request| pb::RequestOp {
        request: Some(request),
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            operation(Request::RequestRange(range("c", "", 0))),
            operation(Request::RequestPut(put("c", "4"))),
            operation(Request::RequestRange(range("c", "", 0))),
        ],
        failure: Vec::new(),
    };
    let Ok(Response::Txn(response)) = apply(&mut model, |request| request.txn = Some(txn)) else {
        panic!("a transaction is answered as one");
    };
    assert!(response.succeeded);
    assert_eq!(response.header.unwrap().revision, 5);
    let seen: Vec<_> = response
        .responses
        .iter()
        .filter_map(|operation| match operation.response.as_ref()? {
            response_op::Response::ResponseRange(range) => {
                Some((range.header.as_ref()?.revision, range.count))
            }
            _ => None,
        })
        .collect();
    assert_eq!(seen, [(4, 0), (5, 1)]);
}

#[test]
fn a_compaction_forbids_what_lies_below_it() {
    let mut model = filled();
    let compaction = |revision| pb::CompactionRequest {
        revision,
        physical: false,
    };
    let compact = |model: &mut Model, revision| {
        apply(model, |request| {
            request.compaction = Some(compaction(revision))
        })
        .map(drop)
    };
    assert_eq!(compact(&mut model, 9), Err(RequestError::FutureRev));
    assert_eq!(compact(&mut model, 3), Ok(()));
    assert_eq!(compact(&mut model, 3), Err(RequestError::Compacted));
    let read = |revision| {
        model
            .range(&range("a", "", revision), 4, model.compacted())
            .map(drop)
    };
    assert_eq!(read(2), Err(RequestError::Compacted));
    assert_eq!(read(3), Ok(()));
    assert_eq!(read(5), Err(RequestError::FutureRev));
}

#[test]
fn a_revoked_lease_takes_its_keys_in_one_revision() {
    let mut model = filled();
    let grant = pb::LeaseGrantRequest { ttl: 1, id: 7 };
    let granted = apply(&mut model, |request| request.lease_grant = Some(grant));
    assert!(matches!(granted, Ok(Response::LeaseGrant(grant)) if grant.ttl == 2));
    for key in ["y", "x", "a"] {
        let put = pb::PutRequest {
            lease: 7,
            ..put(key, "")
        };
        apply(&mut model, |request| request.put = Some(put)).unwrap();
    }
    apply(&mut model, |request| {
        request.put = Some(put("a", "free again"))
    })
    .unwrap();
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    apply(&mut model, |request| request.lease_revoke = Some(revoke)).unwrap();
    let gone: Vec<_> = model
        .changes_from(9)
        .iter()
        .map(|change| &change.kv.key)
        .collect();
    assert_eq!(gone, ["x", "y"]);
    assert_eq!(model.revision(), 9);
    let late = pb::PutRequest {
        lease: 7,
        ..put("z", "")
    };
    let refused = apply(&mut model, |request| request.put = Some(late));
    assert_eq!(refused, Err(RequestError::LeaseNotFound));
}
