//! The link to the other members: a thread of its own for the peer port and the transport, so that no client can
//! keep heartbeats waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Body;
use quorate_core::boundary::{Input, Peer, Request, Response};
use quorate_core::error::RequestError;
use quorate_core::types::{LeaseId, MemberId, Revision};
use quorate_net::peer::{
    Identity, IncomingSnapshot, LocalNode, PeerEvent, PeerStatus, PeerTls, Service, Transport,
    Versions, Wire,
};
use quorate_net::rt::{JoinSet, Listener};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::comparison::{self, Question};
use crate::config::ETCD_VERSION;
use crate::driver::queue::Queue;
use crate::driver::snapshots::Intake;
use crate::host::{Runtime, Thread};
use crate::io::core::{self, CoreParts, Home};
use crate::io::listener::Bound;
use crate::metrics::SnapshotMetrics;
use crate::services;
use crate::state::ServerState;

/// etcd's words.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// How often the leader looks at the versions of the others; etcd does it about as often.
const VERSIONS_INTERVAL: Duration = Duration::from_secs(4);

/// How often the links are looked at: a small fraction of the five seconds that they must have been up for a change, since
/// tools wait for just these.
const ACTIVITY_INTERVAL: Duration = Duration::from_millis(50);

/// The consensus thread's side: messages of one batch leave together.
#[derive(Debug)]
pub(crate) struct Peers {
    transport: Arc<Transport>,
    waiting: Vec<(MemberId, Message)>,
}

impl Peers {
    pub(crate) fn new(transport: Arc<Transport>) -> Self {
        Self {
            transport,
            waiting: Vec::new(),
        }
    }

    /// Adds a message to the batch.
    pub(crate) fn send(&mut self, to: MemberId, message: Message) {
        self.waiting.push((to, message));
    }

    /// Sends the batch.
    pub(crate) fn flush(&mut self) {
        if !self.waiting.is_empty() {
            self.transport.send(std::mem::take(&mut self.waiting));
        }
    }

    /// Connects to exactly these members.
    pub(crate) fn update(&self, peers: Vec<Peer>) {
        self.transport.update_peers(peers);
    }
}

/// The peer thread, until it is stopped.
#[derive(Debug)]
pub(crate) struct PeerThread {
    /// The transport, for whoever asks a peer something.
    pub(crate) transport: Arc<Transport>,
    stop: watch::Sender<bool>,
    thread: Thread,
}

/// What the peer thread needs.
#[derive(Debug)]
pub(crate) struct PeerParts {
    pub(crate) identity: Identity,
    pub(crate) wire: Wire,
    /// Each with whether it is for TLS.
    pub(crate) listeners: Vec<(Bound, bool)>,
    /// The thread asks the node like an IO core does.
    pub(crate) core: CoreParts,
    /// Takes snapshots.
    pub(crate) snapshots: Intake,
    /// What the node wants to know of the others' data.
    pub(crate) questions: mpsc::UnboundedReceiver<Question>,
    /// Told when a peer says that this member is no longer one.
    pub(crate) ended: mpsc::UnboundedSender<String>,
}

impl PeerThread {
    /// Makes the transport and starts the thread.
    pub(crate) fn start(parts: PeerParts) -> std::io::Result<Self> {
        let runtime = Runtime::new()?;
        let inbox = Arc::clone(&parts.core.inbox);
        let tls = parts.wire.tls.clone();
        let events = move |events| deliver(&inbox, &parts.ended, events);
        let transport = Arc::new(Transport::new(
            parts.identity,
            parts.wire,
            runtime.handle(),
            events,
        ));
        let (stop, stopped) = watch::channel(false);
        let thread = runtime.start("peers", {
            let transport = Arc::clone(&transport);
            move || {
                let (snapshots, questions) = (parts.snapshots, parts.questions);
                let (listeners, core) = (parts.listeners, parts.core);
                serve(
                    transport, listeners, tls, core, snapshots, questions, stopped,
                )
            }
        })?;
        Ok(Self {
            transport,
            stop,
            thread,
        })
    }

    /// Ends all links and the thread.
    pub(crate) async fn close(self) {
        self.stop.send_replace(true);
        self.thread.join().await;
    }
}

/// Hands events to the node, as one batch.
fn deliver(inbox: &Queue<Input>, ended: &mpsc::UnboundedSender<String>, events: Vec<PeerEvent>) {
    let mut inputs = Vec::with_capacity(events.len());
    for event in events {
        match event {
            PeerEvent::Received { from, message } => inputs.push(Input::Receive { from, message }),
            PeerEvent::Unreachable(member) => inputs.push(Input::Unreachable(member)),
            PeerEvent::Removed { by } => {
                warn!(by = %format_args!("{:x}", by.0), "{REMOVED}");
                // The main thread may be ending already.
                let _ = ended.send(REMOVED.to_owned());
            }
        }
    }
    inbox.append(&mut inputs);
}

