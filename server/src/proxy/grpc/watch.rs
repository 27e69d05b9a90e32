//! Watches through the proxy: each client's stream, and what each of its watchers wants to hear.
//!
//! Owns ids, filters and the namespace. Where events come from is the business of the [`Hub`].

use std::collections::HashMap;

use quorate_net::grpc::etcdserverpb::watch_server::Watch;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::Event;
use quorate_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::warn;

use super::hub::{Hub, RECONNECT_PAUSE, Refusal, Subscription, Told, Topic, is_lost};
use super::namespace::Namespace;
use super::upstream::Caller;

/// Answers of one stream that may wait for its client.
const ANSWERS_WAITING_MAX: usize = 64;
/// The id of a watcher that there is not.
const NOBODY: i64 = -1;
/// An empty key is the first one there can be.
const FIRST_KEY: &[u8] = b"\0";

type Answers = mpsc::Sender<Result<pb::WatchResponse, Status>>;

/// The Watch service.
#[derive(Clone, Debug)]
pub(super) struct WatchProxy {
    pub(super) hub: Hub,
    pub(super) namespace: Namespace,
}

/// One client's stream.
struct Conversation {
    proxy: WatchProxy,
    caller: Caller,
    answers: Answers,
    watchers: Watchers,
    /// The id of the next watcher that asks for none.
    next_id: i64,
}

/// The tasks of a stream's watchers, which end with it.
#[derive(Default)]
struct Watchers(HashMap<i64, JoinHandle<()>>);

/// One watcher.
struct Watcher {
    proxy: WatchProxy,
    topic: Topic,
    wanted: pb::WatchCreateRequest,
    id: i64,
    /// The first revision that it has not heard of.
    next: i64,
    answers: Answers,
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for watcher in self.0.values() {
            watcher.abort();
        }
    }
}

