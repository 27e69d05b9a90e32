//! Records: what a frame holds, and the checksum that chains them.
//!
//! This module owns the encoding of records, straight into the frame, and their decoding out of a mapped segment
//! without a copy. It never opens a file and never decides what a record means for the log.
//!
//! ```text
//! record = 08 type | 10 checksum | 1a length data
//!
//! type  1 metadata   etcdserverpb.Metadata          4 checksum seed   no data
//!       2 entry      raftpb.Entry                   5 snapshot        walpb.Snapshot
//!       3 state      raftpb.HardState
//! ```
//!
//! The checksum is CRC-32C over the data of *all* records since the log began, this one included. It covers
//! neither the type nor the length, so the decoder believes a type only if the data has that type's exact shape:
//! no flipped bit makes a state out of an entry. A checksum seed says what the chain has come to; it stands at the
//! head of each segment, and wherever the writer resumed after a sync (see the module above).

use bytes::{BufMut, Bytes};
use prost::Message;
use quorate_proto::raftpb::{Entry, EntryType, HardState};
use quorate_proto::walpb;

use super::error::{Damage, WalError};
use super::frame::{self, LENGTH_BYTES};
use crate::boundary::SnapshotRecord;

/// Longest head of a record and longest varint that an [`Encoder`] keeps on the stack.
const VARINT_BYTES_MAX: usize = 10;

/// Turns records into frames in one growing buffer, which is reused from batch to batch.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Whole frames, not yet written.
    buffer: Vec<u8>,
    /// The chain's value after the last record in the buffer.
    checksum: u32,
}

impl Encoder {
    /// An empty buffer that goes on where the chain stood at `checksum`.
    pub(super) fn new(checksum: u32) -> Self {
        Self {
            buffer: Vec::new(),
            checksum,
        }
    }

    /// The frames so far.
    pub(super) fn frames(&self) -> &[u8] {
        &self.buffer
    }

    /// The chain's value after them.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Forgets the frames, which are written; the chain goes on.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Adds a checksum seed: the chain's own value.
    pub(super) fn seed(&mut self) {
        let start = self.open(walpb::Record::CRC);
        self.close(start);
    }

    /// Adds the metadata that a log repeats in every segment.
    pub(super) fn metadata(&mut self, metadata: &[u8]) {
        self.record(walpb::Record::METADATA, metadata, &[]);
    }

    /// Adds a log entry; its payload is copied once, here.
    pub(super) fn entry(&mut self, entry: &Entry) {
        let mut head = Head::new();
        if let Some(kind) = entry.r#type {
            head.field(0x08, kind as u64); // Negative enums are sign-extended on the wire.
        }
        head.field(0x10, entry.term);
        head.field(0x18, entry.index);
        let payload: &[u8] = match &entry.data {
            None => &[],
            Some(payload) => {
                head.field(0x22, payload.len() as u64);
                payload
            }
        };
        self.record(walpb::Record::ENTRY, head.bytes(), payload);
    }

    /// Adds a hard state.
    pub(super) fn hard_state(&mut self, state: &HardState) {
        let mut head = Head::new();
        head.field(0x08, state.term);
        head.field(0x10, state.vote);
        head.field(0x18, state.commit);
        self.record(walpb::Record::STATE, head.bytes(), &[]);
    }

    /// Adds a snapshot record. The one at index 0, which opens a log, carries no members.
    pub(super) fn snapshot(&mut self, snapshot: &SnapshotRecord) {
        let conf_state = (snapshot.index.0 > 0).then(|| snapshot.conf_state.clone());
        let encoded = walpb::Snapshot {
            index: snapshot.index.0,
            term: snapshot.term.0,
            conf_state,
        }
        .encode_to_vec();
        self.record(walpb::Record::SNAPSHOT, &encoded, &[]);
    }

    /// Adds a record whose data is `head` and `payload`, one after the other.
    fn record(&mut self, kind: i64, head: &[u8], payload: &[u8]) {
        self.checksum = crc32c::crc32c_append(self.checksum, head);
        self.checksum = crc32c::crc32c_append(self.checksum, payload);
        let start = self.open(kind);
        self.buffer.put_u8(0x1a);
        put_varint(&mut self.buffer, (head.len() + payload.len()) as u64);
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(payload);
        self.close(start);
    }

    /// Begins a frame and writes the record's type and checksum.
    fn open(&mut self, kind: i64) -> usize {
        let start = self.buffer.len();
        self.buffer.put_u64_le(0);
        self.buffer.put_u8(0x08);
        put_varint(&mut self.buffer, kind as u64);
        self.buffer.put_u8(0x10);
        put_varint(&mut self.buffer, u64::from(self.checksum));
        start
    }

    /// Ends the frame that begins at `start`: padding, then the length word.
    fn close(&mut self, start: usize) {
        let record_bytes = self.buffer.len() - start - LENGTH_BYTES;
        self.buffer.put_bytes(0, frame::padding(record_bytes));
        self.buffer[start..start + LENGTH_BYTES]
            .copy_from_slice(&frame::length_word(record_bytes).to_le_bytes());
    }
}

