//! What is counted of every call.

use std::time::Instant;

use http::{HeaderMap, Response};
use tonic::body::Body;

use crate::metrics::{METHODS, MethodType, Metrics, method_index};

/// One call that began.
pub(super) struct Call {
    /// The method's index in the table, if it is one that is counted.
    method: Option<usize>,
    begun: Instant,
}

impl Call {
    /// Counts the beginning of a call.
    pub(super) fn begin(metrics: &Metrics, path: &str, headers: &HeaderMap) -> Self {
        let method = method_index(path);
        if let Some(index) = method {
            let core = metrics.core();
            let counted = core.method(index);
            counted.started.increment();
            let kind = match METHODS[index].kind {
                MethodType::Unary => {
                    counted.received.increment();
                    "unary"
                }
                MethodType::ServerStream | MethodType::BidiStream => "stream",
            };
            let version = headers.get("client-api-version");
            core.client_request(version.and_then(|version| version.to_str().ok()), kind);
        }
        Self {
            method,
            begun: Instant::now(),
        }
    }

    /// Counts the end of a call, unless its answer is a stream that has only begun.
    pub(super) fn end(&self, metrics: &Metrics, response: &Response<Body>) {
        let Some(index) = self.method else { return };
        let refused = response.headers().get("grpc-status");
        let code = refused
            .and_then(|code| code.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        let method = &METHODS[index];
        if method.kind != MethodType::Unary && refused.is_none() {
            return;
        }
        let core = metrics.core();
        let counted = core.method(index);
        let took = self.begun.elapsed();
        counted.end(code, took);
        if code == 0 {
            counted.sent.increment();
        }
        if let Some(request_type) = request_type(method.name) {
            core.request_done(request_type, code == 0, took);
        }
        if method.name == "Range" {
            core.ranges.increment();
            core.range_done(code == 0, took);
        }
    }
}

/// How etcd calls the request of a method that goes through the log or reads.
fn request_type(method: &str) -> Option<&'static str> {
    Some(match method {
        "Range" => "Range",
        "Put" => "Put",
        "DeleteRange" => "DeleteRange",
        "Txn" => "Txn",
        "Compact" => "Compaction",
        "LeaseGrant" => "LeaseGrant",
        "LeaseRevoke" => "LeaseRevoke",
        "Alarm" => "Alarm",
        _ => return None,
    })
}
