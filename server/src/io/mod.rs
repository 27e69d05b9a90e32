//! The IO cores: threads that carry the clients' connections.
//!
//! Each core is one thread with one single-threaded runtime. A connection belongs to one core for its life; new
//! ones go to the core with the fewest. This module never decides what a request means (`services` does) and never
//! touches the node but through `core`'s batches.

mod connection;
pub(crate) mod core;
#[cfg(not(madsim))]
pub mod handshakes;
pub(crate) mod home;
pub mod listener;
pub mod mailbox;
mod requests;
mod session;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_net::rt::{self, Detached, JoinSet, Remote};
use tokio::sync::{mpsc, watch};
use tracing::warn;

pub use self::core::CoreParts;
use self::home::Home;
use self::session::Session;
use crate::host::{Runtime, Thread};
use crate::services::Services;

/// How long connections may take to end once the server closes.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// One accepted connection on its way to its core.
#[derive(Debug)]
struct Accepted {
    stream: Detached,
    remote: Remote,
    kind: Traffic,
    opening: Opening,
}

/// What is known of a connection before its core has it; by default nothing, in plain text.
#[derive(Debug, Default)]
struct Opening {
    /// Bytes that were read to see what it is.
    read_ahead: Bytes,
    /// Its keys, after a handshake.
    session: Option<Session>,
    visitor: Visitor,
}

/// Who is at the other end, by its handshake.
#[derive(Clone, Debug, Default)]
struct Visitor {
    /// Whether there was one.
    is_secure: bool,
    /// The user that the client's certificate names.
    user: Option<Arc<str>>,
}

/// What a listener carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// gRPC and the HTTP pages on one port.
    GrpcAndHttp,
    /// gRPC alone: there is another port for HTTP.
    Grpc,
    /// The HTTP pages alone.
    Http,
    /// The pages of `--listen-metrics-urls` alone.
    Metrics,
}

/// Where connections enter a core.
#[derive(Clone, Debug)]
pub struct Entry {
    connections: mpsc::UnboundedSender<Accepted>,
    /// Connections that the core carries now.
    live: Arc<AtomicUsize>,
}

/// The handle of one running IO core.
#[derive(Debug)]
pub struct IoCore {
    entry: Entry,
    closing: watch::Sender<bool>,
    thread: Thread,
}

impl IoCore {
    /// Starts a core's thread.
    pub fn start(number: usize, parts: CoreParts) -> std::io::Result<Self> {
        let (connections, accepted) = mpsc::unbounded_channel();
        let (closing, closing_seen) = watch::channel(false);
        let live = Arc::new(AtomicUsize::new(0));
        let thread = Runtime::new()?.start(&format!("io-{number}"), {
            let live = Arc::clone(&live);
            move || run(parts, accepted, live, closing_seen)
        })?;
        Ok(Self {
            entry: Entry { connections, live },
            closing,
            thread,
        })
    }

    /// Where its connections enter.
    pub fn entry(&self) -> Entry {
        self.entry.clone()
    }

    /// Ends the core's connections and its thread.
    pub async fn close(self) {
        self.closing.send_replace(true);
        self.thread.join().await;
    }
}

/// Gives a connection to the core with the fewest.
pub fn assign(entries: &[Entry], stream: Detached, remote: Remote, kind: Traffic) {
    enter(entries, stream, remote, kind, Opening::default());
}

/// Gives a connection that has begun to the core with the fewest.
fn enter(entries: &[Entry], stream: Detached, remote: Remote, kind: Traffic, opening: Opening) {
    let entry = entries
        .iter()
        .min_by_key(|entry| entry.live.load(Ordering::Relaxed))
        .expect("there is a core");
    entry.live.fetch_add(1, Ordering::Relaxed);
    // A core that has ended drops the connection: the server is going down.
    let _ = entry.connections.send(Accepted {
        stream,
        remote,
        kind,
        opening,
    });
}

async fn run(
    parts: CoreParts,
    accepted: mpsc::UnboundedReceiver<Accepted>,
    live: Arc<AtomicUsize>,
    closing: watch::Receiver<bool>,
) {
    core::install(parts);
    let home = Home::current();
    let tick = tokio::spawn(home.run(core::tick_forever()));
    let count = tokio::spawn(home.run(core::count_forever()));
    carry(accepted, &live, closing).await;
    count.abort();
    tick.abort();
}

/// Starts a task for each connection until there are no more, then waits a little for the last to end.
async fn carry(
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    live: &Arc<AtomicUsize>,
    closing: watch::Receiver<bool>,
) {
    let services = Arc::new(Services::new(&core::state()));
    let mut tasks = JoinSet::new();
    let home = Home::current();
    let mut closed = closing.clone();
    loop {
        let Accepted {
            stream,
            remote,
            kind,
            opening,
        } = tokio::select! {
            accepted = accepted.recv() => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            _ = closed.wait_for(|closed| *closed) => break,
        };
        while tasks.try_join_next().is_some() {}
        let stream = match rt::attach(stream) {
            Ok(stream) => stream,
            Err(error) => {
                live.fetch_sub(1, Ordering::Relaxed);
                warn!(remote = %remote, error = %error, "cannot serve a connection");
                continue;
            }
        };
        let live = LiveGuard(Arc::clone(live));
        let (services, closing) = (Arc::clone(&services), closing.clone());
        tasks.spawn(home.run(async move {
            let _live = live;
            connection::serve(stream, remote, kind, opening, services, closing).await;
        }));
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    // Watches do not end by themselves: what is left after this is cut with the process.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, ended).await;
}

/// Counts a connection for as long as it lives.
struct LiveGuard(Arc<AtomicUsize>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
