//! A member reduced to its peer port: a transport, a service, and a node with fixed answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::boundary::Peer;
use quorate_core::{ClusterId, MemberId};
use quorate_net::peer::{Identity, PeerEvent, PeerStatus, Service, Transport, Wire};
use quorate_proto::raftpb::{Entry, Message, MessageType};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fixed_node::FixedNode;

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);

/// Nothing here takes this long unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) address: SocketAddr,
    pub(crate) transport: Arc<Transport>,
    pub(crate) node: Arc<FixedNode>,
    events: mpsc::UnboundedReceiver<PeerEvent>,
    server: JoinHandle<()>,
}

impl Member {
    pub(crate) async fn start(id: u64) -> Self {
        Self::start_at(id, "127.0.0.1:0".parse().expect("an address")).await
    }

    pub(crate) async fn start_at(id: u64, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let identity = Identity {
            member: MemberId(id),
            cluster: CLUSTER,
            peer_urls: vec![format!("http://{address}")],
            process: id,
        };
        let (sender, events) = mpsc::unbounded_channel();
        let transport = Arc::new(Transport::new(
            identity,
            Wire::new(Duration::from_secs(1)),
            Handle::current(),
            move |batch| {
                for event in batch {
                    // Nobody listens any more when a test ends.
                    let _ = sender.send(event);
                }
            },
        ));
        let node = Arc::new(FixedNode::default());
        let service = Arc::new(Service::new(Arc::clone(&transport), Arc::clone(&node)));
        let server = tokio::spawn(service.serve(listener, std::future::pending()));
        Self {
            id: MemberId(id),
            address,
            transport,
            node,
            events,
            server,
        }
    }

    /// Ends the member and all its connections; its port is free again.
    pub(crate) async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            member: self.id,
            peer_urls: vec![format!("http://{}", self.address)],
        }
    }

    pub(crate) fn send(&self, to: MemberId, messages: impl IntoIterator<Item = Message>) {
        let addressed = messages.into_iter().map(|message| {
            (
                to,
                Message {
                    to: to.0,
                    from: self.id.0,
                    ..message
                },
            )
        });
        self.transport.send(addressed.collect());
    }

    pub(crate) async fn event(&mut self) -> PeerEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event within patience")
            .expect("the transport lives")
    }

    /// The next message; whoever is unreachable meanwhile is passed over.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            if let PeerEvent::Received { from, message } = self.event().await {
                assert_eq!(from.0, message.from);
                return message;
            }
        }
    }

    pub(crate) async fn wait(&self, peer: MemberId, what: impl Fn(&PeerStatus) -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        let waited = timeout(PATIENCE, async {
            while !self
                .transport
                .statuses()
                .iter()
                .any(|status| status.member == peer && what(status))
            {
                looks.tick().await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("still {:?}", self.transport.statuses()));
    }

    /// Waits until both streams to `peer` are open.
    pub(crate) async fn wait_for_streams(&self, peer: MemberId) {
        self.wait(peer, |status| status.streams == [true, true])
            .await;
    }
}

/// Two members that know each other.
pub(crate) async fn pair() -> (Member, Member) {
    let (one, two) = (Member::start(1).await, Member::start(2).await);
    one.transport.update_peers(vec![two.peer()]);
    two.transport.update_peers(vec![one.peer()]);
    (one, two)
}

pub(crate) fn append(index: u64, content: &[u8]) -> Message {
    let entry = Entry {
        r#type: None,
        term: 3,
        index: index + 1,
        data: Some(content.to_vec().into()),
    };
    Message {
        r#type: MessageType::MsgApp.into(),
        term: 3,
        log_term: 3,
        index,
        entries: vec![entry],
        ..Message::default()
    }
}

pub(crate) fn heartbeat(commit: u64) -> Message {
    Message {
        r#type: MessageType::MsgHeartbeat.into(),
        term: 3,
        commit,
        ..Message::default()
    }
}
