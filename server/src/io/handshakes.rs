//! The thread on which clients shake hands, so that no IO core computes a signature or waits for a slow client.
//!
//! ```text
//!   accepted ─► first byte (only where plain text is served on the same port) ─► handshake ─► the core with the fewest
//! ```
//!
//! A handshake has a time limit, and so many run at once and no more. A connection enters its core when it is known
//! who the client is; its keys go with it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use quorate_net::rt::{self, Detached, Remote, Stream};
use quorate_net::tls::{PeerCertificate, ServerTls};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

use super::session::Session;
use super::{Entry, Opening, Traffic, Visitor, enter};
use crate::host::Runtime;

/// Connections on their way to the thread.
const WAITING_MAX: usize = 256;

/// Handshakes at the same time.
const HANDSHAKES_MAX: usize = 1024;

/// A client of a port that serves both must say something within this time, as everywhere.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(300);

/// What a TLS record begins with when a handshake begins; no method of HTTP does.
const HANDSHAKE_RECORD: u8 = 22;

/// How the connections of a listener begin.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Certificates and rules.
    pub tls: ServerTls,
    /// Whether plain text is served, too.
    pub is_mixed: bool,
    /// Whether the common name of a client's certificate is a user's name.
    pub names_users: bool,
}

/// Where connections that begin with TLS enter.
#[derive(Clone, Debug)]
pub struct Handshakes(mpsc::Sender<Pending>);

#[derive(Debug)]
struct Pending {
    stream: Detached,
    remote: Remote,
    kind: Traffic,
    gate: Gate,
}

impl Handshakes {
    /// Starts the thread; it ends when nobody has its handle any more.
    pub fn start(entries: Vec<Entry>) -> io::Result<Self> {
        let (sender, pending) = mpsc::channel(WAITING_MAX);
        Runtime::new()?.start("tls", move || run(pending, entries))?;
        Ok(Self(sender))
    }

    /// Hands a connection over; waits while too many wait already.
    pub async fn begin(&self, stream: Detached, remote: Remote, kind: Traffic, gate: Gate) {
        let pending = Pending {
            stream,
            remote,
            kind,
            gate,
        };
        // A thread that has ended drops the connection: the server is going down.
        let _ = self.0.send(pending).await;
    }
}

async fn run(mut pending: mpsc::Receiver<Pending>, entries: Vec<Entry>) {
    let entries: Arc<[Entry]> = entries.into();
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(pending) = pending.recv().await {
        let (entries, permits) = (Arc::clone(&entries), Arc::clone(&permits));
        tokio::spawn(async move {
            let remote = pending.remote;
            if let Err(error) = open(pending, &entries, &permits).await {
                log_rejected(remote, &error);
            }
        });
    }
}

/// Finds out how the client begins and gives the connection to a core.
async fn open(pending: Pending, entries: &[Entry], permits: &Semaphore) -> io::Result<()> {
    let Pending {
        stream,
        remote,
        kind,
        gate,
    } = pending;
    let mut stream = rt::attach(stream)?;
    stream.set_nodelay(true)?;
    let mut first = Bytes::new();
    if gate.is_mixed {
        let waited = tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.read_u8()).await;
        let byte = waited.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        first = Bytes::copy_from_slice(&[byte]);
        if byte != HANDSHAKE_RECORD {
            let opening = Opening {
                read_ahead: first,
                ..Opening::default()
            };
            enter(entries, rt::detach(stream)?, remote, kind, opening);
            return Ok(());
        }
    }
    let permit = permits.acquire().await;
    let begun = Begun { first, stream };
    let address = remote.address().map(|address| address.ip());
    let accepted = gate.tls.accept(begun, address).await?;
    drop(permit);
    let (Begun { stream, .. }, connection) = accepted.stream.into_inner();
    let opening = Opening {
        read_ahead: Bytes::new(),
        session: Some(Session::new(connection)),
        visitor: Visitor {
            is_secure: true,
            user: user(accepted.certificate.as_ref(), &gate),
        },
    };
    enter(entries, rt::detach(stream)?, remote, kind, opening);
    Ok(())
}

/// The user that a certificate names, where it names one.
fn user(certificate: Option<&PeerCertificate>, gate: &Gate) -> Option<Arc<str>> {
    let name = certificate.map(|certificate| certificate.common_name.as_str());
    name.filter(|name| gate.names_users && !name.is_empty())
        .map(Arc::from)
}

/// As etcd logs it; clients that merely go away are of no interest.
fn log_rejected(remote: Remote, error: &io::Error) {
    let gone = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    if gone {
        debug!("remote-addr" = %remote, error = %error, "rejected connection on client endpoint");
    } else {
        warn!("remote-addr" = %remote, error = %error, "rejected connection on client endpoint");
    }
}

/// A connection of which the first byte is read already, or nothing.
struct Begun {
    first: Bytes,
    stream: Stream,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let length = self.first.len().min(into.remaining());
        into.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
