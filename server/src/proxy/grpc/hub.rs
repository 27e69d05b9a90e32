//! Watches that clients share: one stream to a member for each range and user, however many watch it.
//!
//! ```text
//!   member ─► Broadcast (from now on) ─┬─► watcher, who wants what comes
//!                                      └─► watcher, who wants what comes
//!   member ─► a stream of its own ─► watcher, who wants the past; joins the broadcast when it has caught up
//! ```
//!
//! A broadcast never waits: who does not take what is told is let go, and comes back for what it has missed with a
//! stream of its own. A broadcast whose stream breaks goes on after what it has told; one that nobody listens to ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::metrics::Metrics;
use super::upstream::{Caller, Upstream};

/// What may wait for one watcher; then it must catch up by itself.
const UNHEARD_MAX: usize = 256;
/// Between two attempts to open a broken stream.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// etcd's words for a member without a leader.
const NO_LEADER: &str = "etcdserver: no leader";

/// What is watched, by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    pub(super) caller: Caller,
    pub(super) key: Bytes,
    pub(super) range_end: Bytes,
}

/// What a watcher hears.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Events(Arc<pb::WatchResponse>),
    /// Nothing has happened up to the revision of this header.
    Progress(pb::ResponseHeader),
    /// A member has ended the watch.
    Canceled(Arc<pb::WatchResponse>),
    /// The stream is over with this.
    Failed(Status),
}

/// Why there is no watch.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// A member's answer to the attempt.
    Answer(Box<pb::WatchResponse>),
    /// No member's answer.
    Failed(Status),
}

/// All broadcasts; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    upstream: Upstream,
    metrics: Arc<Metrics>,
    broadcasts: Arc<Mutex<HashMap<Topic, Arc<Broadcast>>>>,
}

/// One stream and who listens to it.
#[derive(Debug)]
struct Broadcast {
    state: Mutex<State>,
    /// None until a member has answered.
    opened: watch::Sender<Option<Result<(), Refusal>>>,
    /// Somebody has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    header: pb::ResponseHeader,
    /// Everything up to here has been told.
    revision: i64,
    listeners: Vec<mpsc::Sender<Told>>,
    /// Who listens, will listen, or catches up to listen.
    interested: usize,
    /// No longer among the broadcasts.
    is_over: bool,
}

/// Where a watcher hears what happens.
#[derive(Debug)]
pub(super) struct Subscription {
    /// As of its beginning.
    pub(super) header: pb::ResponseHeader,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Shared {
        told: mpsc::Receiver<Told>,
        _interest: Interest,
    },
    Alone {
        answers: Box<Streaming<pb::WatchResponse>>,
        /// Keeps the stream open.
        _requests: mpsc::Sender<pb::WatchRequest>,
        /// It will join when it has caught up.
        _interest: Interest,
    },
}

/// As long as there is one of it, a broadcast goes on.
#[derive(Debug)]
struct Interest(Arc<Broadcast>);

impl Interest {
    /// Only while the broadcasts are locked: it must not end meanwhile.
    fn new(broadcast: &Arc<Broadcast>) -> Self {
        broadcast.lock().interested += 1;
        Self(Arc::clone(broadcast))
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.lock().interested -= 1;
        self.0.left.notify_one();
    }
}

impl Subscription {
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.source, Source::Alone { .. })
    }

    /// What is told next; nothing when this subscription is over and another one is needed.
    pub(super) async fn next(&mut self) -> Option<Told> {
        match &mut self.source {
            Source::Shared { told, .. } => told.recv().await,
            Source::Alone { answers, .. } => match answers.message().await {
                Ok(Some(response)) => Some(told(response)),
                Ok(None) => None,
                Err(status) if is_lost(&status) => {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    None
                }
                Err(status) => Some(Told::Failed(status)),
            },
        }
    }
}

impl Hub {
    pub(super) fn new(upstream: Upstream, metrics: Arc<Metrics>) -> Self {
        Self {
            upstream,
            metrics,
            broadcasts: Arc::default(),
        }
    }

    /// Everything from the revision `next` on, or from now on if that is zero.
    pub(super) async fn subscribe(
        &self,
        topic: &Topic,
        next: i64,
    ) -> Result<Subscription, Refusal> {
        loop {
            let interest = self.interest(topic);
            let mut opened = interest.0.opened.subscribe();
            let opened = opened.wait_for(Option::is_some).await;
            let opened = opened.expect("the broadcast is held").clone();
            if let Some(Err(refusal)) = opened {
                return Err(refusal);
            }
            let interest = match self.join(interest, next) {
                Ok(joined) => return Ok(joined),
                Err(interest) => interest,
            };
            let is_over = interest.0.lock().is_over;
            if !is_over {
                return self.alone(topic, next, interest).await;
            }
        }
    }

