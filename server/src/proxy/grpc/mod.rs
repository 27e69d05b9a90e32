//! `quorate grpc-proxy start`: a proxy that understands the calls that it carries.
//!
//! ```text
//!   clients ─► door ─┬─► kv (cache, namespace) ──────┐
//!                    ├─► watch ─► hub (shared) ──────┼─► upstream ─► members
//!                    ├─► lease (shared renewals) ────┤
//!                    └─► everything else, as it is ──┘
//! ```
//!
//! Puts the pieces together. A proxy keeps nothing that the members do not have.

mod cache;
mod cluster;
mod command_line;
mod door;
mod hub;
mod kv;
mod lease;
mod metrics;
mod namespace;
mod order;
mod pages;
mod upstream;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use quorate_net::client::{Client, Config, Endpoint, Security};
use quorate_net::grpc::etcdserverpb::kv_server::KvServer;
use quorate_net::grpc::etcdserverpb::lease_server::LeaseServer;
use quorate_net::grpc::etcdserverpb::watch_server::WatchServer;
use quorate_net::tls::{ClientTls, PeerCertificate, ServerTls, TlsInfo, TlsVersion, self_signed};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tracing::{info, warn};

use self::cache::Cache;
use self::cluster::Members;
pub(super) use self::command_line::FLAGS;
use self::door::House;
use self::hub::Hub;
use self::kv::KvProxy;
use self::lease::{LeaseProxy, Renewals};
use self::metrics::Metrics;
use self::namespace::Namespace;
use self::order::Order;
use self::pages::Pages;
use self::upstream::Upstream;
use self::watch::WatchProxy;
use super::flags::Values;
use super::{discovery, log_to_stderr};
use crate::config::LogLevel;
use crate::notify;

/// For making one connection to a member.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client may send in one message, as in Go's library.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// As good as forever.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// What a member takes as the most streams that a number can say.
const STREAMS_MAX: u32 = 16_384;

