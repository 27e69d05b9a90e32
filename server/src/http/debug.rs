//! `/debug/pprof/`: what runs in this process, at the paths and in the format of Go's profiles.
//!
//! Owns the paths, texts and headers. A profile of the processors is real; Go's other profiles tell of Go's runtime,
//! which is not here, and say so instead of pretending.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;

use super::query::values;
use super::{Answer, error};
use crate::profile::{self, ProfileError};

/// The path of the index.
pub(super) const PREFIX: &str = "/debug/pprof/";

/// As Go, unless `seconds` says otherwise.
const SECONDS_DEFAULT: u64 = 30;

/// Go's profiles, and what to look at instead of those that are not here.
const PROFILES: [(&str, &str); 11] = [
    (
        "allocs",
        "memory is not taken from a garbage collector, and allocations are not counted",
    ),
    (
        "block",
        "threads wait in queues of their own; see the metrics quorate_consensus_... and quorate_wal_...",
    ),
    ("cmdline", ""),
    (
        "goroutine",
        "there are no goroutines, and stacks of threads are in the profile of the processors",
    ),
    ("goroutineleak", "there are no goroutines"),
    (
        "heap",
        "memory is not taken from a garbage collector; see the metric process_resident_memory_bytes",
    ),
    ("mutex", "locks are not profiled"),
    ("profile", ""),
    ("symbol", "profiles carry the names of functions"),
    (
        "threadcreate",
        "threads are made at the start, and not profiled",
    ),
    (
        "trace",
        "Go's execution trace tells of goroutines; see --enable-distributed-tracing",
    ),
];

/// Whether a path is answered here.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(PREFIX) || Some(path) == PREFIX.strip_suffix('/')
}

/// The answer to a path that [`owns`] takes, in a process that was called like this.
pub(crate) async fn answer<B>(request: &Request<B>, arguments: &[String]) -> Answer {
    let Some(name) = request.uri().path().strip_prefix(PREFIX) else {
        return to_index();
    };
    match name {
        "" => with_type("text/html; charset=utf-8", index()),
        "cmdline" => with_type(super::TEXT, arguments.join("\0")),
        "profile" => processors(request).await,
        name => match PROFILES.iter().find(|(known, _)| *known == name) {
            Some((_, why)) => failed(
                StatusCode::NOT_IMPLEMENTED,
                &format!("There is no profile {name:?} here: {why}"),
            ),
            None => failed(StatusCode::NOT_FOUND, "Unknown profile"),
        },
    }
}

async fn processors<B>(request: &Request<B>) -> Answer {
    let seconds = values(request.uri().query(), "seconds")
        .first()
        .and_then(|seconds| seconds.parse().ok())
        .filter(|seconds| *seconds > 0)
        .unwrap_or(SECONDS_DEFAULT);
    match profile::cpu(Duration::from_secs(seconds)).await {
        Ok(bytes) => {
            let mut answer = with_type("application/octet-stream", bytes);
            answer.headers_mut().insert(
                header::CONTENT_DISPOSITION,
                HeaderValue::from_static("attachment; filename=\"profile\""),
            );
            answer
        }
        Err(error @ (ProfileError::InUse | ProfileError::Failed(_))) => failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("Could not enable CPU profiling: {error}"),
        ),
    }
}

fn index() -> String {
    let rows = PROFILES.iter().map(|(name, why)| match *why {
        "" => format!("<tr><td><a href='{name}'>{name}</a></td><td></td></tr>\n"),
        why => format!("<tr><td>{name}</td><td>{why}</td></tr>\n"),
    });
    format!(
        "<html>\n<head>\n<title>{PREFIX}</title>\n</head>\n<body>\n{PREFIX}\n<p>profile?seconds=30 is for \
         <code>go tool pprof</code> and all that reads its format.</p>\n<table>\n{}</table>\n</body>\n</html>\n",
        rows.collect::<String>()
    )
}

fn to_index() -> Answer {
    let mut answer = with_type(
        "text/html; charset=utf-8",
        format!("<a href=\"{PREFIX}\">Temporary Redirect</a>.\n\n"),
    );
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    answer
        .headers_mut()
        .insert(header::LOCATION, HeaderValue::from_static(PREFIX));
    answer
}

fn failed(code: StatusCode, text: &str) -> Answer {
    let mut answer = error(code, text);
    answer
        .headers_mut()
        .insert("x-go-pprof", HeaderValue::from_static("1"));
    answer
}

fn with_type(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer: Answer = Response::new(Full::new(body.into()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}