    /// A place in the broadcast, for a watcher that has caught up.
    pub(super) fn rejoin(&self, topic: &Topic, next: i64) -> Option<Subscription> {
        let interest = self.lock().get(topic).map(Interest::new)?;
        let is_open = matches!(&*interest.0.opened.borrow(), Some(Ok(())));
        if is_open {
            self.join(interest, next).ok()
        } else {
            None
        }
    }

    /// Whether the caller may watch this now, and the revision that it is at: of who joins a broadcast no member hears.
    pub(super) async fn check(&self, topic: &Topic) -> Result<pb::ResponseHeader, Status> {
        let range = pb::RangeRequest {
            key: topic.key.clone(),
            range_end: topic.range_end.clone(),
            serializable: true,
            count_only: true,
            limit: 1,
            ..pb::RangeRequest::default()
        };
        let answered = self.upstream.ask(true, |channel| {
            let mut kv = self.upstream.kv(channel);
            let range = topic.caller.asks(range.clone());
            async move { kv.range(range).await }
        });
        Ok(answered.await?.into_inner().header.unwrap_or_default())
    }

    fn join(&self, interest: Interest, next: i64) -> Result<Subscription, Interest> {
        let mut state = interest.0.lock();
        if state.is_over || (next != 0 && next <= state.revision) {
            drop(state);
            return Err(interest);
        }
        let (listener, told) = mpsc::channel(UNHEARD_MAX);
        self.change(&mut state, |listeners| listeners.push(listener));
        let header = pb::ResponseHeader {
            revision: state.revision,
            ..state.header
        };
        drop(state);
        Ok(Subscription {
            header,
            source: Source::Shared {
                told,
                _interest: interest,
            },
        })
    }

    async fn alone(
        &self,
        topic: &Topic,
        next: i64,
        interest: Interest,
    ) -> Result<Subscription, Refusal> {
        let (requests, mut answers) = self.open(topic, next).await.map_err(Refusal::Failed)?;
        match answers.message().await {
            Ok(Some(first)) if first.created && !first.canceled => Ok(Subscription {
                header: first.header.unwrap_or_default(),
                source: Source::Alone {
                    answers: Box::new(answers),
                    _requests: requests,
                    _interest: interest,
                },
            }),
            Ok(Some(refused)) => Err(Refusal::Answer(Box::new(refused))),
            Ok(None) => Err(Refusal::Failed(Status::unavailable("the stream has ended"))),
            Err(status) => Err(Refusal::Failed(status)),
        }
    }

