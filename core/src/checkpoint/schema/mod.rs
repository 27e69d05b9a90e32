//! What etcd keeps in its database beside the keys' history, and where.
//!
//! This module owns the buckets, their keys and the forms of their values; it never decides anything from them.
//!
//! ```text
//! alarm            AlarmMember message -> ""
//! auth             authEnabled -> 01 | 00, once it was ever enabled;  authRevision -> u64
//! authRoles        name -> Role message
//! authUsers        name -> User message
//! cluster          clusterVersion -> "3.7.0";  downgrade -> JSON, once there was one
//! key              main i64, '_', sub i64 [, 't' for a tombstone] -> KeyValue message
//! lease            id i64 -> Lease message
//! members          id in hex -> JSON
//! members_removed  id in hex -> "removed"
//! meta             consistent_index -> u64;  term -> u64;  confState -> JSON;  storageVersion -> "3.7.0";
//!                  scheduledCompactRev, finishedCompactRev -> main i64, '_', sub i64
//! ```
//!
//! Numbers are big-endian here, so that keys sort by number. A key that etcd has not written at that point of its
//! life is not written by us either.

mod decode;
mod encode;

use quorate_proto::authpb::{Role, User};
use quorate_proto::etcdserverpb::AlarmMember;
use quorate_proto::leasepb::Lease;
use quorate_proto::raftpb::ConfState;
use serde::{Deserialize, Serialize};

pub use decode::Rows;
pub(super) use decode::read;
pub(crate) use decode::row;
pub(super) use encode::write;

use super::json::{null_is_empty, to_go_json};
use crate::types::{Index, MemberId, Revision, Term};

/// The auth revision of a store on which nothing was ever changed.
pub const AUTH_REVISION_FIRST: u64 = 1;

/// Everything in an image but the keys' history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The last applied entry; 0 for none.
    pub consistent_index: Index,
    /// That entry's term; 0 when unknown.
    pub term: Term,
    /// The voters and learners, ascending; empty when no membership was applied yet.
    pub conf_state: ConfState,
    /// The storage schema, `3.7.0`; an image of etcd 3.5 has none.
    pub storage_version: Option<String>,
    /// The last compaction asked for.
    pub scheduled_compact: Option<Revision>,
    /// The last compaction whose rows are gone.
    pub finished_compact: Option<Revision>,
    /// The leases, by id as unsigned number when read.
    pub leases: Vec<Lease>,
    /// The active alarms.
    pub alarms: Vec<AlarmMember>,
    /// Users and roles.
    pub auth: AuthContents,
    /// The cluster version, `3.7.0`; `None` until the first leader has set it.
    pub cluster_version: Option<String>,
    /// The state of a downgrade; `None` when there never was one.
    pub downgrade: Option<Downgrade>,
    /// The members.
    pub members: Vec<MemberRecord>,
    /// Ids that were members once.
    pub members_removed: Vec<MemberId>,
}

/// The auth store.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthContents {
    /// Whether auth is on; `None` when it was never switched, which differs from off in the image only.
    pub enabled: Option<bool>,
    /// Grows with each change of users and roles; [`AUTH_REVISION_FIRST`] at first.
    pub revision: u64,
    /// The users, by name when read.
    pub users: Vec<User>,
    /// The roles, by name when read.
    pub roles: Vec<Role>,
}

impl Default for AuthContents {
    fn default() -> Self {
        Self {
            enabled: None,
            revision: AUTH_REVISION_FIRST,
            users: Vec::new(),
            roles: Vec::new(),
        }
    }
}

/// How far a downgrade of the cluster has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// The version to go to; empty when none is under way.
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    /// Whether a downgrade is under way.
    #[serde(default)]
    pub enabled: bool,
}

/// A member of the cluster. Its JSON is also the context of the conf change that adds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "MemberJson", into = "MemberJson")]
pub struct MemberRecord {
    /// Who.
    pub id: MemberId,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Its name; empty until it has published itself.
    pub name: String,
    /// Where clients reach it; empty until it has published itself.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

impl MemberRecord {
    /// The JSON that etcd writes, in its field order.
    pub fn to_json(&self) -> Vec<u8> {
        to_go_json(self)
    }

    /// The member in this JSON; fields that are not known are skipped.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

#[derive(Serialize, Deserialize)]
struct MemberJson {
    id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_empty")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(
        rename = "clientURLs",
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    client_urls: Vec<String>,
}

impl From<MemberRecord> for MemberJson {
    fn from(member: MemberRecord) -> Self {
        let MemberRecord {
            id,
            peer_urls,
            name,
            client_urls,
            is_learner,
        } = member;
        Self {
            id: id.0,
            peer_urls,
            is_learner,
            name,
            client_urls,
        }
    }
}

impl From<MemberJson> for MemberRecord {
    fn from(member: MemberJson) -> Self {
        let MemberJson {
            id,
            peer_urls,
            is_learner,
            name,
            client_urls,
        } = member;
        Self {
            id: MemberId(id),
            peer_urls,
            name,
            client_urls,
            is_learner,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct ConfStateJson {
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    voters: Vec<u64>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    learners: Vec<u64>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    voters_outgoing: Vec<u64>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    learners_next: Vec<u64>,
    #[serde(default)]
    auto_leave: bool,
}

impl From<&ConfState> for ConfStateJson {
    fn from(state: &ConfState) -> Self {
        let ConfState {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        } = state.clone();
        Self {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        }
    }
}

impl From<ConfStateJson> for ConfState {
    fn from(state: ConfStateJson) -> Self {
        let ConfStateJson {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        } = state;
        Self {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes the field by reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

mod bucket {
    //! The buckets' names, in the order in which they stand.

    pub(super) const ALARM: &str = "alarm";
    pub(super) const AUTH: &str = "auth";
    pub(super) const AUTH_ROLES: &str = "authRoles";
    pub(super) const AUTH_USERS: &str = "authUsers";
    pub(super) const CLUSTER: &str = "cluster";
    pub(super) const KEY: &str = "key";
    pub(super) const LEASE: &str = "lease";
    pub(super) const MEMBERS: &str = "members";
    pub(super) const MEMBERS_REMOVED: &str = "members_removed";
    pub(super) const META: &str = "meta";
}

mod name {
    //! The keys with fixed names.

    pub(super) const AUTH_ENABLED: &[u8] = b"authEnabled";
    pub(super) const AUTH_REVISION: &[u8] = b"authRevision";
    pub(super) const CLUSTER_VERSION: &[u8] = b"clusterVersion";
    pub(super) const CONF_STATE: &[u8] = b"confState";
    pub(super) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    pub(super) const DOWNGRADE: &[u8] = b"downgrade";
    pub(super) const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
    pub(super) const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
    pub(super) const STORAGE_VERSION: &[u8] = b"storageVersion";
    pub(super) const TERM: &[u8] = b"term";
}

/// Stands between the two numbers of a revision.
const REVISION_SEPARATOR: u8 = b'_';

/// Ends the key of a tombstone.
const TOMBSTONE: u8 = b't';

#[cfg(test)]
mod tests;
