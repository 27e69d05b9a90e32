use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_proto::raftpb::ConfState;

use super::*;
use crate::checkpoint::schema::MemberRecord;
use crate::checkpoint::{STORAGE_VERSION, load};
use crate::mvcc::Store;
use crate::types::{LeaseId, MemberId, Term};

/// A disk that forgets what was not synced, and that can lose its power before any operation.
#[derive(Clone, Default)]
struct CrashDisk(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    names_synced: BTreeMap<String, usize>,
    /// Operations until the power is lost.
    power: Option<usize>,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

struct Handle(CrashDisk, usize);

/// What of the unsynced survives a power loss.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Everything,
    Nothing,
    OddSectors,
    NamesOnly,
    BytesOnly,
}

const LOSSES: [Loss; 5] = [
    Loss::Everything,
    Loss::Nothing,
    Loss::OddSectors,
    Loss::NamesOnly,
    Loss::BytesOnly,
];

impl CrashDisk {
    fn step(
        &self,
        operation: &'static str,
        path: &str,
    ) -> Result<std::cell::RefMut<'_, State>, DiskError> {
        let mut state = self.0.borrow_mut();
        match &mut state.power {
            Some(0) => return Err(error(operation, path, DiskErrorKind::Failed)),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }

    /// What is there after a power loss.
    fn after(&self, loss: Loss) -> Self {
        let state = self.0.borrow();
        let files = state.files.iter().map(|file| {
            let mut bytes = match loss {
                Loss::Everything | Loss::BytesOnly => file.synced.clone(),
                Loss::Nothing | Loss::NamesOnly | Loss::OddSectors => file.bytes.clone(),
            };
            if matches!(loss, Loss::OddSectors) {
                for (number, sector) in bytes.chunks_mut(512).enumerate().skip(1).step_by(2) {
                    let at = number * 512;
                    for (offset, byte) in sector.iter_mut().enumerate() {
                        *byte = file.synced.get(at + offset).copied().unwrap_or_default();
                    }
                }
            }
            File {
                synced: bytes.clone(),
                bytes,
            }
        });
        let files = files.collect();
        let names = match loss {
            Loss::Everything | Loss::NamesOnly => state.names_synced.clone(),
            Loss::Nothing | Loss::BytesOnly | Loss::OddSectors => state.names.clone(),
        };
        Self(Rc::new(RefCell::new(State {
            files,
            names_synced: names.clone(),
            names,
            power: None,
        })))
    }

    fn content(&self, path: &str) -> Option<Bytes> {
        let state = self.0.borrow();
        state
            .names
            .get(path)
            .map(|file| Bytes::copy_from_slice(&state.files[*file].bytes))
    }

    fn snaps(&self) -> Vec<String> {
        let names = self.list(DIRECTORY).unwrap();
        names
            .into_iter()
            .filter(|name| name.ends_with(".snap"))
            .collect()
    }
}

fn error(operation: &'static str, path: &str, kind: DiskErrorKind) -> DiskError {
    DiskError {
        operation,
        path: path.to_owned(),
        kind,
        message: String::new(),
    }
}

impl Disk for CrashDisk {
    type File = Handle;

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        let prefix = format!("{directory}/");
        let state = self.0.borrow();
        Ok(state
            .names
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect())
    }

    fn make_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        self.step("mkdir", directory).map(drop)
    }

    fn create(&mut self, path: &str, length: u64) -> Result<Handle, DiskError> {
        let mut state = self.step("create", path)?;
        state.files.push(File {
            bytes: vec![0; length as usize],
            synced: Vec::new(),
        });
        let file = state.files.len() - 1;
        state.names.insert(path.to_owned(), file);
        drop(state);
        Ok(Handle(self.clone(), file))
    }

    fn open(&mut self, path: &str) -> Result<Handle, DiskError> {
        let file = self.0.borrow().names.get(path).copied();
        file.map(|file| Handle(self.clone(), file))
            .ok_or_else(|| error("open", path, DiskErrorKind::NotFound))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.step("rename", from)?;
        let file = state
            .names
            .remove(from)
            .ok_or_else(|| error("rename", from, DiskErrorKind::NotFound))?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        let mut state = self.step("remove", path)?;
        state
            .names
            .remove(path)
            .map(drop)
            .ok_or_else(|| error("remove", path, DiskErrorKind::NotFound))
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        let mut state = self.step("sync", directory)?;
        state.names_synced = state.names.clone();
        Ok(())
    }
}

impl DiskFile for Handle {
    fn length(&self) -> u64 {
        self.0.0.borrow().files[self.1].bytes.len() as u64
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        Ok(Bytes::copy_from_slice(
            &self.0.0.borrow().files[self.1].bytes,
        ))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.0.step("write", "")?;
        let file = &mut state.files[self.1].bytes;
        let end = offset as usize + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        self.0.step("truncate", "")?.files[self.1]
            .bytes
            .resize(length as usize, 0);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let mut state = self.0.step("sync", "")?;
        let file = &mut state.files[self.1];
        file.synced = file.bytes.clone();
        Ok(())
    }
}

fn contents(index: u64) -> Contents {
    Contents {
        consistent_index: Index(index),
        term: Term(2),
        conf_state: ConfState::simple(vec![1], vec![]),
        storage_version: Some(STORAGE_VERSION.to_owned()),
        members: vec![MemberRecord {
            id: MemberId(1),
            ..MemberRecord::default()
        }],
        ..Contents::default()
    }
}

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
        disk.0.borrow_mut().power = Some(power);
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
