//! The verifiers that rustls asks about the other side's certificate.
//!
//! webpki builds the chains. Added to it are etcd's lists (common names, hosts, revoked numbers), Go's rule that a
//! certificate which is itself among the trusted ones needs no issuer, and a client that trusts anybody.

use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::PeerCertificate;
use super::files::{Authorities, Reloaded, Revoked};
use super::info::{TlsError, TlsInfo};

/// What a certificate must be besides valid.
#[derive(Debug)]
pub(super) struct Rules {
    allowed_cns: Vec<String>,
    allowed_hostnames: Vec<String>,
    revoked: Option<Reloaded<Revoked>>,
    /// Certificates that are believed as they are.
    trusted: Vec<CertificateDer<'static>>,
}

impl Rules {
    pub(super) fn new(
        info: &TlsInfo,
        trusted: Vec<CertificateDer<'static>>,
        revoked: Option<Reloaded<Revoked>>,
    ) -> Self {
        Self {
            allowed_cns: info.allowed_cns.clone(),
            allowed_hostnames: info.allowed_hostnames.clone(),
            revoked,
            trusted,
        }
    }

    /// Looks at the lists.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let read = |der: &CertificateDer<'_>| {
            PeerCertificate::parse(der).ok_or(Error::from(CertificateError::BadEncoding))
        };
        let peer = read(certificate)?;
        let is_allowed = if self.allowed_hostnames.is_empty() {
            self.allowed_cns.is_empty() || self.allowed_cns.contains(&peer.common_name)
        } else {
            let mut hosts = self.allowed_hostnames.iter();
            hosts.any(|host| peer.is_for_host(host))
        };
        if !is_allowed {
            // The error whose alert is Go's, a bad certificate; where it is for a host, its words name that.
            return Err(CertificateError::NotValidForName.into());
        }
        let Some(revoked) = &self.revoked else {
            return Ok(());
        };
        let (revoked, unreadable) = revoked.current();
        if let Some(error) = unreadable {
            return Err(Error::General(error.to_string()));
        }
        let mut serials = vec![peer.serial];
        for intermediate in intermediates {
            serials.push(read(intermediate)?.serial);
        }
        if serials.iter().any(|serial| revoked.contains(serial)) {
            return Err(CertificateError::Revoked.into());
        }
        Ok(())
    }

    fn trusts(&self, certificate: &CertificateDer<'_>) -> bool {
        self.trusted.iter().any(|trusted| trusted == certificate)
    }
}

/// What a certificate is used for.
#[derive(Clone, Copy)]
enum Usage {
    Client,
    Server,
}

/// A certificate that is believed as it is must still be of its time and for this use.
fn check_trusted(
    certificate: &CertificateDer<'_>,
    usage: Usage,
    now: UnixTime,
) -> Result<(), Error> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let usages = parsed
        .extended_key_usage()
        .map_err(|_| CertificateError::BadEncoding)?;
    let is_for_this = usages.is_none_or(|usages| {
        let usages = usages.value;
        usages.any
            || match usage {
                Usage::Client => usages.client_auth,
                Usage::Server => usages.server_auth,
            }
    });
    if is_for_this {
        Ok(())
    } else {
        Err(CertificateError::InvalidPurpose.into())
    }
}

/// Demands a certificate of every client.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    rules: Rules,
}

impl ClientVerifier {
    pub(super) fn new(
        authorities: &Authorities,
        rules: Rules,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let roots = Arc::clone(&authorities.roots);
        let chains = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        Ok(Self {
            chains: chains.map_err(|error| TlsError::Settings(error.to_string()))?,
            rules,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.rules.trusts(end_entity) {
            check_trusted(end_entity, Usage::Client, now)?;
        } else {
            self.chains
                .verify_client_cert(end_entity, intermediates, now)?;
        }
        self.rules.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Demands that the server's certificate is valid for the name that was asked for.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// None when there is no authority at all: then only trusted certificates pass.
    chains: Option<Arc<WebPkiServerVerifier>>,
    rules: Rules,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(super) fn new(
        authorities: &Authorities,
        rules: Rules,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let roots = Arc::clone(&authorities.roots);
        let chains = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
            let built = builder.build();
            Some(built.map_err(|error| TlsError::Settings(error.to_string()))?)
        };
        Ok(Self {
            chains,
            rules,
            provider,
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.rules.trusts(end_entity) {
            check_trusted(end_entity, Usage::Server, now)?;
            let certificate =
                PeerCertificate::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !certificate.is_for_host(&server_name.to_str()) {
                let wrong = CertificateError::NotValidForNameContext {
                    expected: server_name.to_owned(),
                    presented: certificate.dns_names,
                };
                return Err(wrong.into());
            }
        } else {
            let chains = self
                .chains
                .as_ref()
                .ok_or(CertificateError::UnknownIssuer)?;
            chains.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )?;
        }
        self.rules.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Takes any certificate: whoever is in the middle can show one of his own. So signatures are not looked at either,
/// which lets in what the cryptography here cannot verify: the certificates that etcd makes for itself use P-521.
#[derive(Debug)]
pub(super) struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl AnyServer {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let mut schemes = algorithms.supported_schemes();
        schemes.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        schemes
    }
}
