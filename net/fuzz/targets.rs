//! What the fuzzer calls, and what `tests/fuzz_seeds.rs` calls with the saved inputs.
//!
//! A target panics when a property does not hold; that it does not panic otherwise is the first property.

use bytes::BytesMut;
use quorate_core::MemberId;
use quorate_net::peer::{Decoder, Stream};
use quorate_proto::raftpb::{Message, MessageType};

/// What a stream came to: its messages, and whether it may go on.
type Decoded = (Vec<Message>, bool);

/// Decodes the bytes of a peer's stream.
///
/// ```text
/// input = flags, then the stream
/// flags   bit 0: the msgapp stream, else the message stream;  the rest: the length of a piece, less one
/// ```
///
/// How the bytes are cut on their way does not change what they mean, and what was decoded can be sent on.
pub(crate) fn peer_frames(input: &[u8]) {
    let Some((&flags, bytes)) = input.split_first() else {
        return;
    };
    let stream = Stream::ALL[usize::from(flags & 1 == 0)];
    let (messages, goes_on) = decode(stream, bytes, bytes.len());
    let pieces = decode(stream, bytes, usize::from(flags >> 1) + 1);
    assert!(
        messages == pieces.0 && goes_on == pieces.1,
        "the cuts change what the bytes mean"
    );
    let mut sent = BytesMut::new();
    for message in &messages {
        if stream == Stream::MsgApp {
            assert_eq!(message.r#type, i32::from(MessageType::MsgApp));
        }
        stream.encode(message, &mut sent);
    }
    let again = decode(stream, &sent, sent.len());
    assert!(
        messages == again.0 && again.1,
        "a message changes when it is sent on"
    );
}

fn decode(stream: Stream, bytes: &[u8], piece: usize) -> Decoded {
    let mut decoder = Decoder::new(stream, MemberId(1), MemberId(2));
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        if decoder.decode(&mut buffer, &mut messages).is_err() {
            return (messages, false);
        }
    }
    (messages, true)
}
