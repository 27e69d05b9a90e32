//! From gRPC frames to JSON: the body of an answer as HTTP clients read it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{FRAME_HEADER_BYTES, error_line};

/// The responses of one call: as the body of an answer, a line for each.
#[derive(Debug)]
pub(super) struct Lines {
    response: MessageDescriptor,
    /// Frames that have not come whole.
    buffer: BytesMut,
    /// `None` once everything was said.
    body: Option<Body>,
}

impl Lines {
    pub(super) fn new(response: MessageDescriptor, body: Body) -> Self {
        Self {
            response,
            buffer: BytesMut::new(),
            body: Some(body),
        }
    }

    /// The JSON of the only response of a call.
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        let body = self.body.take().expect("nothing was read yet");
        let collected = body.collect().await?;
        if let Some(refused) = collected.trailers().and_then(Status::from_header_map)
            && refused.code() != Code::Ok
        {
            return Err(refused);
        }
        self.buffer.extend_from_slice(&collected.to_bytes());
        let message = self
            .take()?
            .ok_or_else(|| Status::internal("quorate: the service gave no response"))?;
        let mut text = Vec::new();
        write_json(&message, &mut text)?;
        Ok(text.into())
    }

    /// Takes a whole message out of the buffer.
    fn take(&mut self) -> Result<Option<DynamicMessage>, Status> {
        let Some(&[_flag, a, b, c, d]) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if self.buffer.len() < FRAME_HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        let message = self.buffer.split_to(length);
        DynamicMessage::decode(self.response.clone(), message)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }

    /// The lines for all whole messages in the buffer.
    fn lines(&mut self) -> Result<Vec<u8>, Status> {
        let mut lines = Vec::new();
        while let Some(message) = self.take()? {
            lines.extend_from_slice(b"{\"result\":");
            write_json(&message, &mut lines)?;
            lines.extend_from_slice(b"}\n");
        }
        Ok(lines)
    }
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let ended = match ready!(Pin::new(body).poll_frame(context)) {
                None => Some(Status::ok("")),
                Some(Err(broken)) => Some(broken),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(frames) => {
                        self.buffer.extend_from_slice(&frames);
                        None
                    }
                    Err(frame) => frame
                        .trailers_ref()
                        .and_then(Status::from_header_map)
                        .or(Some(Status::ok(""))),
                },
            };
            let (mut lines, ended) = match (self.lines(), ended) {
                (Ok(lines), ended) => (lines, ended),
                (Err(broken), _) => (Vec::new(), Some(broken)),
            };
            if let Some(ended) = ended {
                self.body = None;
                if ended.code() != Code::Ok {
                    lines.extend_from_slice(&error_line(&ended));
                }
            }
            if !lines.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(lines.into()))));
            }
        }
    }
}

/// Names as the protocol has them, zero values left out, 64-bit numbers as text.
pub(super) fn write_json(message: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Status> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut serializer = serde_json::Serializer::new(out);
    message
        .serialize_with_options(&mut serializer, &options)
        .map_err(|error| Status::internal(error.to_string()))
}
