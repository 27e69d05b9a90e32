//! What is read of the other side's certificate once it is verified.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::names;

/// The certificate of the other side, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The common name of its subject; empty if it has none.
    pub common_name: String,
    /// The host names that it is for; they may begin with `*.`.
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// The bytes of its serial number, most significant first.
    pub serial: Vec<u8>,
}

impl PeerCertificate {
    /// Reads a certificate in DER; none if it is not one.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        // Go takes the last of several.
        let common_name = certificate.subject().iter_common_name().last();
        let common_name = common_name.and_then(|name| name.as_str().ok());
        let mut dns_names = Vec::new();
        let mut addresses = Vec::new();
        let alternatives = certificate.subject_alternative_name().ok()?;
        let alternatives = alternatives.map(|extension| extension.value.general_names.as_slice());
        for name in alternatives.unwrap_or_default() {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.push(address(bytes)?),
                _ => {}
            }
        }
        Some(Self {
            common_name: common_name.unwrap_or_default().to_owned(),
            dns_names,
            addresses,
            serial: certificate.raw_serial().to_vec(),
        })
    }

    /// Whether it is for this host, by Go's rules: an address is compared with the addresses, a name with the names,
    /// the common name with nothing.
    pub fn is_for_host(&self, host: &str) -> bool {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match bare.unwrap_or(host).parse() {
            Ok(address) => self.is_for_address(address),
            Err(_) => self
                .dns_names
                .iter()
                .any(|pattern| names::matches(pattern, host)),
        }
    }

    /// Whether it is for this address.
    pub fn is_for_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses
            .iter()
            .any(|known| known.to_canonical() == address)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
