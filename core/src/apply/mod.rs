//! Apply: the state that the log builds, one entry at a time.
//!
//! [`State`] is a pure function of the entries applied to it: equal entries make equal states on every member, down
//! to the bytes of the checkpoint image. Time enters only where it is not replicated (when this member's lessor lets
//! a lease end), local sizes only in the answer given to a client, never in what is stored.
//!
//! The order of the checks is etcd's: who may administer, corrupt alarm, no-space alarm, permissions, quota, store.

pub mod kv;

use std::collections::BTreeSet;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb;

use crate::apply::kv::Answer;
use crate::auth::{self, Auth, Identity};
use crate::boundary::{Config, Response};
use crate::checkpoint::{Contents, Downgrade, Job, STORAGE_VERSION};
use crate::error::RequestError;
use crate::lease::Lessor;
use crate::member::Membership;
use crate::member::version::major_minor;
use crate::mvcc::Store;
use crate::request;
use crate::types::{Index, LeaseId, MemberId, Term, Time};

/// What an entry did, as far as its proposer is concerned.
pub(crate) type Applied = Result<Response, RequestError>;

/// Everything that the log builds.
#[derive(Debug)]
pub struct State {
    /// Keys and revisions.
    pub(crate) store: Store,
    /// Leases.
    pub(crate) lessor: Lessor,
    /// Members.
    pub(crate) membership: Membership,
    /// (member, alarm type), as etcd's `alarm` bucket holds them.
    pub(crate) alarms: BTreeSet<(u64, i32)>,
    /// Users, roles and the switch.
    pub(crate) auth: Auth,
    /// `X.Y.0`, once the leader has decided.
    pub(crate) cluster_version: Option<String>,
    /// A downgrade in progress.
    pub(crate) downgrade: Option<Downgrade>,
    /// The last entry applied.
    pub(crate) index: Index,
    /// Its term.
    pub(crate) term: Term,
}

/// An entry that this version cannot apply. The member must stop: going on would make it differ from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log entry at index {index} cannot be applied by this version: {reason}")]
pub struct ApplyError {
    /// The entry.
    pub index: u64,
    /// What is not understood.
    pub reason: String,
}

impl State {
    /// The state before the first entry.
    pub fn new(lessor: Lessor) -> Self {
        Self {
            store: Store::new(),
            lessor,
            membership: Membership::default(),
            alarms: BTreeSet::new(),
            auth: Auth::default(),
            cluster_version: None,
            downgrade: None,
            index: Index(0),
            term: Term(0),
        }
    }

    /// What a checkpoint of this state holds.
    pub(crate) fn checkpoint(&self) -> Job {
        let alarms = self
            .alarms
            .iter()
            .map(|&(member_id, alarm)| pb::AlarmMember { member_id, alarm });
        let contents = Contents {
            consistent_index: self.index,
            term: self.term,
            conf_state: self.membership.conf_state(),
            storage_version: Some(storage_version(self.cluster_version.as_deref()).to_string()),
            scheduled_compact: self.store.scheduled_compaction(),
            finished_compact: self.store.finished_compaction(),
            leases: self.lessor.export().collect(),
            alarms: alarms.collect(),
            auth: self.auth.export(),
            cluster_version: self.cluster_version.clone(),
            downgrade: self.downgrade.clone(),
            members: self.membership.members().cloned().collect(),
            members_removed: self.membership.removed().collect(),
        };
        Job::new(contents, &self.store.view())
    }

    /// Applies a request; the caller has set [`State::index`] to its entry. `now` starts leases on a leader.
    pub(crate) fn apply(
        &mut self,
        now: Time,
        config: &Config,
        request: &pb::InternalRaftRequest,
        answer: Answer,
    ) -> Result<Applied, ApplyError> {
        if has_plain_password(request) {
            return Err(ApplyError {
                index: self.index.0,
                reason: "it holds a password instead of its hash, as etcd before 3.5 wrote it"
                    .into(),
            });
        }
        if let Err(refusal) = self.permit(request) {
            return Ok(Err(refusal));
        }
        let fits = request::fits_quota(
            self.store.size_bytes(),
            quota_cost(request),
            config.quota_bytes,
        );
        let dispatched = self.dispatch(now, request, answer);
        let Some(applied) = dispatched else {
            return Err(ApplyError {
                index: self.index.0,
                reason: unknown_kind(request),
            });
        };
        // Members may differ in size, so being over the quota changes the answer only, never the state.
        Ok(if fits {
            applied
        } else {
            applied.and(Err(RequestError::NoSpace))
        })
    }

