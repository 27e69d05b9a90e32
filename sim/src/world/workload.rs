//! What clients do: the drawing of operations.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::MembersChange;
use quorate_core::request::check_txn;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;

use super::clients::Client;
use crate::load::Work;

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
    /// Other members.
    Change(MembersChange),
}

impl Call {
    /// What it is, in bytes.
    pub(super) fn digest(&self) -> Vec<u8> {
        match self {
            Self::Propose(request) => request.encode_to_vec(),
            Self::Read(range) | Self::LocalRead(range) => range.encode_to_vec(),
            Self::Renew(id) | Self::TimeToLive(id) => id.to_be_bytes().to_vec(),
            Self::Leases | Self::Checkpoint | Self::Transfer => Vec::new(),
            Self::Change(change) => format!("{change:?}").into_bytes(),
        }
    }
}

/// Without what is not set.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Propose(request) = self else {
            return write!(f, "{self:?}");
        };
        let request = &**request;
        let pb::InternalRaftRequest {
            put,
            delete_range,
            txn,
            compaction,
            ..
        } = request;
        let parts: [Option<&dyn fmt::Debug>; 6] = [
            put.as_ref().map(|it| it as _),
            delete_range.as_ref().map(|it| it as _),
            txn.as_ref().map(|it| it as _),
            compaction.as_ref().map(|it| it as _),
            request.lease_grant.as_ref().map(|it| it as _),
            request.lease_revoke.as_ref().map(|it| it as _),
        ];
        if parts.iter().all(Option::is_none) {
            return write!(f, "{request:?}");
        }
        parts
            .iter()
            .flatten()
            .try_for_each(|part| write!(f, "{part:?}"))
    }
}

/// Keys are this and a letter.
const KEY_PREFIX: &str = "key-";
/// Registers are this and a number: before all other keys, since deletions reach from some key to the last one.
pub(super) const REGISTER_PREFIX: &str = "cell-";

/// What key this number stands for.
pub(super) fn key(number: u64) -> Bytes {
    let letter = char::from(b'a' + u8::try_from(number).expect("few keys"));
    Bytes::from(format!("{KEY_PREFIX}{letter}"))
}

/// The key of a register.
fn register(number: u64) -> Bytes {
    Bytes::from(format!("{REGISTER_PREFIX}{number}"))
}

/// A request of one kind.
pub(super) fn propose(fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Call {
    let mut request = pb::InternalRaftRequest::default();
    fill(&mut request);
    Call::Propose(Box::new(request))
}

pub(super) fn put(put: pb::PutRequest) -> Call {
    propose(|request| request.put = Some(put))
}

pub(super) fn delete(delete: pb::DeleteRangeRequest) -> Call {
    propose(|request| request.delete_range = Some(delete))
}

pub(super) fn txn(txn: pb::TxnRequest) -> Call {
    propose(|request| request.txn = Some(txn))
}

fn read(range: pb::RangeRequest, is_local: bool) -> Call {
    if is_local {
        Call::LocalRead(range)
    } else {
        Call::Read(range)
    }
}

/// One key, as it is now.
pub(super) fn one(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key,
        ..pb::RangeRequest::default()
    }
}

/// The condition that a property of a key has this value.
pub(super) fn equals(key: Bytes, operand: TargetUnion) -> pb::Compare {
    let target = match operand {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key,
        target_union: Some(operand),
        ..pb::Compare::default()
    }
}

/// What settling writes to.
pub(super) fn probe_key() -> Bytes {
    Bytes::from_static(b"probe")
}

/// A lease that only settling asks for, as short as the cluster allows.
pub(super) fn probe_grant(id: i64) -> Call {
    propose(|request| request.lease_grant = Some(pb::LeaseGrantRequest { ttl: 1, id }))
}

/// A put that only settling makes.
pub(super) fn probe_put(number: u64) -> Call {
    put(pb::PutRequest {
        key: probe_key(),
        value: Bytes::from(number.to_string()),
        ..pb::PutRequest::default()
    })
}

impl Client {
    /// The next operation.
    pub(super) fn draw_call(&mut self, now_ns: u64) -> Call {
        if let Some(session) = &mut self.session {
            return session.next(now_ns, self.revision_seen, &mut self.stream);
        }
        match self.group.work {
            Work::Mixed {
                compaction_ppm,
                lease_ppm,
                lease_ttl_max,
            } => {
                if self.stream.chance(compaction_ppm) {
                    self.draw_compaction(12)
                } else if self.stream.chance(lease_ppm) {
                    self.draw_lease_call(lease_ttl_max)
                } else {
                    self.draw_mixed()
                }
            }
            Work::Put => put(self.draw_put()),
            Work::Get { is_local } => read(self.draw_get(), is_local),
            Work::Range { is_local } => read(self.draw_range(), is_local),
            Work::Delete => delete(self.draw_delete()),
            Work::Txn => txn(self.draw_txn()),
            Work::Swap => self.draw_chain(),
            Work::Register => self.draw_register(),
            Work::Compaction { behind_max } => self.draw_compaction(behind_max),
            Work::Checkpoint => Call::Checkpoint,
            Work::Auth => self.draw_as_user(),
            Work::Lease(_) | Work::Lock(_) | Work::Election(_) | Work::Watch(_) => {
                unreachable!("sessions and watchers are not drawn here")
            }
        }
    }

