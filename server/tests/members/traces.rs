//! Traces of calls, as a collector gets them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use quorate_proto::etcdserverpb as pb;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::Member;

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    kept: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    grown: Arc<Notify>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.push(request.into_inner());
        self.grown.notify_one();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// One that listens, and where.
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let collector = Self::default();
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    /// All spans, by name and in the order of their end.
    fn spans(&self) -> Vec<Span> {
        let kept = self.kept.lock().expect("no holder panics");
        let scopes = kept.iter().flat_map(|request| &request.resource_spans);
        let scopes = scopes.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Waits until so many spans have come.
    async fn wait_for(&self, count: usize) {
        while self.spans().len() < count {
            self.grown.notified().await;
        }
    }

    /// What the member says of itself.
    fn resource(&self) -> Vec<(String, String)> {
        let kept = self.kept.lock().expect("no holder panics");
        let resource = kept[0].resource_spans[0].resource.clone();
        texts(&resource.expect("it is said").attributes)
    }
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let mut texts: Vec<_> = attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.clone().and_then(|value| value.value);
            match value {
                Some(Value::StringValue(text)) => (attribute.key.clone(), text),
                other => panic!("{}: {other:?}", attribute.key),
            }
        })
        .collect();
    texts.sort();
    texts
}

fn traced(address: &str, rate: &str) -> Member {
    let mut member = Member::cluster(1).remove(0).with(&[
        "--enable-distributed-tracing",
        "--distributed-tracing-address",
        address,
        "--distributed-tracing-service-name=store",
        "--distributed-tracing-instance-id=a",
        "--distributed-tracing-sampling-rate",
        rate,
    ]);
    member = member.with_variable("OTEL_BSP_SCHEDULE_DELAY", "200");
    member.start();
    member.wait_for_log("distributed tracing setup enabled");
    member
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A put whose caller is traced, is not, or says nothing.
async fn put(member: &Member, sampled: Option<bool>) {
    let mut request = Request::new(pb::PutRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    });
    if let Some(sampled) = sampled {
        let parent = format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled));
        let parent = parent.parse().expect("it is ASCII");
        request.metadata_mut().insert("traceparent", parent);
    }
    member.kv().await.put(request).await.expect("it is legal");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn without_a_rate_only_the_callers_decide_and_their_context_goes_on() {
    let (collector, address) = Collector::start().await;
    let mut member = traced(&address, "0");
    put(&member, None).await;
    put(&member, Some(false)).await;
    put(&member, Some(true)).await;
    // What waits is sent before the end.
    let ended = tokio::task::spawn_blocking(move || member.terminate()).await;
    assert!(ended.expect("no assertion fails").success());
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = &spans[0];
    assert_eq!(span.name, "etcdserverpb.KV/Put");
    assert_eq!(span.kind, 2, "of a server");
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id)),
        (TRACE.to_owned(), CALLER.to_owned())
    );
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    let fact = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        texts(&span.attributes),
        [
            fact("rpc.method", "etcdserverpb.KV/Put"),
            fact("rpc.response.status_code", "OK"),
            fact("rpc.system.name", "grpc"),
        ]
    );
    assert_eq!(
        collector.resource(),
        [
            fact("service.instance.id", "a"),
            fact("service.name", "store")
        ]
    );
}

#[tokio::test]
async fn a_rate_traces_whose_callers_say_nothing_and_each_span_has_its_code() {
    let (collector, address) = Collector::start().await;
    let mut member = traced(&address, "1000000");
    put(&member, None).await;
    put(&member, Some(false)).await;
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    let refused = member.lease().await.lease_revoke(revoke).await;
    refused.expect_err("there is no such lease");
    // A stream that its client leaves was cancelled.
    let (asking, requests) = tokio::sync::mpsc::channel(1);
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    let create = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    asking.send(create).await.expect("there is room");
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut events = member
        .watch()
        .await
        .watch(requests)
        .await
        .expect("it is legal")
        .into_inner();
    events.message().await.expect("it is created");
    drop((asking, events));
    collector.wait_for(3).await;
    let ended = tokio::task::spawn_blocking(move || member.terminate()).await;
    assert!(ended.expect("no assertion fails").success());

    let mut seen: Vec<_> = collector
        .spans()
        .iter()
        .map(|span| {
            let codes = texts(&span.attributes);
            let code = codes
                .iter()
                .find(|(key, _)| key == "rpc.response.status_code");
            (span.name.clone(), code.expect("each has one").1.clone())
        })
        .collect();
    seen.sort();
    let call = |name: &str, code: &str| (name.to_owned(), code.to_owned());
    assert_eq!(
        seen,
        [
            call("etcdserverpb.KV/Put", "OK"),
            call("etcdserverpb.Lease/LeaseRevoke", "NOT_FOUND"),
            call("etcdserverpb.Watch/Watch", "CANCELLED"),
        ]
    );
}

#[tokio::test]
async fn without_a_collector_a_member_serves_and_ends_all_the_same() {
    let address = format!("127.0.0.1:{}", crate::support::free_port());
    let mut member = traced(&address, "1000000");
    for _ in 0..20 {
        put(&member, None).await;
    }
    let ended = tokio::task::spawn_blocking(move || member.terminate()).await;
    assert!(ended.expect("no assertion fails").success());
}
