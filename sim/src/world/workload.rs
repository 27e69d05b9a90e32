//! What clients do: the drawing of operations.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::request::check_txn;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;

use super::clients::Client;
use crate::options::Options;

/// One operation of a client.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// Through the log.
    Propose(Box<pb::InternalRaftRequest>),
    /// A linearizable read.
    Read(pb::RangeRequest),
    /// A read of what the member has.
    LocalRead(pb::RangeRequest),
    /// A renewal of a lease.
    Renew(i64),
    /// What is left of a lease.
    TimeToLive(i64),
    /// All leases.
    Leases,
    /// A checkpoint at once.
    Checkpoint,
    /// Leadership to somebody else.
    Transfer,
}

impl Call {
    /// What it is, in bytes.
    pub(super) fn digest(&self) -> Vec<u8> {
        match self {
            Self::Propose(request) => request.encode_to_vec(),
            Self::Read(range) | Self::LocalRead(range) => range.encode_to_vec(),
            Self::Renew(id) | Self::TimeToLive(id) => id.to_be_bytes().to_vec(),
            Self::Leases | Self::Checkpoint | Self::Transfer => Vec::new(),
        }
    }
}

/// Without what is not set.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Propose(request) = self else {
            return write!(f, "{self:?}");
        };
        let pb::InternalRaftRequest {
            put,
            delete_range,
            txn,
            compaction,
            ..
        } = &**request;
        let parts: [Option<&dyn fmt::Debug>; 6] = [
            put.as_ref().map(|it| it as _),
            delete_range.as_ref().map(|it| it as _),
            txn.as_ref().map(|it| it as _),
            compaction.as_ref().map(|it| it as _),
            request.lease_grant.as_ref().map(|it| it as _),
            request.lease_revoke.as_ref().map(|it| it as _),
        ];
        parts
            .iter()
            .flatten()
            .try_for_each(|part| write!(f, "{part:?}"))
    }
}

/// Keys are this and a letter.
const KEY_PREFIX: &str = "key-";

/// What key this number stands for.
pub(super) fn key(number: u64) -> Bytes {
    let letter = char::from(b'a' + u8::try_from(number).expect("few keys"));
    Bytes::from(format!("{KEY_PREFIX}{letter}"))
}

