//! The table against etcd's, as kept in `etcd-3.7.1.txt`.

use super::RequestError::{self, *};

/// Every error of the table.
const ALL: [RequestError; 63] = [
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    InvalidClientAPIVersion,
    InvalidSortOption,
    Compacted,
    FutureRev,
    NoSpace,
    LeaseNotFound,
    LeaseExist,
    LeaseTTLTooLarge,
    WatchCanceled,
    MemberExist,
    PeerURLExist,
    MemberNotEnoughStarted,
    MemberBadURLs,
    MemberNotFound,
    MemberNotLearner,
    LearnerNotReady,
    TooManyLearners,
    ClusterIDMismatch,
    RequestTooLarge,
    RequestTooManyRequests,
    RootUserNotExist,
    RootRoleNotExist,
    UserAlreadyExist,
    UserEmpty,
    UserNotFound,
    RoleAlreadyExist,
    RoleNotFound,
    RoleEmpty,
    AuthFailed,
    PermissionNotGiven,
    PermissionDenied,
    RoleNotGranted,
    PermissionNotGranted,
    AuthNotEnabled,
    InvalidAuthToken,
    InvalidAuthMgmt,
    AuthOldRevision,
    NoLeader,
    NotLeader,
    LeaderChanged,
    NotCapable,
    Stopped,
    Timeout,
    TimeoutDueToLeaderFail,
    TimeoutDueToConnectionLost,
    TimeoutWaitAppliedIndex,
    Unhealthy,
    Corrupt,
    NotSupportedForLearner,
    BadLeaderTransferee,
    WrongDowngradeVersionFormat,
    InvalidDowngradeTargetVersion,
    ClusterVersionUnavailable,
    DowngradeInProcess,
    NoInflightDowngrade,
    Canceled,
    DeadlineExceeded,
];

/// Two errors whose symbols say something else than what the wire shows; see the module.
const SHOWN_AS_UNKNOWN: [&str; 2] = ["MemberNotEnoughStarted", "RequestTooManyRequests"];

/// Whether an error is one of [`ALL`]: whoever adds one is led here by the compiler.
fn is_in_table(error: &RequestError) -> bool {
    match error {
        Unimplemented(_) | Other(_) => false,
        EmptyKey
        | KeyNotFound
        | ValueProvided
        | LeaseProvided
        | TooManyOps
        | DuplicateKey
        | InvalidClientAPIVersion
        | InvalidSortOption
        | Compacted
        | FutureRev
        | NoSpace
        | LeaseNotFound
        | LeaseExist
        | LeaseTTLTooLarge
        | WatchCanceled
        | MemberExist
        | PeerURLExist
        | MemberNotEnoughStarted
        | MemberBadURLs
        | MemberNotFound
        | MemberNotLearner
        | LearnerNotReady
        | TooManyLearners
        | ClusterIDMismatch
        | RequestTooLarge
        | RequestTooManyRequests
        | RootUserNotExist
        | RootRoleNotExist
        | UserAlreadyExist
        | UserEmpty
        | UserNotFound
        | RoleAlreadyExist
        | RoleNotFound
        | RoleEmpty
        | AuthFailed
        | PermissionNotGiven
        | PermissionDenied
        | RoleNotGranted
        | PermissionNotGranted
        | AuthNotEnabled
        | InvalidAuthToken
        | InvalidAuthMgmt
        | AuthOldRevision
        | NoLeader
        | NotLeader
        | LeaderChanged
        | NotCapable
        | Stopped
        | Timeout
        | TimeoutDueToLeaderFail
        | TimeoutDueToConnectionLost
        | TimeoutWaitAppliedIndex
        | Unhealthy
        | Corrupt
        | NotSupportedForLearner
        | BadLeaderTransferee
        | WrongDowngradeVersionFormat
        | InvalidDowngradeTargetVersion
        | ClusterVersionUnavailable
        | DowngradeInProcess
        | NoInflightDowngrade
        | Canceled
        | DeadlineExceeded => true,
    }
}

#[test]
fn names_codes_and_texts_are_those_of_etcd() {
    assert!(ALL.iter().all(is_in_table));
    let ours: Vec<_> = ALL
        .iter()
        .map(|error| {
            let (name, code) = (format!("{error:?}"), format!("{:?}", error.code()));
            (name, code, error.message().to_owned())
        })
        .collect();
    let reference = include_str!("etcd-3.7.1.txt");
    let lines = reference.lines().filter(|line| !line.starts_with('#'));
    let theirs: Vec<_> = lines
        .map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            let mut part = || parts.next().expect("a line has three parts");
            let (name, code, text) = (part(), part(), part());
            let is_unknown = SHOWN_AS_UNKNOWN.contains(&name.as_str());
            let code = if is_unknown {
                "Unknown".to_owned()
            } else {
                code
            };
            (name, code, text)
        })
        .collect();
    for line in &theirs {
        assert!(ours.contains(line), "etcd has {line:?}");
    }
    for line in &ours {
        assert!(theirs.contains(line), "etcd has not {line:?}");
    }
    assert_eq!(ours.len(), theirs.len(), "one is there twice");
}
