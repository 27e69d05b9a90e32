//! An image for somebody who takes its bytes in their order, without a disk in between.
//!
//! An image begins with what is known last: its meta pages say where the root is and what all other pages add up to. So
//! the rows are gone through twice, and both passes see the same rows, since the job pins them.
//!
//! ```text
//! outline   all pages are made and dropped      -> length, hash, the two meta pages
//! stream    the meta pages, then all others     -> about a mebibyte at a time, nothing is kept
//! ```

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use super::job::{CheckpointError, Job};
use crate::disk::{DiskError, DiskFile};

/// A job that several may hold; its rows are pinned until the last one lets go.
#[derive(Clone, Debug)]
pub struct SharedJob(Arc<Job>);

impl SharedJob {
    /// One that nobody else holds yet.
    pub fn new(job: Job) -> Self {
        Self(Arc::new(job))
    }
}

impl Deref for SharedJob {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
}

/// Two of them are equal if they are the same one.
impl PartialEq for SharedJob {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is known of an image before its first byte can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The image's length.
    pub bytes: u64,
    /// As [`super::CheckpointDone::hash`].
    pub hash: u32,
    /// The meta pages.
    front: Bytes,
}

impl Job {
    /// The first pass.
    pub fn outline(&self) -> Result<Outline, CheckpointError> {
        let passing = Passing {
            length: 0,
            front: Bytes::new(),
            take: |_: &[u8]| Ok(()),
        };
        let (passing, written) = self.write_image(passing)?;
        Ok(Outline {
            bytes: written.bytes,
            hash: written.hash,
            front: passing.front,
        })
    }

    /// The second pass: all of the image, in order. It ends early with what `take` fails with.
    pub fn stream(
        &self,
        outline: &Outline,
        mut take: impl FnMut(&[u8]) -> Result<(), DiskError>,
    ) -> Result<(), CheckpointError> {
        take(&outline.front)?;
        let passing = Passing {
            length: 0,
            front: Bytes::new(),
            take,
        };
        let (passing, written) = self.write_image(passing)?;
        assert_eq!(
            (written.bytes, &passing.front),
            (outline.bytes, &outline.front),
            "both passes see the same rows"
        );
        Ok(())
    }
}

/// A file that keeps nothing but the first write at its beginning, which comes last.
struct Passing<T> {
    length: u64,
    front: Bytes,
    take: T,
}

impl<T: FnMut(&[u8]) -> Result<(), DiskError>> DiskFile for Passing<T> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self) -> Result<Bytes, DiskError> {
        unreachable!("an image is written without a look at what was written")
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if offset == 0 {
            self.front = Bytes::copy_from_slice(bytes);
            return Ok(());
        }
        let is_next = self.length == 0 || offset == self.length;
        assert!(is_next, "pages come in order");
        self.length = offset + bytes.len() as u64;
        (self.take)(bytes)
    }

    fn truncate(&mut self, _: u64) -> Result<(), DiskError> {
        unreachable!("an image only grows while it is written")
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