/// At most this many bytes more than its payload does an entry take in a segment, frame and padding included.
pub(super) const ENTRY_OVERHEAD_BYTES: usize =
    2 * LENGTH_BYTES + 12 + 1 + 5 * (1 + VARINT_BYTES_MAX);

/// At most this many bytes does a hard state or a checksum seed take in a segment.
pub(super) const STATE_BYTES_MAX: usize = ENTRY_OVERHEAD_BYTES;

/// The scalar fields of a message, built on the stack.
struct Head {
    bytes: [u8; 4 * (1 + VARINT_BYTES_MAX)],
    length: usize,
}

impl Head {
    fn new() -> Self {
        Self {
            bytes: [0; 4 * (1 + VARINT_BYTES_MAX)],
            length: 0,
        }
    }

    fn field(&mut self, tag: u8, value: u64) {
        let mut rest = &mut self.bytes[self.length..];
        let room = rest.len();
        rest.put_u8(tag);
        put_varint(&mut rest, value);
        self.length += room - rest.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn put_varint(buffer: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Which member and cluster the log belongs to, encoded.
    Metadata(Bytes),
    /// A log entry; its data is a slice of the segment.
    Entry(Entry),
    /// A hard state.
    State(HardState),
    /// What the chain has come to.
    Seed(u32),
    /// A checkpoint is durable.
    Snapshot(walpb::Snapshot),
}

/// Why a record cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What should be there.
    pub(super) expected: String,
    /// What is there.
    pub(super) found: String,
}

impl Fault {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The error that says so.
    pub(super) fn at(self, path: &str, offset: u64) -> WalError {
        let Self { expected, found } = self;
        WalError::Damaged(Damage {
            path: path.to_owned(),
            offset,
            expected,
            found,
        })
    }
}

/// Decodes the record in `bytes` and checks it against the chain, which stands at `checksum` (`None` where the
/// chain is not known yet: before the first seed). Answers the content and the chain's next value.
pub(super) fn decode(bytes: Bytes, checksum: Option<u32>) -> Result<(Content, u32), Fault> {
    let record = walpb::Record::decode(bytes)
        .map_err(|error| Fault::new("a record", format!("bytes that do not decode: {error}")))?;
    if record.r#type == walpb::Record::CRC {
        return decode_seed(&record, checksum);
    }
    let data = record.data.unwrap_or_default();
    let Some(checksum) = checksum else {
        return Err(Fault::new(
            "a checksum seed",
            format!("a record of type {}", record.r#type),
        ));
    };
    let next = crc32c::crc32c_append(checksum, &data);
    if next != record.crc {
        return Err(Fault::new(
            format!("checksum {next:08x}"),
            format!("checksum {:08x}", record.crc),
        ));
    }
    let content = match record.r#type {
        walpb::Record::METADATA => Content::Metadata(data),
        walpb::Record::ENTRY => Content::Entry(decode_entry(data)?),
        walpb::Record::STATE => Content::State(decode_state(&data)?),
        walpb::Record::SNAPSHOT => Content::Snapshot(decode_snapshot(&data)?),
        other => {
            return Err(Fault::new(
                "a record of a known type",
                format!("type {other}"),
            ));
        }
    };
    Ok((content, next))
}

fn decode_seed(record: &walpb::Record, checksum: Option<u32>) -> Result<(Content, u32), Fault> {
    if record.data.is_some() {
        return Err(Fault::new("a checksum seed", "one that carries data"));
    }
    match checksum {
        Some(checksum) if checksum != record.crc => Err(Fault::new(
            format!("checksum seed {checksum:08x}"),
            format!("checksum seed {:08x}", record.crc),
        )),
        _ => Ok((Content::Seed(record.crc), record.crc)),
    }
}

