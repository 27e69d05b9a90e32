//! What members were seen to append to their logs, and the committed log that follows from it.

use std::collections::BTreeMap;

use quorate_core::boundary::Write;
use quorate_core::types::MemberId;
use quorate_proto::raftpb::Entry;
use quorate_sim::check::Violation;

/// What one member has appended.
#[derive(Clone, Debug, Default)]
pub struct Appended {
    /// By index; a later entry replaces those from its index on.
    entries: BTreeMap<u64, Entry>,
    /// How far the member has said that its log is committed.
    committed: u64,
    /// What a snapshot came in the place of. It may be what all have, or what was never committed: the member itself
    /// has never learnt.
    replaced: BTreeMap<u64, Entry>,
}

impl Appended {
    /// The member writes this.
    pub fn note(&mut self, write: &Write) {
        if write.install.is_some() {
            self.replace();
        }
        for entry in &write.entries {
            self.entries.split_off(&entry.index);
            self.entries.insert(entry.index, entry.clone());
        }
        let committed = write.hard_state.as_ref().map_or(0, |state| state.commit);
        self.committed = self.committed.max(committed);
    }

    /// A snapshot takes the place of the log.
    fn replace(&mut self) {
        let unsure = self.entries.split_off(&(self.committed + 1));
        self.replaced.extend(unsure);
    }
}

/// The log up to an index, from what members have appended. They must agree.
pub fn committed(logs: &BTreeMap<MemberId, Appended>, last: u64) -> Result<Vec<Entry>, Violation> {
    let find = |index| {
        let sure: Vec<_> = logs
            .values()
            .filter_map(|log| log.entries.get(&index))
            .collect();
        match &sure[..] {
            [] => logs
                .values()
                .filter_map(|log| log.replaced.get(&index))
                .collect(),
            _ => sure,
        }
    };
    let mut committed = Vec::new();
    for index in 1..=last {
        let entries: Vec<&Entry> = find(index);
        let Some(&entry) = entries.first() else {
            let detail = format!("nobody has appended entry {index}, {last} are applied");
            return Err(Violation::new("converge.equal", detail));
        };
        if let Some(other) = entries.iter().find(|other| **other != entry) {
            let detail = format!("members have {entry:?} and {other:?}, {last} are applied");
            return Err(Violation::new("raft.log-matching", detail));
        }
        committed.push(entry.clone());
    }
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use quorate_core::types::WriteNumber;
    use quorate_proto::raftpb::HardState;

    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            term,
            index,
            ..Entry::default()
        }
    }

    enum Step {
        Write(Write),
        Snapshot,
    }

    impl Step {
        fn take(&self, log: &mut Appended) {
            match self {
                Self::Write(write) => log.note(write),
                Self::Snapshot => log.replace(),
            }
        }
    }

    /// Entries by term and index.
    fn appends(entries: &[(u64, u64)], commit: u64) -> Step {
        Step::Write(Write {
            number: WriteNumber(1),
            entries: entries
                .iter()
                .map(|(term, index)| entry(*term, *index))
                .collect(),
            hard_state: Some(HardState {
                commit,
                ..HardState::default()
            }),
            install: None,
            snapshot: None,
            purge_before: None,
            must_sync: true,
        })
    }

    /// The terms of the log up to 3 of members that wrote this, or the property that is violated.
    fn terms(members: &[&[Step]]) -> Result<Vec<u64>, &'static str> {
        let logs = (1..).map(MemberId).zip(members).map(|(member, steps)| {
            let mut log = Appended::default();
            steps.iter().for_each(|step| step.take(&mut log));
            (member, log)
        });
        let log = committed(&logs.collect(), 3).map_err(|violation| violation.property)?;
        Ok(log.iter().map(|entry| entry.term).collect())
    }

    #[test]
    fn logs_that_differ_or_have_gaps_are_seen() {
        let whole = [appends(&[(1, 1), (1, 2), (1, 3)], 3)];
        let part = [appends(&[(1, 1), (1, 2)], 2)];
        let other = [appends(&[(1, 1), (1, 2), (2, 3)], 3)];
        assert_eq!(terms(&[&whole, &part]), Ok(vec![1, 1, 1]));
        assert_eq!(terms(&[&part, &part]), Err("converge.equal"));
        assert_eq!(terms(&[&whole, &other]), Err("raft.log-matching"));
    }

    #[test]
    fn a_tail_that_was_taken_back_does_not_count() {
        let whole = [appends(&[(1, 1), (2, 2), (2, 3)], 3)];
        let again = [appends(&[(1, 1), (1, 2)], 1), appends(&[(2, 2), (2, 3)], 3)];
        assert_eq!(terms(&[&whole, &again]), Ok(vec![1, 2, 2]));
    }

    #[test]
    fn what_a_snapshot_came_in_the_place_of_counts_only_if_nobody_knows_better() {
        let whole = [appends(&[(1, 1), (2, 2), (2, 3)], 3)];
        let stale = [appends(&[(1, 1), (1, 2)], 1), Step::Snapshot];
        assert_eq!(terms(&[&whole, &stale]), Ok(vec![1, 2, 2]));
        let committed = [appends(&[(1, 1), (1, 2)], 2), Step::Snapshot];
        assert_eq!(terms(&[&whole, &committed]), Err("raft.log-matching"));
        let only = [appends(&[(1, 1), (1, 2), (1, 3)], 0), Step::Snapshot];
        assert_eq!(terms(&[&only, &[Step::Snapshot]]), Ok(vec![1, 1, 1]));
    }
}
