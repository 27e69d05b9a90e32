//! What the disk promises, and what it does not.

use std::collections::BTreeSet;

use quorate_core::disk::{Disk as _, DiskErrorKind, DiskFile as _};

use super::*;
use crate::random::Purpose;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(Stream::new(seed, Purpose::Disk, 1), DiskFaults::default())
}

/// A disk with the durable file `f` of 2048 bytes of `old`.
fn disk_with_file(seed: u64, old: u8) -> SimDisk {
    let mut disk = disk(seed);
    let mut file = disk.create("f", 2048).unwrap();
    file.write_at(0, &[old; 2048]).unwrap();
    file.sync().unwrap();
    disk.sync_directory("").unwrap();
    disk
}

const LOG: &str = "member/wal/log";

/// A disk with a durable log of 2048 bytes of 1.
fn disk_with_log(seed: u64) -> SimDisk {
    let mut disk = disk(seed);
    disk.make_directory("member/wal").unwrap();
    for directory in ["", "member"] {
        disk.sync_directory(directory).unwrap();
    }
    let mut file = disk.create(LOG, 2048).unwrap();
    file.write_at(0, &[1; 2048]).unwrap();
    file.sync().unwrap();
    disk.sync_directory("member/wal").unwrap();
    disk
}

fn content(disk: &mut SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.open(path)
        .ok()
        .map(|file| file.read().unwrap().to_vec())
}

#[test]
fn what_was_synced_survives_every_power_loss() {
    for seed in 0..100 {
        let mut disk = disk_with_file(seed, 7).lose_power();
        assert_eq!(content(&mut disk, "f"), Some(vec![7; 2048]));
    }
}

#[test]
fn each_unsynced_sector_survives_or_not_by_itself() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..2000 {
        let mut disk = disk_with_file(seed, 1);
        disk.open("f").unwrap().write_at(0, &[2; 2048]).unwrap();
        let mut disk = disk.lose_power();
        let after = content(&mut disk, "f").unwrap();
        let sectors: Vec<u8> = after.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        for (sector, first) in after.chunks(SECTOR_BYTES).zip(&sectors) {
            assert!(sector.iter().all(|byte| byte == first), "a sector was torn");
        }
        outcomes.insert(sectors);
    }
    assert_eq!(
        outcomes.len(),
        16,
        "every combination of four sectors happens"
    );
}

#[test]
fn a_sector_is_torn_only_where_that_is_allowed() {
    let mut torn = 0;
    for seed in 0..200 {
        let mut disk = disk_with_file(seed, 1);
        disk.set_torn(300_000);
        disk.open("f").unwrap().write_at(0, &[2; 2048]).unwrap();
        let after = content(&mut disk.lose_power(), "f").unwrap();
        torn += after
            .chunks(SECTOR_BYTES)
            .filter(|sector| sector.iter().any(|byte| *byte != sector[0]))
            .count();
    }
    assert!(torn > 0);
}

#[test]
fn a_process_crash_keeps_what_was_written() {
    let mut before = disk_with_file(1, 1);
    let mut file = before.open("f").unwrap();
    file.write_at(100, &[9; 10]).unwrap();
    let mut after = before.crash();
    assert_eq!(content(&mut after, "f").unwrap()[100..110], [9; 10]);
    assert!(
        file.write_at(0, &[3]).is_err(),
        "a dead process writes nothing"
    );
    assert!(before.create("g", 0).is_err());
    assert_eq!(content(&mut after, "f").unwrap()[0], 1);
}

#[test]
fn names_are_durable_only_after_the_directory_is_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..100 {
        let mut disk = disk_with_file(seed, 1);
        disk.rename("f", "g").unwrap();
        let mut disk = disk.lose_power();
        match (content(&mut disk, "f"), content(&mut disk, "g")) {
            (Some(_), None) => lost += 1,
            (None, Some(_)) => kept += 1,
            both => panic!("a rename is atomic: {both:?}"),
        }
    }
    assert!(kept > 0 && lost > 0);
    let mut disk = disk_with_file(1, 1);
    disk.rename("f", "g").unwrap();
    disk.sync_directory("").unwrap();
    assert!(content(&mut disk.lose_power(), "g").is_some());
}

