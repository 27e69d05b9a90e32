//! Whether a server is spoken to by TLS, and with which settings: etcd's rules.
//!
//! ```text
//!   https://, unixs://    TLS, with the system's authorities unless settings are given
//!   http://, unix://      plain text, whatever is given
//!   host:port             TLS if settings are given
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::rt::Stream;

#[cfg(not(madsim))]
pub use self::real::Security;
#[cfg(madsim)]
pub use self::simulated::Security;

/// What an endpoint's scheme says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It must be TLS.
    Secure,
    /// It must not.
    Plain,
    /// As settings say.
    Any,
}

/// What carries the bytes of a connection.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Bytes for T {}

/// A connection that is ready for HTTP/2.
pub(super) type Carrier = Pin<Box<dyn Bytes>>;

#[cfg(not(madsim))]
mod real {
    use std::sync::{Arc, OnceLock};

    use super::*;
    use crate::tls::{self, ClientTls, TlsError, TlsInfo};

    /// What gRPC is called in a handshake.
    const HTTP2: &str = "h2";

    /// The settings of TLS, or none.
    #[derive(Clone, Default)]
    pub struct Security {
        given: Option<ClientTls>,
        /// For endpoints that demand TLS while nothing is given; the system's authorities are many.
        without: Arc<OnceLock<ClientTls>>,
    }

    impl Security {
        /// TLS with these settings.
        ///
        /// # Errors
        /// With Go's words when a file is of no use.
        pub fn tls(info: &TlsInfo) -> Result<Self, TlsError> {
            Ok(Self {
                given: Some(ClientTls::new(info)?.offering(&[HTTP2])),
                without: Arc::default(),
            })
        }

        pub(in super::super) fn is_tls(&self, wish: Wish) -> bool {
            match wish {
                Wish::Secure => true,
                Wish::Plain => false,
                Wish::Any => self.given.is_some(),
            }
        }

        /// Shakes hands if this endpoint is spoken to by TLS.
        pub(in super::super) async fn secure(
            &self,
            wish: Wish,
            host: &str,
            stream: Stream,
        ) -> io::Result<Carrier> {
            if !self.is_tls(wish) {
                return Ok(Box::pin(stream));
            }
            let client = match &self.given {
                Some(given) => given.clone(),
                None => self.without()?,
            };
            match client.connect(host, stream).await {
                Ok(stream) => Ok(Box::pin(stream)),
                Err(error) => Err(io::Error::new(error.kind(), tls::reason(&error))),
            }
        }

        fn without(&self) -> io::Result<ClientTls> {
            if let Some(tls) = self.without.get() {
                return Ok(tls.clone());
            }
            let tls = ClientTls::new(&TlsInfo::default()).map_err(io::Error::other)?;
            Ok(self.without.get_or_init(|| tls.offering(&[HTTP2])).clone())
        }
    }

    impl fmt::Debug for Security {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let is_given = self.given.is_some();
            f.debug_struct("Security")
                .field("given", &is_given)
                .finish()
        }
    }
}

#[cfg(madsim)]
mod simulated {
    use super::*;

    /// There is no TLS in the simulation.
    #[derive(Clone, Default)]
    pub struct Security;

    impl Security {
        pub(in super::super) fn is_tls(&self, _: Wish) -> bool {
            false
        }

        pub(in super::super) async fn secure(
            &self,
            wish: Wish,
            _: &str,
            stream: Stream,
        ) -> io::Result<Carrier> {
            if wish == Wish::Secure {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok(Box::pin(stream))
        }
    }

    impl fmt::Debug for Security {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Security")
        }
    }
}
