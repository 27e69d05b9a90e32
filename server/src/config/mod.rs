//! What the user asked for: etcd's flags, environment variables and configuration file, read and checked.
//!
//! Owns the table of flags and the one [`Config`] that comes of it, which holds only plain values that were checked.
//! Never opens a socket or a data directory; the only looks outside are for this machine's address, when a member
//! listens everywhere and advertises nothing, and for the limit of open files.
//!
//! ```text
//! arguments ─┐                                   ┌─ Run(Config)      start a member
//! environment├─ settings ── checks ── Outcome ───┼─ Print(text)      stdout, exit 0
//! file ──────┘  (by the table of flags)          ├─ Misused(text)    stderr, exit 2
//!                                                └─ Refused(Refusal) a log line, exit 1
//! ```

mod bootstrap;
mod checks;
#[cfg(not(madsim))]
mod client_security;
mod command_line;
mod discovery;
#[cfg(test)]
mod documentation;
mod environment;
mod file;
mod flags;
mod gates;
mod go_syntax;
mod help;
mod logging;
mod notice;
#[cfg(not(madsim))]
mod peer_security;
mod settings;
#[cfg(not(madsim))]
mod tracing;
mod url;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use self::bootstrap::{default_host, resolve};
#[cfg(not(madsim))]
pub use self::client_security::ClientSecurity;
pub use self::discovery::{ByDns, Discovery};
pub use self::flags::Support;
pub use self::gates::{FeatureGates, GATES, Gate, Stage};
pub(crate) use self::go_syntax::{parse_bool, parse_duration as parse_go_duration};
pub use self::help::version_text;
pub use self::logging::{LogConfig, LogLevel, LogOutput, Rotation};
pub use self::notice::{Notice, NoticeLevel};
#[cfg(not(madsim))]
pub use self::peer_security::PeerSecurity;
#[cfg(not(madsim))]
pub use self::tracing::Tracing;
pub(crate) use self::url::parse_cluster;
pub use self::url::{Scheme, Url, texts};

use quorate_net::peer::limits;

use self::command_line::CommandLine;
use self::environment::{BadEnvironment, PREFIXES};
use self::settings::Settings;
use crate::compactor::Retention;

/// The version of etcd that Quorate is, to clients, peers and tools.
pub const ETCD_VERSION: &str = "3.7.1";

