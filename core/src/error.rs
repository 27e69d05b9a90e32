//! The errors that clients of etcd know: one variant an error, with its g code and its exact text.
//!
//! Client libraries match these texts literally, so a variant's text is part of the protocol. The table is
//! `rpctypes` of etcd 3.7; what leaves the server without being in that table is `Internal` (g code
//! `Unknown`). Two of etcd's errors reach the wire with the code `Unknown` although their symbols say
//! otherwise; [`RequestError::code`] gives the code that is really seen.

use std::borrow::Cow;

/// A g status code, by its number in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The operation was cancelled.
    Canceled = 1,
    /// An error without a better code.
    Unknown = 2,
    /// The request is wrong whatever the state of the store.
    InvalidArgument = 3,
    /// The deadline passed before the operation ended.
    DeadlineExceeded = 4,
    /// Something asked for is not there.
    NotFound = 5,
    /// The caller is known but not allowed.
    PermissionDenied = 7,
    /// A limit is reached.
    ResourceExhausted = 8,
    /// The state of the store does not allow it.
    FailedPrecondition = 9,
    /// A revision outside what is kept.
    OutOfRange = 11,
    /// This server does not offer it.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// Try again, here or elsewhere.
    Unavailable = 14,
    /// Data is lost or corrupt.
    DataLoss = 15,
    /// The caller is not known.
    Unauthenticated = 16,
}

