//! Members that DNS lists, for the proxies: `--discovery-srv`.
//!
//! ```text
//!   _etcd-client-ssl[-NAME]._tcp.DOMAIN   https://HOST:PORT
//!   _etcd-client[-NAME]._tcp.DOMAIN       http://HOST:PORT, with --insecure-discovery only
//! ```

use std::time::Duration;

use quorate_net::srv::{Directory, service_name};
use tokio::net::TcpStream;
use tracing::{info, warn};

use super::flags::{Flag, Kind, Values, flag};

/// Where the members are; what gateway and proxy say of `--discovery-srv` differs.
pub(super) const ENDPOINTS: Flag = flag(
    "endpoints",
    Kind::List,
    "127.0.0.1:2379",
    "comma separated etcd cluster endpoints",
);
pub(super) const SERVICE_NAME: Flag = flag(
    "discovery-srv-name",
    Kind::Text,
    "",
    "service name to query when using DNS discovery",
);
pub(super) const INSECURE: Flag = flag(
    "insecure-discovery",
    Kind::Bool,
    "false",
    "accept insecure SRV records",
);

/// How long a member that is tried may take.
const DIAL_MAX: Duration = Duration::from_secs(5);

/// The members' URLs: those that DNS lists and may be used, or `--endpoints`.
pub(super) async fn endpoints(values: &Values) -> Result<Vec<String>, String> {
    let domain = values.text("discovery-srv");
    if domain.is_empty() {
        return Ok(values.list("endpoints"));
    }
    let name = values.text("discovery-srv-name");
    let listed = listed(&Directory::system(), domain, name).await?;
    info!("srv-server" = domain, endpoints = ?listed, "discovered cluster from SRV");
    let usable = if values.is_set("insecure-discovery") {
        listed
    } else {
        tried(domain, listed).await
    };
    if usable.is_empty() {
        return Ok(values.list("endpoints"));
    }
    Ok(usable)
}

/// What both services have.
async fn listed(directory: &Directory, domain: &str, name: &str) -> Result<Vec<String>, String> {
    let (mut endpoints, mut errors) = (Vec::new(), Vec::new());
    for (is_tls, scheme) in [(true, "https"), (false, "http")] {
        let service = service_name("etcd-client", is_tls, name);
        match directory.places(&service, domain).await {
            Ok(places) => endpoints.extend(places.into_iter().map(|place| {
                let host = place.host.strip_suffix('.').unwrap_or(&place.host);
                format!("{scheme}://{host}:{}", place.port)
            })),
            Err(error) => errors.push(error.to_string()),
        }
    }
    match &errors[..] {
        [secure, plain] => Err(format!("dns lookup errors: {secure} and {plain}")),
        _ => Ok(endpoints),
    }
}

/// Those that are spoken to by TLS and take connections. Whose certificate they have is seen when they are used.
async fn tried(domain: &str, endpoints: Vec<String>) -> Vec<String> {
    let (mut usable, mut errors) = (Vec::new(), Vec::new());
    for endpoint in &endpoints {
        let Some(address) = endpoint.strip_prefix("https://") else {
            errors.push(format!("{endpoint:?} is insecure"));
            continue;
        };
        let late = std::io::ErrorKind::TimedOut.into();
        let dialled = tokio::time::timeout(DIAL_MAX, TcpStream::connect(address)).await;
        match dialled.unwrap_or(Err(late)) {
            Ok(_) => usable.push(endpoint.clone()),
            Err(error) => errors.push(format!("{endpoint:?} failed to dial ({error})")),
        }
    }
    let server = domain;
    if errors.is_empty() {
        info!("srv-server" = server, endpoints = ?usable, "using validated discovered SRV endpoints");
    } else {
        let error = errors.join(",");
        warn!(
            "srv-server" = server,
            endpoints = ?usable,
            error,
            "failed to validate discovered endpoints"
        );
    }
    usable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name_server::Zone;

    fn texts(endpoints: &[&str]) -> Vec<String> {
        endpoints.iter().map(|text| (*text).to_owned()).collect()
    }

    #[tokio::test]
    async fn both_services_of_a_domain_are_listed() {
        let zone = Zone::default()
            .service("_etcd-client-ssl._tcp.plain.test.", 0, "a.test.", 1)
            .service("_etcd-client._tcp.plain.test.", 0, "b.test.", 2)
            .service("_etcd-client-blue._tcp.plain.test.", 0, "c.test.", 3);
        let server = zone.serve("127.0.0.1:0");
        let directory = Directory::at(server);
        assert_eq!(
            listed(&directory, "plain.test", "").await,
            Ok(texts(&["https://a.test:1", "http://b.test:2"]))
        );
        assert_eq!(
            listed(&directory, "plain.test", "blue").await,
            Ok(texts(&["http://c.test:3"]))
        );
        let nobody = listed(&directory, "nowhere.test", "").await.unwrap_err();
        let words = format!(
            "dns lookup errors: lookup _etcd-client-ssl._tcp.nowhere.test on {server}: no such host and lookup \
             _etcd-client._tcp.nowhere.test on {server}: no such host"
        );
        assert_eq!(nobody, words);
    }

    #[tokio::test]
    async fn who_speaks_no_tls_or_is_not_there_is_left_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let gone = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let secure = format!("https://{there}");
        let endpoints = [
            &secure,
            &format!("http://{there}"),
            &format!("https://{gone}"),
        ];
        let usable = tried("plain.test", endpoints.map(Clone::clone).to_vec()).await;
        assert_eq!(usable, [secure]);
    }
}
