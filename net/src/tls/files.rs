//! Certificates, keys, authorities and revocation lists in files, read again when the files change.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as RustlsError, InconsistentKeys, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::info::TlsError;

/// What one looks at to see that a file has changed. A file that is put in the place of another has another number.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Something made of files, which is made again when they change.
#[derive(Debug)]
pub(super) struct Reloaded<T> {
    files: Vec<PathBuf>,
    read: fn(&[PathBuf], &CryptoProvider) -> Result<T, TlsError>,
    provider: Arc<CryptoProvider>,
    now: Mutex<Read<T>>,
}

#[derive(Debug)]
struct Read<T> {
    /// As the files were before they were read.
    stamps: Vec<Stamp>,
    good: Arc<T>,
    /// Why the files, as they are now, are of no use.
    error: Option<Arc<TlsError>>,
}

impl<T> Reloaded<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        provider: Arc<CryptoProvider>,
        read: fn(&[PathBuf], &CryptoProvider) -> Result<T, TlsError>,
    ) -> Result<Self, TlsError> {
        let stamps = stamps(&files);
        let good = Arc::new(read(&files, &provider)?);
        Ok(Self {
            files,
            read,
            provider,
            now: Mutex::new(Read {
                stamps,
                good,
                error: None,
            }),
        })
    }

    /// What the files hold; and, should they hold nothing good now, what they held before, with the reason.
    pub(super) fn current(&self) -> (Arc<T>, Option<Arc<TlsError>>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if stamps != now.stamps {
            now.stamps = stamps;
            match (self.read)(&self.files, &self.provider) {
                Ok(good) => {
                    now.good = Arc::new(good);
                    now.error = None;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "cannot use a changed file of TLS");
                    now.error = Some(Arc::new(error));
                }
            }
        }
        (Arc::clone(&now.good), now.error.clone())
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    files.iter().map(stamp).collect()
}

/// A certificate with its chain, and its key, from two files.
pub(super) fn read_pair(
    files: &[PathBuf],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let [cert_file, key_file] = files else {
        panic!("a pair has a certificate and a key");
    };
    let chain = certificates(cert_file)?;
    if chain.is_empty() {
        return Err(wrong(
            cert_file,
            "tls: failed to find any PEM data in certificate input",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
        .map_err(|_| wrong(key_file, "tls: failed to find any PEM data in key input"))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            wrong(key_file, "tls: private key does not match public key")
        }
        error => wrong(key_file, &error.to_string()),
    })
}

/// All certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(path, &error.to_string()))
}

/// The authorities of a PEM file.
pub(super) fn read_authorities(path: &Path) -> Result<Authorities, TlsError> {
    let certificates = certificates(path)?;
    if certificates.is_empty() {
        return Err(wrong(path, "there is no certificate in it"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| wrong(path, &error.to_string()))?;
    }
    Ok(Authorities {
        roots: Arc::new(roots),
        certificates,
    })
}

/// The authorities that the system trusts.
pub(super) fn system_authorities() -> Authorities {
    let mut roots = RootCertStore::empty();
    // What cannot be read is trusted by nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Authorities {
        roots: Arc::new(roots),
        certificates: Vec::new(),
    }
}

/// Whose certificates are believed.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: Arc<RootCertStore>,
    /// The same, whole. A server whose own certificate is in the list needs no issuer.
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Serial numbers that are revoked, most significant byte first and without leading zeros.
#[derive(Debug)]
pub(super) struct Revoked {
    /// Sorted.
    serials: Vec<Vec<u8>>,
}

impl Revoked {
    /// Reads a list in DER, as etcd does, or in PEM. Like etcd it looks at the numbers only, not at who signed them.
    pub(super) fn read(files: &[PathBuf], _: &CryptoProvider) -> Result<Self, TlsError> {
        let [path] = files else {
            panic!("there is one list");
        };
        let bytes = read(path)?;
        let from_pem = CertificateRevocationListDer::from_pem_slice(&bytes).ok();
        let der = from_pem.as_deref().unwrap_or(&bytes);
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|_| wrong(path, "x509: malformed crl"))?;
        let mut serials: Vec<_> = list
            .iter_revoked_certificates()
            .map(|revoked| significant(revoked.raw_serial()).to_vec())
            .collect();
        serials.sort();
        Ok(Self { serials })
    }

    pub(super) fn contains(&self, serial: &[u8]) -> bool {
        self.serials
            .binary_search_by(|known| known.as_slice().cmp(significant(serial)))
            .is_ok()
    }
}

fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File {
        path: path.to_owned(),
        words: match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        },
    })
}

fn wrong(path: &Path, words: &str) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        words: words.to_owned(),
    }
}
