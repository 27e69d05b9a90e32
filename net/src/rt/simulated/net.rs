//! TCP over madsim's streams.
//!
//! madsim carries the bytes: order, delay and clogged links are its own. Added here is what a kernel does besides:
//!
//! ```text
//!   full       a sender whose peer does not read has to wait
//!   pieces     a read or a write may take less than it could
//!   fin        one direction ends, the other goes on
//!   silent     the other machine is gone without a word: nothing arrives, what is sent is lost
//!   reset      both ends fail at once, what was on its way is lost
//! ```
//!
//! A link is known by the addresses of its two ends; both ends find it in a table of this thread, which is the whole
//! simulated world. Faults come from outside through [`reset`] and [`silence`]; everything that is sent and received is
//! shown to one observer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};
use futures_util::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::ToSocketAddrs;

/// Bytes on their way in one direction; more have to wait. About what a kernel buffers.
const IN_FLIGHT_MAX: usize = 256 * 1024;

/// A sender that had to wait goes on once so little is on its way, as in a kernel: madsim gives one write a millisecond,
/// so that one byte for each byte that was read would take for ever.
const IN_FLIGHT_LOW: usize = IN_FLIGHT_MAX / 2;

/// Bytes taken from madsim at once.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

#[derive(Default)]
struct World {
    /// By the address of the end that connected and of the end that accepted.
    links: BTreeMap<(SocketAddr, SocketAddr), Weak<Link>>,
    observer: Option<Box<dyn Events>>,
}

/// Something that happened on a link.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The end where it happened.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// What it was.
    pub end: End<'a>,
}