    fn draw_mixed(&mut self) -> Call {
        match self.stream.below(100) {
            0..=29 => put(self.draw_put()),
            30..=44 => Call::Read(self.draw_range()),
            45..=56 => Call::LocalRead(self.draw_range()),
            57..=66 => delete(self.draw_delete()),
            67..=80 => {
                let request = self.draw_put();
                txn(self.swap(request))
            }
            81..=98 => txn(self.draw_txn()),
            _ => Call::Checkpoint,
        }
    }

    /// Reads a key, and swaps it the next time.
    fn draw_chain(&mut self) -> Call {
        if let Some(key) = self.chain.take() {
            let request = self.draw_put();
            return txn(self.swap(pb::PutRequest { key, ..request }));
        }
        let get = self.draw_get();
        self.chain = Some(get.key.clone());
        Call::Read(get)
    }

    /// Something that can be judged without knowing the log: a single key that only such operations touch.
    fn draw_register(&mut self) -> Call {
        let key = register(self.stream.below(self.group.keys));
        let value = Bytes::from(format!("{}.{}", self.number, self.operation));
        let request = pb::PutRequest {
            key: key.clone(),
            value,
            ..pb::PutRequest::default()
        };
        match self.stream.below(100) {
            0..=29 => put(request),
            30..=64 => Call::Read(one(key)),
            65..=89 => txn(self.swap(request)),
            _ => delete(pb::DeleteRangeRequest {
                key,
                ..pb::DeleteRangeRequest::default()
            }),
        }
    }

    fn draw_compaction(&mut self, behind_max: u64) -> Call {
        let revision = self.revision_seen - self.stream.below(behind_max.max(1)) as i64 + 1;
        let compaction = pb::CompactionRequest {
            revision: revision.max(1),
            physical: self.stream.chance(300_000),
        };
        propose(|request| request.compaction = Some(compaction))
    }

    fn draw_lease_call(&mut self, ttl_max: u64) -> Call {
        let known = (!self.leases.is_empty()).then(|| *self.stream.pick(&self.leases));
        match (self.stream.below(10), known) {
            (0..=3, _) | (_, None) => {
                let id = (self.number as i64 + 1) * 100_000 + self.leases.len() as i64 + 1;
                self.leases.push(id);
                let ttl = self.stream.between(1, ttl_max) as i64;
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

    fn draw_key(&mut self) -> Bytes {
        key(self.stream.below(self.group.keys))
    }

    pub(super) fn draw_put(&mut self) -> pb::PutRequest {
        let length = self.stream.below(self.group.value_bytes_max + 1) as usize;
        let tag = format!("{}.{}", self.number, self.operation);
        let value: Vec<u8> = tag.bytes().cycle().take(length).collect();
        let lease = match self.leases.last() {
            Some(&lease) if self.stream.chance(300_000) => lease,
            _ => 0,
        };
        let ignores_value = self.stream.chance(30_000);
        pb::PutRequest {
            key: self.draw_key(),
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

    pub(super) fn draw_delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.draw_keys();
        pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.stream.chance(300_000),
        }
    }

    /// One key, a few, or all from one on.
    pub(super) fn draw_keys(&mut self) -> (Bytes, Bytes) {
        let first = self.stream.below(self.group.keys);
        let end = match self.stream.below(10) {
            0..=6 => Bytes::new(),
            7 | 8 => key(first + self.stream.between(1, 4)),
            _ => Bytes::from_static(b"\0"),
        };
        (key(first), end)
    }

    pub(super) fn draw_range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.draw_keys();
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

    fn draw_get(&mut self) -> pb::RangeRequest {
        one(self.draw_key())
    }

    /// Puts this if the key is as it was seen last, else reads it.
    fn swap(&self, put: pb::PutRequest) -> pb::TxnRequest {
        let seen = self.revisions.get(&put.key).copied().unwrap_or(0);
        let read = one(put.key.clone());
        pb::TxnRequest {
            compare: vec![equals(put.key.clone(), TargetUnion::ModRevision(seen))],
            success: vec![operation(Request::RequestPut(put))],
            failure: vec![operation(Request::RequestRange(read))],
        }
    }

    /// A transaction of anything, as long as it is a legal one that writes.
    pub(super) fn draw_txn(&mut self) -> pb::TxnRequest {
        loop {
            let txn = self.draw_any_txn(2);
            if check_txn(&txn, 128).is_ok() && !quorate_core::request::is_read_only(&txn) {
                return txn;
            }
        }
    }

    fn draw_any_txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.stream.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.draw_compare()).collect(),
            success: self.draw_operations(depth),
            failure: self.draw_operations(depth),
        }
    }

    fn draw_operations(&mut self, depth: u32) -> Vec<pb::RequestOp> {
        let count = self.stream.below(4);
        let mut operations = Vec::new();
        for _ in 0..count {
            operations.push(operation(match self.stream.below(10) {
                0..=4 => Request::RequestPut(self.draw_put()),
                5 | 6 => Request::RequestDeleteRange(self.draw_delete()),
                7 if depth > 0 => Request::RequestTxn(self.draw_any_txn(depth - 1)),
                _ => Request::RequestRange(self.draw_range()),
            }));
        }
        operations
    }

    fn draw_compare(&mut self) -> pb::Compare {
        let (key, range_end) = self.draw_keys();
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

pub(super) fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}
