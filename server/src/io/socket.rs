//! A stream whose writes wait for the core's tick.
//!
//! HTTP/2 libraries flush after each frame. Here `poll_write` only appends to a buffer and `poll_flush` does
//! nothing; the tick, which runs after all connections that were ready, writes each dirty buffer with one system
//! call. A socket that does not take it all is written on by a task of its own. Above a bound the writer waits, so
//! that a slow client costs a bounded amount of memory.
//!
//! With TLS it is the tick that makes records of what waits: as few and as large as they can be.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use quorate_net::rt::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core;
use super::session::Session;
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
    /// Makes records of what waits, and keeps those that the socket did not take; none in plain text.
    session: Option<Session>,
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
        if outgoing.is_over() {
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
        while !outgoing.is_over() {
            match outgoing.write_to(&self.stream) {
                Ok(0) => outgoing.fail(io::ErrorKind::WriteZero),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => outgoing.fail(error.kind()),
            }
        }
        if outgoing.waiting.capacity() > BUFFER_KEPT_MAX {
            outgoing.waiting = BytesMut::new();
        }
    }

    /// Has the tick write what there is, unless somebody does already.
    fn schedule(self: &Arc<Self>, mut outgoing: MutexGuard<'_, Outgoing>) {
        if !mem::replace(&mut outgoing.scheduled, true) {
            drop(outgoing);
            core::with(|core| core.schedule_write(Arc::clone(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    /// Whether nothing is left to be written, or nothing can be.
    fn is_over(&self) -> bool {
        self.failed.is_some()
            || (self.waiting.is_empty()
                && self
                    .session
                    .as_ref()
                    .is_none_or(|session| !session.wants_write()))
    }

    /// Writes some of what waits; gives how many bytes the socket took.
    fn write_to(&mut self, stream: &Stream) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            let written = stream.try_write(&self.waiting)?;
            self.waiting.advance(written);
            return Ok(written);
        };
        let encrypted = session.encrypt(&self.waiting)?;
        self.waiting.advance(encrypted);
        session.send(stream)
    }

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
        let over = outgoing.is_over();
        if over {
            outgoing.scheduled = false;
        }
        drop(outgoing);
        if let Some(blocked) = blocked {
            blocked.wake();
        }
        if over {
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
    /// Whether the socket carries TLS.
    is_session: bool,
}

impl Coalesced {
    /// With a session if its bytes are TLS.
    pub(super) fn new(stream: Stream, session: Option<Session>) -> Self {
        let is_session = session.is_some();
        let outgoing = Outgoing {
            session,
            ..Outgoing::default()
        };
        let socket = Socket {
            stream,
            outgoing: Mutex::new(outgoing),
        };
        Self {
            socket: Arc::new(socket),
            read_ahead: Bytes::new(),
            is_grpc: false,
            is_session,
        }
    }

    /// Begins anew with what was read to tell one protocol from the other.
    pub(super) fn reread(mut self, read_ahead: Bytes, is_grpc: bool) -> Self {
        (self.read_ahead, self.is_grpc) = (read_ahead, is_grpc);
        self
    }

    /// Reads in plain text.
    fn poll_read_plain(
        &self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.stream.poll_read_ready(context))?;
            match self.socket.stream.try_read(into.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Reads what a session makes of the records that have arrived.
    fn poll_read_session(
        &self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut outgoing = self.socket.lock();
            let session = outgoing.session.as_mut().expect("it was looked at before");
            match session.read(into.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
            ready!(self.socket.stream.poll_read_ready(context))?;
            let received = session.receive(&self.socket.stream);
            // Some records are answered: a new key is, and nonsense is.
            if session.wants_write() {
                self.socket.schedule(outgoing);
            }
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => _ = other?,
            }
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
        if appended > 0 {
            self.socket.schedule(outgoing);
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
        let length = if self.is_session {
            ready!(self.poll_read_session(context, into))?
        } else {
            ready!(self.poll_read_plain(context, into))?
        };
        into.advance(length);
        self.count(|core| &core.client_received_bytes, length);
        Poll::Ready(Ok(()))
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
        // The last word: nothing that waits could be encrypted after it.
        if let Outgoing {
            waiting,
            session: Some(session),
            ..
        } = &mut *outgoing
            && waiting.is_empty()
        {
            session.say_goodbye();
            self.socket.drain(&mut outgoing);
        }
        if !outgoing.is_over() {
            outgoing.blocked = Some(context.waker().clone());
            self.socket.schedule(outgoing);
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