    /// Everything that can forbid a request; replicated, so that it is the same on every member.
    fn permit(&self, request: &pb::InternalRaftRequest) -> Result<(), RequestError> {
        let rules = self.auth.rules();
        if !rules.is_enabled() {
            return self.refuse_by_alarm(request);
        }
        let who = request.header.as_ref().map(|header| Identity {
            user: header.username.clone(),
            revision: header.auth_revision,
        });
        let who = who.unwrap_or_default();
        auth::permit_admin(rules, &who, request)?;
        self.refuse_by_alarm(request)?;
        auth::permit(rules, &self.lessor, &who, request)
    }

    fn dispatch(
        &mut self,
        now: Time,
        request: &pb::InternalRaftRequest,
        answer: Answer,
    ) -> Option<Applied> {
        let Self { store, lessor, .. } = self;
        if let Some(put) = &request.put {
            return Some(kv::put(store, lessor, put).map(Response::Put));
        }
        if let Some(txn) = &request.txn {
            return Some(kv::txn(store, lessor, txn, answer).map(Response::Txn));
        }
        if let Some(delete) = &request.delete_range {
            return Some(
                kv::delete_range(store, lessor, delete, answer).map(Response::DeleteRange),
            );
        }
        if let Some(compaction) = &request.compaction {
            return Some(kv::compact(store, compaction).map(Response::Compact));
        }
        if let Some(grant) = &request.lease_grant {
            return Some(self.grant_lease(now, grant));
        }
        if let Some(revoke) = &request.lease_revoke {
            return Some(self.revoke_lease(LeaseId(revoke.id)));
        }
        if let Some(checkpoints) = &request.lease_checkpoint {
            for checkpoint in &checkpoints.checkpoints {
                self.lessor
                    .checkpoint(now, LeaseId(checkpoint.id), checkpoint.remaining_ttl);
            }
            return Some(Ok(Response::Done));
        }
        if let Some(alarm) = &request.alarm {
            return Some(self.apply_alarm(alarm));
        }
        let header = self.header();
        self.auth
            .apply(self.index, header, request)
            .or_else(|| self.dispatch_cluster(request))
    }

    fn dispatch_cluster(&mut self, request: &pb::InternalRaftRequest) -> Option<Applied> {
        if let Some(set) = &request.cluster_member_attr_set {
            let attributes = set.member_attributes.clone().unwrap_or_default();
            self.membership.set_attributes(
                MemberId(set.member_id),
                attributes.name,
                attributes.client_urls,
            );
        } else if let Some(set) = &request.cluster_version_set {
            self.cluster_version = Some(set.ver.clone());
        } else if let Some(set) = &request.downgrade_info_set {
            let target_version = if set.enabled {
                set.ver.clone()
            } else {
                String::new()
            };
            self.downgrade = Some(Downgrade {
                target_version,
                enabled: set.enabled,
            });
        } else if request.range.is_none() && request.downgrade_version_test.is_none() {
            return None;
        }
        // A range in the log has no effect, nor has the entry that etcd's own tests write; etcd skips both, too.
        Some(Ok(Response::Done))
    }

    fn grant_lease(&mut self, now: Time, grant: &pb::LeaseGrantRequest) -> Applied {
        let ttl = self.lessor.grant(now, LeaseId(grant.id), grant.ttl)?;
        let header = Some(self.header());
        Ok(Response::LeaseGrant(pb::LeaseGrantResponse {
            header,
            id: grant.id,
            ttl,
            error: String::new(),
        }))
    }

