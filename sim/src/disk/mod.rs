//! A disk that keeps what it promised, and nothing else.
//!
//! It owns the files of one simulated machine and implements the core's `Disk`. It knows nothing of time (the
//! driver spends it) and nothing of what the bytes mean.
//!
//! ```text
//!   write_at ──► page cache ──sync──► platter          create, rename, remove ──► names ──sync_directory──► platter
//!
//!   process crash   keeps the page cache: all that was written is read again
//!   power loss      of what was not synced, each 512-byte sector and each change of a name survives or does not
//!   torn sector     part of a sector survives a power loss, where a run allows that
//!   rot             bits on the platter change, and stay changed
//!   astray          a sync succeeds, but one sector of it went nowhere, or to another place
//!   failed sync     some sectors reach the platter, all count as clean: the next sync succeeds and promises nothing
//!   fuse            the power goes in the middle of the n-th operation from now on
//!   full            no room for a new file or a longer one
//! ```
//!
//! Of every sector that the disk spoils a true copy is kept aside. A pristine view, [`SimDisk::durable_image`], shows what
//! the platter should hold: the oracles judge by it, and [`SimDisk::repair`] makes it so.

mod content;
mod names;
mod sectors;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use quorate_core::disk::{Disk, DiskError, DiskErrorKind, DiskFile};

use self::content::{Astray, Content};
use self::names::{Inode, Tree};
use crate::random::Stream;

pub use content::SECTOR_BYTES;

/// A machine's disk; clones are handles of the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    platter: Rc<RefCell<Platter>>,
    /// The process that this handle belongs to; handles of dead processes do nothing.
    process: u64,
}

#[derive(Debug)]
struct Platter {
    tree: Tree,
    stream: Stream,
    faults: DiskFaults,
    /// The living process.
    process: u64,
    /// Operations until the power goes.
    fuse: Option<u64>,
    /// Whether the fuse has blown; nothing works until the power loss is carried out.
    dark: bool,
    /// Whether the next sync fails.
    fail_sync: bool,
    /// How the next sync goes astray.
    astray: Option<Astray>,
    counts: DiskCounts,
}

/// What a disk may do at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// Sectors that a power loss leaves half written, in a million of those that it takes.
    pub torn_ppm: u32,
    /// Bytes that fit; `None` is no limit.
    pub capacity_bytes: Option<u64>,
}

/// What a disk has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Operations that change something.
    pub operations: u64,
    /// Syncs of files that worked.
    pub syncs: u64,
    /// Syncs that failed.
    pub syncs_failed: u64,
    /// Operations refused for want of room.
    pub full: u64,
    /// Sectors that rotted.
    pub rotted: u64,
    /// Writes that went nowhere.
    pub lost: u64,
    /// Writes that went somewhere else.
    pub misdirected: u64,
    /// Sectors that a power loss left half written.
    pub torn: u64,
    /// Power losses in the middle of an operation.
    pub fuses_blown: u64,
}

impl DiskCounts {
    /// What went wrong, by kind.
    pub fn kinds(&self) -> [(&'static str, u64); 7] {
        [
            ("sync failed", self.syncs_failed),
            ("disk refused: full", self.full),
            ("sector rotted", self.rotted),
            ("write lost", self.lost),
            ("write misdirected", self.misdirected),
            ("sector torn", self.torn),
            ("fuse blown", self.fuses_blown),
        ]
    }
}

/// Files whose paths begin so are logs, which are only ever appended to; a new log is made under another name.
const LOG_DIRECTORY: &str = "member/wal";

/// An open file of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: Inode,
    path: String,
}

/// How an operation ends.
enum Turn {
    /// It is done.
    Whole,
    /// The power goes while it is done.
    Cut,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(stream: Stream, faults: DiskFaults) -> Self {
        let platter = Platter {
            tree: Tree::new(),
            stream,
            faults,
            process: 1,
            fuse: None,
            dark: false,
            fail_sync: false,
            astray: None,
            counts: DiskCounts::default(),
        };
        Self {
            platter: Rc::new(RefCell::new(platter)),
            process: 1,
        }
    }

