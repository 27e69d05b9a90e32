//! The client library against small servers: failover, what is repeated, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_net::client::{Client, ClientError, Config, Endpoint};
use quorate_net::grpc::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_net::grpc::etcdserverpb::watch_server::{Watch, WatchServer};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::{Event, KeyValue};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

/// A server that refuses its first calls.
#[derive(Clone, Debug, Default)]
struct Store {
    calls: Arc<AtomicUsize>,
    refusals: usize,
    code: Option<Code>,
}

impl Store {
    fn refusing(refusals: usize, code: Code) -> Self {
        Self {
            refusals,
            code: Some(code),
            ..Self::default()
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn answer<T: Default>(&self) -> Result<Response<T>, Status> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.code {
            Some(code) if call < self.refusals => Err(Status::new(code, "etcdserver: not now")),
            _ => Ok(Response::new(T::default())),
        }
    }

    /// Serves on a port of its own.
    async fn serve(&self) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = Server::builder().add_service(KvServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address.to_string().parse().expect("an endpoint")
    }
}

#[tonic::async_trait]
impl Kv for Store {
    type RangeStreamStream = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

    async fn range(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.answer()
    }

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(2);
        for (key, count) in [("a", 0), ("b", 2)] {
            let kv = KeyValue {
                key: key.into(),
                ..KeyValue::default()
            };
            let piece = pb::RangeResponse {
                kvs: vec![kv],
                count,
                ..pb::RangeResponse::default()
            };
            let piece = pb::RangeStreamResponse {
                range_response: Some(piece),
            };
            sender.send(Ok(piece)).await.expect("room for two");
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        self.answer()
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.answer()
    }

    async fn txn(&self, _: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        self.answer()
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.answer()
    }
}

/// An endpoint that refuses connections: its port was ours a moment ago, and is nobody's.
async fn dead_endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    address.to_string().parse().expect("an endpoint")
}

fn client(endpoints: Vec<Endpoint>) -> Client {
    let config = Config {
        endpoints,
        ..Config::default()
    };
    Client::new(config).expect("a legal configuration")
}

fn txn(writes: bool) -> pb::TxnRequest {
    use pb::request_op::Request;
    let request = if writes {
        Request::RequestPut(pb::PutRequest::default())
    } else {
        Request::RequestRange(pb::RangeRequest::default())
    };
    pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(request),
        }],
        ..pb::TxnRequest::default()
    }
}

#[tokio::test]
async fn reads_and_writes_go_on_to_the_next_endpoint_when_the_first_is_dead() {
    let store = Store::default();
    let endpoints = vec![dead_endpoint().await, store.serve().await];
    let first = client(endpoints.clone());
    first.put(pb::PutRequest::default()).await.expect("a put");
    let second = client(endpoints);
    second
        .range(pb::RangeRequest::default())
        .await
        .expect("a range");
    assert_eq!(store.calls(), 2);
}

#[tokio::test]
async fn a_write_is_never_repeated_once_sent() {
    for writes in 0..3 {
        let refusing = Store::refusing(usize::MAX, Code::Unavailable);
        let willing = Store::default();
        let client = client(vec![refusing.serve().await, willing.serve().await]);
        let error = match writes {
            0 => client.put(pb::PutRequest::default()).await.map(drop),
            1 => client
                .delete_range(pb::DeleteRangeRequest::default())
                .await
                .map(drop),
            _ => client.txn(txn(true)).await.map(drop),
        };
        let error = error.expect_err("the refusal");
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!((refusing.calls(), willing.calls()), (1, 0));
    }
}

#[tokio::test]
async fn a_read_is_repeated_while_servers_are_unavailable() {
    let store = Store::refusing(3, Code::Unavailable);
    let client = client(vec![store.serve().await]);
    client
        .range(pb::RangeRequest::default())
        .await
        .expect("the fourth answer");
    assert_eq!(store.calls(), 4);

    let store = Store::refusing(1, Code::Unavailable);
    let client = self::client(vec![store.serve().await]);
    client.txn(txn(false)).await.expect("the second answer");
    assert_eq!(store.calls(), 2);
}

