//! What callers see when nothing goes wrong, or the disk says no.

use super::*;
use crate::disk::{Disk, DiskErrorKind, DiskFile};

fn first_segment() -> String {
    "member/wal/0000000000000000-0000000000000000.wal".to_owned()
}

#[test]
fn a_new_log_is_byte_for_byte_etcds() {
    let disk = TestDisk::default();
    drop(create(&disk, 4096));
    let hex: String = disk.bytes(&first_segment())[..80]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "04000000000000840804100000000000\
         2000000000000000080110bb81c7fc051a1608cdd2918bd2b881cf8e0110b298eaf1948386fccd01\
         0e0000000000008208051094bbc7ed0e1a04080010000000"
    );
    assert_eq!(disk.list("member").unwrap(), ["wal"]);
}

#[test]
fn a_new_log_survives_a_power_loss_at_once() {
    let disk = TestDisk::default();
    drop(create(&disk, 4096));
    for seed in 0..20 {
        let disk = disk.power_loss(&mut Random(seed));
        // Its parent's name is the caller's to make durable.
        if !disk.list("member").unwrap().is_empty() {
            let recovered = reopen(&disk, 4096).unwrap();
            assert_eq!(recovered.metadata, METADATA);
            assert_eq!(recovered.wal.last_index(), Index(0));
        }
    }
}

#[test]
fn what_was_synced_comes_back_and_the_log_goes_on() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 1 << 16);
    wal.append(&write(
        vec![entry(1, 1, b"a"), entry(1, 2, b"")],
        Some(state(1, 1)),
    ))
    .unwrap();
    wal.append(&write(vec![entry(1, 3, b"c")], None)).unwrap();
    wal.sync().unwrap();
    drop(wal);
    for round in 0..3 {
        let mut recovered = reopen(&disk, 1 << 16).unwrap();
        assert_eq!(recovered.metadata, METADATA);
        assert_eq!(recovered.hard_state, state(1, 1));
        assert_eq!(recovered.repair, None);
        assert_eq!(recovered.snapshots.len(), 1);
        assert_eq!(
            recovered.entries[..3],
            [entry(1, 1, b"a"), entry(1, 2, b""), entry(1, 3, b"c")]
        );
        assert_eq!(recovered.entries.len(), 3 + round);
        let next = recovered.wal.last_index().next().0;
        recovered
            .wal
            .append(&write(vec![entry(1, next, b"more")], None))
            .unwrap();
        recovered.wal.sync().unwrap();
    }
}

#[test]
fn segments_are_cut_before_they_overflow_and_named_as_etcd_names_them() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 4096);
    for index in 1..=20 {
        wal.append(&write(
            vec![entry(1, index, &[7; 700])],
            Some(state(1, index - 1)),
        ))
        .unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let names = disk.list("member/wal").unwrap();
    assert_eq!(names[1], "0000000000000001-0000000000000005.wal");
    for name in &names {
        assert_eq!(
            disk.bytes(&format!("member/wal/{name}")).len(),
            4096,
            "{name}"
        );
    }
    let recovered = reopen(&disk, 4096).unwrap();
    assert_eq!(recovered.wal.segment_count(), names.len());
    assert_eq!(indexes(&recovered.entries), (1..=20).collect::<Vec<_>>());
}

#[test]
fn a_write_larger_than_a_segment_extends_it() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 1024);
    for index in 1..=4 {
        wal.append(&write(vec![entry(1, index, &[3; 5000])], Some(state(1, 0))))
            .unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let recovered = reopen(&disk, 1024).unwrap();
    assert_eq!(indexes(&recovered.entries), [1, 2, 3, 4]);
}

#[test]
fn a_supplied_segment_is_used_and_asked_for_once() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 4096);
    assert_eq!(wal.needs_segment(), None);
    let mut index = 0;
    let mut orders = 0;
    while wal.segment_count() < 5 {
        index += 1;
        wal.append(&write(vec![entry(1, index, &[7; 300])], None))
            .unwrap();
        wal.sync().unwrap();
        if let Some(order) = wal.needs_segment() {
            assert_eq!(
                (order.path.as_str(), order.length),
                ("member/wal/0.tmp", 4096)
            );
            orders += 1;
            let mut file = disk.clone().create(&order.path, order.length).unwrap();
            file.sync().unwrap();
            wal.supply_segment(file);
        }
    }
    assert_eq!(orders, 4);
    assert!(
        disk.list("member/wal")
            .unwrap()
            .iter()
            .all(|name| name.ends_with(".wal"))
    );
}

