//! Damage that no power loss makes, and torn tails that look like it.

use std::ops::Range;

use proptest::prelude::*;
use quorate_proto::walpb;

use super::*;
use crate::disk::Disk;
use crate::wal::frame;
use crate::wal::record::Encoder;

/// A synced log in several segments, one batch a write.
struct Written {
    segment_bytes: u64,
    files: Vec<(String, Vec<u8>)>,
    entries: Vec<Entry>,
    /// Where the last batch begins in the last segment, and how many entries come before it.
    last_batch: (usize, usize),
}

fn written(segment_bytes: u64, segments: usize, payload: &[u8]) -> Written {
    let disk = TestDisk::default();
    let mut wal = create(&disk, segment_bytes);
    let mut entries = Vec::new();
    let mut last_batch = (0, 0);
    while wal.segment_count() < segments || wal.segments.last().unwrap().length < segment_bytes / 2
    {
        let index = entries.len() as u64 + 1;
        let batch = vec![entry(1, index, payload), entry(1, index + 1, b"short")];
        wal.append(&write(batch.clone(), Some(state(1, index))))
            .unwrap();
        last_batch = (wal.segments.last().unwrap().length as usize, entries.len());
        entries.extend(batch);
        wal.sync().unwrap();
    }
    let names = disk.list("member/wal").unwrap();
    let paths = names.iter().map(|name| format!("member/wal/{name}"));
    Written {
        segment_bytes,
        files: paths
            .map(|path| (path.clone(), disk.bytes(&path)))
            .collect(),
        entries,
        last_batch,
    }
}

impl Written {
    /// Recovers the log with one file changed.
    fn recover_with(&self, at: usize, bytes: &[u8]) -> Result<Recovered<TestDisk>, WalError> {
        let disk = TestDisk::default();
        disk.clone().make_directory("member/wal").unwrap();
        for (index, (path, good)) in self.files.iter().enumerate() {
            disk.put(path, if index == at { bytes } else { good });
        }
        reopen(&disk, self.segment_bytes)
    }

