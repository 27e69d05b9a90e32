//! One test a rule.

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::*;
use crate::types::Time;

#[derive(Default)]
struct State {
    store: Store,
    lessor: Lessor,
}

impl State {
    fn with_lease(id: i64) -> Self {
        let mut state = Self {
            store: Store::new(),
            lessor: Lessor::default(),
        };
        state.grant(id);
        state
    }

    fn grant(&mut self, id: i64) {
        self.lessor
            .grant(Time(0).after(Duration::ZERO), LeaseId(id), 60)
            .expect("a new lease");
    }

    fn put(&mut self, request: pb::PutRequest) -> Result<pb::PutResponse, RequestError> {
        put(&mut self.store, &mut self.lessor, &request)
    }

    fn delete(&mut self, key: &str, range_end: &str) -> pb::DeleteRangeResponse {
        let request = pb::DeleteRangeRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            prev_kv: true,
        };
        delete_range(&mut self.store, &mut self.lessor, &request, Answer::Wanted)
            .expect("deletions are not refused")
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<pb::TxnResponse, RequestError> {
        txn(&mut self.store, &mut self.lessor, request, Answer::Wanted)
    }

    fn value(&self, key: &str) -> Option<String> {
        let kv = self.store.get(key.as_bytes())?;
        Some(String::from_utf8_lossy(&kv.value).into_owned())
    }

    fn leased(&self, id: i64) -> Vec<Vec<u8>> {
        self.lessor.keys(LeaseId(id)).map(<[u8]>::to_vec).collect()
    }
}

fn put_request(key: &str, value: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        lease,
        ..pb::PutRequest::default()
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn op_put(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(put_request(key, value, 0)))
}

fn op_get(key: &str, revision: i64) -> pb::RequestOp {
    let range = pb::RangeRequest {
        key: key.to_owned().into(),
        revision,
        ..pb::RangeRequest::default()
    };
    op(Request::RequestRange(range))
}

fn op_delete(key: &str, range_end: &'static [u8]) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: Bytes::from_static(range_end),
        prev_kv: false,
    };
    op(Request::RequestDeleteRange(delete))
}

fn compare(
    key: &str,
    target: CompareTarget,
    result: CompareResult,
    union: TargetUnion,
) -> pb::Compare {
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.to_owned().into(),
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

fn success(operations: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest {
        success: operations,
        ..pb::TxnRequest::default()
    }
}

fn header_revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("there is a header").revision
}

#[test]
fn unknown_lease_is_found_before_missing_key() {
    let mut state = State::default();
    let put = pb::PutRequest {
        ignore_value: true,
        ..put_request("k", "", 9)
    };
    assert_eq!(state.put(put.clone()), Err(RequestError::LeaseNotFound));
    assert_eq!(
        state.put(pb::PutRequest { lease: 0, ..put }),
        Err(RequestError::KeyNotFound)
    );
    assert_eq!(state.store.revision(), Revision(1));
}

#[test]
fn ignored_parts_are_kept_and_the_version_rises() {
    let mut state = State::with_lease(7);
    state
        .put(put_request("k", "v", 7))
        .expect("the lease exists");
    state
        .put(pb::PutRequest {
            ignore_lease: true,
            ..put_request("k", "w", 0)
        })
        .expect("the key exists");
    let response = state.put(pb::PutRequest {
        ignore_value: true,
        prev_kv: true,
        ..put_request("k", "", 0)
    });
    let response = response.expect("the key exists");
    let previous = response.prev_kv.expect("asked for");
    assert_eq!(
        (&previous.value[..], previous.lease, previous.version),
        (&b"w"[..], 7, 2)
    );
    assert_eq!(header_revision(&response.header), 4);
    let kv = state.store.get(b"k").expect("put");
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"w"[..], 0, 3));
    assert_eq!(
        state.leased(7),
        Vec::<Vec<u8>>::new(),
        "a put without lease detaches"
    );
}

#[test]
fn leases_follow_their_keys() {
    let mut state = State::with_lease(7);
    state.grant(8);
    state
        .put(put_request("a", "", 7))
        .expect("the lease exists");
    state
        .put(put_request("b", "", 7))
        .expect("the lease exists");
    state
        .put(put_request("a", "", 8))
        .expect("the lease exists");
    assert_eq!(
        (state.leased(7), state.leased(8)),
        (vec![b"b".to_vec()], vec![b"a".to_vec()])
    );
    assert_eq!(state.delete("a", "").deleted, 1);
    assert_eq!(state.leased(8), Vec::<Vec<u8>>::new());
}