/// A duration as Go prints it, for log fields: `1h15m0s`, `300ms`.
pub fn duration_text(duration: Duration) -> String {
    go_syntax::duration_text(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// Reads a positive duration as Go writes it, for options inside of a flag.
pub(crate) fn go_duration(text: &str) -> Result<Duration, String> {
    let nanoseconds =
        go_syntax::parse_duration(text).map_err(|misread| misread.words().to_string())?;
    positive(nanoseconds).ok_or_else(|| format!("{text} is no time to live"))
}

/// A checked configuration of one member.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`.
    pub name: String,
    /// `--data-dir`, or `NAME.etcd`.
    pub data_dir: PathBuf,
    /// `--wal-dir`, if the log is not to lie in the data directory; see [`Config::wal_dir`].
    pub dedicated_wal_dir: Option<PathBuf>,

    /// `--listen-peer-urls`; IP addresses or localhost.
    pub listen_peer_urls: Vec<Url>,
    /// `--listen-client-urls`; IP addresses or localhost.
    pub listen_client_urls: Vec<Url>,
    /// `--listen-client-http-urls`: if there are any, the client URLs carry gRPC alone.
    pub listen_client_http_urls: Vec<Url>,
    /// `--listen-metrics-urls`: /metrics and the health checks, nothing else.
    pub listen_metrics_urls: Vec<Url>,
    /// `--initial-advertise-peer-urls`.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<Url>,

    /// `--initial-cluster` as written; read by [`Config::initial_peer_urls`] when there is no data yet.
    pub initial_cluster: String,
    /// `--initial-cluster-state`: false is "new".
    pub joins_existing_cluster: bool,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// Where the other first members are found, if the flags do not name them.
    pub discovery: Option<Discovery>,
    /// Where DNS lists the members of a new cluster, if it does.
    pub by_dns: Option<ByDns>,
    /// Whether all other members are lost, and this one is to go on without them.
    pub force_new_cluster: bool,

    /// `--unsafe-no-fsync`: whether nothing is ever synced to the disk.
    pub unsafe_no_fsync: bool,
    /// `--memory-mlock`: whether memory is kept from being swapped out.
    pub memory_mlock: bool,

    /// `--heartbeat-interval`: the length of one Raft tick.
    pub heartbeat_interval: Duration,
    /// `--election-timeout` in heartbeat intervals, rounded down as in etcd; at least 5.
    pub election_ticks: u32,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--auto-compaction-mode` and `--auto-compaction-retention`.
    pub retention: Retention,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--corrupt-check-time`; zero is never.
    pub corrupt_check_interval: Duration,
    /// `--compact-hash-check-time`.
    pub compact_hash_check_interval: Duration,
    /// `--feature-gates`.
    pub gates: FeatureGates,

    /// `--quota-backend-bytes` with 0 replaced by etcd's default; negative is off.
    pub quota_bytes: i64,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-concurrent-streams` of one connection.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-interval`; none is never.
    pub grpc_keepalive_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`; none is forever.
    pub grpc_keepalive_timeout: Option<Duration>,
    /// TLS with clients.
    #[cfg(not(madsim))]
    pub client_security: ClientSecurity,
    /// TLS between members.
    #[cfg(not(madsim))]
    pub peer_security: PeerSecurity,
    /// `--raft-read-timeout`, at least 5 s.
    pub raft_read_timeout: Duration,
    /// `--raft-write-timeout`, at least 5 s.
    pub raft_write_timeout: Duration,
    /// `--socket-reuse-port`.
    pub socket_reuse_port: bool,
    /// `--watch-progress-notify-interval`, at least 100 ms.
    pub watch_progress_notify_interval: Duration,
    /// `--warning-apply-duration`.
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`.
    pub warning_unary_request_duration: Duration,

    /// `--auth-token`: the kind of token and its options, not yet read.
    pub auth_token: String,
    /// `--auth-token-ttl`; zero is etcd's default.
    pub auth_token_ttl: Duration,
    /// `--bcrypt-cost`, from 4 to 31.
    pub bcrypt_cost: u32,

    /// `--enable-grpc-gateway`: JSON over HTTP below `/v3/`.
    pub gateway: bool,
    /// `--enable-pprof`, or a log of everything: whether `/debug/pprof/` is served.
    pub profiles: bool,
    /// `--cors`: origins, or `*`.
    pub cors: Vec<String>,
    /// `--host-whitelist`: host names, or `*`.
    pub host_whitelist: Vec<String>,
    /// `--metrics=extensive`: measure the duration of each gRPC method.
    pub metrics_extensive: bool,
    /// `--log-…`.
    pub log: LogConfig,
    /// `--distributed-tracing-…`, if traces are sent.
    #[cfg(not(madsim))]
    pub tracing: Option<Tracing>,

    /// What should be logged about the configuration once there is a log.
    pub notices: Vec<Notice>,
}

/// What comes of the arguments.
#[derive(Debug)]
pub enum Outcome {
    /// Start a member.
    Run(Box<Config>),
    /// Print to standard output and end well: help or version.
    Print(String),
    /// Print to standard error and exit with 2: no such flag or value.
    Misused(String),
    /// Log it and exit with 1.
    Refused(Refusal),
}

/// A configuration that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub error: ConfigError,
    /// A variable that a flag shadows: etcd then logs a line of its own.
    pub shadowed_variable: Option<String>,
    /// What should be logged before.
    pub notices: Vec<Notice>,
}

/// What is wrong with a configuration, in etcd's words where etcd refuses it too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl From<String> for ConfigError {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for ConfigError {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

/// Reads and checks `arguments` (without the program's name) and `environment`.
pub fn parse(arguments: &[String], environment: &[(String, String)]) -> Outcome {
    let command_line = match command_line::parse(arguments) {
        Ok(command_line) => command_line,
        Err(message) => return Outcome::Misused(format!("{message}\n{}", help::usage())),
    };
    let mut notices = Vec::new();
    let result = match command_line {
        CommandLine::Help => return Outcome::Print(help::flags_text()),
        CommandLine::Flags(settings) if settings.bool("version") => {
            return Outcome::Print(version_text());
        }
        CommandLine::Free(free) => Err(refuse(format!("{free:?} is not a valid flag"))),
        CommandLine::Flags(settings) => {
            run(settings, environment, &mut notices).and_then(|config| {
                let limit = crate::metrics::file_descriptor_limit();
                checks::check_file_descriptors(limit).map_err(refuse)?;
                Ok(config)
            })
        }
    };
    match result {
        Ok(mut config) => {
            config.notices.splice(0..0, notices);
            Outcome::Run(Box::new(config))
        }
        Err(refusal) => Outcome::Refused(Refusal { notices, ..refusal }),
    }
}

fn refuse(error: impl Into<ConfigError>) -> Refusal {
    Refusal {
        error: error.into(),
        shadowed_variable: None,
        notices: Vec::new(),
    }
}

