//! One test a rule.

use std::convert::Infallible;

use quorate_proto::etcdserverpb as pb;

use super::{compact_fully, delete, keys, put, range};
use crate::error::RequestError;
use crate::mvcc::{RestoreError, Row, Store};
use crate::types::{LeaseId, Revision};

fn rows(store: &Store) -> Vec<(i64, i64, bool)> {
    store
        .view()
        .history((0, 0), usize::MAX)
        .iter()
        .map(|row| (row.main, row.sub, row.tombstone))
        .collect()
}

fn restored(rows: Vec<Row>, scheduled: Option<i64>, finished: Option<i64>) -> Store {
    let rows = rows.into_iter().map(Ok::<_, Infallible>);
    Store::restore(rows, scheduled.map(Revision), finished.map(Revision))
        .expect("good rows")
        .0
}

#[test]
fn hash_kv_gives_etcds_vectors() {
    let mut store = Store::new();
    let hash = |store: &Store| {
        store
            .view()
            .hash_kv(Revision(0))
            .expect("the current revision")
            .hash
    };
    assert_eq!(hash(&store), 1_084_519_789);
    put(&mut store, "foo", "bar");
    assert_eq!(hash(&store), 3_305_255_506);
    delete(&mut store, "foo");
    assert_eq!(hash(&store), 2_489_925_301);
    let first = store.view().hash_kv(Revision(2)).expect("an old revision");
    assert_eq!(
        (first.hash, first.compact_revision, first.hash_revision),
        (3_305_255_506, Revision(-1), Revision(2))
    );
}

/// Hashes that etcd 3.7.1 gave for the same puts, deletions and compactions.
#[test]
fn hash_kv_equals_etcds_before_and_after_compactions() {
    let mut store = Store::new();
    put(&mut store, "a", "1");
    put(&mut store, "b", "1");
    put(&mut store, "a", "2");
    delete(&mut store, "b");
    put(&mut store, "c", "1");
    delete(&mut store, "a");
    let check = |store: &Store, wanted: &[(i64, u32, i64)]| {
        for (revision, hash, compact_revision) in wanted {
            let got = store.view().hash_kv(Revision(*revision)).expect("readable");
            assert_eq!(
                (got.hash, got.compact_revision.0),
                (*hash, *compact_revision),
                "at {revision}"
            );
        }
    };
    check(
        &store,
        &[
            (0, 2_325_219_536, -1),
            (4, 3_086_679_940, -1),
            (5, 1_416_966_122, -1),
        ],
    );
    compact_fully(&mut store, 5);
    check(
        &store,
        &[
            (0, 2_610_168_427, 5),
            (5, 1_416_966_122, -1),
            (6, 709_067_906, 5),
        ],
    );
    compact_fully(&mut store, 7);
    check(
        &store,
        &[
            (0, 4_012_545_367, 7),
            (5, 1_416_966_122, -1),
            (7, 2_610_168_427, 5),
        ],
    );
    assert_eq!(
        store.view().hash_kv(Revision(6)),
        Err(RequestError::Compacted)
    );
    delete(&mut store, "c");
    check(&store, &[(0, 2_025_187_693, 7), (8, 2_025_187_693, 7)]);
    compact_fully(&mut store, 8);
    check(&store, &[(0, 1_084_519_789, 8), (8, 1_841_068_352, 7)]);
    let view = store.view();
    let kept = view.compaction_hashes().into_iter();
    let kept: Vec<_> = kept.map(|hash| hash.hash_revision.0).collect();
    assert_eq!(kept, [5, 7], "the one that left no key is not compared");
    assert!(!view.is_telling_at(Revision(8)), "nor is that revision");
    assert!(!view.is_telling_at(Revision(7)), "it is compacted");
    put(&mut store, "d", "x");
    check(&store, &[(0, 2_303_155_821, 8)]);
    assert!(store.view().is_telling_at(Revision(9)));
}

