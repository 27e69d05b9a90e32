//! What a member did and how long it took, for metrics: nothing here decides anything.
//!
//! The core has no clock. Who drives a node may lend it one for durations ([`Node::set_stopwatch`]); without it nothing
//! is timed, and whatever it shows, no output depends on it.

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;

use super::Node;
use crate::apply;
use crate::boundary::Response;
use crate::mvcc;

/// The upper bounds of [`Counts::lease_ttls`], in seconds: powers of two.
pub const LEASE_TTL_BOUNDS: usize = 24;

/// What this process has done as a member; grows only, but for [`Counts::is_compacting`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The work of the store.
    pub store: mvcc::Counts,
    /// Leases granted.
    pub leases_granted: u64,
    /// Leases revoked, those that ended included.
    pub leases_revoked: u64,
    /// Leases renewed; by the leader alone.
    pub leases_renewed: u64,
    /// Leases whose end this member has proposed as the leader.
    pub leases_expired: u64,
    /// Granted leases by their TTL: up to 2^n seconds and more than the bound before, and last those above all.
    pub lease_ttls: [u64; LEASE_TTL_BOUNDS + 1],
    /// The sum of the granted TTLs, in seconds.
    pub lease_ttl_seconds: u64,
    /// Heartbeats that left more than an interval late, one for each follower.
    pub heartbeats_late: u64,
    /// Compactions that were begun.
    pub compactions: u64,
    /// Whether one is not over.
    pub is_compacting: bool,
}

/// A request that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// How etcd calls it.
    pub operation: &'static str,
    /// Whether it was not refused.
    pub succeeded: bool,
    /// How long it took.
    pub took: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) counts: Counts,
    stopwatch: Option<fn() -> Duration>,
    applied: Vec<Applied>,
}

impl Measured {
    /// The time now, if anybody wants to know.
    pub(super) fn began(&self) -> Option<Duration> {
        self.stopwatch.map(|stopwatch| stopwatch())
    }

    /// Notes a request that was applied.
    pub(super) fn applied(
        &mut self,
        began: Option<Duration>,
        operation: &'static str,
        applied: &apply::Applied,
    ) {
        match applied {
            Ok(Response::LeaseGrant(granted)) => self.granted(granted.ttl),
            Ok(Response::LeaseRevoke(_)) => self.counts.leases_revoked += 1,
            Ok(Response::Compact(_)) => self.counts.compactions += 1,
            _ => {}
        }
        if let (Some(began), Some(now)) = (began, self.began()) {
            let took = now.saturating_sub(began);
            let succeeded = applied.is_ok();
            self.applied.push(Applied {
                operation,
                succeeded,
                took,
            });
        }
    }

    fn granted(&mut self, ttl: i64) {
        let seconds = u64::try_from(ttl).expect("a granted lease lasts some time");
        let bound = (0..LEASE_TTL_BOUNDS).find(|bound| seconds <= 1 << bound);
        self.counts.leases_granted += 1;
        self.counts.lease_ttls[bound.unwrap_or(LEASE_TTL_BOUNDS)] += 1;
        self.counts.lease_ttl_seconds += seconds;
    }
}

impl Node {
    /// Lends a clock to measure with; it must never go back. What it measures is to be fetched with
    /// [`Self::take_applied`] after each flush.
    pub fn set_stopwatch(&mut self, stopwatch: fn() -> Duration) {
        self.measured.stopwatch = Some(stopwatch);
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            store: self.state.store.counts(),
            is_compacting: self.state.store.is_compacting(),
            ..self.measured.counts
        }
    }

    /// The requests that were applied since the last call.
    pub fn take_applied(&mut self) -> impl Iterator<Item = Applied> + '_ {
        self.measured.applied.drain(..)
    }
}

/// How etcd calls a request in its metrics; one of a kind that it never applies is `unknown`.
pub(super) fn operation(request: &pb::InternalRaftRequest) -> &'static str {
    let kinds = [
        (request.put.is_some(), "Put"),
        (request.txn.is_some(), "Txn"),
        (request.delete_range.is_some(), "DeleteRange"),
        (request.lease_grant.is_some(), "LeaseGrant"),
        (request.lease_revoke.is_some(), "LeaseRevoke"),
        (request.lease_checkpoint.is_some(), "LeaseCheckpoint"),
        (request.compaction.is_some(), "Compaction"),
        (request.range.is_some(), "Range"),
        (request.alarm.is_some(), "Alarm"),
        (request.cluster_version_set.is_some(), "ClusterVersionSet"),
        (
            request.cluster_member_attr_set.is_some(),
            "ClusterMemberAttrSet",
        ),
        (request.downgrade_info_set.is_some(), "DowngradeInfoSet"),
        (
            request.downgrade_version_test.is_some(),
            "DowngradeVersionTest",
        ),
    ];
    let known = kinds.iter().find(|(is_it, _)| *is_it);
    known.map_or_else(|| auth_operation(request), |(_, name)| name)
}

fn auth_operation(request: &pb::InternalRaftRequest) -> &'static str {
    let kinds = [
        (request.authenticate.is_some(), "Authenticate"),
        (request.auth_enable.is_some(), "AuthEnable"),
        (request.auth_disable.is_some(), "AuthDisable"),
        (request.auth_user_add.is_some(), "AuthUserAdd"),
        (request.auth_user_delete.is_some(), "AuthUserDelete"),
        (
            request.auth_user_change_password.is_some(),
            "AuthUserChangePassword",
        ),
        (request.auth_user_grant_role.is_some(), "AuthUserGrantRole"),
        (request.auth_user_get.is_some(), "AuthUserGet"),
        (
            request.auth_user_revoke_role.is_some(),
            "AuthUserRevokeRole",
        ),
        (request.auth_role_add.is_some(), "AuthRoleAdd"),
        (
            request.auth_role_grant_permission.is_some(),
            "AuthRoleGrantPermission",
        ),
        (request.auth_role_get.is_some(), "AuthRoleGet"),
        (
            request.auth_role_revoke_permission.is_some(),
            "AuthRoleRevokePermission",
        ),
        (request.auth_role_delete.is_some(), "AuthRoleDelete"),
        (request.auth_user_list.is_some(), "AuthUserList"),
        (request.auth_role_list.is_some(), "AuthRoleList"),
    ];
    let known = kinds.iter().find(|(is_it, _)| *is_it);
    known.map_or("unknown", |(_, name)| name)
}
