//! The checkpoint: the state at one applied index as etcd's `db` file, replaced as a whole and never changed.
//!
//! This module owns the image's format ([`bolt`]), what etcd keeps in it ([`schema`]) and the order in which the
//! files of a checkpoint reach the disk ([`Job`]); a backup takes the same image without a disk ([`Job::stream`]). It decides neither when a checkpoint is due nor what is in it.
//! An image is a function of the state alone: members at the same applied index write the same bytes.
//!
//! ```text
//! member/snap/db                        the image
//! member/snap/db.tmp                    the next one while it is written; a stale one is removed
//! member/snap/<term>-<index>.snap       the membership at the index, for etcd's tools and for etcd 3.6
//! member/snap/tmp.<n>, *.snap.db        an image that comes from the leader
//! ```

pub mod bolt;
#[cfg(test)]
mod crash_disk;
mod error;
mod install;
mod job;
mod json;
pub mod schema;
pub mod snap;
mod stream;
mod version;

use bytes::Bytes;

pub use error::ImageError;
pub use install::{Arrival, Install, SettleError, remove_arrived, settle, to_send};
pub(crate) use job::write_checkpoint;
pub use job::{CheckpointDone, CheckpointError, DATABASE, DIRECTORY, Job};
pub use json::to_go_json;
pub(crate) use schema::row;
pub use schema::{AuthContents, Contents, Downgrade, MemberRecord, Rows};
pub use stream::{Outline, SharedJob};
pub use version::STORAGE_VERSION;

use crate::disk::{DiskError, DiskFile};
use crate::mvcc::Row;

/// An image that was read.
#[derive(Debug)]
pub struct Loaded {
    /// Everything but the keys' history.
    pub contents: Contents,
    /// The keys' history, oldest first; read, and checked, as it is asked for.
    pub rows: Rows,
}

/// Reads an image of etcd 3.5 to 3.7 or of ours, which must be as it was written. The rows stay views into `bytes`.
pub fn load(bytes: Bytes) -> Result<Loaded, ImageError> {
    load_noting(bytes, |_| {})
}

/// The same, and says again and again how many more bytes were read.
pub(crate) fn load_noting(bytes: Bytes, on_read: impl FnMut(usize)) -> Result<Loaded, ImageError> {
    let image = bolt::Image::open(bytes)?;
    image.check_seal_noting(on_read)?;
    let (contents, rows) = schema::read(&image)?;
    Ok(Loaded { contents, rows })
}

/// Writes the image of `contents` and `rows` (ascending) into an empty file, and hands it back, not yet synced.
pub fn write_image<F: DiskFile>(
    file: F,
    contents: &Contents,
    rows: impl Iterator<Item = Row>,
) -> Result<(F, bolt::Written), DiskError> {
    schema::write(file, contents, rows.map(Ok))
}