#[test]
fn ended_lease_deletes_its_keys_in_byte_order_and_one_revision() {
    let mut state = State::with_lease(7);
    for key in ["b", "c", "a"] {
        state
            .put(put_request(key, "", 7))
            .expect("the lease exists");
    }
    let keys = vec!["c".into(), "a".into(), "b".into(), "gone".into()];
    assert_eq!(
        delete_leased_keys(&mut state.store, &mut state.lessor, keys),
        Revision(5)
    );
    let rows = state.store.view().history((5, 0), 10);
    let deleted: Vec<_> = rows
        .iter()
        .map(|row| (row.sub, &row.key_value[2..]))
        .collect();
    assert_eq!(deleted, [(0, &b"a"[..]), (1, b"b"), (2, b"c")]);
    assert_eq!(state.leased(7), Vec::<Vec<u8>>::new());
    assert_eq!(
        delete_leased_keys(&mut state.store, &mut state.lessor, vec![]),
        Revision(5),
        "no key, no revision"
    );
}

#[test]
fn deleting_nothing_is_no_revision() {
    let mut state = State::default();
    let response = state.delete("a", "z");
    assert_eq!(
        (response.deleted, header_revision(&response.header)),
        (0, 1)
    );
    state.put(put_request("k", "v", 0)).expect("fine");
    let response = state.delete("a", "z");
    assert_eq!(
        (response.deleted, header_revision(&response.header)),
        (1, 3)
    );
    assert_eq!(&response.prev_kvs[0].value[..], b"v");
}

#[test]
fn operations_see_those_before_them_and_headers_say_when() {
    let mut state = State::default();
    state.put(put_request("old", "", 0)).expect("fine");
    let inner = success(vec![op_put("c", "3")]);
    let request = success(vec![
        op_get("a", 0),
        op_delete("absent", b""),
        op_put("a", "1"),
        op_get("a", 0),
        op_delete("absent", b""),
        op(Request::RequestTxn(inner)),
        op_get("old", 2),
    ]);
    let response = state.txn(&request).expect("nothing to refuse");
    assert_eq!(header_revision(&response.header), 3);
    let seen: Vec<_> = response
        .responses
        .iter()
        .map(|response| {
            match response
                .response
                .as_ref()
                .expect("each operation is answered")
            {
                Response::ResponseRange(range) => (header_revision(&range.header), range.kvs.len()),
                Response::ResponsePut(put) => (header_revision(&put.header), 0),
                Response::ResponseDeleteRange(delete) => (header_revision(&delete.header), 0),
                Response::ResponseTxn(txn) => (header_revision(&txn.header), txn.responses.len()),
            }
        })
        .collect();
    assert_eq!(
        seen,
        [(2, 0), (2, 0), (3, 0), (3, 1), (3, 0), (0, 1), (3, 1)]
    );
    let subs: Vec<_> = state
        .store
        .view()
        .history((3, 0), 10)
        .iter()
        .map(|row| row.sub)
        .collect();
    assert_eq!(subs, [0, 1], "two changes in one revision");
}

#[test]
fn checks_see_the_state_before_and_refuse_all_or_nothing() {
    let mut state = State::default();
    let keep_value = pb::PutRequest {
        ignore_value: true,
        ..put_request("new", "", 0)
    };
    let created_before = success(vec![
        op_put("new", "1"),
        op(Request::RequestPut(keep_value)),
    ]);
    assert_eq!(state.txn(&created_before), Err(RequestError::KeyNotFound));
    let unknown_lease = success(vec![
        op_put("x", "1"),
        op(Request::RequestPut(put_request("y", "", 5))),
    ]);
    assert_eq!(state.txn(&unknown_lease), Err(RequestError::LeaseNotFound));
    let future = success(vec![op_put("x", "1"), op_get("x", 2)]);
    assert_eq!(state.txn(&future), Err(RequestError::FutureRev));
    let negative = success(vec![op_put("x", "1"), op_get("x", -2)]);
    assert_eq!(state.txn(&negative), Err(RequestError::Compacted));
    assert_eq!(
        (state.store.revision(), state.value("x")),
        (Revision(1), None)
    );
}

#[test]
fn only_the_chosen_path_is_checked() {
    let mut state = State::default();
    let request = pb::TxnRequest {
        success: vec![op_put("k", "1")],
        failure: vec![op_get("k", 99)],
        ..pb::TxnRequest::default()
    };
    assert!(
        state
            .txn(&request)
            .expect("the failure list is not done")
            .succeeded
    );
}

#[test]
fn nested_compares_are_about_the_state_before() {
    let mut state = State::default();
    let inner = pb::TxnRequest {
        compare: vec![compare(
            "k",
            CompareTarget::Version,
            CompareResult::Equal,
            TargetUnion::Version(0),
        )],
        success: vec![op_put("was-absent", "")],
        failure: vec![op_put("was-there", "")],
    };
    state
        .txn(&success(vec![
            op_put("k", ""),
            op(Request::RequestTxn(inner)),
        ]))
        .expect("nothing to refuse");
    assert_eq!(
        (state.value("was-absent"), state.value("was-there")),
        (Some(String::new()), None)
    );
}

