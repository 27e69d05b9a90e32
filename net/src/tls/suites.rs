//! Cipher suites and versions: Go's names on one side, rustls on the other.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::{CipherSuite, SupportedProtocolVersion, version};
use tracing::warn;

use super::info::{TlsError, TlsInfo, TlsVersion};

/// What is offered here, by Go's names; the last two are what Go called two of them before.
const OFFERED: [(&str, CipherSuite); 11] = [
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites that Go knows and rustls leaves out on purpose: no forward secrecy, or no authenticated encryption.
const LEFT_OUT: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// The cryptography, with the suites of TLS 1.2 that `info` names; all if it names none.
pub(super) fn provider(info: &TlsInfo) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = ring::default_provider();
    if info.cipher_suites.is_empty() {
        return Ok(Arc::new(provider));
    }
    let mut named = Vec::new();
    for name in &info.cipher_suites {
        match OFFERED.iter().find(|(offered, _)| offered == name) {
            Some((_, suite)) => named.push(*suite),
            None if LEFT_OUT.contains(&name.as_str()) => {
                warn!(cipher_suite = %name, "this TLS cipher suite is not offered here; ignoring it");
            }
            None => {
                return Err(TlsError::Settings(format!(
                    "unexpected TLS cipher suite {name:?}"
                )));
            }
        }
    }
    if named.is_empty() {
        return Err(TlsError::Settings(format!(
            "none of the TLS cipher suites {} is offered here",
            super::info::quoted(&info.cipher_suites)
        )));
    }
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some() || named.contains(&suite.suite()));
    Ok(Arc::new(provider))
}

/// The versions between the oldest and the newest.
pub(super) fn versions(info: &TlsInfo) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let oldest = info.min_version.unwrap_or(TlsVersion::Tls12);
    let newest = info.max_version.unwrap_or(TlsVersion::Tls13);
    let versions: Vec<_> = [
        (TlsVersion::Tls13, &version::TLS13),
        (TlsVersion::Tls12, &version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| (oldest..=newest).contains(version))
    .map(|(_, version)| version)
    .collect();
    if versions.is_empty() {
        return Err(TlsError::Settings(
            "the minimum TLS version is greater than the maximum".to_owned(),
        ));
    }
    Ok(versions)
}
