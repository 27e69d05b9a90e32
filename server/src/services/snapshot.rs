//! Maintenance.Snapshot: the checkpoint image, as `etcdctl snapshot save` stores it.
//!
//! ```text
//!   checkpoint now ─► open snap/db ─► 32 KiB blobs, remaining_bytes down to 0 ─► SHA-256 of all of it
//! ```
//!
//! The open file stays what it is, however often the image is replaced meanwhile; nothing is held in memory.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use quorate_core::boundary::{Request, Response};
use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use super::leader_watch::ResponseStream;
use super::{mismatch, status};
use crate::io::core;
use crate::metrics::Metrics;
use crate::state::ServerState;

/// The size of a blob, etcd's.
const BLOB_BYTES: usize = 32 * 1024;

/// The rest of an image that is being sent.
struct Sending {
    file: File,
    remaining: u64,
    digest: Sha256,
    version: String,
    ended: bool,
    /// When it was asked for.
    began: Instant,
    metrics: Arc<Metrics>,
}

/// Brings the image up to everything that was applied when this was called.
pub(super) async fn checkpoint_now(state: &ServerState) -> Result<(), Status> {
    let wanted = state.status().applied;
    loop {
        // One that was under way answers too, and may be older than this call.
        match core::request(Request::Checkpoint)
            .await
            .map_err(|error| status(&error))?
        {
            Response::Checkpointed(index) if index >= wanted => return Ok(()),
            Response::Checkpointed(_) => {}
            _ => return Err(mismatch()),
        }
    }
}

/// The image in blobs, and their digest.
pub(super) async fn blobs(
    state: &ServerState,
) -> Result<ResponseStream<pb::SnapshotResponse>, Status> {
    let began = Instant::now();
    checkpoint_now(state).await?;
    let sending = Sending::open(state, began).map_err(|error| unreadable(&error))?;
    Ok(Box::pin(stream::try_unfold(
        sending,
        |mut sending| async move {
            if sending.ended {
                return Ok(None);
            }
            let message = sending.next().map_err(|error| unreadable(&error))?;
            Ok(Some((message, sending)))
        },
    )))
}

impl Sending {
    fn open(state: &ServerState, began: Instant) -> io::Result<Self> {
        let version = state.status().cluster_version.clone().unwrap_or_default();
        let file = File::open(&state.database)?;
        let remaining = file.metadata()?.len();
        Ok(Self {
            file,
            remaining,
            digest: Sha256::new(),
            version,
            ended: false,
            began,
            metrics: Arc::clone(&state.metrics),
        })
    }

    /// The next message. The file was just written, so that a blob is read from memory.
    fn next(&mut self) -> io::Result<pb::SnapshotResponse> {
        let version = self.version.clone();
        if self.remaining == 0 {
            self.ended = true;
            let took = self.began.elapsed();
            self.metrics.work.image_sent.observe(took);
            let digest = self.digest.finalize_reset();
            let blob = Bytes::copy_from_slice(&digest);
            return Ok(pb::SnapshotResponse {
                header: None,
                remaining_bytes: 0,
                blob,
                version,
            });
        }
        let length = self.remaining.min(BLOB_BYTES as u64);
        let mut blob = vec![0; usize::try_from(length).expect("a blob is small")];
        self.file.read_exact(&mut blob)?;
        self.digest.update(&blob);
        self.remaining -= length;
        Ok(pb::SnapshotResponse {
            header: None,
            remaining_bytes: self.remaining,
            blob: blob.into(),
            version,
        })
    }
}

fn unreadable(error: &io::Error) -> Status {
    status(&RequestError::Other(
        format!("quorate: cannot read the image: {error}").into(),
    ))
}
