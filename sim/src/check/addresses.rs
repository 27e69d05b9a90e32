//! Addresses: where each member is to be reached is a function of the applied index, and what a member tells its own
//! transport is that.

use std::collections::BTreeMap;

use prost::Message as _;
use quorate_core::checkpoint::MemberRecord;
use quorate_core::types::MemberId;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};

use super::{Facts, Violation};

/// The peer URLs of each member.
pub type Urls = BTreeMap<MemberId, Vec<String>>;

/// Those after each entry that changed them.
#[derive(Debug)]
pub struct Addresses {
    after: BTreeMap<u64, Urls>,
    removed: Vec<MemberId>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            after: BTreeMap::from([(0, Urls::new())]),
            removed: Vec::new(),
        }
    }
}

impl Addresses {
    /// The next entry is committed.
    pub fn push(&mut self, entry: &Entry) {
        if entry.kind() != Ok(EntryType::EntryConfChange) {
            return;
        }
        let data = entry.data.clone().unwrap_or_default();
        let change = ConfChange::decode(data).expect("a conf change that was committed");
        let mut urls = self.at(entry.index).clone();
        if self.change(&mut urls, &change).is_some() {
            self.after.insert(entry.index, urls);
        }
    }

    /// `None` if the change changes no address: who is there is only promoted, and nobody gets an address of another.
    fn change(&mut self, urls: &mut Urls, change: &ConfChange) -> Option<()> {
        let member = MemberId(change.node_id);
        if change.kind() == Ok(ConfChangeType::ConfChangeRemoveNode) {
            self.removed.push(member);
            return urls.remove(&member).map(drop);
        }
        let is_update = change.kind() == Ok(ConfChangeType::ConfChangeUpdateNode);
        let context = change.context.clone().unwrap_or_default();
        let record: MemberRecord = serde_json::from_slice(&context).ok()?;
        let mut others = urls.iter().filter(|(id, _)| **id != member);
        let is_taken =
            others.any(|(_, known)| known.iter().any(|it| record.peer_urls.contains(it)));
        if is_taken || urls.contains_key(&member) != is_update || self.removed.contains(&member) {
            return None;
        }
        urls.insert(member, record.peer_urls);
        Some(())
    }

    /// Those after an entry.
    pub fn at(&self, index: u64) -> &Urls {
        let found = self.after.range(..=index).next_back();
        found.expect("those of nobody").1
    }

    /// Where a member that has applied everything up to `applied` tells its transport to look for the others.
    pub fn check_told(
        &self,
        facts: &mut Facts,
        member: MemberId,
        applied: u64,
        told: &Urls,
    ) -> Result<(), Violation> {
        let expected = self.at(applied);
        let mut others = expected.iter().filter(|(id, _)| **id != member);
        let is_same = others.by_ref().all(|(id, urls)| told.get(id) == Some(urls))
            && told
                .keys()
                .all(|id| expected.contains_key(id) && *id != member);
        facts.expect("members.urls", is_same, || {
            format!("{member:?} tells {told:?} with index {applied} applied, expected {expected:?}")
        })
    }

    /// What a member that has applied everything up to `applied` takes for the addresses.
    pub fn check(
        &self,
        facts: &mut Facts,
        member: MemberId,
        applied: u64,
        found: &Urls,
    ) -> Result<(), Violation> {
        let expected = self.at(applied);
        facts.expect("members.urls", found == expected, || {
            format!("{member:?} has {found:?} with index {applied} applied, expected {expected:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn change(index: u64, kind: ConfChangeType, member: MemberId, url: &str) -> Entry {
        let record = MemberRecord {
            id: member,
            peer_urls: vec![url.to_owned()],
            ..MemberRecord::default()
        };
        let context = Bytes::from(serde_json::to_vec(&record).unwrap());
        let change = ConfChange::new(index, kind, member.0, context);
        Entry::conf_change(1, index, &change)
    }

    #[test]
    fn addresses_follow_from_the_log_and_others_are_seen() {
        use ConfChangeType::{ConfChangeAddNode, ConfChangeRemoveNode, ConfChangeUpdateNode};
        let (a, b) = (MemberId(1), MemberId(2));
        let mut addresses = Addresses::default();
        for entry in [
            change(1, ConfChangeAddNode, a, "http://a"),
            change(2, ConfChangeAddNode, b, "http://b"),
            change(3, ConfChangeUpdateNode, a, "http://b"),
            change(4, ConfChangeUpdateNode, a, "http://c"),
            change(5, ConfChangeAddNode, b, "http://promoted"),
            change(6, ConfChangeRemoveNode, b, ""),
            change(7, ConfChangeUpdateNode, a, "http://b"),
        ] {
            addresses.push(&entry);
        }
        let at = |index, member| addresses.at(index).get(&member).map(|urls| urls[0].clone());
        assert_eq!(at(3, a).as_deref(), Some("http://a"), "it was taken");
        assert_eq!(at(5, a).as_deref(), Some("http://c"));
        assert_eq!(at(5, b).as_deref(), Some("http://b"));
        assert_eq!((at(6, b), at(7, a).as_deref()), (None, Some("http://b")));
        let mut facts = Facts::new();
        let found = addresses.at(5).clone();
        addresses.check(&mut facts, a, 5, &found).unwrap();
        let late = addresses.check(&mut facts, a, 6, &found).unwrap_err();
        assert_eq!(late.property, "members.urls");
        let told = |urls: &[(MemberId, &str)]| {
            let urls = urls.iter().map(|(id, url)| (*id, vec![(*url).to_owned()]));
            let told = urls.collect();
            let mut facts = Facts::new();
            addresses.check_told(&mut facts, a, 5, &told).is_ok()
        };
        assert!(told(&[(b, "http://b")]));
        assert!(
            !told(&[]) && !told(&[(b, "http://a")]),
            "not told, or wrongly"
        );
        assert!(!told(&[(a, "http://c"), (b, "http://b")]), "itself");
    }
}
