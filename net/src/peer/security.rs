//! TLS between members: who may connect, and how this one connects to others.
//!
//! Members are servers and clients of each other with the same settings, as in etcd: the authorities and the allowed
//! names that hold for those who connect also hold for those who are dialled.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::rt::{Remote, Stream};

#[cfg(not(madsim))]
pub use self::real::PeerTls;
#[cfg(madsim)]
pub use self::simulated::PeerTls;

/// What carries the bytes once both sides have shaken hands.
pub(super) trait Duplex: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Duplex for T {}

/// A connection after its handshake.
pub(super) type Secured = Box<dyn Duplex>;

#[cfg(not(madsim))]
mod real {
    use std::sync::{Arc, OnceLock};

    use tracing::{debug, warn};

    use super::*;
    use crate::tls::{self, ClientTls, ServerTls, TlsError, TlsInfo};

    /// The peers' part of HTTP: streams are answers without end, one a connection.
    const HTTP1: &str = "http/1.1";

    /// How members recognise each other.
    #[derive(Clone, Debug)]
    pub struct PeerTls {
        info: TlsInfo,
        /// None without a certificate: such a member cannot be listened to by TLS, but can dial.
        server: Option<ServerTls>,
        /// Made when it is needed: the system's authorities are many.
        client: Arc<OnceLock<ClientTls>>,
    }

    impl PeerTls {
        /// Reads all files that are named.
        ///
        /// # Errors
        /// With etcd's message when they are of no use.
        pub fn new(info: TlsInfo) -> Result<Self, TlsError> {
            let server = if info.is_empty() {
                None
            } else {
                let server = ServerTls::new(&info)?.offering(&[HTTP1]);
                Some(server.comparing_addresses(&info))
            };
            let made = Self {
                info,
                server,
                client: Arc::default(),
            };
            if made.server.is_some() || !made.info.trusted_ca_file.is_empty() {
                made.client()?;
            }
            Ok(made)
        }

        /// Whether peers may connect by TLS.
        pub fn can_listen(&self) -> bool {
            self.server.is_some()
        }

        fn client(&self) -> Result<ClientTls, TlsError> {
            if let Some(client) = self.client.get() {
                return Ok(client.clone());
            }
            let client = ClientTls::new(&self.info)?;
            Ok(self.client.get_or_init(|| client).clone())
        }

        /// Shakes hands with a member that has connected; logs who was rejected, in etcd's words.
        pub(in super::super) async fn accept(
            &self,
            stream: Stream,
            remote: Remote,
        ) -> io::Result<Secured> {
            let Some(server) = &self.server else {
                return Err(io::Error::other("KeyFile and CertFile are not presented"));
            };
            let address = remote.address().map(|address| address.ip());
            match server.accept(stream, address).await {
                Ok(accepted) => Ok(Box::new(accepted.stream)),
                Err(error) => {
                    log_rejected(remote, &error);
                    Err(error)
                }
            }
        }

        /// Shakes hands with the member at `host`.
        pub(in super::super) async fn connect(
            &self,
            host: &str,
            stream: Stream,
        ) -> io::Result<Secured> {
            let client = self.client().map_err(io::Error::other)?;
            match client.connect(host, stream).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(io::Error::new(error.kind(), tls::reason(&error))),
            }
        }
    }

    fn log_rejected(remote: Remote, error: &io::Error) {
        let words = tls::reason(error);
        const REJECTED: &str = "rejected connection on peer endpoint";
        // Whoever only looks whether the port is open.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            debug!("remote-addr" = %remote, error = words, "{REJECTED}");
        } else {
            warn!("remote-addr" = %remote, error = words, "{REJECTED}");
        }
    }
}

#[cfg(madsim)]
mod simulated {
    use super::*;

    /// There is no TLS in the simulation.
    #[derive(Clone, Debug)]
    pub enum PeerTls {}

    impl PeerTls {
        pub(in super::super) async fn accept(&self, _: Stream, _: Remote) -> io::Result<Secured> {
            match *self {}
        }

        pub(in super::super) async fn connect(&self, _: &str, _: Stream) -> io::Result<Secured> {
            match *self {}
        }
    }
}
