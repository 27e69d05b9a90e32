//! Bytes that etcd 3.7 writes, worked out by hand from its formats: each must decode to the message we expect and, unless
//! said otherwise, encode to the same bytes again.

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{InternalRaftRequest, Metadata, PutRequest, RequestHeader};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, MessageType,
};
use quorate_proto::walpb::Record;
use quorate_proto::{raftpb, snappb, walpb};

const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;
const CLUSTER_ID: u64 = 0xcdf8_1819_4e3a_8c32;
const MEMBER_JSON: &[u8] =
    br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
const REQUEST_ID: u64 = 0x4d00_018d_4c00_0001;

#[test]
fn fresh_wal_begins_with_checksum_seed() {
    check("0804 1000", Record::new(Record::CRC, 0, Bytes::new()));
}

#[test]
fn fresh_wal_metadata() {
    let metadata = check(
        "08cdd2918bd2b881cf8e01 10b298eaf1948386fccd01",
        Metadata {
            node_id: MEMBER_ID,
            cluster_id: CLUSTER_ID,
        },
    );
    check(
        "0801 10bb81c7fc05 1a16 08cdd2918bd2b881cf8e01 10b298eaf1948386fccd01",
        Record::new(Record::METADATA, 0x5f91_c0bb, metadata),
    );
}

#[test]
fn fresh_wal_snapshot_at_zero() {
    let snapshot = check(
        "08001000",
        walpb::Snapshot {
            index: 0,
            term: 0,
            conf_state: None,
        },
    );
    check(
        "0805 1094bbc7ed0e 1a04 08001000",
        Record::new(Record::SNAPSHOT, 0xedb1_dd94, snapshot),
    );
}

#[test]
fn fresh_wal_founding_conf_change() {
    let change = ConfChange::new(
        0,
        ConfChangeType::ConfChangeAddNode,
        MEMBER_ID,
        Bytes::from_static(MEMBER_JSON),
    );
    let json = hex(MEMBER_JSON);
    let change_bytes = check(
        &format!("1000 18cdd2918bd2b881cf8e01 2251 {json}"),
        change.clone(),
    );
    assert_eq!(change_bytes.len(), 96);

    let entry = Entry::conf_change(1, 1, &change);
    assert_eq!(entry.kind(), Ok(EntryType::EntryConfChange));
    assert_eq!(entry.payload(), change_bytes);
    let entry = check(
        &format!("0801 1001 1801 2260 {}", hex(&change_bytes)),
        entry,
    );
    check(
        &format!("0802 10dbf28c8e07 1a68 {}", hex(&entry)),
        Record::new(Record::ENTRY, 0x71c3_395b, entry),
    );
}

#[test]
fn fresh_wal_hard_state_keeps_its_zero_vote() {
    let state = check(
        "080110001801",
        HardState {
            term: 1,
            vote: 0,
            commit: 1,
        },
    );
    check(
        "0803 10cf90aeea02 1a06 080110001801",
        Record::new(Record::STATE, 0x2d4b_884f, state),
    );

    assert!(HardState::default().is_empty());
    check("080010001800", HardState::default());
}

#[test]
fn put_entry_of_etcd_36_keeps_its_zero_type() {
    let request = Bytes::from(put_foo_bar().encode_to_vec());
    let entry = Entry {
        r#type: Some(EntryType::EntryNormal as i32),
        ..Entry::normal(2, 5, request)
    };
    let entry = check(
        "0800100218052219220a0a03666f6f1203626172a2060a08818080e0d4b180804d",
        entry,
    );
    check(
        &format!("0802 1093bda6b30e 1a21 {}", hex(&entry)),
        Record::new(Record::ENTRY, 0xe669_9e93, entry),
    );
}

#[test]
fn put_entry_of_etcd_37_leaves_the_type_out() {
    let request = Bytes::from(put_foo_bar().encode_to_vec());
    check(
        "100218052219220a0a03666f6f1203626172a2060a08818080e0d4b180804d",
        Entry::normal(2, 5, request),
    );
}

#[test]
fn put_request_with_header() {
    check(
        "220a 0a03666f6f 1203626172 a206 0a 08818080e0d4b180804d",
        put_foo_bar(),
    );
}

#[test]
fn first_entry_of_a_leader_has_no_data() {
    let entry = Entry::normal(3, 7, Bytes::new());
    assert_eq!(entry.kind(), Ok(EntryType::EntryNormal));
    check("1003 1807", entry);
}

#[test]
fn snap_file() {
    let conf_state = ConfState::simple(vec![MEMBER_ID], vec![]);
    let snapshot = check(
        "0a027b7d 1213 0a0d 08cdd2918bd2b881cf8e01 2800 1005 1802",
        raftpb::Snapshot::new(5, 2, conf_state, Bytes::from_static(b"{}")),
    );
    check(
        "08f9d3c3bb0a 1219 0a027b7d 1213 0a0d 08cdd2918bd2b881cf8e01 2800 1005 1802",
        snappb::Snapshot {
            crc: 0xa770_e9f9,
            data: snapshot,
        },
    );
}

