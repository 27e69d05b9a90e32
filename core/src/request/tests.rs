//! One test a rule.

use quorate_proto::etcdserverpb as pb;

use super::*;

fn put(key: &str) -> pb::RequestOp {
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        ..pb::PutRequest::default()
    };
    pb::RequestOp {
        request: Some(Request::RequestPut(put)),
    }
}

fn delete(key: &str, range_end: &str) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    };
    pb::RequestOp {
        request: Some(Request::RequestDeleteRange(delete)),
    }
}

fn get(key: &str) -> pb::RequestOp {
    let range = pb::RangeRequest {
        key: key.to_owned().into(),
        ..pb::RangeRequest::default()
    };
    pb::RequestOp {
        request: Some(Request::RequestRange(range)),
    }
}

fn nested(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(Request::RequestTxn(txn(success, failure))),
    }
}

fn txn(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success,
        failure,
        ..pb::TxnRequest::default()
    }
}

fn check(success: Vec<pb::RequestOp>) -> Result<(), RequestError> {
    check_txn(&txn(success, vec![]), 128)
}

#[test]
fn empty_keys_are_refused_everywhere() {
    assert_eq!(
        check_range(&pb::RangeRequest::default()),
        Err(RequestError::EmptyKey)
    );
    assert_eq!(
        check_put(&pb::PutRequest::default()),
        Err(RequestError::EmptyKey)
    );
    assert_eq!(
        check_delete_range(&pb::DeleteRangeRequest::default()),
        Err(RequestError::EmptyKey)
    );
    for operation in [
        put(""),
        delete("", "z"),
        get(""),
        nested(vec![get("")], vec![]),
    ] {
        assert_eq!(
            check_txn(&txn(vec![], vec![operation]), 128),
            Err(RequestError::EmptyKey)
        );
    }
    let compare = pb::TxnRequest {
        compare: vec![pb::Compare::default()],
        ..pb::TxnRequest::default()
    };
    assert_eq!(check_txn(&compare, 128), Err(RequestError::EmptyKey));
}

#[test]
fn unknown_sort_numbers_are_refused() {
    let range = |sort_order, sort_target| pb::RangeRequest {
        key: "k".into(),
        sort_order,
        sort_target,
        ..pb::RangeRequest::default()
    };
    assert_eq!(check_range(&range(2, 4)), Ok(()));
    assert_eq!(
        check_range(&range(3, 0)),
        Err(RequestError::InvalidSortOption)
    );
    assert_eq!(
        check_range(&range(0, 5)),
        Err(RequestError::InvalidSortOption)
    );
    assert_eq!(
        check_range_stream(&range(0, 4)),
        Ok(()),
        "no order is no custom order"
    );
    assert_eq!(check_range_stream(&range(1, 0)), Ok(()));
    let refused = |request| {
        check_range_stream(&request)
            .expect_err("not streamed")
            .message()
            .to_owned()
    };
    assert_eq!(
        refused(range(2, 0)),
        "RangeStream does not support custom sort orders"
    );
    let filtered = pb::RangeRequest {
        min_mod_revision: 1,
        ..range(0, 0)
    };
    assert_eq!(
        refused(filtered),
        "RangeStream does not support revision filters"
    );
}

#[test]
fn what_is_kept_must_not_be_given() {
    let put = pb::PutRequest {
        key: "k".into(),
        value: "v".into(),
        lease: 1,
        ..pb::PutRequest::default()
    };
    assert_eq!(
        check_put(&pb::PutRequest {
            ignore_value: true,
            ..put.clone()
        }),
        Err(RequestError::ValueProvided)
    );
    assert_eq!(
        check_put(&pb::PutRequest {
            ignore_lease: true,
            ..put.clone()
        }),
        Err(RequestError::LeaseProvided)
    );
    assert_eq!(check_put(&put), Ok(()));
}

#[test]
fn operation_without_request_is_key_not_found() {
    assert_eq!(
        check(vec![pb::RequestOp::default()]),
        Err(RequestError::KeyNotFound)
    );
}

#[test]
fn nested_txns_have_what_the_parent_leaves_of_the_allowance() {
    let gets = |count| vec![get("k"); count];
    assert_eq!(check_txn(&txn(gets(4), vec![]), 4), Ok(()));
    assert_eq!(
        check_txn(&txn(vec![], gets(5)), 4),
        Err(RequestError::TooManyOps)
    );
    assert_eq!(
        check_txn(&txn(vec![nested(gets(3), vec![])], vec![]), 4),
        Ok(())
    );
    assert_eq!(
        check_txn(&txn(vec![nested(gets(4), vec![])], vec![]), 4),
        Err(RequestError::TooManyOps)
    );
    // The longest list of the parent counts, whichever it is.
    assert_eq!(
        check_txn(&txn(vec![nested(gets(3), vec![])], gets(2)), 4),
        Err(RequestError::TooManyOps)
    );
}

