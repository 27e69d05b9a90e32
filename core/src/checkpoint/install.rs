//! An image that goes to another member, or came from one: stored beside the present one, then put in its place.
//!
//! ```text
//! member/snap/tmp.<n>                       while it comes in
//! member/snap/<index>.<n>.snap.db           whole and durable; each arrival has a name of its own
//! member/snap/db                            installed; the log's snapshot record comes after it
//! ```
//!
//! A crash leaves the old image or the new one, whole, and the log in front of the record: an image that is ahead of
//! its log is a state that recovery knows, since every checkpoint passes through it. Files that were not installed by
//! then are removed at the next start.

use bytes::Bytes;

use super::job::{DIRECTORY, PARENT, place_snap};
use super::schema::Contents;
use super::{DATABASE, ImageError, load, snap};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::types::{Index, Term};

/// What unfinished arrivals begin with; etcd's begin so, too.
const UNFINISHED_PREFIX: &str = "tmp";
/// What arrivals that were not installed end with; etcd's as well.
const ARRIVED_SUFFIX: &str = ".snap.db";

/// A received image, whole and durable, under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    index: Index,
    path: String,
    snap_name: String,
    snap: Bytes,
}

impl Install {
    /// The image at `path`, which holds `contents`.
    pub(crate) fn new(path: String, contents: &Contents) -> Self {
        Self {
            index: contents.consistent_index,
            path,
            snap_name: snap::file_name(contents),
            snap: snap::encode(contents).into(),
        }
    }

    /// The applied index of the image.
    pub fn index(&self) -> Index {
        self.index
    }

    /// Puts it in the place of the present image, durably.
    pub fn carry_out<D: Disk>(&self, disk: &mut D) -> Result<(), DiskError> {
        disk.rename(&self.path, DATABASE)?;
        disk.sync_directory(DIRECTORY)?;
        place_snap(disk, &self.snap_name, &self.snap)
    }

    /// Removes it.
    pub fn discard<D: Disk>(&self, disk: &mut D) -> Result<(), DiskError> {
        remove_if_there(disk, &self.path)
    }
}

/// An image that is coming in.
#[derive(Debug)]
pub struct Arrival<D: Disk> {
    disk: D,
    file: D::File,
    /// Where it is written.
    path: String,
    /// Where it goes when it is whole.
    arrived: String,
    length: u64,
}

impl<D: Disk> Arrival<D> {
    /// Begins to store an image for this index. No two arrivals of a process have the same number.
    pub fn begin(mut disk: D, index: Index, number: u64) -> Result<Self, DiskError> {
        disk.make_directory(DIRECTORY)?;
        disk.sync_directory(PARENT)?;
        let path = format!("{DIRECTORY}/{UNFINISHED_PREFIX}.{number}");
        let file = disk.create(&path, 0)?;
        let arrived = format!("{DIRECTORY}/{:016x}.{number}{ARRIVED_SUFFIX}", index.0);
        Ok(Self {
            disk,
            file,
            path,
            arrived,
            length: 0,
        })
    }

    /// Adds what came.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(self.length, bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// How much has come.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Makes it durable. Answers where it lies, and its content.
    pub fn finish(mut self) -> Result<(String, Bytes), DiskError> {
        self.file.sync()?;
        let content = self.file.read()?;
        drop(self.file);
        self.disk.rename(&self.path, &self.arrived)?;
        self.disk.sync_directory(DIRECTORY)?;
        Ok((self.arrived, content))
    }

    /// Removes what came.
    pub fn abandon(mut self) -> Result<(), DiskError> {
        drop(self.file);
        remove_if_there(&mut self.disk, &self.path)
    }
}

/// What is sent to a follower: the present image, and the membership in etcd's old form, which belongs into the message.
pub fn to_send<D: Disk>(
    disk: &mut D,
    index: Index,
    term: Term,
) -> Result<(Bytes, Bytes), DiskError> {
    let image = disk.open(DATABASE)?.read()?;
    let snap = format!("{DIRECTORY}/{:016x}-{:016x}.snap", term.0, index.0);
    // Without it only an etcd that is older than 3.7 could not go on.
    let membership = disk.open(&snap).and_then(|file| file.read());
    let membership = membership.ok().and_then(|file| snap::membership(&file));
    Ok((image, membership.unwrap_or_default()))
}

/// Removes a received image of which nothing else is known than where it lies.
pub fn remove_arrived<D: Disk>(disk: &mut D, path: &str) -> Result<(), DiskError> {
    remove_if_there(disk, path)
}

/// What a member does with its directory before it reads the image: the log begins after `begin`. Installs what etcd
/// had received and noted in its log, but not yet put in place; removes what is left of other arrivals.
pub fn settle<D: Disk>(disk: &mut D, begin: Index) -> Result<(), SettleError> {
    let noted = format!("{:016x}{ARRIVED_SUFFIX}", begin.0);
    for name in disk.list(DIRECTORY)? {
        let path = format!("{DIRECTORY}/{name}");
        if name == noted && image_index(disk)? < begin {
            disk.rename(&path, DATABASE)?;
            disk.sync_directory(DIRECTORY)?;
        } else if name.starts_with(UNFINISHED_PREFIX) || name.ends_with(ARRIVED_SUFFIX) {
            remove_if_there(disk, &path)?;
        }
    }
    Ok(())
}

/// Why the directory cannot be settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The present image is damaged.
    #[error("snap/db: {0}")]
    Image(#[from] ImageError),
}

/// The applied index of the present image; 0 if there is none.
fn image_index<D: Disk>(disk: &mut D) -> Result<Index, SettleError> {
    match disk.open(DATABASE) {
        Ok(file) => Ok(load(file.read()?)?.contents.consistent_index),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(Index(0)),
        Err(error) => Err(error.into()),
    }
}

fn remove_if_there<D: Disk>(disk: &mut D, path: &str) -> Result<(), DiskError> {
    match disk.remove(path) {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
