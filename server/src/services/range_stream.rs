//! RangeStream: a range in chunks, all of one revision.
//!
//! Merging the chunks field by field gives the answer of Range: each holds keys, only the last one the header, `more`
//! and `count`. The first chunk is small; then they double or halve to come near the size that a request may have.

use futures_util::stream;
use prost::Message as _;
use quorate_core::error::RequestError;
use quorate_core::mvcc::View;
use quorate_proto::etcdserverpb as pb;
use tonic::Status;

use super::caller::Permit;
use super::leader_watch::ResponseStream;
use super::{kv, status};
use crate::io::core;

/// Keys of the first chunk.
const FIRST_CHUNK_KEYS: i64 = 10;

/// The stream's place in the range.
#[derive(Debug)]
struct Progress {
    /// The range from the next key on, at the pinned revision.
    rest: pb::RangeRequest,
    /// Keys that `limit` still allows; `None` without a limit.
    allowed: Option<i64>,
    chunk_keys: i64,
    /// A chunk should be about as large.
    chunk_bytes: usize,
    /// Header and count of the first read, for the last chunk.
    first: Option<(Option<pb::ResponseHeader>, i64)>,
    ended: bool,
}

/// The chunks of a range whose request was checked.
pub(super) fn chunks(
    range: pb::RangeRequest,
    permit: Permit,
) -> ResponseStream<pb::RangeStreamResponse> {
    let progress = Progress {
        allowed: (range.limit > 0).then_some(range.limit),
        rest: range,
        chunk_keys: FIRST_CHUNK_KEYS,
        chunk_bytes: core::with(|core| core.state().limits.request_bytes_max),
        first: None,
        ended: false,
    };
    Box::pin(stream::try_unfold(progress, move |progress| async move {
        if progress.ended {
            return Ok(None);
        }
        let view = core::state().view.clone();
        let (mut chunk, progress) = kv::beside(move || {
            let mut progress = progress;
            let chunk = progress.next(&view)?;
            Ok((chunk, progress))
        })
        .await?;
        permit.check_again()?;
        if chunk.header.is_some() {
            core::with(|core| core.state().fill(&mut chunk.header));
        }
        Ok(Some((
            pb::RangeStreamResponse {
                range_response: Some(chunk),
            },
            progress,
        )))
    }))
}

impl Progress {
    fn next(&mut self, view: &View) -> Result<pb::RangeResponse, RequestError> {
        self.rest.limit = self
            .allowed
            .map_or(self.chunk_keys, |allowed| allowed.min(self.chunk_keys));
        // Only the first read counts the keys.
        let mut chunk = if self.first.is_none() {
            view.range(&self.rest)?
        } else {
            view.range_uncounted(&self.rest)?
        };
        if self.first.is_none() {
            let revision = chunk.header.as_ref().map_or(0, |header| header.revision);
            if self.rest.revision <= 0 {
                self.rest.revision = revision;
            }
            self.first = Some((chunk.header.take(), chunk.count));
        }
        if let Some(allowed) = &mut self.allowed {
            *allowed -= chunk.kvs.len() as i64;
        }
        self.ended = !chunk.more || self.allowed == Some(0);
        if let (false, Some(last)) = (self.ended, chunk.kvs.last()) {
            self.rest.key = [last.key.as_ref(), b"\0"].concat().into();
            self.resize(chunk.encoded_len());
            chunk = pb::RangeResponse {
                kvs: chunk.kvs,
                ..pb::RangeResponse::default()
            };
        } else {
            self.ended = true;
            let (header, count) = self.first.take().expect("set by the first read");
            (chunk.header, chunk.count) = (header, count);
        }
        Ok(chunk)
    }

    fn resize(&mut self, bytes: usize) {
        if bytes < self.chunk_bytes / 2 {
            self.chunk_keys *= 2;
        } else if bytes > self.chunk_bytes * 2 {
            self.chunk_keys = (self.chunk_keys / 2).max(1);
        }
    }
}

/// Refuses what cannot be streamed.
pub(super) fn check(range: &pb::RangeRequest) -> Result<(), Status> {
    quorate_core::request::check_range_stream(range).map_err(|error| status(&error))
}