#[test]
fn first_write_makes_revision_2_and_versions_start_over_after_a_delete() {
    let mut store = Store::new();
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(put(&mut store, "k", "1"), Revision(2));
    assert_eq!(
        put(&mut store, "k", "1"),
        Revision(3),
        "an equal value is a change too"
    );
    let kv = store.get(b"k").expect("put");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    assert_eq!(delete(&mut store, "k"), Revision(4));
    assert_eq!(
        delete(&mut store, "k"),
        Revision(4),
        "deleting nothing is no revision"
    );
    assert_eq!(store.get(b"k"), None);
    put(&mut store, "k", "2");
    let kv = store.get(b"k").expect("put");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn sub_revisions_count_changes_in_order() {
    let mut store = Store::new();
    let mut txn = store.begin();
    txn.put(b"b", b"", LeaseId(0));
    txn.put(b"a", b"", LeaseId(0));
    assert_eq!(txn.delete_range(b"a", b"c", |_, _| {}), 2);
    txn.put(b"a", b"", LeaseId(0));
    assert_eq!(txn.end(), Revision(2));
    assert_eq!(
        rows(&store),
        [
            (2, 0, false),
            (2, 1, false),
            (2, 2, true),
            (2, 3, true),
            (2, 4, false)
        ]
    );
    assert_eq!(
        keys(&store.view().range(&range(b"\0", b"\0")).expect("readable")),
        ["a"]
    );
}

#[test]
fn tombstone_exactly_at_the_boundary_stays_and_older_ones_go() {
    let mut store = Store::new();
    for key in ["a", "b"] {
        put(&mut store, key, "");
        delete(&mut store, key);
    }
    compact_fully(&mut store, 5);
    assert_eq!(rows(&store), [(5, 0, true)]);
    put(&mut store, "c", "");
    compact_fully(&mut store, 6);
    assert_eq!(rows(&store), [(6, 0, false)]);
}

#[test]
fn compaction_answers_as_etcd_does() {
    let mut store = Store::new();
    put(&mut store, "k", "");
    assert_eq!(store.compact(Revision(3)), Err(RequestError::FutureRev));
    assert_eq!(store.compact(Revision(-1)), Err(RequestError::Compacted));
    assert_eq!(
        store.compact(Revision(0)),
        Ok(()),
        "accepted on a store that was never compacted"
    );
    assert_eq!(store.compact(Revision(0)), Err(RequestError::Compacted));
    assert_eq!(store.compact(Revision(2)), Ok(()));
    assert_eq!(store.compact(Revision(2)), Err(RequestError::Compacted));
    assert_eq!(
        store.view().compact_revision(),
        Revision(2),
        "the boundary moves at once"
    );
}

#[test]
fn reads_at_the_compact_revision_work_and_below_it_do_not() {
    let mut store = Store::new();
    put(&mut store, "k", "1");
    put(&mut store, "k", "2");
    store.compact(Revision(3)).expect("an old revision");
    let at = |revision| {
        store.view().range(&pb::RangeRequest {
            revision,
            ..range(b"k", b"")
        })
    };
    assert_eq!(at(2), Err(RequestError::Compacted));
    assert_eq!(&at(3).expect("the boundary").kvs[0].value[..], b"2");
    assert_eq!(at(4), Err(RequestError::FutureRev));
    assert_eq!(&at(-7).expect("the current one").kvs[0].value[..], b"2");
}

#[test]
fn revision_never_falls_behind_a_compaction_whether_finished_or_not() {
    assert_eq!(restored(vec![], Some(7), Some(5)).revision(), Revision(7));
    assert_eq!(restored(vec![], None, Some(5)).revision(), Revision(5));
    assert_eq!(restored(vec![], None, None).revision(), Revision(1));
}

#[test]
fn unfinished_compaction_is_taken_up_again_without_a_hash() {
    let mut store = Store::new();
    put(&mut store, "k", "1");
    put(&mut store, "k", "2");
    let rows = store.view().history((0, 0), usize::MAX);
    let mut store = restored(rows, Some(3), None);
    assert!(store.is_compacting());
    assert_eq!(store.compact_revision(), Revision(3));
    while !store.compact_step(1) {}
    assert_eq!(self::rows(&store), [(3, 0, false)]);
    assert_eq!(store.finished_compaction(), Some(Revision(3)));
    assert_eq!(store.view().compaction_hashes(), []);
}

#[test]
fn lone_tombstone_is_restored_into_the_index() {
    let mut store = Store::new();
    put(&mut store, "k", "1");
    delete(&mut store, "k");
    compact_fully(&mut store, 3);
    let mut store = restored(store.view().history((0, 0), usize::MAX), Some(3), Some(3));
    assert_eq!(rows(&store), [(3, 0, true)]);
    assert_eq!(store.get(b"k"), None);
    put(&mut store, "other", "");
    compact_fully(&mut store, 4);
    assert_eq!(
        rows(&store),
        [(4, 0, false)],
        "and compacted away by the next compaction"
    );
}

#[test]
fn empty_row_of_a_revision_bump_is_restored_and_shown_to_nobody() {
    let mut store = Store::new();
    put(&mut store, "k", "1");
    let mut rows = store.view().history((0, 0), usize::MAX);
    rows.push(Row {
        main: 1_000,
        sub: 0,
        tombstone: false,
        key_value: bytes::Bytes::new(),
    });
    let mut store = restored(rows, Some(1_000), None);
    assert_eq!(store.revision(), Revision(1_000));
    while !store.compact_step(10) {}
    let all = store.view().range(&range(b"\0", b"\0")).expect("readable");
    assert_eq!((keys(&all), all.count), (vec!["k".to_owned()], 1));
    assert_eq!(put(&mut store, "k", "2"), Revision(1_001));
}

#[test]
fn damaged_or_disordered_rows_are_refused() {
    let row = |main, key_value: &'static [u8]| {
        Ok::<_, Infallible>(Row {
            main,
            sub: 0,
            tombstone: false,
            key_value: bytes::Bytes::from_static(key_value),
        })
    };
    let damaged = Store::restore([row(2, b"\x0a\x09k")].into_iter(), None, None).map(|_| ());
    assert_eq!(damaged, Err(RestoreError::Damaged { main: 2, sub: 0 }));
    let twice = Store::restore(
        [row(2, b"\x0a\x01k"), row(2, b"\x0a\x01k")].into_iter(),
        None,
        None,
    )
    .map(|_| ());
    assert_eq!(twice, Err(RestoreError::Disordered { main: 2, sub: 0 }));
}

