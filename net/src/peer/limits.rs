//! Every limit and interval of the peer transport, with its reason. Most are part of the protocol: the other side is
//! built around the same number.

use std::time::Duration;

/// Messages that wait in one lane of one peer; more are dropped and the peer is reported unreachable. etcd's number.
pub const LANE_MESSAGES_MAX: usize = 4096;

/// Bytes that wait in one lane of one peer: a count alone would allow 4 GiB of entries of 1 MiB.
pub const LANE_BYTES_MAX: usize = 128 << 20;

/// Messages that wait for a POST to one peer. It carries traffic only while no stream is up.
pub const PIPELINE_MESSAGES_MAX: usize = 64;

/// POSTs under way at once to one peer.
pub const PIPELINE_WORKERS: usize = 4;

/// Members that talk to us although we do not know them yet; etcd has no limit, we do not trust strangers that far.
pub const REMOTES_MAX: usize = 32;

/// A message may not be larger than this on any stream: etcd's limit.
pub const MESSAGE_BYTES_MAX: u64 = 512 << 20;

/// The message in front of a snapshot may not be larger than this: etcd's limit.
pub const SNAPSHOT_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Bytes of an image that are handed to the connection at once.
pub const SNAPSHOT_SLICE_BYTES: usize = 128 << 10;

/// A snapshot of which the receiver takes no more for this long has failed; it also has this long to store the end of it.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);

/// Bodies of lease calls: etcd's limit.
pub const LEASE_REQUEST_BYTES_MAX: usize = 64 << 10;

/// Answers to small calls (versions, members, hashes): far above what they need.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Answers to lease calls, which may list every key of a lease: etcd's limit.
pub const LEASE_ANSWER_BYTES_MAX: usize = 100 << 20;

/// What a stream's buffer may grow by in one step, whatever length a frame claims to have.
pub const BUFFER_STEP_BYTES: usize = 1 << 20;

/// Bytes that a writer encodes into one frame before it lets the connection write.
pub const WRITE_BATCH_BYTES: usize = 256 << 10;

/// Bytes that a reader decodes before it hands the messages over.
pub const READ_BATCH_BYTES: usize = 1 << 20;

/// A connection on which a read or write makes no progress for this long is dead, unless it is configured to last
/// longer; also how long the answer to a call may take to begin. etcd's number.
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// An idle stream carries a heartbeat this often, so that the reader's [`IO_TIMEOUT`] holds.
pub const STREAM_HEARTBEAT: Duration = Duration::from_nanos(5_000_000_000 / 3);

/// Two attempts to open the same stream are at least this far apart.
pub const REDIAL_INTERVAL: Duration = Duration::from_millis(100);

/// Peers are probed this often. It is below [`IO_TIMEOUT`], so that the connection of the probes stays open.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(4);

/// A handshake takes no longer than this, on either side: Go's number.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections to the peer port at once. A cluster needs about ten for each member.
pub const CONNECTIONS_MAX: usize = 1024;

/// A lease call to the leader waits this long for the leader to have applied what it committed: etcd's number.
pub const LEASE_APPLY_TIMEOUT: Duration = Duration::from_secs(1);