fn run(
    mut settings: Settings,
    environment: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<Config, Refusal> {
    if let Some(path) = config_file(&settings, environment).map_err(refuse)? {
        let settings = file::read(&path, notices).map_err(refuse)?;
        return Config::new(&settings, Origin::File, default_host).map_err(refuse);
    }
    let environment = without_version(environment, notices);
    environment::apply(&mut settings, &environment, notices).map_err(|bad| match bad {
        BadEnvironment::Value(message) => refuse(message),
        BadEnvironment::Shadowed(variable) => Refusal {
            error: format!(
                "environment variable {variable} is shadowed by corresponding command-line flag"
            )
            .into(),
            shadowed_variable: Some(variable),
            notices: Vec::new(),
        },
    })?;
    Config::new(&settings, Origin::CommandLine, default_host).map_err(refuse)
}

/// The configuration file that was asked for, if any.
fn config_file(
    settings: &Settings,
    environment: &[(String, String)],
) -> Result<Option<String>, ConfigError> {
    let by_flag = settings.text("config-file");
    if !by_flag.is_empty() {
        return Ok(Some(by_flag));
    }
    Ok(environment::value_of(environment, "config-file")?.map(|(_, path)| path.to_owned()))
}

/// `ETCD_VERSION` is what containers are built with; it must not print the version and end.
fn without_version(
    environment: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Vec<(String, String)> {
    let is_version = |name: &str| {
        PREFIXES
            .iter()
            .any(|prefix| name.strip_prefix(prefix) == Some("VERSION"))
    };
    for (name, value) in environment
        .iter()
        .filter(|(name, value)| is_version(name) && !value.is_empty())
    {
        let fields = vec![("key", name.clone()), ("value", value.clone())];
        notices.push(Notice::warn(
            "cannot set special environment variable",
            fields,
        ));
    }
    environment
        .iter()
        .filter(|(name, _)| !is_version(name))
        .cloned()
        .collect()
}

/// Where settings come from, since etcd treats the two a little differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Flags and variables.
    CommandLine,
    /// A file, which replaces all of them.
    File,
}

/// What `--bcrypt-cost` may be.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=31;
/// What it is otherwise.
const BCRYPT_COST_DEFAULT: u32 = 10;
/// What `--quota-backend-bytes=0` means.
const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;
/// What `--watch-progress-notify-interval=0` means.
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
/// No faster than this.
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);

