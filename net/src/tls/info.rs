//! What TLS is told by flags: etcd's `TLSInfo`.

use std::fmt;
use std::path::PathBuf;

/// Why TLS cannot be had as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Settings that contradict each other, or that nothing here fulfils.
    #[error("{0}")]
    Settings(String),
    /// A file that cannot be read.
    #[error("open {}: {words}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words, as Go prints them.
        words: String,
    },
    /// A file that holds something else than it should.
    #[error("{}: {words}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        words: String,
    },
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2, the oldest that is spoken.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// Reads the value of `--tls-min-version` or `--tls-max-version`; none is "not said".
    ///
    /// # Errors
    /// With etcd's message when there is no such version.
    pub fn parse(text: &str) -> Result<Option<Self>, TlsError> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Self::Tls12)),
            "TLS1.3" => Ok(Some(Self::Tls13)),
            _ => Err(TlsError::Settings(format!(
                "unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)"
            ))),
        }
    }
}

/// The settings of one side of TLS. Empty texts and lists are "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// The certificate of a server, with its chain; a client shows it too unless it has another one.
    pub cert_file: String,
    /// The key of [`Self::cert_file`].
    pub key_file: String,
    /// The certificate that a client shows in place of [`Self::cert_file`].
    pub client_cert_file: String,
    /// The key of [`Self::client_cert_file`].
    pub client_key_file: String,
    /// The authorities that the other side's certificate must come from; without it those of the system.
    pub trusted_ca_file: String,
    /// Demands a certificate of every client.
    pub client_cert_auth: bool,
    /// Serial numbers that no certificate of a client may have.
    pub crl_file: String,
    /// The other side's certificate must have one of these common names.
    pub allowed_cns: Vec<String>,
    /// The other side's certificate must be valid for one of these hosts.
    pub allowed_hostnames: Vec<String>,
    /// As a client: takes any certificate.
    pub insecure_skip_verify: bool,
    /// As a server that compares clients' certificates with their addresses: does not.
    pub skip_client_san_verify: bool,
    /// As a client: the name that the server's certificate must have, in place of the host that was dialled.
    pub server_name: String,
    /// Cipher suites of TLS 1.2 by their names in Go. Those of TLS 1.3 are all on, as in Go.
    pub cipher_suites: Vec<String>,
    /// The oldest version to speak; TLS 1.2 if not said.
    pub min_version: Option<TlsVersion>,
    /// The newest version to speak.
    pub max_version: Option<TlsVersion>,
    /// The certificate was made by [`super::self_signed`]: as a client, any certificate is taken.
    pub self_signed: bool,
}

impl TlsInfo {
    /// Whether there is no certificate at all.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_empty() && self.key_file.is_empty()
    }

    /// Whether files and lists go together; reads nothing.
    ///
    /// # Errors
    /// With etcd's message.
    pub fn check(&self) -> Result<(), TlsError> {
        if self.cert_file.is_empty() || self.key_file.is_empty() {
            return Err(TlsError::Settings(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                self.key_file, self.cert_file
            )));
        }
        if self.client_cert_file.is_empty() != self.client_key_file.is_empty() {
            return Err(TlsError::Settings(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {}, cert: {}]",
                self.client_key_file, self.client_cert_file
            )));
        }
        if !self.allowed_cns.is_empty() && !self.allowed_hostnames.is_empty() {
            return Err(TlsError::Settings(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                quoted(&self.allowed_cns),
                quoted(&self.allowed_hostnames)
            )));
        }
        Ok(())
    }
}

/// As etcd logs it: names of files, nothing of what is in them.
impl fmt::Display for TlsInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
            self.cert_file,
            self.key_file,
            self.client_cert_file,
            self.client_key_file,
            self.trusted_ca_file,
            self.client_cert_auth,
            self.crl_file
        )
    }
}

/// Go's `%q` of a list.
pub(super) fn quoted(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
