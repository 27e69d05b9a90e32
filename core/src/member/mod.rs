//! Membership: who belongs to the cluster, under which id, reachable where.
//!
//! It changes only by applied conf changes (validated here, since a conf change that does not fit must be refused
//! the same way on every member) and by the attributes that a member publishes of itself. It knows nothing of
//! connections or of Raft's progress.
//!
//! ```text
//!   member id  = first 8 bytes of SHA-1( sorted peer URLs, joined . token . [decimal unix seconds] )
//!   cluster id = first 8 bytes of SHA-1( member ids ascending, big-endian )
//! ```

pub mod version;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfState};
use serde::Deserialize;
use sha1::{Digest, Sha1};

use crate::boundary::{MembersChange, Peer};
use crate::checkpoint::MemberRecord;
use crate::error::RequestError;
use crate::types::{ClusterId, MemberId};

/// What the context of a conf change says beyond the member.
#[derive(Debug, Default, Deserialize)]
struct Promotion {
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

/// The id of a member with these peer URLs. At bootstrap `token` is the cluster's token and there is no time; a
/// member added later has an empty token and the time of the request.
pub fn member_id(peer_urls: &[String], token: &str, added_unix_s: Option<i64>) -> MemberId {
    let mut urls: Vec<_> = peer_urls.to_vec();
    urls.sort_unstable();
    let mut text = urls.concat();
    text.push_str(token);
    if let Some(seconds) = added_unix_s {
        text.push_str(&seconds.to_string());
    }
    MemberId(first_eight(&Sha1::digest(text.as_bytes())))
}

/// The id of the cluster that these members found.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut ids: Vec<_> = members.iter().map(|member| member.0).collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    ClusterId(first_eight(&Sha1::digest(&bytes)))
}

fn first_eight(digest: &[u8]) -> u64 {
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 gives 20 bytes"))
}

/// The members of a cluster at one applied index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<MemberId, MemberRecord>,
    /// Ids that were members once; they never come back.
    removed: BTreeSet<MemberId>,
}

impl Membership {
    /// The membership that a checkpoint holds.
    pub fn restore(members: Vec<MemberRecord>, removed: Vec<MemberId>) -> Self {
        let members = members
            .into_iter()
            .map(|member| (member.id, member))
            .collect();
        Self {
            members,
            removed: removed.into_iter().collect(),
        }
    }

    /// All members, by id.
    pub fn members(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values()
    }

    /// Ids that were removed, ascending.
    pub fn removed(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.removed.iter().copied()
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&MemberRecord> {
        self.members.get(&id)
    }

    /// The members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values().filter(|member| !member.is_learner)
    }

    /// Whether this member was removed from the cluster.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// Raft's view of it.
    pub fn conf_state(&self) -> ConfState {
        let of = |learner: bool| {
            let ids = self
                .members
                .values()
                .filter(move |member| member.is_learner == learner);
            ids.map(|member| member.id.0).collect::<Vec<_>>()
        };
        ConfState::simple(of(false), of(true))
    }

    /// Whom this member connects to.
    pub fn peers_of(&self, me: MemberId) -> Vec<Peer> {
        let others = self.members.values().filter(|member| member.id != me);
        others
            .map(|member| Peer {
                member: member.id,
                peer_urls: member.peer_urls.clone(),
            })
            .collect()
    }

    /// The members as clients see them, by id.
    pub fn to_proto(&self) -> Vec<pb::Member> {
        let convert = |member: &MemberRecord| pb::Member {
            id: member.id.0,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        };
        self.members.values().map(convert).collect()
    }

    /// Takes what a member says of itself. An unknown member is ignored: it was removed meanwhile.
    pub fn set_attributes(&mut self, id: MemberId, name: String, client_urls: Vec<String>) {
        if let Some(member) = self.members.get_mut(&id) {
            member.name = name;
            member.client_urls = client_urls;
        }
    }

