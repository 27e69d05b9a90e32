//! A disk in memory that keeps the promises of [`Disk`] and not one more.
//!
//! On a power loss each sector falls back, by itself, to any version it had since its last sync; each directory to
//! any version it had since its own; a file's length to the synced or the latest one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;

use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::wal::frame::SECTOR_BYTES;

/// A handle; clones see the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    root: Directory,
    /// Operations that change something, so far.
    operations: usize,
    /// From this operation on, everything fails.
    fail_from: Option<usize>,
    /// The next sync of a file fails, with this draw of what it wrote.
    fail_sync: Option<Random>,
}

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Clone, Debug, Default)]
struct Directory {
    names: BTreeMap<String, usize>,
    /// All versions since the last sync, oldest (the synced one) first, the present one excluded.
    before: Vec<BTreeMap<String, usize>>,
    /// What was removed since the last sync. Each may come back, whatever else does.
    removed: Vec<(String, usize)>,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    synced_length: usize,
    /// For each sector written since the last sync: its versions, the synced one first, the present one excluded.
    before: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Sectors that a failed sync did not write, with what the platter holds. The page cache has the present version
    /// and takes it for clean.
    forgotten: BTreeMap<usize, Vec<u8>>,
}

/// A small generator; tests need no better one.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

fn error(operation: &'static str, path: &str, kind: DiskErrorKind) -> DiskError {
    DiskError {
        operation,
        path: path.to_owned(),
        kind,
        message: format!("{kind:?}"),
    }
}

impl State {
    fn directory(&mut self, path: &str) -> Option<&mut Directory> {
        let mut at: Option<usize> = None;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let directory = match at {
                None => &self.root,
                Some(node) => match &self.nodes[node] {
                    Node::Directory(directory) => directory,
                    Node::File(_) => return None,
                },
            };
            at = Some(*directory.names.get(part)?);
        }
        match at {
            None => Some(&mut self.root),
            Some(node) => match &mut self.nodes[node] {
                Node::Directory(directory) => Some(directory),
                Node::File(_) => None,
            },
        }
    }

    fn node(&mut self, path: &str) -> Option<usize> {
        let (parent, name) = split(path);
        self.directory(parent)?.names.get(name).copied()
    }

    fn change(&mut self, path: &str, node: Option<usize>) -> Result<(), DiskError> {
        let (parent, name) = split(path);
        let directory = self
            .directory(parent)
            .ok_or_else(|| error("name", path, DiskErrorKind::NotFound))?;
        directory.before.push(directory.names.clone());
        match node {
            Some(node) => directory.names.insert(name.to_owned(), node),
            None => {
                let node = directory.names.remove(name);
                directory
                    .removed
                    .extend(node.map(|node| (name.to_owned(), node)));
                node
            }
        };
        Ok(())
    }

    fn step(&mut self, operation: &'static str, path: &str) -> Result<(), DiskError> {
        if self.fail_from.is_some_and(|from| self.operations >= from) {
            return Err(error(operation, path, DiskErrorKind::Failed));
        }
        self.operations += 1;
        Ok(())
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl TestDisk {
    /// What is left after a power loss: a new disk.
    pub(super) fn power_loss(&self, random: &mut Random) -> Self {
        let state = self.0.borrow();
        let nodes = state
            .nodes
            .iter()
            .map(|node| node.after_power_loss(random))
            .collect();
        let root = state.root.after_power_loss(random);
        Self(Rc::new(RefCell::new(State {
            nodes,
            root,
            ..State::default()
        })))
    }

    /// A copy that later writes do not change.
    pub(super) fn copy(&self) -> Self {
        let state = self.0.borrow();
        let nodes = state.nodes.iter().map(Node::copy).collect();
        Self(Rc::new(RefCell::new(State {
            nodes,
            root: state.root.clone(),
            ..State::default()
        })))
    }

    /// How many operations have changed something.
    pub(super) fn operations(&self) -> usize {
        self.0.borrow().operations
    }

    /// Makes the operation with this number and all later ones fail, without effect.
    pub(super) fn fail_from(&self, operation: Option<usize>) {
        self.0.borrow_mut().fail_from = operation;
    }

    /// Makes the next sync of a file fail, after which the disk takes everything for written.
    pub(super) fn fail_sync(&self, random: Random) {
        self.0.borrow_mut().fail_sync = Some(random);
    }

    /// The content of a file.
    pub(super) fn bytes(&self, path: &str) -> Vec<u8> {
        let mut state = self.0.borrow_mut();
        let node = state.node(path).unwrap_or_else(|| panic!("no {path}"));
        let Node::File(file) = &state.nodes[node] else {
            panic!("{path} is a directory")
        };
        file.bytes.clone()
    }

    /// Puts a file there, durably.
    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let mut disk = self.clone();
        let mut file = disk.create(path, bytes.len() as u64).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync().unwrap();
        disk.sync_directory(split(path).0).unwrap();
    }
}

impl Node {
    fn copy(&self) -> Self {
        match self {
            Self::File(file) => Self::File(file.clone()),
            Self::Directory(directory) => Self::Directory(directory.clone()),
        }
    }

    fn after_power_loss(&self, random: &mut Random) -> Self {
        match self {
            Self::File(file) => Self::File(file.after_power_loss(random)),
            Self::Directory(directory) => Self::Directory(directory.after_power_loss(random)),
        }
    }
}

