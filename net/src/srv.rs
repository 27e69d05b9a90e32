//! Services that DNS lists: who offers `_service._tcp.domain` has an SRV record there.
//!
//! The name servers are the system's (`/etc/resolv.conf`). Nothing here looks up the addresses of what was found, and
//! nothing is trusted on account of it: certificates are another module's business.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;

/// Asked by whoever has no `/etc/resolv.conf`, as in Go.
const LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Somebody who can be asked for services.
#[derive(Debug)]
pub struct Directory {
    resolver: TokioResolver,
    /// The name server that errors name.
    server: SocketAddr,
}

/// Where a service is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As the record names it: a whole name ends with a dot.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Nobody says where a service is offered; in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lookup {name} on {server}: {reason}")]
pub struct LookupError {
    name: String,
    server: SocketAddr,
    reason: String,
}

impl Directory {
    /// The system's name servers.
    ///
    /// # Panics
    /// Never: only a resolver that is to speak TLS can fail to be made.
    pub fn system() -> Self {
        let (config, options) = read_system_conf().unwrap_or_else(|_| {
            let servers = LOCAL.map(NameServerConfig::udp_and_tcp).to_vec();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            (config, ResolverOpts::default())
        });
        Self::new(config, options)
    }

    /// One name server, for those who know it.
    ///
    /// # Panics
    /// Never, as [`Self::system`].
    pub fn at(server: SocketAddr) -> Self {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Self::new(config, ResolverOpts::default())
    }

    fn new(config: ResolverConfig, options: ResolverOpts) -> Self {
        let server =
            config
                .name_servers()
                .first()
                .map_or(SocketAddr::new(LOCAL[0], 53), |server| {
                    let port = server.connections.first();
                    SocketAddr::new(server.ip, port.map_or(53, |connection| connection.port))
                });
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build();
        Self {
            resolver: resolver.expect("it speaks plain text"),
            server,
        }
    }

    /// All who offer a service in a domain, the preferred ones first.
    ///
    /// # Errors
    /// When nobody does, or nobody can tell.
    pub async fn places(&self, service: &str, domain: &str) -> Result<Vec<Place>, LookupError> {
        let name = format!("_{service}._tcp.{domain}");
        let refuse = |reason: String| LookupError {
            name: name.clone(),
            server: self.server,
            reason,
        };
        let found = self.resolver.srv_lookup(name.as_str()).await;
        let found = found.map_err(|error| refuse(words(&error)))?;
        let mut records: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service),
                _ => None,
            })
            .collect();
        if records.is_empty() {
            return Err(refuse("no such host".to_owned()));
        }
        records.sort_by_key(|record| (record.priority, Reverse(record.weight)));
        let places = records.into_iter().map(|record| Place {
            host: record.target.to_utf8(),
            port: record.port,
        });
        Ok(places.collect())
    }
}

/// What etcd calls a service: with TLS it has another name, and clusters in one domain differ by a suffix.
pub fn service_name(service: &str, is_tls: bool, suffix: &str) -> String {
    let tls = if is_tls { "-ssl" } else { "" };
    let dash = if suffix.is_empty() { "" } else { "-" };
    format!("{service}{tls}{dash}{suffix}")
}

fn words(error: &NetError) -> String {
    match error {
        error if error.is_no_records_found() || error.is_nx_domain() => "no such host".to_owned(),
        NetError::Timeout => "i/o timeout".to_owned(),
        NetError::Dns(_) => "server misbehaving".to_owned(),
        other => other.to_string(),
    }
}
