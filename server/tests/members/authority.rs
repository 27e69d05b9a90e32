//! Certificates for tests, in a directory of their own.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
    SerialNumber,
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority and what it has issued.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().expect("the system has a temporary directory");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("written");
        let issuer = Issuer::new(parameters, key);
        Self { directory, issuer }
    }

    /// A file of the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("it is text").to_owned()
    }

    /// The certificate that signs all others.
    pub(crate) fn certificate(&self) -> String {
        self.path("ca.pem")
    }

    /// Writes `name.pem` and `name.key`, in place of what is there: a certificate for servers and clients.
    pub(crate) fn issue(&self, name: &str, common_name: &str, hosts: &[&str]) {
        self.issue_as(name, common_name, hosts, |_| {});
    }

    /// The same, expired yesterday.
    pub(crate) fn issue_expired(&self, name: &str, common_name: &str, hosts: &[&str]) {
        self.issue_as(name, common_name, hosts, |parameters| {
            parameters.not_before = (SystemTime::now() - 2 * DAY).into();
            parameters.not_after = (SystemTime::now() - DAY).into();
        });
    }

    /// The same, with a serial number to revoke.
    pub(crate) fn issue_numbered(&self, name: &str, common_name: &str, serial: u64) {
        self.issue_as(name, common_name, &[], |parameters| {
            parameters.serial_number = Some(SerialNumber::from(serial));
        });
    }

    fn issue_as(
        &self,
        name: &str,
        common_name: &str,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("they are hosts");
        parameters.distinguished_name = DistinguishedName::new();
        let subject = &mut parameters.distinguished_name;
        if !common_name.is_empty() {
            subject.push(DnType::CommonName, common_name);
        }
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut parameters);
        let key = KeyPair::generate().expect("a key");
        let signed = parameters.signed_by(&key, &self.issuer);
        let certificate = signed.expect("a certificate").pem();
        // The key first: whoever reads in between sees a pair that does not fit, and keeps the old one.
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
        std::fs::write(self.path(&format!("{name}.pem")), certificate).expect("written");
    }

    /// Writes `crl.der`, in place of what is there.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: SystemTime::now().into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: SystemTime::now().into(),
            next_update: (SystemTime::now() + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(self.path("crl.der"), list.der()).expect("written");
    }
}