#[test]
fn key_is_put_once_and_not_where_it_is_deleted() {
    let duplicate = Err(RequestError::DuplicateKey);
    assert_eq!(check(vec![put("a"), put("b")]), Ok(()));
    assert_eq!(check(vec![put("a"), put("a")]), duplicate);
    assert_eq!(check(vec![put("b"), delete("a", "c")]), duplicate);
    assert_eq!(
        check(vec![delete("a", "c"), put("c")]),
        Ok(()),
        "the end is exclusive"
    );
    assert_eq!(check(vec![delete("b", ""), put("b")]), duplicate);
    assert_eq!(check(vec![delete("b", ""), put("b\0")]), Ok(()));
    assert_eq!(
        check(vec![delete("a", "d"), delete("b", "z"), delete("c", "")]),
        Ok(()),
        "deletions may overlap"
    );
    assert_eq!(
        check_txn(&txn(vec![put("a")], vec![put("a")]), 128),
        Ok(()),
        "only one list is done"
    );
    assert_eq!(
        check_txn(&txn(vec![], vec![put("a"), put("a")]), 128),
        duplicate
    );
}

#[test]
fn nested_changes_count_into_the_parents() {
    let duplicate = Err(RequestError::DuplicateKey);
    assert_eq!(
        check(vec![nested(vec![put("a")], vec![put("a")])]),
        Ok(()),
        "only one list is done"
    );
    assert_eq!(
        check(vec![nested(vec![put("a")], vec![]), put("a")]),
        duplicate
    );
    assert_eq!(
        check(vec![
            nested(vec![put("a")], vec![]),
            nested(vec![], vec![put("a")])
        ]),
        duplicate
    );
    assert_eq!(
        check(vec![nested(vec![put("a")], vec![]), delete("a", "")]),
        duplicate
    );
    assert_eq!(
        check(vec![nested(vec![delete("a", "")], vec![]), put("a")]),
        duplicate
    );
    assert_eq!(
        check(vec![
            nested(vec![delete("a", "")], vec![]),
            nested(vec![put("a")], vec![])
        ]),
        duplicate
    );
    assert_eq!(
        check(vec![nested(
            vec![nested(vec![put("a"), put("a")], vec![])],
            vec![]
        )]),
        duplicate
    );
}

#[test]
fn quirks_of_etcds_overlap_check_are_kept() {
    // A deletion without an end is not seen to cover anything.
    assert_eq!(check(vec![delete("a", "\0"), put("b")]), Ok(()));
    // A nested deletion after the nested put it hits is not seen.
    assert_eq!(
        check(vec![
            nested(vec![put("a")], vec![]),
            nested(vec![delete("a", "")], vec![])
        ]),
        Ok(())
    );
    // The failure list of a nested transaction may put and the success list delete.
    assert_eq!(
        check(vec![nested(vec![delete("a", "")], vec![put("a")])]),
        Ok(())
    );
}

#[test]
fn reads_are_told_from_writes_by_the_top_level() {
    assert!(is_read_only(&txn(vec![get("a")], vec![get("b")])));
    assert!(!is_read_only(&txn(vec![get("a")], vec![put("b")])));
    assert!(!is_read_only(&txn(vec![nested(vec![], vec![])], vec![])));
    assert!(is_read_only(&txn(vec![], vec![])) && is_serializable(&txn(vec![], vec![])));
    assert!(!is_serializable(&txn(vec![get("a")], vec![])));
}

#[test]
fn cost_is_that_of_the_dearer_list() {
    let one = txn_cost_bytes(&txn(vec![put("k")], vec![]));
    assert_eq!(one, 257);
    assert_eq!(
        txn_cost_bytes(&txn(
            vec![nested(vec![put("k")], vec![]), put("l")],
            vec![put("m")]
        )),
        2 * one
    );
    assert_eq!(
        txn_cost_bytes(&txn(vec![delete("a", "b"), get("c")], vec![])),
        0
    );
    assert!(fits_quota(100, 10, 111) && !fits_quota(100, 10, 110));
    assert!(fits_quota(1000, 0, 10), "what costs nothing always fits");
    assert!(fits_quota(u64::MAX, 10, -1), "a negative quota is none");
}
