//! Stream sockets of both families, TCP and Unix, under one name: what a listener was made for is no business of those
//! who read and write.
//!
//! Under madsim there is TCP alone, since its network has no files.

#[cfg(not(madsim))]
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(not(madsim))]
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io, net};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(not(madsim))]
use tokio::net::{UnixListener, UnixStream};

use super::{TcpListener, TcpStream};

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over the network.
    Tcp(TcpStream),
    /// Within this machine.
    #[cfg(not(madsim))]
    Unix(UnixStream),
}

/// A connection that belongs to no runtime, on its way from one to another.
#[cfg(not(madsim))]
#[derive(Debug)]
pub enum Detached {
    /// Over the network.
    Tcp(net::TcpStream),
    /// Within this machine.
    Unix(std::os::unix::net::UnixStream),
}

/// A connection on its way from one thread to another; in the simulation there is nothing to give up.
#[cfg(madsim)]
pub type Detached = Stream;

/// A listening socket that belongs to no runtime yet.
#[cfg(not(madsim))]
#[derive(Debug)]
pub enum Bound {
    /// On the network.
    Tcp(net::TcpListener),
    /// Within this machine.
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// A listening socket.
#[cfg(madsim)]
pub type Bound = Listener;

/// A listening socket of this thread's runtime.
#[derive(Debug)]
pub enum Listener {
    /// On the network.
    Tcp(TcpListener),
    /// Within this machine.
    #[cfg(not(madsim))]
    Unix(UnixListener, SocketFile),
}

/// The name of a Unix socket that is listened on; it goes with the listener.
#[cfg(not(madsim))]
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// An address of the network.
    Network(net::SocketAddr),
    /// A process of this machine; it has no address.
    Local,
}

impl Remote {
    /// The address, if there is one.
    pub fn address(self) -> Option<net::SocketAddr> {
        match self {
            Self::Network(address) => Some(address),
            Self::Local => None,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            // As Go calls the nameless.
            Self::Local => f.write_str("@"),
        }
    }
}

#[cfg(not(madsim))]
impl Bound {
    /// Listens on a Unix socket; one that a process before this one has left behind gives way, as in etcd.
    pub fn unix(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt as _;
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) | Err(_) => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener, SocketFile(path.to_owned())))
    }

    /// Where it listens, for people.
    pub fn local_address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Unix(_, SocketFile(path)) => Ok(path.display().to_string()),
        }
    }
}

#[cfg(madsim)]
impl Listener {
    /// Where it listens, for people.
    pub fn local_address(&self) -> io::Result<String> {
        let Self::Tcp(listener) = self;
        Ok(listener.local_addr()?.to_string())
    }
}

#[cfg(not(madsim))]
impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have been faster.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Gives a listener to this thread's runtime.
    pub fn adopt(bound: Bound) -> io::Result<Self> {
        #[cfg(madsim)]
        return Ok(bound);
        #[cfg(not(madsim))]
        Ok(match bound {
            Bound::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Bound::Unix(listener, file) => Self::Unix(UnixListener::from_std(listener)?, file),
        })
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<(Stream, Remote)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Remote::Network(remote)))
            }
            #[cfg(not(madsim))]
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Remote::Local))
            }
        }
    }
}

/// Takes a stream away from this thread's runtime, for another one.
pub fn detach(stream: Stream) -> io::Result<Detached> {
    #[cfg(madsim)]
    return Ok(stream);
    #[cfg(not(madsim))]
    Ok(match stream {
        Stream::Tcp(stream) => Detached::Tcp(stream.into_std()?),
        Stream::Unix(stream) => Detached::Unix(stream.into_std()?),
    })
}

/// Gives a stream to this thread's runtime.
pub fn attach(stream: Detached) -> io::Result<Stream> {
    #[cfg(madsim)]
    return Ok(stream);
    #[cfg(not(madsim))]
    Ok(match stream {
        Detached::Tcp(stream) => {
            stream.set_nonblocking(true)?;
            Stream::Tcp(TcpStream::from_std(stream)?)
        }
        Detached::Unix(stream) => {
            stream.set_nonblocking(true)?;
            Stream::Unix(UnixStream::from_std(stream)?)
        }
    })
}

impl Stream {
    /// Sends small writes at once.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(nodelay),
            #[cfg(not(madsim))]
            Self::Unix(_) => Ok(()),
        }
    }

    /// Whether [`Stream::try_read`] may have something.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            #[cfg(not(madsim))]
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    /// Reads what has arrived.
    pub fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            #[cfg(not(madsim))]
            Self::Unix(stream) => stream.try_read(into),
        }
    }

    /// Writes what there is room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            #[cfg(not(madsim))]
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Writes of several buffers what there is room for.
    #[cfg(not(madsim))]
    pub fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }

    /// Waits until there may be room.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            #[cfg(not(madsim))]
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Ends this side's half.
    #[cfg(madsim)]
    pub fn shutdown_write(&self) -> io::Result<()> {
        let Self::Tcp(stream) = self;
        stream.shutdown_write()
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

#[cfg(not(madsim))]
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(not(madsim))]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(not(madsim))]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(not(madsim))]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(not(madsim))]
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(not(madsim))]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(not(madsim))]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
