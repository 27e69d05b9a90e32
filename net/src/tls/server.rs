//! The server's side of TLS.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;

use super::certificate::PeerCertificate;
use super::files::{self, Reloaded, Revoked};
use super::info::{TlsError, TlsInfo};
use super::verify::{ClientVerifier, Rules};
use super::{names, suites};

/// A client must have finished its handshake within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client that is refused may take to read why.
const PARTING_TIMEOUT: Duration = Duration::from_secs(1);

/// How much it may still send meanwhile.
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// Accepts TLS connections.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// Whether a client's certificate must be for the address that the client has.
    compares_addresses: bool,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// What the two sides say now.
    pub stream: TlsStream<IO>,
    /// The client's certificate, verified; none if none is demanded.
    pub certificate: Option<PeerCertificate>,
}

impl ServerTls {
    /// Reads all files.
    ///
    /// # Errors
    /// When the settings contradict each other or a file is of no use, with etcd's message where etcd has one.
    pub fn new(info: &TlsInfo) -> Result<Self, TlsError> {
        info.check()?;
        let provider = suites::provider(info)?;
        let pair = Reloaded::new(
            vec![
                PathBuf::from(&info.cert_file),
                PathBuf::from(&info.key_file),
            ],
            Arc::clone(&provider),
            files::read_pair,
        )?;
        if !info.client_cert_file.is_empty() {
            let client = [&info.client_cert_file, &info.client_key_file].map(PathBuf::from);
            files::read_pair(&client, &provider)?;
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&suites::versions(info)?)
            .map_err(|error| TlsError::Settings(error.to_string()))?;
        let demands_certificate = info.client_cert_auth || !info.trusted_ca_file.is_empty();
        let builder = if demands_certificate {
            let authorities = if info.trusted_ca_file.is_empty() {
                files::system_authorities()
            } else {
                files::read_authorities(info.trusted_ca_file.as_ref())?
            };
            let revoked = (!info.crl_file.is_empty()).then(|| {
                let file = vec![PathBuf::from(&info.crl_file)];
                Reloaded::new(file, Arc::clone(&provider), Revoked::read)
            });
            let rules = Rules::new(info, authorities.certificates.clone(), revoked.transpose()?);
            let verifier = ClientVerifier::new(&authorities, rules, provider)?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(pair)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would pass by the lists that are read again, and connections live long here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            compares_addresses: false,
        })
    }

    /// Negotiates one of these protocols in place of both of HTTP's, the first being the dearest.
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        self
    }

    /// Demands that a client's certificate, if it has names, is for the address that the client has; `info` may
    /// say that this is not to be done. etcd does so where peers connect and where metrics are read.
    #[must_use]
    pub fn comparing_addresses(mut self, info: &TlsInfo) -> Self {
        self.compares_addresses = !info.skip_client_san_verify;
        self
    }

    /// For whoever drives rustls without a stream.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Shakes hands with a client. `remote` is its address; none on a Unix socket.
    ///
    /// # Errors
    /// When the client speaks no TLS, has no certificate that is good enough, or takes longer than
    /// [`HANDSHAKE_TIMEOUT`].
    pub async fn accept<IO>(&self, io: IO, remote: Option<IpAddr>) -> io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::time::timeout(HANDSHAKE_TIMEOUT, self.shake_hands(io, remote))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn shake_hands<IO>(&self, io: IO, remote: Option<IpAddr>) -> io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let stream = match acceptor.accept(io).into_fallible().await {
            Ok(stream) => stream,
            Err((error, io)) => {
                part(io).await;
                return Err(error);
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = match shown.and_then(<[_]>::first) {
            Some(der) => Some(
                PeerCertificate::parse(der)
                    .ok_or_else(|| io::Error::other("x509: malformed certificate"))?,
            ),
            None => None,
        };
        if let Some(certificate) = &certificate
            && self.compares_addresses
            && let Some(remote) = remote
        {
            let checked = names::check_address(certificate, remote).await;
            checked.map_err(io::Error::other)?;
        }
        Ok(Accepted {
            stream,
            certificate,
        })
    }
}

/// Lets a client that is refused read why: a socket that is closed with bytes unread takes back what it has sent.
async fn part<IO>(mut io: IO)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let parting = async {
        io.shutdown().await?;
        let mut unread = [0; 1024];
        let mut left = UNREAD_BYTES_MAX;
        while left > 0 {
            match io.read(&mut unread).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        Ok::<_, io::Error>(())
    };
    // A client that is gone, or does not go, has had its chance.
    let _ = tokio::time::timeout(PARTING_TIMEOUT, parting).await;
}

/// The certificate that the files hold now.
#[derive(Debug)]
struct Shown(Reloaded<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().0)
    }
}
