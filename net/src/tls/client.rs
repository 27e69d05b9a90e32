//! The client's side of TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{ResolvesClientCert, Resumption};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, SignatureScheme};

use super::files::{self, Reloaded};
use super::info::{TlsError, TlsInfo};
use super::suites;
use super::verify::{AnyServer, Rules, ServerVerifier};

/// Opens TLS connections.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// In place of the host that is dialled; empty for that host.
    server_name: String,
}

impl ClientTls {
    /// Reads all files. A certificate of its own is shown only if `info` has one. No protocol is negotiated unless
    /// [`Self::offering`] names some.
    ///
    /// # Errors
    /// When the settings contradict each other or a file is of no use, with etcd's message where etcd has one.
    pub fn new(info: &TlsInfo) -> Result<Self, TlsError> {
        let provider = suites::provider(info)?;
        let own = if info.is_empty() {
            None
        } else {
            info.check()?;
            let mut pair = [&info.cert_file, &info.key_file].map(PathBuf::from);
            if !info.client_cert_file.is_empty() {
                files::read_pair(&pair, &provider)?;
                pair = [&info.client_cert_file, &info.client_key_file].map(PathBuf::from);
            }
            let provider = Arc::clone(&provider);
            Some(Reloaded::new(pair.to_vec(), provider, files::read_pair)?)
        };
        let verifier: Arc<dyn ServerCertVerifier> = if info.insecure_skip_verify || info.self_signed
        {
            Arc::new(AnyServer::new(Arc::clone(&provider)))
        } else {
            let authorities = if info.trusted_ca_file.is_empty() {
                files::system_authorities()
            } else {
                files::read_authorities(info.trusted_ca_file.as_ref())?
            };
            let rules = Rules::new(info, authorities.certificates.clone(), None);
            let provider = Arc::clone(&provider);
            Arc::new(ServerVerifier::new(&authorities, rules, provider)?)
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&suites::versions(info)?)
            .map_err(|error| TlsError::Settings(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(Shown(own))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            server_name: info.server_name.clone(),
        })
    }

    /// Negotiates one of these protocols (`h2`, `http/1.1`), the first being the dearest.
    #[must_use]
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        self
    }

    /// Shakes hands with the server at `host`: a name or an address, without port; an IPv6 address may have its
    /// brackets.
    ///
    /// # Errors
    /// When the host is no name that a certificate could have, or the server's certificate is not good enough.
    pub async fn connect<IO>(&self, host: &str, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let host = match self.server_name.as_str() {
            "" => host,
            name => name,
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let name = ServerName::try_from(bare.unwrap_or(host).to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(name, io).await
    }
}

/// The certificate that the files hold now.
#[derive(Debug)]
struct Shown(Reloaded<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().0)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
