//! Durability: what was acknowledged is on the platters of a quorum, and what the log's writer calls synced is there.

use quorate_core::types::MemberId;
use quorate_core::wal;
use quorate_proto::raftpb::{Entry, HardState};

use super::ledger::Ledger;
use super::raft::Raft;
use super::shadow::Shadow;
use super::{Facts, Violation};
use crate::disk::SimDisk;

/// A write is acknowledged at this moment.
pub fn on_ack(facts: &mut Facts, raft: &Raft, ledger: &Ledger, id: u64) -> Result<(), Violation> {
    for &index in ledger.indexes_of(id) {
        let committed = ledger.get(index).expect("an index of the ledger");
        facts.expect("durable.ack", raft.on_quorum(&committed.entry), || {
            format!("request {id:x} at index {index} is acknowledged without a quorum of disks")
        })?;
    }
    Ok(())
}

/// What a log on a disk must hold if `shadow` was synced: its entries and its vote, or later ones.
pub fn check_found(
    facts: &mut Facts,
    property: &'static str,
    member: MemberId,
    shadow: &Shadow,
    found: &Found<'_>,
) -> Result<(), Violation> {
    let Shadow {
        durable,
        hard_state: known,
        ..
    } = shadow;
    let state = found.hard_state;
    let keeps_vote = state.term > known.term
        || (state.term == known.term && (state.vote == known.vote || known.vote == 0));
    facts.expect(property, keeps_vote, || {
        format!("{member:?} finds {state:?}, synced was {known:?}")
    })?;
    // A snapshot that was never synced may have survived, which contradicts what was synced: that is gone then.
    if durable
        .term(found.base)
        .is_some_and(|term| term != found.base_term)
    {
        return Ok(());
    }
    // A write that was never synced may have survived, and may have cut the log to put later entries there.
    let replaces = |entry: &&Entry| {
        durable
            .term(entry.index)
            .is_none_or(|term| term < entry.term)
    };
    let cut_at = found
        .entries
        .iter()
        .find(replaces)
        .map_or(u64::MAX, |entry| entry.index);
    let lost = (found.base + 1..=durable.last().min(cut_at - 1))
        .find(|&index| found.entry(index) != durable.entry(index));
    facts.expect(property, lost.is_none(), || {
        format!(
            "{member:?} finds its log from {} to {}, synced was up to {}, lost is {lost:?}",
            found.base,
            found.base + found.entries.len() as u64,
            durable.last()
        )
    })
}

/// A log as recovery finds it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The index of the checkpoint that the log follows.
    pub base: u64,
    /// The term of the entry there.
    pub base_term: u64,
    /// The entries after it.
    pub entries: &'a [Entry],
    /// The hard state.
    pub hard_state: HardState,
}

impl<'a> Found<'a> {
    /// The entry at an index, if the log held it.
    pub fn entry(&self, index: u64) -> Option<&'a Entry> {
        self.entries
            .get(usize::try_from(index.checked_sub(self.base + 1)?).ok()?)
    }
}

/// Recovers the log from what is on the platter at this moment, as if the power went and nothing else survived.
pub fn check_platter(
    facts: &mut Facts,
    member: MemberId,
    disk: &SimDisk,
    options: &wal::Options,
    shadow: &Shadow,
) -> Result<(), Violation> {
    if shadow.durable.last() == 0 {
        return Ok(());
    }
    let image = disk.durable_image_of(&options.directory);
    let recovered = wal::recover(image, options.clone())
        .map_err(|error| Violation::new("durable.platter", format!("{member:?}: {error}")))?;
    let (base, base_term) = recovered
        .snapshots
        .last()
        .map_or((0, 0), |snapshot| (snapshot.index.0, snapshot.term.0));
    let found = Found {
        base,
        base_term,
        entries: &recovered.entries,
        hard_state: recovered.hard_state,
    };
    check_found(facts, "durable.platter", member, shadow, &found)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_core::boundary::Write;
    use quorate_core::types::{ClusterId, WriteNumber};

    use super::*;
    use crate::disk::DiskFaults;
    use crate::model::Model;
    use crate::random::{Purpose, Stream};

    const A: MemberId = MemberId(1);

    fn write(number: u64, index: u64) -> Write {
        Write {
            number: WriteNumber(number),
            entries: vec![Entry::normal(1, index, Bytes::new())],
            hard_state: Some(HardState {
                term: 1,
                vote: 1,
                commit: 0,
            }),
            snapshot: None,
            must_sync: true,
            ..Write::default()
        }
    }

    #[test]
    fn a_platter_without_what_was_called_synced_is_seen() {
        let disk = SimDisk::new(Stream::new(1, Purpose::Disk, 1), DiskFaults::default());
        let options = wal::Options {
            directory: "wal".to_owned(),
            segment_bytes: 65536,
        };
        let metadata = wal::Metadata {
            member: A,
            cluster: ClusterId(1),
        };
        let mut log = wal::Wal::create(disk.clone(), options.clone(), metadata).unwrap();
        let (mut shadow, mut facts) = (Shadow::default(), Facts::new());
        for (number, is_synced) in [(1, true), (2, false)] {
            let write = write(number, number);
            shadow.emit(&write, None);
            log.append(&write).unwrap();
            if is_synced {
                log.sync().unwrap();
            } else {
                log.flush().unwrap();
            }
            shadow.written(write.number);
            let checked = check_platter(&mut facts, A, &disk, &options, &shadow);
            assert_eq!(checked.is_ok(), is_synced);
        }
    }

    #[test]
    fn an_answer_before_the_quorum_is_seen() {
        let (mut raft, mut facts) = (Raft::new(&[A, MemberId(2), MemberId(3)], 0), Facts::new());
        let mut ledger = Ledger::new(Model::new(1));
        let request = quorate_proto::etcdserverpb::InternalRaftRequest {
            id: 77,
            ..Default::default()
        };
        let payload = Bytes::from(prost::Message::encode_to_vec(&request));
        let mut write = write(1, 1);
        write.entries = vec![Entry::normal(1, 1, payload)];
        ledger.push(write.entries[0].clone());
        raft.on_write(&mut facts, A, &write).unwrap();
        raft.on_written(A, write.number);
        assert!(on_ack(&mut facts, &raft, &ledger, 77).is_err());
        raft.on_write(&mut facts, MemberId(2), &write).unwrap();
        raft.on_written(MemberId(2), write.number);
        on_ack(&mut facts, &raft, &ledger, 77).unwrap();
    }
}
