//! Reading the model: ranges at any revision, and the conditions of transactions.

use std::cmp::Ordering;

use bytes::Bytes;
use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::mvccpb::KeyValue;

use super::{Model, header, in_range};

impl Model {
    /// The key as it was at `revision`.
    pub fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let newest = versions
            .iter()
            .rev()
            .find(|change| change.kv.mod_revision <= revision)?;
        (!newest.deleted).then_some(&newest.kv)
    }

    /// Whether there was no key at `revision`.
    pub fn is_empty_at(&self, revision: i64) -> bool {
        self.keys
            .keys()
            .all(|key| self.get(key, revision).is_none())
    }

    /// Answers a range on behalf of a store whose current revision is `current` and whose compact revision is
    /// `compacted`. As in etcd, the count is that of the whole range, before bounds on revisions and limit.
    pub fn range(
        &self,
        request: &pb::RangeRequest,
        current: i64,
        compacted: i64,
    ) -> Result<pb::RangeResponse, RequestError> {
        if request.revision > current {
            return Err(RequestError::FutureRev);
        }
        let revision = if request.revision > 0 {
            request.revision
        } else {
            current
        };
        if revision < compacted {
            return Err(RequestError::Compacted);
        }
        let mut kvs = self.at(&request.key, &request.range_end, revision);
        let count = kvs.len() as i64;
        let limit = if request.count_only { 0 } else { request.limit };
        kvs.retain(|kv| is_within(request, kv));
        sort(request, &mut kvs);
        let more = limit > 0 && kvs.len() as i64 > limit;
        if limit > 0 {
            kvs.truncate(limit as usize);
        }
        if request.count_only {
            kvs.clear();
        }
        if request.keys_only {
            for kv in &mut kvs {
                // etcd 3.7 answers from its index, which knows no leases either.
                (kv.value, kv.lease) = (Bytes::new(), 0);
            }
        }
        Ok(pb::RangeResponse {
            header: Some(header(current)),
            kvs,
            more,
            count,
        })
    }

    /// All keys as they were at `revision`.
    pub fn keys_at(&self, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let keys = self.keys.keys();
        keys.filter_map(move |key| self.get(key, revision))
    }

    /// The keys of a range as they were at `revision`.
    fn at(&self, first: &Bytes, end: &[u8], revision: i64) -> Vec<KeyValue> {
        let from = self.keys.range(first.clone()..);
        let keys = from
            .map(|(key, _)| key)
            .take_while(|key| in_range(first, end, key));
        keys.filter_map(|key| self.get(key, revision).cloned())
            .collect()
    }

    /// Whether a condition holds now. One on a range holds if it holds for each key, and one on nothing is about a
    /// key that does not exist; no value equals or differs from that one's.
    pub(super) fn holds(&self, compare: &pb::Compare) -> bool {
        let kvs = self.at(&compare.key, &compare.range_end, self.revision);
        if kvs.is_empty() {
            return compare.target() != CompareTarget::Value
                && holds_for(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| holds_for(compare, kv))
    }
}

/// Whether a key is within the bounds on revisions; 0 is no bound.
fn is_within(request: &pb::RangeRequest, kv: &KeyValue) -> bool {
    let within = |number, min, max| (min == 0 || number >= min) && (max == 0 || number <= max);
    let (min, max) = (request.min_mod_revision, request.max_mod_revision);
    let is_modified_within = within(kv.mod_revision, min, max);
    let (min, max) = (request.min_create_revision, request.max_create_revision);
    is_modified_within && within(kv.create_revision, min, max)
}

/// Puts keys, which are in byte order, into the order that is asked for.
fn sort(request: &pb::RangeRequest, kvs: &mut [KeyValue]) {
    let order = |one: &KeyValue, other: &KeyValue| match request.sort_target() {
        SortTarget::Key => one.key.cmp(&other.key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    };
    match request.sort_order() {
        SortOrder::None => {}
        SortOrder::Ascend => kvs.sort_by(order),
        SortOrder::Descend => kvs.sort_by(|one, other| order(other, one)),
    }
}

fn holds_for(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let ordering = match compare
        .target_union
        .as_ref()
        .expect("conditions have an operand")
    {
        TargetUnion::Version(version) => kv.version.cmp(version),
        TargetUnion::CreateRevision(revision) => kv.create_revision.cmp(revision),
        TargetUnion::ModRevision(revision) => kv.mod_revision.cmp(revision),
        TargetUnion::Value(value) => kv.value.cmp(value),
        TargetUnion::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::NotEqual => ordering != Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
    }
}
