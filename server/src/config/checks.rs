//! Which settings fit together: etcd's checks in etcd's order and words, then what this version cannot do yet.

use std::time::Duration;

use super::flags::Support;
use super::go_syntax::{duration_text, parse_duration};
use super::notice::Notice;
use super::settings::Settings;
use super::url::Url;
use super::{ConfigError, Origin};
use crate::compactor::Retention;

/// Elections may not take longer.
const ELECTION_MS_MAX: u64 = 50_000;
/// Larger requests are asked for at one's own risk.
const REQUEST_BYTES_RECOMMENDED: u64 = 10 << 20;
/// Larger quotas are asked for at one's own risk.
const QUOTA_BYTES_RECOMMENDED: i64 = 8 << 30;

/// Checks everything but the log's settings; gives what is worth a log line.
pub(super) fn check(settings: &Settings, origin: Origin) -> Result<Vec<Notice>, ConfigError> {
    let mut notices = Vec::new();
    if settings.text("discovery-fallback") == "proxy" {
        return Err(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\""
                .into(),
        );
    }
    check_urls(settings, &mut notices)?;
    check_cluster(settings)?;
    check_times(settings)?;
    check_advertised(settings, origin)?;
    check_compaction(settings)?;
    check_tracing_and_gates(settings)?;
    if settings.duration("compact-hash-check-time") <= 0 {
        let given = duration_text(settings.duration("compact-hash-check-time"));
        return Err(format!("--compact-hash-check-time must be >0 (set to {given})").into());
    }
    // etcd takes it, and panics when its ticker is made.
    if settings.duration("corrupt-check-time") < 0 {
        let given = duration_text(settings.duration("corrupt-check-time"));
        return Err(format!("--corrupt-check-time must be >=0 (set to {given})").into());
    }
    if settings.text("name") == "default" {
        notices.push(Notice::warn(
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into \
             issue when multiple members have the same default name",
            vec![("name", "default".to_owned())],
        ));
    }
    check_tls(settings)?;
    check_supported(settings, &mut notices)?;
    warn_about_sizes(settings, &mut notices);
    Ok(notices)
}

fn check_urls(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    check_bindable(&settings.urls("listen-peer-urls"))?;
    check_bindable(&settings.urls("listen-client-urls"))?;
    check_bindable(&settings.urls("listen-client-http-urls"))?;
    if settings.urls("listen-client-http-urls").is_empty() {
        let message =
            "Running http and grpc server on single port. This is not recommended for production.";
        notices.push(Notice::warn(message, Vec::new()));
    }
    check_bindable(&settings.urls("listen-metrics-urls"))?;
    check_reachable(&settings.urls("initial-advertise-peer-urls")).map_err(|reason| {
        let urls = settings.list("initial-advertise-peer-urls").join(",");
        format!("--initial-advertise-peer-urls {urls:?} must be \"host:port\" ({reason})")
    })?;
    check_reachable(&settings.urls("advertise-client-urls")).map_err(|reason| {
        let urls = settings.list("advertise-client-urls").join(",");
        format!(
            "--advertise-client-urls {urls:?} must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" ({reason})"
        )
    })?;
    Ok(())
}

/// One binds addresses, not names.
fn check_bindable(urls: &[Url]) -> Result<(), ConfigError> {
    match urls
        .iter()
        .find(|url| !url.scheme.is_unix() && url.host != "localhost" && url.ip().is_none())
    {
        Some(url) => Err(format!("expected IP in URL for binding ({url})").into()),
        None => Ok(()),
    }
}

fn check_reachable(urls: &[Url]) -> Result<(), String> {
    match urls
        .iter()
        .find(|url| !url.scheme.is_unix() && url.host.is_empty())
    {
        Some(url) => Err(format!("unexpected empty host ({url})")),
        None => Ok(()),
    }
}

fn check_cluster(settings: &Settings) -> Result<(), ConfigError> {
    let endpoints = settings.list("discovery-endpoints");
    let by_dns = !settings.text("discovery-srv").is_empty();
    // The default of --initial-cluster gives way to the other two.
    let given = settings.is_set("initial-cluster") && !settings.text("initial-cluster").is_empty();
    if [given, by_dns, !endpoints.is_empty()]
        .into_iter()
        .filter(|way| *way)
        .count()
        > 1
    {
        return Err(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                    \"discovery-endpoints\" or \"discovery-srv\""
                .into(),
        );
    }
    if settings.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".into());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".into());
    }
    Ok(())
}

