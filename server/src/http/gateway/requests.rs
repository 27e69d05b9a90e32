//! From JSON to gRPC frames: the body of a call as the services read it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::Deserializer;
use tonic::Status;
use tonic::body::Body;
use tracing::debug;

use super::FRAME_HEADER_BYTES;

/// The requests of one call, as the body of the gRPC call.
#[derive(Debug)]
pub(super) struct Requests {
    request: MessageDescriptor,
    /// JSON that is not translated yet.
    buffer: BytesMut,
    /// A frame that was made before the body began to be read.
    ready: Option<Bytes>,
    /// Where more JSON comes from.
    body: Option<Body>,
    /// One request may not have more JSON than this.
    bytes_max: usize,
}

impl Requests {
    /// As many requests as come, each as soon as it has come.
    pub(super) fn streaming(request: MessageDescriptor, body: Body, bytes_max: usize) -> Self {
        Self {
            request,
            buffer: BytesMut::new(),
            ready: None,
            body: Some(body),
            bytes_max,
        }
    }

    /// The only request of a call, read to its end. No body is an empty request.
    pub(super) async fn read(
        request: MessageDescriptor,
        body: Body,
        bytes_max: usize,
    ) -> Result<Self, Status> {
        let json = read_all(body, bytes_max).await?;
        let frame = match next_request(&request, &json)? {
            Some((frame, _)) => frame,
            None if json.iter().all(u8::is_ascii_whitespace) => {
                frame(&DynamicMessage::new(request.clone()))
            }
            None => return Err(Status::invalid_argument("unexpected EOF")),
        };
        Ok(Self {
            request,
            buffer: BytesMut::new(),
            ready: Some(frame),
            body: None,
            bytes_max: 0,
        })
    }

    /// Takes a whole request out of the buffer, if there is one.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((frame, used)) = next_request(&self.request, &self.buffer)? else {
            return Ok(None);
        };
        self.buffer.advance(used);
        Ok(Some(frame))
    }
}

/// Reads a body to its end. Each piece is copied and let go at once: it may be one byte of a buffer of its own, and a client that
/// sends its JSON byte by byte would otherwise hold thousands of times as much memory.
pub(super) async fn read_all<B>(mut body: B, bytes_max: usize) -> Result<BytesMut, Status>
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    let mut json = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let Some(piece) = frame.data_ref() else {
            continue;
        };
        if json.len() + piece.len() > bytes_max {
            return Err(Status::resource_exhausted(format!(
                "quorate: the request has more than {bytes_max} bytes of JSON"
            )));
        }
        json.extend_from_slice(piece);
    }
    Ok(json)
}

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    /// What cannot be read ends the stream of requests, as in etcd: the call goes on without more of them.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(frame) = self.ready.take() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        while self.body.is_some() {
            match self.take() {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                Ok(None) if self.buffer.len() <= self.bytes_max => {}
                Ok(None) => {
                    debug!(bytes = self.buffer.len(), "request is too large");
                    break;
                }
                Err(error) => {
                    debug!(error = error.message(), "request cannot be read");
                    break;
                }
            }
            let Some(body) = &mut self.body else { break };
            match Pin::new(body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(json) = frame.into_data() {
                        self.buffer.extend_from_slice(&json);
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => break,
            }
        }
        self.body = None;
        Poll::Ready(None)
    }
}

/// The first request in `json` as a gRPC frame, and how many bytes of JSON it took; nothing when more are needed.
pub(super) fn next_request(
    request: &MessageDescriptor,
    json: &[u8],
) -> Result<Option<(Bytes, usize)>, Status> {
    // Strangers are ignored, as by etcd's gateway.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    // The values are cut apart first: an object that is not whole yet is no error.
    let mut values = Deserializer::from_slice(json).into_iter::<serde_json::Value>();
    let value = match values.next() {
        None => return Ok(None),
        Some(Ok(value)) => value,
        Some(Err(error)) if error.is_eof() => return Ok(None),
        Some(Err(error)) => return Err(Status::invalid_argument(error.to_string())),
    };
    let message = DynamicMessage::deserialize_with_options(request.clone(), value, &options)
        .map_err(|error| Status::invalid_argument(format!("proto: {error}")))?;
    Ok(Some((frame(&message), values.byte_offset())))
}

fn frame(message: &DynamicMessage) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + length);
    frame.put_u8(0);
    // A longer one was refused as JSON already, which is never shorter.
    frame.put_u32(u32::try_from(length).expect("a request is below 4 GiB"));
    message.encode_raw(&mut frame);
    frame.freeze()
}
