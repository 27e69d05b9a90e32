//! The IO cores in front of a thread that answers everything: no node, no disk.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::auth::Auth;
use quorate_core::boundary::{Input, Request, RequestIds, Response};
use quorate_core::mvcc::Store;
use quorate_core::node::Status;
use quorate_core::types::{ClusterId, Index, MemberId, Term};
use quorate_core::wal::Metadata;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::rt::{Detached, Remote};
use quorate_proto::etcdserverpb as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::mailbox::{Mailbox, Reply};
use super::{CoreParts, IoCore, Traffic, assign};
use crate::auth::Guard;
use crate::config::{Outcome, parse};
use crate::driver::clock::Clock;
use crate::driver::queue::Queue;
use crate::driver::tickets::slot_of;
use crate::http::Pages;
use crate::metrics::{Identity, Metrics};
use crate::state::{Limits, ServerState};

const MEMBER: MemberId = MemberId(0x77);

struct Echo {
    address: SocketAddr,
    inbox: Arc<Queue<Input>>,
    cores: Vec<IoCore>,
}

fn status() -> Status {
    Status {
        leader: Some(MEMBER),
        is_learner: false,
        is_published: true,
        leader_changes: 1,
        term: Term(3),
        committed: Index(1),
        applied: Index(1),
        alarms: Arc::default(),
        members: Arc::default(),
        removed: Arc::default(),
        cluster_version: None,
        downgrade: None,
        is_ready_for_downgrade: false,
        size_bytes: 0,
        size_in_use_bytes: 0,
        proposals_pending: 0,
    }
}

/// Answers each proposal with a put whose revision is the size of the entry.
fn answer(inbox: &Queue<Input>, mailboxes: &[Arc<Mailbox>]) {
    let mut inputs = Vec::new();
    let mut replies: Vec<Vec<Reply>> = mailboxes.iter().map(|_| Vec::new()).collect();
    while inbox.take(&mut inputs, None) {
        for input in inputs.drain(..) {
            let Input::Request { ticket, request } = input else {
                panic!("cores send requests only")
            };
            let Request::Propose(entry) = request else {
                panic!("the test puts only")
            };
            let header = pb::ResponseHeader {
                revision: entry.len() as i64,
                ..Default::default()
            };
            let put = pb::PutResponse {
                header: Some(header),
                prev_kv: None,
            };
            replies[slot_of(ticket, mailboxes.len())].push(Reply {
                ticket,
                result: Ok(Response::Put(put)),
            });
        }
        for (mailbox, replies) in mailboxes.iter().zip(&mut replies) {
            mailbox.deliver(replies, false);
        }
    }
    for mailbox in mailboxes {
        mailbox.stopped();
    }
}

impl Echo {
    fn start(cores: usize) -> Self {
        assert!(cores.is_power_of_two(), "tickets are dealt by a mask");
        let view = Store::new().view();
        let Outcome::Run(config) = parse(&[], &[]) else {
            panic!("the defaults are legal")
        };
        let metrics = Arc::new(Metrics::new(Identity {
            member: MEMBER,
            gates: config.gates.clone(),
            extensive: false,
        }));
        let state = Arc::new(ServerState::new(
            Metadata {
                member: MEMBER,
                cluster: ClusterId(0x88),
            },
            Limits::default(),
            view,
            Guard::new(&config, Auth::default().view(), Clock::start()).expect("simple tokens"),
            status(),
            Arc::clone(&metrics),
            Pages::new(&config, metrics, Vec::new()),
            std::path::PathBuf::new(),
        ));
        let inbox = Arc::new(Queue::default());
        let mailboxes: Vec<_> = (0..cores).map(|_| Arc::new(Mailbox::default())).collect();
        std::thread::spawn({
            let (inbox, mailboxes) = (Arc::clone(&inbox), mailboxes.clone());
            move || answer(&inbox, &mailboxes)
        });
        let cores: Vec<_> = mailboxes
            .into_iter()
            .enumerate()
            .map(|(number, mailbox)| {
                let ids = RequestIds::new(MEMBER, 0, number as u64, cores as u64);
                let parts = CoreParts {
                    inbox: Arc::clone(&inbox),
                    mailbox,
                    state: Arc::clone(&state),
                    ids,
                    clock: Clock::start(),
                    seed: 1,
                    peers: None,
                };
                IoCore::start(number, parts).expect("the machine has room for a thread")
            })
            .collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let address = listener.local_addr().expect("it is bound");
        Self {
            address,
            inbox,
            cores,
        }
        .accepting(listener)
    }

    /// Connections are handed out by the test itself.
    fn accepting(self, listener: std::net::TcpListener) -> Self {
        let senders: Vec<_> = self.cores.iter().map(IoCore::entry).collect();
        std::thread::spawn(move || {
            while let Ok((stream, remote)) = listener.accept() {
                let (stream, remote) = (Detached::Tcp(stream), Remote::Network(remote));
                assign(&senders, stream, remote, Traffic::GrpcAndHttp);
            }
        });
        self
    }

