//! The links to all other members.
//!
//! ```text
//!                    ┌ lane msgapp  ──┐ drained by the streams that the peer opened to us (service)
//! send() ── link ────┼ lane message ──┘
//!                    └ pipeline: POST /raft, while no stream is up
//!
//! events ◄── two readers per peer: the streams that we opened to it
//!        ◄── POST /raft from the peer (service)
//! ```
//!
//! Delivery is best effort: whatever cannot be delivered is dropped and the peer reported unreachable, and raft sends
//! again. Within one lane the order of messages is kept; between lanes there is none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue};
use quorate_core::boundary::Peer;
use quorate_core::{LeaseId, MemberId};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Message;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::client::{CallError, PeerClient};
use super::codec::Stream;
use super::endpoint::{Endpoint, HttpClient, http_client};
use super::identity::Identity;
use super::json::Versions;
use super::lane::LaneBody;
use super::limits::REMOTES_MAX;
use super::link::{Link, Remote, Way};
use super::snapshot::{self, SnapshotClient};
use super::status::PeerStatus;
use super::wire::Wire;

/// What the transport tells the member.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a received message is the usual case"
)]
pub enum PeerEvent {
    /// A message arrived.
    Received {
        /// The sender, as the message names it.
        from: MemberId,
        /// The message; it is addressed to this member.
        message: Message,
    },
    /// Something sent to this peer was lost.
    Unreachable(MemberId),
    /// A peer says that this member has been removed from the cluster. It must stop.
    Removed {
        /// Who says so.
        by: MemberId,
    },
}

/// The links to all other members. Dropping it ends them.
#[derive(Debug)]
pub struct Transport {
    shared: Arc<Shared>,
    peers: Mutex<Peers>,
    snapshots: SnapshotClient,
}

/// What every task of the transport needs.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    /// The headers of every request to a peer.
    pub(crate) headers: HeaderMap,
    pub(crate) client: PeerClient,
    pub(crate) wire: Wire,
    pub(super) runtime: Handle,
    events: Box<dyn Fn(Vec<PeerEvent>) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Peers {
    members: BTreeMap<MemberId, Link>,
    /// Senders that this member does not know yet; they are answered by POST only.
    remotes: BTreeMap<MemberId, Remote>,
}

impl Transport {
    /// A transport without peers. Its tasks run on `runtime`.
    ///
    /// `events` is called with batches, from those tasks, from connections and from [`Self::send`]. It must not block;
    /// when it cannot take more it may drop what it was given.
    pub fn new(
        identity: Identity,
        wire: Wire,
        runtime: Handle,
        events: impl Fn(Vec<PeerEvent>) + Send + Sync + 'static,
    ) -> Self {
        let headers = identity.headers();
        let client = PeerClient::new(&wire);
        let snapshots = http_client(&wire);
        let shared = Shared {
            identity,
            headers,
            client,
            wire,
            runtime,
            events: Box::new(events),
        };
        Self {
            shared: Arc::new(shared),
            peers: Mutex::default(),
            snapshots,
        }
    }

    /// This member, as peers see it.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// How connections are made and watched.
    pub(crate) fn wire(&self) -> &Wire {
        &self.shared.wire
    }

    /// For calls to URLs that need not belong to a peer.
    pub fn client(&self) -> &PeerClient {
        &self.shared.client
    }

    /// Connects to exactly these members. Links to those that stay are not disturbed.
    pub fn update_peers(&self, wanted: Vec<Peer>) {
        let mut peers = self.lock();
        peers.members.retain(|member, _| {
            let stays = wanted.iter().any(|peer| peer.member == *member);
            if !stays {
                info!(peer = %format_args!("{:x}", member.0), "removed remote peer");
            }
            stays
        });
        for peer in wanted {
            if peer.member == self.shared.identity.member {
                continue;
            }
            peers.remotes.remove(&peer.member);
            match peers.members.get_mut(&peer.member) {
                Some(link) => link.update(peer.peer_urls),
                None => {
                    let link = Link::start(&self.shared, peer.member, peer.peer_urls);
                    peers.members.insert(peer.member, link);
                }
            }
        }
    }

