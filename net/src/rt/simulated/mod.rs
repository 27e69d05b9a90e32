//! What madsim's tokio lacks: sockets that can be full, half closed, silent or reset, sets of tasks, hyper's timer.
//!
//! Only built with `--cfg madsim`. Time, tasks, links and their delays are madsim's.

mod net;
mod tasks;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use self::net::{
    End, Events, Observed, TcpListener, TcpStream, give_up_silent, links, observe, reset, silence,
};
pub use self::tasks::JoinSet;

/// The time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// The future's output, unless `deadline` comes first.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let left = deadline.saturating_duration_since(Instant::now());
    tokio::time::timeout(left, future)
        .await
        .map_err(|_| Elapsed)
}

/// Runs hyper's futures as tasks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl Executor {
    /// The one there is.
    pub fn new() -> Self {
        Self
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn(future);
    }
}

/// hyper's timer on simulated time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl Timer {
    /// The one there is.
    pub fn new() -> Self {
        Self
    }
}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep(duration))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep_until(deadline))))
    }
}

struct Sleep(Pin<Box<tokio::time::Sleep>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl hyper::rt::Sleep for Sleep {}
