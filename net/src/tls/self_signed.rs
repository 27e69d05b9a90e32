//! Certificates that a member makes for itself: `--auto-tls`, `--peer-auto-tls`.

use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tracing::{info, warn};

use super::files;
use super::info::{TlsError, TlsInfo};
use super::suites;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The settings of a certificate for `hosts` (names or addresses, without ports) that lies in `directory`, made unless
/// it is there already.
///
/// One that is there and cannot be used here is replaced: etcd's own have keys on P-521, which are not supported.
///
/// # Errors
/// When the certificate would never be valid, or when the directory cannot be written.
pub fn certificate(directory: &Path, hosts: &[String], years: u64) -> Result<TlsInfo, TlsError> {
    if years == 0 {
        return Err(TlsError::Settings(
            "selfSignedCertValidity is invalid,it should be greater than 0".to_owned(),
        ));
    }
    let directory = std::path::absolute(directory).map_err(|error| cannot(directory, &error))?;
    let files = [directory.join("cert.pem"), directory.join("key.pem")];
    let provider = suites::provider(&TlsInfo::default())?;
    if files.iter().all(|file| file.exists()) {
        match files::read_pair(&files, &provider) {
            Ok(_) => return Ok(settings(&files)),
            Err(error) => {
                warn!(error = %error, "the generated certificate cannot be used; making another one");
            }
        }
    }
    make_directory(&directory)?;
    write_pair(&files, hosts, years)?;
    Ok(settings(&files))
}

fn settings([cert_file, key_file]: &[PathBuf; 2]) -> TlsInfo {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    TlsInfo {
        cert_file: text(cert_file),
        key_file: text(key_file),
        client_cert_file: text(cert_file),
        client_key_file: text(key_file),
        self_signed: true,
        ..TlsInfo::default()
    }
}

fn write_pair(
    [cert_file, key_file]: &[PathBuf; 2],
    hosts: &[String],
    years: u64,
) -> Result<(), TlsError> {
    let refused = |error: rcgen::Error| TlsError::Settings(error.to_string());
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "etcd");
    let validity = u32::try_from(years)
        .ok()
        .and_then(|years| YEAR.checked_mul(years));
    let begin = SystemTime::now();
    let end = validity.and_then(|validity| begin.checked_add(validity));
    let end = end.ok_or_else(|| {
        TlsError::Settings(format!("a certificate cannot be valid for {years} years"))
    })?;
    parameters.not_before = begin.into();
    parameters.not_after = end.into();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts {
        parameters
            .subject_alt_names
            .push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into().map_err(refused)?),
            });
    }
    warn!(years, "automatically generate certificates");
    let key = KeyPair::generate().map_err(refused)?;
    let certificate = parameters.self_signed(&key).map_err(refused)?;
    write(cert_file, &certificate.pem(), 0o644)?;
    info!(path = %cert_file.display(), "created cert file");
    write(key_file, &key.serialize_pem(), 0o600)?;
    info!(path = %key_file.display(), "created key file");
    Ok(())
}

fn make_directory(directory: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(|error| cannot(directory, &error))
}

/// Writes a file that only its owner may write; it must be closed to others before the key is in it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    // One that is there may be open to more than it should.
    let _ = std::fs::remove_file(path);
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    opened
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| cannot(path, &error))
}

fn cannot(path: &Path, error: &std::io::Error) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        words: error.to_string(),
    }
}
