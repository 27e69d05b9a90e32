//! The conditions of a transaction, and the checks that its chosen path must pass before anything is written.
//!
//! Both are asked about the state before the transaction, nested ones included.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::mvccpb::KeyValue;

use super::range::Scan;
use super::record;
use super::state::{KeyRange, Shared};
use crate::error::RequestError;

/// Whether all conditions hold at a revision.
pub(super) fn all_hold(shared: &Shared, revision: i64, compares: &[pb::Compare]) -> bool {
    compares
        .iter()
        .all(|compare| holds(shared, revision, compare).unwrap_or(false))
}

fn holds(shared: &Shared, revision: i64, compare: &pb::Compare) -> Result<bool, RequestError> {
    let mut scan = Scan::new(
        shared,
        KeyRange::new(&compare.key, &compare.range_end),
        revision,
    );
    let mut records = Vec::new();
    let mut found = false;
    while !scan.is_done() {
        scan.collect(&shared.read(), usize::MAX, &mut records)?;
        found |= !records.is_empty();
        if !records
            .drain(..)
            .all(|record| holds_for(compare, &record::decode(record)))
        {
            return Ok(false);
        }
    }
    // No value equals a missing one, and none differs from it.
    Ok(found
        || (!is_target(compare, CompareTarget::Value) && holds_for(compare, &KeyValue::default())))
}

fn is_target(compare: &pb::Compare, target: CompareTarget) -> bool {
    compare.target == target as i32
}

fn holds_for(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    // An operand of another kind than the target counts as zero.
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let operand = if let Some(TargetUnion::Value(value)) = union {
                &value[..]
            } else {
                &[]
            };
            kv.value[..].cmp(operand)
        }
        Ok(CompareTarget::Create) => {
            let operand = if let Some(TargetUnion::CreateRevision(number)) = union {
                *number
            } else {
                0
            };
            kv.create_revision.cmp(&operand)
        }
        Ok(CompareTarget::Mod) => {
            let operand = if let Some(TargetUnion::ModRevision(number)) = union {
                *number
            } else {
                0
            };
            kv.mod_revision.cmp(&operand)
        }
        Ok(CompareTarget::Version) => {
            let operand = if let Some(TargetUnion::Version(number)) = union {
                *number
            } else {
                0
            };
            kv.version.cmp(&operand)
        }
        Ok(CompareTarget::Lease) => {
            let operand = if let Some(TargetUnion::Lease(number)) = union {
                *number
            } else {
                0
            };
            kv.lease.cmp(&operand)
        }
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// The check of a range inside a transaction. Unlike outside of one, a negative revision is a compacted one.
pub(super) fn check_range(
    shared: &Shared,
    current: i64,
    request: &pb::RangeRequest,
) -> Result<(), RequestError> {
    match request.revision {
        0 => Ok(()),
        asked if asked > current => Err(RequestError::FutureRev),
        asked if asked < shared.read().compacted => Err(RequestError::Compacted),
        _ => Ok(()),
    }
}
