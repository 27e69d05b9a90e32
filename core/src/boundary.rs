//! The two enums that tell the whole story of a member: what goes in, what comes out.
//!
//! A driver (the server, the simulator) feeds [`Input`]s to `Node::handle`, calls `Node::flush` once per batch
//! and carries out the [`Output`]s in order. It needs no knowledge of Raft to be correct: a message or a reply
//! leaves `flush` only when everything that it depends on is durable, and the only promise a driver makes is
//! that [`Input::Written`] comes after the write (and all before it) is on the disk.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb;

use crate::auth::{Identity, TokenChange};
use crate::corruption::{Finding, Hashed, PeerHash};
use crate::error::RequestError;
pub use crate::request_ids::RequestIds;
use crate::types::{ClusterId, Index, LeaseId, MemberId, Revision, Term, Ticket, WriteNumber};

/// What can happen to a member.
#[derive(Debug)]
pub enum Input {
    /// Nothing but time has passed.
    Wake,
    /// A message from another member arrived.
    Receive {
        /// The sender.
        from: MemberId,
        /// The message, decoded.
        message: raftpb::Message,
    },
    /// A client (or this member's own shell) wants something; answered exactly once with [`Output::Reply`].
    Request {
        /// Names the answer.
        ticket: Ticket,
        /// What is wanted.
        request: Request,
    },
    /// Every [`Output::Write`] up to this number is durable.
    Written(WriteNumber),
    /// The answer to [`Output::ReadEntries`]: entries from `first` on, without gaps; empty if they are gone.
    EntriesRead {
        /// The index that was asked for.
        first: Index,
        /// The entries found, which may end before the asked range does.
        entries: Vec<raftpb::Entry>,
    },
    /// The answer to [`Output::Checkpoint`]: the image at this index has replaced the previous one, durably, or
    /// could not be made.
    Checkpointed {
        /// The applied index of the image.
        index: Index,
        /// Whether it is there.
        done: bool,
    },
    /// A snapshot arrived: its message, and its image, which lies on the disk and was read. It is answered with
    /// [`Output::Write`] that carries an [`Install`], or with [`Output::Discard`].
    SnapshotReceived {
        /// The sender.
        from: MemberId,
        /// The message that came before the image.
        message: raftpb::Message,
        /// The image.
        image: Box<crate::node::ReceivedImage>,
    },
    /// The answer to [`Output::SendSnapshot`].
    SnapshotSent {
        /// The receiver.
        to: MemberId,
        /// Whether the receiver has taken all of it.
        done: bool,
    },
    /// The answer to [`Output::GatherHashes`].
    HashesGathered(Gathered),
    /// A message to this member could not be delivered.
    Unreachable(MemberId),
    /// The links to another member came up, or went down.
    PeerActivity {
        /// The other member.
        member: MemberId,
        /// Whether they are up now.
        is_active: bool,
    },
    /// What the shell learned of another member's version (`X.Y.Z`); `None` when it cannot be reached.
    PeerVersion {
        /// The other member.
        member: MemberId,
        /// Its server version.
        version: Option<String>,
    },
}

/// Hashes of the members' data, as far as they could be had.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered {
    /// The number of the question.
    pub number: u64,
    /// This member's own, if it was asked for.
    pub own: Option<Result<Hashed, RequestError>>,
    /// What the others said; one for each that was asked.
    pub peers: Vec<PeerHash>,
}

/// What a client or the shell can ask of a node. Requests are legal by construction: the checks of
/// [`crate::request`] have passed.
#[derive(Clone, Debug)]
pub enum Request {
    /// Put this encoded `InternalRaftRequest`, whose header id is the ticket, through the log; answered when
    /// this member has applied it.
    Propose(Bytes),
    /// Answered with [`Response::ReadReady`] when this member has applied everything that was committed in the
    /// cluster when the request came: from then on a read of the view is linearizable.
    ReadIndex,
    /// Renew a lease: answered by the leader only, without the log, once it has confirmed that it still leads.
    LeaseRenew(LeaseId),
    /// Remaining time of a lease and, if asked, its keys: answered by the leader only.
    LeaseTimeToLive {
        /// The lease.
        id: LeaseId,
        /// Whether the attached keys are wanted.
        keys: bool,
    },
    /// All leases.
    LeaseLeases,
    /// Whether a user may touch a lease's keys, answered from what this member has applied: for the calls on leases
    /// that do not go through the log.
    PermitLease {
        /// The user.
        who: Identity,
        /// The lease; `None` is all of them.
        id: Option<LeaseId>,
        /// Whether to write its keys rather than to read them.
        writes: bool,
    },
    /// Change the members, one at a time; answered with [`Response::Members`] when this member has applied it.
    ChangeMembers(MembersChange),
    /// Hand leadership to a voter; with `None`, to the most up-to-date one (used at shutdown).
    TransferLeader(Option<MemberId>),
    /// Write a checkpoint now and answer when it is durable (used at shutdown).
    Checkpoint,
    /// What a checkpoint of the state as it is now would hold, for a backup; nothing is written. Waits for a compaction
    /// that is under way.
    Image,
}