impl Config {
    /// Checks `settings` and gives them their meaning; `default_host` is asked for this machine's address.
    fn new(
        settings: &Settings,
        origin: Origin,
        default_host: impl FnOnce() -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let log = logging::log_config(settings)?;
        let notices = checks::check(settings, origin)?;
        let name = settings.text("name");
        let heartbeat_ms = settings.unsigned("heartbeat-interval");
        let mut config = Self {
            data_dir: match settings.text("data-dir") {
                directory if directory.is_empty() => format!("{name}.etcd").into(),
                directory => directory.into(),
            },
            dedicated_wal_dir: Some(settings.text("wal-dir"))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            listen_peer_urls: settings.urls("listen-peer-urls"),
            listen_client_urls: settings.urls("listen-client-urls"),
            listen_client_http_urls: settings.urls("listen-client-http-urls"),
            listen_metrics_urls: settings.urls("listen-metrics-urls"),
            initial_advertise_peer_urls: settings.urls("initial-advertise-peer-urls"),
            advertise_client_urls: settings.urls("advertise-client-urls"),
            initial_cluster: settings.text("initial-cluster"),
            joins_existing_cluster: settings.text("initial-cluster-state") == "existing",
            initial_cluster_token: settings.text("initial-cluster-token"),
            discovery: Discovery::new(settings),
            by_dns: ByDns::new(settings),
            force_new_cluster: settings.bool("force-new-cluster"),
            unsafe_no_fsync: settings.bool("unsafe-no-fsync"),
            memory_mlock: settings.bool("memory-mlock"),
            heartbeat_interval: Duration::from_millis(heartbeat_ms),
            election_ticks: u32::try_from(settings.unsigned("election-timeout") / heartbeat_ms)
                .expect("the election timeout has an upper bound"),
            pre_vote: settings.bool("pre-vote"),
            retention: checks::retention(settings)?,
            strict_reconfig_check: settings.bool("strict-reconfig-check"),
            max_learners: usize::try_from(settings.signed("max-learners")).unwrap_or(0),
            corrupt_check_interval: positive(settings.duration("corrupt-check-time"))
                .unwrap_or_default(),
            compact_hash_check_interval: positive(settings.duration("compact-hash-check-time"))
                .expect("it was checked"),
            gates: settings.gates(),
            quota_bytes: match settings.signed("quota-backend-bytes") {
                0 => QUOTA_BYTES_DEFAULT,
                bytes => bytes,
            },
            max_txn_ops: bounded(settings.unsigned("max-txn-ops")),
            max_request_bytes: bounded(settings.unsigned("max-request-bytes")),
            max_concurrent_streams: u32::try_from(settings.unsigned("max-concurrent-streams"))
                .expect("the table bounds it"),
            grpc_keepalive_interval: positive(settings.duration("grpc-keepalive-interval")),
            grpc_keepalive_timeout: positive(settings.duration("grpc-keepalive-timeout")),
            #[cfg(not(madsim))]
            client_security: ClientSecurity::new(settings)?,
            #[cfg(not(madsim))]
            peer_security: PeerSecurity::new(settings)?,
            raft_read_timeout: peer_timeout(settings.duration("raft-read-timeout")),
            raft_write_timeout: peer_timeout(settings.duration("raft-write-timeout")),
            socket_reuse_port: settings.bool("socket-reuse-port"),
            warning_apply_duration: positive(settings.duration("warning-apply-duration"))
                .unwrap_or_default(),
            warning_unary_request_duration: positive(
                settings.duration("warning-unary-request-duration"),
            )
            .unwrap_or_default(),
            watch_progress_notify_interval: match settings
                .duration("watch-progress-notify-interval")
            {
                0 => WATCH_PROGRESS_DEFAULT,
                nanoseconds => positive(nanoseconds)
                    .unwrap_or_default()
                    .max(WATCH_PROGRESS_MIN),
            },
            auth_token: settings.text("auth-token"),
            auth_token_ttl: Duration::from_secs(settings.unsigned("auth-token-ttl")),
            bcrypt_cost: BCRYPT_COST_DEFAULT,
            gateway: settings.bool("enable-grpc-gateway"),
            profiles: settings.bool("enable-pprof") || log.level == LogLevel::Debug,
            cors: settings.list("cors"),
            host_whitelist: settings.list("host-whitelist"),
            metrics_extensive: settings.text("metrics") == "extensive",
            log,
            #[cfg(not(madsim))]
            tracing: Tracing::new(settings),
            notices,
            name,
        };
        if settings.text("data-dir").is_empty() {
            let fields = vec![("data-dir", config.data_dir.display().to_string())];
            config
                .notices
                .push(Notice::warn("'data-dir' was empty; using default", fields));
        }
        if settings.bool("enable-pprof") {
            let fields = vec![("path", "/debug/pprof".to_owned())];
            config
                .notices
                .push(Notice::info("pprof is enabled", fields));
        }
        config.set_bcrypt_cost(settings.unsigned("bcrypt-cost"));
        config.advertise_default_host(default_host);
        config.begin_discovery();
        Ok(config)
    }

    fn set_bcrypt_cost(&mut self, cost: u64) {
        match u32::try_from(cost) {
            Ok(cost) if BCRYPT_COSTS.contains(&cost) => self.bcrypt_cost = cost,
            _ => self.notices.push(Notice::warn(
                "use default bcrypt cost instead of the invalid given cost",
                vec![
                    ("min-cost", BCRYPT_COSTS.start().to_string()),
                    ("max-cost", BCRYPT_COSTS.end().to_string()),
                    ("default-cost", BCRYPT_COST_DEFAULT.to_string()),
                    ("given-cost", cost.to_string()),
                ],
            )),
        }
    }

    /// `--election-timeout`, as far as it is whole heartbeat intervals.
    pub fn election_timeout(&self) -> Duration {
        self.heartbeat_interval * self.election_ticks
    }

    /// How long a request may take: 5 s for queues and disks and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout()
    }

    /// The shortest life of a lease in seconds: one and a half election timeouts, rounded up.
    pub fn min_lease_ttl(&self) -> i64 {
        let ticks = 3 * self.election_ticks / 2;
        i64::try_from((self.heartbeat_interval * ticks).as_millis().div_ceil(1000))
            .expect("under a day")
    }

    /// After how long without a leader watches that require one end.
    pub fn leader_loss_timeout(&self) -> Duration {
        3 * self.election_timeout()
    }

    /// The directory of the log files.
    pub fn wal_dir(&self) -> PathBuf {
        self.dedicated_wal_dir
            .clone()
            .unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    /// The directory of the database image.
    pub fn snap_dir(&self) -> PathBuf {
        self.data_dir.join("member").join("snap")
    }
}

fn bounded(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// etcd raises what is shorter than its default: the other side beats at that.
fn peer_timeout(nanoseconds: i64) -> Duration {
    positive(nanoseconds)
        .unwrap_or_default()
        .max(limits::IO_TIMEOUT)
}

/// The duration, or none when it is zero or negative.
fn positive(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds)
        .ok()
        .filter(|nanoseconds| *nanoseconds > 0)
        .map(Duration::from_nanos)
}

#[cfg(test)]
mod tests;
