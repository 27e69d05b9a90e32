//! What the real disk promises, on real files.

use std::os::unix::fs::MetadataExt;

use quorate_core::boundary::Write;
use quorate_core::checkpoint::bolt::MemoryFile;
use quorate_core::checkpoint::{self, Contents, MemberRecord};
use quorate_core::offline::{Backup, Overseer, Plan};
use quorate_core::types::{ClusterId, Index, MemberId, WriteNumber};
use quorate_core::wal::{Metadata, Options, Wal, recover};
use quorate_proto::raftpb::Entry;

use super::*;

fn disk() -> (tempfile::TempDir, MmapDisk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(directory.path().join("data")).unwrap();
    (directory, disk)
}

#[test]
fn a_new_file_is_private_allocated_and_zero() {
    let (_directory, mut disk) = disk();
    disk.make_directory("member/wal").unwrap();
    let file = disk.create("member/wal/x", 1_000_000).unwrap();
    assert_eq!(file.length(), 1_000_000);
    assert!(file.read().unwrap().iter().all(|&byte| byte == 0));
    let metadata = std::fs::metadata(disk.root().join("member/wal/x")).unwrap();
    assert_eq!(
        (metadata.len(), metadata.mode() & 0o777),
        (1_000_000, 0o600)
    );
    assert!(
        metadata.blocks() * 512 >= 1_000_000,
        "{} blocks",
        metadata.blocks()
    );
    let metadata = std::fs::metadata(disk.root().join("member")).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o700);
}

#[test]
fn a_map_shows_later_writes_and_outlives_the_file() {
    let (_directory, mut disk) = disk();
    let mut file = disk.create("x", 4096).unwrap();
    let map = file.read().unwrap();
    file.write_at(100, b"hello").unwrap();
    assert_eq!(map.slice(100..105), "hello");
    disk.remove("x").unwrap();
    drop(file);
    assert_eq!(map.slice(100..105), "hello");
    assert_eq!(disk.open("x").unwrap_err().kind, DiskErrorKind::NotFound);
}

#[test]
fn replacing_a_file_leaves_its_maps_alone() {
    let (_directory, mut disk) = disk();
    let mut file = disk.create("x", 10).unwrap();
    file.write_at(0, b"old").unwrap();
    let map = file.read().unwrap();
    let new = disk.create("x", 20).unwrap();
    assert_eq!((&map[..3], new.read().unwrap().len()), (&b"old"[..], 20));
}

#[test]
fn truncate_adds_zeros_and_cuts() {
    let (_directory, mut disk) = disk();
    let mut file = disk.create("x", 0).unwrap();
    assert!(file.read().unwrap().is_empty());
    file.write_at(2, b"abc").unwrap();
    file.truncate(9).unwrap();
    assert_eq!(file.read().unwrap(), &b"\0\0abc\0\0\0\0"[..]);
    file.truncate(4).unwrap();
    file.sync().unwrap();
    assert_eq!(file.length(), 4);
    assert_eq!(disk.open("x").unwrap().read().unwrap(), &b"\0\0ab"[..]);
}

#[test]
fn without_syncs_the_system_is_never_asked_for_one() {
    let (directory, disk) = disk();
    // Neither can be synced, so that asking shows.
    std::os::unix::fs::symlink("/dev/null", disk.root().join("file")).unwrap();
    std::os::unix::fs::symlink("/proc/self", disk.root().join("directory")).unwrap();
    let mut synced = disk.clone();
    assert!(synced.open("file").unwrap().sync().is_err());
    assert!(synced.sync_directory("directory").is_err());
    let mut unsynced = disk.without_syncs();
    unsynced.open("file").unwrap().sync().unwrap();
    unsynced.sync_directory("directory").unwrap();
    unsynced.create("new", 10).unwrap().sync().unwrap();
    drop(directory);
}

#[test]
fn names_are_listed_in_order_and_a_missing_directory_is_empty() {
    let (_directory, mut disk) = disk();
    for name in ["b", "a", "c"] {
        disk.create(name, 0).unwrap();
    }
    disk.make_directory("d/e").unwrap();
    disk.rename("c", "0").unwrap();
    disk.sync_directory("").unwrap();
    assert_eq!(disk.list("").unwrap(), ["0", "a", "b", "d"]);
    assert!(disk.list("missing").unwrap().is_empty());
    assert!(disk.remove("d").is_err());
    disk.remove("d/e").unwrap();
    disk.remove("d").unwrap();
}

#[test]
fn a_second_owner_is_refused_until_the_first_goes() {
    let (directory, disk) = disk();
    let path = directory.path().join("data");
    let error = MmapDisk::open(&path).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Locked);
    assert!(error.path.ends_with("data"), "{}", error.path);
    drop(disk);
    MmapDisk::open(&path).unwrap();
}

