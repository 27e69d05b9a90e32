//! What clients asked and what they were told, with the times of both.

use quorate_proto::etcdserverpb as pb;

/// One call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was made, in simulated nanoseconds.
    pub invoked: u64,
    /// When it ended.
    pub returned: u64,
    /// What was asked.
    pub request: Request,
    /// How it ended.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A put, whose value no other put has.
    Put(pb::PutRequest),
    /// A deletion.
    Delete(pb::DeleteRangeRequest),
    /// A transaction.
    Txn(pb::TxnRequest),
    /// A read.
    Range(pb::RangeRequest),
    /// A compaction.
    Compact(pb::CompactionRequest),
    /// A lease is granted.
    Grant(pb::LeaseGrantRequest),
    /// A lease is ended.
    Revoke(pb::LeaseRevokeRequest),
    /// A lease is kept alive.
    KeepAlive(i64),
}

/// What a call was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of a put.
    Put(pb::PutResponse),
    /// Of a deletion.
    Delete(pb::DeleteRangeResponse),
    /// Of a transaction.
    Txn(pb::TxnResponse),
    /// Of a read.
    Range(pb::RangeResponse),
    /// Of a compaction.
    Compact(pb::CompactionResponse),
    /// Of a grant.
    Grant(pb::LeaseGrantResponse),
    /// Of a revocation.
    Revoke(pb::LeaseRevokeResponse),
    /// Of a renewal: the TTL, 0 if there is no such lease.
    KeepAlive(i64),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With an answer.
    Answered(Answer),
    /// No server was asked.
    NotSent,
    /// Refused, by the server's own words.
    Refused(String),
    /// Nobody knows what became of it.
    Unknown(String),
}

/// One watcher, over all its streams.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What it asked for at first.
    pub request: pb::WatchCreateRequest,
    /// All that it was told, in order; a new watcher follows where one was cancelled.
    pub responses: Vec<pb::WatchResponse>,
    /// The revision up to which it has been told everything.
    pub reached: i64,
}

/// Everything that happened on the clients' side.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Calls, in the order of their ends.
    pub calls: Vec<Call>,
    /// Watchers.
    pub watches: Vec<Watched>,
}