/// Runs until the process is ended.
pub(super) fn run(values: &Values, arguments: &[String]) -> Result<(), String> {
    command_line::check(values)?;
    let level = if values.is_set("debug") {
        LogLevel::Debug
    } else {
        LogLevel::Info
    };
    log_to_stderr(level, arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(serve(values, arguments))
}

async fn serve(values: &Values, arguments: &[String]) -> Result<(), String> {
    let listen = values.text("listen-addr");
    let failed = |address: &str, error: std::io::Error| format!("listen tcp {address}: {error}");
    let tls = server_tls(values)?;
    let listener = door::listen(listen)
        .await
        .map_err(|error| failed(listen, error))?;
    info!(address = listen, "listening for gRPC proxy client requests");
    let endpoints = discovery::endpoints(values).await?;
    let house = Arc::new(furnish(values, &endpoints, arguments)?);
    if let Some(order) = &house.order {
        order.begin().await;
    }
    let interval = values.duration("endpoints-auto-sync-interval");
    if !interval.is_zero() {
        tokio::spawn(house.upstream.clone().follow(interval));
    }
    let metrics = values.text("metrics-addr");
    if !metrics.is_empty() {
        let address = metrics.split_once("://").map_or(metrics, |(_, rest)| rest);
        let listener = door::listen(address)
            .await
            .map_err(|error| failed(address, error))?;
        let is_plain = metrics.starts_with("http://");
        if metrics.starts_with("https://") && tls.is_none() {
            return Err(format!(
                "cannot listen on TLS for {address}: KeyFile and CertFile are not presented"
            ));
        }
        let tls = tls.clone().filter(|_| !is_plain);
        info!("gRPC proxy server metrics URL serving");
        tokio::spawn(door::serve(Arc::clone(&house), listener, tls, false));
    }
    if !house.members.prefix.is_empty() {
        let ttl = values.number("resolver-ttl");
        tokio::spawn(house.members.clone().register(ttl));
    }
    info!(address = listen, "started gRPC proxy");
    notify::ready();
    door::serve(house, listener, tls, true).await;
    Ok(())
}

/// A limit in bytes; no number above 0 leaves it to the client library.
fn bytes_max(values: &Values, name: &str, default: usize) -> usize {
    let bytes = usize::try_from(values.number(name)).unwrap_or(0);
    if bytes == 0 { default } else { bytes }
}

/// Everything that is served, around one client of the members.
fn furnish(values: &Values, endpoints: &[String], arguments: &[String]) -> Result<House, String> {
    let info = client_tls(values);
    let defaults = Config::default();
    let send_bytes_max = bytes_max(values, "max-send-bytes", defaults.request_bytes_max);
    let receive_bytes_max = bytes_max(values, "max-recv-bytes", defaults.response_bytes_max);
    let parsed: Result<Vec<Endpoint>, _> =
        endpoints.iter().map(|endpoint| endpoint.parse()).collect();
    let mut config = Config {
        endpoints: parsed.map_err(|error| error.to_string())?,
        dial_timeout: DIAL_TIMEOUT,
        request_bytes_max: send_bytes_max,
        response_bytes_max: receive_bytes_max,
        ..defaults
    };
    let interval = values.duration("dial-keepalive-time");
    if !interval.is_zero() {
        config.keep_alive = Some((interval, values.duration("dial-keepalive-timeout")));
    }
    let mut metrics_tls = None;
    if let Some(info) = &info {
        check_nameless(&info.cert_file)?;
        config.security = Security::tls(info).map_err(|error| error.to_string())?;
        let tls = ClientTls::new(info).map_err(|error| error.to_string())?;
        metrics_tls = Some(tls.offering(&["http/1.1"]));
        info!("tls-info" = %info, "gRPC proxy client TLS");
    }
    let client = |config: &Config| Client::new(config.clone()).map_err(|error| error.to_string());
    let upstream = Upstream::new(client(&config)?, send_bytes_max, receive_bytes_max);
    let (cache, metrics) = (Arc::new(Cache::default()), Arc::new(Metrics::default()));
    let namespace = Namespace::new(values.text("namespace"));
    let is_ordered = values.is_set("experimental-serializable-ordering");
    let order = is_ordered.then(|| Arc::new(Order::new(upstream.clone())));
    let hub = Hub::new(upstream.clone(), Arc::clone(&metrics));
    let kv = KvProxy {
        upstream: upstream.clone(),
        namespace: namespace.clone(),
        cache: Arc::clone(&cache),
        metrics: Arc::clone(&metrics),
        order: order.clone(),
    };
    let watch = WatchProxy {
        hub: hub.clone(),
        namespace: namespace.clone(),
    };
    let lease = LeaseProxy {
        upstream: upstream.clone(),
        namespace,
        renewals: Renewals::new(upstream.clone()),
    };
    Ok(House {
        kv: KvServer::new(kv).max_decoding_message_size(REQUEST_BYTES_MAX),
        watch: WatchServer::new(watch).max_decoding_message_size(REQUEST_BYTES_MAX),
        lease: LeaseServer::new(lease).max_decoding_message_size(REQUEST_BYTES_MAX),
        members: Members {
            own_address: values.text("advertise-client-url").to_owned(),
            // As etcd's, a proxy writes itself where its clients write.
            prefix: match values.text("resolver-prefix") {
                "" => String::new(),
                prefix => format!("{}{prefix}", values.text("namespace")),
            },
            name: host_name(),
            client: Arc::new(client(&config)?),
        },
        upstream: upstream.clone(),
        order,
        pages: Pages {
            upstream,
            hub,
            cache,
            metrics,
            profiled: values.is_set("enable-pprof").then(|| arguments.to_vec()),
            tls: metrics_tls,
            asked: AtomicUsize::new(0),
        },
        streams_max: u32::try_from(values.number("max-concurrent-streams"))
            .unwrap_or(STREAMS_MAX)
            .min(STREAMS_MAX),
        keepalive_interval: Some(values.duration("grpc-keepalive-interval"))
            .filter(|interval| !interval.is_zero()),
        keepalive_timeout: match values.duration("grpc-keepalive-timeout") {
            Duration::ZERO => FOREVER,
            timeout => timeout,
        },
    })
}

/// A certificate that names a user would lend that user's name to everybody who comes through the proxy.
fn check_nameless(cert_file: &str) -> Result<(), String> {
    if cert_file.is_empty() {
        return Ok(());
    }
    let certificates = CertificateDer::pem_file_iter(cert_file)
        .map_err(|error| format!("open {cert_file}: {error}"))?;
    // The first one is the proxy's; those behind it signed it.
    if let Some(certificate) = certificates.flatten().next() {
        let name = PeerCertificate::parse(&certificate).map(|parsed| parsed.common_name);
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            return Err(format!(
                "cert has non empty Common Name ({name}): {cert_file}"
            ));
        }
    }
    Ok(())
}

