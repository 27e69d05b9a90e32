//! Maintenance.Snapshot: the image that a checkpoint would be now, as `etcdctl snapshot save` stores it.
//!
//! ```text
//!   image of what is applied ─► blobs of 32 KiB, remaining_bytes down to 0 ─► SHA-256 of all of it
//! ```
//!
//! The image is made while it is sent ([`super::image`]); the checkpoint on the disk has no part in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use quorate_core::boundary::{Request, Response};
use quorate_core::checkpoint::SharedJob;
use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;
use tonic::Status;

use super::image::{PATIENCE, Piece, Taker, image};
use super::leader_watch::ResponseStream;
use super::{mismatch, status};
use crate::host;
use crate::io::core;
use crate::metrics::Metrics;
use crate::state::ServerState;

/// The size of a blob, etcd's.
const BLOB_BYTES: usize = 32 * 1024;

/// What is in the way of an image that nobody takes: beside the checkpoints, whose stale files it is removed with.
const SPILL: &str = "db.tmp.backup";

/// The rest of an image that is being sent.
struct Sending {
    taker: Taker,
    /// What was taken and not sent.
    pages: Bytes,
    /// Where what is left is read from, if not from the taker.
    rest: Option<File>,
    remaining: u64,
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
    let turn = Arc::clone(&state.backup_turn).acquire_owned().await;
    let turn = turn.expect("turns are taken as long as there is a server");
    let job = image_now().await?;
    let (maker, taker) = image(
        job,
        state.database.with_file_name(SPILL),
        PATIENCE,
        Arc::clone(&state.metrics),
    );
    let started = host::start_background("backup", move || {
        maker.run();
        drop(turn);
    });
    started.map_err(|error| unmade(&error.to_string()))?;
    let sending = Sending {
        taker,
        pages: Bytes::new(),
        rest: None,
        remaining: 0,
        version: state.status().cluster_version.clone().unwrap_or_default(),
        ended: false,
        began,
        metrics: Arc::clone(&state.metrics),
    };
    Ok(Box::pin(stream::try_unfold(
        sending,
        |mut sending| async move {
            let message = sending.next().await?;
            Ok(message.map(|message| (message, sending)))
        },
    )))
}

async fn image_now() -> Result<SharedJob, Status> {
    match core::request(Request::Image)
        .await
        .map_err(|error| status(&error))?
    {
        Response::Image(job) => Ok(job),
        _ => Err(mismatch()),
    }
}

impl Sending {
    /// The next message; none after the digest.
    async fn next(&mut self) -> Result<Option<pb::SnapshotResponse>, Status> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if !self.pages.is_empty() {
                let blob = self.pages.split_to(self.pages.len().min(BLOB_BYTES));
                self.remaining -= blob.len() as u64;
                return Ok(Some(self.message(blob)));
            }
            if self.remaining > 0
                && let Some(rest) = &mut self.rest
            {
                let length = self.remaining.min(BLOB_BYTES as u64);
                let mut blob = vec![0; usize::try_from(length).expect("a blob is small")];
                rest.read_exact(&mut blob).map_err(|it| unreadable(&it))?;
                self.pages = blob.into();
                continue;
            }
            match self.taker.next().await {
                Some(Piece::Length(length)) => self.remaining = length,
                Some(Piece::Pages(pages)) => self.pages = pages,
                Some(Piece::Rest(rest)) => self.rest = Some(rest),
                Some(Piece::Digest(digest)) => {
                    self.ended = true;
                    let took = self.began.elapsed();
                    self.metrics.work.image_sent.observe(took);
                    return Ok(Some(self.message(Bytes::copy_from_slice(&digest))));
                }
                Some(Piece::Failed(reason)) => return Err(unmade(&reason)),
                None => return Err(unmade("cut off")),
            }
        }
    }

    fn message(&self, blob: Bytes) -> pb::SnapshotResponse {
        pb::SnapshotResponse {
            header: None,
            remaining_bytes: self.remaining,
            blob,
            version: self.version.clone(),
        }
    }
}

fn unreadable(error: &io::Error) -> Status {
    unmade(&error.to_string())
}

fn unmade(reason: &str) -> Status {
    status(&RequestError::Other(
        format!("quorate: cannot make the image: {reason}").into(),
    ))
}