#[test]
fn an_order_that_is_late_does_not_disturb_the_writers_own_segment() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 2048);
    let mut order = None;
    for index in 1..=20 {
        wal.append(&write(vec![entry(1, index, &[7; 300])], None))
            .unwrap();
        wal.sync().unwrap();
        order = order.or(wal.needs_segment());
    }
    let order = order.unwrap();
    let mut file = disk.clone().create(&order.path, order.length).unwrap();
    file.sync().unwrap();
    wal.supply_segment(file);
    for index in 21..=40 {
        wal.append(&write(vec![entry(1, index, &[7; 300])], None))
            .unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    assert_eq!(
        indexes(&reopen(&disk, 2048).unwrap().entries),
        (1..=40).collect::<Vec<_>>()
    );
}

#[test]
fn the_latest_version_of_an_entry_is_read() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 2048);
    for index in 1..=30 {
        wal.append(&write(vec![entry(1, index, &[b'a'; 100])], None))
            .unwrap();
    }
    for index in 11..=25 {
        wal.append(&write(vec![entry(2, index, &[b'b'; 100])], None))
            .unwrap();
    }
    wal.sync().unwrap();
    for mut wal in [wal, reopen(&disk, 2048).unwrap().wal] {
        let entries = wal.read_entries(Index(9), Index(99), u64::MAX).unwrap();
        assert_eq!(indexes(&entries), (9..=25).collect::<Vec<_>>());
        assert!(
            entries
                .iter()
                .all(|entry| entry.term == if entry.index > 10 { 2 } else { 1 })
        );
        assert_eq!(
            indexes(&wal.read_entries(Index(12), Index(14), u64::MAX).unwrap()),
            [12, 13, 14]
        );
        assert_eq!(
            indexes(&wal.read_entries(Index(12), Index(99), 250).unwrap()),
            [12, 13, 14]
        );
        assert_eq!(
            indexes(&wal.read_entries(Index(12), Index(99), 0).unwrap()),
            [12]
        );
        assert_eq!(
            wal.read_entries(Index(26), Index(30), u64::MAX).unwrap(),
            []
        );
    }
}

#[test]
fn purging_keeps_what_recovery_needs() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 2048);
    for index in 1..=60 {
        wal.append(&write(
            vec![entry(1, index, &[7; 300])],
            Some(state(1, index)),
        ))
        .unwrap();
        wal.sync().unwrap();
    }
    let all = wal.segment_count();
    assert_eq!(
        wal.purge_before(Index(60), 1).unwrap(),
        0,
        "no snapshot but the first"
    );
    let record = Write {
        snapshot: Some(snapshot(40, 1)),
        ..write(vec![], None)
    };
    wal.append(&record).unwrap();
    assert_eq!(
        wal.purge_before(Index(60), 1).unwrap(),
        0,
        "the snapshot record is not durable"
    );
    wal.sync().unwrap();
    assert_eq!(wal.purge_before(Index(60), all - 2).unwrap(), 2);
    assert!(wal.purge_before(Index(60), 1).unwrap() > 2);
    assert!(wal.first_index().unwrap() <= Index(41));
    assert_eq!(wal.read_entries(Index(1), Index(9), u64::MAX).unwrap(), []);
    drop(wal);
    let mut recovered = reopen(&disk, 2048).unwrap();
    assert_eq!(recovered.snapshots.last().unwrap(), &snapshot(40, 1));
    assert_eq!(indexes(&recovered.entries), (41..=60).collect::<Vec<_>>());
    assert_eq!(
        recovered.older,
        [(recovered.wal.first_index().unwrap(), Term(1))]
    );
    let from_41 = recovered.wal.bytes_from(Index(41));
    assert!((20 * 300..30 * 400).contains(&from_41), "{from_41}");
    recovered
        .wal
        .append(&write(vec![entry(1, 61, b"")], None))
        .unwrap();
}

#[test]
fn a_snapshot_ahead_of_the_log_restarts_it() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 4096);
    wal.append(&write(
        vec![entry(1, 1, b"a"), entry(1, 2, b"b")],
        Some(state(1, 1)),
    ))
    .unwrap();
    let install = Write {
        snapshot: Some(snapshot(90, 3)),
        ..write(vec![entry(3, 91, b"c")], Some(state(3, 91)))
    };
    wal.append(&install).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let recovered = reopen(&disk, 4096).unwrap();
    assert_eq!(recovered.snapshots.last().unwrap(), &snapshot(90, 3));
    assert_eq!(recovered.hard_state, state(3, 91));
    assert_eq!(indexes(&recovered.entries), [91]);
    assert_eq!(recovered.older, []);
}

