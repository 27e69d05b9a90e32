//! The generated stubs over real TCP: unary, streaming, health, and the limits set where a server is built.

use std::net::SocketAddr;

use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_net::grpc::health::{HealthCheckRequest, HealthClient, ServingStatus, health_reporter};
use quorate_proto::etcdserverpb as pb;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

const DECODE_BYTES_MAX: usize = 1000;

/// Answers each range with the asked key, twice on a stream.
struct Echo;

fn echo(key: bytes::Bytes) -> pb::RangeResponse {
    let kv = quorate_proto::mvccpb::KeyValue {
        key,
        ..Default::default()
    };
    pb::RangeResponse {
        kvs: vec![kv],
        count: 1,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Kv for Echo {
    type RangeStreamStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<pb::RangeStreamResponse, Status>>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        Ok(Response::new(echo(request.into_inner().key)))
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let part = pb::RangeStreamResponse {
            range_response: Some(echo(request.into_inner().key)),
        };
        Ok(Response::new(tokio_stream::iter(vec![
            Ok(part.clone()),
            Ok(part),
        ])))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        Ok(Response::new(pb::PutResponse::default()))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }
}

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("bound");
    let (reporter, health) = health_reporter();
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    let kv = KvServer::new(Echo).max_decoding_message_size(DECODE_BYTES_MAX);
    let server = tonic::transport::Server::builder()
        .add_service(kv)
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

#[tokio::test]
async fn stubs_speak_to_each_other() {
    let mut client = KvClient::connect(format!("http://{}", start().await))
        .await
        .expect("connects");
    let request = pb::RangeRequest {
        key: "k".into(),
        ..Default::default()
    };
    let answer = client
        .range(request.clone())
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(answer, echo("k".into()));

    let stream = client
        .range_stream(request)
        .await
        .expect("answers")
        .into_inner();
    let parts: Vec<_> = stream
        .map(|part| part.expect("a part").range_response)
        .collect()
        .await;
    assert_eq!(parts, vec![Some(echo("k".into())), Some(echo("k".into()))]);
}

#[tokio::test]
async fn a_request_above_the_servers_limit_is_refused() {
    let mut client = KvClient::connect(format!("http://{}", start().await))
        .await
        .expect("connects");
    let put = |bytes: usize| pb::PutRequest {
        key: "k".into(),
        value: vec![0; bytes].into(),
        ..Default::default()
    };
    client
        .put(put(DECODE_BYTES_MAX / 2))
        .await
        .expect("is within the limit");
    let refused = client
        .put(put(DECODE_BYTES_MAX))
        .await
        .expect_err("is above the limit");
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn health_shows_what_was_reported() {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", start().await))
        .expect("a URL");
    let mut client = HealthClient::new(channel.connect().await.expect("connects"));
    let answer = client
        .check(HealthCheckRequest::default())
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(
        answer.status,
        i32::from(quorate_net::grpc::health::HealthStatus::NotServing)
    );
}
