//! TLS with clients, from the configuration to what the listeners take.
//!
//! Reads and, with `--auto-tls`, writes certificates. What they are compared with is the business of `net`.

use quorate_net::tls::{ServerTls, TlsError, TlsInfo, self_signed};
use tracing::{info, warn};

use crate::config::{Config, Url};
use crate::io::Traffic;
use crate::io::handshakes::Gate;

/// What the listeners for clients need; none when no URL asks for TLS.
#[derive(Debug)]
pub(crate) struct ClientSide {
    clients: ServerTls,
    /// Here etcd compares a client's certificate with its address.
    metrics: ServerTls,
    names_users: bool,
}

impl ClientSide {
    /// How connections to a listener begin.
    pub(crate) fn gate(&self, traffic: Traffic, is_mixed: bool) -> Gate {
        let tls = match traffic {
            Traffic::Metrics => &self.metrics,
            Traffic::GrpcAndHttp | Traffic::Grpc | Traffic::Http => &self.clients,
        };
        Gate {
            tls: tls.clone(),
            is_mixed,
            names_users: self.names_users,
        }
    }
}

/// Reads the files if there is a use for them.
pub(crate) fn open(config: &Config) -> Result<Option<ClientSide>, TlsError> {
    let settings = settings(config)?;
    if !settings.is_empty() {
        info!(
            "tls-info" = %settings,
            "cipher-suites" = ?settings.cipher_suites,
            "starting with client TLS"
        );
    }
    let clients = config.listen_client_urls.iter();
    let clients = clients.chain(&config.listen_client_http_urls);
    clients
        .clone()
        .filter(|url| !url.scheme.is_tls())
        .for_each(|url| warn_about_plain(url, &settings));
    let mut all = clients.chain(&config.listen_metrics_urls);
    if !all.any(|url| url.scheme.is_tls()) {
        return Ok(None);
    }
    let tls = ServerTls::new(&settings)?;
    Ok(Some(ClientSide {
        metrics: tls.clone().comparing_addresses(&settings),
        clients: tls,
        names_users: settings.client_cert_auth,
    }))
}

fn warn_about_plain(url: &Url, settings: &TlsInfo) {
    if !settings.is_empty() {
        warn!(
            "client-url" = %url,
            "scheme is http or unix while key and cert files are present; ignoring key and cert files"
        );
    }
    if settings.client_cert_auth {
        warn!(
            "client-url" = %url,
            "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL"
        );
    }
}

/// The settings, with a certificate made here if that is asked for and none is named.
fn settings(config: &Config) -> Result<TlsInfo, TlsError> {
    let security = &config.client_security;
    if !security.auto_tls {
        return Ok(security.info.clone());
    }
    if !security.info.is_empty() {
        warn!("ignoring client auto TLS since certs given");
        return Ok(security.info.clone());
    }
    let urls = config.listen_client_urls.iter();
    let hosts: Vec<_> = urls
        .chain(&config.listen_client_http_urls)
        .filter(|url| !url.scheme.is_unix())
        .map(|url| url.host.clone())
        .collect();
    let directory = config.data_dir.join("fixtures").join("client");
    let made = self_signed::certificate(&directory, &hosts, security.certificate_years)?;
    // As in etcd, nothing but ciphers and versions is kept of the other flags.
    Ok(TlsInfo {
        cipher_suites: security.info.cipher_suites.clone(),
        min_version: security.info.min_version,
        max_version: security.info.max_version,
        ..made
    })
}
