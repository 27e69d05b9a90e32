//! The way to a peer while it has opened no stream to us: each message is a POST of its own.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use prost::Message as _;
use quorate_core::MemberId;
use quorate_proto::raftpb::Message;
use tokio::sync::Notify;

use super::client::{CallError, PROTOBUF, call};
use super::limits::{ANSWER_BYTES_MAX, PIPELINE_MESSAGES_MAX};
use super::picker::EndpointPicker;
use super::status::Status;
use super::transport::{PeerEvent, Shared};

/// A short queue that a few workers empty.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    queue: Mutex<VecDeque<Message>>,
    filled: Notify,
}

impl Pipeline {
    /// Queues a message without waking anybody; false when there is no room.
    pub(crate) fn offer(&self, message: Message) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let room = queue.len() < PIPELINE_MESSAGES_MAX;
        if room {
            queue.push_back(message);
        }
        room
    }

    /// Wakes a worker, which wakes the next if there is more.
    pub(crate) fn wake(&self) {
        self.filled.notify_one();
    }

    async fn take(&self) -> Message {
        loop {
            let (message, more) = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                (queue.pop_front(), !queue.is_empty())
            };
            if more {
                self.wake();
            }
            match message {
                Some(message) => return message,
                None => self.filled.notified().await,
            }
        }
    }
}

/// One of the tasks that POST.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: MemberId,
    pub(crate) picker: Arc<EndpointPicker>,
    pub(crate) status: Arc<Status>,
    pub(crate) pipeline: Arc<Pipeline>,
}

impl Worker {
    pub(crate) async fn run(self) {
        loop {
            let message = self.pipeline.take().await;
            let body = Bytes::from(message.encode_to_vec());
            let bytes = body.len() as u64;
            match self.post(body).await {
                Ok(()) => {
                    self.status.activate();
                    self.status.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), CallError> {
        let endpoint = self
            .picker
            .pick()
            .ok_or_else(|| CallError::Unreachable("no peer URL".to_owned()))?;
        let mut headers = self.shared.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        let answer = call(
            self.shared.http(),
            Method::POST,
            endpoint.uri("/raft"),
            headers,
            body,
            ANSWER_BYTES_MAX,
        )
        .await;
        let refused = match answer {
            Ok(answer) if answer.status == StatusCode::NO_CONTENT => return Ok(()),
            Ok(answer) => answer.into_error(),
            Err(error) => error,
        };
        self.picker.unreachable(&endpoint);
        Err(refused)
    }

    fn failed(&self, error: &CallError) {
        self.status.deactivate("pipeline", &error.to_string());
        self.status.sent_failures.fetch_add(1, Ordering::Relaxed);
        let mut events = vec![PeerEvent::Unreachable(self.peer)];
        if matches!(
            error,
            CallError::Refused {
                status: StatusCode::FORBIDDEN,
                ..
            }
        ) {
            events.push(PeerEvent::Removed { by: self.peer });
        }
        self.shared.deliver(events);
    }
}
