//! The first members of a cluster find each other in DNS: each has an SRV record in a domain.
//!
//! ```text
//!   _etcd-server-ssl[-NAME]._tcp.DOMAIN   members that speak TLS
//!   _etcd-server[-NAME]._tcp.DOMAIN       members that do not
//! ```
//!
//! A record says where a member is, not who it is: the one at this member's own address is this member, the others get
//! numbers for names. What is found stands in for `--initial-cluster` and is checked as that is.

use std::net::SocketAddr;

use quorate_net::srv::{Directory, service_name};
use tracing::{info, warn};

use super::BootstrapError;
use crate::config::{ByDns, Config, Url, parse_cluster, texts};

/// The configuration with the members that DNS names, if it is to be asked and has not been asked yet.
pub(crate) async fn unless_named(config: &Config) -> Result<Option<Config>, BootstrapError> {
    match &config.by_dns {
        Some(by_dns) if config.initial_cluster.is_empty() => {
            let named = named_by_dns(config, by_dns, &Directory::system()).await?;
            Ok(Some(named))
        }
        _ => Ok(None),
    }
}

/// A member that finds its cluster in DNS, as if its flags had named it.
async fn named_by_dns(
    config: &Config,
    by_dns: &ByDns,
    directory: &Directory,
) -> Result<Config, BootstrapError> {
    let found = find(config, by_dns, directory).await;
    if !found.errors.is_empty() {
        let error = found.errors.join("\n");
        warn!(error, "failed to resolve during SRV discovery");
        if found.entries.is_empty() {
            return Err(BootstrapError::Dns(error));
        }
    }
    for node in &found.entries {
        info!(node, "got bootstrap from DNS for etcd-server");
    }
    let initial_cluster = found.entries.join(",");
    let is_listed = parse_cluster(&initial_cluster)
        .is_ok_and(|members| members.contains_key(config.name.as_str()));
    if !is_listed {
        let words = format!(
            "cannot find local etcd member {:?} in SRV records",
            config.name
        );
        return Err(BootstrapError::Dns(words));
    }
    let mut named = config.clone();
    let info = &mut named.peer_security.info;
    if initial_cluster.contains("https://") && info.trusted_ca_file.is_empty() {
        // Any name that the domain's owner has put there would do otherwise.
        info.server_name.clone_from(&by_dns.domain);
    }
    named.initial_cluster = initial_cluster;
    Ok(named)
}

/// What both services together have.
#[derive(Debug, Default)]
struct Found {
    /// As `--initial-cluster` would have them.
    entries: Vec<String>,
    errors: Vec<String>,
}

async fn find(config: &Config, by_dns: &ByDns, directory: &Directory) -> Found {
    let mut found = Found::default();
    for (is_tls, scheme, base) in [
        (true, "https", "etcd-server-ssl"),
        (false, "http", "etcd-server"),
    ] {
        let service = service_name("etcd-server", is_tls, &by_dns.service_name);
        let search = Search {
            config,
            service: &service,
            scheme,
        };
        let error = match search.entries(directory, &by_dns.domain).await {
            Ok(entries) => {
                found.entries.extend(entries);
                String::new()
            }
            Err(error) => {
                found.errors.push(error.clone());
                error
            }
        };
        info!(
            "service-scheme" = scheme,
            "service-name" = service,
            "server-name" = config.name,
            "discovery-srv" = by_dns.domain,
            "advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
            "found-cluster" = ?found.entries,
            error,
            "get cluster for {base} SRV"
        );
    }
    found
}

/// One service, and who asks for it.
struct Search<'a> {
    config: &'a Config,
    service: &'a str,
    scheme: &'a str,
}

impl Search<'_> {
    async fn entries(&self, directory: &Directory, domain: &str) -> Result<Vec<String>, String> {
        let mut own = Vec::new();
        for url in &self.config.initial_advertise_peer_urls {
            own.push((first_address(&url.host, url.port).await?, url));
        }
        let failed = |error: String| {
            let service = self.service;
            format!("error querying DNS SRV records for _{service} {error}")
        };
        let places = directory.places(self.service, domain).await;
        let places = places.map_err(|error| failed(error.to_string()))?;
        let (mut entries, mut strangers, mut last) = (Vec::new(), 0, None);
        for place in places {
            let host = place.host.strip_suffix('.').unwrap_or(&place.host);
            let address = match first_address(host, place.port).await {
                Ok(address) => address,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            let own_url = own.iter().find(|(own, _)| *own == address);
            let name = if own_url.is_some() {
                self.config.name.clone()
            } else {
                strangers += 1;
                (strangers - 1).to_string()
            };
            let url = format!("{}://{}", self.scheme, with_port(host, place.port));
            match own_url {
                Some((_, own)) if !self.fits(own) => {
                    last = Some(format!(
                        "bootstrap at {url} from DNS for {} has scheme mismatch with expected peer {own}",
                        self.service
                    ));
                }
                _ => entries.push(format!("{name}={url}")),
            }
        }
        match last {
            Some(error) if entries.is_empty() => Err(failed(error)),
            _ => Ok(entries),
        }
    }

    fn fits(&self, own: &Url) -> bool {
        own.to_string().starts_with(&format!("{}://", self.scheme))
    }
}