    /// The process dies: handles that it had do nothing any more, what it wrote stays readable. Returns the handle
    /// for the next process.
    pub fn crash(&self) -> Self {
        let mut platter = self.platter.borrow_mut();
        platter.process += 1;
        platter.fail_sync = false;
        platter.astray = None;
        platter.fuse = None;
        platter.tree.forget_removed();
        let process = platter.process;
        drop(platter);
        Self {
            platter: Rc::clone(&self.platter),
            process,
        }
    }

    /// The machine loses power, and its process dies with it.
    pub fn lose_power(&self) -> Self {
        {
            let mut platter = self.platter.borrow_mut();
            let Platter {
                tree,
                stream,
                faults,
                counts,
                ..
            } = &mut *platter;
            counts.torn += tree.lose_power(stream, faults.torn_ppm);
            platter.dark = false;
        }
        self.crash()
    }

    /// Lets the power go in the middle of the operation after `operations` more.
    pub fn set_fuse(&self, operations: u64) {
        self.platter.borrow_mut().fuse = Some(operations);
    }

    /// Whether the fuse has blown: the machine is without power.
    pub fn is_dark(&self) -> bool {
        self.platter.borrow().dark
    }

    /// Lets the next sync fail.
    pub fn fail_next_sync(&self) {
        self.platter.borrow_mut().fail_sync = true;
    }

    /// Lets a sector of the next sync get lost, although the sync succeeds.
    pub fn lose_next_write(&self) {
        self.platter.borrow_mut().astray = Some(Astray::Lost);
    }

    /// Lets a sector of the next sync go to another place, although the sync succeeds.
    pub fn misdirect_next_write(&self) {
        self.platter.borrow_mut().astray = Some(Astray::Misdirected);
    }

    /// Lets bits of a sector change that is in use, in a file whose path `concerns`. Returns which, if there is one.
    pub fn rot(&self, concerns: impl Fn(&str) -> bool) -> Option<String> {
        let mut platter = self.platter.borrow_mut();
        let Platter {
            tree,
            stream,
            counts,
            ..
        } = &mut *platter;
        let mut sectors = Vec::new();
        for (path, inode) in tree.durable_files() {
            if concerns(&path) {
                let content = tree.file(inode).expect("a file");
                let found = content.sectors_to_rot();
                sectors.extend(
                    found
                        .into_iter()
                        .map(|sector| (path.clone(), inode, sector)),
                );
            }
        }
        if sectors.is_empty() {
            return None;
        }
        let (path, inode, sector) = &sectors[stream.below(sectors.len() as u64) as usize];
        let content = tree.file_mut(*inode).expect("a file");
        content.rot(stream, *sector);
        counts.rotted += 1;
        Some(format!("{path} sector {sector}"))
    }

    /// Whether something on it is not what it should be.
    pub fn is_spoilt(&self) -> bool {
        let platter = self.platter.borrow();
        platter.tree.contents().any(Content::is_spoilt)
    }

    /// Puts everything on it right again.
    pub fn repair(&self) {
        let mut platter = self.platter.borrow_mut();
        platter.tree.contents_mut().for_each(Content::repair);
    }

    /// The bytes of a file as a reader sees them.
    pub fn read_file(&self, path: &str) -> Option<Bytes> {
        let platter = self.platter.borrow();
        let content = platter.tree.file(platter.tree.find(path)?)?;
        Some(Bytes::copy_from_slice(content.current()))
    }

    /// Changes how many of the sectors that a power loss takes are torn, in a million.
    pub fn set_torn(&self, ppm: u32) {
        self.platter.borrow_mut().faults.torn_ppm = ppm;
    }

