//! Spans as etcd's library for gRPC makes them, by the SDK of OpenTelemetry.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use tokio::sync::oneshot;
use tonic::Code;

use crate::config::Tracing;

/// What a member waits at its end for the last spans to leave.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The header with the caller's context.
const PARENT: &str = "traceparent";

/// The way to the collector.
#[derive(Debug)]
pub struct Spans {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    propagator: TraceContextPropagator,
    /// Whether a call is traced only if its caller says so.
    by_caller_only: bool,
    /// Ends the thread of the connection when it goes.
    _connection: oneshot::Sender<()>,
}

impl Spans {
    /// Opens the way; it connects when there is something to send.
    ///
    /// # Errors
    /// When the address is none, or the system gives no thread.
    pub fn open(config: &Tracing) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("distributed tracing: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(&error))?;
        let exporter = {
            let _inside = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(format!("http://{}", config.address))
                .build()
                .map_err(|error| failed(&error))?
        };
        let (connection, closed) = oneshot::channel();
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                // The connection lives on this runtime until nobody needs it.
                let _ = runtime.block_on(closed);
            })
            .map_err(|error| failed(&error))?;
        let mut resource = Resource::builder_empty().with_service_name(config.service_name.clone());
        if !config.instance_id.is_empty() {
            let id = KeyValue::new("service.instance.id", config.instance_id.clone());
            resource = resource.with_attribute(id);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(Sampler::ParentBased(Box::new(sampler(config))))
            .build();
        Ok(Self {
            tracer: provider.tracer("quorate"),
            provider,
            propagator: TraceContextPropagator::new(),
            by_caller_only: config.sampled_of_a_million == 0,
            _connection: connection,
        })
    }

    /// The span of a call that begins, if it is to be traced.
    pub fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Box<CallSpan>> {
        if self.by_caller_only && !headers.contains_key(PARENT) {
            return None;
        }
        let caller = self
            .propagator
            .extract_with_context(&Context::new(), &Headers(headers));
        let name = path.strip_prefix('/').unwrap_or(path).to_owned();
        let builder = SpanBuilder::from_name(name.clone())
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.method", name),
                KeyValue::new("rpc.system.name", "grpc"),
            ]);
        let span = self.tracer.build_with_context(builder, &caller);
        span.is_recording().then(|| {
            Box::new(CallSpan {
                span,
                code: Code::Cancelled,
            })
        })
    }

    /// Sends what waits, for a moment.
    pub fn close(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_MAX) {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
}

fn sampler(config: &Tracing) -> Sampler {
    match config.sampled_of_a_million {
        0 => Sampler::AlwaysOff,
        rate => Sampler::TraceIdRatioBased(f64::from(rate) / 1e6),
    }
}

/// The metadata of a call.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// A call that is traced. One that is left without an answer was cancelled.
#[derive(Debug)]
pub struct CallSpan {
    span: Span,
    code: Code,
}

impl CallSpan {
    /// The call was answered.
    pub fn end(mut self: Box<Self>, code: i32) {
        self.code = Code::from(code);
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let name = canonical(self.code);
        self.span
            .set_attribute(KeyValue::new("rpc.response.status_code", name));
        if is_servers_fault(self.code) {
            self.span.set_status(Status::error(name));
        }
        self.span.end();
    }
}

/// What a caller asks wrongly is no error of the server.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn canonical(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
