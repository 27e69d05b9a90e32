//! The lines that tools and people wait for, in etcd's words: test harnesses look for
//! `ready to serve client requests`, dashboards for the others.

use std::time::Duration;

use quorate_core::node::{Applied, Forced};
use quorate_core::types::{ClusterId, MemberId, Revision};
use quorate_core::wal::Metadata;
use tracing::{error, info, warn};

use super::FATAL;
use crate::bootstrap::DiscoveryError;
use crate::config::{
    Config, Discovery, ETCD_VERSION, Notice, NoticeLevel, Refusal, duration_text, texts,
};

/// What a client listener carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Both on one port.
    GrpcAndHttp,
    /// gRPC alone.
    Grpc,
    /// HTTP alone.
    Http,
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// How the process was called.
pub fn running(arguments: &[String]) {
    info!(args = ?arguments, "Running: ");
}

/// What was remarkable about the configuration.
pub fn notices(notices: &[Notice]) {
    for notice in notices {
        let fields: serde_json::Map<_, _> = notice
            .fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
            .collect();
        let more = serde_json::Value::Object(fields).to_string();
        match notice.level {
            NoticeLevel::Info => info!(more, "{}", notice.message),
            NoticeLevel::Warn => warn!(more, "{}", notice.message),
        }
    }
}

/// Why the configuration cannot be run: the last lines before the exit.
pub fn refused(refusal: &Refusal, arguments: &[String]) {
    notices(&refusal.notices);
    if let Some(variable) = &refusal.shadowed_variable {
        error!(
            target: FATAL,
            { "environment-variable" = %variable },
            "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
             environment variable or disable flag))"
        );
        return;
    }
    running(arguments);
    warn!(error = %refusal.error, "failed to verify flags");
}

/// The other members are lost, and this one goes on without them.
pub(crate) fn forcing_new_cluster(own: Metadata, forced: &Forced) {
    let removed: Vec<_> = forced.removed.iter().map(|id| hex(id.0)).collect();
    info!(
        "cluster-id" = hex(own.cluster.0),
        "local-member-id" = hex(own.member.0),
        "removed-members" = removed.join(","),
        "number-of-discarded-entries" = forced.dropped,
        "forcing restart member"
    );
}

/// The others were not found; the token is of no use any more.
pub(crate) fn discovery_failed(discovery: &Discovery, error: &DiscoveryError) {
    warn!(
        "discovery-token" = discovery.token,
        "discovery-endpoints" = ?discovery.endpoints,
        %error,
        "failed to bootstrap; discovery token was already used"
    );
    warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
}

/// Whether there is data already, before it is opened.
pub fn data_directory(config: &Config, member_initialized: bool) {
    let directory = config.data_dir.display().to_string();
    if member_initialized {
        info!(
            "data-dir" = directory,
            "dir-type" = "member",
            "server has already been initialized"
        );
    } else {
        info!(
            "data-dir" = directory,
            "dir-type" = "empty",
            "Initialize and start etcd server"
        );
    }
}

