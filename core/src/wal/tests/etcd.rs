//! Logs that real etcds wrote (`tests/data/wal/README.md`).

use std::fmt::Write as _;
use std::io::Read as _;

use prost::Message as _;
use quorate_proto::etcdserverpb;
use quorate_proto::raftpb::EntryType;

use super::*;
use crate::disk::Disk;
use crate::wal::frame::{self, Place};
use crate::wal::record::{self, Content, Encoder};

const LOG_3_7: &[u8] = include_bytes!("../../../tests/data/wal/etcd-3.7.1.wal.gz");
const DUMP_3_7: &[u8] = include_bytes!("../../../tests/data/wal/etcd-3.7.1.dump.gz");
const LOG_3_5: &[u8] = include_bytes!("../../../tests/data/wal/etcd-3.5.1.wal.gz");
const DUMP_3_5: &[u8] = include_bytes!("../../../tests/data/wal/etcd-3.5.1.dump.gz");

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn contents(bytes: &Bytes) -> Vec<Content> {
    let mut contents = Vec::new();
    let (mut offset, mut checksum) = (0, None);
    while let Place::Frame { record, next } = frame::read(bytes, offset) {
        let (content, after) = record::decode(bytes.slice(record), checksum).unwrap();
        contents.push(content);
        (offset, checksum) = (next, Some(after));
    }
    contents
}

/// A record as `etcd-dump-logs -raw` prints it, but for spaces.
fn line(content: &Content) -> String {
    match content {
        Content::Seed(seed) => format!("CRC: {seed}"),
        Content::Metadata(metadata) => {
            let metadata = etcdserverpb::Metadata::decode(metadata.clone()).unwrap();
            format!(
                "Metadata: NodeID:{} ClusterID:{}",
                metadata.node_id, metadata.cluster_id
            )
        }
        Content::Snapshot(snapshot) => {
            format!("Snapshot: index:{} term:{}", snapshot.index, snapshot.term)
        }
        Content::State(state) => {
            format!(
                "HardState: term:{} vote:{} commit:{}",
                state.term, state.vote, state.commit
            )
        }
        Content::Entry(entry) => {
            let mut line = format!("Entry: Term:{} Index:{}", entry.term, entry.index);
            if entry.kind().unwrap() == EntryType::EntryConfChange {
                line += " Type:EntryConfChange";
            }
            if !entry.payload().is_empty() {
                let _ = write!(line, " Data:\"{}\"", quoted(&entry.payload()));
            }
            line
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    let quote = |&byte: &u8| match byte {
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'"' => "\\\"".to_owned(),
        b'\\' => "\\\\".to_owned(),
        32..127 => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    bytes.iter().map(quote).collect()
}

/// The dump's lines, with the zeros that one version prints and the other does not.
fn dumped(packed: &[u8]) -> Vec<String> {
    let text = String::from_utf8(unpack(packed)).unwrap();
    let lines = text.lines().take_while(|line| !line.starts_with("EOF"));
    let normal = |line: &str| match line.split_once(':') {
        Some(("Entry", _)) => line.trim_end().to_owned(),
        Some(("Snapshot", _)) => "Snapshot: index:0 term:0".to_owned(),
        Some(("HardState", rest)) if !rest.contains("vote") => format!("HardState:{rest}")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace(" commit", " vote:0 commit"),
        _ => line.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    lines.map(normal).collect()
}

#[test]
fn etcds_logs_are_read_as_etcd_reads_them() {
    for (log, dump) in [(LOG_3_7, DUMP_3_7), (LOG_3_5, DUMP_3_5)] {
        let contents = contents(&Bytes::from(unpack(log)));
        let lines: Vec<_> = contents.iter().map(line).collect();
        assert!(lines.len() > 50);
        assert_eq!(lines, dumped(dump));
    }
}

#[test]
fn etcds_records_are_encoded_again_byte_for_byte() {
    for log in [LOG_3_7, LOG_3_5] {
        let bytes = unpack(log);
        let mut encoder = Encoder::new(0);
        for content in contents(&Bytes::from(bytes.clone())) {
            match content {
                Content::Seed(_) => encoder.seed(),
                Content::Metadata(metadata) => encoder.metadata(&metadata),
                Content::Snapshot(at) => encoder.snapshot(&snapshot(at.index, at.term)),
                Content::State(state) => encoder.hard_state(&state),
                Content::Entry(entry) => encoder.entry(&entry),
            }
        }
        assert_eq!(
            encoder.frames(),
            &bytes[..frame::content_end(&bytes).next_multiple_of(8)]
        );
    }
}

#[test]
fn etcds_logs_are_recovered_and_go_on() {
    for (log, member, last) in [
        (LOG_3_7, 0x0628_170c_800d_bcee, 296),
        (LOG_3_5, 0x8dda_b735_34be_950c, 26),
    ] {
        let bytes = unpack(log);
        let disk = TestDisk::default();
        disk.clone().make_directory("member/wal").unwrap();
        disk.put("member/wal/0000000000000000-0000000000000000.wal", &bytes);
        disk.put("member/wal/0.tmp", &[0; 100]);
        let entries: Vec<Entry> = contents(&Bytes::from(bytes))
            .into_iter()
            .filter_map(|content| {
                if let Content::Entry(entry) = content {
                    Some(entry)
                } else {
                    None
                }
            })
            .collect();
        let mut recovered = reopen(&disk, 1 << 20).unwrap();
        assert_eq!(recovered.metadata.member, MemberId(member));
        assert_eq!((recovered.entries, recovered.repair), (entries, None));
        assert_eq!(recovered.wal.last_index(), Index(last));
        assert_eq!(
            disk.list("member/wal").unwrap().len(),
            1,
            "what etcd prepared is not needed"
        );
        recovered
            .wal
            .append(&write(
                vec![entry(9, last + 1, b"ours")],
                Some(state(9, last)),
            ))
            .unwrap();
        recovered.wal.sync().unwrap();
        assert_eq!(
            reopen(&disk, 1 << 20).unwrap().entries.last(),
            Some(&entry(9, last + 1, b"ours"))
        );
    }
}
