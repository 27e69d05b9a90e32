//! The write-ahead log, in etcd's format, over the [`Disk`](crate::disk::Disk) interface.
//!
//! This module owns the files in `member/wal`: their names, frames, records and checksums, what a reader may believe
//! after a crash, and the order of writes, syncs and renames. It never decides what is written or when to sync (the
//! node and its driver do), never touches a real file (the disk does), and never knows what an entry's data means.
//!
//! ```text
//! member/wal/0000000000000000-0000000000000000.wal      seed metadata snapshot{0} entry entry state ... zeros
//!            0000000000000001-0000000000000a51.wal      seed metadata state entry ...               ... zeros
//!            0.tmp                                      zeros: the next segment, prepared ahead of its use
//! ```
//!
//! **Writing.** [`Wal::append`] encodes into one buffer; [`Wal::flush`] writes the buffer at the end of the segment in
//! one call; [`Wal::sync`] flushes and makes everything durable. A failure is final: every later call returns the
//! same error. A segment that the next write might overrun is synced and left, and the next one gets its head
//! and its name, durably, before an entry goes into it.
//!
//! **What may be lost.** Between two syncs each sector may survive or not, in any combination, and what does not
//! survive reads as zeros, since segments are zeros before they are written. So after a power loss the first bad
//! place in the last segment is a zero length word, or a frame with a sector of zeros in it: a torn tail, which was
//! never acknowledged and is cut. Anything else that does not fit is damage, and recovery refuses it.
//!
//! **What etcd cannot see.** A sector of *synced* frames that reads as zeros looks torn as well; etcd then drops
//! everything after it in silence. So our writer begins each batch after a sync with a checksum seed, a record that
//! every reader of the format accepts at any place. A seed that checks out after the bad place proves that the bad
//! place had been synced: that is damage, not a torn tail.
//!
//! **After a failed sync.** The writer stops. But the page cache goes on showing what never reached the disk, and takes
//! it for written, so a restarted process would read it, promise it, and lose it with the power. Recovery therefore
//! writes everything behind the last seed again before it hands anything out.

mod error;
mod frame;
mod log;
mod read;
mod record;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod write;

pub use error::{Damage, WalError};
pub use recover::{Recovered, Repair, exists, recover};
pub use write::{SegmentOrder, Wal};

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb;

use crate::types::{ClusterId, MemberId};

/// Where the log lies and how large its files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The log's directory; its parent must exist.
    pub directory: String,
    /// The allocated size of a segment. Real logs use the default, which is etcd's; simulations smaller ones.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            directory: "member/wal".to_owned(),
            segment_bytes: 64_000_000,
        }
    }
}

impl Options {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// The directory that holds the log's directory.
    fn parent(&self) -> &str {
        self.directory
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent)
    }
}

/// Whose log it is. Every segment repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
}

impl Metadata {
    fn encode(self) -> Bytes {
        let metadata = etcdserverpb::Metadata {
            node_id: self.member.0,
            cluster_id: self.cluster.0,
        };
        metadata.encode_to_vec().into()
    }
}
