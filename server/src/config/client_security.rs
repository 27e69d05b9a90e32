//! How clients and this member recognise each other: the flags of TLS without `--peer-`.

use quorate_net::tls::{TlsInfo, TlsVersion};

use super::ConfigError;
use super::settings::Settings;

/// TLS with clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSecurity {
    /// Files and rules.
    pub info: TlsInfo,
    /// `--auto-tls`: makes a certificate when none is named.
    pub auto_tls: bool,
    /// `--self-signed-cert-validity`.
    pub certificate_years: u64,
}

impl ClientSecurity {
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let version = |flag: &str| {
            TlsVersion::parse(&settings.text(flag)).map_err(|error| ConfigError(error.to_string()))
        };
        let info = TlsInfo {
            cert_file: settings.text("cert-file"),
            key_file: settings.text("key-file"),
            client_cert_file: settings.text("client-cert-file"),
            client_key_file: settings.text("client-key-file"),
            trusted_ca_file: settings.text("trusted-ca-file"),
            client_cert_auth: settings.bool("client-cert-auth"),
            crl_file: settings.text("client-crl-file"),
            allowed_hostnames: settings.list("client-cert-allowed-hostname"),
            cipher_suites: settings.list("cipher-suites"),
            min_version: version("tls-min-version")?,
            max_version: version("tls-max-version")?,
            ..TlsInfo::default()
        };
        Ok(Self {
            info,
            auto_tls: settings.bool("auto-tls"),
            certificate_years: settings.unsigned("self-signed-cert-validity"),
        })
    }
}