/// The address that stands for a host: the first one, of IPv4 if there is any.
async fn first_address(host: &str, port: u16) -> Result<SocketAddr, String> {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<_> = addresses
        .map_err(|_| format!("lookup {host}: no such host"))?
        .collect();
    let found = addresses.iter().find(|address| address.is_ipv4());
    found
        .or_else(|| addresses.first())
        .copied()
        .ok_or_else(|| format!("lookup {host}: no such host"))
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Outcome, parse};
    use crate::name_server::Zone;

    /// A member `m1` with these flags, and what DNS says to it.
    async fn found(zone: Zone, flags: &str) -> Result<Config, String> {
        let line = format!("--name m1 --discovery-srv cluster.test {flags}");
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let Outcome::Run(config) = parse(&arguments, &[]) else {
            panic!("{line}: no member");
        };
        let directory = Directory::at(zone.serve("127.0.0.1:0"));
        let by_dns = config.by_dns.clone().expect("it was asked for");
        let named = named_by_dns(&config, &by_dns, &directory).await;
        named.map_err(|error| error.to_string())
    }

    fn plain(name: &str) -> Zone {
        Zone::default()
            .service(name, 1, "localhost.", 1111)
            .service(name, 0, "127.0.0.1.", 2222)
    }

    const OWN: &str = "--initial-advertise-peer-urls http://127.0.0.1:1111";

    #[tokio::test]
    async fn the_member_at_the_own_address_is_this_one_and_the_others_get_numbers() {
        let zone = plain("_etcd-server._tcp.cluster.test.");
        let named = found(zone, OWN).await.unwrap();
        assert_eq!(
            named.initial_cluster,
            "0=http://127.0.0.1:2222,m1=http://localhost:1111"
        );
        assert_eq!(named.peer_security.info.server_name, "");
    }

    #[tokio::test]
    async fn clusters_of_one_domain_differ_by_the_services_suffix() {
        let zone = plain("_etcd-server-blue._tcp.cluster.test.");
        let blue = format!("{OWN} --discovery-srv-name blue");
        let named = found(zone.clone(), &blue).await.unwrap();
        assert!(named.initial_cluster.contains("m1=http://localhost:1111"));
        let error = found(zone, OWN).await.unwrap_err();
        let words = ": no such host\nerror querying DNS SRV records for _etcd-server lookup \
                     _etcd-server._tcp.cluster.test on 127.0.0.1:";
        assert!(error.contains(words), "{error}");
        let start = "error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup";
        assert!(error.starts_with(start), "{error}");
    }

    #[tokio::test]
    async fn certificates_of_members_that_speak_tls_must_be_the_domains_unless_an_authority_is_given()
     {
        let zone = plain("_etcd-server-ssl._tcp.cluster.test.");
        let own = OWN.replace("http", "https");
        let named = found(zone.clone(), &own).await.unwrap();
        assert_eq!(
            named.initial_cluster,
            "0=https://127.0.0.1:2222,m1=https://localhost:1111"
        );
        assert_eq!(named.peer_security.info.server_name, "cluster.test");
        let trusting = format!("{own} --peer-trusted-ca-file ca.pem");
        let named = found(zone, &trusting).await.unwrap();
        assert_eq!(named.peer_security.info.server_name, "");
    }

    #[tokio::test]
    async fn who_is_not_listed_or_listed_with_another_scheme_finds_no_cluster() {
        let zone = plain("_etcd-server._tcp.cluster.test.");
        let elsewhere = "--initial-advertise-peer-urls http://127.0.0.1:3333";
        assert_eq!(
            found(zone.clone(), elsewhere).await.unwrap_err(),
            "error setting up initial cluster: cannot find local etcd member \"m1\" in SRV records"
        );
        let other_scheme = OWN.replace("http", "https");
        assert_eq!(
            found(zone, &other_scheme).await.unwrap_err(),
            "error setting up initial cluster: cannot find local etcd member \"m1\" in SRV records"
        );
        let alone =
            Zone::default().service("_etcd-server._tcp.cluster.test.", 0, "localhost.", 1111);
        let error = found(alone, &other_scheme).await.unwrap_err();
        let words = "bootstrap at http://localhost:1111 from DNS for etcd-server has scheme mismatch with \
                     expected peer https://127.0.0.1:1111";
        assert!(error.ends_with(words), "{error}");
    }
}
