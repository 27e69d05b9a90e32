//! Changes of the members, one after the other: any quorum before a change and any quorum after it have a member in common,
//! and no change is put into a log while its leader has another one before it that it has not applied.
//!
//! Both together are what makes changes by single members safe (Raft thesis, 4.1): the second rule is why only neighbours
//! among configurations are ever in force at the same time.

use quorate_core::types::MemberId;
use quorate_proto::raftpb::{Entry, EntryType};

use super::members::Members;
use super::shadow::ShadowLog;
use super::{Facts, Violation};

/// The entry at `index` is committed, and makes other members.
pub fn check_step(
    facts: &mut Facts,
    index: u64,
    before: &Members,
    after: &Members,
) -> Result<(), Violation> {
    let quorum = |members: &Members| members.voters.len() / 2 + 1;
    let all = before.voters.union(&after.voters).count();
    let intersect = quorum(before) + quorum(after) > all;
    facts.expect("members.intersection", intersect, || {
        format!(
            "entry {index} goes from {before:?} to {after:?}: two quorums without a common member"
        )
    })
}

/// A leader that has applied everything up to `applied` puts an entry into its log.
pub fn check_proposed(
    facts: &mut Facts,
    leader: MemberId,
    log: &ShadowLog,
    applied: u64,
    entry: &Entry,
) -> Result<(), Violation> {
    if !is_change(entry) {
        return Ok(());
    }
    let pending = (applied + 1..entry.index).find(|&it| log.entry(it).is_some_and(is_change));
    let is_single = entry.kind() == Ok(EntryType::EntryConfChange);
    facts.expect("members.intersection", pending.is_none() && is_single, || {
        format!(
            "{leader:?} proposes a change of the members at {} with {applied} applied, {pending:?} is one",
            entry.index
        )
    })
}

fn is_change(entry: &Entry) -> bool {
    entry.kind() != Ok(EntryType::EntryNormal)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn quorums_that_need_not_meet_are_seen() {
        let members = |ids: &[u64]| {
            let voters = ids.iter().copied().map(MemberId);
            Members::new(voters.collect(), Default::default())
        };
        let check = |before: &[u64], after: &[u64]| {
            let (before, after) = (members(before), members(after));
            check_step(&mut Facts::new(), 9, &before, &after).is_ok()
        };
        assert!(check(&[1, 2, 3], &[1, 2, 3, 4]) && check(&[1, 2], &[1]));
        assert!(!check(&[1, 2, 3], &[1, 2, 3, 4, 5]), "two at once");
        assert!(!check(&[1, 2, 3], &[1, 2, 4]), "a swap");
    }

    #[test]
    fn a_change_on_top_of_one_that_is_not_applied_is_seen() {
        let change = |index| Entry {
            index,
            term: 1,
            r#type: Some(EntryType::EntryConfChange as i32),
            data: None,
        };
        let mut log = ShadowLog::default();
        let entries = [change(1), Entry::normal(1, 2, Bytes::new()), change(3)];
        assert!(log.append(&entries));
        let check = |applied, entry: &Entry| {
            check_proposed(&mut Facts::new(), MemberId(1), &log, applied, entry).is_ok()
        };
        assert!(check(1, &entries[2]) && check(0, &entries[1]));
        assert!(!check(0, &entries[2]));
        let joint = Entry {
            r#type: Some(EntryType::EntryConfChangeV2 as i32),
            ..change(3)
        };
        assert!(!check(2, &joint), "of several members at once");
    }
}
