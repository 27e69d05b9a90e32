//! Random operations, legal and not: every field of every request, over few keys, so that they meet.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// What the generator knows of the servers, to aim at the edges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) revision: i64,
    pub(super) compacted: i64,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    LeaseLeases,
    HashKv(pb::HashKvRequest),
    Alarm(pb::AlarmRequest),
    WatchCreate(pb::WatchCreateRequest),
    WatchCancel(i64),
}

impl Operation {
    /// The name for counts and reports.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Put(_) => "put",
            Self::DeleteRange(_) => "delete",
            Self::Txn(_) => "txn",
            Self::Compact(_) => "compact",
            Self::LeaseGrant(_) => "lease grant",
            Self::LeaseRevoke(_) => "lease revoke",
            Self::LeaseKeepAlive(_) => "lease keep-alive",
            Self::LeaseTimeToLive(_) => "lease time-to-live",
            Self::LeaseLeases => "lease list",
            Self::HashKv(_) => "hashkv",
            Self::Alarm(_) => "alarm",
            Self::WatchCreate(_) => "watch create",
            Self::WatchCancel(_) => "watch cancel",
        }
    }
}

/// The source of operations.
pub(super) struct Generator {
    random: SmallRng,
    next_watch: i64,
    /// Watchers that were created and not cancelled; bounded, or a long run would be all about them.
    open_watches: Vec<i64>,
    /// Whether the transaction being made deletes. One that deletes a key and then puts it with `ignore_value` or
    /// `ignore_lease` makes etcd 3.7.1 panic, so each transaction does one of the two.
    txn_deletes: bool,
}