#[test]
fn a_synced_file_without_a_synced_name_can_be_gone() {
    let gone = (0..100).filter(|&seed| {
        let mut disk = disk(seed);
        disk.create("f", 8).unwrap().sync().unwrap();
        content(&mut disk.lose_power(), "f").is_none()
    });
    assert!(gone.count() > 0);
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let mut disk = disk(1);
    disk.make_directory("a/b").unwrap();
    disk.create("a/b/f", 8).unwrap().sync().unwrap();
    for directory in ["", "a", "a/b"] {
        disk.sync_directory(directory).unwrap();
    }
    disk.rename("a/b/f", "f").unwrap();
    disk.sync_directory("").unwrap();
    assert_eq!(content(&mut disk.durable_image(), "f"), None);
    disk.sync_directory("a/b").unwrap();
    assert!(content(&mut disk.durable_image(), "f").is_some());
    assert_eq!(disk.list("a/b").unwrap(), Vec::<String>::new());
}

#[test]
fn after_a_failed_sync_the_next_succeeds_and_promises_nothing() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut disk = disk_with_file(seed, 1);
        let mut file = disk.open("f").unwrap();
        file.write_at(0, &[2; 2048]).unwrap();
        disk.fail_next_sync();
        assert!(file.sync().is_err());
        assert_eq!(
            content(&mut disk, "f").unwrap(),
            [2; 2048],
            "the cache still shows it"
        );
        file.sync().unwrap();
        lost += usize::from(content(&mut disk.lose_power(), "f").unwrap() != [2; 2048]);
    }
    assert!(lost > 0);
}

#[test]
fn a_fuse_cuts_one_operation_and_all_that_follow() {
    let mut disk = disk_with_file(3, 1);
    disk.set_fuse(1);
    let mut file = disk.open("f").unwrap();
    file.write_at(0, &[2; 8]).unwrap();
    assert!(!disk.is_dark());
    assert!(file.write_at(0, &[3; 2048]).is_err());
    assert!(disk.is_dark());
    assert!(file.sync().is_err() && file.read().is_err() && disk.list("").is_err());
    let mut disk = disk.lose_power();
    assert!(!disk.is_dark());
    assert_eq!(content(&mut disk, "f").unwrap().len(), 2048);
}

#[test]
fn a_full_disk_refuses_to_allocate_but_not_to_overwrite() {
    let mut disk = disk_with_file(1, 1);
    disk.set_capacity(Some(2048));
    let mut file = disk.open("f").unwrap();
    file.write_at(0, &[5; 2048]).unwrap();
    assert_eq!(
        file.write_at(2047, &[5; 2]).unwrap_err().kind,
        DiskErrorKind::Full
    );
    assert_eq!(disk.create("g", 1).unwrap_err().kind, DiskErrorKind::Full);
    assert_eq!(disk.counts().full, 2);
}

#[test]
fn zeros_that_hide_old_bytes_are_written_bytes() {
    for seed in 0..50 {
        let mut disk = disk_with_file(seed, 1);
        let mut file = disk.open("f").unwrap();
        file.truncate(0).unwrap();
        file.truncate(2048).unwrap();
        assert_eq!(content(&mut disk, "f").unwrap(), [0; 2048]);
        file.sync().unwrap();
        assert_eq!(content(&mut disk.lose_power(), "f").unwrap(), [0; 2048]);
    }
}

#[test]
fn the_pristine_view_shows_the_platter_and_changes_nothing() {
    let mut disk = disk_with_file(1, 1);
    disk.open("f").unwrap().write_at(0, &[2; 2048]).unwrap();
    let mut image = disk.durable_image();
    assert_eq!(content(&mut image, "f").unwrap(), [1; 2048]);
    image.open("f").unwrap().write_at(0, &[3; 2048]).unwrap();
    assert_eq!(content(&mut disk, "f").unwrap(), [2; 2048]);
}

/// Syncs the last sector of `f` once more, as it is.
fn sync_more(disk: &mut SimDisk) {
    let mut file = disk.open("f").unwrap();
    file.write_at(1536, &[7; 512]).unwrap();
    file.sync().unwrap();
}