/// A request of one kind.
fn propose(fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Call {
    let mut request = pb::InternalRaftRequest::default();
    fill(&mut request);
    Call::Propose(Box::new(request))
}

/// A put that only settling makes.
pub(super) fn probe_put(number: u64) -> Call {
    let put = pb::PutRequest {
        key: Bytes::from_static(b"probe"),
        value: Bytes::from(number.to_string()),
        ..pb::PutRequest::default()
    };
    propose(|request| request.put = Some(put))
}

impl Client {
    /// The next operation.
    pub(super) fn draw_call(&mut self, options: &Options) -> Call {
        if self.stream.chance(options.load.compaction_ppm) {
            return self.draw_compaction();
        }
        if self.stream.chance(options.load.lease_ppm) {
            return self.draw_lease_call(options);
        }
        match self.stream.below(100) {
            0..=29 => {
                let put = self.draw_put(options);
                propose(|request| request.put = Some(put))
            }
            30..=44 => Call::Read(self.draw_range(options)),
            45..=56 => Call::LocalRead(self.draw_range(options)),
            57..=66 => {
                let delete = self.draw_delete(options);
                propose(|request| request.delete_range = Some(delete))
            }
            67..=80 => {
                let txn = self.draw_swap(options);
                propose(|request| request.txn = Some(txn))
            }
            81..=98 => {
                let txn = self.draw_txn(options);
                propose(|request| request.txn = Some(txn))
            }
            _ => Call::Checkpoint,
        }
    }

    fn draw_compaction(&mut self) -> Call {
        let revision = self.revision_seen - self.stream.below(12) as i64 + 1;
        let compaction = pb::CompactionRequest {
            revision: revision.max(1),
            physical: self.stream.chance(300_000),
        };
        propose(|request| request.compaction = Some(compaction))
    }

    fn draw_lease_call(&mut self, options: &Options) -> Call {
        let known = (!self.leases.is_empty()).then(|| *self.stream.pick(&self.leases));
        match (self.stream.below(10), known) {
            (0..=3, _) | (_, None) => {
                let id = (self.number as i64 + 1) * 100_000 + self.leases.len() as i64 + 1;
                self.leases.push(id);
                let ttl = self.stream.between(1, options.load.lease_ttl_max) as i64;
                propose(|request| request.lease_grant = Some(pb::LeaseGrantRequest { ttl, id }))
            }
            (4, Some(id)) => {
                propose(|request| request.lease_revoke = Some(pb::LeaseRevokeRequest { id }))
            }
            (5..=7, Some(id)) => Call::Renew(id),
            (8, Some(id)) => Call::TimeToLive(id),
            (_, Some(_)) => Call::Leases,
        }
    }

    fn draw_key(&mut self, options: &Options) -> Bytes {
        key(self.stream.below(options.load.keys))
    }

    fn draw_put(&mut self, options: &Options) -> pb::PutRequest {
        let length = self.stream.below(options.load.value_bytes_max + 1) as usize;
        let tag = format!("{}.{}", self.number, self.operation);
        let value: Vec<u8> = tag.bytes().cycle().take(length).collect();
        let lease = match self.leases.last() {
            Some(&lease) if self.stream.chance(300_000) => lease,
            _ => 0,
        };
        let ignores_value = self.stream.chance(30_000);
        pb::PutRequest {
            key: self.draw_key(options),
            value: if ignores_value {
                Bytes::new()
            } else {
                value.into()
            },
            lease,
            prev_kv: self.stream.chance(200_000),
            ignore_value: ignores_value,
            ignore_lease: lease == 0 && self.stream.chance(30_000),
        }
    }

    fn draw_delete(&mut self, options: &Options) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.draw_keys(options);
        pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.stream.chance(300_000),
        }
    }

    /// One key, a few, or all from one on.
    fn draw_keys(&mut self, options: &Options) -> (Bytes, Bytes) {
        let first = self.stream.below(options.load.keys);
        let end = match self.stream.below(10) {
            0..=6 => Bytes::new(),
            7 | 8 => key(first + self.stream.between(1, 4)),
            _ => Bytes::from_static(b"\0"),
        };
        (key(first), end)
    }

    fn draw_range(&mut self, options: &Options) -> pb::RangeRequest {
        let (key, range_end) = self.draw_keys(options);
        let is_old = self.stream.chance(250_000);
        let back = self.stream.below(20) as i64 - 2;
        pb::RangeRequest {
            key,
            range_end,
            limit: if self.stream.chance(200_000) {
                self.stream.between(1, 4) as i64
            } else {
                0
            },
            revision: if is_old {
                (self.revision_seen - back).max(0)
            } else {
                0
            },
            keys_only: self.stream.chance(100_000),
            count_only: self.stream.chance(100_000),
            ..pb::RangeRequest::default()
        }
    }

    /// Compare and swap on what was seen last.
    fn draw_swap(&mut self, options: &Options) -> pb::TxnRequest {
        let put = self.draw_put(options);
        let seen = self.revisions.get(&put.key).copied().unwrap_or(0);
        let compare = pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: put.key.clone(),
            target_union: Some(TargetUnion::ModRevision(seen)),
            ..pb::Compare::default()
        };
        let read = pb::RangeRequest {
            key: put.key.clone(),
            ..pb::RangeRequest::default()
        };
        pb::TxnRequest {
            compare: vec![compare],
            success: vec![operation(Request::RequestPut(put))],
            failure: vec![operation(Request::RequestRange(read))],
        }
    }

    /// A transaction of anything, as long as it is a legal one that writes.
    fn draw_txn(&mut self, options: &Options) -> pb::TxnRequest {
        loop {
            let txn = self.draw_any_txn(options, 2);
            if check_txn(&txn, 128).is_ok() && !quorate_core::request::is_read_only(&txn) {
                return txn;
            }
        }
    }

    fn draw_any_txn(&mut self, options: &Options, depth: u32) -> pb::TxnRequest {
        let compares = self.stream.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.draw_compare(options)).collect(),
            success: self.draw_operations(options, depth),
            failure: self.draw_operations(options, depth),
        }
    }

    fn draw_operations(&mut self, options: &Options, depth: u32) -> Vec<pb::RequestOp> {
        let count = self.stream.below(4);
        let mut operations = Vec::new();
        for _ in 0..count {
            operations.push(operation(match self.stream.below(10) {
                0..=4 => Request::RequestPut(self.draw_put(options)),
                5 | 6 => Request::RequestDeleteRange(self.draw_delete(options)),
                7 if depth > 0 => Request::RequestTxn(self.draw_any_txn(options, depth - 1)),
                _ => Request::RequestRange(self.draw_range(options)),
            }));
        }
        operations
    }

    fn draw_compare(&mut self, options: &Options) -> pb::Compare {
        let (key, range_end) = self.draw_keys(options);
        let seen = self.revisions.get(&key).copied().unwrap_or(0);
        let (target, operand) = match self.stream.below(5) {
            0 => (
                CompareTarget::Version,
                TargetUnion::Version(self.stream.below(4) as i64),
            ),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(seen)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(seen)),
            3 => (
                CompareTarget::Value,
                TargetUnion::Value(Bytes::from_static(b"1")),
            ),
            _ => (CompareTarget::Lease, TargetUnion::Lease(0)),
        };
        let results = [
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
        ];
        pb::Compare {
            result: *self.stream.pick(&results) as i32,
            target: target as i32,
            key,
            target_union: Some(operand),
            range_end,
        }
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}
