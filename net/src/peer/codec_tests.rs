//! Vectors recorded from etcd, round trips, and bytes that no writer would send.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LOCAL: MemberId = MemberId(1);
const REMOTE: MemberId = MemberId(2);

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}

/// Feeds `bytes` in pieces of `step` bytes.
fn decode(stream: Stream, bytes: &[u8], step: usize) -> Result<Vec<Message>, DecodeError> {
    let mut decoder = Decoder::new(stream, LOCAL, REMOTE);
    let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        decoder.decode(&mut buffer, &mut out)?;
    }
    Ok(out)
}

fn entry(term: u64, index: u64, content: &'static [u8]) -> Entry {
    Entry {
        r#type: None,
        term,
        index,
        data: Some(Bytes::from_static(content)),
    }
}

fn append(term: u64, log_term: u64, index: u64, commit: u64, entries: Vec<Entry>) -> Message {
    Message {
        r#type: MessageType::MsgApp.into(),
        to: LOCAL.0,
        from: REMOTE.0,
        term,
        log_term,
        index,
        entries,
        commit,
        ..Message::default()
    }
}

#[test]
fn etcds_heartbeats_are_written_and_skipped() {
    let mut out = BytesMut::new();
    Stream::Message.encode_heartbeat(&mut out);
    assert_eq!(out.as_ref(), unhex("0000000000000002 0808"));
    assert!(decode(Stream::Message, &out, 1).expect("valid").is_empty());

    let mut out = BytesMut::new();
    Stream::MsgApp.encode_heartbeat(&mut out);
    assert_eq!(out.as_ref(), [0]);
    assert!(
        decode(Stream::MsgApp, &[0, 0, 0], 2)
            .expect("valid")
            .is_empty()
    );
}

#[test]
fn etcds_delta_frame_follows_its_full_frame() {
    let full = "02 0000000000000017 0803100218012002280230053a07100218062201584005";
    let delta = "01 0000000000000001 0000000000000007 10021807220159 0000000000000006";
    let bytes = unhex(&format!("{full}{delta}"));
    for step in 1..bytes.len() {
        let messages = decode(Stream::MsgApp, &bytes, step).expect("valid");
        assert_eq!(messages.len(), 2, "in pieces of {step}");
        let first = Message {
            to: 2,
            from: 1,
            ..append(2, 2, 5, 5, vec![entry(2, 6, b"X")])
        };
        assert_eq!(messages[0], first);
        assert_eq!(messages[1], append(2, 2, 6, 6, vec![entry(2, 7, b"Y")]));
    }
}

#[test]
fn an_empty_delta_is_an_append_without_entries() {
    let mut bytes = BytesMut::new();
    Stream::MsgApp.encode(&append(4, 3, 9, 1, Vec::new()), &mut bytes);
    bytes.extend_from_slice(&unhex("01 0000000000000000 0000000000000009"));
    let messages = decode(Stream::MsgApp, &bytes, 3).expect("valid");
    assert_eq!(messages[1], append(4, 4, 9, 9, Vec::new()));
}

#[test]
fn frames_that_cannot_be_right_end_the_stream() {
    let cases = [
        (Stream::Message, "ffffffffffffffff"),
        (Stream::Message, "0000000020000001"),
        (Stream::Message, "0000000000000003 ffffff"),
        (Stream::MsgApp, "03"),
        (Stream::MsgApp, "02 ffffffffffffffff"),
        (Stream::MsgApp, "02 0000000000000002 0808"),
        (
            Stream::MsgApp,
            "01 0000000000000001 0000000000000007 10021807220159 0000000000000006",
        ),
        (
            Stream::MsgApp,
            "02 0000000000000002 0803 01 ffffffffffffffff",
        ),
        (
            Stream::MsgApp,
            "02 0000000000000002 0803 01 0000000000000001 ffffffffffffffff",
        ),
        // The largest index, then one more.
        (
            Stream::MsgApp,
            "02 000000000000000d 080330ffffffffffffffffff01 01 0000000000000001 0000000000000000 0000000000000000",
        ),
    ];
    for (stream, text) in cases {
        assert!(decode(stream, &unhex(text), usize::MAX).is_err(), "{text}");
    }
}

#[test]
fn a_claimed_length_reserves_little() {
    let mut decoder = Decoder::new(Stream::Message, LOCAL, REMOTE);
    let mut buffer = BytesMut::from(&MESSAGE_BYTES_MAX.to_be_bytes()[..]);
    decoder
        .decode(&mut buffer, &mut Vec::new())
        .expect("starved, not wrong");
    assert!(
        buffer.capacity() <= 2 * BUFFER_STEP_BYTES,
        "{} reserved",
        buffer.capacity()
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (
        0..3i32,
        any::<u64>(),
        any::<u64>(),
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
    )
        .prop_map(|(kind, term, index, content)| Entry {
            r#type: Some(kind),
            term,
            index,
            data: content.map(Bytes::from),
        })
}

fn any_message(kinds: impl Strategy<Value = i32>) -> impl Strategy<Value = Message> {
    let numbers = proptest::collection::vec(any::<u64>(), 6);
    let entries = proptest::collection::vec(any_entry(), 0..5);
    let context = proptest::collection::vec(any::<u8>(), 0..12);
    (kinds, numbers, entries, any::<bool>(), context).prop_map(
        |(kind, numbers, entries, reject, context)| Message {
            r#type: kind,
            to: numbers[0] | 1,
            from: numbers[1],
            term: numbers[2],
            log_term: numbers[3],
            index: numbers[4],
            commit: numbers[5],
            entries,
            reject,
            reject_hint: numbers[0],
            context: context.into(),
            snapshot: None,
        },
    )
}

fn check_round_trip(stream: Stream, messages: &[Message], step: usize) {
    let mut bytes = BytesMut::new();
    for message in messages {
        stream.encode(message, &mut bytes);
        stream.encode_heartbeat(&mut bytes);
    }
    assert_eq!(decode(stream, &bytes, step).expect("own frames"), messages);
}

proptest! {
    #[test]
    fn messages_survive_the_message_stream(
        messages in proptest::collection::vec(any_message(0..19i32), 0..6), step in 1..200usize
    ) {
        check_round_trip(Stream::Message, &messages, step);
    }

    #[test]
    fn appends_survive_the_msgapp_stream(
        messages in proptest::collection::vec(any_message(Just(3)), 0..6), step in 1..200usize
    ) {
        check_round_trip(Stream::MsgApp, &messages, step);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1..50usize, kind in 0..3u8) {
        let _ = decode(Stream::Message, &bytes, step);
        let _ = decode(Stream::MsgApp, &bytes, step);
        // With a believable start.
        let mut framed = vec![2, 0, 0, 0, 0, 0, 0, 0, 2, 8, 3, kind, 0, 0, 0, 0, 0, 0, 0];
        framed.extend_from_slice(&bytes);
        let _ = decode(Stream::MsgApp, &framed, step);
    }
}
