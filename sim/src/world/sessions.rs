//! Clients with a lease of their own, which they keep alive: to put keys on it, to hold a lock, to stand for election.
//!
//! Lock and election are built as etcd's clients build them (`client/v3/concurrency`): a key named for the lease under
//! a common prefix; who has the lowest create revision is in; the others wait until everything below them is gone,
//! and then look whether their own key is still there, since their lease may have ended while they waited.
//!
//! ```text
//!   Granting ─► Entering ─► Waiting ─► Confirming ─► Inside ─► Leaving ─► (Entering again)
//!      ▲           │           └──────────►│ own key is gone      │
//!      └───────────┴── the lease is lost ──┴──────────────────────┴─► Silent: no more renewals ─► Granting
//! ```

use bytes::Bytes;
use quorate_core::boundary::Response;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op;

use super::clients::Answer;
use super::workload::{Call, delete, equals, key, one, operation, propose, put, txn};
use crate::check::lock::Entered;
use crate::load::{SessionWork, Work};
use crate::random::Stream;

const SECOND: u64 = 1_000_000_000;

/// A client's lease, and what it does with it.
pub(super) struct Session {
    number: u64,
    kind: Kind,
    work: SessionWork,
    /// How many leases it has asked for.
    leases: i64,
    lease: Option<Lease>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The lease is all that it wants; some keys hang on it.
    Lease,
    Lock,
    Election,
}

/// A lease as its holder knows it.
#[derive(Clone, Copy, Debug)]
struct Lease {
    id: i64,
    ttl_ns: u64,
    /// It lasts from here, at least for its TTL.
    renewed_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Wants a lease.
    Granting,
    /// Wants its key under the prefix.
    Entering,
    /// Waits until nothing with a lower create revision is left.
    Waiting { created: i64 },
    /// Looks whether its key is still there.
    Confirming { created: i64 },
    /// Is in.
    Inside { created: i64, until_ns: u64 },
    /// Deletes its key.
    Leaving,
    /// Renews no longer.
    Silent { until_ns: u64 },
}

impl Session {
    /// The session that this work needs, if it needs one.
    pub(super) fn new(number: u64, work: &Work) -> Option<Self> {
        let (kind, work) = match work {
            Work::Lease(work) => (Kind::Lease, *work),
            Work::Lock(work) => (Kind::Lock, *work),
            Work::Election(work) => (Kind::Election, *work),
            _ => return None,
        };
        Some(Self {
            number,
            kind,
            work,
            leases: 0,
            lease: None,
            stage: Stage::Granting,
        })
    }

    /// The next operation.
    pub(super) fn next(&mut self, now_ns: u64, revision: i64, stream: &mut Stream) -> Call {
        let Some(lease) = self.lease else {
            return self.grant(stream);
        };
        if let Stage::Silent { until_ns } = self.stage {
            if now_ns < until_ns {
                return Call::TimeToLive(lease.id);
            }
            return self.grant(stream);
        }
        if now_ns >= lease.renewed_ns + lease.ttl_ns / 3 {
            return Call::Renew(lease.id);
        }
        match self.stage {
            Stage::Granting | Stage::Entering if self.kind == Kind::Lease => {
                self.put_some(&lease, stream)
            }
            Stage::Granting | Stage::Entering => self.enter(&lease),
            Stage::Waiting { created } => Call::Read(pb::RangeRequest {
                max_create_revision: created - 1,
                limit: 1,
                ..self.everybody(SortOrder::Descend)
            }),
            Stage::Confirming { .. } => Call::Read(one(self.own_key(&lease))),
            Stage::Inside { created, until_ns } => {
                if now_ns >= until_ns {
                    self.leave(now_ns, &lease, stream)
                } else if self.kind == Kind::Election {
                    self.proclaim(&lease, created, revision)
                } else {
                    Call::TimeToLive(lease.id)
                }
            }
            Stage::Leaving => delete(pb::DeleteRangeRequest {
                key: self.own_key(&lease),
                ..pb::DeleteRangeRequest::default()
            }),
            Stage::Silent { .. } => unreachable!("decided above"),
        }
    }