    /// Changes how much fits.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.platter.borrow_mut().faults.capacity_bytes = bytes;
    }

    /// From now on nothing goes wrong with it.
    pub fn heal(&self) {
        let mut platter = self.platter.borrow_mut();
        platter.faults = DiskFaults::default();
        platter.fuse = None;
        platter.fail_sync = false;
        platter.astray = None;
    }

    /// Bytes that files take now.
    pub fn bytes_used(&self) -> u64 {
        self.platter.borrow().tree.bytes_used() as u64
    }

    /// A copy of what is on the platter, on a disk without faults.
    pub fn durable_image(&self) -> Self {
        self.durable_image_of("")
    }

    /// The same, of the files whose paths begin so; the others are there and empty.
    pub fn durable_image_of(&self, prefix: &str) -> Self {
        let platter = self.platter.borrow();
        let image = Self::new(platter.stream.clone(), DiskFaults::default());
        image.platter.borrow_mut().tree = platter.tree.durable_only(prefix);
        image
    }

    /// What it has done so far.
    pub fn counts(&self) -> DiskCounts {
        self.platter.borrow().counts
    }

    fn error(operation: &'static str, path: &str, kind: DiskErrorKind, message: &str) -> DiskError {
        DiskError {
            operation,
            path: path.to_owned(),
            kind,
            message: message.to_owned(),
        }
    }

    /// Whether the handle's process lives and the machine has power.
    fn check_alive(&self, operation: &'static str, path: &str) -> Result<(), DiskError> {
        let platter = self.platter.borrow();
        if platter.dark || platter.process != self.process {
            let message = "the machine is off";
            return Err(Self::error(operation, path, DiskErrorKind::Failed, message));
        }
        Ok(())
    }

    /// Begins an operation that changes something.
    fn take_turn(&self, operation: &'static str, path: &str) -> Result<Turn, DiskError> {
        self.check_alive(operation, path)?;
        let mut platter = self.platter.borrow_mut();
        platter.counts.operations += 1;
        match &mut platter.fuse {
            Some(0) => {
                platter.fuse = None;
                platter.dark = true;
                platter.counts.fuses_blown += 1;
                Ok(Turn::Cut)
            }
            Some(left) => {
                *left -= 1;
                Ok(Turn::Whole)
            }
            None => Ok(Turn::Whole),
        }
    }

    fn cut(operation: &'static str, path: &str) -> DiskError {
        Self::error(operation, path, DiskErrorKind::Failed, "the power went")
    }

    fn check_room(&self, operation: &'static str, path: &str, more: u64) -> Result<(), DiskError> {
        let mut platter = self.platter.borrow_mut();
        let Some(capacity) = platter.faults.capacity_bytes else {
            return Ok(());
        };
        if platter.tree.bytes_used() as u64 + more > capacity {
            platter.counts.full += 1;
            let message = "no space left on device";
            return Err(Self::error(operation, path, DiskErrorKind::Full, message));
        }
        Ok(())
    }

    /// A change of names: when the power goes in the middle, it happened or it did not.
    fn change_names(
        &self,
        operation: &'static str,
        path: &str,
        change: impl FnOnce(&mut Tree) -> Option<()>,
    ) -> Result<(), DiskError> {
        let turn = self.take_turn(operation, path)?;
        let mut platter = self.platter.borrow_mut();
        let cut = matches!(turn, Turn::Cut);
        if !cut || platter.stream.chance(500_000) {
            let message = "no such file or directory";
            change(&mut platter.tree)
                .ok_or_else(|| Self::error(operation, path, DiskErrorKind::NotFound, message))?;
        }
        if cut {
            Err(Self::cut(operation, path))
        } else {
            Ok(())
        }
    }

    fn file(&self, inode: Inode, path: &str) -> SimFile {
        SimFile {
            disk: self.clone(),
            inode,
            path: path.to_owned(),
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        self.check_alive("list", directory)?;
        let platter = self.platter.borrow();
        Ok(platter.tree.list(directory).unwrap_or_default())
    }

    fn make_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        self.change_names("mkdir", directory, |tree| tree.make_directory(directory))
    }

    fn create(&mut self, path: &str, length: u64) -> Result<SimFile, DiskError> {
        self.check_alive("create", path)?;
        self.check_room("create", path, length)?;
        let mut inode = None;
        self.change_names("create", path, |tree| {
            let is_log = path.starts_with(LOG_DIRECTORY);
            inode = tree.create(path, Content::zeros(length as usize, is_log));
            inode.map(|_| ())
        })?;
        Ok(self.file(inode.expect("a change that worked"), path))
    }

    fn open(&mut self, path: &str) -> Result<SimFile, DiskError> {
        self.check_alive("open", path)?;
        let platter = self.platter.borrow();
        let inode = platter.tree.find(path);
        let inode = inode.filter(|&inode| platter.tree.file(inode).is_some());
        let inode = inode.ok_or_else(|| {
            let message = "no such file or directory";
            Self::error("open", path, DiskErrorKind::NotFound, message)
        })?;
        Ok(self.file(inode, path))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.change_names("rename", from, |tree| tree.rename(from, to))
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        self.change_names("remove", path, |tree| tree.remove(path))
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        self.change_names("sync directory", directory, |tree| {
            tree.sync_directory(directory)
        })
    }
}

