//! HTTP/2 by hand: frames that no well-behaved library would send.

use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Types of frames (RFC 9113, section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// A type that nobody has defined.
pub(super) const UNKNOWN: u8 = 0xfa;

/// Flags of frames.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// A frame. Its length says what `payload` has.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(payload.len() as u32, kind, flags, stream);
    bytes.extend_from_slice(payload);
    bytes
}

/// The nine bytes before a payload of this length.
pub(super) fn head(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes
}

/// One header, written out, not indexed (RFC 7541, section 6.2.2).
pub(super) fn header(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for part in [name.as_bytes(), value] {
        integer(&mut bytes, part.len());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A number with a prefix of seven bits (RFC 7541, section 5.1).
pub(super) fn integer(bytes: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else {
        bytes.push(number as u8);
        return;
    };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// The headers of a call.
pub(super) fn call(path: &str) -> Vec<u8> {
    [
        header(":method", b"POST"),
        header(":scheme", b"http"),
        header(":path", path.as_bytes()),
        header(":authority", b"hostile"),
        header("content-type", b"application/grpc"),
        header("te", b"trailers"),
    ]
    .concat()
}

/// A message of a call: not compressed, its length, and itself.
pub(super) fn message(bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend((bytes.len() as u32).to_be_bytes());
    framed.extend_from_slice(bytes);
    framed
}

/// A whole call with one message, ended. Messages are cut into frames of the smallest limit that every server has.
pub(super) fn whole_call(stream: u32, path: &str, bytes: &[u8]) -> Vec<u8> {
    let mut frames = frame(HEADERS, END_HEADERS, stream, &call(path));
    let framed = message(bytes);
    let mut pieces = framed.chunks(16 * 1024).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            END_STREAM
        } else {
            0
        };
        frames.extend(frame(DATA, flags, stream, piece));
    }
    frames
}

/// Begins a connection, with these settings (identifier, value).
pub(super) async fn greet(stream: &mut TcpStream, settings: &[(u16, u32)]) -> io::Result<()> {
    let mut payload = Vec::new();
    for (identifier, value) in settings {
        payload.extend(identifier.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &payload));
    stream.write_all(&bytes).await
}

/// A field of a protobuf message that holds bytes.
pub(super) fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![(number << 3 | 2) as u8];
    let mut rest = bytes.len();
    while rest >= 128 {
        field.push(rest as u8 | 128);
        rest >>= 7;
    }
    field.push(rest as u8);
    field.extend_from_slice(bytes);
    field
}