    /// Checks a conf change against the members and, if it fits, makes it so. An error changes nothing.
    pub fn apply(&mut self, change: &ConfChange, learners_max: usize) -> Result<(), RequestError> {
        let kind = change
            .kind()
            .map_err(|_| RequestError::Other("unknown type of conf change".into()))?;
        let id = MemberId(change.node_id);
        if self.removed.contains(&id) {
            return Err(RequestError::MemberNotFound);
        }
        match kind {
            ConfChangeType::ConfChangeRemoveNode => {
                if self.voters().all(|voter| voter.id == id) && self.voters().count() > 0 {
                    // Nobody could decide anything any more; etcd's raft would panic.
                    return Err(RequestError::MemberNotEnoughStarted);
                }
                self.members
                    .remove(&id)
                    .ok_or(RequestError::MemberNotFound)?;
                self.removed.insert(id);
            }
            ConfChangeType::ConfChangeUpdateNode => {
                let (updated, _) = parse_context(change)?;
                self.check_urls_are_free(&updated.peer_urls, Some(id))?;
                let member = self
                    .members
                    .get_mut(&id)
                    .ok_or(RequestError::MemberNotFound)?;
                member.peer_urls = updated.peer_urls;
            }
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                let (member, promotion) = parse_context(change)?;
                if promotion.is_promote {
                    self.promote(id)?;
                } else {
                    self.add(member, learners_max)?;
                }
            }
        }
        Ok(())
    }

    fn promote(&mut self, id: MemberId) -> Result<(), RequestError> {
        let member = self
            .members
            .get_mut(&id)
            .ok_or(RequestError::MemberNotFound)?;
        if !member.is_learner {
            return Err(RequestError::MemberNotLearner);
        }
        member.is_learner = false;
        Ok(())
    }

    fn add(&mut self, member: MemberRecord, learners_max: usize) -> Result<(), RequestError> {
        if self.members.contains_key(&member.id) {
            return Err(RequestError::MemberExist);
        }
        self.check_urls_are_free(&member.peer_urls, None)?;
        let learners = self
            .members
            .values()
            .filter(|member| member.is_learner)
            .count();
        if member.is_learner && learners >= learners_max {
            return Err(RequestError::TooManyLearners);
        }
        self.members.insert(member.id, member);
        Ok(())
    }

    fn check_urls_are_free(
        &self,
        urls: &[String],
        except: Option<MemberId>,
    ) -> Result<(), RequestError> {
        let mut others = self
            .members
            .values()
            .filter(|member| Some(member.id) != except);
        if others.any(|member| member.peer_urls.iter().any(|url| urls.contains(url))) {
            return Err(RequestError::PeerURLExist);
        }
        Ok(())
    }
}

fn parse_context(change: &ConfChange) -> Result<(MemberRecord, Promotion), RequestError> {
    let context = change.context.as_deref().unwrap_or_default();
    let refuse = |error: serde_json::Error| {
        RequestError::Other(format!("conf change context: {error}").into())
    };
    let member = MemberRecord::from_json(context).map_err(refuse)?;
    let promotion: Promotion = serde_json::from_slice(context).map_err(refuse)?;
    if member.id.0 != change.node_id {
        return Err(RequestError::Other(
            "conf change context names another member".into(),
        ));
    }
    Ok((member, promotion))
}

/// The conf change that adds `member` at the birth of a cluster.
pub fn bootstrap_change(member: &MemberRecord) -> ConfChange {
    let context = Bytes::from(member.to_json());
    ConfChange::new(0, ConfChangeType::ConfChangeAddNode, member.id.0, context)
}

