//! Where a peer is and how to get a connection to it: the one place that knows about schemes.
//!
//! A peer URL becomes an [`Endpoint`] once; everything above passes endpoints around. Nothing is silently spoken in the
//! clear: without TLS settings an `https` endpoint cannot be dialled.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
#[cfg(not(madsim))]
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use http_body_util::Full;
use hyper::body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection as ConnectionInfo};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(not(madsim))]
use tokio::net::TcpSocket;
use tokio::time::{Sleep, sleep, timeout};

use super::limits::{HANDSHAKE_TIMEOUT, IO_TIMEOUT, PIPELINE_WORKERS, PROBE_INTERVAL};
use super::security::Secured;
use super::wire::Wire;
use crate::rt::{Executor, Stream, TcpStream, Timer};

/// A peer URL that can be dialled.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    /// `host:port`; for a Unix socket its path in hexadecimal, since a path is no authority.
    authority: Authority,
}

/// The schemes of Unix sockets, in plain text and with TLS.
const UNIX: [&str; 2] = ["unix", "unixs"];

/// Why a peer URL cannot be dialled.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("peer URL {url:?} does not parse: {reason}")]
    Malformed {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A scheme that no member speaks.
    #[error("peer URL {url:?}: scheme {scheme:?} is not supported")]
    Scheme {
        /// What was given.
        url: String,
        /// Its scheme.
        scheme: String,
    },
}

impl Endpoint {
    /// Reads `http://host:port`, `https://host:port`, `unix://path` or `unixs://path`.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let malformed = |reason: String| EndpointError::Malformed {
            url: url.to_owned(),
            reason,
        };
        if let Some((scheme, path)) = url.split_once("://")
            && UNIX.contains(&scheme)
        {
            let endpoint = Self::unix(scheme, path);
            return endpoint.ok_or_else(|| malformed("no path of a socket".to_owned()));
        }
        let parts = url
            .parse::<Uri>()
            .map_err(|error| malformed(error.to_string()))?
            .into_parts();
        let scheme = match parts.scheme {
            Some(scheme) if scheme == Scheme::HTTP || scheme == Scheme::HTTPS => scheme,
            Some(scheme) => {
                return Err(EndpointError::Scheme {
                    url: url.to_owned(),
                    scheme: scheme.to_string(),
                });
            }
            None => return Err(malformed("no scheme".to_owned())),
        };
        let authority = parts
            .authority
            .ok_or_else(|| malformed("no host".to_owned()))?;
        if authority.port_u16().is_none() {
            return Err(malformed("no port".to_owned()));
        }
        if parts.path_and_query.is_some_and(|path| path != "/") {
            return Err(malformed("a peer URL has no path".to_owned()));
        }
        Ok(Self { scheme, authority })
    }

    fn unix(scheme: &str, path: &str) -> Option<Self> {
        let hexadecimal: String = path.bytes().map(|byte| format!("{byte:02x}")).collect();
        Some(Self {
            scheme: Scheme::try_from(scheme).expect("it is a scheme"),
            authority: Authority::try_from(hexadecimal).ok()?,
        })
    }

    /// The URL of `path` there.
    pub(crate) fn uri(&self, path: &str) -> Uri {
        let path = PathAndQuery::try_from(path).expect("paths are ours");
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path);
        uri.build().expect("the parts are checked")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match socket_path(&self.scheme, &self.authority) {
            Some(path) => write!(f, "{}://{}", self.scheme, path.display()),
            None => write!(f, "{}://{}", self.scheme, self.authority),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The client that all requests to peers go through; it keeps idle connections for less than a peer does.
pub(crate) type HttpClient = Client<Connector, Full<Bytes>>;

/// An HTTP/1.1 client that makes its connections like this.
pub(crate) fn http_client<B>(wire: &Wire) -> Client<Connector, B>
where
    B: Body<Data = Bytes> + Send,
{
    Client::builder(Executor::new())
        .pool_timer(Timer::new())
        .pool_idle_timeout((PROBE_INTERVAL + IO_TIMEOUT) / 2)
        .pool_max_idle_per_host(PIPELINE_WORKERS + 2)
        .build(Connector { wire: wire.clone() })
}

/// Makes connections to peers.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    wire: Wire,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let wire = self.wire.clone();
        Box::pin(async move {
            let late = |words| move |_| io::Error::new(io::ErrorKind::TimedOut, words);
            let dialled = timeout(wire.dial_timeout, dial(&uri, wire.local_address)).await;
            let stream = dialled.map_err(late("dial timed out"))??;
            if !is_tls(&uri) {
                return Ok(TokioIo::new(Connection::new(stream, wire.write_timeout)?));
            }
            let secured = timeout(HANDSHAKE_TIMEOUT, secure(&wire, &uri, stream)).await;
            let secured = secured.map_err(late("the TLS handshake timed out"))??;
            Ok(TokioIo::new(Connection::secured(
                secured,
                wire.write_timeout,
            )))
        })
    }
}

