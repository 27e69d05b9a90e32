//! Certificates for tests, in a directory of their own.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use tempfile::TempDir;

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
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("they are hosts");
        parameters.distinguished_name = DistinguishedName::new();
        let subject = &mut parameters.distinguished_name;
        subject.push(DnType::CommonName, common_name);
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let signed = parameters.signed_by(&key, &self.issuer);
        let certificate = signed.expect("a certificate").pem();
        // The key first: whoever reads in between sees a pair that does not fit, and keeps the old one.
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
        std::fs::write(self.path(&format!("{name}.pem")), certificate).expect("written");
    }
}
