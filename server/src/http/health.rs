//! `/health`, `/livez` and `/readyz`: what is checked and how the result is told.

use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{StatusCode, Uri};
use tracing::{debug, error, warn};

use super::{Answer, Member, error as error_answer, plain, query};
use crate::metrics::{Gauges, Metrics};

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, gauges: &Gauges, member: &impl Member) -> Result<(), String> {
        match self {
            Self::DataCorruption if gauges.alarms.iter().any(|(_, alarm)| *alarm == "CORRUPT") => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Self::NonLearner if gauges.is_learner => Err("not supported for learner".to_owned()),
            Self::LinearizableRead => member.linearizable_read().await,
            // A read at a revision of the store in memory cannot fail; that it is reached at all is the check.
            Self::DataCorruption | Self::NonLearner | Self::SerializableRead => Ok(()),
        }
    }
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

/// What one path checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    /// `livez` or `readyz`.
    kind: &'static str,
    checks: &'static [Check],
    /// Whether the path names a single check, where nothing can be left out.
    is_single: bool,
}

/// The checks at a path, if there are any.
pub(super) fn checks_at(path: &str) -> Option<Checks> {
    let (kind, name) = path
        .strip_prefix('/')?
        .split_once('/')
        .unwrap_or((&path[1..], ""));
    let (kind, checks) = match kind {
        "livez" => ("livez", LIVEZ),
        "readyz" => ("readyz", READYZ),
        _ => return None,
    };
    if path.len() == 1 + kind.len() {
        return Some(Checks {
            kind,
            checks,
            is_single: false,
        });
    }
    let index = checks.iter().position(|check| check.name() == name)?;
    Some(Checks {
        kind,
        checks: &checks[index..=index],
        is_single: true,
    })
}

/// Runs the checks that the query does not exclude and tells the result.
pub(super) async fn check(
    metrics: &Metrics,
    checks: Checks,
    uri: &Uri,
    member: &impl Member,
) -> Answer {
    let excluded = if checks.is_single {
        Vec::new()
    } else {
        excluded(uri)
    };
    let is_known = |name: &String| checks.checks.iter().any(|check| check.name() == name);
    let unknown: Vec<_> = excluded
        .iter()
        .filter(|name| !is_known(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        warn!(
            "missing-health-checks" = unknown.join(","),
            "some health checks cannot be excluded"
        );
    }
    let gauges = member.gauges();
    let mut report = String::new();
    let mut failed = false;
    for check in checks
        .checks
        .iter()
        .filter(|check| !excluded.iter().any(|name| name == check.name()))
    {
        let name = check.name();
        let result = check.run(&gauges, member).await;
        metrics.health_checked(checks.kind, name, result.is_ok());
        match result {
            Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                report.push_str(&format!("[-]{name} failed: {reason}\n"));
                failed = true;
            }
        }
    }
    let path = uri.path();
    if failed {
        error!(
            path,
            reason = report,
            "status-code" = 503,
            "Health check error"
        );
        return error_answer(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    debug!(
        path,
        reason = report,
        "status-code" = 200,
        "Health check OK"
    );
    let is_verbose = !query::values(uri.query(), "verbose").is_empty();
    let mut answer = plain(if is_verbose {
        report + "ok\n"
    } else {
        "ok\n".to_owned()
    });
    answer
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Answers `/health`.
pub(super) async fn health(metrics: &Metrics, uri: &Uri, member: &impl Member) -> Answer {
    let serializable = query::values(uri.query(), "serializable")
        .first()
        .is_some_and(|value| value == "true");
    let result = verdict(&excluded(uri), serializable, member).await;
    let (health, reason) = match &result {
        Ok(()) => ("true", ""),
        Err(reason) => ("false", reason.as_str()),
    };
    let reason = serde_json::to_string(reason).expect("a text is JSON");
    let body = format!("{{\"health\":\"{health}\",\"reason\":{reason}}}");
    if result.is_ok() {
        metrics.health_success.increment();
        return plain(body);
    }
    metrics.health_failures.increment();
    warn!(output = body, "status-code" = 503, "/health error");
    error_answer(StatusCode::SERVICE_UNAVAILABLE, &body)
}

async fn verdict(
    excluded: &[String],
    serializable: bool,
    member: &impl Member,
) -> Result<(), String> {
    let gauges = member.gauges();
    let is_excluded = |alarm: &str| excluded.iter().any(|name| name == alarm);
    if let Some((_, alarm)) = gauges.alarms.iter().find(|(_, alarm)| !is_excluded(alarm)) {
        warn!(alarm, "serving /health false due to an alarm");
        return Err(match *alarm {
            "NOSPACE" => "ALARM NOSPACE",
            "CORRUPT" => "ALARM CORRUPT",
            _ => "ALARM UNKNOWN",
        }
        .to_owned());
    }
    if serializable {
        return Ok(());
    }
    if !gauges.has_leader {
        warn!("serving /health false; no leader");
        return Err("RAFT NO LEADER".to_owned());
    }
    member.linearizable_read().await.map_err(|reason| {
        warn!(error = reason, "serving /health false; Range fails");
        format!("RANGE ERROR:{reason}")
    })
}

/// Logs a request with another method than GET.
pub(super) fn log_refused(path: &str) {
    match path {
        "/health" => warn!("status-code" = 405, "/health error"),
        path => warn!(path, "status-code" = 405, "Health request error"),
    }
}

fn excluded(uri: &Uri) -> Vec<String> {
    let mut names = query::values(uri.query(), "exclude");
    names.retain(|name| !name.is_empty());
    names
}