const PARTS: [&[u8]; 6] = [b"a", b"b", b"c", b"\x00", b"\xff", b"zz"];
/// Leases live longer than any run, so that no clock decides anything.
const TTL_MIN: i64 = 100_000;
/// Watchers at a time.
const OPEN_WATCHES_MAX: usize = 60;

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            next_watch: 1,
            open_watches: Vec::new(),
            txn_deletes: false,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn pick(&mut self, from: &[i64]) -> i64 {
        *from.choose(&mut self.random).expect("a choice")
    }

    pub(super) fn next(&mut self, known: Known) -> Operation {
        match self.random.random_range(0..1000) {
            0..300 => Operation::Put(self.put(true)),
            300..520 => Operation::Range(self.range(known, false)),
            520..620 => Operation::DeleteRange(self.delete_range()),
            620..820 => {
                self.txn_deletes = self.chance(60);
                Operation::Txn(self.txn(known, 0))
            }
            820..830 => Operation::Compact(self.compaction(known)),
            830..870 => Operation::LeaseGrant(pb::LeaseGrantRequest {
                id: self.lease(),
                ttl: TTL_MIN + self.random.random_range(0..1000) * 10,
            }),
            870..890 => Operation::LeaseRevoke(pb::LeaseRevokeRequest { id: self.lease() }),
            890..905 => Operation::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: self.lease() }),
            905..925 => {
                let keys = self.chance(50);
                Operation::LeaseTimeToLive(pb::LeaseTimeToLiveRequest {
                    id: self.lease(),
                    keys,
                })
            }
            925..935 => Operation::LeaseLeases,
            935..955 => Operation::HashKv(pb::HashKvRequest {
                revision: self.revision(known),
            }),
            955..960 => Operation::Alarm(pb::AlarmRequest {
                alarm: self.pick(&[0, 1, 2]) as i32,
                ..Default::default()
            }),
            960..985 if self.open_watches.len() < OPEN_WATCHES_MAX => {
                Operation::WatchCreate(self.watch(known))
            }
            _ => Operation::WatchCancel(self.watch_to_cancel()),
        }
    }

    /// Usually one that is open, now and then one that never was or is no more.
    fn watch_to_cancel(&mut self) -> i64 {
        if self.open_watches.is_empty() || self.chance(15) {
            return self.random.random_range(1..self.next_watch.max(2));
        }
        let index = self.random.random_range(0..self.open_watches.len());
        self.open_watches.swap_remove(index)
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) {
            return Bytes::new();
        }
        let mut key = Vec::new();
        for _ in 0..self.random.random_range(1..=3) {
            key.extend_from_slice(PARTS.choose(&mut self.random).expect("a part"));
        }
        Bytes::from(key)
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.random_range(0..10) {
            0..4 => Bytes::new(),
            4..6 => Bytes::from_static(b"\x00"),
            _ => self.key(),
        }
    }

    fn lease(&mut self) -> i64 {
        if self.chance(3) {
            self.pick(&[-7, i64::MAX, i64::MIN])
        } else {
            self.random.random_range(1..12)
        }
    }

    /// A revision around what exists.
    fn revision(&mut self, known: Known) -> i64 {
        match self.random.random_range(0..20) {
            0..10 => 0,
            10 => known.revision + self.random.random_range(1..4),
            11 => known.compacted,
            12 => known.compacted - 1,
            13 => known.compacted + 1,
            14 => known.revision,
            _ => self
                .random
                .random_range(known.compacted.max(1)..=known.revision.max(1)),
        }
    }

    fn put(&mut self, alone: bool) -> pb::PutRequest {
        let may_ignore = alone || !self.txn_deletes;
        let ignore_value = may_ignore && self.chance(6);
        let ignore_lease = may_ignore && self.chance(6);
        let value_length = if self.chance(2) {
            5000
        } else {
            self.random.random_range(0..12)
        };
        let value: Vec<u8> = (0..value_length)
            .map(|_| self.random.random_range(b'a'..b'd'))
            .collect();
        let keeps_value = ignore_value && !self.chance(5);
        let has_lease = self.chance(20) && (!ignore_lease || self.chance(5));
        pb::PutRequest {
            key: self.key(),
            value: if keeps_value {
                Bytes::new()
            } else {
                Bytes::from(value)
            },
            lease: if has_lease { self.lease() } else { 0 },
            prev_kv: self.chance(30),
            ignore_value,
            ignore_lease,
        }
    }

    fn range(&mut self, known: Known, in_txn: bool) -> pb::RangeRequest {
        let mut request = pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            ..pb::RangeRequest::default()
        };
        request.revision = if in_txn && self.chance(70) {
            0
        } else {
            self.revision(known)
        };
        if self.chance(40) {
            request.limit = self.pick(&[1, 2, 3, 7, 50, -1]);
        }
        if self.chance(40) {
            request.sort_order = self.random.random_range(0..3);
            request.sort_target = self.random.random_range(0..5);
        }
        if self.chance(1) {
            request.sort_order = 9;
        }
        if self.chance(1) {
            request.sort_target = 8;
        }
        request.serializable = self.chance(30);
        request.keys_only = self.chance(15);
        request.count_only = self.chance(10);
        let bounds = [
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ];
        for bound in bounds {
            if self.random.random_ratio(8, 100) {
                *bound = self.random.random_range(-1..=known.revision.max(1));
            }
        }
        request
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        // Deleting everything at each turn would leave nothing to talk about.
        let range_end = if self.chance(85) {
            Bytes::new()
        } else {
            self.range_end()
        };
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end,
            prev_kv: self.chance(40),
        }
    }

    fn compaction(&mut self, known: Known) -> pb::CompactionRequest {
        let revision = match self.random.random_range(0..6) {
            0 => known.compacted,
            1 => known.revision + 1,
            2 => known.revision,
            _ => self
                .random
                .random_range(known.compacted.max(0)..=known.revision.max(1)),
        };
        pb::CompactionRequest {
            revision,
            physical: self.chance(50),
        }
    }

    fn compare(&mut self, known: Known) -> pb::Compare {
        let target = self.random.random_range(0..5);
        let number = self.random.random_range(0..=known.revision.max(1));
        let of = if self.chance(95) {
            target
        } else {
            self.random.random_range(0..5)
        };
        let target_union = match of {
            0 => TargetUnion::Version(number % 4),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(Bytes::from_static(b"ab")),
            _ => TargetUnion::Lease(number % 12),
        };
        let has_target = self.chance(97);
        pb::Compare {
            result: self.random.random_range(0..4),
            target,
            key: self.key(),
            range_end: if self.chance(20) {
                self.range_end()
            } else {
                Bytes::new()
            },
            target_union: has_target.then_some(target_union),
        }
    }

    fn txn(&mut self, known: Known, depth: u32) -> pb::TxnRequest {
        let compares = self.random.random_range(0..3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare(known)).collect(),
            success: self.operations(known, depth),
            failure: self.operations(known, depth),
        }
    }

    fn operations(&mut self, known: Known, depth: u32) -> Vec<pb::RequestOp> {
        let many = depth == 0 && self.random.random_ratio(1, 500);
        let count = if many {
            129
        } else {
            self.random.random_range(0..4)
        };
        (0..count)
            .map(|_| pb::RequestOp {
                request: self.operation(known, depth),
            })
            .collect()
    }

    fn operation(&mut self, known: Known, depth: u32) -> Option<Request> {
        Some(match self.random.random_range(0..100) {
            0..35 => Request::RequestRange(self.range(known, true)),
            35..75 => Request::RequestPut(self.put(false)),
            75..88 if self.txn_deletes => Request::RequestDeleteRange(self.delete_range()),
            88 if self.chance(20) => return None,
            _ if depth < 2 => Request::RequestTxn(self.txn(known, depth + 1)),
            _ => Request::RequestPut(self.put(false)),
        })
    }

    fn watch(&mut self, known: Known) -> pb::WatchCreateRequest {
        let watch_id = if self.chance(5) {
            self.random.random_range(1..self.next_watch.max(2))
        } else {
            self.next_watch
        };
        self.next_watch = self.next_watch.max(watch_id + 1);
        self.open_watches.push(watch_id);
        let filters = (0..2)
            .filter(|_| self.random.random_ratio(10, 100))
            .collect();
        let start_revision = match self.random.random_range(0..10) {
            0 => -1,
            1 => known.revision + 1,
            2 => known.revision + self.random.random_range(2..30),
            3..6 => 0,
            _ => self.revision(known),
        };
        pb::WatchCreateRequest {
            key: if self.chance(2) {
                Bytes::new()
            } else {
                self.key()
            },
            range_end: self.range_end(),
            start_revision,
            progress_notify: false,
            filters,
            prev_kv: self.chance(40),
            watch_id,
            fragment: self.chance(20),
        }
    }
}
