//! A stream whose writes wait for the core's tick.
//!
//! HTTP/2 libraries flush after each frame. Here `poll_write` only appends to a buffer and `poll_flush` does
//! nothing; the tick, which runs after all connections that were ready, writes each dirty buffer with one system
//! call. A socket that does not take it all is written on by a task of its own. Above a bound the writer waits, so
//! that a slow client costs a bounded amount of memory.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use quorate_net::rt::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core;
use crate::metrics::{CoreMetrics, Counter};

/// A writer with this much waiting must wait itself.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// A buffer that grew beyond this is given back when it is empty.
const BUFFER_KEPT_MAX: usize = 64 * 1024;

/// One connection's socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    outgoing: Mutex<Outgoing>,
}

#[derive(Debug, Default)]
struct Outgoing {
    waiting: BytesMut,
    /// In the core's list of dirty sockets, or held by a draining task: somebody will write `waiting`.
    scheduled: bool,
    /// Who waits for room in the buffer, or for it to be empty.
    blocked: Option<Waker>,
    /// Why no byte can be written any more.
    failed: Option<io::ErrorKind>,
}

impl Socket {
    /// Writes what waits; for the tick.
    pub(super) fn write_waiting(self: &Arc<Self>) {
        let mut outgoing = self.lock();
        self.drain(&mut outgoing);
        let blocked = if outgoing.waiting.len() < WAITING_BYTES_MAX {
            outgoing.blocked.take()
        } else {
            None
        };
        if outgoing.waiting.is_empty() {
            outgoing.scheduled = false;
        } else {
            tokio::spawn(drain_slowly(Arc::clone(self)));
        }
        drop(outgoing);
        if let Some(blocked) = blocked {
            blocked.wake();
        }
    }

    /// Writes as much as the socket takes now; a failure drops the rest and is kept for the writer.
    fn drain(&self, outgoing: &mut Outgoing) {
        while !outgoing.waiting.is_empty() {
            match self.stream.try_write(&outgoing.waiting) {
                Ok(0) => outgoing.fail(io::ErrorKind::WriteZero),
                Ok(written) => outgoing.waiting.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outgoing.fail(error.kind()),
            }
        }
        if outgoing.waiting.capacity() > BUFFER_KEPT_MAX {
            outgoing.waiting = BytesMut::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    fn fail(&mut self, kind: io::ErrorKind) {
        self.failed = Some(kind);
        self.waiting.clear();
    }
}

/// Writes on whenever the socket takes more, until nothing waits.
async fn drain_slowly(socket: Arc<Socket>) {
    loop {
        let writable = socket.stream.writable().await;
        let mut outgoing = socket.lock();
        match writable {
            Ok(()) => socket.drain(&mut outgoing),
            Err(error) => outgoing.fail(error.kind()),
        }
        let blocked = if outgoing.waiting.len() < WAITING_BYTES_MAX {
            outgoing.blocked.take()
        } else {
            None
        };
        let empty = outgoing.waiting.is_empty();
        if empty {
            outgoing.scheduled = false;
        }
        drop(outgoing);
        if let Some(blocked) = blocked {
            blocked.wake();
        }
        if empty {
            return;
        }
    }
}

/// The connection's side of a [`Socket`]: what hyper reads from and writes to.
#[derive(Debug)]
pub(super) struct Coalesced {
    socket: Arc<Socket>,
    /// Bytes read ahead, to tell HTTP/2 from HTTP/1.
    read_ahead: Bytes,
    /// Whether its bytes are those of a gRPC client, which are counted.
    is_grpc: bool,
}

impl Coalesced {
    pub(super) fn new(stream: Stream, read_ahead: Bytes, is_grpc: bool) -> Self {
        let socket = Socket {
            stream,
            outgoing: Mutex::new(Outgoing::default()),
        };
        Self {
            socket: Arc::new(socket),
            read_ahead,
            is_grpc,
        }
    }

    /// Counts what came from the client, or goes to it.
    fn count(&self, counter: impl Fn(&CoreMetrics) -> &Counter, bytes: usize) {
        if self.is_grpc {
            core::with(|core| counter(core.state().metrics.core()).add(bytes as u64));
        }
    }

    /// Appends to the buffer, or notes the writer when there is no room.
    fn append(&self, context: &Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut outgoing = self.socket.lock();
        if let Some(kind) = outgoing.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if outgoing.waiting.len() >= WAITING_BYTES_MAX {
            outgoing.blocked = Some(context.waker().clone());
            assert!(outgoing.scheduled, "what waits has a writer");
            return Poll::Pending;
        }
        let mut appended = 0;
        for slice in slices {
            outgoing.waiting.extend_from_slice(slice);
            appended += slice.len();
        }
        self.count(|core| &core.client_sent_bytes, appended);
        if appended > 0 && !mem::replace(&mut outgoing.scheduled, true) {
            drop(outgoing);
            core::with(|core| core.schedule_write(Arc::clone(&self.socket)));
        }
        Poll::Ready(Ok(appended))
    }
}

impl AsyncRead for Coalesced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let length = self.read_ahead.len().min(into.remaining());
            into.put_slice(&self.read_ahead.split_to(length));
            self.count(|core| &core.client_received_bytes, length);
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.socket.stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match self.socket.stream.try_read(into.initialize_unfilled()) {
                Ok(length) => {
                    into.advance(length);
                    self.count(|core| &core.client_received_bytes, length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Coalesced {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.append(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.append(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing on purpose: the tick writes.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.lock().failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.socket.lock();
        if let Some(kind) = outgoing.failed {
            return Poll::Ready(Err(kind.into()));
        }
        self.socket.drain(&mut outgoing);
        if !outgoing.waiting.is_empty() {
            outgoing.blocked = Some(context.waker().clone());
            assert!(outgoing.scheduled, "what waits has a writer");
            return Poll::Pending;
        }
        drop(outgoing);
        match shutdown_write(&self.socket.stream) {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}

#[cfg(not(madsim))]
fn shutdown_write(stream: &Stream) -> io::Result<()> {
    socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}

#[cfg(madsim)]
fn shutdown_write(stream: &Stream) -> io::Result<()> {
    stream.shutdown_write()
}
