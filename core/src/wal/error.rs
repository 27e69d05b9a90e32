//! What can go wrong with a log.

use crate::disk::DiskError;

/// Why the log cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The disk refused. After a write or sync nothing is known of what was written.
    #[error("write-ahead log: {0}")]
    Disk(#[from] DiskError),
    /// There is no log in the directory.
    #[error("write-ahead log: no segment in {0}")]
    Absent(String),
    /// The log is not what was written.
    #[error("write-ahead log: {0}")]
    Damaged(Damage),
}

/// A place in the log that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} is damaged at offset {offset}: expected {expected}, found {found}. Nothing was changed. This is not the \
     trace of a power loss, and entries that were acknowledged may be missing, so the member does not start. If the \
     cluster has a quorum without it, remove this member and add it again with an empty data directory; if not, \
     restore the file from a copy of this disk, or the cluster from a snapshot"
)]
pub struct Damage {
    /// The segment.
    pub path: String,
    /// The frame that is wrong.
    pub offset: u64,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}
