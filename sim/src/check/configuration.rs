//! Configurations: who votes, as Raft counts it, is the same at all members that have applied the same entries, and is what
//! the log says.

use std::collections::BTreeSet;

use quorate_core::types::MemberId;
use quorate_proto::raftpb::ConfState;

use super::members::Members;
use super::{Facts, Violation};

/// A member that has applied everything up to `applied` counts by `found`; the log says `expected`.
pub fn check(
    facts: &mut Facts,
    member: MemberId,
    applied: u64,
    found: &ConfState,
    expected: &Members,
) -> Result<(), Violation> {
    let are = |ids: &[u64], members: &BTreeSet<MemberId>| {
        let ids: BTreeSet<_> = ids.iter().copied().map(MemberId).collect();
        ids == *members
    };
    // Members change one at a time: nobody ever counts by two sets at once.
    let is_joint = !found.voters_outgoing.is_empty() || !found.learners_next.is_empty();
    let is_same = !is_joint
        && are(&found.voters, &expected.voters)
        && are(&found.learners, &expected.learners);
    facts.expect("raft.conf-state", is_same, || {
        format!("{member:?} counts by {found:?} at index {applied}, expected {expected:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_counts_by_others_is_seen() {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
        let expected = Members::new(ids(&[1, 2]), ids(&[3]));
        let check =
            |found: &ConfState| check(&mut Facts::new(), MemberId(1), 7, found, &expected).is_ok();
        assert!(check(&ConfState::simple(vec![2, 1], vec![3])));
        assert!(
            !check(&ConfState::simple(vec![1, 2, 3], vec![])),
            "too early"
        );
        assert!(!check(&ConfState::simple(vec![1, 2], vec![])), "too late");
        let joint = ConfState {
            voters_outgoing: vec![1, 2],
            ..ConfState::simple(vec![1, 2], vec![3])
        };
        assert!(!check(&joint));
    }
}