/// What happened at one end of a link.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// It was opened.
    Opened,
    /// It took bytes to send.
    Sent(&'a [u8]),
    /// It gave bytes that had arrived.
    Received(&'a [u8]),
    /// It was dropped.
    Closed,
}

/// Sees everything that is sent, and says how much of it goes at once.
pub trait Events {
    /// Called for everything that happens at an end.
    fn on(&mut self, event: Observed<'_>);

    /// How many of `bytes` bytes one read or write moves; at least one.
    fn piece(&mut self, bytes: usize) -> usize;
}

/// Has an observer see everything from now on.
pub fn observe(observer: Box<dyn Events>) {
    WORLD.with_borrow_mut(|world| world.observer = Some(observer));
}

/// The links that are open, by the end that connected and the end that accepted.
pub fn links() -> Vec<(SocketAddr, SocketAddr)> {
    live(|_, _| true)
        .into_iter()
        .map(|(ends, _)| ends)
        .collect()
}

/// Resets the links between ends that `chosen` chooses: called with the end that connected and the one that accepted.
/// Gives their number.
pub fn reset(chosen: impl Fn(SocketAddr, SocketAddr) -> bool) -> usize {
    change(chosen, Condition::Reset)
}

/// Lets links go silent: nothing arrives any more, not even an end.
pub fn silence(chosen: impl Fn(SocketAddr, SocketAddr) -> bool) -> usize {
    change(chosen, Condition::Silent)
}

/// Resets the links that are silent, as a system does that has sent in vain for too long. Gives their number.
pub fn give_up_silent() -> usize {
    let silent = live(|_, _| true)
        .into_iter()
        .filter(|(_, link)| link.lock().condition == Condition::Silent)
        .map(|(ends, _)| ends);
    let silent: Vec<_> = silent.collect();
    reset(|from, to| silent.contains(&(from, to)))
}

fn change(chosen: impl Fn(SocketAddr, SocketAddr) -> bool, condition: Condition) -> usize {
    let links = live(chosen);
    for (_, link) in &links {
        let mut state = link.lock();
        state.condition = state.condition.max(condition);
        let wakers = state.take_wakers();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
    links.len()
}

/// Open links, in the order of their addresses.
fn live(
    chosen: impl Fn(SocketAddr, SocketAddr) -> bool,
) -> Vec<((SocketAddr, SocketAddr), Arc<Link>)> {
    WORLD.with_borrow_mut(|world| {
        world.links.retain(|_, link| link.strong_count() > 0);
        let chosen = world
            .links
            .iter()
            .filter(|(ends, _)| chosen(ends.0, ends.1));
        chosen
            .filter_map(|(ends, link)| Some((*ends, link.upgrade()?)))
            .collect()
    })
}

fn show(local: SocketAddr, peer: SocketAddr, end: End<'_>) {
    // A stream may be dropped while its thread ends.
    let _ = WORLD.try_with(|world| {
        if let Some(observer) = &mut world.borrow_mut().observer {
            observer.on(Observed { local, peer, end });
        }
    });
}

/// How much of `bytes` moves at once.
fn piece(bytes: usize) -> usize {
    WORLD.with_borrow_mut(|world| match &mut world.observer {
        Some(observer) if bytes > 1 => observer.piece(bytes).clamp(1, bytes),
        _ => bytes,
    })
}

/// What both ends of a connection share.
#[derive(Debug, Default)]
struct Link {
    state: Mutex<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    condition: Condition,
    /// By sender: the end that connected, then the one that accepted.
    directions: [Direction; 2],
}

#[derive(Debug, Default)]
struct Direction {
    /// Sent and not yet given to the reader.
    in_flight: usize,
    /// No more will be sent.
    finished: bool,
    /// The sender has to wait until less is in flight.
    full: bool,
    sender: Option<Waker>,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    #[default]
    Open,
    Silent,
    Reset,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkState {
    fn take_wakers(&mut self) -> Vec<Waker> {
        let both = self.directions.iter_mut();
        both.flat_map(|way| [way.sender.take(), way.reader.take()])
            .flatten()
            .collect()
    }

    fn check(&self) -> io::Result<()> {
        match self.condition {
            Condition::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Condition::Open | Condition::Silent => Ok(()),
        }
    }
}

/// One end of a connection.
pub struct TcpStream {
    local: SocketAddr,
    peer: SocketAddr,
    link: Arc<Link>,
    /// The direction that this end sends in.
    side: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    stream: tokio::net::TcpStream,
    arrived: BytesMut,
    /// The other end was dropped and everything before has arrived.
    ended: bool,
}

impl TcpStream {
    /// Opens a connection.
    pub async fn connect(address: impl ToSocketAddrs) -> io::Result<Self> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let link = Arc::new(Link::default());
        let known = Arc::downgrade(&link);
        WORLD.with_borrow_mut(|world| world.links.insert((local, peer), known));
        Ok(Self::new(stream, local, peer, link, 0))
    }

    fn new(
        stream: tokio::net::TcpStream,
        local: SocketAddr,
        peer: SocketAddr,
        link: Arc<Link>,
        side: usize,
    ) -> Self {
        show(local, peer, End::Opened);
        let inner = Inner {
            stream,
            arrived: BytesMut::new(),
            ended: false,
        };
        Self {
            local,
            peer,
            link,
            side,
            inner: Mutex::new(inner),
        }
    }

    /// Every write is sent at once anyway.
    pub fn set_nodelay(&self, _: bool) -> io::Result<()> {
        self.link.lock().check()
    }

    /// This end.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// The other end.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }

    /// Ready when a read has something to say.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut state = self.link.lock();
            state.check()?;
            state.directions[1 - self.side].reader = Some(context.waker().clone());
            if state.condition == Condition::Silent {
                return Poll::Pending;
            }
            let way = &state.directions[1 - self.side];
            if way.finished && way.in_flight == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let mut inner = self.lock();
        if inner.ended || !inner.arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut inner.stream).poll_read(context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {}
        }
        inner.ended = buffer.filled().is_empty();
        inner.arrived.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }

    /// Reads what has arrived; nothing is the end.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        let mut state = self.link.lock();
        state.check()?;
        let way = &mut state.directions[1 - self.side];
        if inner.arrived.is_empty() {
            let at_end = inner.ended || (way.finished && way.in_flight == 0);
            return if at_end || into.is_empty() {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        let length = piece(inner.arrived.len().min(into.len()));
        into[..length].copy_from_slice(&inner.arrived[..length]);
        inner.arrived.advance(length);
        way.in_flight = way.in_flight.saturating_sub(length);
        way.full &= way.in_flight > IN_FLIGHT_LOW;
        let sender = if way.full { None } else { way.sender.take() };
        drop((state, inner));
        show(self.local, self.peer, End::Received(&into[..length]));
        if let Some(sender) = sender {
            sender.wake();
        }
        Ok(length)
    }

    /// Sends as much as there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut inner = self.lock();
        let mut state = self.link.lock();
        state.check()?;
        let silent = state.condition == Condition::Silent;
        let way = &mut state.directions[self.side];
        if way.finished {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if way.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let room = IN_FLIGHT_MAX - way.in_flight;
        let most = bytes.len().min(room);
        // At least half: see `IN_FLIGHT_LOW`.
        let length = piece(most).max(most.div_ceil(2));
        way.in_flight += length;
        way.full = way.in_flight == IN_FLIGHT_MAX;
        drop(state);
        if !silent {
            inner.send(&bytes[..length])?;
        }
        drop(inner);
        show(self.local, self.peer, End::Sent(&bytes[..length]));
        Ok(length)
    }

    /// Waits for room to write.
    pub async fn writable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_writable(context)).await
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.link.lock();
        state.check()?;
        let way = &mut state.directions[self.side];
        if !way.full {
            return Poll::Ready(Ok(()));
        }
        way.sender = Some(context.waker().clone());
        Poll::Pending
    }

    /// Tells the other end that nothing more will come.
    pub fn shutdown_write(&self) -> io::Result<()> {
        let mut state = self.link.lock();
        state.check()?;
        let way = &mut state.directions[self.side];
        way.finished = true;
        let reader = way.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Hands bytes to madsim, which never has to wait.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut context = Context::from_waker(Waker::noop());
        let stream = Pin::new(&mut self.stream);
        let Poll::Ready(taken) = stream.poll_write(&mut context, bytes) else {
            unreachable!("a simulated socket takes everything");
        };
        assert_eq!(taken?, bytes.len(), "a simulated socket takes everything");
        match Pin::new(&mut self.stream).poll_flush(&mut context) {
            Poll::Ready(sent) => sent,
            Poll::Pending => unreachable!("a simulated socket sends at once"),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
            match self.try_read(into.initialize_unfilled()) {
                Ok(length) => {
                    into.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            match self.poll_writable(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut whole = Vec::new();
        slices
            .iter()
            .for_each(|slice| whole.extend_from_slice(slice));
        self.poll_write(context, &whole)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.link.lock().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpStream({} to {})", self.local, self.peer)
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        show(self.local, self.peer, End::Closed);
        // A sender that waits for room finds out; what was sent before still arrives.
        let sender = self.link.lock().directions[1 - self.side].sender.take();
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener {
    inner: tokio::net::TcpListener,
}

impl TcpListener {
    /// Listens.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let inner = tokio::net::TcpListener::bind(address).await?;
        Ok(Self { inner })
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let (stream, peer) = self.inner.accept().await?;
            let local = stream.local_addr()?;
            let link = WORLD.with_borrow(|world| world.links.get(&(peer, local)).cloned());
            // Without a link the other end has gone already.
            if let Some(link) = link.and_then(|link| link.upgrade()) {
                return Ok((TcpStream::new(stream, local, peer, link, 1), peer));
            }
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}