#[test]
fn keys_only_leaves_out_the_lease_unless_sorted_by_value() {
    let mut store = Store::new();
    let mut txn = store.begin();
    txn.put(b"a", b"2", LeaseId(7));
    txn.put(b"b", b"1", LeaseId(7));
    txn.end();
    let request = pb::RangeRequest {
        keys_only: true,
        ..range(b"a", b"z")
    };
    let plain = store.view().range(&request).expect("readable").kvs;
    assert!(
        plain
            .iter()
            .all(|kv| kv.lease == 0 && kv.value.is_empty() && kv.version == 1)
    );
    let by_value = pb::RangeRequest {
        sort_target: 4,
        ..request
    };
    let sorted = store.view().range(&by_value).expect("readable");
    assert_eq!(keys(&sorted), ["b", "a"]);
    assert!(
        sorted
            .kvs
            .iter()
            .all(|kv| kv.lease == 7 && kv.value.is_empty())
    );
}

#[test]
fn limit_without_order_cuts_before_it_sorts_by_another_target() {
    let mut store = Store::new();
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
        put(&mut store, key, value);
    }
    let request = pb::RangeRequest {
        limit: 1,
        sort_target: 4,
        ..range(b"a", b"z")
    };
    let unordered = store.view().range(&request).expect("readable");
    assert_eq!(
        (keys(&unordered), unordered.more, unordered.count),
        (vec!["b".to_owned()], true, 3)
    );
    let ascending = pb::RangeRequest {
        sort_order: 1,
        ..request
    };
    assert_eq!(
        keys(&store.view().range(&ascending).expect("readable")),
        ["c"]
    );
}

#[test]
fn views_show_a_replaced_store() {
    let mut store = Store::new();
    put(&mut store, "old", "");
    let view = store.view();
    let pin = view.pin();
    let mut other = Store::new();
    put(&mut other, "new", "1");
    put(&mut other, "new", "2");
    store.replace(other);
    assert_eq!(view.revision(), Revision(3));
    assert_eq!(
        keys(&view.range(&range(b"\0", b"\0")).expect("readable")),
        ["new"]
    );
    assert_eq!(pin.history((0, 0), 10), None, "the pinned store is gone");
    drop(pin);
    compact_fully(&mut store, 3);
    assert_eq!(rows(&store), [(3, 0, false)]);
}

#[test]
fn compaction_gives_memory_back_and_moves_survivors() {
    let mut store = Store::new();
    for round in 0..50 {
        for key in 0..40 {
            put(&mut store, &format!("key-{key}"), &format!("{round:0100}"));
        }
    }
    let before = store.view().memory_bytes();
    let size = store.size_bytes();
    compact_fully(&mut store, 2001);
    store.check();
    assert!(
        store.view().memory_bytes() * 8 < before,
        "{} of {before}",
        store.view().memory_bytes()
    );
    assert!(store.size_bytes() < size);
    let all = store.view().range(&range(b"\0", b"\0")).expect("readable");
    assert_eq!(all.kvs.len(), 40);
    assert!(
        all.kvs
            .iter()
            .all(|kv| kv.version == 50 && kv.value.ends_with(b"49"))
    );
}

#[test]
fn read_only_txn_reads_one_revision_and_refuses_negative_ones() {
    let mut store = Store::new();
    put(&mut store, "k", "v");
    let op = |request| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(request)),
    };
    let txn = |revision| pb::TxnRequest {
        success: vec![op(pb::RangeRequest {
            revision,
            ..range(b"k", b"")
        })],
        ..pb::TxnRequest::default()
    };
    let response = store.view().read_txn(&txn(0)).expect("readable");
    assert!(response.succeeded && response.responses.len() == 1);
    assert_eq!(response.header.expect("there is one").revision, 2);
    assert_eq!(store.view().read_txn(&txn(3)), Err(RequestError::FutureRev));
    assert_eq!(
        store.view().read_txn(&txn(-2)),
        Err(RequestError::Compacted)
    );
}

#[test]
fn a_compaction_says_that_it_waits_for_a_reader() {
    let mut store = Store::new();
    for value in ["1", "2", "3"] {
        put(&mut store, "a", value);
    }
    let pin = store.view().pin();
    put(&mut store, "a", "4");
    store.compact(Revision(5)).expect("the present revision");
    assert!(!store.is_compaction_held());
    assert!(!store.compact_step(10));
    assert!(store.is_compaction_held(), "a step would get nowhere");
    drop(pin);
    while !store.compact_step(10) {}
    assert!(!store.is_compaction_held());
}