#[tonic::async_trait]
impl Watch for WatchProxy {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let conversation = Conversation {
            proxy: self.clone(),
            caller: Caller::of(request.metadata()),
            answers,
            watchers: Watchers::default(),
            next_id: 0,
        };
        tokio::spawn(conversation.hold(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Conversation {
    /// Answers one request after the other, so that creations are confirmed in their order.
    async fn hold(mut self, mut requests: Streaming<pb::WatchRequest>) {
        while let Ok(Some(request)) = requests.message().await {
            let heard = match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
                Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => {
                    warn!("not supported request type by gRPC proxy: progress of a stream");
                    Ok(())
                }
                None => Ok(()),
            };
            if heard.is_err() {
                return;
            }
        }
    }

    async fn say(&self, response: pb::WatchResponse) -> Result<(), ()> {
        self.answers.send(Ok(response)).await.map_err(drop)
    }

    async fn create(&mut self, wanted: pb::WatchCreateRequest) -> Result<(), ()> {
        let is_taken = |id: &i64| {
            let known = self.watchers.0.get(id);
            known.is_some_and(|watcher| !watcher.is_finished())
        };
        if wanted.watch_id != 0 && is_taken(&wanted.watch_id) {
            return self
                .refuse("mvcc: duplicate watch ID provided on the WatchStream")
                .await;
        }
        let id = match wanted.watch_id {
            0 => (self.next_id..)
                .find(|id| !is_taken(id))
                .unwrap_or_default(),
            id => id,
        };
        let (mut key, mut range_end) = (wanted.key.clone(), wanted.range_end.clone());
        if key.is_empty() {
            key = FIRST_KEY.into();
        }
        self.proxy.namespace.range(&mut key, &mut range_end);
        let topic = Topic {
            caller: self.caller.clone(),
            key,
            range_end,
        };
        let now = match self.proxy.hub.check(&topic).await {
            Ok(header) => header.revision,
            Err(status) if status.code() == Code::Unavailable => return self.fail(status).await,
            Err(status) => return self.refuse(status.message()).await,
        };
        let subscribed = self.proxy.hub.subscribe(&topic, wanted.start_revision);
        let subscription = match subscribed.await {
            Ok(subscription) => subscription,
            Err(Refusal::Answer(refused)) => return self.say(*refused).await,
            Err(Refusal::Failed(status)) => return self.fail(status).await,
        };
        if wanted.watch_id == 0 {
            self.next_id = id + 1;
        }
        // What the client may have seen already is not told as new, though the broadcast has still to tell it.
        let mut header = subscription.header;
        header.revision = header.revision.max(now);
        self.say(pb::WatchResponse {
            header: Some(header),
            watch_id: id,
            created: true,
            ..pb::WatchResponse::default()
        })
        .await?;
        let next = match wanted.start_revision {
            0 => header.revision + 1,
            revision => revision,
        };
        let watcher = Watcher {
            proxy: self.proxy.clone(),
            topic,
            wanted,
            id,
            next,
            answers: self.answers.clone(),
        };
        self.watchers
            .0
            .insert(id, tokio::spawn(watcher.listen(subscription)));
        Ok(())
    }

    /// Ends the stream.
    async fn fail(&self, status: Status) -> Result<(), ()> {
        let _ = self.answers.send(Err(status)).await;
        Err(())
    }

    async fn refuse(&self, reason: &str) -> Result<(), ()> {
        self.say(pb::WatchResponse {
            header: Some(pb::ResponseHeader::default()),
            watch_id: NOBODY,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..pb::WatchResponse::default()
        })
        .await
    }

    async fn cancel(&mut self, id: i64) -> Result<(), ()> {
        let Some(watcher) = self.watchers.0.remove(&id) else {
            return Ok(());
        };
        watcher.abort();
        // Nothing is heard of it after this.
        let ended_before = watcher.await.is_ok();
        if ended_before {
            return Ok(());
        }
        self.say(pb::WatchResponse {
            header: Some(pb::ResponseHeader::default()),
            watch_id: id,
            canceled: true,
            ..pb::WatchResponse::default()
        })
        .await
    }
}

impl Watcher {
    /// Until the client or a member ends it.
    async fn listen(mut self, mut subscription: Subscription) {
        loop {
            let Some(told) = subscription.next().await else {
                drop(subscription);
                subscription = loop {
                    match self.proxy.hub.subscribe(&self.topic, self.next).await {
                        Ok(subscription) => break subscription,
                        Err(Refusal::Failed(status)) if is_lost(&status) => {
                            tokio::time::sleep(RECONNECT_PAUSE).await;
                        }
                        Err(refusal) => return self.end(refusal).await,
                    }
                };
                continue;
            };
            let heard = match told {
                Told::Events(response) => self.pass_on(&response).await,
                Told::Progress(header) => self.progress(header).await,
                Told::Canceled(response) => {
                    let refusal = Refusal::Answer(Box::new((*response).clone()));
                    return self.end(refusal).await;
                }
                Told::Failed(status) => return self.end(Refusal::Failed(status)).await,
            };
            if heard.is_err() {
                return;
            }
            if subscription.is_alone()
                && let Some(shared) = self.proxy.hub.rejoin(&self.topic, self.next)
            {
                subscription = shared;
            }
        }
    }

    async fn pass_on(&mut self, response: &pb::WatchResponse) -> Result<(), ()> {
        let wanted = response.events.iter().filter(|event| self.wants(event));
        let mut events: Vec<_> = wanted.cloned().collect();
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        self.next = self.next.max(last.map_or(0, |kv| kv.mod_revision + 1));
        if events.is_empty() {
            return Ok(());
        }
        if !self.wanted.prev_kv {
            events.iter_mut().for_each(|event| event.prev_kv = None);
        }
        self.proxy.namespace.strip_events(&mut events);
        let passed = pb::WatchResponse {
            header: response.header,
            watch_id: self.id,
            events,
            ..pb::WatchResponse::default()
        };
        self.answers.send(Ok(passed)).await.map_err(drop)
    }

    fn wants(&self, event: &Event) -> bool {
        let unwanted = match event.r#type() {
            EventType::Put => FilterType::Noput,
            EventType::Delete => FilterType::Nodelete,
        };
        let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        revision >= self.next && !self.wanted.filters.contains(&(unwanted as i32))
    }

    async fn progress(&mut self, header: pb::ResponseHeader) -> Result<(), ()> {
        self.next = self.next.max(header.revision + 1);
        if !self.wanted.progress_notify {
            return Ok(());
        }
        let progress = pb::WatchResponse {
            header: Some(header),
            watch_id: self.id,
            ..pb::WatchResponse::default()
        };
        self.answers.send(Ok(progress)).await.map_err(drop)
    }

    /// Passes on why there is no more; what is not about this watcher alone ends the stream.
    async fn end(self, refusal: Refusal) {
        let last = match refusal {
            Refusal::Answer(mut response) => {
                response.watch_id = self.id;
                response.created = false;
                Ok(*response)
            }
            Refusal::Failed(status) => Err(status),
        };
        let _ = self.answers.send(last).await;
    }
}