    /// Sends without waiting. Each lane that got something is woken once; what has no room, and what goes to a peer
    /// that cannot be reached, is dropped and reported as [`PeerEvent::Unreachable`].
    pub fn send(&self, messages: Vec<(MemberId, Message)>) {
        let mut woken: Vec<(MemberId, Way)> = Vec::new();
        let mut dropped: Vec<MemberId> = Vec::new();
        let peers = self.lock();
        for (to, message) in messages {
            let way = if let Some(link) = peers.members.get(&to) {
                link.offer(message)
            } else if let Some(remote) = peers.remotes.get(&to) {
                remote.pipeline.offer(message).then_some(Way::Pipeline)
            } else {
                continue;
            };
            match way {
                Some(way) if !woken.contains(&(to, way)) => woken.push((to, way)),
                Some(_) => {}
                None if !dropped.contains(&to) => dropped.push(to),
                None => {}
            }
        }
        for (to, way) in woken {
            peers.wake(to, way);
        }
        drop(peers);
        self.shared
            .deliver(dropped.into_iter().map(PeerEvent::Unreachable).collect());
    }

    /// Sends a snapshot beside everything else: the message, then the image. `done` is told whether the peer has stored
    /// all of it.
    pub fn send_snapshot(
        &self,
        to: MemberId,
        message: Message,
        image: Bytes,
        done: impl FnOnce(bool) + Send + 'static,
    ) {
        let endpoint = self.lock().members.get(&to).and_then(|link| {
            let endpoint = link.picker.pick()?;
            Some((endpoint, Arc::clone(&link.picker), Arc::clone(&link.status)))
        });
        let Some((endpoint, picker, status)) = endpoint else {
            return done(false);
        };
        let shared = Arc::clone(&self.shared);
        let client = self.snapshots.clone();
        let bytes = image.len();
        self.shared.runtime.spawn(async move {
            let peer = format!("{:x}", to.0);
            info!(peer, bytes, %endpoint, "sending database snapshot");
            let uri = endpoint.uri("/raft/snapshot");
            let headers = shared.headers.clone();
            let sent = snapshot::send(&client, uri, headers, &message, image).await;
            match &sent {
                Ok(()) => {
                    status.activate();
                    status.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    info!(peer, bytes, "sent database snapshot");
                }
                Err(error) => {
                    warn!(peer, bytes, %error, "failed to send database snapshot");
                    picker.unreachable(&endpoint);
                    status.deactivate("snapshot", &error.to_string());
                    status.sent_failures.fetch_add(1, Ordering::Relaxed);
                    shared.deliver(vec![PeerEvent::Unreachable(to)]);
                }
            }
            done(sent.is_ok());
        });
    }

    /// The state of the link to each peer.
    pub fn statuses(&self) -> Vec<PeerStatus> {
        self.lock().members.values().map(Link::read).collect()
    }

    /// Asks every peer for its versions; `None` for those that do not answer.
    pub async fn peer_versions(&self) -> Vec<(MemberId, Option<Versions>)> {
        let peers: Vec<_> = self
            .lock()
            .members
            .iter()
            .map(|(member, link)| (*member, link.picker.all()))
            .collect();
        let calls = peers.into_iter().map(|(member, endpoints)| async move {
            for endpoint in endpoints {
                match self.shared.client.versions(&endpoint).await {
                    Ok(versions) => return (member, Some(versions)),
                    Err(error) => {
                        warn!(peer = %format_args!("{:x}", member.0), %endpoint, %error, "failed to get versions");
                    }
                }
            }
            (member, None)
        });
        join_all(calls).await
    }

    /// Has the leader promote a learner; the members after it. `token` is that of the caller.
    pub async fn promote(
        &self,
        leader: MemberId,
        learner: MemberId,
        token: Option<HeaderValue>,
    ) -> Result<Vec<pb::Member>, CallError> {
        self.ask(leader, |client, endpoint| {
            let token = token.clone();
            async move { client.promote(&endpoint, learner, token).await }
        })
        .await
    }