fn check_times(settings: &Settings) -> Result<(), ConfigError> {
    let heartbeat_ms = settings.unsigned("heartbeat-interval");
    let election_ms = settings.unsigned("election-timeout");
    if heartbeat_ms == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".into());
    }
    if election_ms == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".into());
    }
    if heartbeat_ms.saturating_mul(5) > election_ms {
        return Err(format!(
            "--election-timeout[{election_ms}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat_ms}ms]"
        )
        .into());
    }
    if election_ms > ELECTION_MS_MAX {
        return Err(format!(
            "--election-timeout[{election_ms}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        )
        .into());
    }
    Ok(())
}

fn check_advertised(settings: &Settings, origin: Origin) -> Result<(), ConfigError> {
    let listens_unannounced = origin == Origin::CommandLine
        && settings.is_set("listen-client-urls")
        && !settings.is_set("advertise-client-urls");
    if listens_unannounced || settings.urls("advertise-client-urls").is_empty() {
        return Err(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                .into(),
        );
    }
    for (flag, urls) in [
        ("listen-peer-urls", settings.urls("listen-peer-urls")),
        ("listen-client-urls", settings.urls("listen-client-urls")),
        (
            "initial-advertise-peer-urls",
            settings.urls("initial-advertise-peer-urls"),
        ),
    ] {
        if urls.is_empty() {
            return Err(format!("--{flag} must not be empty").into());
        }
    }
    Ok(())
}

fn check_compaction(settings: &Settings) -> Result<(), ConfigError> {
    retention(settings).map(drop)
}

/// What is to be kept of the history. A number counts hours or revisions, as the mode says; a duration is one.
pub(super) fn retention(settings: &Settings) -> Result<Retention, ConfigError> {
    let text = settings.text("auto-compaction-retention");
    let by_revisions = match settings.text("auto-compaction-mode").as_str() {
        "periodic" => false,
        "revision" => true,
        "" => return Err("undefined auto-compaction-mode".into()),
        other => return Err(format!("unknown auto-compaction-mode {other:?}").into()),
    };
    let number = text.parse::<u32>().ok();
    let nanos = match number {
        Some(number) if by_revisions => i64::from(number),
        Some(hours) => i64::from(hours).saturating_mul(3_600_000_000_000),
        None if text.is_empty() => 0,
        None => parse_duration(&text).map_err(|_| {
            format!("error parsing CompactionRetention: time: invalid duration {text:?}")
        })?,
    };
    Ok(match u64::try_from(nanos) {
        Ok(0) | Err(_) => Retention::All,
        Ok(_) if by_revisions => Retention::Revisions(nanos),
        Ok(nanos) => Retention::Time(Duration::from_nanos(nanos)),
    })
}

fn check_tracing_and_gates(settings: &Settings) -> Result<(), ConfigError> {
    let rate = settings.signed("distributed-tracing-sampling-rate");
    if settings.bool("enable-distributed-tracing") && !(0..=1_000_000).contains(&rate) {
        let bound = if rate < 0 {
            "must be positive"
        } else {
            "must be less than 1000000"
        };
        return Err(format!(
            "distributed tracing configurition is not valid: (tracing sampling rate {bound})"
        )
        .into());
    }
    let gates = settings.gates();
    if gates.enabled("LeaseCheckpointPersist") && !gates.enabled("LeaseCheckpoint") {
        return Err(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint".into()
        );
    }
    Ok(())
}

fn check_tls(settings: &Settings) -> Result<(), ConfigError> {
    let versions = ["TLS1.2", "TLS1.3"];
    let rank = |flag: &str| {
        let version = settings.text(flag);
        let rank = versions.iter().position(|known| *known == version);
        match (rank, version.is_empty()) {
            (None, false) => Err(ConfigError(format!(
                "unexpected TLS version {version:?} (must be one of: TLS1.2, TLS1.3)"
            ))),
            (rank, _) => Ok(rank),
        }
    };
    let (min, max) = (rank("tls-min-version")?, rank("tls-max-version")?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        let message = format!(
            "min version ({}) is greater than max version ({})",
            versions[min], versions[max]
        );
        return Err(message.into());
    }
    if min == Some(1) && !settings.list("cipher-suites").is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".into());
    }
    check_listeners(settings)
}