async fn dial(uri: &Uri, local: Option<IpAddr>) -> io::Result<Stream> {
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(io::Error::other("an endpoint has a scheme and a place"));
    };
    if let Some(path) = socket_path(scheme, authority) {
        return dial_unix(&path).await;
    }
    let port = authority
        .port_u16()
        .ok_or_else(|| io::Error::other("an endpoint has a port"))?;
    let remote = (host(authority), port);
    match local {
        Some(local) => dial_from(local, remote).await,
        None => Ok(TcpStream::connect(remote).await?.into()),
    }
}

/// Connects from this address; to those of the other's addresses only that are of its kind.
#[cfg(not(madsim))]
async fn dial_from(local: IpAddr, remote: (&str, u16)) -> io::Result<Stream> {
    let mut last = io::Error::other("no suitable address found");
    for remote in tokio::net::lookup_host(remote).await? {
        if remote.is_ipv4() != local.is_ipv4() {
            continue;
        }
        let socket = match local {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(local, 0))?;
        match socket.connect(remote).await {
            Ok(stream) => return Ok(stream.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(madsim)]
async fn dial_from(_: IpAddr, _: (&str, u16)) -> io::Result<Stream> {
    Err(io::ErrorKind::Unsupported.into())
}

fn host(authority: &Authority) -> &str {
    authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme()
        .is_some_and(|scheme| matches!(scheme.as_str(), "https" | "unixs"))
}

async fn secure(wire: &Wire, uri: &Uri, stream: Stream) -> io::Result<Secured> {
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(io::Error::other("an endpoint has a scheme and a place"));
    };
    let name = match socket_path(scheme, authority) {
        // The only name that a socket of this machine could have in a certificate.
        Some(_) => "localhost",
        None => host(authority),
    };
    stream.set_nodelay(true)?;
    match &wire.tls {
        Some(tls) => tls.connect(name, stream).await,
        None => Err(io::Error::other("there are no settings of TLS for peers")),
    }
}

#[cfg(not(madsim))]
async fn dial_unix(path: &Path) -> io::Result<Stream> {
    Ok(Stream::Unix(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(madsim)]
async fn dial_unix(_: &Path) -> io::Result<Stream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The path that the authority of a Unix socket's endpoint stands for.
fn socket_path(scheme: &Scheme, authority: &Authority) -> Option<PathBuf> {
    if !UNIX.contains(&scheme.as_str()) {
        return None;
    }
    let digits = authority.as_str();
    let bytes: Option<Vec<u8>> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok().map(PathBuf::from)
}

/// A connection between members, dialled or accepted. A write that makes no progress for the write timeout fails, so
/// that a peer which stopped reading holds nothing for long. Reads have no such limit: an idle connection is legal.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    write_timeout: Duration,
    /// Runs while a write is stuck.
    write_deadline: Option<Pin<Box<Sleep>>>,
}

/// What carries the bytes.
#[derive(Debug)]
enum Transport {
    Plain(Stream),
    Secured(Secured),
}

impl Connection {
    /// Takes over a connection.
    pub fn new(stream: Stream, write_timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            transport: Transport::Plain(stream),
            write_timeout,
            write_deadline: None,
        })
    }

    /// Takes over a connection after its handshake.
    pub(super) fn secured(secured: Secured, write_timeout: Duration) -> Self {
        Self {
            transport: Transport::Secured(secured),
            write_timeout,
            write_deadline: None,
        }
    }

    /// Turns a wait that has lasted too long into an error.
    fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.write_deadline = None;
            return progress;
        }
        let write_timeout = self.write_timeout;
        let deadline = self
            .write_deadline
            .get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        deadline.as_mut().poll(cx).map(|()| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer does not read",
            ))
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.limit(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.limit(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Secured(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Secured(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl ConnectionInfo for Connection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("connects");
        let (_silent, _) = listener.accept().await.expect("accepts");
        let mut connection = Connection::new(stream.into(), IO_TIMEOUT).expect("connected");
        let start = Instant::now();
        let chunk = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = connection.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= IO_TIMEOUT);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_comes_from_the_address_that_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        for (local, url) in [
            ("127.0.0.2", format!("http://127.0.0.1:{port}")),
            ("127.0.0.3", format!("http://localhost:{port}")),
        ] {
            let local: IpAddr = local.parse().expect("an address");
            let mut wire = Wire::new(IO_TIMEOUT);
            wire.local_address = Some(local);
            let endpoint = Endpoint::parse(&url).expect("valid");
            let dialled = tower::Service::call(&mut Connector { wire }, endpoint.uri("/")).await;
            let _stream = dialled.expect("it listens");
            let (_, from) = listener.accept().await.expect("accepts");
            assert_eq!(from.ip(), local, "{url}");
        }
        let mut wire = Wire::new(IO_TIMEOUT);
        wire.local_address = Some("::1".parse().expect("an address"));
        let endpoint = Endpoint::parse(&format!("http://127.0.0.1:{port}")).expect("valid");
        let dialled = tower::Service::call(&mut Connector { wire }, endpoint.uri("/")).await;
        let error = dialled.expect_err("addresses of two kinds").to_string();
        assert_eq!(error, "no suitable address found");
    }

    #[test]
    fn peer_urls_become_uris() {
        let endpoint = Endpoint::parse("http://10.0.0.9:2380").expect("valid");
        assert_eq!(
            endpoint.uri("/raft").to_string(),
            "http://10.0.0.9:2380/raft"
        );
        assert_eq!(endpoint.to_string(), "http://10.0.0.9:2380");
        assert!(Endpoint::parse("http://[::1]:2380").is_ok());
        let endpoint = Endpoint::parse("https://host:2380").expect("valid");
        assert_eq!(endpoint.uri("/raft").to_string(), "https://host:2380/raft");
    }

    #[tokio::test]
    async fn https_is_never_spoken_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let endpoint = Endpoint::parse(&format!("https://{address}")).expect("valid");
        let mut connector = Connector {
            wire: Wire::new(IO_TIMEOUT),
        };
        let dialled = tower::Service::call(&mut connector, endpoint.uri("/")).await;
        let error = dialled.expect_err("there is no TLS").to_string();
        assert_eq!(error, "there are no settings of TLS for peers");
    }

    #[test]
    fn unix_sockets_have_paths_or_names() {
        for text in ["unix:///run/a b/q.sock", "unix://localhost:m10"] {
            let endpoint = Endpoint::parse(text).expect("valid");
            assert_eq!(endpoint.to_string(), text);
            let uri = endpoint.uri("/raft");
            let path = socket_path(uri.scheme().unwrap(), uri.authority().unwrap());
            assert_eq!(path, Some(text["unix://".len()..].into()));
        }
        assert!(Endpoint::parse("unix://").is_err());
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_when_parsed() {
        for bad in [
            "",
            "10.0.0.9:2380",
            "http://",
            "http://host",
            "http://host:1/path",
            "not a url",
        ] {
            assert!(
                matches!(Endpoint::parse(bad), Err(EndpointError::Malformed { .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            Endpoint::parse("ftp://host:2380"),
            Err(EndpointError::Scheme { .. })
        ));
    }
}