impl Directory {
    fn after_power_loss(&self, random: &mut Random) -> Self {
        let version = random.below(self.before.len() + 1);
        let mut names = self.before.get(version).unwrap_or(&self.names).clone();
        for (name, node) in &self.removed {
            if random.below(2) == 0 {
                names.entry(name.clone()).or_insert(*node);
            }
        }
        Self {
            names,
            ..Self::default()
        }
    }
}

impl File {
    fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut bytes = self.bytes.clone();
        let mut put_back = |sector: usize, version: &[u8]| {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(bytes.len());
            for (at, byte) in bytes[start..end].iter_mut().enumerate() {
                *byte = version.get(at).copied().unwrap_or(0);
            }
        };
        for (&sector, version) in &self.forgotten {
            put_back(sector, version);
        }
        for (&sector, versions) in &self.before {
            if let Some(version) = versions.get(random.below(versions.len() + 1)) {
                put_back(sector, version);
            }
        }
        if self.synced_length < bytes.len() && random.below(2) == 0 {
            bytes.truncate(self.synced_length);
        }
        Self {
            synced_length: bytes.len(),
            bytes,
            ..Self::default()
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let start = (sector * SECTOR_BYTES).min(self.bytes.len());
            let stop = (start + SECTOR_BYTES).min(self.bytes.len());
            let platter = self.forgotten.remove(&sector);
            let versions = self.before.entry(sector).or_default();
            versions.extend(platter);
            versions.push(self.bytes[start..stop].to_vec());
        }
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.before.clear();
        self.synced_length = self.bytes.len();
    }

    fn fail_to_sync(&mut self, random: &mut Random) {
        for (sector, mut versions) in std::mem::take(&mut self.before) {
            let reached = random.below(versions.len() + 1);
            if reached < versions.len() {
                self.forgotten.insert(sector, versions.swap_remove(reached));
            }
        }
    }
}

impl Disk for TestDisk {
    type File = TestFile;

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        let mut state = self.0.borrow_mut();
        Ok(state.directory(directory).map_or(Vec::new(), |directory| {
            directory.names.keys().cloned().collect()
        }))
    }

    fn make_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        let ends = directory
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([directory.len()]);
        for path in ends.map(|end| &directory[..end]) {
            if state.node(path).is_none() {
                state.step("make_directory", path)?;
                state.nodes.push(Node::Directory(Directory::default()));
                let node = state.nodes.len() - 1;
                state.change(path, Some(node))?;
            }
        }
        Ok(())
    }

    fn create(&mut self, path: &str, length: u64) -> Result<TestFile, DiskError> {
        let mut state = self.0.borrow_mut();
        state.step("create", path)?;
        state.nodes.push(Node::File(File {
            bytes: vec![0; length as usize],
            ..File::default()
        }));
        let node = state.nodes.len() - 1;
        state.change(path, Some(node))?;
        Ok(TestFile {
            disk: self.clone(),
            node,
            path: path.to_owned(),
        })
    }

    fn open(&mut self, path: &str) -> Result<TestFile, DiskError> {
        let node = self
            .0
            .borrow_mut()
            .node(path)
            .ok_or_else(|| error("open", path, DiskErrorKind::NotFound))?;
        Ok(TestFile {
            disk: self.clone(),
            node,
            path: path.to_owned(),
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.step("rename", from)?;
        let node = state
            .node(from)
            .ok_or_else(|| error("rename", from, DiskErrorKind::NotFound))?;
        assert_eq!(
            split(from).0,
            split(to).0,
            "the log renames within a directory only"
        );
        state.change(to, Some(node))?;
        let (parent, name) = split(from);
        // One step: the version between the two never existed.
        state
            .directory(parent)
            .expect("it held the name")
            .names
            .remove(name);
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.step("remove", path)?;
        let node = state
            .node(path)
            .ok_or_else(|| error("remove", path, DiskErrorKind::NotFound))?;
        if matches!(&state.nodes[node], Node::Directory(directory) if !directory.names.is_empty()) {
            return Err(error("remove", path, DiskErrorKind::Failed));
        }
        state.change(path, None)
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        let mut state = self.0.borrow_mut();
        state.step("sync", directory)?;
        let directory = state
            .directory(directory)
            .ok_or_else(|| error("sync", directory, DiskErrorKind::NotFound))?;
        directory.before.clear();
        directory.removed.clear();
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct TestFile {
    disk: TestDisk,
    node: usize,
    path: String,
}

impl TestFile {
    fn change(
        &mut self,
        operation: &'static str,
        with: impl FnOnce(&mut File),
    ) -> Result<(), DiskError> {
        let mut state = self.disk.0.borrow_mut();
        state.step(operation, &self.path)?;
        let Node::File(file) = &mut state.nodes[self.node] else {
            panic!("a directory was opened")
        };
        with(file);
        Ok(())
    }
}

impl DiskFile for TestFile {
    fn length(&self) -> u64 {
        let state = self.disk.0.borrow();
        let Node::File(file) = &state.nodes[self.node] else {
            panic!("a directory was opened")
        };
        file.bytes.len() as u64
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        let state = self.disk.0.borrow();
        let Node::File(file) = &state.nodes[self.node] else {
            panic!("a directory was opened")
        };
        Ok(Bytes::from(file.bytes.clone()))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.change("write", |file| file.write(offset as usize, bytes))
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        self.change("truncate", |file| file.bytes.resize(length as usize, 0))
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let Some(mut random) = self.disk.0.borrow_mut().fail_sync.take() else {
            return self.change("sync", File::sync);
        };
        self.change("sync", |file| file.fail_to_sync(&mut random))?;
        Err(error("sync", &self.path, DiskErrorKind::Failed))
    }
}
