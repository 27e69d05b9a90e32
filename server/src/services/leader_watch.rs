//! Ends the streams of clients that want an error rather than wait for a leader.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use quorate_core::error::RequestError;
use tokio::time::Instant;
use tonic::Status;

use super::status;
use crate::io::core;

/// How often the leader is looked at, in parts of the time that its loss may last.
const LOOKS: u32 = 6;

/// What a service streams.
pub(super) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The same stream; with `required`, it ends with "no leader" once this member has known none for too long.
pub(super) fn until_leaderless<T, S>(required: bool, responses: S) -> ResponseStream<T>
where
    T: Send + 'static,
    S: Stream<Item = Result<T, Status>> + Send + 'static,
{
    if !required {
        return Box::pin(responses);
    }
    let patience = core::with(|core| core.state().limits.leader_loss);
    let lost = stream::once(async move {
        leader_lost(patience).await;
        Err(status(&RequestError::NoLeader))
    });
    // The loss ends the stream; so does the end of the responses.
    let merged = stream::select(
        responses.map(Some).chain(stream::iter([None])),
        lost.map(Some),
    );
    let mut ended = false;
    Box::pin(
        merged
            .take_while(move |item| {
                let goes_on = item.is_some() && !ended;
                ended = matches!(item, Some(Err(_)));
                std::future::ready(goes_on)
            })
            .filter_map(std::future::ready),
    )
}

/// Returns when this member has known no leader for `patience`.
async fn leader_lost(patience: Duration) {
    let mut seen = Instant::now();
    let mut look = tokio::time::interval(patience / LOOKS);
    loop {
        look.tick().await;
        if core::with(|core| core.state().leader()).is_some() {
            seen = Instant::now();
        } else if seen.elapsed() >= patience {
            return;
        }
    }
}
