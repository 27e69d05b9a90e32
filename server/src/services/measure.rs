//! What is counted of every call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::log::lines;
use crate::metrics::{METHODS, MethodType, Metrics, method_index};
use crate::spans::{CallSpan, Spans};

/// One call that began.
pub(super) struct Call {
    /// The method's index in the table, if it is one that is counted.
    method: Option<usize>,
    began: Instant,
    /// If it is traced; far away, since calls are moved.
    span: Option<Box<CallSpan>>,
}

impl Call {
    /// Counts the beginning of a call, and begins its span if there are any.
    pub(super) fn begin(
        metrics: &Metrics,
        spans: Option<&Spans>,
        path: &str,
        headers: &HeaderMap,
    ) -> Self {
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
            began: Instant::now(),
            span: spans.and_then(|spans| spans.begin(path, headers)),
        }
    }

    /// Counts the end of a call; that of a stream which has only begun is counted when it is over. A unary call that
    /// took longer than `slow` is logged.
    pub(super) fn end(
        &mut self,
        metrics: &Arc<Metrics>,
        slow: Duration,
        response: &mut Response<Body>,
    ) {
        let refused = code_in(response.headers());
        let is_known_unary = self
            .method
            .is_some_and(|index| METHODS[index].kind == MethodType::Unary);
        let is_looked_at = self.method.is_some() || self.span.is_some();
        if is_looked_at && !is_known_unary && refused.is_none() {
            let ending = Ending {
                metrics: Arc::clone(metrics),
                method: self.method,
                began: self.began,
                code: None,
                span: self.span.take(),
            };
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Body::new(Counted { body, ending });
            return;
        }
        let code = refused.unwrap_or(0);
        if let Some(span) = self.span.take() {
            span.end(code);
        }
        let Some(index) = self.method else { return };
        let method = &METHODS[index];
        let core = metrics.core();
        let counted = core.method(index);
        let took = self.began.elapsed();
        counted.end(code, took);
        if method.kind == MethodType::Unary && took > slow {
            let path = format!("/{}/{}", method.service, method.name);
            lines::slow_unary(&path, took, code);
        }
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

fn code_in(headers: &HeaderMap) -> Option<i32> {
    let code = headers.get(Status::GRPC_STATUS)?;
    code.to_str().ok()?.parse().ok()
}

/// A stream of answers whose end is counted.
struct Counted {
    body: Body,
    ending: Ending,
}

/// Counts when it is dropped: a stream that its client leaves has no other end.
struct Ending {
    metrics: Arc<Metrics>,
    /// If it is one that is counted.
    method: Option<usize>,
    began: Instant,
    /// How it ended; none as long as it goes on.
    code: Option<i32>,
    span: Option<Box<CallSpan>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled as i32);
        if let Some(index) = self.method {
            let core = self.metrics.core();
            core.method(index).end(code, self.began.elapsed());
        }
        if let Some(span) = self.span.take() {
            span.end(code);
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.ending.code = code_in(trailers);
                }
            }
            Poll::Ready(Some(Err(broken))) => self.ending.code = Some(broken.code() as i32),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
