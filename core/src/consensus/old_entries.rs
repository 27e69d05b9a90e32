//! Entries that are on the disk only, read back for followers that lag.

use quorate_proto::raftpb;

use super::{Consensus, convert};
use crate::boundary::Output;
use crate::types::Index;

impl Consensus {
    /// Asks for old entries that a follower needs.
    pub(crate) fn request_old_entries(&mut self, out: &mut Vec<Output>) {
        for wanted in self.raw.mut_store().take_wanted() {
            out.push(Output::ReadEntries {
                first: Index(wanted.first),
                last: Index(wanted.last),
                bytes_max: wanted.bytes_max,
            });
            self.fetch = Some(wanted.context);
        }
    }

    /// Old entries came back from the disk.
    pub(crate) fn on_entries_read(&mut self, first: Index, entries: Vec<raftpb::Entry>) {
        let mut converted = Vec::with_capacity(entries.len());
        for entry in entries {
            let expected = first.0 + converted.len() as u64;
            match convert::entry_in(entry) {
                Ok(entry) if entry.index == expected => converted.push(entry),
                _ => break,
            }
        }
        // A term that differs would mean that the entries were overwritten meanwhile: those are not this log's.
        converted
            .retain(|entry| raft::Storage::term(self.raw.store(), entry.index) == Ok(entry.term));
        if converted.is_empty() {
            let is_purged = first < self.kept_from;
            let kept = if is_purged {
                self.kept_from.0
            } else {
                u64::MAX
            };
            self.raw.mut_store().lose_before(kept);
        }
        self.raw.mut_store().supply(converted);
        if let Some(context) = self.fetch.take() {
            self.raw.on_entries_fetched(context);
        }
        self.reseed();
    }
}