/// How members are spoken to; in plain text if nothing is said of it.
fn client_tls(values: &Values) -> Option<TlsInfo> {
    let info = TlsInfo {
        trusted_ca_file: values.text("cacert").to_owned(),
        cert_file: values.text("cert").to_owned(),
        key_file: values.text("key").to_owned(),
        insecure_skip_verify: values.is_set("insecure-skip-tls-verify"),
        ..TlsInfo::default()
    };
    if info.insecure_skip_verify {
        warn!(
            "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server TLS \
             certificates. This option should be enabled only for testing purposes."
        );
    }
    let is_asked =
        !info.is_empty() || !info.trusted_ca_file.is_empty() || info.insecure_skip_verify;
    is_asked.then_some(info)
}

/// How clients speak to the proxy; in plain text if nothing is said of it.
fn server_tls(values: &Values) -> Result<Option<ServerTls>, String> {
    let mut info = TlsInfo {
        trusted_ca_file: values.text("trusted-ca-file").to_owned(),
        cert_file: values.text("cert-file").to_owned(),
        key_file: values.text("key-file").to_owned(),
        ..TlsInfo::default()
    };
    if info.is_empty() && info.trusted_ca_file.is_empty() {
        if !values.is_set("auto-tls") {
            return Ok(None);
        }
        let directory = PathBuf::from(values.text("data-dir")).join("fixtures/proxy");
        let listen = values.text("listen-addr");
        let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
        let years = values.number("self-signed-cert-validity").unsigned_abs();
        let made = self_signed::certificate(&directory, &[host.to_owned()], years);
        info = made.map_err(|error| error.to_string())?;
    }
    info.crl_file = values.text("client-crl-file").to_owned();
    info.cipher_suites = values.list("listen-cipher-suites");
    let version = |name| TlsVersion::parse(values.text(name)).map_err(|error| error.to_string());
    info.min_version = version("tls-min-version")?;
    info.max_version = version("tls-max-version")?;
    info!("tls-info" = %info, "gRPC proxy server TLS");
    let tls = ServerTls::new(&info).map_err(|error| error.to_string())?;
    Ok(Some(tls))
}

/// The name of this machine.
fn host_name() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
    read.map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_names_a_user_is_not_shown_to_members() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let write = |name: Option<&str>| {
            let mut parameters = rcgen::CertificateParams::default();
            parameters.distinguished_name = rcgen::DistinguishedName::new();
            if let Some(name) = name {
                let subject = &mut parameters.distinguished_name;
                subject.push(rcgen::DnType::CommonName, name);
            }
            let key = rcgen::KeyPair::generate().expect("a key");
            let certificate = parameters.self_signed(&key).expect("a certificate");
            let path = directory.path().join("cert.pem");
            std::fs::write(&path, certificate.pem()).expect("written");
            path.to_str().expect("it is text").to_owned()
        };
        assert_eq!(check_nameless(&write(None)), Ok(()));
        let refused = check_nameless(&write(Some("alice"))).expect_err("it has a name");
        assert!(refused.starts_with("cert has non empty Common Name (alice): "));
    }
}