#[test]
fn etcds_lock_on_the_database_is_respected_and_taken() {
    let (directory, mut disk) = disk();
    disk.make_directory("member/snap").unwrap();
    disk.create("member/snap/new", 10).unwrap();
    disk.rename("member/snap/new", DATABASE).unwrap();
    let database = disk.root().join(DATABASE);
    let etcd = File::open(&database).unwrap();
    assert!(etcd.try_lock().is_err(), "taken with the rename");
    // Replacing it moves the lock along.
    disk.create("member/snap/new", 20).unwrap();
    disk.rename("member/snap/new", DATABASE).unwrap();
    assert!(File::open(&database).unwrap().try_lock().is_err());
    etcd.try_lock().unwrap();

    drop(disk);
    let etcd = File::open(&database).unwrap();
    etcd.try_lock().unwrap();
    let error = MmapDisk::open(directory.path().join("data")).unwrap_err();
    assert_eq!(
        (error.kind, error.path.as_str()),
        (DiskErrorKind::Locked, DATABASE)
    );
}

#[test]
fn a_segment_is_locked_as_long_as_it_is_open() {
    let (_directory, mut disk) = disk();
    let file = disk
        .create("0000000000000000-0000000000000000.wal", 10)
        .unwrap();
    let error = disk
        .open("0000000000000000-0000000000000000.wal")
        .unwrap_err();
    assert_eq!(
        (error.kind, error.operation),
        (DiskErrorKind::Locked, "lock")
    );
    drop(file);
    disk.open("0000000000000000-0000000000000000.wal").unwrap();
}

#[test]
fn a_log_is_written_and_recovered_on_real_files() {
    let (_directory, mut disk) = disk();
    disk.make_directory("member").unwrap();
    let options = Options {
        segment_bytes: 100_000,
        ..Options::default()
    };
    let metadata = Metadata {
        member: MemberId(7),
        cluster: ClusterId(8),
    };
    let mut wal = Wal::create(disk.clone(), options.clone(), metadata).unwrap();
    let entry = |index| Entry::normal(1, index, Bytes::from(vec![index as u8; 3000]));
    for index in 1..=200 {
        let write = Write {
            number: WriteNumber(index),
            entries: vec![entry(index)],
            hard_state: None,
            snapshot: None,
            must_sync: true,
            ..Write::default()
        };
        wal.append(&write).unwrap();
        if index % 10 == 0 {
            wal.sync().unwrap();
        }
        if let Some(order) = wal.needs_segment() {
            let mut file = disk.create(&order.path, order.length).unwrap();
            file.sync().unwrap();
            wal.supply_segment(file);
        }
    }
    assert!(wal.segment_count() > 5);
    assert_eq!(
        wal.read_entries(Index(50), Index(51), u64::MAX).unwrap(),
        [entry(50), entry(51)]
    );
    drop(wal);
    let recovered = recover(disk, options).unwrap();
    assert_eq!(recovered.entries, (1..=200).map(entry).collect::<Vec<_>>());
    assert_eq!((recovered.metadata, recovered.repair), (metadata, None));
}

#[test]
fn a_map_whose_memory_was_given_back_shows_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    std::fs::write(&path, &content).unwrap();
    let mapped = Mapped::new(&File::open(&path).unwrap()).unwrap();
    let bytes = mapped.bytes();
    let before = resident_bytes(&path);
    assert!(bytes == content);
    assert!(resident_bytes(&path) > before, "what is read takes memory");
    mapped.release();
    assert_eq!(resident_bytes(&path), 0);
    assert!(bytes == content);
    std::fs::write(&path, b"").unwrap();
    let empty = Mapped::new(&File::open(&path).unwrap()).unwrap();
    empty.release();
    assert!(empty.bytes().is_empty());
}

/// What maps of a file take of this process's memory.
fn resident_bytes(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines();
    let mut bytes = 0;
    while let Some(line) = lines.next() {
        if !line.ends_with(path.to_str().unwrap()) {
            continue;
        }
        let resident = lines.find(|line| line.starts_with("Rss:")).unwrap();
        let kilobytes = resident.split_whitespace().nth(1).unwrap();
        bytes += kilobytes.parse::<u64>().unwrap() * 1024;
    }
    bytes
}

/// Lets a restore end, or not.
struct Judge(bool);

impl Overseer for Judge {
    fn on_read(&mut self, _: usize) {}

    fn may_end(&mut self) -> bool {
        self.0
    }
}

#[test]
fn a_restore_that_may_not_end_leaves_nothing_to_start_on() {
    for may_end in [false, true] {
        let (_directory, disk) = disk();
        let file = MemoryFile::default();
        let written = checkpoint::write_image(file, &Contents::default(), std::iter::empty());
        let image = Bytes::from(written.unwrap().0.0);
        let mut judge = Judge(may_end);
        let backup = Backup::open(image, &mut judge).unwrap();
        let plan = Plan {
            members: vec![MemberRecord {
                id: MemberId(7),
                ..MemberRecord::default()
            }],
            own: Metadata {
                member: MemberId(7),
                cluster: ClusterId(8),
            },
            log: Options::default(),
            bumped: None,
        };
        let restored = backup.restore(disk.clone(), &plan, &mut judge);
        assert_eq!(restored.is_ok(), may_end, "{restored:?}");
        let logs = disk.list("member/wal").unwrap();
        assert_eq!(logs.len(), usize::from(may_end), "{logs:?}");
    }
}
