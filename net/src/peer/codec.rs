//! The frames of the two streams between members.
//!
//! ```text
//! message   u64be size | Message                                          heartbeat = a Message of type 8, from = to = 0
//!
//! msgapp    00                                                            heartbeat
//!           01 | u64be n | n x (u64be size | Entry) | u64be commit        the append that follows the last one
//!           02 | u64be size | Message                                     any append
//! ```
//!
//! Both ends of a msgapp stream remember the term and the last index that went over it, which is what kind 01 leaves
//! out. This side writes only kind 02: it is always right, and a frame that an etcd cannot decode ends that etcd.
//!
//! Decoders work on a buffer that grows as bytes arrive. A length that a frame claims reserves nothing beyond
//! [`BUFFER_STEP_BYTES`], and no input panics.

use bytes::{Buf, BufMut, BytesMut};
use prost::Message as _;
use quorate_proto::raftpb::{Entry, Message, MessageType};
use thiserror::Error;

use super::limits::{BUFFER_STEP_BYTES, MESSAGE_BYTES_MAX};
use quorate_core::MemberId;

const KIND_HEARTBEAT: u8 = 0;
const KIND_DELTA: u8 = 1;
const KIND_FULL: u8 = 2;

/// Width of every length and number in a frame.
const WORD: usize = 8;

/// etcd puts at most 1 MiB of entries into an append; an entry has at least four bytes.
const DELTA_ENTRIES_MAX: u64 = 1 << 20;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Appends only.
    MsgApp,
    /// Everything else, and appends while the other stream is down.
    Message,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MsgApp, Self::Message];

    /// Its name in paths and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
        }
    }

    /// Appends one message.
    pub fn encode(self, message: &Message, out: &mut BytesMut) {
        let size = message.encoded_len();
        out.reserve(1 + WORD + size);
        if self == Self::MsgApp {
            out.put_u8(KIND_FULL);
        }
        out.put_u64(size as u64);
        message.encode_raw(out);
    }

    /// Appends the frame that keeps an idle stream alive.
    pub fn encode_heartbeat(self, out: &mut BytesMut) {
        match self {
            Self::MsgApp => out.put_u8(KIND_HEARTBEAT),
            Self::Message => {
                let heartbeat = Message {
                    r#type: MessageType::MsgHeartbeat.into(),
                    ..Message::default()
                };
                self.encode(&heartbeat, out);
            }
        }
    }
}

/// Why a stream cannot go on. The connection is dropped; nothing else happens.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// A frame claims more than [`MESSAGE_BYTES_MAX`].
    #[error("a frame of {0} bytes exceeds the limit")]
    TooLarge(u64),
    /// A delta frame claims more than any etcd would send.
    #[error("a frame of {0} entries exceeds the limit")]
    TooManyEntries(u64),
    /// Not a kind of msgapp frame.
    #[error("unknown kind {0} of frame in the msgapp stream")]
    UnknownKind(u8),
    /// A delta before any full frame.
    #[error("a delta frame before the first full frame")]
    DeltaFirst,
    /// Indexes past the end of numbers.
    #[error("the index of an entry overflows")]
    IndexOverflow,
    /// Something other than an append in the msgapp stream.
    #[error("a message of type {0} in the msgapp stream")]
    NotAnAppend(i32),
    /// Not protobuf.
    #[error("message does not unmarshal: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// Turns the bytes of one stream into messages.
#[derive(Debug)]
pub struct Decoder {
    stream: Stream,
    /// This member, which a delta frame does not name.
    local: MemberId,
    /// The writer of the stream, likewise.
    remote: MemberId,
    /// What the last full frame set; nothing before it.
    last: Option<Last>,
    /// A delta frame that has not arrived whole.
    delta: Option<Delta>,
}

/// Where the log stood after the last append of a msgapp stream.
#[derive(Clone, Copy, Debug)]
struct Last {
    term: u64,
    index: u64,
}

/// A delta frame under way.
#[derive(Debug)]
struct Delta {
    entries: Vec<Entry>,
    missing: u64,
    /// Encoded bytes so far, against the limit.
    bytes: u64,
}

/// What one step of decoding gives.
#[expect(
    clippy::large_enum_variant,
    reason = "a message is moved once, and it is the usual case"
)]
enum Step {
    /// More bytes are needed.
    Starved,
    /// A heartbeat, or a part of a frame.
    Nothing,
    Message(Message),
}

impl Decoder {
    /// A decoder for a fresh stream from `remote` to `local`.
    pub fn new(stream: Stream, local: MemberId, remote: MemberId) -> Self {
        Self {
            stream,
            local,
            remote,
            last: None,
            delta: None,
        }
    }

    /// Takes everything complete out of `buffer` and appends the messages to `out`, heartbeats of the link left out.
    pub fn decode(
        &mut self,
        buffer: &mut BytesMut,
        out: &mut Vec<Message>,
    ) -> Result<(), DecodeError> {
        loop {
            let step = match self.stream {
                Stream::Message => step_message(buffer)?,
                Stream::MsgApp => self.step_msgapp(buffer)?,
            };
            match step {
                Step::Starved => return Ok(()),
                Step::Nothing => {}
                Step::Message(message) => out.push(message),
            }
        }
    }

