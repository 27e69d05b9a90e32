//! The stream that this member opens to a peer and reads the peer's messages from.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use quorate_core::MemberId;
use quorate_proto::raftpb::Message;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::client::{CallError, collect};
use super::codec::{Decoder, Stream};
use super::endpoint::Endpoint;
use super::identity::{X_RAFT_TO, hex};
use super::limits::{ANSWER_BYTES_MAX, IO_TIMEOUT, READ_BATCH_BYTES, REDIAL_INTERVAL};
use super::picker::EndpointPicker;
use super::status::Status;
use super::transport::{PeerEvent, Shared};

/// Keeps one stream from one peer open.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: MemberId,
    pub(crate) stream: Stream,
    pub(crate) picker: Arc<EndpointPicker>,
    pub(crate) status: Arc<Status>,
}

impl Reader {
    /// Dials, reads until the stream breaks, and dials again.
    pub(crate) async fn run(self) {
        let peer = format!("{:x}", self.peer.0);
        let mut last_refusal = String::new();
        loop {
            let dialled = Instant::now();
            let reason = match self.dial().await {
                Ok(body) => {
                    info!(
                        peer,
                        stream = self.stream.name(),
                        "established stream from peer"
                    );
                    last_refusal.clear();
                    self.status.activate();
                    let reason = self.read(body).await;
                    warn!(
                        peer,
                        stream = self.stream.name(),
                        reason,
                        "lost stream from peer"
                    );
                    self.status
                        .received_failures
                        .fetch_add(1, Ordering::Relaxed);
                    reason
                }
                Err(error) => {
                    let reason = error.to_string();
                    // A peer that is down refuses ten times a second for the same reason.
                    if reason != last_refusal {
                        warn!(
                            peer,
                            stream = self.stream.name(),
                            reason,
                            "failed to dial peer"
                        );
                        last_refusal.clone_from(&reason);
                    }
                    reason
                }
            };
            self.status.deactivate(self.stream.name(), &reason);
            sleep_until(dialled + REDIAL_INTERVAL).await;
        }
    }

    async fn dial(&self) -> Result<Incoming, CallError> {
        let endpoint = self
            .picker
            .pick()
            .ok_or_else(|| CallError::Unreachable("no peer URL".to_owned()))?;
        let result = self.open(&endpoint).await;
        if let Err(error) = &result {
            self.picker.unreachable(&endpoint);
            if matches!(
                error,
                CallError::Refused {
                    status: StatusCode::GONE,
                    ..
                }
            ) {
                self.shared
                    .deliver(vec![PeerEvent::Removed { by: self.peer }]);
            }
        }
        result
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Incoming, CallError> {
        let path = format!(
            "/raft/stream/{}/{:x}",
            self.stream.name(),
            self.shared.identity.member.0
        );
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = endpoint.uri(&path);
        *request.headers_mut() = self.shared.headers.clone();
        request.headers_mut().insert(&X_RAFT_TO, self.receiver());

        let answer = timeout(
            self.shared.wire.dial_timeout + IO_TIMEOUT,
            self.shared.http().request(request),
        );
        let response = answer
            .await
            .map_err(|_| CallError::timed_out())?
            .map_err(CallError::unreachable)?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status();
        let text = collect(response.into_body(), ANSWER_BYTES_MAX)
            .await
            .unwrap_or_default();
        Err(CallError::Refused {
            status,
            text: String::from_utf8_lossy(&text).trim_end().to_owned(),
        })
    }

    fn receiver(&self) -> HeaderValue {
        hex(self.peer.0)
    }

    /// Hands over what arrives until the stream breaks; returns why it did.
    async fn read(&self, mut body: Incoming) -> String {
        let mut decoder = Decoder::new(self.stream, self.shared.identity.member, self.peer);
        let mut buffer = BytesMut::new();
        loop {
            let end = self.fill(&mut body, &mut buffer).await.err();
            let mut messages = Vec::new();
            let decoded = decoder.decode(&mut buffer, &mut messages);
            self.deliver(messages);
            match (decoded, end) {
                (Err(error), _) => return error.to_string(),
                (Ok(()), Some(end)) => return end,
                (Ok(()), None) => {}
            }
        }
    }

    /// Waits for bytes, then takes all that have arrived, up to one batch.
    async fn fill(&self, body: &mut Incoming, buffer: &mut BytesMut) -> Result<(), String> {
        let before = buffer.len();
        let mut next = timeout(self.shared.wire.read_timeout, body.frame())
            .await
            .map_err(|_| "no heartbeat arrived".to_owned())?;
        loop {
            let frame: Frame<Bytes> = match next {
                None => return Err("the peer closed the stream".to_owned()),
                Some(frame) => frame.map_err(|error| error.to_string())?,
            };
            if let Some(bytes) = frame.data_ref() {
                buffer.extend_from_slice(bytes);
                self.status
                    .received_bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            if buffer.len() - before >= READ_BATCH_BYTES {
                return Ok(());
            }
            match body.frame().now_or_never() {
                Some(more) => next = more,
                None => return Ok(()),
            }
        }
    }

    fn deliver(&self, messages: Vec<Message>) {
        let own = messages
            .into_iter()
            .filter(|message| self.shared.is_addressee(message));
        self.shared.deliver(
            own.map(|message| PeerEvent::Received {
                from: MemberId(message.from),
                message,
            })
            .collect(),
        );
    }
}
