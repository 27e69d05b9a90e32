use bytes::Bytes;

use super::*;
use crate::checkpoint::crash_disk::{CrashDisk, LOSSES, contents};
use crate::checkpoint::load;
use crate::mvcc::Store;
use crate::types::LeaseId;

fn row(main: i64) -> Row {
    Row {
        main,
        sub: 0,
        tombstone: false,
        key_value: Bytes::from(format!("\x0a\x08key-{main:04}")),
    }
}

fn put(store: &mut Store, key: &str) {
    let mut txn = store.begin();
    txn.put(key.as_bytes(), b"value", LeaseId(0));
    txn.end();
}

fn write(disk: &CrashDisk, index: u64) -> Result<CheckpointDone, CheckpointError> {
    let rows = (2..index as i64 * 3).map(|main| Ok(row(main)));
    write_checkpoint(&mut disk.clone(), &contents(index), rows)
}

/// The index of the image, all of whose rows are there; `None` without an image.
fn whole_image(disk: &CrashDisk) -> Option<u64> {
    let loaded = load(disk.content(DATABASE)?).expect("what has the name is whole");
    let index = loaded.contents.consistent_index.0;
    assert_eq!(loaded.contents, contents(index));
    let rows: Vec<_> = loaded.rows.collect::<Result<_, _>>().unwrap();
    assert_eq!(rows, (2..index as i64 * 3).map(row).collect::<Vec<_>>());
    Some(index)
}

fn snap(index: u64) -> String {
    format!("{DIRECTORY}/{}", snap::file_name(&contents(index)))
}

#[test]
fn checkpoint_is_durable_when_the_job_ends() {
    let disk = CrashDisk::default();
    let done = write(&disk, 10).unwrap();
    for loss in LOSSES {
        let disk = disk.after(loss);
        assert_eq!(whole_image(&disk), Some(10));
        let image = disk.content(DATABASE).unwrap();
        assert_eq!((done.index, done.bytes), (Index(10), image.len() as u64));
        assert_eq!(
            disk.content(&snap(10)).unwrap(),
            snap::encode(&contents(10))
        );
        assert_eq!(disk.list(DIRECTORY).unwrap().len(), 2);
    }
}

#[test]
fn power_loss_at_any_step_leaves_a_whole_image_and_no_snap_before_it() {
    let mut steps = 0;
    for power in 0.. {
        let disk = CrashDisk::default();
        write(&disk, 10).unwrap();
        disk.cut_power_after(power);
        let crashed = write(&disk, 300).is_err();
        for loss in LOSSES {
            let disk = disk.after(loss);
            let index = whole_image(&disk).expect("the first image is durable");
            assert!(index == 300 || crashed, "step {power}, {loss:?}");
            if let Some(file) = disk.content(&snap(300)) {
                assert_eq!(
                    (index, file),
                    (300, snap::encode(&contents(300)).into()),
                    "step {power}, {loss:?}"
                );
            }
            // The next start goes on from there, and nothing half-written stays.
            write(&disk, 301).unwrap();
            assert_eq!(whole_image(&disk), Some(301));
            let names = disk.list(DIRECTORY).unwrap();
            assert!(
                names
                    .iter()
                    .all(|name| name == "db" || snap::is_file_name(name)),
                "{names:?}"
            );
        }
        if !crashed {
            steps = power;
            break;
        }
    }
    assert!(steps >= 10, "{steps} steps");
}

#[test]
fn five_snap_files_stay() {
    let disk = CrashDisk::default();
    for index in 1..=9 {
        write(&disk, index).unwrap();
    }
    let expected: Vec<_> = (5..=9)
        .map(|index| snap::file_name(&contents(index)))
        .collect();
    assert_eq!(disk.snaps(), expected);
}

#[test]
fn rows_come_in_slices_without_gap_or_repetition() {
    let all: Vec<_> = (2..5_000).map(row).collect();
    let slice = |from: (i64, i64)| {
        let start = all.partition_point(|row| (row.main, row.sub) < from);
        Some(all[start..].iter().take(100).cloned().collect())
    };
    assert_eq!(rows(slice).collect::<Result<Vec<_>, _>>().unwrap(), all);
}

#[test]
fn replaced_store_ends_the_job_and_spares_the_image() {
    let disk = CrashDisk::default();
    write(&disk, 10).unwrap();
    let mut store = Store::new();
    put(&mut store, "key");
    let job = Job::new(contents(11), &store.view());
    store.replace(Store::new());
    assert_eq!(
        job.write(&mut disk.clone()),
        Err(CheckpointError::Superseded)
    );
    assert_eq!(whole_image(&disk), Some(10));
}

#[test]
fn job_holds_the_store_as_it_was() {
    let mut store = Store::new();
    for number in 0..3_000 {
        put(&mut store, &format!("key-{}", number % 1_000));
    }
    let job = Job::new(contents(11), &store.view());
    put(&mut store, "later");
    store.compact(store.revision()).unwrap();
    store.compact_step(usize::MAX);
    let disk = CrashDisk::default();
    job.write(&mut disk.clone()).unwrap();
    drop(job);
    let loaded = load(disk.content(DATABASE).unwrap()).unwrap();
    let mains: Vec<_> = loaded.rows.map(|row| row.unwrap().main).collect();
    assert_eq!(mains, (2..3_002).collect::<Vec<_>>());
}