/// etcd finds these when it opens its listeners.
fn check_listeners(settings: &Settings) -> Result<(), ConfigError> {
    let client_urls = settings.urls("listen-client-urls");
    let http_urls = settings.urls("listen-client-http-urls");
    let no_certificate =
        settings.text("cert-file").is_empty() && settings.text("key-file").is_empty();
    let without = no_certificate && !settings.bool("auto-tls");
    if without
        && let Some(url) = client_urls
            .iter()
            .chain(&http_urls)
            .find(|url| url.scheme.is_tls())
    {
        return Err(format!(
            "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
        )
        .into());
    }
    if let Some(url) = http_urls.iter().find(|url| {
        client_urls
            .iter()
            .any(|other| other.address() == url.address())
    }) {
        return Err(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        )
        .into());
    }
    if without
        && settings
            .urls("listen-metrics-urls")
            .iter()
            .any(|url| url.scheme.is_tls())
    {
        return Err(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
                .into(),
        );
    }
    Ok(())
}

/// Asks for a defragmentation at the start.
const DEFRAGMENT_FROM: &str = "bootstrap-defrag-threshold-megabytes";

/// What etcd says of flags whose end is near, in its words.
const DEPRECATED: [(&str, &str); 2] = [
    (
        "max-snapshots",
        "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
    ),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user \
         input.",
    ),
];

/// Nothing that was asked for may be left out silently.
fn check_supported(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    for flag in settings.set_flags() {
        if let Some((_, message)) = DEPRECATED.iter().find(|(name, _)| *name == flag.name) {
            notices.push(Notice::warn(message, Vec::new()));
        }
        match flag.support {
            Support::NotYet if settings.is_changed(flag) => {
                return Err(format!("--{} is not supported yet by this version", flag.name).into());
            }
            // In etcd's words, since tools look for them.
            Support::NoEffect(reason) if flag.name == DEFRAGMENT_FROM => {
                notices.push(Notice::info(
                    "Skipping defragmentation",
                    vec![("reason", reason.to_owned())],
                ))
            }
            Support::NoEffect(reason) if settings.is_changed(flag) => notices.push(Notice::warn(
                "flag has no effect",
                vec![
                    ("flag", format!("--{}", flag.name)),
                    ("reason", reason.to_owned()),
                ],
            )),
            Support::Obsolete => notices.push(Notice::warn(
                "flag is no longer supported - ignoring",
                vec![("flag-name", flag.name.to_owned())],
            )),
            Support::Works | Support::NotYet | Support::NoEffect(_) => {}
        }
    }
    if let Some(gate) = settings
        .gates()
        .changed()
        .find(|gate| gate.support == Support::NotYet)
    {
        return Err(format!(
            "feature gate {} is not supported yet by this version",
            gate.name
        )
        .into());
    }
    Ok(())
}

/// etcd keeps so many file descriptors for itself and does not start with fewer.
const FILE_DESCRIPTORS_RESERVED: u64 = 150;

/// Whether the system lets this process open enough files; nothing is known about some systems.
pub(super) fn check_file_descriptors(limit: Option<u64>) -> Result<(), ConfigError> {
    match limit {
        Some(limit) if limit <= FILE_DESCRIPTORS_RESERVED => Err(format!(
            "file descriptor limit of etcd process is too low; please set higher (limit {limit}, recommended \
             {FILE_DESCRIPTORS_RESERVED})"
        )
        .into()),
        Some(_) | None => Ok(()),
    }
}

fn warn_about_sizes(settings: &Settings, notices: &mut Vec<Notice>) {
    let request_bytes = settings.unsigned("max-request-bytes");
    if request_bytes > REQUEST_BYTES_RECOMMENDED {
        notices.push(Notice::warn(
            "exceeded recommended request limit",
            vec![
                ("max-request-bytes", request_bytes.to_string()),
                (
                    "recommended-request-bytes",
                    REQUEST_BYTES_RECOMMENDED.to_string(),
                ),
            ],
        ));
    }
    let quota_bytes = settings.signed("quota-backend-bytes");
    if quota_bytes > QUOTA_BYTES_RECOMMENDED {
        notices.push(Notice::warn(
            "quota exceeds the maximum value",
            vec![
                ("quota-size-bytes", quota_bytes.to_string()),
                (
                    "quota-maximum-size-bytes",
                    QUOTA_BYTES_RECOMMENDED.to_string(),
                ),
            ],
        ));
    }
}
