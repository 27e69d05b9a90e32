//! Snapshots: one POST, the message first and then the image as it is.
//!
//! ```text
//!   u64 length (big endian) | raftpb.Message (MsgSnap) | image ... to the end of the body
//! ```
//!
//! An image may be gigabytes: what is sent are slices of a mapped file, and what comes in is handed on piece by piece.
//! Nothing here looks into an image.

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use hyper_util::client::legacy::Client;
use prost::Message as _;
use quorate_proto::raftpb::Message;
use tokio::time::{sleep, timeout};

use super::client::{Answer, CallError, collect};
use super::endpoint::Connector;
use super::limits::{
    ANSWER_BYTES_MAX, IO_TIMEOUT, SNAPSHOT_MESSAGE_BYTES_MAX, SNAPSHOT_PATIENCE,
    SNAPSHOT_SLICE_BYTES,
};

/// The client that snapshots go through.
pub(crate) type SnapshotClient = Client<Connector, SnapshotBody>;

/// What a snapshot's bytes are called.
const OCTETS: &str = "application/octet-stream";

/// The body of the POST.
#[derive(Debug)]
pub(crate) struct SnapshotBody {
    /// Length and message, until they were sent.
    head: Option<Bytes>,
    image: Bytes,
    /// Counts the slices that were taken.
    progress: Arc<AtomicU64>,
}

impl Body for SnapshotBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.progress.fetch_add(1, Ordering::Relaxed);
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        if self.image.is_empty() {
            return Poll::Ready(None);
        }
        let slice = self.image.len().min(SNAPSHOT_SLICE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.image.split_to(slice)))))
    }
}

/// Sends a snapshot and waits until the peer has stored it. Gives up when nothing moves for [`SNAPSHOT_PATIENCE`].
pub(crate) async fn send(
    client: &SnapshotClient,
    uri: Uri,
    mut headers: HeaderMap,
    message: &Message,
    image: Bytes,
) -> Result<(), CallError> {
    let mut head = BytesMut::new();
    head.put_u64(message.encoded_len() as u64);
    message.encode(&mut head).expect("the buffer grows");
    let progress = Arc::new(AtomicU64::new(0));
    let body = SnapshotBody {
        head: Some(head.freeze()),
        image,
        progress: Arc::clone(&progress),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let answer = tokio::select! {
        answer = client.request(request) => answer.map_err(CallError::unreachable)?,
        () = stalled(&progress) => return Err(CallError::timed_out()),
    };
    let (parts, body) = answer.into_parts();
    if parts.status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    let body = collect(body, ANSWER_BYTES_MAX).await.unwrap_or_default();
    let (status, headers) = (parts.status, parts.headers);
    Err(Answer {
        status,
        headers,
        body,
    }
    .into_error())
}

/// Ends when nothing has moved for too long.
async fn stalled(progress: &AtomicU64) {
    let mut seen = 0;
    loop {
        sleep(SNAPSHOT_PATIENCE).await;
        let now = progress.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// The body of a snapshot that comes in: first the message, then the image.
#[derive(Debug)]
pub struct IncomingSnapshot<B> {
    body: B,
    /// What came and was not taken.
    buffer: BytesMut,
}

impl<B> IncomingSnapshot<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    pub(crate) fn new(body: B) -> Self {
        let buffer = BytesMut::new();
        Self { body, buffer }
    }

    /// The message in front of the image.
    pub(crate) async fn message(&mut self) -> Result<Message, String> {
        self.fill(8).await?;
        let length = usize::try_from(self.buffer.get_u64()).unwrap_or(usize::MAX);
        if length > SNAPSHOT_MESSAGE_BYTES_MAX {
            return Err("error limit exceeded".to_owned());
        }
        self.fill(length).await?;
        Message::decode(self.buffer.split_to(length).freeze()).map_err(|error| error.to_string())
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), String> {
        while self.buffer.len() < bytes {
            match self.read().await? {
                Some(part) => self.buffer.extend_from_slice(&part),
                None => return Err("unexpected EOF".to_owned()),
            }
        }
        Ok(())
    }

    /// The next part of the image; `None` at its end. A body that breaks off is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        if self.buffer.is_empty() {
            self.read().await
        } else {
            Ok(Some(self.buffer.split().freeze()))
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(IO_TIMEOUT, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| "the sender has stalled".to_owned())? else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| error.to_string())?;
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                return Ok(Some(bytes));
            }
        }
    }
}