#[test]
fn compares_follow_etcds_table() {
    let mut state = State::with_lease(7);
    state
        .put(put_request("k", "b", 7))
        .expect("the lease exists");
    state.put(put_request("k2", "b", 0)).expect("fine");
    let mut holds = |compare: pb::Compare| {
        let request = pb::TxnRequest {
            compare: vec![compare],
            ..pb::TxnRequest::default()
        };
        state.txn(&request).expect("nothing to refuse").succeeded
    };
    use CompareResult::{Equal, Greater, Less, NotEqual};
    use CompareTarget::{Create, Lease, Mod, Value, Version};
    let text = |text: &'static str| TargetUnion::Value(text.into());
    assert!(
        holds(compare("k", Value, Equal, text("b")))
            && holds(compare("k", Value, Greater, text("a")))
    );
    assert!(
        holds(compare("k", Value, Less, text("c")))
            && !holds(compare("k", Value, NotEqual, text("b")))
    );
    assert!(holds(compare(
        "k",
        Create,
        Equal,
        TargetUnion::CreateRevision(2)
    )));
    assert!(holds(compare("k", Mod, Less, TargetUnion::ModRevision(3))));
    assert!(holds(compare("k", Version, Equal, TargetUnion::Version(1))));
    assert!(holds(compare("k", Lease, Equal, TargetUnion::Lease(7))));
    // A missing key has zeros, but no value that anything could be said of.
    assert!(holds(compare(
        "absent",
        Create,
        Equal,
        TargetUnion::CreateRevision(0)
    )));
    assert!(holds(compare("absent", Lease, Less, TargetUnion::Lease(1))));
    assert!(
        !holds(compare("absent", Value, NotEqual, text("b")))
            && !holds(compare("absent", Value, Equal, text("")))
    );
    // An operand of another kind is zero.
    assert!(!holds(compare(
        "k",
        Version,
        Equal,
        TargetUnion::ModRevision(1)
    )));
    assert!(holds(compare(
        "k",
        Version,
        Greater,
        TargetUnion::ModRevision(1)
    )));
    // An unknown relation holds.
    assert!(holds(pb::Compare {
        result: 9,
        ..compare("k", Version, Equal, TargetUnion::Version(5))
    }));
    // Of a range every key must satisfy it; a range without keys is a missing key.
    let over = |range_end: &'static [u8], compare: pb::Compare| pb::Compare {
        range_end: Bytes::from_static(range_end),
        ..compare
    };
    assert!(holds(over(b"l", compare("k", Value, Equal, text("b")))));
    assert!(!holds(over(
        b"\0",
        compare("k", Lease, Equal, TargetUnion::Lease(7))
    )));
    assert!(holds(over(
        b"z",
        compare("y", Version, Equal, TargetUnion::Version(0))
    )));
}

#[test]
fn key_deleted_and_put_in_one_txn_lives_on() {
    let mut state = State::default();
    state.put(put_request("k", "1", 0)).expect("fine");
    state
        .txn(&success(vec![op_delete("a", b"\0"), op_put("k", "2")]))
        .expect("the quirk lets it pass");
    let kv = state.store.get(b"k").expect("put last");
    assert_eq!((kv.create_revision, kv.version), (3, 1));
    state.store.compact(Revision(3)).expect("an old revision");
    while !state.store.compact_step(1) {}
    assert_eq!(state.value("k"), Some("2".to_owned()));
}

#[test]
fn value_kept_of_a_key_that_the_txn_deleted_is_empty() {
    let mut state = State::default();
    state.put(put_request("k", "1", 0)).expect("fine");
    let keep_value = pb::PutRequest {
        ignore_value: true,
        ..put_request("k", "", 0)
    };
    state
        .txn(&success(vec![
            op_delete("a", b"\0"),
            op(Request::RequestPut(keep_value)),
        ]))
        .expect("it was there before");
    assert_eq!(state.value("k"), Some(String::new()));
}

#[test]
fn unwanted_answers_change_the_same() {
    let requests = [
        success(vec![op_put("a", "1"), op_get("a", 0), op_delete("b", b"")]),
        success(vec![op_get("a", 7), op_put("c", "1")]),
        success(vec![op_delete("a", b"\0"), op_get("a", 1)]),
    ];
    let (mut one, mut other) = (State::default(), State::default());
    for request in &requests {
        let wanted = txn(&mut one.store, &mut one.lessor, request, Answer::Wanted);
        let unwanted = txn(
            &mut other.store,
            &mut other.lessor,
            request,
            Answer::Unwanted,
        );
        assert_eq!(wanted.map(|_| ()), unwanted.map(|_| ()));
        assert_eq!(
            one.store.view().hash_kv(Revision(0)),
            other.store.view().hash_kv(Revision(0))
        );
    }
    assert_eq!(one.store.revision(), Revision(3));
}

#[test]
fn compaction_answers_the_current_revision() {
    let mut state = State::default();
    state.put(put_request("k", "1", 0)).expect("fine");
    state.put(put_request("k", "2", 0)).expect("fine");
    let request = pb::CompactionRequest {
        revision: 2,
        physical: false,
    };
    let response = compact(&mut state.store, &request).expect("an old revision");
    assert_eq!(header_revision(&response.header), 3);
    assert_eq!(
        compact(&mut state.store, &request),
        Err(RequestError::Compacted)
    );
}
