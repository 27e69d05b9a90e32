//! Leases through the proxy: renewals of all clients of one user go up one stream, each lease once at a time.
//!
//! ```text
//!   client ─► renewal of 7 ─┐
//!   client ─► renewal of 7 ─┼─► one request for 7 ─► member ─► its answer goes to all who wait for 7
//!   client ─► renewal of 8 ─┘
//! ```

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use quorate_net::grpc::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb as pb;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::namespace::Namespace;
use super::upstream::{Caller, Upstream};

/// Renewals of one client that may be under way at once; their answers keep their order.
const UNDER_WAY_MAX: usize = 64;
/// Renewals of all clients that wait for the stream.
const WAITING_MAX: usize = 256;
/// A stream that nobody uses ends after this time.
const IDLE_MAX: Duration = Duration::from_secs(60);

type Answer = Result<pb::LeaseKeepAliveResponse, Status>;

/// The Lease service.
#[derive(Clone, Debug)]
pub(super) struct LeaseProxy {
    pub(super) upstream: Upstream,
    pub(super) namespace: Namespace,
    pub(super) renewals: Renewals,
}

/// The streams to the members, by user; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Renewals {
    upstream: Upstream,
    streams: Arc<Mutex<HashMap<Caller, mpsc::Sender<Asked>>>>,
}

/// A renewal that somebody waits for.
#[derive(Debug)]
struct Asked {
    id: i64,
    answer: oneshot::Sender<Answer>,
}

impl Renewals {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            streams: Arc::default(),
        }
    }

    async fn renew(self, caller: Caller, id: i64) -> Answer {
        let (answer, answered) = oneshot::channel();
        let mut asked = Asked { id, answer };
        loop {
            let stream = self.stream(&caller);
            match stream.send(asked).await {
                Ok(()) => break,
                // It has just ended.
                Err(mpsc::error::SendError(returned)) => asked = returned,
            }
        }
        let lost = |_| Err(Status::unavailable("the stream of renewals has ended"));
        answered.await.unwrap_or_else(lost)
    }

    /// The stream of a user, opened if there is none.
    fn stream(&self, caller: &Caller) -> mpsc::Sender<Asked> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(caller).filter(|stream| !stream.is_closed()) {
            return stream.clone();
        }
        streams.retain(|_, stream| !stream.is_closed());
        let (stream, asked) = mpsc::channel(WAITING_MAX);
        streams.insert(caller.clone(), stream.clone());
        tokio::spawn(carry(self.upstream.clone(), caller.clone(), asked));
        stream
    }
}

/// Carries the renewals of one user until the stream breaks or nobody uses it.
async fn carry(upstream: Upstream, caller: Caller, mut asked: mpsc::Receiver<Asked>) {
    let mut waiting: HashMap<i64, Vec<oneshot::Sender<Answer>>> = HashMap::new();
    let Some(first) = asked.recv().await else {
        return;
    };
    let (requests, body) = mpsc::channel(WAITING_MAX);
    // A member begins its answer with the first renewal.
    let _ = requests.try_send(pb::LeaseKeepAliveRequest { id: first.id });
    waiting.entry(first.id).or_default().push(first.answer);
    let body = Mutex::new(Some(body));
    let opened = upstream.ask(false, |channel| {
        let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        let body = body.expect("a stream is opened once");
        let request = caller.asks(ReceiverStream::new(body));
        let mut leases = upstream.lease(channel);
        async move { leases.lease_keep_alive(request).await }
    });
    let ended = match opened.await {
        Ok(answers) => exchange(answers.into_inner(), &requests, &mut asked, &mut waiting).await,
        Err(status) => status,
    };
    asked.close();
    while let Ok(late) = asked.try_recv() {
        waiting.entry(late.id).or_default().push(late.answer);
    }
    for answer in waiting.into_values().flatten() {
        let _ = answer.send(Err(ended.clone()));
    }
}

/// Until the stream ends: why it did.
async fn exchange(
    mut answers: Streaming<pb::LeaseKeepAliveResponse>,
    requests: &mpsc::Sender<pb::LeaseKeepAliveRequest>,
    asked: &mut mpsc::Receiver<Asked>,
    waiting: &mut HashMap<i64, Vec<oneshot::Sender<Answer>>>,
) -> Status {
    loop {
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(answer)) => {
                    for waits in waiting.remove(&answer.id).unwrap_or_default() {
                        let _ = waits.send(Ok(answer));
                    }
                }
                Ok(None) => return Status::unavailable("the stream of renewals has ended"),
                Err(status) => return status,
            },
            next = asked.recv() => {
                let Some(Asked { id, answer }) = next else {
                    return Status::unavailable("the proxy ends");
                };
                let all = waiting.entry(id).or_default();
                all.push(answer);
                if all.len() == 1 && requests.send(pb::LeaseKeepAliveRequest { id }).await.is_err() {
                    return Status::unavailable("the stream of renewals has ended");
                }
            }
            () = tokio::time::sleep(IDLE_MAX) => {
                return Status::unavailable("the stream of renewals is idle");
            }
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseProxy {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let message = request.into_inner();
        let answered = self.upstream.ask(false, |channel| {
            let request = caller.asks(message);
            let mut leases = self.upstream.lease(channel);
            async move { leases.lease_grant(request).await }
        });
        answered.await
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let message = request.into_inner();
        let answered = self.upstream.ask(false, |channel| {
            let request = caller.asks(message);
            let mut leases = self.upstream.lease(channel);
            async move { leases.lease_revoke(request).await }
        });
        answered.await
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let caller = Caller::of(request.metadata());
        let renewals = self.renewals.clone();
        let answers = request.into_inner().map(move |renewal| {
            let (renewals, caller) = (renewals.clone(), caller.clone());
            async move { renewals.renew(caller, renewal?.id).await }
        });
        Ok(Response::new(Box::pin(answers.buffered(UNDER_WAY_MAX))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let message = request.into_inner();
        let answered = self.upstream.ask(true, |channel| {
            let request = caller.asks(message);
            let mut leases = self.upstream.lease(channel);
            async move { leases.lease_time_to_live(request).await }
        });
        let mut response = answered.await?;
        self.namespace.strip_keys(&mut response.get_mut().keys);
        Ok(response)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let answered = self.upstream.ask(true, |channel| {
            let request = caller.asks(pb::LeaseLeasesRequest {});
            let mut leases = self.upstream.lease(channel);
            async move { leases.lease_leases(request).await }
        });
        answered.await
    }
}
