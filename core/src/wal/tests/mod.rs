//! Tests of the log as a whole, over a small hostile disk.

mod crash;
mod damage;
mod disk;
mod etcd;
mod usage;

use bytes::Bytes;
use quorate_proto::raftpb::{ConfState, Entry, HardState};

use self::disk::{Random, TestDisk};
use super::{Metadata, Options, Recovered, Wal, WalError, recover};
use crate::boundary::{SnapshotRecord, Write};
use crate::types::{ClusterId, Index, MemberId, Term, WriteNumber};

const METADATA: Metadata = Metadata {
    member: MemberId(0x8e9e_05c5_2164_694d),
    cluster: ClusterId(0xcdf8_1819_4e3a_8c32),
};

fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        ..Options::default()
    }
}

fn create(disk: &TestDisk, segment_bytes: u64) -> Wal<TestDisk> {
    let mut handle = disk.clone();
    crate::disk::Disk::make_directory(&mut handle, "member").unwrap();
    Wal::create(handle, options(segment_bytes), METADATA).unwrap()
}

fn reopen(disk: &TestDisk, segment_bytes: u64) -> Result<Recovered<TestDisk>, WalError> {
    recover(disk.clone(), options(segment_bytes))
}

fn entry(term: u64, index: u64, payload: &[u8]) -> Entry {
    Entry::normal(term, index, Bytes::copy_from_slice(payload))
}

fn state(term: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote: 1,
        commit,
    }
}

fn write(entries: Vec<Entry>, hard_state: Option<HardState>) -> Write {
    Write {
        number: WriteNumber(1),
        entries,
        hard_state,
        snapshot: None,
        must_sync: true,
        ..Write::default()
    }
}

fn snapshot(index: u64, term: u64) -> SnapshotRecord {
    SnapshotRecord {
        index: Index(index),
        term: Term(term),
        conf_state: ConfState::simple(vec![1, 2, 3], vec![]),
    }
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index).collect()
}
