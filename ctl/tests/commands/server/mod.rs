//! A server with canned answers, those that a real etcd 3.7.1 gave when the expected outputs were captured.

mod auth;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use quorate_net::grpc::etcdserverpb::auth_server::AuthServer;
use quorate_net::grpc::etcdserverpb::cluster_server::{Cluster, ClusterServer};
use quorate_net::grpc::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_net::grpc::etcdserverpb::lease_server::{Lease, LeaseServer};
use quorate_net::grpc::etcdserverpb::watch_server::{Watch, WatchServer};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What was asked, as text.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

/// Serves until the process ends; gives the address and what will be asked.
pub(crate) fn start() -> (SocketAddr, Asked) {
    let canned = Canned::default();
    let asked = canned.asked.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            sender
                .send(listener.local_addr().expect("bound"))
                .expect("the test waits");
            Server::builder()
                .add_service(AuthServer::new(canned.clone()))
                .add_service(KvServer::new(canned.clone()))
                .add_service(LeaseServer::new(canned.clone()))
                .add_service(ClusterServer::new(canned.clone()))
                .add_service(WatchServer::new(canned))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves");
        });
    });
    (receiver.recv().expect("the server starts"), asked)
}

#[derive(Clone, Debug, Default)]
struct Canned {
    asked: Asked,
}

impl Canned {
    fn note<T: std::fmt::Debug>(&self, request: &Request<T>) {
        self.asked
            .lock()
            .expect("no panic")
            .push(format!("{:?}", request.get_ref()));
    }

    fn has_seen(&self, request: &str) -> bool {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().any(|text| text.starts_with(request))
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 10144879847569953045,
        member_id: 12428976124636271536,
        revision,
        raft_term: 2,
    })
}

fn key_value(create: i64, modified: i64, version: i64, value: &str) -> KeyValue {
    KeyValue {
        key: "a".into(),
        create_revision: create,
        mod_revision: modified,
        version,
        value: value.to_string().into(),
        lease: 0,
    }
}

fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

#[tonic::async_trait]
impl Kv for Canned {
    type RangeStreamStream = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.note(&request);
        if request.get_ref().revision > 6 {
            let words = "etcdserver: mvcc: required revision is a future revision";
            return Err(Status::out_of_range(words));
        }
        let is_known = request.get_ref().key == "a";
        Ok(Response::new(pb::RangeResponse {
            header: header(6),
            kvs: Vec::from_iter(is_known.then(|| key_value(2, 6, 5, "3"))),
            more: false,
            count: i64::from(is_known),
        }))
    }

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not canned"))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.note(&request);
        Ok(Response::new(pb::PutResponse {
            header: header(4),
            prev_kv: request.get_ref().prev_kv.then(|| key_value(2, 3, 2, "2")),
        }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.note(&request);
        Ok(Response::new(pb::DeleteRangeResponse {
            header: header(7),
            deleted: 1,
            prev_kvs: Vec::from_iter(request.get_ref().prev_kv.then(|| key_value(2, 6, 5, "3"))),
        }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        use pb::response_op::Response as Inner;
        self.note(&request);
        let put = pb::PutResponse {
            header: Some(pb::ResponseHeader {
                revision: 12,
                ..pb::ResponseHeader::default()
            }),
            prev_kv: None,
        };
        Ok(Response::new(pb::TxnResponse {
            header: header(12),
            succeeded: false,
            responses: vec![pb::ResponseOp {
                response: Some(Inner::ResponsePut(put)),
            }],
        }))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.note(&request);
        Ok(Response::new(pb::CompactionResponse { header: header(9) }))
    }
}

#[tonic::async_trait]
impl Lease for Canned {
    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        Ok(Response::new(pb::LeaseGrantResponse {
            header: header(11),
            id: 1418812034775757623,
            ttl: request.get_ref().ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        _: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        Err(lease_not_found())
    }

    /// A lease that is already gone.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let answer = pb::LeaseKeepAliveResponse {
                    header: header(17),
                    id: request.id,
                    ttl: 0,
                };
                let _ = sender.send(Ok(answer)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let pb::LeaseTimeToLiveRequest { id, keys } = *request.get_ref();
        let is_known = id != 0x99;
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header: header(16),
            id,
            ttl: if is_known { 99 } else { -1 },
            granted_ttl: if is_known { 100 } else { 0 },
            keys: if keys {
                vec!["ll".into(), "ll2".into()]
            } else {
                vec![]
            },
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let ids = [1418812034775757599, 1418812034775757611];
        Ok(Response::new(pb::LeaseLeasesResponse {
            header: header(10),
            leases: ids.map(|id| pb::LeaseStatus { id }).to_vec(),
        }))
    }
}

#[tonic::async_trait]
impl Cluster for Canned {
    async fn member_list(
        &self,
        _: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let member = pb::Member {
            id: 12428976124636271536,
            name: "m1".to_string(),
            peer_urls: vec!["http://127.0.0.1:23791".to_string()],
            client_urls: vec!["http://127.0.0.1:23790".to_string()],
            is_learner: false,
        };
        Ok(Response::new(pb::MemberListResponse {
            header: header(0),
            members: vec![member],
        }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(Status::unimplemented("not canned"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(Status::unimplemented("not canned"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(Status::unimplemented("not canned"))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(Status::unimplemented("not canned"))
    }
}

#[tonic::async_trait]
impl Watch for Canned {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    /// A put and a deletion, then the server ends the watch; from revision 1 on, all is compacted.
    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let Some(RequestUnion::CreateRequest(create)) = request.request_union else {
                    continue;
                };
                for answer in watch_answers(create.start_revision) {
                    let _ = sender.send(Ok(answer)).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn watch_answers(start_revision: i64) -> Vec<pb::WatchResponse> {
    let created = pb::WatchResponse {
        header: header(5),
        created: true,
        ..pb::WatchResponse::default()
    };
    if start_revision == 1 {
        let compacted = pb::WatchResponse {
            header: header(0),
            canceled: true,
            compact_revision: 4,
            ..pb::WatchResponse::default()
        };
        return vec![created, compacted];
    }
    let put = Event {
        kv: Some(key_value(3, 3, 1, "va\"l")),
        ..Event::default()
    };
    let deletion = Event {
        r#type: EventType::Delete.into(),
        kv: Some(KeyValue {
            key: "a".into(),
            mod_revision: 5,
            ..KeyValue::default()
        }),
        prev_kv: Some(key_value(3, 3, 1, "va\"l")),
    };
    let events = pb::WatchResponse {
        header: header(5),
        events: vec![put, deletion],
        ..pb::WatchResponse::default()
    };
    let over = pb::WatchResponse {
        header: header(5),
        canceled: true,
        cancel_reason: "etcdserver: no more".to_string(),
        ..pb::WatchResponse::default()
    };
    vec![created, events, over]
}
