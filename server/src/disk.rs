//! The real disk: files that are written with positional writes and read through memory maps.
//!
//! This module owns how [`Disk`]'s promises are kept on Linux, and that one process has a data directory to itself.
//! It never knows what is in a file. It is the only file of this crate with `unsafe` code.
//!
//! ```text
//! <data directory>      flock by MmapDisk            excludes a second quorate
//!   member/snap/db      flock by MmapDisk, moved     excludes etcd, which waits for this lock before it looks at
//!                       along when it is replaced    anything else
//!   member/wal/*.wal    OFD lock by each open file   excludes etcd, which fails on this lock
//! ```
//!
//! A file is filled with real zeros when it is made, not just allocated: a write into allocated but unwritten blocks
//! changes metadata, and its sync then costs a journal commit. It also means that a full disk is found
//! when a file is made, never when a map of it is touched.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};
use quorate_core::disk::{Disk, DiskError, DiskErrorKind, DiskFile};

/// The file that etcd locks first.
const DATABASE: &str = "member/snap/db";

/// etcd's modes: nobody else reads a key.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// How much is zeroed at once.
const ZEROS: &[u8] = &[0; 256 * 1024];

/// A data directory, held by this process. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct MmapDisk {
    held: Arc<Held>,
    /// Whether what is to survive a power cut is made to.
    syncs: bool,
}

#[derive(Debug)]
struct Held {
    root: PathBuf,
    /// The lock on the directory itself; held until the last handle goes.
    _directory: File,
    /// The lock on the database file, if there is one.
    database: Mutex<Option<File>>,
}

impl MmapDisk {
    /// Takes possession of a data directory, which is made if it is not there. Fails with [`DiskErrorKind::Locked`]
    /// while another quorate or an etcd has it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let root = root.into();
        let is_new = !root.exists();
        make_directories(&root).map_err(|error| failed("make directory", "", &error))?;
        if is_new && let Ok(whole) = std::path::absolute(&root) {
            // Its name must be as durable as what will lie in it.
            let parent = whole.parent().unwrap_or(&whole);
            let synced = File::open(parent).and_then(|file| file.sync_all());
            synced.map_err(|error| failed("sync the parent of", "", &error))?;
        }
        let directory = File::open(&root).map_err(|error| failed("open", "", &error))?;
        lock_whole(&directory, root.to_string_lossy().as_ref())?;
        let database = match File::open(root.join(DATABASE)) {
            Ok(file) => {
                lock_whole(&file, DATABASE)?;
                Some(file)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed("open", DATABASE, &error)),
        };
        let held = Held {
            root,
            _directory: directory,
            database: Mutex::new(database),
        };
        Ok(Self {
            held: Arc::new(held),
            syncs: true,
        })
    }

    /// The same directory, whose files and names are left to the operating system: a power cut may take all of them.
    pub fn without_syncs(self) -> Self {
        Self {
            syncs: false,
            ..self
        }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.held.root
    }

    fn full(&self, path: &str) -> PathBuf {
        debug_assert!(
            path.split('/').all(|part| part != ".."),
            "{path} leads out of the data directory"
        );
        if path.is_empty() {
            self.held.root.clone()
        } else {
            self.held.root.join(path)
        }
    }

    /// Before a file becomes the database, takes etcd's lock on it; the old one's is given up afterwards.
    fn lock_database_to_be(&self, from: &str) -> Result<File, DiskError> {
        let file = File::open(self.full(from)).map_err(|error| failed("open", from, &error))?;
        lock_whole(&file, from)?;
        Ok(file)
    }
}

/// A file that is only read, wherever it lies: a backup, or the image of a member that does not run.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// There is no map of nothing.
    map: Option<Arc<Mmap>>,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Maps all of it.
    pub fn new(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: As for [`MmapFile::read`]; the caller holds a lock that a writer of such a file would have to take,
        // and nobody changes a backup while it is restored.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self {
            map: Some(Arc::new(map)),
        })
    }

    /// Its content.
    pub fn bytes(&self) -> Bytes {
        let owner = self.map.as_ref().map(|map| Owner(Arc::clone(map)));
        owner.map_or_else(Bytes::new, Bytes::from_owner)
    }

    /// Gives back the memory of what was read; what is looked at again is read again.
    pub fn release(&self) {
        if let Some(map) = &self.map {
            // SAFETY: The map is shared and of a file that nobody changes: a page that was given back comes with the
            // same bytes.
            let released = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
            drop(released); // It is only advice.
        }
    }
}

impl Disk for MmapDisk {
    type File = MmapFile;

    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError> {
        let failed = |error: io::Error| failed("list", directory, &error);
        let entries = match self.full(directory).read_dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is not one of ours.
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn make_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        make_directories(&self.full(directory))
            .map_err(|error| failed("make directory", directory, &error))
    }