    /// Takes an answer; tells when it enters.
    pub(super) fn hear(
        &mut self,
        now_ns: u64,
        call: &Call,
        answer: &Answer<'_>,
        stream: &mut Stream,
    ) -> Option<Entered> {
        match answer {
            Answer::Done(Response::LeaseGrant(granted)) => {
                self.stage = Stage::Entering;
                self.lease = Some(Lease {
                    id: granted.id,
                    ttl_ns: granted.ttl as u64 * SECOND,
                    renewed_ns: now_ns,
                });
                None
            }
            Answer::Done(Response::LeaseRenewed { ttl: 0 }) => self.lose_lease(),
            Answer::Done(Response::LeaseRenewed { .. }) => {
                if let (Some(lease), Call::Renew(id)) = (&mut self.lease, call)
                    && lease.id == *id
                {
                    lease.renewed_ns = now_ns;
                }
                None
            }
            Answer::Done(Response::Txn(response)) => self.on_txn(now_ns, response, stream),
            Answer::Done(Response::DeleteRange(_)) => {
                self.stage = Stage::Entering;
                None
            }
            Answer::Read(response) => self.on_read(now_ns, response, stream),
            _ => None,
        }
    }

    fn lose_lease(&mut self) -> Option<Entered> {
        self.lease = None;
        self.stage = Stage::Granting;
        None
    }

    fn on_txn(
        &mut self,
        now_ns: u64,
        response: &pb::TxnResponse,
        stream: &mut Stream,
    ) -> Option<Entered> {
        let revision = response.header.as_ref()?.revision;
        let ranges = response.responses.iter().filter_map(|operation| {
            match operation.response.as_ref()? {
                response_op::Response::ResponseRange(range) => Some(range),
                _ => None,
            }
        });
        let ranges: Vec<_> = ranges.collect();
        match self.stage {
            Stage::Entering => {
                let created = if response.succeeded {
                    revision
                } else {
                    ranges.first()?.kvs.first()?.create_revision
                };
                let first = ranges.last()?.kvs.first()?.create_revision;
                if first == created {
                    return self.come_in(now_ns, created, revision, stream);
                }
                self.stage = Stage::Waiting { created };
                None
            }
            Stage::Inside { created, .. } if self.kind == Kind::Election => {
                if !response.succeeded {
                    self.stage = Stage::Entering;
                    return None;
                }
                self.entered("proclaimed", created, revision)
            }
            _ => None,
        }
    }

    fn on_read(
        &mut self,
        now_ns: u64,
        response: &pb::RangeResponse,
        stream: &mut Stream,
    ) -> Option<Entered> {
        let revision = response.header.as_ref()?.revision;
        match self.stage {
            Stage::Waiting { created } if response.kvs.is_empty() => {
                self.stage = Stage::Confirming { created };
                None
            }
            Stage::Confirming { created } => match response.kvs.first() {
                Some(own) if own.create_revision == created => {
                    self.come_in(now_ns, created, revision, stream)
                }
                _ => self.lose_lease(),
            },
            _ => None,
        }
    }

    fn come_in(
        &mut self,
        now_ns: u64,
        created: i64,
        revision: i64,
        stream: &mut Stream,
    ) -> Option<Entered> {
        let until_ns = now_ns + stream.with_tail(self.work.hold_ns);
        self.stage = Stage::Inside { created, until_ns };
        let kind = match self.kind {
            Kind::Election => "leader chosen",
            _ => "lock taken",
        };
        self.entered(kind, created, revision)
    }

    fn entered(&self, kind: &'static str, created: i64, revision: i64) -> Option<Entered> {
        let lease = self.lease.as_ref()?;
        Some(Entered {
            kind,
            prefix: self.prefix(),
            key: self.own_key(lease),
            created,
            revision,
        })
    }