    fn revoke_lease(&mut self, id: LeaseId) -> Applied {
        let keys = self.lessor.revoke(id)?;
        kv::delete_leased_keys(&mut self.store, &mut self.lessor, keys);
        Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse {
            header: Some(self.header()),
        }))
    }

    fn apply_alarm(&mut self, request: &pb::AlarmRequest) -> Applied {
        use pb::alarm_request::AlarmAction;
        let key = (request.member_id, request.alarm);
        let none = pb::AlarmType::None as i32;
        let to_proto = |(member_id, alarm): (u64, i32)| pb::AlarmMember { member_id, alarm };
        let alarms: Vec<_> = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                let wanted = |alarm: i32| request.alarm == none || request.alarm == alarm;
                self.alarms
                    .iter()
                    .copied()
                    .filter(|&(_, alarm)| wanted(alarm))
                    .map(to_proto)
                    .collect()
            }
            Ok(AlarmAction::Activate) if request.alarm == none => Vec::new(),
            Ok(AlarmAction::Activate) => {
                self.alarms.insert(key);
                vec![to_proto(key)]
            }
            Ok(AlarmAction::Deactivate) => {
                self.alarms.take(&key).map(to_proto).into_iter().collect()
            }
            Err(_) => return Ok(Response::Alarm(pb::AlarmResponse::default())),
        };
        Ok(Response::Alarm(pb::AlarmResponse {
            header: Some(self.header()),
            alarms,
        }))
    }

    fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            revision: self.store.revision().0,
            ..Default::default()
        }
    }

    pub(crate) fn has_alarm(&self, alarm: pb::AlarmType) -> bool {
        self.alarms
            .iter()
            .any(|&(_, raised)| raised == alarm as i32)
    }

    /// Alarms are replicated, so a refusal because of one is the same on every member.
    fn refuse_by_alarm(&self, request: &pb::InternalRaftRequest) -> Result<(), RequestError> {
        let writes_keys = request.put.is_some() || request.txn.is_some();
        if self.has_alarm(pb::AlarmType::Corrupt) {
            let refused = writes_keys
                || request.delete_range.is_some()
                || request.compaction.is_some()
                || request.lease_grant.is_some()
                || request.lease_revoke.is_some();
            if refused {
                return Err(RequestError::Corrupt);
            }
        }
        if self.has_alarm(pb::AlarmType::Nospace) {
            let grows = request.put.is_some()
                || request.lease_grant.is_some()
                || request
                    .txn
                    .as_ref()
                    .is_some_and(|txn| request::txn_cost_bytes(txn) > 0);
            if grows {
                return Err(RequestError::NoSpace);
            }
        }
        Ok(())
    }
}

/// The storage follows the cluster's version, so that after a downgrade the earlier version reads it; 3.7 has added
/// nothing to that of 3.6.
fn storage_version(cluster_version: Option<&str>) -> &'static str {
    match cluster_version.and_then(major_minor) {
        Some((3, 6)) => "3.6.0",
        _ => STORAGE_VERSION,
    }
}

/// Whether applying the request would take entropy: a password must be hashed before it is proposed.
fn has_plain_password(request: &pb::InternalRaftRequest) -> bool {
    if let Some(add) = &request.auth_user_add {
        let needs_none = add.options.is_some_and(|options| options.no_password);
        return !needs_none && !add.password.is_empty() && add.hashed_password.is_empty();
    }
    request
        .auth_user_change_password
        .as_ref()
        .is_some_and(|change| !change.password.is_empty() && change.hashed_password.is_empty())
}

fn quota_cost(request: &pb::InternalRaftRequest) -> u64 {
    if let Some(put) = &request.put {
        return request::put_cost_bytes(put);
    }
    if let Some(txn) = &request.txn {
        return request::txn_cost_bytes(txn);
    }
    if request.lease_grant.is_some() {
        request::LEASE_GRANT_BYTES
    } else {
        0
    }
}

fn unknown_kind(request: &pb::InternalRaftRequest) -> String {
    let id = request
        .header
        .as_ref()
        .map_or(request.id, |header| header.id);
    format!(
        "request {id:x} is of a kind that is not known, of etcd's v2 API or of a newer etcd; {WAY_OUT}"
    )
}

/// What an operator does about an entry that this version cannot apply.
pub(crate) const WAY_OUT: &str = "start the etcd that wrote it on this data directory, let it write a snapshot (it does \
                                  after --snapshot-count requests), and stop it";

/// The payload of the request that adds a member at the birth of a cluster, as a log entry.
pub(crate) fn bootstrap_entries(changes: &[raftpb::ConfChange]) -> Vec<raftpb::Entry> {
    (1..)
        .zip(changes)
        .map(|(index, change)| raftpb::Entry::conf_change(1, index, change))
        .collect()
}