#[test]
fn a_snapshot_ahead_of_the_log_holds_even_without_a_hard_state() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 4096);
    wal.append(&write(vec![entry(3, 1, b"a")], Some(state(3, 1))))
        .unwrap();
    wal.append(&Write {
        snapshot: Some(snapshot(90, 3)),
        ..write(vec![], None)
    })
    .unwrap();
    wal.sync().unwrap();
    drop(wal);
    let recovered = reopen(&disk, 4096).unwrap();
    assert_eq!(recovered.snapshots.last().unwrap(), &snapshot(90, 3));
    assert_eq!(
        (recovered.hard_state, recovered.wal.last_index()),
        (state(3, 90), Index(90))
    );
}

#[test]
fn a_failure_is_final_and_repeats_itself() {
    for operation in ["write", "sync"] {
        let disk = TestDisk::default();
        let mut wal = create(&disk, 4096);
        wal.append(&write(vec![entry(1, 1, b"a")], None)).unwrap();
        disk.fail_from(Some(disk.operations() + usize::from(operation == "sync")));
        let error = wal.sync().unwrap_err();
        assert!(matches!(&error, WalError::Disk(error) if error.operation == operation));
        disk.fail_from(None);
        assert_eq!(wal.sync(), Err(error.clone()));
        assert_eq!(wal.flush(), Err(error.clone()));
        assert_eq!(
            wal.append(&write(vec![entry(1, 2, b"b")], None)),
            Err(error.clone())
        );
        assert_eq!(wal.read_entries(Index(1), Index(1), 1), Err(error.clone()));
        assert_eq!(wal.purge_before(Index(1), 1), Err(error));
        assert_eq!(wal.needs_segment(), None);
    }
}

#[test]
fn no_log_is_told_from_a_log() {
    let disk = TestDisk::default();
    assert!(!super::super::exists(&disk, &Options::default()).unwrap());
    assert!(matches!(reopen(&disk, 4096), Err(WalError::Absent(_))));
    drop(create(&disk, 4096));
    assert!(super::super::exists(&disk, &Options::default()).unwrap());
}

#[test]
#[should_panic(expected = "cannot follow")]
fn a_gap_is_the_callers_bug() {
    let mut wal = create(&TestDisk::default(), 4096);
    let _ = wal.append(&write(vec![entry(1, 2, b"")], None));
}

#[test]
fn a_full_disk_does_not_keep_a_torn_log_from_opening() {
    let disk = TestDisk::default();
    let mut wal = create(&disk, 4096);
    wal.append(&write(vec![entry(1, 1, b"kept")], None))
        .unwrap();
    wal.sync().unwrap();
    drop(wal);
    let mut bytes = disk.bytes(&first_segment());
    bytes[2000] = 1;
    disk.put(&first_segment(), &bytes);
    let full = FullDisk(disk.clone());
    let recovered = recover(full, options(4096)).unwrap();
    let repair = recovered.repair.unwrap();
    assert_eq!((repair.copy, indexes(&recovered.entries)), (None, vec![1]));
    assert!(
        disk.bytes(&first_segment())[repair.offset as usize..]
            .iter()
            .all(|&byte| byte == 0)
    );
}

/// A disk on which no file can be made.
#[derive(Clone, Debug)]
struct FullDisk(TestDisk);

impl Disk for FullDisk {
    type File = <TestDisk as Disk>::File;

    fn list(&self, directory: &str) -> Result<Vec<String>, crate::disk::DiskError> {
        self.0.list(directory)
    }

    fn make_directory(&mut self, directory: &str) -> Result<(), crate::disk::DiskError> {
        self.0.make_directory(directory)
    }

    fn create(&mut self, path: &str, _: u64) -> Result<Self::File, crate::disk::DiskError> {
        let (path, message) = (path.to_owned(), "no space left".to_owned());
        Err(crate::disk::DiskError {
            operation: "create",
            path,
            kind: DiskErrorKind::Full,
            message,
        })
    }

    fn open(&mut self, path: &str) -> Result<Self::File, crate::disk::DiskError> {
        self.0.open(path)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), crate::disk::DiskError> {
        self.0.rename(from, to)
    }

    fn remove(&mut self, path: &str) -> Result<(), crate::disk::DiskError> {
        self.0.remove(path)
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), crate::disk::DiskError> {
        self.0.sync_directory(directory)
    }
}
