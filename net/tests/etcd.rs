//! A real etcd whose only peer is this crate: its headers, streams, frames and calls, and ours under its eyes.
//!
//! ```text
//! ETCD=/usr/bin/etcd cargo test -p quorate-net --test etcd
//! ```

#[path = "peer/fixed_node.rs"]
mod fixed_node;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use quorate_core::boundary::Peer;
use quorate_core::{ClusterId, LeaseId, MemberId, Revision};
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::lease_client::LeaseClient;
use quorate_net::peer::{Endpoint, Identity, PeerClient, PeerEvent, Service, Transport, Wire};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{EntryType, Message, MessageType};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};

use self::fixed_node::FixedNode;

const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than our side keeps a stream on which etcd is silent. (etcd 3.7 itself has no such deadline in effect.)
const IDLE: Duration = Duration::from_secs(7);

/// A running etcd; it ends with the test.
struct Etcd {
    process: Child,
    peer_url: String,
    client_url: String,
    _directory: tempfile::TempDir,
}

impl Etcd {
    async fn start(our_url: &str) -> Self {
        let binary = std::env::var("ETCD").expect("ETCD names a real etcd");
        let directory = tempfile::tempdir().expect("a directory");
        let peer_url = format!("http://{}", free_address().await);
        let client_url = format!("http://{}", free_address().await);
        let data_directory = directory.path().join("data");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
        let process = Command::new(binary)
            .args([
                "--name",
                "real",
                "--initial-cluster",
                &format!("real={peer_url},ours={our_url}"),
            ])
            .args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ])
            .args([
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
            ])
            .arg("--data-dir")
            .arg(data_directory)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        Self {
            process,
            peer_url,
            client_url,
            _directory: directory,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self._directory.path().join("log")).expect("the log")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

/// A follower that grants every vote and accepts every append.
struct Follower {
    id: MemberId,
    transport: Arc<Transport>,
    events: mpsc::UnboundedReceiver<PeerEvent>,
    /// Index and value of each put seen, in order of arrival.
    puts: Vec<(u64, String)>,
}

impl Follower {
    /// Answers until `done`.
    async fn follow(&mut self, done: impl Future<Output = ()>) {
        let mut done = std::pin::pin!(timeout(PATIENCE, done));
        loop {
            tokio::select! {
                result = &mut done => return result.expect("done within patience"),
                event = self.events.recv() => self.on_event(event.expect("the transport lives")),
            }
        }
    }

    fn on_event(&mut self, event: PeerEvent) {
        let message = match event {
            PeerEvent::Received { message, .. } => message,
            PeerEvent::Unreachable(_) => return,
            PeerEvent::Removed { by } => panic!("removed by {by:?}"),
        };
        let Some((kind, index)) = self.answer(&message) else {
            return;
        };
        let answer = Message {
            r#type: kind.into(),
            to: message.from,
            from: self.id.0,
            term: message.term,
            index,
            context: if kind == MessageType::MsgHeartbeatResp {
                message.context
            } else {
                Default::default()
            },
            ..Message::default()
        };
        self.transport.send(vec![(MemberId(message.from), answer)]);
    }

    fn answer(&mut self, message: &Message) -> Option<(MessageType, u64)> {
        match message.r#type() {
            MessageType::MsgPreVote => Some((MessageType::MsgPreVoteResp, 0)),
            MessageType::MsgVote => Some((MessageType::MsgVoteResp, 0)),
            MessageType::MsgHeartbeat => Some((MessageType::MsgHeartbeatResp, 0)),
            MessageType::MsgApp => {
                self.note_puts(message);
                Some((
                    MessageType::MsgAppResp,
                    message.index + message.entries.len() as u64,
                ))
            }
            _ => None,
        }
    }

    fn note_puts(&mut self, message: &Message) {
        for (position, entry) in message.entries.iter().enumerate() {
            assert_eq!(
                entry.index,
                message.index + 1 + position as u64,
                "{message:?}"
            );
            if entry.r#type() != EntryType::EntryNormal {
                continue;
            }
            let content = entry.data.clone().unwrap_or_default();
            let request = pb::InternalRaftRequest::decode(content).expect("etcd writes requests");
            if let Some(put) = request.put {
                self.puts.push((
                    entry.index,
                    String::from_utf8_lossy(&put.value).into_owned(),
                ));
            }
        }
    }
}