#[test]
fn wal_snapshot_of_snap_file() {
    let conf_state = Some(ConfState::simple(vec![MEMBER_ID], vec![]));
    check(
        "0805 1002 1a0d 08cdd2918bd2b881cf8e01 2800",
        walpb::Snapshot {
            index: 5,
            term: 2,
            conf_state,
        },
    );
}

#[test]
fn conf_state_is_written_unpacked_and_read_either_way() {
    let conf_state = ConfState::simple(vec![1, 2], vec![3]);
    check("0801 0802 1003 2800", conf_state.clone());
    check_decodes("0a020102 120103", conf_state);
}

#[test]
fn empty_snapshot_still_has_metadata_and_conf_state() {
    check("1208 0a022800 1000 1800", raftpb::Snapshot::default());
}

#[test]
fn link_heartbeat() {
    check(
        "0808",
        raftpb::Message {
            r#type: MessageType::MsgHeartbeat as i32,
            ..raftpb::Message::default()
        },
    );
}

#[test]
fn append_message() {
    let message = raftpb::Message {
        r#type: MessageType::MsgApp as i32,
        to: 2,
        from: 1,
        term: 2,
        log_term: 2,
        index: 5,
        entries: vec![Entry::normal(2, 6, Bytes::from_static(b"X"))],
        commit: 5,
        ..raftpb::Message::default()
    };
    assert_eq!(message.kind(), Ok(MessageType::MsgApp));
    check("0803100218012002280230053a07100218062201584005", message);
    check(
        "10021807220159",
        Entry::normal(2, 7, Bytes::from_static(b"Y")),
    );
}

#[test]
fn message_with_gogos_zeros_and_foreign_fields_decodes() {
    // etcd 3.6 writes every zero, an empty snapshot among them, and its local vote (13); the raft crate sets commit_term (15).
    let message = raftpb::Message {
        r#type: MessageType::MsgHeartbeatResp as i32,
        to: 1,
        from: 2,
        term: 3,
        snapshot: Some(raftpb::Snapshot::default()),
        ..raftpb::Message::default()
    };
    check_decodes(
        "0809 1001 1802 2003 2800 3000 4000 4a0a12080a022800 1000 1800 5000 5800 6800 7807",
        message,
    );
}

#[test]
fn missing_required_fields_read_as_zero() {
    check_decodes("", HardState::default());
    check_decodes("", Record::default());
    check_decodes("", raftpb::Snapshot::default());
    check_decodes(
        "1001",
        Entry {
            term: 1,
            ..Entry::default()
        },
    );
}

#[test]
fn key_value_is_canonical() {
    check(
        "0a03666f6f 1002 1802 2001 2a03626172",
        KeyValue {
            key: Bytes::from_static(b"foo"),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: Bytes::from_static(b"bar"),
            lease: 0,
        },
    );
    check(
        "0a03666f6f",
        KeyValue {
            key: Bytes::from_static(b"foo"),
            ..KeyValue::default()
        },
    );
}

#[test]
fn conf_change_types_have_etcds_numbers() {
    let kinds = [
        (0, ConfChangeType::ConfChangeAddNode),
        (1, ConfChangeType::ConfChangeRemoveNode),
        (2, ConfChangeType::ConfChangeUpdateNode),
        (3, ConfChangeType::ConfChangeAddLearnerNode),
    ];
    for (number, kind) in kinds {
        let change = ConfChange::new(9, kind, 7, Bytes::new());
        assert_eq!(change.kind(), Ok(kind));
        check(&format!("0809 10{number:02x} 1807"), change);
    }
}

#[test]
fn unknown_enum_numbers_are_not_guessed() {
    assert!(
        ConfChange {
            r#type: 4,
            ..ConfChange::default()
        }
        .kind()
        .is_err()
    );
    assert!(
        Entry {
            r#type: Some(3),
            ..Entry::default()
        }
        .kind()
        .is_err()
    );
    assert!(
        raftpb::Message {
            r#type: 24,
            ..raftpb::Message::default()
        }
        .kind()
        .is_err()
    );
}

fn put_foo_bar() -> InternalRaftRequest {
    InternalRaftRequest {
        header: Some(RequestHeader {
            id: REQUEST_ID,
            ..RequestHeader::default()
        }),
        put: Some(PutRequest {
            key: Bytes::from_static(b"foo"),
            value: Bytes::from_static(b"bar"),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

/// Both ways, and the bytes for use inside the next message.
fn check<M: Message + Default + PartialEq + Debug>(expected_hex: &str, message: M) -> Bytes {
    let encoded = Bytes::from(message.encode_to_vec());
    assert_eq!(
        hex(&encoded),
        expected_hex.replace(' ', ""),
        "encoding of {message:?}"
    );
    check_decodes(expected_hex, message);
    encoded
}

fn check_decodes<M: Message + Default + PartialEq + Debug>(from_hex: &str, message: M) {
    let decoded = M::decode(unhex(from_hex)).expect("a vector is well formed");
    assert_eq!(decoded, message, "decoding of {from_hex}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Bytes {
    let digits = digits.replace(' ', "");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("vectors are hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}
