//! Purging: purged <= snapshot <= applied. What is thrown away of a log is in the image beside it, the log never speaks of an
//! image that is not there, and an image holds only what was applied.

use std::collections::BTreeMap;

use quorate_core::boundary::Write;
use quorate_core::types::MemberId;

use super::{Facts, Violation};

/// The index of the image on each member's disk.
#[derive(Debug, Default)]
pub struct Images(BTreeMap<MemberId, u64>);

impl Images {
    fn of(&self, member: MemberId) -> u64 {
        self.0.get(&member).copied().unwrap_or(0)
    }

    /// An image is in its place: a new one, or the one that a member begins with.
    pub fn on_image(&mut self, member: MemberId, index: u64) {
        self.0.insert(member, index);
    }

    /// A member that has applied everything up to `applied` has this image.
    pub fn check_applied(
        &self,
        facts: &mut Facts,
        member: MemberId,
        applied: u64,
    ) -> Result<(), Violation> {
        let image = self.of(member);
        facts.expect("raft.purge-order", image <= applied, || {
            format!("{member:?} has an image at {image}, applied is {applied}")
        })
    }

    /// A member wants an image of its state written.
    pub fn check_wanted(
        facts: &mut Facts,
        member: MemberId,
        index: u64,
        applied: u64,
    ) -> Result<(), Violation> {
        facts.expect("raft.purge-order", index <= applied, || {
            format!("{member:?} wants an image at {index} written, applied is {applied}")
        })
    }

    /// A member wants something written.
    pub fn check_write(
        &self,
        facts: &mut Facts,
        member: MemberId,
        write: &Write,
    ) -> Result<(), Violation> {
        let there = match &write.install {
            Some(install) => install.index().0, // It is put in its place first.
            None => self.of(member),
        };
        if let Some(record) = &write.snapshot {
            let index = record.index.0;
            facts.expect("raft.purge-order", index <= there, || {
                format!(
                    "{member:?} says in its log that there is an image at {index}, it is at {there}"
                )
            })?;
        }
        match write.purge_before {
            Some(before) => check(facts, member, before.0, there),
            None => Ok(()),
        }
    }

    /// What stands before an index goes from a member's log.
    pub fn check_purge(
        &self,
        facts: &mut Facts,
        member: MemberId,
        before: u64,
    ) -> Result<(), Violation> {
        check(facts, member, before, self.of(member))
    }
}

fn check(facts: &mut Facts, member: MemberId, before: u64, image: u64) -> Result<(), Violation> {
    facts.expect("raft.purge-order", before <= image + 1, || {
        format!("{member:?} purges its log before {before}, its image is at {image}")
    })
}

#[cfg(test)]
mod tests {
    use quorate_core::boundary::SnapshotRecord;
    use quorate_core::types::{Index, Term};
    use quorate_proto::raftpb::ConfState;

    use super::*;

    #[test]
    fn a_log_that_goes_before_its_image_is_there_is_seen() {
        const A: MemberId = MemberId(1);
        let (mut images, mut facts) = (Images::default(), Facts::new());
        let write = |record, purge_before| Write {
            snapshot: Some(SnapshotRecord {
                index: Index(record),
                term: Term(1),
                conf_state: ConfState::default(),
            }),
            purge_before: Some(Index(purge_before)),
            ..Write::default()
        };
        assert!(images.check_write(&mut facts, A, &write(9, 10)).is_err());
        images.on_image(A, 9);
        images.check_write(&mut facts, A, &write(9, 10)).unwrap();
        assert!(images.check_write(&mut facts, A, &write(10, 10)).is_err());
        assert!(images.check_write(&mut facts, A, &write(9, 11)).is_err());
        assert!(images.check_purge(&mut facts, A, 11).is_err());
        images.check_applied(&mut facts, A, 9).unwrap();
        assert!(images.check_applied(&mut facts, A, 8).is_err());
        assert!(Images::check_wanted(&mut facts, A, 9, 8).is_err());
    }
}