/// A change of the members that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersChange {
    /// Add a voter or a learner; its id comes from [`crate::member::member_id`].
    Add(crate::checkpoint::MemberRecord),
    /// Make a learner a voter: done by the leader only, which knows how far the learner is.
    Promote(MemberId),
    /// Remove a member for ever.
    Remove(MemberId),
    /// Give a member other peer URLs.
    UpdateUrls {
        /// The member.
        member: MemberId,
        /// All its peer URLs from now on.
        peer_urls: Vec<String>,
    },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To a proposed put.
    Put(pb::PutResponse),
    /// To a proposed delete.
    DeleteRange(pb::DeleteRangeResponse),
    /// To a proposed transaction.
    Txn(pb::TxnResponse),
    /// To a proposed compaction.
    Compact(pb::CompactionResponse),
    /// To a proposed lease grant.
    LeaseGrant(pb::LeaseGrantResponse),
    /// To a proposed lease revocation.
    LeaseRevoke(pb::LeaseRevokeResponse),
    /// To a proposed alarm request.
    Alarm(pb::AlarmResponse),
    /// To a proposed change of users, roles or the switch.
    AuthChanged(pb::ResponseHeader),
    /// To a proposed question whether auth is on.
    AuthStatus(pb::AuthStatusResponse),
    /// To a proposed login, whose password was looked at before.
    Authenticate(pb::AuthenticateResponse),
    /// To a proposed question for a user.
    UserGet(pb::AuthUserGetResponse),
    /// To a proposed question for all users.
    UserList(pb::AuthUserListResponse),
    /// To a proposed question for a role.
    RoleGet(pb::AuthRoleGetResponse),
    /// To a proposed question for all roles.
    RoleList(pb::AuthRoleListResponse),
    /// The user may do with the leases what it wants to.
    Permitted,
    /// To a proposal that answers nothing (cluster version, member attributes, lease checkpoint).
    Done,
    /// The read may go on, on the view.
    ReadReady,
    /// The lease has this TTL (seconds) again.
    LeaseRenewed {
        /// The granted TTL in seconds; 0 when the lease is unknown.
        ttl: i64,
    },
    /// Remaining time of a lease.
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    /// All leases.
    LeaseLeases(pb::LeaseLeasesResponse),
    /// The members after a change, by id.
    Members(Vec<pb::Member>),
    /// Leadership is with this member now.
    LeaderTransferred(MemberId),
    /// The checkpoint is durable at this applied index.
    Checkpointed(Index),
    /// An image to be; whoever holds it holds off compactions.
    Image(crate::checkpoint::SharedJob),
}