    /// Checks that a change of `range` in the file number `at` is refused or does not matter. Only where it hits the
    /// last batch of all, which nothing else proves to be synced, may it pass for a torn tail.
    fn check(&self, at: usize, range: Range<usize>, bytes: &[u8], what: &str) {
        let what = format!("{what} in {range:?} of {}", self.files[at].0);
        let is_last = at + 1 == self.files.len();
        match self.recover_with(at, bytes) {
            Err(WalError::Damaged(damage)) => {
                assert!(damage.offset as usize <= bytes.len(), "{what}: {damage}")
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(recovered) if recovered.entries == self.entries => {}
            Ok(recovered) => {
                assert!(
                    is_last && range.end > self.last_batch.0,
                    "{what}: entries are lost in silence"
                );
                assert!(
                    range.start < self.last_batch.0 || recovered.entries.len() >= self.last_batch.1,
                    "{what}"
                );
                assert_eq!(recovered.entries, self.entries[..recovered.entries.len()]);
            }
        }
    }
}

#[test]
fn no_flipped_bit_loses_synced_entries_in_silence() {
    let log = written(1024, 3, &[b'x'; 100]);
    for at in 0..log.files.len() {
        let end = frame::content_end(&log.files[at].1);
        for bit in 0..(end + 16) * 8 {
            let mut bytes = log.files[at].1.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            log.check(at, bit / 8..bit / 8 + 1, &bytes, &format!("bit {bit}"));
        }
    }
}

#[test]
fn no_lost_sector_loses_synced_entries_in_silence() {
    for payload in [&[b'x'; 700][..], &[0; 700]] {
        let log = written(2048, 3, payload);
        for at in 0..log.files.len() {
            for (length, step) in [(512, 512), (512, 8), (1024, 512), (16, 8)] {
                for start in (0..frame::content_end(&log.files[at].1)).step_by(step) {
                    let mut bytes = log.files[at].1.clone();
                    let end = (start + length).min(bytes.len());
                    bytes[start..end].fill(0);
                    log.check(at, start..end, &bytes, "zeros");
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_no_tear_even_in_the_last_batch() {
    let log = written(4096, 1, &[b'x'; 900]);
    let (path, good) = log.files.last().unwrap();
    let start = log.last_batch.0 + 200; // In the payload of the batch's first entry.
    for at in start..start + 600 {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        let Err(WalError::Damaged(damage)) = log.recover_with(0, &bytes) else {
            panic!("{at} of {path}")
        };
        assert!(damage.expected.starts_with("checksum"), "{damage}");
    }
}

#[test]
fn a_cut_file_is_refused_unless_it_is_the_last() {
    let log = written(2048, 3, &[b'x'; 300]);
    for at in 0..log.files.len() {
        let is_last = at + 1 == log.files.len();
        for length in 0..log.files[at].1.len() {
            match log.recover_with(at, &log.files[at].1[..length]) {
                Err(WalError::Damaged(_)) => {}
                Err(error) => panic!("{length}: {error}"),
                Ok(recovered) if is_last => {
                    assert_eq!(recovered.entries, log.entries[..recovered.entries.len()]);
                }
                Ok(recovered) => assert_eq!(recovered.entries, log.entries, "{at} {length}"),
            }
        }
    }
}

#[test]
fn a_missing_segment_and_anothers_segment_are_refused() {
    let log = written(2048, 4, &[b'x'; 300]);
    for missing in 1..3 {
        let disk = TestDisk::default();
        disk.clone().make_directory("member/wal").unwrap();
        for (index, (path, bytes)) in log.files.iter().enumerate() {
            if index != missing {
                disk.put(path, bytes);
            }
        }
        let Err(WalError::Damaged(damage)) = reopen(&disk, 2048) else {
            panic!("accepted")
        };
        assert_eq!(damage.path, log.files[missing + 1].0);
    }
    let mut encoder = Encoder::new(0);
    encoder.seed();
    encoder.metadata(
        &Metadata {
            member: MemberId(1),
            ..METADATA
        }
        .encode(),
    );
    assert!(matches!(
        log.recover_with(0, encoder.frames()),
        Err(WalError::Damaged(_))
    ));
}

#[test]
fn damage_names_the_file_the_place_and_the_cure() {
    let log = written(2048, 3, &[b'x'; 300]);
    let mut bytes = log.files[1].1.clone();
    bytes[200] ^= 1;
    let error = log.recover_with(1, &bytes).err().unwrap().to_string();
    for part in [
        &log.files[1].0[..],
        " at offset ",
        "expected checksum ",
        "Nothing was changed",
        "remove this member",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_hole_is_torn_before_the_sync_and_damage_after_it() {
    for hole in [512, 1024, 1536] {
        let disk = TestDisk::default();
        let mut wal = create(&disk, 8192);
        wal.append(&write(vec![entry(1, 1, b"synced")], None))
            .unwrap();
        wal.sync().unwrap();
        wal.append(&write(
            (2..9).map(|index| entry(1, index, &[b'x'; 400])).collect(),
            None,
        ))
        .unwrap();
        wal.flush().unwrap();
        let path = wal.segments[0].path.clone();
        let punched = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[hole..hole + 512].fill(0);
            bytes
        };

        // Never synced: the sectors behind the hole survived by chance.
        let torn = disk.copy();
        torn.put(&path, &punched(&disk.bytes(&path)));
        let recovered = reopen(&torn, 8192).unwrap();
        let repair = recovered.repair.clone().expect("a tail was cut");
        assert_eq!(repair.path, path);
        assert!(repair.offset as usize <= hole + 512 && repair.bytes > 0);
        assert!(recovered.wal.last_index() >= Index(1) && recovered.wal.last_index() < Index(8));
        let copy = torn.bytes(&repair.copy.unwrap());
        assert_eq!(copy, punched(&disk.bytes(&path))[..copy.len()]);
        assert!(
            torn.bytes(&path)[repair.offset as usize..]
                .iter()
                .all(|&byte| byte == 0)
        );
        drop(recovered);
        assert_eq!(reopen(&torn, 8192).unwrap().repair, None);

        // Synced, which the next batch proves: the sector was lost later.
        wal.sync().unwrap();
        wal.append(&write(vec![entry(1, 9, b"next batch")], None))
            .unwrap();
        wal.sync().unwrap();
        let rotten = disk.copy();
        rotten.put(&path, &punched(&disk.bytes(&path)));
        let Err(WalError::Damaged(damage)) = reopen(&rotten, 8192) else {
            panic!("accepted")
        };
        assert!(damage.found.contains("had been synced"), "{damage}");
        assert_eq!(
            rotten.bytes(&path),
            punched(&disk.bytes(&path)),
            "nothing was changed"
        );
    }
}

/// A log of one segment with these frames in it, written by somebody else.
fn foreign(records: impl FnOnce(&mut Encoder)) -> TestDisk {
    let mut encoder = Encoder::new(0);
    encoder.seed();
    encoder.metadata(&METADATA.encode());
    encoder.snapshot(&snapshot(0, 0));
    records(&mut encoder);
    let disk = TestDisk::default();
    disk.clone().make_directory("member/wal").unwrap();
    disk.put(
        "member/wal/0000000000000000-0000000000000000.wal",
        encoder.frames(),
    );
    disk
}

#[test]
fn a_snapshot_that_nothing_commits_is_not_begun_at() {
    // etcd writes the snapshot record, then entries, then the hard state that commits them. Ended before that:
    let disk = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b"a"));
        encoder.hard_state(&state(1, 1));
        encoder.snapshot(&snapshot(9, 2));
        encoder.entry(&entry(2, 10, b"b"));
    });
    let mut recovered = reopen(&disk, 4096).unwrap();
    assert_eq!(recovered.snapshots.len(), 1);
    assert_eq!(indexes(&recovered.entries), [1]);
    assert!(
        recovered.repair.is_some(),
        "the entry cannot stay: nobody could read past it"
    );
    recovered
        .wal
        .append(&write(vec![entry(2, 2, b"c")], None))
        .unwrap();
    recovered.wal.sync().unwrap();
    drop(recovered);
    assert_eq!(indexes(&reopen(&disk, 4096).unwrap().entries), [1, 2]);

    // Ended right after the record. It must not come to hold later, when the log has grown past it another way.
    let disk = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b"a"));
        encoder.hard_state(&state(1, 1));
        encoder.snapshot(&snapshot(3, 2));
    });
    let mut recovered = reopen(&disk, 4096).unwrap();
    let more = write(
        (2..6).map(|index| entry(1, index, b"c")).collect(),
        Some(state(1, 5)),
    );
    recovered.wal.append(&more).unwrap();
    recovered.wal.sync().unwrap();
    drop(recovered);
    assert_eq!(reopen(&disk, 4096).unwrap().snapshots.len(), 1);

    // The same with the hard state, and with the log going on as if there were no snapshot record.
    let disk = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b"a"));
        encoder.snapshot(&snapshot(9, 2));
        encoder.entry(&entry(2, 10, b"b"));
        encoder.hard_state(&state(2, 9));
    });
    assert_eq!(indexes(&reopen(&disk, 4096).unwrap().entries), [10]);
    let disk = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b"a"));
        encoder.snapshot(&snapshot(9, 2));
        encoder.entry(&entry(2, 2, b"b"));
        encoder.hard_state(&state(2, 1));
    });
    assert_eq!(indexes(&reopen(&disk, 4096).unwrap().entries), [1, 2]);
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let gap = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b""));
        encoder.entry(&entry(1, 3, b""));
    });
    let replaced = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b""));
        encoder.hard_state(&state(1, 1));
        encoder.entry(&entry(2, 1, b""));
    });
    let commit_ahead = foreign(|encoder| {
        encoder.entry(&entry(1, 1, b""));
        encoder.hard_state(&state(1, 2));
    });
    for (disk, expected) in [
        (gap, "entry 2"),
        (replaced, "no entry in place of the committed"),
        (commit_ahead, "up to the commit index 2"),
    ] {
        let Err(WalError::Damaged(damage)) = reopen(&disk, 4096) else {
            panic!("accepted: {expected}")
        };
        assert!(damage.expected.contains(expected), "{damage}");
    }
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(
        head in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        words in prop::collection::vec((0..64_usize, 0..40_u64), 0..8),
    ) {
        let mut bytes = bytes;
        for (at, word) in words {
            if let Some(place) = bytes.get_mut(at * 8..at * 8 + 8) {
                place.copy_from_slice(&(word | if word % 8 == 0 { 0 } else { (0x80 | (8 - word % 8)) << 56 }).to_le_bytes());
            }
        }
        let disk = foreign(|_| ());
        let path = "member/wal/0000000000000000-0000000000000000.wal";
        let mut all = if head { disk.bytes(path) } else { vec![] };
        all.extend(bytes);
        disk.put(path, &all);
        if let Ok(recovered) = reopen(&disk, 4096) {
            prop_assert_eq!(recovered.metadata, METADATA);
        }
    }

    /// Frames and checksums are right, but what they say need not make sense.
    #[test]
    fn a_log_is_refused_or_can_go_on(
        records in prop::collection::vec((0..10_u8, prop_oneof![0..8_u64, any::<u64>()], prop_oneof![0..4_u64, any::<u64>()]), 0..20),
    ) {
        let disk = foreign(|encoder| {
            for &(kind, index, term) in &records {
                match kind {
                    0..5 => encoder.entry(&entry(term, index, b"x")),
                    5..7 => encoder.hard_state(&state(term, index)),
                    7..9 => encoder.snapshot(&snapshot(index, term)),
                    _ => encoder.metadata(&walpb::Snapshot::default().index.to_le_bytes()),
                }
            }
        });
        let Ok(mut recovered) = reopen(&disk, 4096) else { return Ok(()) };
        let begin = recovered.snapshots.last().unwrap().index.0;
        for (entry, index) in recovered.entries.iter().zip(begin + 1..) {
            prop_assert_eq!(entry.index, index);
        }
        let last = recovered.wal.last_index();
        prop_assert!(recovered.hard_state.commit <= last.0);
        if last.next() == last {
            return Ok(());
        }
        let next = entry(u64::MAX, last.next().0, b"next");
        recovered.wal.append(&write(vec![next.clone()], None)).unwrap();
        recovered.wal.sync().unwrap();
        let mut expected = recovered.entries.clone();
        expected.push(next);
        drop(recovered);
        let again = reopen(&disk, 4096).unwrap();
        prop_assert_eq!(again.entries, expected);
        prop_assert_eq!(again.repair, None);
    }
}