    fn create(&mut self, path: &str, length: u64) -> Result<MmapFile, DiskError> {
        let failed = |error: io::Error| failed("create", path, &error);
        let full = self.full(path);
        // A new file in the old one's place, since the old one may be mapped.
        match std::fs::remove_file(&full) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&full)
            .map_err(failed)?;
        let mut file = MmapFile {
            file,
            path: path.to_owned(),
            length: 0,
            syncs: self.syncs,
        };
        file.lock()?;
        if let Err(error) = file.extend(length) {
            // Not half a file in the way, least of all on a full disk. It matters little if this fails too.
            let _ = std::fs::remove_file(&full);
            return Err(failed(error));
        }
        Ok(file)
    }

    fn open(&mut self, path: &str) -> Result<MmapFile, DiskError> {
        let failed = |error: io::Error| failed("open", path, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.full(path))
            .map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let file = MmapFile {
            file,
            path: path.to_owned(),
            length,
            syncs: self.syncs,
        };
        file.lock()?;
        Ok(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let database = (to == DATABASE)
            .then(|| self.lock_database_to_be(from))
            .transpose()?;
        std::fs::rename(self.full(from), self.full(to))
            .map_err(|error| failed("rename", from, &error))?;
        if database.is_some() {
            *self
                .held
                .database
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = database;
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        let full = self.full(path);
        let removed = match std::fs::symlink_metadata(&full) {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir(&full),
            Ok(_) => std::fs::remove_file(&full),
            Err(error) => Err(error),
        };
        removed.map_err(|error| failed("remove", path, &error))
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        if !self.syncs {
            return Ok(());
        }
        let synced = File::open(self.full(directory)).and_then(|file| file.sync_all());
        synced.map_err(|error| failed("sync", directory, &error))
    }
}

/// An open file of an [`MmapDisk`].
#[derive(Debug)]
pub struct MmapFile {
    file: File,
    /// Relative to the data directory, as it was opened; for messages.
    path: String,
    /// What the file system says, kept so that asking is free.
    length: u64,
    /// As that of the disk.
    syncs: bool,
}

impl DiskFile for MmapFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        if self.length == 0 {
            return Ok(Bytes::new()); // There is no map of nothing.
        }
        // SAFETY: A map is sound as long as nobody changes the mapped bytes under a reference to them, or cuts the
        // file. Other processes are kept away by the locks. This process never cuts a file while a map of it is in
        // use, replaces files by new ones instead of truncating them, and writes only behind what has been written:
        // the log slices a map to its written part before it looks at a byte, and images are read-only.
        let map =
            unsafe { Mmap::map(&self.file) }.map_err(|error| failed("map", &self.path, &error))?;
        Ok(Bytes::from_owner(map))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| failed("write", &self.path, &error))?;
        self.length = self.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), DiskError> {
        let changed = if length > self.length {
            self.extend(length)
        } else {
            self.file.set_len(length)
        };
        changed.map_err(|error| failed("truncate", &self.path, &error))?;
        self.length = length;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        if !self.syncs {
            return Ok(());
        }
        self.file
            .sync_data()
            .map_err(|error| failed("sync", &self.path, &error))
    }
}

impl MmapFile {
    /// Makes the file longer with zeros that are really there.
    fn extend(&mut self, length: u64) -> io::Result<()> {
        allocate(&self.file, self.length, length - self.length)?;
        while self.length < length {
            let bytes = (length - self.length).min(ZEROS.len() as u64);
            self.file
                .write_all_at(&ZEROS[..bytes as usize], self.length)?;
            self.length += bytes;
        }
        Ok(())
    }

    /// Takes etcd's lock on a segment of the log, which ends with the file.
    fn lock(&self) -> Result<(), DiskError> {
        if !self.path.ends_with(".wal") {
            return Ok(());
        }
        match lock_segment(&self.file) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Err(locked(&self.path))
            }
            Err(error) => Err(failed("lock", &self.path, &error)),
        }
    }
}

fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
}

/// `flock`, as etcd takes it on the database.
fn lock_whole(file: &File, path: &str) -> Result<(), DiskError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(locked(path)),
        Err(TryLockError::Error(error)) => Err(failed("lock", path, &error)),
    }
}

/// An open-file-description lock, as etcd takes it on segments. It is independent of `flock`.
#[cfg(target_os = "linux")]
fn lock_segment(file: &File) -> io::Result<()> {
    // SAFETY: All zeros is a valid `flock`: it holds nothing but numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: The descriptor is open as long as `file` is, and `lock` outlives the call, which only reads it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn lock_segment(file: &File) -> io::Result<()> {
    file.try_lock().map_err(io::Error::from)
}

/// Reserves blocks, so that a file is in few pieces and a full disk is found before anything is written.
#[cfg(target_os = "linux")]
fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let (offset, bytes) = (
        offset.try_into().map_err(too_large)?,
        bytes.try_into().map_err(too_large)?,
    );
    if bytes == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: The descriptor is open as long as `file` is; the call takes numbers only.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, bytes) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Not every file system can; writing the zeros reserves them just as well.
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            Some(libc::EINTR) => {}
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

fn locked(path: &str) -> DiskError {
    DiskError {
        operation: "lock",
        path: path.to_owned(),
        kind: DiskErrorKind::Locked,
        message:
            "another process holds it; is an etcd or a quorate running on this data directory?"
                .to_owned(),
    }
}

fn failed(operation: &'static str, path: &str, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        ErrorKind::NotFound => DiskErrorKind::NotFound,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => DiskErrorKind::ReadOnly,
        _ => DiskErrorKind::Failed,
    };
    DiskError {
        operation,
        path: path.to_owned(),
        kind,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