    async fn client(&self) -> KvClient<tonic::transport::Channel> {
        KvClient::connect(format!("http://{}", self.address))
            .await
            .expect("it listens")
    }
}

fn put(bytes: usize) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from(vec![7; bytes]),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_call_of_many_connections_gets_its_own_answer() {
    let echo = Echo::start(2);
    let mut clients = Vec::new();
    for connection in 0..4 {
        let client = echo.client().await;
        clients.push(tokio::spawn(async move {
            let calls = (0..50).map(|call| {
                let mut client = client.clone();
                // Sizes are all different: the revision tells whose answer it is.
                let bytes = 1_000 * (connection + 1) + call;
                async move {
                    let answer = client
                        .put(put(bytes))
                        .await
                        .expect("it is legal")
                        .into_inner();
                    (bytes, answer.header.expect("every answer has one"))
                }
            });
            futures_util::future::join_all(calls).await
        }));
    }
    for client in clients {
        for (bytes, header) in client.await.expect("the client does not panic") {
            let overhead = header.revision - bytes as i64;
            assert!(
                (10..60).contains(&overhead),
                "{overhead} bytes beside a value of {bytes}"
            );
            assert_eq!(
                (header.cluster_id, header.member_id, header.raft_term),
                (0x88, 0x77, 3)
            );
        }
    }
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let echo = Echo::start(1);
    let mut client = echo.client().await;
    for garbage in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxxxxxxxxxxx"[..],
        b"\0\0\0\0",
        b"GET",
    ] {
        let mut stream = tokio::net::TcpStream::connect(echo.address)
            .await
            .expect("it listens");
        stream.write_all(garbage).await.expect("it reads");
        stream.shutdown().await.expect("it is open");
        let mut rest = Vec::new();
        // Some garbage is answered, some is cut off: both end.
        let _ = stream.read_to_end(&mut rest).await;
    }
    client.put(put(10)).await.expect("the others go on");
}

/// The value of a setting (RFC 9113, section 6.5.2) that the server tells its clients.
async fn setting(echo: &Echo, wanted: u16) -> Option<u32> {
    let mut stream = tokio::net::TcpStream::connect(echo.address)
        .await
        .expect("it listens");
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(settings).await.expect("it reads");
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("it answers");
    assert_eq!(head[3], 4, "its settings come first");
    let mut payload = vec![0; usize::from(head[2])];
    stream.read_exact(&mut payload).await.expect("all of them");
    payload.chunks(6).find_map(|setting| {
        let (name, value) = setting.split_at(2);
        let value = value.try_into().expect("four bytes");
        (name == wanted.to_be_bytes()).then(|| u32::from_be_bytes(value))
    })
}

#[tokio::test]
async fn the_streams_of_a_connection_are_limited_without_a_flag() {
    let max_concurrent_streams = setting(&Echo::start(1), 3).await;
    assert_eq!(max_concurrent_streams, Some(16_384));
}

#[tokio::test]
async fn http1_is_told_from_http2() {
    let echo = Echo::start(1);
    let mut stream = tokio::net::TcpStream::connect(echo.address)
        .await
        .expect("it listens");
    let request = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    // In two pieces: the first alone could still become either.
    stream.write_all(&request[..1]).await.expect("it reads");
    stream.write_all(&request[1..]).await.expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let echo = Echo::start(1);
    let mut stream = tokio::net::TcpStream::connect(echo.address)
        .await
        .expect("it listens");
    let one = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";
    let requests = 20_000;
    let (mut reader, mut writer) = stream.split();
    let write = async {
        for _ in 0..requests {
            writer.write_all(one).await.expect("it reads");
        }
    };
    let read = async {
        let mut found = 0;
        let mut buffer = vec![0; 4096];
        let mut tail = Vec::new();
        while found < requests {
            let length = reader.read(&mut buffer).await.expect("it answers");
            assert_ne!(length, 0, "the connection ended after {found} answers");
            tail.extend_from_slice(&buffer[..length]);
            while let Some(at) = tail
                .windows(12)
                .position(|window| window == b"HTTP/1.1 404")
            {
                found += 1;
                tail.drain(..at + 12);
            }
        }
    };
    futures_util::future::join(write, read).await;
}

#[tokio::test]
async fn a_gone_node_answers_stopped() {
    let echo = Echo::start(1);
    let mut client = echo.client().await;
    client.put(put(1)).await.expect("it is legal");
    echo.inbox.close();
    let refusal = loop {
        match client.put(put(1)).await {
            Ok(_) => {}
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal.message(), "etcdserver: server stopped");
}
