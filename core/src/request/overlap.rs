//! Whether the operations of a transaction change a key twice.
//!
//! Two puts of one key, or a put within a deleted range, are refused, nested transactions included; the two lists of
//! a nested one may put the same key, since only one of them is done. As in etcd, a deletion without an end is
//! not seen to cover a put, and neither is the deletion of a key that an earlier nested transaction puts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use crate::error::RequestError;

/// What a list of operations changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    puts: BTreeSet<Vec<u8>>,
    deletes: Intervals,
}

/// Disjoint intervals of keys: first key to exclusive end.
#[derive(Debug, Default)]
struct Intervals(BTreeMap<Vec<u8>, Vec<u8>>);

/// Checks a list of operations and those nested in it.
pub(super) fn check(operations: &[pb::RequestOp]) -> Result<Changes, RequestError> {
    let mut changes = Changes::default();
    for operation in operations {
        if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
            changes.deletes.add_request(delete);
        }
    }
    for operation in operations {
        if let Some(Request::RequestTxn(txn)) = &operation.request {
            let success = check(&txn.success)?;
            let failure = check(&txn.failure)?;
            for key in &success.puts {
                changes.add_put(key)?;
            }
            for key in &failure.puts {
                if changes.deletes.contain(key)
                    || (changes.puts.contains(key) && !success.puts.contains(key))
                {
                    return Err(RequestError::DuplicateKey);
                }
                changes.puts.insert(key.clone());
            }
            changes.deletes.add_all(success.deletes);
            changes.deletes.add_all(failure.deletes);
        }
    }
    for operation in operations {
        if let Some(Request::RequestPut(put)) = &operation.request {
            changes.add_put(&put.key)?;
        }
    }
    Ok(changes)
}

impl Changes {
    fn add_put(&mut self, key: &[u8]) -> Result<(), RequestError> {
        if self.deletes.contain(key) || !self.puts.insert(key.to_vec()) {
            return Err(RequestError::DuplicateKey);
        }
        Ok(())
    }
}

impl Intervals {
    fn add_request(&mut self, request: &pb::DeleteRangeRequest) {
        let first = request.key.to_vec();
        if request.range_end.is_empty() {
            let end = [&first[..], &[0]].concat();
            self.add(first, end);
        } else {
            // An end of one zero byte means "no end", but etcd takes it for what it says here.
            self.add(first, request.range_end.to_vec());
        }
    }

    fn add_all(&mut self, other: Self) {
        for (first, end) in other.0 {
            self.add(first, end);
        }
    }

    fn add(&mut self, mut first: Vec<u8>, mut end: Vec<u8>) {
        if first >= end {
            return;
        }
        // Take in whatever overlaps.
        while let Some((other_first, other_end)) = self.last_from_or_below(&end)
            && *other_end >= first
        {
            let (other_first, other_end) = (other_first.clone(), other_end.clone());
            self.0.remove(&other_first);
            first = first.min(other_first);
            end = end.max(other_end);
        }
        self.0.insert(first, end);
    }

    /// The last interval whose first key is not above this one.
    fn last_from_or_below(&self, key: &[u8]) -> Option<(&Vec<u8>, &Vec<u8>)> {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
    }

    fn contain(&self, key: &[u8]) -> bool {
        self.last_from_or_below(key)
            .is_some_and(|(_, end)| key < &end[..])
    }
}