/// The conf change for what an operator asks; `id` names it for whoever waits.
pub(crate) fn conf_change(id: u64, change: &MembersChange) -> ConfChange {
    let context = |member: &MemberRecord| Bytes::from(member.to_json());
    match change {
        MembersChange::Add(member) => {
            let kind = if member.is_learner {
                ConfChangeType::ConfChangeAddLearnerNode
            } else {
                ConfChangeType::ConfChangeAddNode
            };
            ConfChange::new(id, kind, member.id.0, context(member))
        }
        MembersChange::Promote(member) => {
            // The form that Go gives to a member without anything but its id.
            let context = format!(r#"{{"id":{},"peerURLs":null,"isPromote":true}}"#, member.0);
            let kind = ConfChangeType::ConfChangeAddNode;
            ConfChange::new(id, kind, member.0, Bytes::from(context))
        }
        MembersChange::Remove(member) => {
            let kind = ConfChangeType::ConfChangeRemoveNode;
            ConfChange::new(id, kind, member.0, Bytes::new())
        }
        MembersChange::UpdateUrls { member, peer_urls } => {
            let updated = MemberRecord {
                id: *member,
                peer_urls: peer_urls.clone(),
                ..MemberRecord::default()
            };
            let kind = ConfChangeType::ConfChangeUpdateNode;
            ConfChange::new(id, kind, member.0, context(&updated))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| (*url).to_string()).collect()
    }

    fn add(id: u64, url: &str, learner: bool) -> ConfChange {
        let member = MemberRecord {
            id: MemberId(id),
            peer_urls: urls(&[url]),
            is_learner: learner,
            ..MemberRecord::default()
        };
        bootstrap_change(&member)
    }

    #[test]
    fn ids_equal_etcds() {
        let member = member_id(&urls(&["http://localhost:2380"]), "etcd-cluster", None);
        assert_eq!(member.0, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]).0, 0xcdf8_1819_4e3a_8c32);
        let added = member_id(&urls(&["http://10.0.0.9:2380"]), "", Some(1_700_000_000));
        assert_eq!(added.0, 0x516b_5733_af19_aa46);
    }

    #[test]
    fn bootstrap_context_is_etcds_json() {
        let member = MemberRecord {
            id: MemberId(10_276_657_743_932_975_437),
            peer_urls: urls(&["http://localhost:2380"]),
            name: "default".into(),
            ..MemberRecord::default()
        };
        let context = bootstrap_change(&member).context.unwrap();
        let expected =
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
        assert_eq!(context, expected.as_bytes());
    }

    #[test]
    fn a_removed_member_never_comes_back() {
        let mut membership = Membership::default();
        membership.apply(&add(1, "http://a", false), 1).unwrap();
        membership.apply(&add(2, "http://b", false), 1).unwrap();
        let remove = ConfChange::new(0, ConfChangeType::ConfChangeRemoveNode, 2, Bytes::new());
        membership.apply(&remove, 1).unwrap();
        assert!(membership.is_removed(MemberId(2)));
        assert_eq!(
            membership.apply(&add(2, "http://c", false), 1),
            Err(RequestError::MemberNotFound)
        );
        assert_eq!(
            membership.apply(&remove, 1),
            Err(RequestError::MemberNotFound)
        );
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut membership = Membership::default();
        membership.apply(&add(1, "http://a", false), 1).unwrap();
        membership.apply(&add(3, "http://l", true), 1).unwrap();
        let before = membership.clone();
        assert_eq!(
            membership.apply(&add(1, "http://x", false), 1),
            Err(RequestError::MemberExist)
        );
        assert_eq!(
            membership.apply(&add(2, "http://a", false), 1),
            Err(RequestError::PeerURLExist)
        );
        assert_eq!(
            membership.apply(&add(4, "http://y", true), 1),
            Err(RequestError::TooManyLearners)
        );
        let promote = |id| {
            let context = format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#);
            ConfChange::new(
                0,
                ConfChangeType::ConfChangeAddNode,
                id,
                Bytes::from(context),
            )
        };
        assert_eq!(
            membership.apply(&promote(1), 1),
            Err(RequestError::MemberNotLearner)
        );
        assert_eq!(membership, before);
        membership.apply(&promote(3), 1).unwrap();
        assert_eq!(membership.conf_state().voters, [1, 3]);
    }
}