/// The whole configuration, once before the start.
pub fn starting(config: &Config, member_initialized: bool) {
    info!(
        "quorate-version" = env!("CARGO_PKG_VERSION"),
        "etcd-version" = ETCD_VERSION,
        "max-cpu-available" = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
        "member-initialized" = member_initialized,
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "wal-dir" = %config.wal_dir().display(),
        "member-dir" = %config.data_dir.join("member").display(),
        "heartbeat-interval" = duration_text(config.heartbeat_interval),
        "election-timeout" = duration_text(config.election_timeout()),
        "initial-advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
        "listen-peer-urls" = ?texts(&config.listen_peer_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "listen-client-urls" = ?texts(&config.listen_client_urls),
        "listen-metrics-urls" = ?texts(&config.listen_metrics_urls),
        cors = ?config.cors,
        "host-whitelist" = ?config.host_whitelist,
        "initial-cluster" = config.initial_cluster,
        "initial-cluster-state" = if config.joins_existing_cluster { "existing" } else { "new" },
        "initial-cluster-token" = config.initial_cluster_token,
        "quota-backend-bytes" = config.quota_bytes,
        "max-request-bytes" = config.max_request_bytes as u64,
        "max-concurrent-streams" = u64::from(config.max_concurrent_streams),
        "pre-vote" = config.pre_vote,
        "starting an etcd server"
    );
}

/// The ids of this member, once they are known.
pub fn starting_member(member: MemberId, cluster: ClusterId) {
    info!(
        "local-member-id" = hex(member.0),
        "cluster-id" = hex(cluster.0),
        "starting local member"
    );
}

/// This member is known to the cluster under its name and client URLs.
pub fn published(member: MemberId, cluster: ClusterId, config: &Config) {
    info!(
        "local-member-id" = hex(member.0),
        "local-member-attributes" =
            %format!("{{Name:{} ClientURLs:[{}]}}", config.name, texts(&config.advertise_client_urls).join(" ")),
        "cluster-id" = hex(cluster.0),
        "publish-timeout" = duration_text(config.request_timeout()),
        "published local member to cluster through raft"
    );
}

/// The line that test harnesses wait for.
pub fn ready_to_serve_client_requests() {
    info!("ready to serve client requests");
}

impl Traffic {
    fn as_str(self) -> &'static str {
        match self {
            Self::GrpcAndHttp => "grpc+http",
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// A client listener is open, for TLS.
pub fn serving_clients_securely(traffic: Traffic, address: &str) {
    let traffic = traffic.as_str();
    info!(traffic, address, "serving client traffic securely");
}

/// A client listener is open, in plain text.
pub fn serving_clients_insecurely(traffic: Traffic, address: &str) {
    let traffic = traffic.as_str();
    info!(
        traffic,
        address, "serving client traffic insecurely; this is strongly discouraged!"
    );
}

/// A peer listener is open.
pub fn serving_peers(address: &str) {
    info!(address, "serving peer traffic");
}

/// A metrics listener is open.
pub fn serving_metrics(url: &str) {
    info!(address = url, "serving metrics");
}

/// The end of the start sequence.
pub fn now_serving(member: MemberId, config: &Config) {
    info!(
        "local-member-id" = hex(member.0),
        "initial-advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
        "listen-peer-urls" = ?texts(&config.listen_peer_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "listen-client-urls" = ?texts(&config.listen_client_urls),
        "listen-metrics-urls" = ?texts(&config.listen_metrics_urls),
        "now serving peer/client/metrics"
    );
}

/// A signal asks for the end; `signal` as Go names it: `interrupt`, `terminated`.
pub fn received_signal(signal: &str) {
    info!(signal, "received signal; shutting down");
}

/// The shutdown begins.
pub fn closing(config: &Config) {
    closing_line(config, false);
}

/// The shutdown is complete.
pub fn closed(config: &Config) {
    closing_line(config, true);
}

fn closing_line(config: &Config, done: bool) {
    info!(
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "{} etcd server",
        if done { "closed" } else { "closing" }
    );
}

/// Why the process ends although nobody asked; the caller then exits with 1.
pub fn fatal(message: &str, error: &dyn std::fmt::Display) {
    error!(target: FATAL, error = %error, "{message}");
}

/// The rows below this revision are gone.
pub fn finished_compaction(revision: Revision, took: Duration) {
    info!(
        "compact-revision" = revision.0,
        took = duration_text(took),
        "finished scheduled compaction"
    );
}

/// A request took longer to be applied than `--warning-apply-duration`.
pub fn slow_apply(applied: &Applied, expected: Duration) {
    warn!(
        took = duration_text(applied.took),
        "expected-duration" = duration_text(expected),
        prefix = "",
        request = applied.operation,
        succeeded = applied.succeeded,
        "apply request took too long"
    );
}

/// A unary call took longer than `--warning-unary-request-duration`.
pub fn slow_unary(path: &str, took: Duration, code: i32) {
    warn!(
        "time spent" = duration_text(took),
        "response type" = path,
        code,
        "request stats"
    );
}

/// A sync of the log took longer than a second.
pub fn slow_fdatasync(took: Duration) {
    warn!(
        took = duration_text(took),
        "expected-duration" = "1s",
        "slow fdatasync"
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, steady};
    use super::*;
    use crate::config::{LogConfig, Outcome, parse};

    fn config(line: &str) -> Config {
        let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&arguments, &[]) {
            Outcome::Run(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn lines(work: impl FnOnce()) -> Vec<String> {
        logged(&LogConfig::default(), work)
            .iter()
            .map(|line| steady(line))
            .collect()
    }

    #[test]
    fn the_awaited_lines_read_as_etcds() {
        let config = config("--name=m1 --data-dir=d1");
        let lines = lines(|| {
            ready_to_serve_client_requests();
            serving_clients_insecurely(Traffic::GrpcAndHttp, "127.0.0.1:23790");
            now_serving(MemberId(0x2e12_59d4_15f2_a040), &config);
            received_signal("terminated");
            closed(&config);
        });
        let urls = r#"["http://localhost:2380"],"#;
        assert_eq!(
            lines,
            [
                r#"{"level":"info","ts":"TS","caller":"log/lines.rs","msg":"ready to serve client requests"}"#.to_owned(),
                r#"{"level":"info","ts":"TS","caller":"log/lines.rs","msg":"serving client traffic insecurely; this is strongly discouraged!","traffic":"grpc+http","address":"127.0.0.1:23790"}"#.to_owned(),
                format!(
                    r#"{{"level":"info","ts":"TS","caller":"log/lines.rs","msg":"now serving peer/client/metrics","local-member-id":"2e1259d415f2a040","initial-advertise-peer-urls":{urls}"listen-peer-urls":{urls}"advertise-client-urls":["http://localhost:2379"],"listen-client-urls":["http://localhost:2379"],"listen-metrics-urls":[]}}"#
                ),
                r#"{"level":"info","ts":"TS","caller":"log/lines.rs","msg":"received signal; shutting down","signal":"terminated"}"#.to_owned(),
                format!(
                    r#"{{"level":"info","ts":"TS","caller":"log/lines.rs","msg":"closed etcd server","name":"m1","data-dir":"d1","advertise-peer-urls":{urls}"advertise-client-urls":["http://localhost:2379"]}}"#
                ),
            ]
        );
    }

    #[test]
    fn a_refused_configuration_says_how_it_was_called_and_why() {
        let arguments = ["quorate".to_owned(), "foo".to_owned()];
        let Outcome::Refused(refusal) = parse(&arguments[1..], &[]) else {
            panic!()
        };
        assert_eq!(
            lines(|| refused(&refusal, &arguments)),
            [
                r#"{"level":"info","ts":"TS","caller":"log/lines.rs","msg":"Running: ","args":["quorate","foo"]}"#,
                r#"{"level":"warn","ts":"TS","caller":"log/lines.rs","msg":"failed to verify flags","error":"\"foo\" is not a valid flag"}"#,
            ]
        );
        let environment = [
            ("ETCD_NAME".to_owned(), "a".to_owned()),
            ("ETCD_X".to_owned(), "1".to_owned()),
        ];
        let Outcome::Refused(refusal) = parse(&["--name=b".to_owned()], &environment) else {
            panic!()
        };
        let shadowed = lines(|| refused(&refusal, &arguments));
        assert!(
            shadowed[0].starts_with(r#"{"level":"fatal","#)
                && shadowed[0].ends_with(r#""environment-variable":"ETCD_NAME"}"#)
        );
    }

    #[test]
    fn notices_carry_their_own_fields() {
        let notice = config("--name=m1").notices.pop().unwrap();
        assert_eq!(
            lines(|| notices(&[notice])),
            [
                r#"{"level":"warn","ts":"TS","caller":"log/lines.rs","msg":"'data-dir' was empty; using default","data-dir":"m1.etcd"}"#
            ]
        );
    }
}
