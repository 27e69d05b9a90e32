//! What hostile clients do, each for some seconds, on many connections at once.
//!
//! An attack is one function that is called for each new connection, again and again until the time is over. It ends
//! with an error when the server closes the connection, which is what a server should do to most of them.

mod calls;
mod http1;
mod http2;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Before the next connection after one that was refused or closed.
const PAUSE: Duration = Duration::from_millis(5);

/// What an attack does with one connection.
type Tactic = fn(TcpStream) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// One kind of attack.
#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Connections at a time.
    connections: usize,
    tactic: Tactic,
}

/// What came of an attack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Connections that were made.
    pub(super) made: u64,
    /// Those that the server closed.
    pub(super) closed: u64,
}

/// All of them.
pub(super) fn all() -> Vec<Attack> {
    [http1::ATTACKS, http2::ATTACKS, calls::ATTACKS].concat()
}

impl Attack {
    /// Attacks a server for some time, on a thread of its own.
    pub(super) fn launch(
        self,
        server: SocketAddr,
        time: Duration,
    ) -> std::thread::JoinHandle<io::Result<Tally>> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(self.rage(server, Instant::now() + time)))
        })
    }

    async fn rage(self, server: SocketAddr, end: Instant) -> Tally {
        let mut tasks = JoinSet::new();
        for _ in 0..self.connections {
            tasks.spawn(self.repeat(server, end));
        }
        let mut sum = Tally::default();
        while let Some(one) = tasks.join_next().await {
            let one = one.unwrap_or_default();
            sum.made += one.made;
            sum.closed += one.closed;
        }
        sum
    }

    async fn repeat(self, server: SocketAddr, end: Instant) -> Tally {
        let mut tally = Tally::default();
        while Instant::now() < end {
            let Ok(connected) = timeout_at(end, TcpStream::connect(server)).await else {
                break;
            };
            if let Ok(stream) = connected {
                tally.made += 1;
                match timeout_at(end, (self.tactic)(stream)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => tally.closed += 1,
                    Err(_) => break,
                }
            }
            sleep_until(end.min(Instant::now() + PAUSE)).await;
        }
        tally
    }
}