#[tokio::test]
async fn any_other_refusal_of_a_read_is_its_answer() {
    let refusing = Store::refusing(usize::MAX, Code::OutOfRange);
    let willing = Store::default();
    let client = client(vec![refusing.serve().await, willing.serve().await]);
    let error = client.range(pb::RangeRequest::default()).await;
    assert_eq!(error.expect_err("the refusal").code(), Code::OutOfRange);
    assert_eq!((refusing.calls(), willing.calls()), (1, 0));
}

#[tokio::test]
async fn a_call_ends_with_its_timeout_when_nobody_is_there() {
    let config = Config {
        endpoints: vec![dead_endpoint().await],
        call_timeout: Some(Duration::from_millis(200)),
        ..Config::default()
    };
    let client = Client::new(config).expect("a legal configuration");
    let error = client
        .put(pb::PutRequest::default())
        .await
        .expect_err("nobody");
    assert!(matches!(error, ClientError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn a_call_that_was_sent_never_says_that_nothing_was() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let silent = address.to_string().parse().expect("an endpoint");
    let client = Client::new(Config {
        endpoints: vec![dead_endpoint().await, silent],
        call_timeout: Some(Duration::from_millis(300)),
        ..Config::default()
    })
    .expect("endpoints");
    let put = client.put(pb::PutRequest::default()).await;
    let error = put.expect_err("nobody answers");
    assert!(matches!(error, ClientError::Deadline), "{error:?}");
}

#[tokio::test]
async fn the_pieces_of_a_streamed_range_are_put_together() {
    let client = client(vec![Store::default().serve().await]);
    let whole = client
        .range_stream(pb::RangeRequest::default())
        .await
        .expect("a range");
    let keys: Vec<&[u8]> = whole.kvs.iter().map(|kv| &kv.key[..]).collect();
    assert_eq!((keys, whole.count), (vec![&b"a"[..], &b"b"[..]], 2));
}

/// Confirms each watcher, sends it one event at revision 7, and breaks the first stream.
#[derive(Clone, Debug)]
struct Watched {
    streams: Arc<AtomicUsize>,
    /// The start revisions that were asked for.
    asked: mpsc::UnboundedSender<i64>,
}

#[tonic::async_trait]
impl Watch for Watched {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let is_first = self.streams.fetch_add(1, Ordering::SeqCst) == 0;
        let mut requests = request.into_inner();
        let (sender, receiver) = mpsc::channel(8);
        let asked = self.asked.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let Some(RequestUnion::CreateRequest(create)) = request.request_union else {
                    continue;
                };
                asked.send(create.start_revision).expect("the test listens");
                let mut answers = vec![pb::WatchResponse {
                    created: true,
                    ..pb::WatchResponse::default()
                }];
                let kv = KeyValue {
                    key: create.key,
                    mod_revision: create.start_revision,
                    ..KeyValue::default()
                };
                answers.push(pb::WatchResponse {
                    events: vec![Event {
                        kv: Some(kv),
                        ..Event::default()
                    }],
                    ..pb::WatchResponse::default()
                });
                for answer in answers {
                    let _ = sender.send(Ok(answer)).await;
                }
                if is_first {
                    let _ = sender.send(Err(Status::unavailable("going down"))).await;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_the_last_revision_seen_when_its_stream_breaks() {
    let (asked, mut revisions) = mpsc::unbounded_channel();
    let watched = Watched {
        streams: Arc::default(),
        asked,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    let server = Server::builder().add_service(WatchServer::new(watched));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

    let client = client(vec![endpoint.parse().expect("an endpoint")]);
    let mut watches = client.watches();
    let request = pb::WatchCreateRequest {
        key: "k".into(),
        start_revision: 7,
        ..pb::WatchCreateRequest::default()
    };
    let number = watches.add(request).await;
    for revision in [7, 8] {
        let (numbers, response) = watches.next().await.expect("an event");
        assert_eq!(numbers, [number]);
        let kv = response.events[0].kv.as_ref().expect("a key");
        assert_eq!(kv.mod_revision, revision);
        assert_eq!(revisions.recv().await, Some(revision));
    }
}