#[test]
fn rot_stays_until_it_is_repaired_and_the_pristine_view_never_shows_it() {
    for seed in 0..50 {
        let mut disk = disk_with_file(seed, 7);
        sync_more(&mut disk);
        let said = disk.rot(|path| path == "f").unwrap();
        assert!(said.starts_with("f sector "));
        assert_eq!(disk.rot(|path| path == "g"), None);
        let rotten = content(&mut disk, "f").unwrap();
        assert_ne!(rotten, vec![7; 2048]);
        assert_eq!(content(&mut disk, "f"), Some(rotten.clone()), "re-read");
        assert_eq!(content(&mut disk.durable_image(), "f"), Some(vec![7; 2048]));
        let mut disk = disk.lose_power();
        assert_eq!(content(&mut disk, "f"), Some(rotten), "after a power loss");
        assert!(disk.is_spoilt());
        disk.repair();
        assert_eq!(content(&mut disk, "f"), Some(vec![7; 2048]));
        assert!(!disk.is_spoilt());
    }
}

#[test]
fn a_write_that_went_astray_shows_after_a_power_loss() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let mut disk = disk_with_file(seed, 1);
        let mut file = disk.open("f").unwrap();
        if seed % 2 == 0 {
            disk.lose_next_write();
        } else {
            disk.misdirect_next_write();
        }
        file.write_at(0, &[2; 512]).unwrap();
        file.sync().unwrap();
        assert_eq!(content(&mut disk.durable_image(), "f").unwrap()[0], 2);
        file.write_at(1024, &[3; 512]).unwrap();
        file.sync().unwrap();
        assert_eq!(content(&mut disk, "f").unwrap()[0], 2, "the page cache");
        let mut disk = disk.lose_power();
        let after = content(&mut disk, "f").unwrap();
        outcomes.insert(
            after
                .chunks(SECTOR_BYTES)
                .map(|it| it[0])
                .collect::<Vec<_>>(),
        );
        disk.repair();
        let repaired = content(&mut disk, "f").unwrap();
        assert_eq!((repaired[0], repaired[512], repaired[1024]), (2, 1, 3));
    }
    assert!(outcomes.contains(&vec![1, 1, 3, 1]), "{outcomes:?}");
    assert!(outcomes.contains(&vec![1, 2, 3, 1]), "{outcomes:?}");
}

#[test]
fn what_the_last_sync_of_a_log_wrote_is_neither_lost_nor_rots() {
    let mut disk = disk_with_log(1);
    assert_eq!(disk.rot(|path| path == LOG), None);
    disk.lose_next_write();
    let mut file = disk.open(LOG).unwrap();
    file.write_at(0, &[2; 512]).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.counts().lost, 1);
    assert!(disk.rot(|path| path == LOG).is_some());
    disk.repair();
    let mut disk = disk.lose_power();
    assert_eq!(content(&mut disk, LOG).unwrap()[0], 2);
}

#[test]
fn what_the_last_sync_of_another_file_lost_is_missing() {
    let mut disk = disk_with_file(1, 1);
    disk.lose_next_write();
    let mut file = disk.open("f").unwrap();
    file.write_at(0, &[2; 512]).unwrap();
    file.sync().unwrap();
    let mut disk = disk.lose_power();
    assert_eq!(content(&mut disk, "f").unwrap()[0], 1);
    assert!(disk.is_spoilt());
}

#[test]
fn what_is_written_beside_rot_does_not_make_it_good() {
    let mut disk = disk_with_file(5, 7);
    sync_more(&mut disk);
    disk.rot(|path| path == "f").unwrap();
    let rotten = content(&mut disk, "f").unwrap();
    let place = rotten.iter().position(|byte| *byte != 7).unwrap();
    let beside = place / SECTOR_BYTES * SECTOR_BYTES + (place + 100) % SECTOR_BYTES;
    let mut file = disk.open("f").unwrap();
    file.write_at(beside as u64, &[9]).unwrap();
    file.sync().unwrap();
    assert!(disk.is_spoilt());
    disk.repair();
    let mut repaired = vec![7; 2048];
    repaired[beside] = 9;
    assert_eq!(content(&mut disk, "f"), Some(repaired));
}