/// Why a request was refused, as a client of etcd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Empty key in Range, RangeStream, Put, DeleteRange, any txn compare or op.
    EmptyKey,
    /// Put with ignore_value or ignore_lease on an absent key; a txn op whose union is unset.
    KeyNotFound,
    /// Ignore_value with a non-empty value.
    ValueProvided,
    /// Ignore_lease with a non-zero lease.
    LeaseProvided,
    /// See 2.6.
    TooManyOps,
    /// See 2.6.
    DuplicateKey,
    /// Metadata client-api-version is not valid UTF-8.
    InvalidClientAPIVersion,
    /// Unknown sort_order or sort_target number.
    InvalidSortOption,
    /// Revision below the compacted one (read, hashkv), compaction at or below it, txn range with negative revision.
    Compacted,
    /// Revision above the current one (read, compaction, hashkv).
    FutureRev,
    /// Quota would be passed, or NOSPACE alarm is set.
    NoSpace,
    /// Put with unknown lease; revoke of unknown lease.
    LeaseNotFound,
    /// Grant with an id in use.
    LeaseExist,
    /// TTL above 9000000000.
    LeaseTTLTooLarge,
    /// Status of a watch stream whose context was cancelled.
    WatchCanceled,
    /// Add of a member id that exists.
    MemberExist,
    /// Add or update with a peer URL some other member has.
    PeerURLExist,
    /// Strict reconfig check on add, remove, promote.
    MemberNotEnoughStarted,
    /// MemberAdd with unparsable peer URLs.
    MemberBadURLs,
    /// Remove, update, promote of an unknown or already removed id.
    MemberNotFound,
    /// Promote of a voter.
    MemberNotLearner,
    /// Learner log below 90 % of the leader's.
    LearnerNotReady,
    /// More learners than max-learners.
    TooManyLearners,
    /// Peer side check.
    ClusterIDMismatch,
    /// Encoded raft request above max-request-bytes.
    RequestTooLarge,
    /// Commit minus applied index above 5000.
    RequestTooManyRequests,
    /// AuthEnable without user root.
    RootUserNotExist,
    /// AuthEnable, user root lacks role root.
    RootRoleNotExist,
    /// UserAdd.
    UserAlreadyExist,
    /// UserAdd with empty name; auth on and no credentials given.
    UserEmpty,
    /// User operations; also admin check for a deleted user.
    UserNotFound,
    /// RoleAdd.
    RoleAlreadyExist,
    /// Role operations, grant of an unknown role.
    RoleNotFound,
    /// RoleAdd with empty name.
    RoleEmpty,
    /// Authenticate with unknown user or bad password.
    AuthFailed,
    /// RoleGrantPermission without perm.
    PermissionNotGiven,
    /// No right on key or not root.
    PermissionDenied,
    /// UserRevokeRole of a role the user lacks.
    RoleNotGranted,
    /// RoleRevokePermission of an absent permission.
    PermissionNotGranted,
    /// Authenticate while auth is off.
    AuthNotEnabled,
    /// Token unknown, expired, malformed.
    InvalidAuthToken,
    /// Delete root user or root role or revoke root from root while auth is on; bad permission range.
    InvalidAuthMgmt,
    /// Auth store changed since the token (JWT) or during the call.
    AuthOldRevision,
    /// No leader and metadata hasleader=true; forwarding without leader.
    NoLeader,
    /// MoveLeader at a follower.
    NotLeader,
    /// Leader changed while a read index was awaited, or lease demoted during timetolive.
    LeaderChanged,
    /// Rpc layer not enabled by cluster version.
    NotCapable,
    /// Server is going down.
    Stopped,
    /// Proposal or read index not done within 5 s + 2 x election timeout.
    Timeout,
    /// Timeout overlapped the loss of a leader.
    TimeoutDueToLeaderFail,
    /// Timeout while links to quorum or leader were down.
    TimeoutDueToConnectionLost,
    /// Lease renew, timetolive, promote: applied index not caught up in 1 s.
    TimeoutWaitAppliedIndex,
    /// Strict reconfig check: too few members connected for 5 s.
    Unhealthy,
    /// CORRUPT alarm set.
    Corrupt,
    /// See 2.15.
    NotSupportedForLearner,
    /// MoveLeader target unknown or a learner.
    BadLeaderTransferee,
    /// Not X.Y or X.Y.Z.
    WrongDowngradeVersionFormat,
    /// Target is not exactly one minor below.
    InvalidDowngradeTargetVersion,
    /// Cluster version not decided yet.
    ClusterVersionUnavailable,
    /// Validate or enable during a downgrade.
    DowngradeInProcess,
    /// Internal on cancel (the  swallows it).
    NoInflightDowngrade,
    /// Own cancellation.
    Canceled,
    /// Kept for parity; grpc itself answers with its own text.
    DeadlineExceeded,
    /// The server does not offer this call; the text says which.
    Unimplemented(Cow<'static, str>),
    /// An error outside etcd's table, with code `Unknown`.
    Other(Cow<'static, str>),
}

impl RequestError {
    /// The g code that clients see.
    pub fn code(&self) -> Code {
        self.table().0
    }

    /// The whole g description.
    pub fn message(&self) -> &str {
        match self {
            Self::Unimplemented(text) | Self::Other(text) => text,
            _ => self.table().1,
        }
    }

    fn table(&self) -> (Code, &'static str) {
        match self {
            Self::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
            Self::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
            Self::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
            Self::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
            Self::TooManyOps => (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
            ),
            Self::DuplicateKey => (
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
            ),
            Self::InvalidClientAPIVersion => (
                Code::InvalidArgument,
                "etcdserver: invalid client api version",
            ),
            Self::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
            Self::Compacted => (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            Self::FutureRev => (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            Self::NoSpace => (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            Self::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
            Self::LeaseExist => (Code::FailedPrecondition, "etcdserver: lease already exists"),
            Self::LeaseTTLTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
            Self::WatchCanceled => (Code::Canceled, "etcdserver: watch canceled"),
            Self::MemberExist => (
                Code::FailedPrecondition,
                "etcdserver: member ID already exist",
            ),
            Self::PeerURLExist => (
                Code::FailedPrecondition,
                "etcdserver: Peer URLs already exists",
            ),
            Self::MemberNotEnoughStarted => (
                Code::Unknown,
                "etcdserver: re-configuration failed due to not enough started members",
            ), // The wire shows Unknown, see the module.
            Self::MemberBadURLs => (
                Code::InvalidArgument,
                "etcdserver: given member URLs are invalid",
            ),
            Self::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
            Self::MemberNotLearner => (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member",
            ),
            Self::LearnerNotReady => (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            Self::TooManyLearners => (
                Code::FailedPrecondition,
                "etcdserver: too many learner members in cluster",
            ),
            Self::ClusterIDMismatch => {
                (Code::FailedPrecondition, "etcdserver: cluster ID mismatch")
            }
            Self::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
            Self::RequestTooManyRequests => (Code::Unknown, "etcdserver: too many requests"), // The wire shows Unknown, see the module.
            Self::RootUserNotExist => (
                Code::FailedPrecondition,
                "etcdserver: root user does not exist",
            ),
            Self::RootRoleNotExist => (
                Code::FailedPrecondition,
                "etcdserver: root user does not have root role",
            ),
            Self::UserAlreadyExist => (
                Code::FailedPrecondition,
                "etcdserver: user name already exists",
            ),
            Self::UserEmpty => (Code::InvalidArgument, "etcdserver: user name is empty"),
            Self::UserNotFound => (Code::FailedPrecondition, "etcdserver: user name not found"),
            Self::RoleAlreadyExist => (
                Code::FailedPrecondition,
                "etcdserver: role name already exists",
            ),
            Self::RoleNotFound => (Code::FailedPrecondition, "etcdserver: role name not found"),
            Self::RoleEmpty => (Code::InvalidArgument, "etcdserver: role name is empty"),
            Self::AuthFailed => (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            Self::PermissionNotGiven => (Code::InvalidArgument, "etcdserver: permission not given"),
            Self::PermissionDenied => (Code::PermissionDenied, "etcdserver: permission denied"),
            Self::RoleNotGranted => (
                Code::FailedPrecondition,
                "etcdserver: role is not granted to the user",
            ),
            Self::PermissionNotGranted => (
                Code::FailedPrecondition,
                "etcdserver: permission is not granted to the role",
            ),
            Self::AuthNotEnabled => (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
            ),
            Self::InvalidAuthToken => (Code::Unauthenticated, "etcdserver: invalid auth token"),
            Self::InvalidAuthMgmt => (Code::InvalidArgument, "etcdserver: invalid auth management"),
            Self::AuthOldRevision => (
                Code::InvalidArgument,
                "etcdserver: revision of auth store is old",
            ),
            Self::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
            Self::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
            Self::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
            Self::NotCapable => (Code::FailedPrecondition, "etcdserver: not capable"),
            Self::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
            Self::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
            Self::TimeoutDueToLeaderFail => (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            Self::TimeoutDueToConnectionLost => (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            Self::TimeoutWaitAppliedIndex => (
                Code::Unavailable,
                "etcdserver: request timed out, waiting for the applied index took too long",
            ),
            Self::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
            Self::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
            Self::NotSupportedForLearner => (
                Code::FailedPrecondition,
                "etcdserver: rpc not supported for learner",
            ),
            Self::BadLeaderTransferee => (
                Code::FailedPrecondition,
                "etcdserver: bad leader transferee",
            ),
            Self::WrongDowngradeVersionFormat => (
                Code::InvalidArgument,
                "etcdserver: wrong downgrade target version format",
            ),
            Self::InvalidDowngradeTargetVersion => (
                Code::InvalidArgument,
                "etcdserver: invalid downgrade target version",
            ),
            Self::ClusterVersionUnavailable => (
                Code::FailedPrecondition,
                "etcdserver: cluster version not found during downgrade",
            ),
            Self::DowngradeInProcess => (
                Code::FailedPrecondition,
                "etcdserver: cluster has a downgrade job in progress",
            ),
            Self::NoInflightDowngrade => (
                Code::FailedPrecondition,
                "etcdserver: no inflight downgrade job",
            ),
            Self::Canceled => (Code::Canceled, "etcdserver: request canceled"),
            Self::DeadlineExceeded => (
                Code::DeadlineExceeded,
                "etcdserver: context deadline exceeded",
            ),
            Self::Unimplemented(_) => (Code::Unimplemented, ""),
            Self::Other(_) => (Code::Unknown, ""),
        }
    }
}

impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests;