    fn step_msgapp(&mut self, buffer: &mut BytesMut) -> Result<Step, DecodeError> {
        if let Some(delta) = self.delta.take() {
            return self.step_delta(delta, buffer);
        }
        match buffer.first().copied() {
            None => Ok(Step::Starved),
            Some(KIND_HEARTBEAT) => {
                buffer.advance(1);
                Ok(Step::Nothing)
            }
            Some(KIND_FULL) => self.step_full(buffer),
            Some(KIND_DELTA) => {
                let Some(count) = peek_word(buffer, 1) else {
                    return Ok(Step::Starved);
                };
                if count > DELTA_ENTRIES_MAX {
                    return Err(DecodeError::TooManyEntries(count));
                }
                if self.last.is_none() {
                    return Err(DecodeError::DeltaFirst);
                }
                buffer.advance(1 + WORD);
                self.delta = Some(Delta {
                    entries: Vec::new(),
                    missing: count,
                    bytes: 0,
                });
                Ok(Step::Nothing)
            }
            Some(kind) => Err(DecodeError::UnknownKind(kind)),
        }
    }

    fn step_full(&mut self, buffer: &mut BytesMut) -> Result<Step, DecodeError> {
        let Some(body) = take_sized(buffer, 1)? else {
            return Ok(Step::Starved);
        };
        let message = Message::decode(body)?;
        if message.r#type != i32::from(MessageType::MsgApp) {
            return Err(DecodeError::NotAnAppend(message.r#type));
        }
        let index = message
            .entries
            .last()
            .map_or(message.index, |entry| entry.index);
        self.last = Some(Last {
            term: message.term,
            index,
        });
        Ok(Step::Message(message))
    }

    /// Takes one more entry, or the commit index that ends the frame.
    fn step_delta(&mut self, mut delta: Delta, buffer: &mut BytesMut) -> Result<Step, DecodeError> {
        if delta.missing > 0 {
            let before = buffer.len();
            if let Some(body) = take_sized(buffer, 0)? {
                delta.bytes += (before - buffer.len()) as u64;
                if delta.bytes > MESSAGE_BYTES_MAX {
                    return Err(DecodeError::TooLarge(delta.bytes));
                }
                delta.entries.push(Entry::decode(body)?);
                delta.missing -= 1;
                self.delta = Some(delta);
                return Ok(Step::Nothing);
            }
        } else if let Some(commit) = peek_word(buffer, 0) {
            buffer.advance(WORD);
            return self.finish_delta(delta, commit);
        }
        self.delta = Some(delta);
        Ok(Step::Starved)
    }

    fn finish_delta(&mut self, delta: Delta, commit: u64) -> Result<Step, DecodeError> {
        let last = self.last.as_mut().ok_or(DecodeError::DeltaFirst)?;
        let index = last.index;
        last.index = index
            .checked_add(delta.entries.len() as u64)
            .ok_or(DecodeError::IndexOverflow)?;
        Ok(Step::Message(Message {
            r#type: MessageType::MsgApp.into(),
            to: self.local.0,
            from: self.remote.0,
            term: last.term,
            log_term: last.term,
            index,
            entries: delta.entries,
            commit,
            ..Message::default()
        }))
    }
}

fn step_message(buffer: &mut BytesMut) -> Result<Step, DecodeError> {
    let Some(body) = take_sized(buffer, 0)? else {
        return Ok(Step::Starved);
    };
    let message = Message::decode(body)?;
    let link = message.r#type == i32::from(MessageType::MsgHeartbeat)
        && message.from == 0
        && message.to == 0;
    Ok(if link {
        Step::Nothing
    } else {
        Step::Message(message)
    })
}

/// The number at `offset`, if it has arrived.
fn peek_word(buffer: &BytesMut, offset: usize) -> Option<u64> {
    let bytes = buffer.get(offset..offset + WORD)?;
    Some(u64::from_be_bytes(
        bytes.try_into().expect("eight bytes were taken"),
    ))
}

/// Takes `offset` bytes, a length and as many bytes as it says, if all have arrived; returns the last part.
fn take_sized(buffer: &mut BytesMut, offset: usize) -> Result<Option<bytes::Bytes>, DecodeError> {
    let Some(size) = peek_word(buffer, offset) else {
        return Ok(None);
    };
    if size > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLarge(size));
    }
    let size = usize::try_from(size).map_err(|_| DecodeError::TooLarge(size))?;
    let whole = offset + WORD + size;
    if buffer.len() < whole {
        buffer.reserve((whole - buffer.len()).min(BUFFER_STEP_BYTES));
        return Ok(None);
    }
    buffer.advance(offset + WORD);
    Ok(Some(buffer.split_to(size).freeze()))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