    fn grant(&mut self, stream: &mut Stream) -> Call {
        self.lease = None;
        self.stage = Stage::Granting;
        self.leases += 1;
        let id = (self.number as i64 + 1) * 1_000_000 + self.leases;
        let ttl = stream.between(1, self.work.ttl_max) as i64;
        propose(|request| request.lease_grant = Some(pb::LeaseGrantRequest { ttl, id }))
    }

    /// Keys on the lease, until it is given back, forgotten or lost.
    fn put_some(&mut self, lease: &Lease, stream: &mut Stream) -> Call {
        if stream.chance(60_000) {
            if stream.chance(self.work.silent_ppm) {
                self.stage = Stage::Silent {
                    until_ns: lease.renewed_ns + 2 * lease.ttl_ns,
                };
                return Call::TimeToLive(lease.id);
            }
            self.lose_lease();
            let revoke = pb::LeaseRevokeRequest { id: lease.id };
            return propose(|request| request.lease_revoke = Some(revoke));
        }
        put(pb::PutRequest {
            key: key(stream.below(6)),
            value: Bytes::from(lease.id.to_string()),
            lease: lease.id,
            ..pb::PutRequest::default()
        })
    }

    fn enter(&mut self, lease: &Lease) -> Call {
        self.stage = Stage::Entering;
        let own = self.own_key(lease);
        let put = pb::PutRequest {
            key: own.clone(),
            value: Bytes::from(self.number.to_string()),
            lease: lease.id,
            ..pb::PutRequest::default()
        };
        let first = pb::RangeRequest {
            limit: 1,
            ..self.everybody(SortOrder::Ascend)
        };
        let first = operation(Request::RequestRange(first));
        txn(pb::TxnRequest {
            compare: vec![equals(own.clone(), TargetUnion::CreateRevision(0))],
            success: vec![operation(Request::RequestPut(put)), first.clone()],
            failure: vec![operation(Request::RequestRange(one(own))), first],
        })
    }

    /// Says something as the one who holds the office.
    fn proclaim(&self, lease: &Lease, created: i64, revision: i64) -> Call {
        let own = self.own_key(lease);
        let put = pb::PutRequest {
            key: own.clone(),
            value: Bytes::from(format!("{} at {revision}", self.number)),
            lease: lease.id,
            ..pb::PutRequest::default()
        };
        txn(pb::TxnRequest {
            compare: vec![equals(own, TargetUnion::CreateRevision(created))],
            success: vec![operation(Request::RequestPut(put))],
            failure: Vec::new(),
        })
    }

    fn leave(&mut self, now_ns: u64, lease: &Lease, stream: &mut Stream) -> Call {
        if stream.chance(self.work.silent_ppm) {
            self.stage = Stage::Silent {
                until_ns: now_ns + 2 * lease.ttl_ns,
            };
            return Call::TimeToLive(lease.id);
        }
        self.stage = Stage::Leaving;
        delete(pb::DeleteRangeRequest {
            key: self.own_key(lease),
            ..pb::DeleteRangeRequest::default()
        })
    }

    fn prefix(&self) -> Bytes {
        Bytes::from_static(match self.kind {
            Kind::Election => b"office/",
            _ => b"lock/",
        })
    }

    fn own_key(&self, lease: &Lease) -> Bytes {
        let mut key = self.prefix().to_vec();
        key.extend(format!("{:x}", lease.id).bytes());
        key.into()
    }

    /// All keys under the prefix, by their creation.
    fn everybody(&self, order: SortOrder) -> pb::RangeRequest {
        let prefix = self.prefix();
        let mut range_end = prefix.to_vec();
        *range_end.last_mut().expect("a prefix is not empty") += 1;
        pb::RangeRequest {
            key: prefix,
            range_end: range_end.into(),
            sort_order: order as i32,
            sort_target: SortTarget::Create as i32,
            ..pb::RangeRequest::default()
        }
    }
}
