//! One checkpoint on its way to the disk.
//!
//! ```text
//! remove stale files | write db.tmp, sync | rename to db, sync directory | write and sync .snap likewise
//! ```
//!
//! A power loss between any two steps leaves the old image or the new one, whole. The `.snap` comes after its image
//! and before the log's snapshot record (which the node writes when it hears that the job is done), so that every
//! record has its files; files without a record are ignored by everybody.

use super::bolt::Written;
use super::schema::{self, Contents};
use super::snap;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::mvcc::{Pin, Row, View};
use crate::types::Index;

/// Where the files of a checkpoint are.
pub const DIRECTORY: &str = "member/snap";

/// Where that directory has its name, which must be durable, too.
pub(super) const PARENT: &str = "member";

/// The image.
pub const DATABASE: &str = "member/snap/db";

/// etcd too removes what begins so when it lists the directory.
const STALE_PREFIX: &str = "db.tmp";

const DATABASE_NEXT: &str = "member/snap/db.tmp";

const SNAP_NEXT: &str = "member/snap/db.tmp.membership";

/// How many `.snap` files stay: etcd's `--max-snapshots`.
const SNAPS_KEPT: usize = 5;

/// Rows taken from the store at a time: it is locked meanwhile.
const SLICE_ROWS: usize = 1024;

/// Everything that a checkpoint needs, pinned at one applied index.
#[derive(Debug)]
pub struct Job {
    contents: Contents,
    /// Keeps the rows of the index readable while writes go on. Until the job is dropped no compaction removes rows.
    pin: Pin,
}

/// A checkpoint that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointDone {
    /// Its applied index.
    pub index: Index,
    /// The image's length.
    pub bytes: u64,
    /// CRC-32C over the image's buckets, keys and values, as `etcdutl snapshot status` shows it: equal on all
    /// members at an index.
    pub hash: u32,
}

/// Why there is no new checkpoint. The old one is still there, and whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The store was replaced while its rows were read; the next checkpoint will be of the new one.
    #[error("the store was replaced by a snapshot from the leader")]
    Superseded,
}

impl Job {
    /// A checkpoint of `contents` and of the rows that `view` shows now. For members to write equal images no
    /// compaction may be under way, since how far it has come is not the same on all of them.
    pub fn new(contents: Contents, view: &View) -> Self {
        Self {
            contents,
            pin: view.pin(),
        }
    }

    /// The applied index that it is a checkpoint of.
    pub fn index(&self) -> Index {
        self.contents.consistent_index
    }

    /// Writes it, durably, in place of the one before.
    pub fn write<D: Disk>(&self, disk: &mut D) -> Result<CheckpointDone, CheckpointError> {
        write_checkpoint(disk, &self.contents, self.rows())
    }

    /// Writes its image into an empty file, and hands that back, not yet synced.
    pub(super) fn write_image<F: DiskFile>(
        &self,
        file: F,
    ) -> Result<(F, Written), CheckpointError> {
        schema::write(file, &self.contents, self.rows())
    }

    fn rows(&self) -> impl Iterator<Item = Result<Row, CheckpointError>> {
        rows(|from| self.pin.history(from, SLICE_ROWS))
    }
}

/// Rows asked for in slices that begin at a revision; `None` says that the store is no longer the same.
fn rows(
    mut slice: impl FnMut((i64, i64)) -> Option<Vec<Row>>,
) -> impl Iterator<Item = Result<Row, CheckpointError>> {
    let mut from = (0, 0);
    let mut taken = Vec::new().into_iter();
    std::iter::from_fn(move || {
        if taken.len() == 0 {
            let Some(next) = slice(from) else {
                return Some(Err(CheckpointError::Superseded));
            };
            taken = next.into_iter();
        }
        let row: Row = taken.next()?;
        from = (row.main, row.sub + 1);
        Some(Ok(row))
    })
}

/// The whole protocol, for any source of rows.
pub(crate) fn write_checkpoint<D: Disk, E: From<DiskError>>(
    disk: &mut D,
    contents: &Contents,
    rows: impl Iterator<Item = Result<Row, E>>,
) -> Result<CheckpointDone, E> {
    disk.make_directory(DIRECTORY)?;
    disk.sync_directory(PARENT)?;
    remove_stale(disk)?;
    let file = disk.create(DATABASE_NEXT, 0)?;
    let (mut file, Written { bytes, hash, .. }) = schema::write(file, contents, rows)?;
    file.sync()?;
    drop(file);
    disk.rename(DATABASE_NEXT, DATABASE)?;
    disk.sync_directory(DIRECTORY)?;

    place_snap(disk, &snap::file_name(contents), &snap::encode(contents))?;
    Ok(CheckpointDone {
        index: contents.consistent_index,
        bytes,
        hash,
    })
}

/// Writes a `.snap` file, durably, and removes the oldest ones.
pub(super) fn place_snap<D: Disk>(disk: &mut D, name: &str, snap: &[u8]) -> Result<(), DiskError> {
    let mut file = disk.create(SNAP_NEXT, snap.len() as u64)?;
    file.write_at(0, snap)?;
    file.sync()?;
    drop(file);
    disk.rename(SNAP_NEXT, &format!("{DIRECTORY}/{name}"))?;
    disk.sync_directory(DIRECTORY)?;
    remove_old_snaps(disk)
}

fn remove_stale<D: Disk>(disk: &mut D) -> Result<(), DiskError> {
    let names = disk.list(DIRECTORY)?;
    remove(
        disk,
        names.iter().filter(|name| name.starts_with(STALE_PREFIX)),
    )
}

fn remove_old_snaps<D: Disk>(disk: &mut D) -> Result<(), DiskError> {
    let names = disk.list(DIRECTORY)?;
    // Sorted by term, then index.
    let snaps: Vec<_> = names
        .iter()
        .filter(|name| snap::is_file_name(name))
        .collect();
    let old = snaps.len().saturating_sub(SNAPS_KEPT);
    remove(disk, snaps.into_iter().take(old))
}

fn remove<'a, D: Disk>(
    disk: &mut D,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), DiskError> {
    for name in names {
        match disk.remove(&format!("{DIRECTORY}/{name}")) {
            Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
