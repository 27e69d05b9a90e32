//! Corruption: members that hold something else than the others are found, and nobody else is suspected.
//!
//! Who was altered is known here, so that both can be judged: a comparison that finds damage where there is none, and
//! damage that a comparison should have found.

use std::collections::BTreeSet;

use quorate_core::corruption::Finding;
use quorate_core::types::MemberId;

use super::{Facts, Violation};

/// Whose data were altered, and what followed.
#[derive(Debug, Default)]
pub struct Corruption {
    altered: BTreeSet<MemberId>,
}

impl Corruption {
    /// What a member holds was altered, or it has taken over what was.
    pub fn alter(&mut self, member: MemberId) {
        self.altered.insert(member);
    }

    /// Whether what a member holds may not be what the log makes.
    pub fn is_altered(&self, member: MemberId) -> bool {
        self.altered.contains(&member)
    }

    /// Whether anybody was altered.
    pub fn is_anybody(&self) -> bool {
        !self.altered.is_empty()
    }

    /// A member of a cluster with so many voters has compared data.
    pub fn on_compared(
        &self,
        facts: &mut Facts,
        voters: usize,
        by: MemberId,
        findings: &[Finding],
    ) -> Result<(), Violation> {
        let damage = findings.iter().find(|finding| finding.kind.is_damage());
        let is_allowed = damage.is_none_or(|finding| match finding.member {
            MemberId(0) => self.is_anybody(),
            member => self.is_altered(member) || self.is_altered(by) || self.are_many(voters),
        });
        facts.expect("corruption.no-false-alarm", is_allowed, || {
            format!("{by:?} finds damage where there is none: {damage:?}")
        })
    }

    /// Whether the altered are no minority: snapshots of altered data make more of them, and where a majority decides who
    /// is wrong, it is then whoever was not altered.
    fn are_many(&self, voters: usize) -> bool {
        2 * self.altered.len() >= voters
    }

    /// The alarm CORRUPT was raised for a member, by the request with this id. Whoever is altered may take the others for
    /// it: etcd's leader believes its own data.
    pub fn on_alarm(
        &self,
        facts: &mut Facts,
        voters: usize,
        id: u64,
        member: MemberId,
    ) -> Result<(), Violation> {
        facts.expect("corruption.no-false-alarm", self.is_anybody(), || {
            format!("CORRUPT is raised for {member:?}, and nobody was altered")
        })?;
        let mut altered = self.altered.iter();
        let is_by_altered = altered.any(|altered| altered.0 & 0xffff == id >> 48);
        let is_right = self.is_altered(member)
            || member == MemberId(0)
            || is_by_altered
            || self.are_many(voters);
        facts.expect("corruption.member", is_right, || {
            let altered = &self.altered;
            format!("CORRUPT is raised for {member:?}, altered are {altered:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::corruption::FindingKind;
    use quorate_core::types::Revision;

    use super::*;

    fn ahead(member: u64) -> Finding {
        let (newest, leader) = (Revision(9), Revision(8));
        Finding {
            member: MemberId(member),
            kind: FindingKind::AheadOfLeader { newest, leader },
        }
    }

    #[test]
    fn damage_that_was_not_done_is_seen() {
        let (mut corruption, mut facts) = (Corruption::default(), Facts::new());
        let by = MemberId(1);
        corruption.on_compared(&mut facts, 3, by, &[]).unwrap();
        let alarm = corruption.on_compared(&mut facts, 3, by, &[ahead(2)]);
        assert_eq!(alarm.unwrap_err().property, "corruption.no-false-alarm");
        assert!(
            corruption
                .on_alarm(&mut facts, 3, 1 << 48, MemberId(2))
                .is_err()
        );
        corruption.alter(MemberId(2));
        let mut compare = |voters, of| corruption.on_compared(&mut facts, voters, by, &[ahead(of)]);
        compare(3, 2).unwrap();
        assert!(compare(3, 3).is_err());
        // Two of three hold the altered data after a snapshot: the majority takes the third for the wrong one.
        corruption.alter(MemberId(3));
        let mut compare = |voters, of| corruption.on_compared(&mut facts, voters, by, &[ahead(of)]);
        compare(3, 1).unwrap();
        assert!(compare(5, 1).is_err());
    }

    #[test]
    fn an_alarm_for_another_member_is_seen_unless_the_altered_one_raised_it() {
        let (mut corruption, mut facts) = (Corruption::default(), Facts::new());
        corruption.alter(MemberId(2));
        let mut alarm = |by: u64, member| {
            let raised = corruption.on_alarm(&mut facts, 3, by << 48 | 7, MemberId(member));
            raised.map_err(|violation| violation.property)
        };
        assert_eq!(alarm(1, 2), Ok(()));
        assert_eq!(alarm(1, 0), Ok(()), "nobody knows which");
        assert_eq!(alarm(1, 3), Err("corruption.member"));
        assert_eq!(alarm(2, 3), Ok(()));
    }
}
