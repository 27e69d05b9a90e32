//! TLS between members, from the configuration to what the links take.
//!
//! Reads and, with `--peer-auto-tls`, writes certificates. What they are compared with is the business of `net`.

use std::net::IpAddr;
use std::time::Duration;

use quorate_net::peer::Wire;
#[cfg(not(madsim))]
use quorate_net::{
    peer::PeerTls,
    tls::{TlsError, TlsInfo, self_signed},
};
use tracing::{info, warn};

use crate::config::{Config, texts};
use crate::run::StartError;

/// How connections to peers are made and watched.
pub(crate) fn wire(config: &Config) -> Result<Wire, StartError> {
    Ok(Wire {
        dial_timeout: Duration::from_secs(1) + config.election_timeout(),
        read_timeout: config.raft_read_timeout,
        write_timeout: config.raft_write_timeout,
        local_address: local_address(config),
        #[cfg(not(madsim))]
        tls: Some(tls(config).map_err(StartError::PeerSecurity)?),
        #[cfg(madsim)]
        tls: None,
    })
}

/// The address that connections to peers come from, if one is to be chosen.
fn local_address(config: &Config) -> Option<IpAddr> {
    if !config.gates.enabled("SetMemberLocalAddr") {
        return None;
    }
    let urls = texts(&config.initial_advertise_peer_urls);
    let address = config.member_local_address();
    match address {
        Some(address) => info!("LocalAddr" = %address, "setting member local address"),
        None => warn!(
            "advertise-peer-urls" = ?urls,
            "unable to set a member local address due to lack of suitable local addresses"
        ),
    }
    address
}

#[cfg(not(madsim))]
fn tls(config: &Config) -> Result<PeerTls, TlsError> {
    let settings = tls_info(config)?;
    if !settings.is_empty() {
        info!(
            "tls-info" = %settings,
            "cipher-suites" = ?settings.cipher_suites,
            "starting with peer TLS"
        );
    }
    for url in config
        .listen_peer_urls
        .iter()
        .filter(|url| !url.scheme.is_tls())
    {
        if !settings.is_empty() {
            warn!(
                "peer-url" = %url,
                "scheme is HTTP while key and cert files are present; ignoring key and cert files"
            );
        }
        if settings.client_cert_auth {
            warn!(
                "peer-url" = %url,
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL"
            );
        }
    }
    let tls = PeerTls::new(settings)?;
    let secure = config
        .listen_peer_urls
        .iter()
        .find(|url| url.scheme.is_tls());
    if let Some(url) = secure
        && !tls.can_listen()
    {
        return Err(TlsError::Settings(format!(
            "cannot listen on TLS for {}: KeyFile and CertFile are not presented",
            url.address()
        )));
    }
    Ok(tls)
}

/// The settings, with a certificate made here if that is asked for and none is named.
#[cfg(not(madsim))]
fn tls_info(config: &Config) -> Result<TlsInfo, TlsError> {
    let security = &config.peer_security;
    if !security.auto_tls {
        return Ok(security.info.clone());
    }
    if !security.info.is_empty() {
        warn!("ignoring peer auto TLS since certs given");
        return Ok(security.info.clone());
    }
    let urls = config.listen_peer_urls.iter();
    let hosts: Vec<_> = urls
        .filter(|url| !url.scheme.is_unix())
        .map(|url| url.host.clone())
        .collect();
    let directory = config.data_dir.join("fixtures").join("peer");
    let made = self_signed::certificate(&directory, &hosts, security.certificate_years)?;
    // As in etcd, nothing but ciphers and versions is kept of the other flags.
    Ok(TlsInfo {
        cipher_suites: security.info.cipher_suites.clone(),
        min_version: security.info.min_version,
        max_version: security.info.max_version,
        ..made
    })
}
