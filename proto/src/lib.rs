//! etcd's messages as Rust types: the client API, the log, the WAL and `.snap` records, the peers' raft messages.
//!
//! This crate owns field numbers and encodings. It never opens a file or a socket, never checks whether a request is
//! legal and never decides anything; framing, checksums and service stubs live above it.
//!
//! Two presence rules hold, chosen so that what we write is byte for byte what etcd 3.7 writes:
//!
//! ```text
//! proto3   client API, log requests, raftpb::Message    zero is not written          plain fields
//! proto2   walpb, the rest of raftpb
//!            required  etcd always writes it            zero is written              plain fields
//!            optional  etcd writes it when set          written when Some            Option fields
//! ```
//!
//! Readers are lenient in both cases: a missing `required` field reads as zero, a written zero is fine, and an unknown
//! field is skipped. The getters that prost generates for enums (`entry.r#type()`) read an unknown number as zero; code
//! that must not take a stranger for a friend uses `kind()` instead.
//!
//! ```
//! use bytes::Bytes;
//! use prost::Message;
//! use quorate_proto::mvccpb::KeyValue;
//!
//! let kv = KeyValue { key: Bytes::from_static(b"foo"), mod_revision: 3, ..KeyValue::default() };
//! assert_eq!(kv.encode_to_vec(), b"\x0a\x03foo\x18\x03");
//! ```

#![forbid(unsafe_code)]

mod records;

/// All messages and services with their comments, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The client API, and the requests that it puts into the log ([`InternalRaftRequest`](etcdserverpb::InternalRaftRequest)).
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// What the store keeps for each revision of a key, and the events that watchers get.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

/// Users, roles and permissions, stored and shown.
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}

/// Cluster facts that change through the log rather than through conf changes.
pub mod membershippb {
    include!(concat!(env!("OUT_DIR"), "/membershippb.rs"));
}

/// Leases as stored, and lease calls that followers forward to the leader.
pub mod leasepb {
    include!(concat!(env!("OUT_DIR"), "/leasepb.rs"));
}

/// The lock service.
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}

/// The election service.
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}

/// Records of the write-ahead log, without their framing.
pub mod walpb {
    include!(concat!(env!("OUT_DIR"), "/walpb.rs"));
}

/// What raft keeps on disk and says to peers, with etcd's numbers. The raft crate's own types are never written anywhere.
pub mod raftpb {
    include!(concat!(env!("OUT_DIR"), "/raftpb.rs"));
}

/// The `.snap` file.
pub mod snappb {
    include!(concat!(env!("OUT_DIR"), "/snappb.rs"));
}
