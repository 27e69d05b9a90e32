//! What the core may ask of a disk, and what it may believe.
//!
//! The log's and the checkpoint's code writes through this interface only, so that the same code runs on
//! memory-mapped files and on the simulator's hostile disk. The promises are those of a real file system:
//!
//! - before [`DiskFile::sync`] returns, each 512-byte sector written since the last sync may or may not survive
//!   a power loss, in any combination; a sector is never half old and half new unless the disk tears it;
//! - a file's name (create, rename, remove) survives a power loss only after [`Disk::sync_directory`] of its
//!   directory;
//! - a failed sync is final: nothing is known of what was written, and the caller must stop (`fsyncgate`);
//! - bytes never written inside a file's length read as zeros.
//!
//! Paths are relative to the data directory, with `/` between parts. Nothing here knows of time.

use bytes::Bytes;

/// A directory tree on one disk.
pub trait Disk {
    /// An open file of this disk.
    type File: DiskFile;

    /// The names (not paths) of the files and directories in `directory`, sorted; empty when it does not exist.
    fn list(&self, directory: &str) -> Result<Vec<String>, DiskError>;

    /// Makes `directory` and its parents; one that exists is fine.
    fn make_directory(&mut self, directory: &str) -> Result<(), DiskError>;

    /// Makes an empty-looking file of `length` zero bytes whose space is allocated, so that writing inside it
    /// cannot run out of space. Replaces what had the name.
    fn create(&mut self, path: &str, length: u64) -> Result<Self::File, DiskError>;

    /// Opens a file for reading and writing.
    fn open(&mut self, path: &str) -> Result<Self::File, DiskError>;

    /// Gives `from` the name `to`, atomically replacing what had it.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file or an empty directory.
    fn remove(&mut self, path: &str) -> Result<(), DiskError>;

    /// Makes the names in `directory` durable.
    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError>;
}

/// One open file.
pub trait DiskFile {
    /// The file's length in bytes, allocated zeros included.
    fn length(&self) -> u64;

    /// The whole content as it is now, without a copy where the disk can map it. Later writes to the same range
    /// may or may not show in the answer.
    fn read(&self) -> Result<Bytes, DiskError>;

    /// Writes at a position, extending the file when it ends before.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Sets the length: cuts the tail or adds allocated zeros.
    fn truncate(&mut self, length: u64) -> Result<(), DiskError>;

    /// Makes everything written so far durable (content and length; the name needs [`Disk::sync_directory`]).
    fn sync(&mut self) -> Result<(), DiskError>;
}

/// What a disk refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {path}: {message}")]
pub struct DiskError {
    /// What was tried: `open`, `write`, `sync`, ...
    pub operation: &'static str,
    /// The file or directory, relative to the data directory.
    pub path: String,
    /// The kind, for callers that act on it.
    pub kind: DiskErrorKind,
    /// The disk's own words.
    pub message: String,
}

/// The failures that a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// The file or directory does not exist.
    NotFound,
    /// No space is left.
    Full,
    /// The file system or file cannot be written.
    ReadOnly,
    /// Somebody else holds the file.
    Locked,
    /// Anything else: an IO error.
    Failed,
}