fn decode_entry(data: Bytes) -> Result<Entry, Fault> {
    let entry = Entry::decode(data).map_err(|error| Fault::new("an entry", error.to_string()))?;
    let kind = entry
        .kind()
        .map_err(|error| Fault::new("an entry of a known type", error.to_string()))?;
    if entry.term == 0 || entry.index == 0 {
        return Err(Fault::new(
            "an entry with a term and an index",
            format!("term {} index {}", entry.term, entry.index),
        ));
    }
    if kind != EntryType::EntryNormal && entry.data.is_none() {
        return Err(Fault::new(
            "a conf change",
            format!("none in entry {}", entry.index),
        ));
    }
    Ok(entry)
}

fn decode_state(data: &[u8]) -> Result<HardState, Fault> {
    let state =
        HardState::decode(data).map_err(|error| Fault::new("a hard state", error.to_string()))?;
    if state.encode_to_vec() != data || state.term == 0 {
        return Err(Fault::new(
            "a hard state with a term and no other fields",
            format!("{state:?}"),
        ));
    }
    Ok(state)
}

fn decode_snapshot(data: &[u8]) -> Result<walpb::Snapshot, Fault> {
    let snapshot = walpb::Snapshot::decode(data)
        .map_err(|error| Fault::new("a snapshot record", error.to_string()))?;
    if data.is_empty() {
        return Err(Fault::new("a snapshot record", "an empty one"));
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quorate_proto::etcdserverpb::Metadata;
    use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfState};

    use super::super::frame::Place;
    use super::*;
    use crate::types::{Index, Term};

    const MEMBER: u64 = 0x8e9e_05c5_2164_694d;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn snapshot(index: u64, term: u64, voters: Vec<u64>) -> SnapshotRecord {
        SnapshotRecord {
            index: Index(index),
            term: Term(term),
            conf_state: ConfState {
                voters,
                ..ConfState::default()
            },
        }
    }

    /// Decodes all frames in `bytes`; the first must be a seed.
    fn decode_all(bytes: &Bytes) -> Result<Vec<Content>, Fault> {
        let mut contents = Vec::new();
        let (mut offset, mut checksum) = (0, None);
        while let Place::Frame { record, next } = frame::read(bytes, offset) {
            let (content, after) = decode(bytes.slice(record), checksum)?;
            contents.push(content);
            (offset, checksum) = (next, Some(after));
        }
        Ok(contents)
    }

    #[test]
    fn a_fresh_members_first_records_equal_etcds() {
        let mut encoder = Encoder::new(0);
        encoder.seed();
        let metadata = Metadata {
            node_id: MEMBER,
            cluster_id: 0xcdf8_1819_4e3a_8c32,
        };
        encoder.metadata(&metadata.encode_to_vec());
        encoder.snapshot(&snapshot(0, 0, vec![]));
        let context =
            format!(r#"{{"id":{MEMBER},"peerURLs":["http://localhost:2380"],"name":"default"}}"#);
        let change = ConfChange::new(
            0,
            ConfChangeType::ConfChangeAddNode,
            MEMBER,
            Bytes::from(context),
        );
        encoder.entry(&Entry::conf_change(1, 1, &change));
        encoder.hard_state(&HardState {
            term: 1,
            vote: 0,
            commit: 1,
        });
        let put =
            b"\x1a\x0a\x0a\x03foo\x12\x03bar\xa2\x06\x0a\x08\x81\x80\x80\xe0\xd4\xb1\x80\x80\x4d";
        let data = Some(Bytes::from_static(put));
        encoder.entry(&Entry {
            r#type: Some(0),
            term: 2,
            index: 5,
            data,
        });

        let frames = encoder.frames();
        assert_eq!(hex(&frames[..16]), "04000000000000840804100000000000");
        assert_eq!(
            hex(&frames[16..56]),
            "2000000000000000080110bb81c7fc051a1608cdd2918bd2b881cf8e0110b298eaf1948386fccd01"
        );
        assert_eq!(
            hex(&frames[56..80]),
            "0e0000000000008208051094bbc7ed0e1a04080010000000"
        );
        assert_eq!(
            hex(&frames[80..80 + 28]),
            "7200000000000086080210dbf28c8e071a6808011001180122601000"
        );
        assert_eq!(
            hex(&frames[208..232]),
            "1000000000000000080310cf90aeea021a06080110001801"
        );
        assert_eq!(
            hex(&frames[232..]),
            "2b00000000000085080210adfcccf30a1a2108001002180522191a0a0a03666f6f1203626172a2060a08818080e0d4b180804d0000000000"
        );
    }

    #[test]
    fn the_chain_of_a_log_with_short_metadata_equals_etcds() {
        let mut encoder = Encoder::new(0);
        encoder.seed();
        assert_eq!(encoder.frames().len(), 16);
        encoder.metadata(b"somedata");
        assert_eq!(
            (encoder.frames().len(), encoder.checksum()),
            (48, 0x741f_6a05)
        );
        encoder.snapshot(&snapshot(0, 0, vec![]));
        assert_eq!(
            (encoder.frames().len(), encoder.checksum()),
            (72, 0x1820_6d80)
        );
    }

    #[test]
    fn a_snapshot_record_with_members_equals_etcds() {
        let mut encoder = Encoder::new(0);
        encoder.snapshot(&snapshot(5, 2, vec![MEMBER]));
        assert!(hex(encoder.frames()).contains("1a13080510021a0d08cdd2918bd2b881cf8e012800"));
    }

    proptest! {
        #[test]
        fn an_entry_is_encoded_as_prost_does_and_read_back_without_a_copy(
            kind in proptest::option::of(0..3_i32),
            term in 1..u64::MAX,
            index in 1..u64::MAX,
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..600)),
            checksum in any::<u32>(),
        ) {
            prop_assume!(payload.is_some() || kind.unwrap_or(0) == 0);
            let entry = Entry { r#type: kind, term, index, data: payload.map(Bytes::from) };
            let mut encoder = Encoder::new(checksum);
            encoder.entry(&entry);
            let record = walpb::Record::new(walpb::Record::ENTRY, encoder.checksum(), entry.encode_to_vec().into());
            let bytes = Bytes::copy_from_slice(encoder.frames());
            let encoded = record.encode_to_vec();
            prop_assert_eq!(&bytes[8..8 + encoded.len()], &encoded[..]);
            prop_assert!(bytes.len() <= entry.payload().len() + ENTRY_OVERHEAD_BYTES);

            let Place::Frame { record, next } = frame::read(&bytes, 0) else { panic!("no frame") };
            prop_assert_eq!(next, bytes.len());
            let (content, after) = decode(bytes.slice(record), Some(checksum)).unwrap();
            prop_assert_eq!(after, encoder.checksum());
            if let Content::Entry(Entry { data: Some(data), .. }) = &content {
                prop_assert!(data.is_empty() || bytes.as_ptr_range().contains(&data.as_ptr()), "copied");
            }
            prop_assert_eq!(content, Content::Entry(entry));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), checksum in any::<Option<u32>>()) {
            let _ = decode(Bytes::from(bytes), checksum);
        }
    }

    #[test]
    fn no_flipped_bit_changes_what_a_record_says() {
        let mut encoder = Encoder::new(0);
        encoder.seed();
        let metadata = Metadata {
            node_id: MEMBER,
            cluster_id: 7,
        };
        encoder.metadata(&metadata.encode_to_vec());
        encoder.snapshot(&snapshot(0, 0, vec![]));
        for term in 1..8 {
            encoder.entry(&Entry {
                r#type: None,
                term,
                index: 2 * term,
                data: None,
            });
            encoder.entry(&Entry::normal(term, 2 * term + 1, Bytes::from_static(b"x")));
            // As etcd 3.6 writes the entry that begins a term.
            encoder.entry(&Entry {
                r#type: Some(0),
                term,
                index: 2 * term,
                data: None,
            });
            encoder.hard_state(&HardState {
                term,
                vote: MEMBER,
                commit: term,
            });
            encoder.snapshot(&snapshot(term, term, vec![MEMBER]));
        }
        let good = encoder.frames().to_vec();
        let contents = decode_all(&Bytes::from(good.clone())).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = decode_all(&Bytes::from(bad)) else {
                continue;
            };
            for (index, (read, content)) in read.iter().zip(&contents).enumerate() {
                let metadata_as_snapshot =
                    matches!(content, Content::Metadata(_)) || matches!(read, Content::Metadata(_));
                assert!(
                    read == content || metadata_as_snapshot,
                    "bit {bit}: record {index} became {read:?}"
                );
            }
        }
    }
}
