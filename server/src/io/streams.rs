//! Runs the streams of one HTTP/2 connection inside the connection's own task.
//!
//! hyper wants an executor for the future of each stream. Spawning them on the runtime makes a task each, and a
//! finished stream then wakes the connection through the runtime's queue. Kept here, a connection and its streams
//! are one task: the answers of a delivery wake it once.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the futures that hyper wants to run beside the connection.
#[derive(Clone, Default)]
pub(super) struct Spawner {
    fresh: Arc<Mutex<Vec<Stream>>>,
}

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.fresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::pin(future));
    }
}

/// A connection together with its streams, as one future.
pub(super) struct WithStreams<C> {
    connection: C,
    spawner: Spawner,
    streams: FuturesUnordered<Stream>,
}

impl<C> WithStreams<C> {
    /// `spawner` must be the one that `connection` was made with.
    pub(super) fn new(connection: C, spawner: Spawner) -> Self {
        Self {
            connection,
            spawner,
            streams: FuturesUnordered::new(),
        }
    }

    pub(super) fn connection(&mut self) -> Pin<&mut C>
    where
        C: Unpin,
    {
        Pin::new(&mut self.connection)
    }
}

impl<C: Future + Unpin> Future for WithStreams<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(output) = Pin::new(&mut this.connection).poll(context) {
                return Poll::Ready(output);
            }
            let fresh = std::mem::take(
                &mut *this
                    .spawner
                    .fresh
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            this.streams.extend(fresh);
            let mut finished = false;
            while let Poll::Ready(Some(())) = this.streams.poll_next_unpin(context) {
                finished = true;
            }
            if !finished {
                return Poll::Pending;
            }
        }
    }
}
