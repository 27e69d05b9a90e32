//! A member that goes on without the others of its cluster, which are lost (`--force-new-cluster`).
//!
//! Nobody is left to vote, so the log is told what a vote would have said: conf changes that promote this member if it
//! only learned, and remove all others, follow the last entry and count as committed. What applies them cannot tell
//! them from others. They have a term of their own: no entry that the lost members may still hold has it.
//!
//! Everything that the log holds is kept. etcd keeps only what the member knows to be committed; but it knows that later
//! than the leader who answered the client, and the entries in between may be all that is left of acknowledged writes.
//! The one exception is a change that would remove this very member.
//!
//! ```text
//!   image ... | log ... last |            image ahead of the log:   | log ... | image |
//!                            | promote? remove remove                              | promote? remove remove
//! ```

use prost::Message as _;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType, HardState};

use super::{RecoverError, Recovered};
use crate::boundary::{MembersChange, SnapshotRecord, Write};
use crate::member::{Membership, conf_change};
use crate::types::{Index, MemberId};

/// What makes a member a cluster of its own.
#[derive(Debug, Default)]
pub struct Forced {
    /// To be appended to the log, in order, and synced before the member begins; empty if it is alone already.
    pub writes: Vec<Write>,
    /// Who is removed.
    pub removed: Vec<MemberId>,
    /// Entries that were dropped with the change that would have removed this member.
    pub dropped: usize,
}

impl Recovered {
    /// Leaves everybody else out of the cluster. A bound on learners of `learners_max` is what the log was applied with.
    ///
    /// # Errors
    /// If this is no member of the cluster any more, or not yet.
    pub fn force_new_cluster(
        &mut self,
        own: MemberId,
        learners_max: usize,
    ) -> Result<Forced, RecoverError> {
        let (members, kept) = self.members_at_end(own, learners_max);
        let Some(record) = members.member(own) else {
            return Err(RecoverError::NotAMember(own));
        };
        let others: Vec<_> = members.members().map(|member| member.id).collect();
        let removed: Vec<_> = others.into_iter().filter(|id| *id != own).collect();
        let mut changes = Vec::new();
        if record.is_learner {
            changes.push(MembersChange::Promote(own));
        }
        changes.extend(removed.iter().copied().map(MembersChange::Remove));
        if changes.is_empty() {
            return Ok(Forced::default());
        }
        let dropped = self.entries.len() - kept;
        self.entries.truncate(kept);
        Ok(Forced {
            writes: self.commit(&changes),
            removed,
            dropped,
        })
    }

    /// The members once all of the log is applied, and how many of its entries can be kept.
    fn members_at_end(&self, own: MemberId, learners_max: usize) -> (Membership, usize) {
        let mut members = self.state.membership.clone();
        for (at, entry) in self.entries.iter().enumerate() {
            let Some(change) = change_in(entry).filter(|_| entry.index > self.state.index.0) else {
                continue;
            };
            let removes_own = change.kind() == Ok(ConfChangeType::ConfChangeRemoveNode)
                && change.node_id == own.0;
            if removes_own && entry.index > self.hard_state.commit {
                return (members, at);
            }
            // One that does not fit changes nothing, here as in the node.
            let _ = members.apply(&change, learners_max);
        }
        (members, self.entries.len())
    }

    /// Puts the changes behind everything, as committed.
    fn commit(&mut self, changes: &[MembersChange]) -> Vec<Write> {
        let last = self.entries.last();
        let last_index = last.map_or(self.snapshot_index, |entry| Index(entry.index));
        let last_term = last.map_or(self.snapshot_term.0, |entry| entry.term);
        let term = self.hard_state.term.max(self.state.term.0).max(last_term) + 1;
        let mut begin = Write {
            must_sync: true,
            ..Write::default()
        };
        if last_index < self.state.index {
            self.begin_log_at_the_image();
            begin.snapshot = Some(SnapshotRecord {
                index: self.snapshot_index,
                term: self.snapshot_term,
                conf_state: self.state.membership.conf_state(),
            });
        }
        let base = last_index.max(self.state.index).0;
        let hard_state = |commit| HardState {
            term,
            vote: 0,
            commit,
        };
        begin.hard_state = Some(hard_state(base));
        let entries: Vec<_> = (base + 1..)
            .zip(changes)
            .map(|(index, change)| Entry::conf_change(term, index, &conf_change(0, change)))
            .collect();
        self.hard_state = hard_state(base + changes.len() as u64);
        self.entries.extend(entries.iter().cloned());
        let end = Write {
            entries,
            hard_state: Some(self.hard_state),
            must_sync: true,
            ..Write::default()
        };
        vec![begin, end]
    }

    /// The image is ahead of all of the log: etcd applies what is committed before its own disk has it.
    fn begin_log_at_the_image(&mut self) {
        self.entries.clear();
        self.older.clear();
        self.snapshot_index = self.state.index;
        self.snapshot_term = self.state.term;
    }
}

fn change_in(entry: &Entry) -> Option<ConfChange> {
    (entry.kind() == Ok(EntryType::EntryConfChange))
        .then(|| ConfChange::decode(entry.payload()).ok())
        .flatten()
}