impl SimFile {
    /// Does something with the content; a file that has no name any more still has one.
    fn with<T>(&self, use_content: impl FnOnce(&mut Content, &mut Stream) -> T) -> T {
        let mut platter = self.disk.platter.borrow_mut();
        let Platter { tree, stream, .. } = &mut *platter;
        let content = tree.file_mut(self.inode);
        use_content(content.expect("an open file keeps its content"), stream)
    }

    fn cut(&self, operation: &'static str) -> DiskError {
        SimDisk::cut(operation, &self.path)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> u64 {
        if self.disk.check_alive("length", &self.path).is_err() {
            return 0;
        }
        self.with(|content, _| content.current().len() as u64)
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        self.disk.check_alive("read", &self.path)?;
        Ok(self.with(|content, _| Bytes::copy_from_slice(content.current())))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.check_alive("write", &self.path)?;
        let growth = (offset + bytes.len() as u64).saturating_sub(self.length());
        if growth > 0 {
            self.disk.check_room("write", &self.path, growth)?;
        }
        let turn = self.disk.take_turn("write", &self.path)?;
        let offset = offset as usize;
        match turn {
            Turn::Whole => {
                self.with(|content, _| content.write(offset, bytes));
                Ok(())
            }
            Turn::Cut => {
                self.with(|content, stream| {
                    // Sectors are whole: the cut lies between two of them.
                    let cut = offset + stream.between(0, bytes.len() as u64) as usize;
                    let end = (cut / SECTOR_BYTES * SECTOR_BYTES).max(offset);
                    content.write(offset, &bytes[..end - offset]);
                });
                Err(self.cut("write"))
            }
        }
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        self.disk.check_alive("truncate", &self.path)?;
        let growth = length.saturating_sub(self.length());
        if growth > 0 {
            self.disk.check_room("truncate", &self.path, growth)?;
        }
        match self.disk.take_turn("truncate", &self.path)? {
            Turn::Whole => {
                self.with(|content, _| content.set_length(length as usize));
                Ok(())
            }
            Turn::Cut => Err(self.cut("truncate")),
        }
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let turn = self.disk.take_turn("sync", &self.path)?;
        if matches!(turn, Turn::Cut) {
            self.with(|content, stream| content.sync_partly(stream, false));
            return Err(self.cut("sync"));
        }
        let fails = std::mem::take(&mut self.disk.platter.borrow_mut().fail_sync);
        if fails {
            self.with(|content, stream| content.sync_partly(stream, true));
            self.disk.platter.borrow_mut().counts.syncs_failed += 1;
            let message = "input/output error";
            return Err(SimDisk::error(
                "sync",
                &self.path,
                DiskErrorKind::Failed,
                message,
            ));
        }
        let astray = self.disk.platter.borrow_mut().astray.take();
        let Some(astray) = astray else {
            self.with(|content, _| content.sync());
            self.disk.platter.borrow_mut().counts.syncs += 1;
            return Ok(());
        };
        let strayed = self.with(|content, stream| content.sync_astray(stream, astray));
        let mut platter = self.disk.platter.borrow_mut();
        platter.counts.syncs += 1;
        match astray {
            Astray::Lost => platter.counts.lost += u64::from(strayed),
            Astray::Misdirected => platter.counts.misdirected += u64::from(strayed),
        }
        if !strayed {
            platter.astray = Some(astray); // There was nothing to lose; the next sync will do.
        }
        Ok(())
    }
}