async fn serve(
    transport: Arc<Transport>,
    listeners: Vec<(Bound, bool)>,
    tls: Option<PeerTls>,
    parts: CoreParts,
    snapshots: Intake,
    questions: mpsc::UnboundedReceiver<Question>,
    stopped: watch::Receiver<bool>,
) {
    let (state, inbox) = (Arc::clone(&parts.state), Arc::clone(&parts.inbox));
    core::install(parts);
    let home = Home::current();
    tokio::spawn(home.run(core::tick_forever()));
    tokio::spawn(watch_versions(
        Arc::clone(&transport),
        Arc::clone(&state),
        Arc::clone(&inbox),
    ));
    tokio::spawn(watch_activity(Arc::clone(&transport), Arc::clone(&inbox)));
    tokio::spawn(comparison::answer_forever(
        questions,
        Arc::clone(&transport),
        Arc::clone(&state),
        inbox,
    ));
    let local = Local {
        state,
        home,
        snapshots,
    };
    let service = Arc::new(Service::new(transport, Arc::new(local)));
    let mut tasks = JoinSet::new();
    for (listener, is_secure) in listeners {
        let listener = Listener::adopt(listener).expect("it was bound without blocking");
        let mut stopped = stopped.clone();
        let stop = async move {
            // An error says that the main thread is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let service = Arc::clone(&service);
        match tls.clone().filter(|_| is_secure) {
            Some(tls) => tasks.spawn(service.serve_securely(listener, tls, stop)),
            None => tasks.spawn(service.serve(listener, stop)),
        };
    }
    while tasks.join_next().await.is_some() {}
}

/// Tells the leading node what the others run: the cluster's version follows from it.
async fn watch_versions(
    transport: Arc<Transport>,
    state: Arc<ServerState>,
    inbox: Arc<Queue<Input>>,
) {
    let mut status = state.watch_status();
    loop {
        if status
            .wait_for(|status| status.leader == Some(state.member))
            .await
            .is_err()
        {
            return;
        }
        let versions = transport.peer_versions().await;
        let mut inputs = versions
            .into_iter()
            .map(|(member, versions)| {
                let version = versions.map(|versions| versions.server);
                Input::PeerVersion { member, version }
            })
            .collect();
        inbox.append(&mut inputs);
        tokio::time::sleep(VERSIONS_INTERVAL).await;
    }
}

/// Tells the node which links are up, and since when: changes of the members depend on it.
async fn watch_activity(transport: Arc<Transport>, inbox: Arc<Queue<Input>>) {
    let mut known: BTreeMap<MemberId, Option<Instant>> = BTreeMap::new();
    loop {
        let mut inputs = Vec::new();
        let statuses = transport.statuses();
        known.retain(|member, _| statuses.iter().any(|status| status.member == *member));
        for PeerStatus {
            member,
            active_since,
            ..
        } in statuses
        {
            let before = known.insert(member, active_since).flatten();
            if before == active_since {
                continue;
            }
            if before.is_some() {
                let is_active = false;
                inputs.push(Input::PeerActivity { member, is_active });
            }
            if active_since.is_some() {
                let is_active = true;
                inputs.push(Input::PeerActivity { member, is_active });
            }
        }
        inbox.append(&mut inputs);
        tokio::time::sleep(ACTIVITY_INTERVAL).await;
    }
}

/// An image on its way here; one whose connection breaks has not arrived.
struct Arriving<'a>(Option<(&'a SnapshotMetrics, std::time::Instant)>);

impl Arriving<'_> {
    fn end(&mut self, arrived: bool) {
        if let Some((metrics, began)) = self.0.take() {
            metrics.end(began, arrived);
        }
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// This member, as the peer port shows it.
#[derive(Debug)]
struct Local {
    state: Arc<ServerState>,
    /// Where its questions to the node are asked: connections are tasks of their own.
    home: Home,
    snapshots: Intake,
}

impl Local {
    async fn ask(&self, request: Request) -> Result<Response, RequestError> {
        self.home
            .run(async move { core::request(request).await })
            .await
    }
}

impl LocalNode for Local {
    fn is_removed(&self, member: MemberId) -> bool {
        self.state.status().removed.binary_search(&member).is_ok()
    }

    fn members(&self) -> Vec<pb::Member> {
        self.state.status().members.to_vec()
    }

    fn versions(&self) -> Versions {
        let cluster = self.state.status().cluster_version.clone();
        Versions {
            server: ETCD_VERSION.to_owned(),
            cluster: cluster.clone().unwrap_or_else(|| "not_decided".to_owned()),
            storage: cluster.unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<i64, RequestError> {
        match self.ask(Request::LeaseRenew(id)).await? {
            Response::LeaseRenewed { ttl: 0 } => Err(RequestError::LeaseNotFound),
            Response::LeaseRenewed { ttl } => Ok(ttl),
            _ => Err(RequestError::Other("another answer than a renewal".into())),
        }
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, RequestError> {
        match self.ask(Request::LeaseTimeToLive { id, keys }).await? {
            Response::LeaseTimeToLive(mut response) => {
                response.header = Some(self.state.header(0));
                Ok(response)
            }
            _ => Err(RequestError::Other(
                "another answer than a remaining time".into(),
            )),
        }
    }

    async fn receive_snapshot<B>(
        &self,
        message: Message,
        image: IncomingSnapshot<B>,
    ) -> Result<u64, String>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let link = self.state.metrics.peer(MemberId(message.from));
        let began = link.snapshots_received.begin();
        let mut arriving = Arriving(Some((&link.snapshots_received, began)));
        let stored = self.snapshots.store(message, image).await;
        arriving.end(stored.is_ok());
        stored
    }

    async fn promote(
        &self,
        learner: MemberId,
        token: Option<HeaderValue>,
    ) -> Result<Vec<pb::Member>, RequestError> {
        self.home
            .run(async move { services::promote_for(learner, token).await })
            .await
    }

    async fn hash_kv(&self, revision: Revision) -> Result<pb::HashKvResponse, RequestError> {
        let hashed = comparison::hash_own(&self.state, revision).await?;
        Ok(pb::HashKvResponse {
            header: Some(self.state.header(hashed.newest.0)),
            hash: hashed.hash.hash,
            compact_revision: hashed.hash.compact_revision.0,
            hash_revision: hashed.hash.hash_revision.0,
        })
    }

    async fn downgrade_enabled(&self) -> Result<bool, RequestError> {
        self.ask(Request::ReadIndex).await?;
        let seen = self.state.status();
        Ok(seen.downgrade.as_ref().is_some_and(|it| it.enabled))
    }
}
