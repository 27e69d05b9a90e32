//! Tests of the store: rules one by one, against a plain model, and with readers beside a writer.

mod concurrency;
mod model;
mod properties;
mod rules;

use quorate_proto::etcdserverpb as pb;

use super::Store;
use crate::types::{LeaseId, Revision};

fn range(key: &[u8], range_end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_vec().into(),
        range_end: range_end.to_vec().into(),
        ..pb::RangeRequest::default()
    }
}

fn put(store: &mut Store, key: &str, value: &str) -> Revision {
    let mut txn = store.begin();
    txn.put(key.as_bytes(), value.as_bytes(), LeaseId(0));
    txn.end()
}

fn delete(store: &mut Store, key: &str) -> Revision {
    let mut txn = store.begin();
    txn.delete_range(key.as_bytes(), b"", |_, _| {});
    txn.end()
}

fn compact_fully(store: &mut Store, revision: i64) {
    store
        .compact(Revision(revision))
        .expect("a revision above the last compaction");
    while !store.compact_step(1) {}
}

fn keys(response: &pb::RangeResponse) -> Vec<String> {
    response
        .kvs
        .iter()
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}