/// What a member wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Send a message; it is safe to do so now. It may be lost.
    Send {
        /// The receiver.
        to: MemberId,
        /// The message; `from`, `to` and `term` are set.
        message: raftpb::Message,
    },
    /// Send a snapshot: this message, then the checkpoint that is on the disk now (open it before the next
    /// [`Output::Checkpoint`] is carried out); then [`Input::SnapshotSent`].
    SendSnapshot {
        /// The receiver.
        to: MemberId,
        /// The message; its snapshot has no data.
        message: raftpb::Message,
    },
    /// Remove a received image that is not wanted.
    Discard(crate::checkpoint::Install),
    /// Append to the log; then [`Input::Written`].
    Write(Write),
    /// Read old entries of the log from the disk, from `first` to `last` inclusive, at most about `bytes_max`;
    /// then [`Input::EntriesRead`].
    ReadEntries {
        /// The first wanted.
        first: Index,
        /// The last wanted.
        last: Index,
        /// Enough when reached.
        bytes_max: u64,
    },
    /// Write a checkpoint image of the state as it is now; then [`Input::Checkpointed`].
    Checkpoint(Box<crate::checkpoint::Job>),
    /// Answer a request.
    Reply {
        /// The request.
        ticket: Ticket,
        /// The answer.
        result: Result<Response, RequestError>,
    },
    /// The store has reached a new revision (or a new compact revision): let the watch hubs go on.
    StoreAdvanced,
    /// What the tokens of this member's shell are good for has changed. To be done before the replies of the same
    /// flush are given.
    Token(TokenChange),
    /// Ask these members for the hash of their data, through their peer ports, at this revision; without one, hash this
    /// member's own at the newest revision first, and ask the others at that. Then [`Input::HashesGathered`].
    GatherHashes {
        /// Names the answer.
        number: u64,
        /// The revision; `None` if it follows from the own hash.
        revision: Option<Revision>,
        /// Whom to ask.
        peers: Vec<MemberId>,
    },
    /// Members were compared, and this is worth a line in the log.
    Compared(Vec<Finding>),
    /// The set of other members or their addresses changed: connect to exactly these.
    Peers(Vec<Peer>),
    /// This member must end; the reason is for the log. Nothing comes after it.
    Stop(String),
}

/// Another member, as the peer transport needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub member: MemberId,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
}

/// One addition to the log. The WAL writes them in order; what comes after a write that failed is never written.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// Counts from 1.
    pub number: WriteNumber,
    /// Entries to append; the first may overwrite a tail.
    pub entries: Vec<raftpb::Entry>,
    /// The hard state after these entries, if it changed.
    pub hard_state: Option<raftpb::HardState>,
    /// A received image that must be installed, durably, before any of this write reaches the disk.
    pub install: Option<Box<crate::checkpoint::Install>>,
    /// A snapshot record: the checkpoint at this index is durable.
    pub snapshot: Option<SnapshotRecord>,
    /// Once this write is durable, entries before this index are not needed any more.
    pub purge_before: Option<Index>,
    /// Whether [`Input::Written`] must wait for a sync. A commit index alone need not be durable.
    pub must_sync: bool,
}

/// Says in the log that a checkpoint is durable.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotRecord {
    /// The applied index of the checkpoint.
    pub index: Index,
    /// The term of the entry at that index.
    pub term: Term,
    /// The voters and learners at that index.
    pub conf_state: raftpb::ConfState,
}

/// What [`Config::append_bytes_max`] is in etcd.
pub const APPEND_BYTES_MAX: u64 = 1 << 20;

/// What a member is told once, at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Everything random comes from here.
    pub seed: u64,
    /// The length of one tick, which is also the heartbeat interval (`--heartbeat-interval`).
    pub tick: Duration,
    /// The election timeout in ticks (`--election-timeout` over the tick).
    pub election_ticks: u32,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--max-request-bytes`: the largest log entry a client can make.
    pub request_bytes_max: usize,
    /// The effective quota in bytes; negative is off.
    pub quota_bytes: i64,
    /// `--max-learners`.
    pub learners_max: usize,
    /// `--strict-reconfig-check`: refuse a change of members that would endanger the quorum.
    pub strict_reconfig_check: bool,
    /// `--corrupt-check-time`: how often the leader compares all members' data; zero is never.
    pub corrupt_check_interval: Duration,
    /// `--compact-hash-check-time` with feature gate CompactHashCheck: how often the leader compares the hashes of
    /// compactions.
    pub compact_hash_check_interval: Option<Duration>,
    /// Feature gate LeaseCheckpoint.
    pub lease_checkpoint: bool,
    /// Write a checkpoint when the log since the last one exceeds both this and what the data were then, in bytes.
    pub checkpoint_bytes_min: u64,
    /// Entries kept in memory behind the slowest follower, in bytes; older ones are read from the log on disk.
    pub log_bytes_in_memory_max: usize,
    /// One message to a follower carries at most about this many bytes of entries, and at least one entry.
    pub append_bytes_max: u64,
    /// How long a proposal or read may wait before it times out.
    pub request_timeout: Duration,
    /// This member's name, published when it starts.
    pub name: String,
    /// This member's client URLs, published when it starts.
    pub client_urls: Vec<String>,
    /// Ids for the requests that the node itself proposes.
    pub request_ids: RequestIds,
}
