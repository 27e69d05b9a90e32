//! Where a member finds the members of a new cluster, if `--initial-cluster` does not say it.

use std::time::Duration;

#[cfg(not(madsim))]
use quorate_net::tls::TlsInfo;

use super::settings::Settings;
use super::{Config, positive};

/// Another cluster, in which the members of this one find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Which cluster this is going to be.
    pub token: String,
    /// Where the other cluster is.
    pub endpoints: Vec<String>,
    /// For making one connection.
    pub dial_timeout: Duration,
    /// For one request.
    pub request_timeout: Duration,
    /// How often a connection is tested, and how long an answer may take.
    pub keep_alive: Option<(Duration, Duration)>,
    /// Who asks; empty for nobody in particular.
    pub user: String,
    /// Who asks proves it with this.
    pub password: String,
    /// TLS with the other cluster; without it an endpoint's scheme alone says whether there is any.
    #[cfg(not(madsim))]
    pub security: Option<TlsInfo>,
}

impl Discovery {
    /// What the flags ask for; they were checked.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let endpoints = settings.list("discovery-endpoints");
        if endpoints.is_empty() {
            return None;
        }
        let duration = |flag| positive(settings.duration(flag));
        Some(Self {
            token: settings.text("discovery-token"),
            endpoints,
            dial_timeout: duration("discovery-dial-timeout").unwrap_or(Duration::MAX),
            request_timeout: duration("discovery-request-timeout").unwrap_or_default(),
            keep_alive: duration("discovery-keepalive-time")
                .zip(duration("discovery-keepalive-timeout")),
            user: settings.text("discovery-user"),
            password: settings.text("discovery-password"),
            #[cfg(not(madsim))]
            security: security(settings),
        })
    }
}

/// Files speak for TLS whatever `--discovery-insecure-transport` says, and so does not caring whose certificate it is.
#[cfg(not(madsim))]
fn security(settings: &Settings) -> Option<TlsInfo> {
    let info = TlsInfo {
        cert_file: settings.text("discovery-cert"),
        key_file: settings.text("discovery-key"),
        trusted_ca_file: settings.text("discovery-cacert"),
        insecure_skip_verify: settings.bool("discovery-insecure-skip-tls-verify"),
        ..TlsInfo::default()
    };
    let is_wanted = info != TlsInfo::default() || !settings.bool("discovery-insecure-transport");
    is_wanted.then_some(info)
}

/// A domain whose DNS lists the first members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByDns {
    /// The domain.
    pub domain: String,
    /// What tells this cluster from others of the domain; may be empty.
    pub service_name: String,
}

impl ByDns {
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let domain = settings.text("discovery-srv");
        (!domain.is_empty()).then(|| Self {
            domain,
            service_name: settings.text("discovery-srv-name"),
        })
    }
}

impl Config {
    /// Until the others are found, a member that discovers its cluster knows itself alone, or nobody; a token of the
    /// discovery names the cluster.
    pub(super) fn begin_discovery(&mut self) {
        if let Some(discovery) = &self.discovery {
            self.initial_cluster_token.clone_from(&discovery.token);
            self.initial_cluster = self.own_entry();
        }
        if self.by_dns.is_some() {
            self.initial_cluster.clear();
        }
    }
}