    /// Renews a lease at the leader; the TTL in seconds.
    pub async fn lease_renew(&self, leader: MemberId, id: LeaseId) -> Result<i64, CallError> {
        self.ask(leader, |client, endpoint| async move {
            client.lease_renew(&endpoint, id).await
        })
        .await
    }

    /// Asks the leader for the remaining time of a lease and, if `keys`, for its keys.
    pub async fn lease_time_to_live(
        &self,
        leader: MemberId,
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, CallError> {
        self.ask(leader, |client, endpoint| async move {
            client.lease_time_to_live(&endpoint, id, keys).await
        })
        .await
    }

    /// Asks a member at one endpoint after the other, until one can be reached.
    async fn ask<T, F>(
        &self,
        member: MemberId,
        call: impl Fn(PeerClient, Endpoint) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut result = Err(CallError::UnknownMember);
        for endpoint in self.endpoints(member) {
            result = call(self.client().clone(), endpoint).await;
            if !matches!(result, Err(CallError::Unreachable(_))) {
                return result;
            }
        }
        result
    }

    /// The endpoints of a peer; none when it is unknown.
    pub fn endpoints(&self, member: MemberId) -> Vec<Endpoint> {
        self.lock()
            .members
            .get(&member)
            .map(|link| link.picker.all())
            .unwrap_or_default()
    }

    pub(crate) fn deliver(&self, events: Vec<PeerEvent>) {
        self.shared.deliver(events);
    }

    pub(crate) fn knows(&self, member: MemberId) -> bool {
        self.lock().members.contains_key(&member)
    }

    /// A body that carries a lane to `from`, which has opened the stream; `None` for a member that we do not know.
    pub(crate) fn attach(&self, from: MemberId, stream: Stream) -> Option<LaneBody> {
        let peers = self.lock();
        let link = peers.members.get(&from)?;
        let shared = Arc::clone(&self.shared);
        let on_lost = Box::new(move || shared.deliver(vec![PeerEvent::Unreachable(from)]));
        link.status.activate();
        Some(link.lane(stream).attach(Arc::clone(&link.status), on_lost))
    }

    /// Remembers which process opens streams as a member.
    pub(crate) fn claim(&self, from: MemberId, process: &str) {
        if let Some(link) = self.lock().members.get(&from) {
            link.claim(from, process);
        }
    }

    /// Counts what a POST brought.
    pub(crate) fn received(&self, from: MemberId, bytes: usize) {
        if let Some(link) = self.lock().members.get(&from) {
            link.status
                .received_bytes
                .fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Remembers how to answer somebody who is not a member as far as we know.
    pub(crate) fn add_remote(&self, from: MemberId, urls: &str) {
        let mut peers = self.lock();
        let known = peers.members.contains_key(&from) || peers.remotes.contains_key(&from);
        if known || from == self.shared.identity.member || peers.remotes.len() >= REMOTES_MAX {
            return;
        }
        let Some(remote) = Remote::start(&self.shared, from, urls) else {
            return;
        };
        peers.remotes.insert(from, remote);
        info!(peer = %format_args!("{:x}", from.0), urls, "added remote that is not a member yet");
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        // Maps, changed by whole entries.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn deliver(&self, events: Vec<PeerEvent>) {
        if !events.is_empty() {
            (self.events)(events);
        }
    }

    pub(crate) fn http(&self) -> &HttpClient {
        self.client.http()
    }

    /// Whether a message is for this member.
    pub(crate) fn is_addressee(&self, message: &Message) -> bool {
        message.to == self.identity.member.0
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Peers {
    fn wake(&self, to: MemberId, way: Way) {
        match (way, self.members.get(&to)) {
            (Way::Lane(stream), Some(link)) => link.lane(stream).wake(),
            (Way::Pipeline, Some(link)) => link.pipeline.wake(),
            (_, None) => {
                if let Some(remote) = self.remotes.get(&to) {
                    remote.pipeline.wake();
                }
            }
        }
    }
}
