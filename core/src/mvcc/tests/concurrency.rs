//! Readers beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_proto::etcdserverpb as pb;

use super::range;
use crate::error::RequestError;
use crate::mvcc::{Store, View};
use crate::types::{LeaseId, Revision};

const KEYS: usize = 60;
const TXNS: usize = 400;

/// Every transaction writes its number to all keys, so that any mixture shows.
fn write_all(store: &mut Store, number: usize) {
    let mut txn = store.begin();
    if number.is_multiple_of(7) {
        txn.delete_range(b"\0", b"\0", |_, _| {});
    }
    for key in 0..KEYS {
        // Not in key order.
        let key = format!("key-{:03}", key * 37 % KEYS);
        txn.put(key.as_bytes(), number.to_string().as_bytes(), LeaseId(0));
    }
    assert_eq!(txn.end().0, number as i64 + 1);
}

fn read(view: &View, done: &AtomicBool) -> usize {
    let mut reads = 0;
    let mut last = 0;
    while !done.load(Ordering::Acquire) || reads == 0 {
        let response = match view.range(&range(b"\0", b"\0")) {
            Ok(response) => response,
            Err(error) => panic!("reading the current revision: {error}"),
        };
        let revision = response
            .header
            .as_ref()
            .expect("every answer has a header")
            .revision;
        assert!(revision >= last, "the revision went back");
        last = revision;
        if revision > 1 {
            assert_eq!(
                (response.kvs.len(), response.count),
                (KEYS, KEYS as i64),
                "at {revision}"
            );
            let wanted = (revision - 1).to_string();
            assert!(
                response
                    .kvs
                    .iter()
                    .all(|kv| kv.mod_revision == revision && kv.value == wanted.as_bytes())
            );
            let count = view.range(&pb::RangeRequest {
                count_only: true,
                revision,
                ..range(b"\0", b"\0")
            });
            assert!(
                matches!(&count, Ok(count) if count.count == KEYS as i64)
                    || count == Err(RequestError::Compacted)
            );
        }
        let history = view.history((revision, 0), 2 * KEYS);
        let puts = history
            .iter()
            .filter(|row| row.main == revision && !row.tombstone)
            .count();
        let compacted = view.compact_revision().0 > revision;
        assert!(
            puts == KEYS || revision == 1 || compacted,
            "{puts} puts at {revision}"
        );
        reads += 1;
    }
    reads
}

#[test]
fn ranges_beside_a_writer_and_a_compaction_see_whole_transactions() {
    let mut store = Store::new();
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let view = store.view();
                scope.spawn(move || read(&view, done))
            })
            .collect();
        for number in 1..=TXNS {
            write_all(&mut store, number);
            if number.is_multiple_of(20) {
                store
                    .compact(Revision(number as i64 - 5))
                    .expect("an old revision");
            }
            store.compact_step(200);
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            assert!(reader.join().expect("the reader found nothing wrong") > 0);
        }
    });
    store.check();
    assert_eq!(store.revision(), Revision(TXNS as i64 + 1));
}
