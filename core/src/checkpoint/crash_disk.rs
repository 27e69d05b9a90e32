//! A disk for tests of what survives a power loss at any step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_proto::raftpb::ConfState;

use super::schema::{Contents, MemberRecord};
use super::{DIRECTORY, STORAGE_VERSION};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::types::{Index, MemberId, Term};

/// What an image of a lone member says besides its rows.
pub(super) fn contents(index: u64) -> Contents {
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

/// A disk that forgets what was not synced, and that can lose its power before any operation.
#[derive(Clone, Default)]
pub(super) struct CrashDisk(Rc<RefCell<State>>);

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

pub(super) struct Handle(CrashDisk, usize);

/// What of the unsynced survives a power loss.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    Everything,
    Nothing,
    OddSectors,
    NamesOnly,
    BytesOnly,
}

pub(super) const LOSSES: [Loss; 5] = [
    Loss::Everything,
    Loss::Nothing,
    Loss::OddSectors,
    Loss::NamesOnly,
    Loss::BytesOnly,
];

impl CrashDisk {
    /// Lets so many operations succeed; all later ones fail.
    pub(super) fn cut_power_after(&self, operations: usize) {
        self.0.borrow_mut().power = Some(operations);
    }

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
    pub(super) fn after(&self, loss: Loss) -> Self {
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

    pub(super) fn content(&self, path: &str) -> Option<Bytes> {
        let state = self.0.borrow();
        state
            .names
            .get(path)
            .map(|file| Bytes::copy_from_slice(&state.files[*file].bytes))
    }

    pub(super) fn snaps(&self) -> Vec<String> {
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
