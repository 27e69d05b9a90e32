//! What is checked for every call before its message is decoded.

use http::{HeaderMap, HeaderValue, Response};
use quorate_core::error::RequestError;
use tonic::body::Body;

use crate::io::core;
use crate::state::ServerState;

/// The calls that a learner may get; a linearizable Range is refused once it is decoded.
const LEARNER_PATHS: [&str; 3] = [
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// Refuses a call that cannot be served now, in etcd's order.
pub(super) fn admit(
    state: &ServerState,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), RequestError> {
    if let Some(version) = headers.get("client-api-version")
        && std::str::from_utf8(version.as_bytes()).is_err()
    {
        return Err(RequestError::InvalidClientAPIVersion);
    }
    if state.is_learner() && !LEARNER_PATHS.contains(&path) {
        return Err(RequestError::NotSupportedForLearner);
    }
    if requires_leader(headers) && state.leader().is_none() {
        return Err(RequestError::NoLeader);
    }
    if core::is_overloaded() && path != "/etcdserverpb.Maintenance/Status" {
        return Err(RequestError::RequestTooManyRequests);
    }
    Ok(())
}

/// Whether the caller wants an error rather than to wait for a leader.
pub(super) fn requires_leader(headers: &HeaderMap) -> bool {
    headers
        .get("hasleader")
        .is_some_and(|value| value == "true")
}

/// Gives the refusal of a message over the receive limit the code and text that etcd's clients know.
pub(super) fn reword_too_large(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    if headers.get("grpc-status").is_none_or(|code| code != "11") {
        return;
    }
    let Some(numbers) = headers.get("grpc-message").and_then(too_large_numbers) else {
        return;
    };
    let message = format!(
        "grpc:%20received%20message%20larger%20than%20max%20({}%20vs.%20{})",
        numbers.0, numbers.1
    );
    headers.insert("grpc-status", HeaderValue::from_static("8"));
    headers.insert(
        "grpc-message",
        HeaderValue::try_from(message).expect("it is ASCII"),
    );
}

/// The size found and the limit, from tonic's text.
fn too_large_numbers(message: &HeaderValue) -> Option<(u64, u64)> {
    let text = message.to_str().ok()?;
    let text =
        text.strip_prefix("Error,%20decoded%20message%20length%20too%20large:%20found%20")?;
    let (found, rest) = text.split_once("%20bytes")?;
    let limit = rest
        .rsplit_once(':')?
        .1
        .trim_start_matches("%20")
        .trim_end_matches("%20bytes");
    Some((found.parse().ok()?, limit.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_large_messages_get_etcds_words() {
        let text = "Error, decoded message length too large: found 2097153 bytes, the limit is: 2097152 bytes";
        let mut response = tonic::Status::out_of_range(text).into_http::<Body>();
        reword_too_large(&mut response);
        let status = tonic::Status::from_header_map(response.headers()).expect("it is a status");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (2097153 vs. 2097152)"
        );
    }

    #[test]
    fn other_refusals_keep_their_words() {
        let mut response =
            tonic::Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
                .into_http::<Body>();
        reword_too_large(&mut response);
        let status = tonic::Status::from_header_map(response.headers()).expect("it is a status");
        assert_eq!(status.code(), tonic::Code::OutOfRange);
        assert_eq!(
            status.message(),
            "etcdserver: mvcc: required revision has been compacted"
        );
    }
}
