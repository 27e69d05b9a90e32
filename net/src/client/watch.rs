//! Watches that outlive a connection: when the stream breaks, each watcher goes on after the last revision it has seen.
//!
//! ```text
//!   add ─► Watcher 0, 1, ... ─► one stream ─► responses, with the numbers of the watchers that they are for
//!                                  │ breaks: connect again, create each watcher at its next revision
//! ```
//!
//! Only a lost connection is mended. A member that knows no leader, a refusal and a canceled watch are for the caller.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{Client, ClientError};

/// Between two attempts to open a stream.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Requests beyond one for each watcher that may wait for a stream to take them.
const REQUESTS_WAITING_MAX: usize = 16;
/// The watch id of a progress answer, which is for all watchers.
const EVERYBODY: i64 = -1;
/// etcd's words for a member without a leader.
const NO_LEADER: &str = "etcdserver: no leader";

/// Some watchers on one stream.
#[derive(Debug)]
pub struct Watches<'c> {
    client: &'c Client,
    /// Never removed, so that numbers stay.
    watchers: Vec<Watcher>,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Watcher {
    /// With the revision to go on from.
    request: pb::WatchCreateRequest,
    /// The server's number on the present stream.
    id: Option<i64>,
    /// The server has ended it.
    is_over: bool,
}

#[derive(Debug)]
struct Stream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
    /// Watchers whose creation is not confirmed yet; the server confirms in order.
    creating: VecDeque<usize>,
}

impl Client {
    /// No watchers yet.
    pub fn watches(&self) -> Watches<'_> {
        Watches {
            client: self,
            watchers: Vec::new(),
            stream: None,
        }
    }
}

impl Watches<'_> {
    /// Adds a watcher; gives its number, counting from zero.
    pub async fn add(&mut self, request: pb::WatchCreateRequest) -> usize {
        let number = self.watchers.len();
        if let Some(stream) = &mut self.stream {
            let request = RequestUnion::CreateRequest(request.clone());
            stream.creating.push_back(number);
            stream.send(request).await;
        }
        self.watchers.push(Watcher {
            request,
            id: None,
            is_over: false,
        });
        number
    }

    /// Whether any watcher may still have something to say.
    pub fn has_watchers(&self) -> bool {
        self.watchers.iter().any(|watcher| !watcher.is_over)
    }

    /// Asks for the revision that all watchers have reached. Without a stream there is nothing to ask.
    pub async fn request_progress(&mut self) {
        if let Some(stream) = &mut self.stream {
            let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
            stream.send(request).await;
        }
    }

    /// The next response and the watchers that it is for. May be dropped at any time and called again.
    pub async fn next(&mut self) -> Result<(Vec<usize>, pb::WatchResponse), ClientError> {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.open().await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(error) if is_mended(&error) => tokio::time::sleep(RECONNECT_PAUSE).await,
                    Err(error) => return Err(error),
                }
                continue;
            };
            let response = match stream.responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => {
                    self.lose_stream();
                    continue;
                }
                Err(status) => {
                    self.lose_stream();
                    let error = ClientError::from(status);
                    if is_mended(&error) {
                        continue;
                    }
                    return Err(error);
                }
            };
            if let Some(numbers) = self.accept(&response) {
                return Ok((numbers, response));
            }
        }
    }

    /// A stream on which all watchers are being created. Nothing is remembered before it is open.
    async fn open(&self) -> Result<Stream, ClientError> {
        let capacity = self.watchers.len() + REQUESTS_WAITING_MAX;
        let (requests, receiver) = mpsc::channel(capacity);
        let mut creating = VecDeque::new();
        for (number, watcher) in self.watchers.iter().enumerate() {
            if watcher.is_over {
                continue;
            }
            let request = pb::WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(watcher.request.clone())),
            };
            requests.try_send(request).expect("room for each watcher");
            creating.push_back(number);
        }
        let responses = self.client.watch(receiver).await?;
        Ok(Stream {
            requests,
            responses,
            creating,
        })
    }

    fn lose_stream(&mut self) {
        self.stream = None;
        for watcher in &mut self.watchers {
            watcher.id = None;
        }
    }

    /// Notes what a response says; gives the watchers that it is for, unless it only confirms one.
    fn accept(&mut self, response: &pb::WatchResponse) -> Option<Vec<usize>> {
        let stream = self.stream.as_mut().expect("it gave the response");
        if response.created {
            let number = stream.creating.pop_front()?;
            let watcher = &mut self.watchers[number];
            watcher.id = Some(response.watch_id);
            if response.canceled {
                watcher.is_over = true;
                return Some(vec![number]);
            }
            if watcher.request.start_revision == 0
                && let Some(header) = response.header
            {
                // So that nothing is missed if the stream breaks before the first event.
                watcher.request.start_revision = header.revision + 1;
            }
            return None;
        }
        let is_addressed = |watcher: &Watcher| {
            let id = watcher.id.filter(|_| !watcher.is_over);
            id.is_some_and(|id| response.watch_id == EVERYBODY || response.watch_id == id)
        };
        let mut numbers = Vec::new();
        for (number, watcher) in self.watchers.iter_mut().enumerate() {
            if !is_addressed(watcher) {
                continue;
            }
            numbers.push(number);
            watcher.is_over = response.canceled;
            let last = response.events.last().and_then(|event| event.kv.as_ref());
            let reached = match (last, response.header) {
                (Some(kv), _) => kv.mod_revision,
                (None, Some(header)) => header.revision,
                (None, None) => 0,
            };
            let next = &mut watcher.request.start_revision;
            *next = (*next).max(reached + 1);
        }
        (!numbers.is_empty()).then_some(numbers)
    }
}

impl Stream {
    /// A request that a broken stream does not take is made again on the next one.
    async fn send(&mut self, request: RequestUnion) {
        let request = pb::WatchRequest {
            request_union: Some(request),
        };
        let _ = self.requests.send(request).await;
    }
}

/// Whether connecting again may help.
fn is_mended(error: &ClientError) -> bool {
    match error {
        ClientError::Connect(_) => true,
        ClientError::Status(status) => is_lost_connection(status),
        _ => false,
    }
}

fn is_lost_connection(status: &Status) -> bool {
    let is_lost = matches!(
        status.code(),
        Code::Unavailable | Code::Internal | Code::Unknown
    );
    is_lost && status.message() != NO_LEADER
}
