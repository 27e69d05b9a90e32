//! TLS as etcd has it: its settings, its rules about certificates, its messages; rustls underneath.
//!
//! ```text
//!   TlsInfo (plain data, etcd's flags) ──► ServerTls::new ──► accept(io, address)  ──► Accepted { stream, certificate }
//!                                      └─► ClientTls::new ──► connect(host, io)    ──► stream
//!   self_signed::certificate(directory) ──► TlsInfo                   (--auto-tls)
//! ```
//!
//! Certificates and keys are read again when their files change: the next handshake shows the new ones. Should they be
//! unusable, the last good ones stay, with a warning. The authorities are read once. A revocation list is read again,
//! too, and one that cannot be read lets no certificate pass.
//!
//! Whoever trusts an authority (`trusted_ca_file`) demands a certificate of every client, as etcd does, with or
//! without `client_cert_auth`. This module never says what a certificate's name may do, and never logs a key.

mod certificate;
mod client;
mod files;
mod info;
mod names;
pub mod self_signed;
mod server;
mod suites;
#[cfg(test)]
mod tests;
mod verify;
mod words;

pub use tokio_rustls::client::TlsStream as ClientStream;
pub use tokio_rustls::rustls::ServerConnection;
pub use tokio_rustls::server::TlsStream as ServerStream;

pub use self::certificate::PeerCertificate;
pub use self::client::ClientTls;
pub use self::info::{TlsError, TlsInfo, TlsVersion};
pub use self::server::{Accepted, HANDSHAKE_TIMEOUT, ServerTls};
pub use self::words::reason;