/// The cluster and the ids that etcd gave itself and us.
async fn learn_ids(at: &Endpoint, our_url: &str) -> (ClusterId, MemberId, MemberId) {
    let client = PeerClient::new(&Wire::new(Duration::from_secs(1)));
    let mut attempts = interval(Duration::from_millis(20));
    let learnt = timeout(PATIENCE, async {
        loop {
            attempts.tick().await;
            if let Ok((cluster, members)) = client.members(at).await {
                let (ours, theirs): (Vec<_>, Vec<_>) = members
                    .into_iter()
                    .partition(|member| member.peer_urls == [our_url]);
                return (cluster, MemberId(ours[0].id), MemberId(theirs[0].id));
            }
        }
    });
    learnt.await.expect("etcd answers")
}

async fn join() -> (Etcd, Follower, MemberId) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let our_url = format!("http://{}", listener.local_addr().expect("bound"));
    let etcd = Etcd::start(&our_url).await;
    let at = Endpoint::parse(&etcd.peer_url).expect("a URL");
    let (cluster, id, theirs) = learn_ids(&at, &our_url).await;

    let (sender, events) = mpsc::unbounded_channel();
    let identity = Identity {
        member: id,
        cluster,
        peer_urls: vec![our_url],
        process: 1,
    };
    let transport = Transport::new(
        identity,
        Wire::new(Duration::from_secs(1)),
        Handle::current(),
        move |batch| {
            for event in batch {
                let _ = sender.send(event);
            }
        },
    );
    let transport = Arc::new(transport);
    transport.update_peers(vec![Peer {
        member: theirs,
        peer_urls: vec![etcd.peer_url.clone()],
    }]);
    let service = Arc::new(Service::new(
        Arc::clone(&transport),
        Arc::new(FixedNode::default()),
    ));
    tokio::spawn(service.serve(listener, std::future::pending()));
    (
        etcd,
        Follower {
            id,
            transport,
            events,
            puts: Vec::new(),
        },
        theirs,
    )
}

#[tokio::test]
async fn a_real_etcd_leads_us_over_both_streams() {
    if std::env::var_os("ETCD").is_none() {
        eprintln!("nothing to talk to: ETCD names no real etcd 3.7");
        return;
    }
    const PUTS: usize = 300;
    let (etcd, mut follower, theirs) = join().await;
    let transport = Arc::clone(&follower.transport);

    let client_url = etcd.client_url.clone();
    follower
        .follow(async {
            let mut looks = interval(Duration::from_millis(10));
            while transport.statuses()[0].streams != [true, true] {
                looks.tick().await;
            }
            let mut kv = KvClient::connect(client_url.clone())
                .await
                .expect("etcd serves clients");
            for number in 0..PUTS {
                let request = pb::PutRequest {
                    key: "key".into(),
                    value: number.to_string().into(),
                    ..Default::default()
                };
                kv.put(request)
                    .await
                    .expect("our acknowledgement commits it");
            }
        })
        .await;
    let values: Vec<&str> = follower
        .puts
        .iter()
        .map(|(_, value)| value.as_str())
        .collect();
    let expected: Vec<String> = (0..PUTS).map(|number| number.to_string()).collect();
    assert_eq!(values, expected);

    follower
        .follow(async {
            let mut leases = LeaseClient::connect(client_url)
                .await
                .expect("etcd serves clients");
            let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
            let lease = LeaseId(
                leases
                    .lease_grant(grant)
                    .await
                    .expect("granted")
                    .into_inner()
                    .id,
            );
            assert_eq!(
                transport.lease_renew(theirs, lease).await.expect("renewed"),
                60
            );
            let answer = transport
                .lease_time_to_live(theirs, lease, true)
                .await
                .expect("known");
            assert_eq!(answer.granted_ttl, 60);
            let unknown = transport
                .lease_renew(theirs, LeaseId(1))
                .await
                .expect_err("unknown");
            assert_eq!(unknown.to_string(), "not found: lease not found");

            let at = &transport.endpoints(theirs)[0];
            let cluster = transport.identity().cluster;
            let hash = transport
                .client()
                .hash_kv(at, cluster, Revision(0))
                .await
                .expect("a hash");
            assert_eq!(hash.hash_revision, PUTS as i64 + 1);
            assert!(
                !transport
                    .client()
                    .downgrade_enabled(at)
                    .await
                    .expect("an answer")
            );
            let versions = transport.peer_versions().await;
            assert!(
                versions[0]
                    .1
                    .as_ref()
                    .is_some_and(|versions| versions.server.starts_with("3.7."))
            );

            sleep(IDLE).await;
        })
        .await;
    let status = transport.statuses()[0];
    assert_eq!(
        (status.streams, status.disconnects, status.received_failures),
        ([true, true], 0, 0)
    );
    assert!(status.healthy && status.round_trip.is_some());
    let log = etcd.log();
    for complaint in ["lost TCP streaming connection", "became inactive", "panic"] {
        assert!(!log.contains(complaint), "etcd logs {complaint:?}:\n{log}");
    }
}
