//! What serves consensus: messages, snapshots and the long streams, and the checks that they pass first.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Either;
use hyper::body::Body;
use prost::Message as _;
use quorate_core::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use tracing::{error, info, warn};

use super::answers::{empty, forbidden, only, text};
use super::{LocalNode, PeerBody, Service};
use crate::peer::client::collect;
use crate::peer::codec::Stream;
use crate::peer::identity::{
    SERVER_VERSION, X_PEER_URLS, X_PROCESS, X_RAFT_TO, X_SERVER_FROM, X_SERVER_VERSION, parse_hex,
};
use crate::peer::limits::MESSAGE_BYTES_MAX;
use crate::peer::snapshot::IncomingSnapshot;
use crate::peer::transport::PeerEvent;

impl<N: LocalNode> Service<N> {
    pub(super) async fn raft<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if let Some(refusal) = self.refuse_peer(&Method::POST, parts) {
            return refusal;
        }
        self.add_remote(parts);
        let Ok(body) = collect(
            body,
            usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX),
        )
        .await
        else {
            return self.named(text(StatusCode::BAD_REQUEST, "error reading raft message"));
        };
        let bytes = body.len();
        let Ok(message) = Message::decode(body) else {
            return self.named(text(
                StatusCode::BAD_REQUEST,
                "error unmarshalling raft message",
            ));
        };
        let from = MemberId(message.from);
        if let Some(refusal) = self.refuse_message(&message) {
            return refusal;
        }
        if message.r#type == i32::from(MessageType::MsgSnap) {
            // Its image does not come this way; an envelope alone must not reach the member.
            return self.named(text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "error processing raft message",
            ));
        }
        self.transport.received(from, bytes);
        self.transport
            .deliver(vec![PeerEvent::Received { from, message }]);
        self.named(empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn snapshot<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        if let Some(refusal) = self.refuse_peer(&Method::POST, parts) {
            return refusal;
        }
        self.add_remote(parts);
        let mut incoming = IncomingSnapshot::new(body);
        let message = match incoming.message().await {
            Ok(message) => message,
            Err(error) => {
                let error = format!("error decoding raft message: {error}");
                return self.named(text(StatusCode::BAD_REQUEST, &error));
            }
        };
        if message.r#type != i32::from(MessageType::MsgSnap) {
            return self.named(text(StatusCode::BAD_REQUEST, "wrong raft message type"));
        }
        let from = MemberId(message.from);
        if let Some(refusal) = self.refuse_message(&message) {
            return refusal;
        }
        let peer = format!("{:x}", from.0);
        info!(peer, "receiving database snapshot");
        match self.node.receive_snapshot(message, incoming).await {
            Ok(bytes) => {
                info!(peer, bytes, "received and saved database snapshot");
                self.transport.received(from, 0);
                self.named(empty(StatusCode::NO_CONTENT))
            }
            Err(error) => {
                warn!(peer, error, "failed to save incoming database snapshot");
                let error = format!("failed to save KV snapshot: {error}");
                self.named(text(StatusCode::INTERNAL_SERVER_ERROR, &error))
            }
        }
    }

    pub(super) fn stream(&self, parts: &Parts) -> Response<PeerBody> {
        let mut response = match self.refuse_peer(&Method::GET, parts) {
            Some(refusal) => refusal,
            None => self.named(self.open_stream(parts)),
        };
        response
            .headers_mut()
            .insert(&X_SERVER_VERSION, HeaderValue::from_static(SERVER_VERSION));
        response
    }

    fn open_stream(&self, parts: &Parts) -> Response<PeerBody> {
        let path = parts.uri.path().trim_start_matches("/raft/stream/");
        let (lane, from) = path.split_once('/').unwrap_or((path, ""));
        let Some(stream) = Stream::ALL.into_iter().find(|stream| stream.name() == lane) else {
            return text(StatusCode::NOT_FOUND, "invalid path");
        };
        let Some(from) = parse_hex(from).map(MemberId) else {
            return text(StatusCode::NOT_FOUND, "invalid from");
        };
        if self.node.is_removed(from) {
            warn!(peer = %format_args!("{:x}", from.0), "rejected stream from removed member");
            return text(StatusCode::GONE, "removed member");
        }
        // Before a lane is attached, which would cut the one that is in use.
        let own = self.transport.identity().member.0;
        let is_meant = parts
            .headers
            .get(&X_RAFT_TO)
            .is_some_and(|to| to == format!("{own:x}").as_str());
        if !is_meant && self.transport.knows(from) {
            return text(StatusCode::PRECONDITION_FAILED, "to field mismatch");
        }
        self.note_claim(from, parts);
        match self.transport.attach(from, stream) {
            Some(body) => Response::new(Either::Right(body)),
            None => {
                if let Some(urls) = parts
                    .headers
                    .get(&X_PEER_URLS)
                    .and_then(|urls| urls.to_str().ok())
                {
                    self.transport.add_remote(from, urls);
                }
                text(StatusCode::NOT_FOUND, "error sender not found")
            }
        }
    }

    /// Nobody else is this member, and every other member is one process.
    fn note_claim(&self, from: MemberId, parts: &Parts) {
        let own = self.transport.identity();
        if from == own.member {
            error!(
                peer = %format_args!("{:x}", from.0),
                "somebody else claims to be this member: its data directory was copied. End the copy, remove its data, \
                 and let it join as a new member"
            );
        }
        let process = parts.headers.get(&X_PROCESS);
        // etcd's members do not say which process they are.
        if let Some(process) = process.and_then(|process| process.to_str().ok()) {
            self.transport.claim(from, process);
        }
    }

    /// The checks that every request for raft passes first.
    fn refuse_peer(&self, method: &Method, parts: &Parts) -> Option<Response<PeerBody>> {
        if let Some(refusal) = only(method, parts) {
            return Some(refusal);
        }
        let refusal = self.transport.identity().check(&parts.headers).err()?;
        let from = parts.headers.get(&X_SERVER_FROM);
        warn!(?from, path = parts.uri.path(), %refusal, "refused request of peer");
        Some(self.named(text(StatusCode::PRECONDITION_FAILED, &refusal.to_string())))
    }

    fn add_remote(&self, parts: &Parts) {
        let header = |name| {
            parts
                .headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        if let (Some(from), Some(urls)) = (
            header(&X_SERVER_FROM).and_then(parse_hex),
            header(&X_PEER_URLS),
        ) {
            self.transport.add_remote(MemberId(from), urls);
        }
    }

    /// The checks that every message of raft passes before it reaches the member.
    fn refuse_message(&self, message: &Message) -> Option<Response<PeerBody>> {
        let reason = if self.node.is_removed(MemberId(message.from)) {
            "cannot process message from removed member"
        } else if message.to != self.transport.identity().member.0 {
            "cannot process message to mismatch member"
        } else {
            return None;
        };
        Some(self.named(forbidden(reason)))
    }
}
