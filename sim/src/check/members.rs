//! Members: who they are is a function of the applied index, and so is who makes a quorum.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use quorate_core::types::MemberId;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};

use super::{Facts, Violation};

/// Who the members are after an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote.
    pub voters: BTreeSet<MemberId>,
    /// Those that only learn.
    pub learners: BTreeSet<MemberId>,
    removed: BTreeSet<MemberId>,
}

/// The members after each entry that changed them.
#[derive(Debug)]
pub struct History(BTreeMap<u64, Members>);

impl Members {
    /// These members.
    pub fn new(voters: BTreeSet<MemberId>, learners: BTreeSet<MemberId>) -> Self {
        Self {
            voters,
            learners,
            removed: BTreeSet::new(),
        }
    }

    /// What an entry makes of them; `None` if it changes nothing: who is there is not added again, who was removed never
    /// comes back.
    fn after(&self, change: &ConfChange) -> Option<Self> {
        let member = MemberId(change.node_id);
        let mut after = self.clone();
        let changes = match ConfChangeType::try_from(change.r#type).ok()? {
            ConfChangeType::ConfChangeAddNode => {
                let is_new = !self.removed.contains(&member) && after.voters.insert(member);
                after.learners.remove(&member);
                is_new
            }
            ConfChangeType::ConfChangeAddLearnerNode => {
                let is_known = self.removed.contains(&member) || self.voters.contains(&member);
                !is_known && after.learners.insert(member)
            }
            ConfChangeType::ConfChangeRemoveNode => {
                let was_there = after.voters.remove(&member) | after.learners.remove(&member);
                was_there && after.removed.insert(member)
            }
            ConfChangeType::ConfChangeUpdateNode => false,
        };
        changes.then_some(after)
    }

    /// Whether more than half of the voters are among those.
    pub fn have_quorum(&self, holds: impl Fn(MemberId) -> bool) -> bool {
        2 * self.voters.iter().filter(|voter| holds(**voter)).count() > self.voters.len()
    }
}

impl History {
    /// That of a cluster which these voters found.
    pub fn new(voters: &[MemberId]) -> Self {
        let founders = Members {
            voters: voters.iter().copied().collect(),
            ..Members::default()
        };
        Self(BTreeMap::from([(0, founders)]))
    }

    /// The next entry is committed. Whether it changes who votes or learns.
    pub fn push(&mut self, entry: &Entry) -> bool {
        if entry.kind() != Ok(EntryType::EntryConfChange) {
            return false;
        }
        let data = entry.data.clone().unwrap_or_default();
        let change = ConfChange::decode(data).expect("a conf change that was committed");
        let after = self.last().after(&change);
        let changes = after.is_some();
        self.0.extend(after.map(|after| (entry.index, after)));
        changes
    }

    /// How often they have changed.
    pub fn changes(&self) -> usize {
        self.0.len() - 1
    }

    /// The members now.
    pub fn last(&self) -> &Members {
        let (_, last) = self.0.last_key_value().expect("the founders");
        last
    }

    /// Those after an entry.
    pub fn at(&self, index: u64) -> &Members {
        let found = self.0.range(..=index).next_back();
        found.expect("the founders").1
    }

    /// Those after an entry, and all that came later.
    pub fn since(&self, index: u64) -> impl Iterator<Item = &Members> {
        let later = self.0.range(index + 1..).map(|(_, members)| members);
        std::iter::once(self.at(index)).chain(later)
    }

    /// Those that a member knows after an entry. The founding entries add one founder each, by id: who joins later hears
    /// them from the leader, and may stop in the middle.
    pub fn known_at(&self, applied: u64) -> Members {
        let founders = &self.at(0).voters;
        let heard = usize::try_from(applied).unwrap_or(usize::MAX);
        if !(1..founders.len()).contains(&heard) {
            return self.at(applied).clone();
        }
        Members {
            voters: founders.iter().take(heard).copied().collect(),
            ..Members::default()
        }
    }

    /// What a member that has applied everything up to `applied` takes for the members.
    pub fn check(
        &self,
        facts: &mut Facts,
        member: MemberId,
        applied: u64,
        found: &Members,
    ) -> Result<(), Violation> {
        let expected = self.known_at(applied);
        let is_same = found.voters == expected.voters && found.learners == expected.learners;
        facts.expect("raft.members", is_same, || {
            format!("{member:?} has {found:?} with index {applied} applied, expected {expected:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(index: u64, kind: ConfChangeType, member: u64) -> Entry {
        let change = ConfChange {
            r#type: kind as i32,
            node_id: member,
            ..ConfChange::default()
        };
        Entry {
            index,
            term: 1,
            r#type: Some(EntryType::EntryConfChange as i32),
            data: Some(change.encode_to_vec().into()),
        }
    }

    #[test]
    fn members_follow_from_the_log_and_others_are_seen() {
        use ConfChangeType::{ConfChangeAddLearnerNode, ConfChangeAddNode, ConfChangeRemoveNode};
        let mut history = History::new(&[1, 2, 3].map(MemberId));
        for entry in [
            change(4, ConfChangeRemoveNode, 3),
            change(5, ConfChangeAddNode, 3),
            change(6, ConfChangeAddLearnerNode, 4),
            change(8, ConfChangeAddNode, 4),
        ] {
            history.push(&entry);
        }
        let voters = |index| {
            let ids = history.at(index).voters.iter().map(|member| member.0);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(voters(3), [1, 2, 3]);
        assert_eq!(voters(5), [1, 2]);
        assert_eq!(voters(7), [1, 2]);
        assert_eq!(voters(9), [1, 2, 4]);
        assert_eq!(history.at(7).learners, BTreeSet::from([MemberId(4)]));
        assert_eq!(history.since(5).count(), 3);
        let mut facts = Facts::new();
        let found = history.at(7).clone();
        history.check(&mut facts, MemberId(1), 7, &found).unwrap();
        let wrong = history.check(&mut facts, MemberId(1), 8, &found);
        assert_eq!(wrong.unwrap_err().property, "raft.members");
        assert!(found.have_quorum(|member| member.0 <= 2));
        assert!(!found.have_quorum(|member| member.0 != 2));

        let some = Members {
            voters: [1, 2].map(MemberId).into(),
            ..Members::default()
        };
        history.check(&mut facts, MemberId(4), 2, &some).unwrap();
        assert!(history.check(&mut facts, MemberId(4), 3, &some).is_err());
        assert!(history.check(&mut facts, MemberId(4), 1, &some).is_err());
    }
}
