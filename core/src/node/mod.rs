//! The node (skeleton of the interface).
use std::sync::Arc;

use crate::boundary::{Config, Input, Output};
use crate::mvcc::View;
use crate::types::{Index, MemberId, Term, Time};
use quorate_proto::etcdserverpb as pb;

/// One member's state machine.
#[derive(Debug)]
pub struct Node {}

/// What was found on the disk.
#[derive(Debug)]
pub struct Recovered {}

/// What a member knows of itself and its cluster, for those who only look: services, metrics, health.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// The current term.
    pub term: Term,
    /// The commit index.
    pub committed: Index,
    /// The applied index.
    pub applied: Index,
    /// Alarms raised anywhere in the cluster, sorted.
    pub alarms: Arc<Vec<pb::AlarmMember>>,
    /// All members, sorted by id.
    pub members: Arc<Vec<pb::Member>>,
    /// The cluster version (`X.Y.0`), once decided.
    pub cluster_version: Option<String>,
    /// Bytes counted against the quota.
    pub size_bytes: i64,
    /// Bytes in use after compaction.
    pub size_in_use_bytes: i64,
    /// Proposals waiting for their answer.
    pub proposals_pending: usize,
}

impl Node {
    /// A member as it stood when it last stopped, or a new one.
    pub fn new(_config: Config, _recovered: Recovered, _now: Time) -> Self {
        todo!()
    }
    /// Takes one input. Nothing leaves before [`Node::flush`].
    pub fn handle(&mut self, _now: Time, _input: Input) {
        todo!()
    }
    /// Moves everything that may leave now into `out`, in order. Call once per batch of inputs.
    pub fn flush(&mut self, _out: &mut Vec<Output>) {
        todo!()
    }
    /// When to call `handle(Wake)` at the latest: the only timer.
    pub fn deadline(&self) -> Time {
        todo!()
    }
    /// Checks every invariant; panics with the name of the one that does not hold.
    pub fn check(&self) {
        todo!()
    }
    /// A handle to read the store with.
    pub fn view(&self) -> View {
        todo!()
    }
    /// What the outside may know.
    pub fn status(&self) -> Status {
        todo!()
    }
}