    /// A stream with one watch.
    async fn open(
        &self,
        topic: &Topic,
        start_revision: i64,
    ) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), Status> {
        let create = pb::WatchCreateRequest {
            key: topic.key.clone(),
            range_end: topic.range_end.clone(),
            start_revision,
            // Each watcher leaves out what it does not want.
            progress_notify: true,
            prev_kv: true,
            ..pb::WatchCreateRequest::default()
        };
        let opened = self.upstream.ask(true, |channel| {
            let (requests, body) = mpsc::channel(1);
            let create = pb::WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(create.clone())),
            };
            requests.try_send(create).expect("there is room for one");
            let request = topic.caller.asks(ReceiverStream::new(body));
            let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
            async move {
                let answers = client.watch(request).await?;
                Ok(answers.map(|answers| (requests, answers)))
            }
        });
        Ok(opened.await?.into_inner())
    }

    /// Interest in the broadcast of a topic, begun if there is none.
    fn interest(&self, topic: &Topic) -> Interest {
        let mut broadcasts = self.lock();
        if let Some(broadcast) = broadcasts.get(topic) {
            return Interest::new(broadcast);
        }
        let broadcast = Arc::new(Broadcast {
            state: Mutex::default(),
            opened: watch::Sender::new(None),
            left: Notify::new(),
        });
        broadcasts.insert(topic.clone(), Arc::clone(&broadcast));
        tokio::spawn(self.clone().run(topic.clone(), Arc::clone(&broadcast)));
        Interest::new(&broadcast)
    }

    /// Carries a broadcast from its beginning to its end.
    async fn run(self, topic: Topic, broadcast: Arc<Broadcast>) {
        loop {
            let is_new = broadcast.opened.borrow().is_none();
            let next = if is_new {
                0
            } else {
                broadcast.lock().revision + 1
            };
            let ended = match self.open(&topic, next).await {
                Ok((requests, answers)) => {
                    let told = self.tell_all(&topic, &broadcast, answers).await;
                    drop(requests);
                    told
                }
                Err(status) => Some(Told::Failed(status)),
            };
            let ended = match ended {
                None => return,
                // What was told once is gone on with, wherever that may be.
                Some(Told::Failed(status))
                    if !broadcast.opened.borrow().is_none() && is_lost(&status) =>
                {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    if self.end_if_left(&topic, &broadcast) {
                        return;
                    }
                    continue;
                }
                Some(ended) => ended,
            };
            self.end(&topic, &broadcast, Some(ended));
            return;
        }
    }

    /// Until the stream breaks: with what it did, or with nothing when all have left.
    async fn tell_all(
        &self,
        topic: &Topic,
        broadcast: &Arc<Broadcast>,
        mut answers: Streaming<pb::WatchResponse>,
    ) -> Option<Told> {
        loop {
            let response = tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(response)) => response,
                    Ok(None) => return Some(Told::Failed(Status::unavailable("the stream has ended"))),
                    Err(status) => return Some(Told::Failed(status)),
                },
                () = broadcast.left.notified() => {
                    if self.end_if_left(topic, broadcast) {
                        return None;
                    }
                    continue;
                }
            };
            let header = response.header.unwrap_or_default();
            if response.canceled {
                return Some(Told::Canceled(Arc::new(response)));
            }
            if response.created {
                let is_new = broadcast.opened.borrow().is_none();
                let mut state = broadcast.lock();
                state.header = header;
                if is_new {
                    state.revision = header.revision;
                }
                drop(state);
                broadcast.opened.send_replace(Some(Ok(())));
                continue;
            }
            let last = response.events.last().and_then(|event| event.kv.as_ref());
            let reached = last.map_or(header.revision, |kv| kv.mod_revision);
            let told = told(response);
            let mut state = broadcast.lock();
            state.header = header;
            state.revision = state.revision.max(reached);
            self.tell(&mut state, &told);
        }
    }

    fn tell(&self, state: &mut State, told: &Told) {
        self.change(state, |listeners| {
            listeners.retain(|listener| listener.try_send(told.clone()).is_ok());
        });
        if let Told::Events(response) = told {
            let others = state.listeners.len().saturating_sub(1);
            self.metrics
                .events_coalesced
                .add((response.events.len() * others) as u64);
        }
    }

    /// Changes who listens, and counts it.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut Vec<mpsc::Sender<Told>>)) {
        let sharing = |state: &State| state.listeners.len().saturating_sub(1);
        let before = sharing(state);
        change(&mut state.listeners);
        let after = sharing(state);
        for _ in before..after {
            self.metrics.watchers_coalesced.increment();
        }
        for _ in after..before {
            self.metrics.watchers_coalesced.decrement();
        }
    }

    /// Ends a broadcast in which nobody is interested.
    fn end_if_left(&self, topic: &Topic, broadcast: &Arc<Broadcast>) -> bool {
        let mut broadcasts = self.lock();
        let mut state = broadcast.lock();
        self.change(&mut state, |listeners| {
            listeners.retain(|listener| !listener.is_closed());
        });
        if state.interested > 0 {
            return false;
        }
        state.is_over = true;
        broadcasts.remove(topic);
        true
    }

    /// Ends a broadcast with a last word.
    fn end(&self, topic: &Topic, broadcast: &Arc<Broadcast>, told: Option<Told>) {
        let mut broadcasts = self.lock();
        broadcasts.remove(topic);
        let mut state = broadcast.lock();
        state.is_over = true;
        if let Some(told) = &told {
            self.tell(&mut state, told);
        }
        self.change(&mut state, Vec::clear);
        drop(state);
        // Who waits for the beginning hears of the end instead.
        let refusal = match told {
            Some(Told::Canceled(response)) => Refusal::Answer(Box::new((*response).clone())),
            Some(Told::Failed(status)) => Refusal::Failed(status),
            _ => return,
        };
        let is_new = broadcast.opened.borrow().is_none();
        if is_new {
            broadcast.opened.send_replace(Some(Err(refusal)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Arc<Broadcast>>> {
        let broadcasts = self.broadcasts.lock();
        broadcasts.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broadcast {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response that is not the answer to the creation.
fn told(response: pb::WatchResponse) -> Told {
    if response.canceled {
        Told::Canceled(Arc::new(response))
    } else if response.events.is_empty() {
        Told::Progress(response.header.unwrap_or_default())
    } else {
        Told::Events(Arc::new(response))
    }
}

/// Whether another connection may help.
pub(super) fn is_lost(status: &Status) -> bool {
    let is_lost = matches!(
        status.code(),
        Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled
    );
    is_lost && status.message() != NO_LEADER
}
