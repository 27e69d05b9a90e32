//! Constructors for the messages that must come out byte for byte as etcd writes them, and enum readers that do not
//! guess. An empty `Bytes` or a zero ticket given to a constructor is left out of the encoding, as etcd does.

use bytes::Bytes;
use prost::{Message as _, UnknownEnumValue};

use crate::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Message, MessageType,
    Snapshot, SnapshotMetadata,
};
use crate::walpb::Record;

impl Record {
    /// Type of the record whose data is an encoded `etcdserverpb::Metadata`.
    pub const METADATA: i64 = 1;
    /// Type of the record whose data is an encoded `raftpb::Entry`.
    pub const ENTRY: i64 = 2;
    /// Type of the record whose data is an encoded `raftpb::HardState`.
    pub const STATE: i64 = 3;
    /// Type of the record that opens each segment: no data, its checksum seeds the chain.
    pub const CRC: i64 = 4;
    /// Type of the record whose data is an encoded `walpb::Snapshot`.
    pub const SNAPSHOT: i64 = 5;

    /// A record with the checksum that the chain has after `data`.
    pub fn new(record_type: i64, crc: u32, data: Bytes) -> Self {
        Self {
            r#type: record_type,
            crc,
            data: some_unless_empty(data),
        }
    }
}

impl Entry {
    /// A normal entry. Without data it is the entry that a new leader begins its term with.
    pub fn normal(term: u64, index: u64, data: Bytes) -> Self {
        Self {
            r#type: None,
            term,
            index,
            data: some_unless_empty(data),
        }
    }

    /// An entry that changes the membership.
    pub fn conf_change(term: u64, index: u64, change: &ConfChange) -> Self {
        let data = Bytes::from(change.encode_to_vec());
        Self {
            r#type: Some(EntryType::EntryConfChange as i32),
            term,
            index,
            data: some_unless_empty(data),
        }
    }

    /// What the data is; an error for a number that etcd does not know.
    pub fn kind(&self) -> Result<EntryType, UnknownEnumValue> {
        self.r#type
            .map_or(Ok(EntryType::EntryNormal), EntryType::try_from)
    }

    /// The data without copying; empty if absent.
    pub fn payload(&self) -> Bytes {
        self.data.clone().unwrap_or_default()
    }
}

impl HardState {
    /// Whether there is nothing to remember yet; etcd does not log such a state.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ConfState {
    /// A plain configuration, as etcd always has: no joint half.
    pub fn simple(voters: Vec<u64>, learners: Vec<u64>) -> Self {
        Self {
            voters,
            learners,
            ..Self::default()
        }
    }
}

impl Snapshot {
    /// A snapshot of everything up to `index`.
    pub fn new(index: u64, term: u64, conf_state: ConfState, data: Bytes) -> Self {
        Self {
            data: some_unless_empty(data),
            metadata: SnapshotMetadata {
                conf_state,
                index,
                term,
            },
        }
    }
}

impl ConfChange {
    /// A change of membership. `id` 0 means that nobody waits for it.
    pub fn new(id: u64, kind: ConfChangeType, node_id: u64, context: Bytes) -> Self {
        Self {
            id: (id != 0).then_some(id),
            r#type: kind as i32,
            node_id,
            context: some_unless_empty(context),
        }
    }

    /// What the change does; an error for a number that etcd does not know.
    pub fn kind(&self) -> Result<ConfChangeType, UnknownEnumValue> {
        ConfChangeType::try_from(self.r#type)
    }
}

impl Message {
    /// The message's kind; an error for a number that etcd does not know.
    pub fn kind(&self) -> Result<MessageType, UnknownEnumValue> {
        MessageType::try_from(self.r#type)
    }
}

fn some_unless_empty(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}
