//! How the other members are recognised: `--peer-…` and the flags that hold for clients and peers alike.

use quorate_net::tls::{TlsInfo, TlsVersion};

use super::ConfigError;
use super::settings::Settings;

/// TLS between members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSecurity {
    /// Files and rules.
    pub info: TlsInfo,
    /// `--peer-auto-tls`: makes a certificate when none is named.
    pub auto_tls: bool,
    /// `--self-signed-cert-validity`.
    pub certificate_years: u64,
}

impl PeerSecurity {
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let version = |flag: &str| {
            TlsVersion::parse(&settings.text(flag)).map_err(|error| ConfigError(error.to_string()))
        };
        let info = TlsInfo {
            cert_file: settings.text("peer-cert-file"),
            key_file: settings.text("peer-key-file"),
            client_cert_file: settings.text("peer-client-cert-file"),
            client_key_file: settings.text("peer-client-key-file"),
            trusted_ca_file: settings.text("peer-trusted-ca-file"),
            client_cert_auth: settings.bool("peer-client-cert-auth"),
            crl_file: settings.text("peer-crl-file"),
            allowed_cns: settings.list("peer-cert-allowed-cn"),
            allowed_hostnames: settings.list("peer-cert-allowed-hostname"),
            skip_client_san_verify: settings.bool("peer-skip-client-san-verification"),
            cipher_suites: settings.list("cipher-suites"),
            min_version: version("tls-min-version")?,
            max_version: version("tls-max-version")?,
            ..TlsInfo::default()
        };
        Ok(Self {
            info,
            auto_tls: settings.bool("peer-auto-tls"),
            certificate_years: settings.unsigned("self-signed-cert-validity"),
        })
    }
}
