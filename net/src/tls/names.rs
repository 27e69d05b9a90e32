//! Host names in certificates against hosts: Go's comparison, and etcd's check of a client's address.

use std::net::IpAddr;

use super::certificate::PeerCertificate;
use super::info::quoted;

/// Whether a name of a certificate, which may begin with `*.`, is this host. The star stands for one label.
pub(super) fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    if host.is_empty() || pattern.is_empty() {
        return false;
    }
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

/// Whether a client's certificate is for the address that it comes from; a certificate without names passes.
/// Names of hosts are looked up, both ways.
pub(super) async fn check_address(
    certificate: &PeerCertificate,
    address: IpAddr,
) -> Result<(), String> {
    let PeerCertificate {
        dns_names,
        addresses,
        ..
    } = certificate;
    if addresses.is_empty() && dns_names.is_empty() {
        return Ok(());
    }
    if certificate.is_for_address(address) {
        return Ok(());
    }
    let address = address.to_canonical();
    if dns_names.is_empty() {
        let listed: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        return Err(format!(
            "x509: certificate is valid for {}, not {address}",
            listed.join(", ")
        ));
    }
    if has_name(address, dns_names).await || has_address(dns_names, address).await {
        return Ok(());
    }
    Err(format!(
        "tls: {:?} does not match any of DNSNames {}",
        address.to_string(),
        quoted(dns_names)
    ))
}

/// Asks for the address's name.
async fn has_name(address: IpAddr, dns_names: &[String]) -> bool {
    let looked_up = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&address)).await;
    let Ok(Ok(name)) = looked_up else {
        return false;
    };
    let name = name.strip_suffix('.').unwrap_or(&name);
    // Here a star stands for any number of labels: that is etcd's.
    dns_names.iter().any(|known| match known.strip_prefix('*') {
        Some(parent) if parent.starts_with('.') => name.ends_with(parent),
        _ => known == name,
    })
}

/// Asks for the names' addresses.
async fn has_address(dns_names: &[String], address: IpAddr) -> bool {
    for name in dns_names.iter().filter(|name| !name.starts_with("*.")) {
        if let Ok(mut found) = tokio::net::lookup_host((name.as_str(), 0)).await
            && found.any(|found| found.ip().to_canonical() == address)
        {
            return true;
        }
    }
    false
}
