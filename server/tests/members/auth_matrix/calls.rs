//! The calls of the matrix: every RPC, and where it matters whose keys it is about, one call for each case.
//!
//! `k/` is what the users' role is for, `x/` is nobody's but root's.

use prost::Message;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Operation;
use quorate_proto::v3electionpb as election;
use quorate_proto::v3lockpb as lock;

use super::requests::{
    compaction, lease_grant, lease_revoke, no_password, operation, password, put_request,
    range_request, role_add, role_grant, user_add, user_grant, watch_request,
};

/// The lease that a row is about; its rows grant it first.
const LEASE: i64 = 700;
/// No member has this id, and no lease.
const UNKNOWN: i64 = 4711;

/// One call, encoded.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// As in `KV/Range`, with the package for those that are not etcd's own.
    pub(crate) method: &'static str,
    pub(crate) message: Vec<u8>,
}

/// One row of the matrix.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) call: Call,
    /// What is special about it.
    pub(crate) case: &'static str,
    /// What root does first; it must succeed.
    pub(crate) before: Vec<Call>,
    /// What root does afterwards, whatever came of the call.
    pub(crate) after: Vec<Call>,
}

impl Row {
    fn before(mut self, call: Call) -> Self {
        self.before.push(call);
        self
    }

    fn after(mut self, call: Call) -> Self {
        self.after.push(call);
        self
    }

    /// With a lease, which has a key unless that is empty.
    fn with_lease(self, key: &str) -> Self {
        let with = self
            .before(call("Lease/LeaseGrant", lease_grant(LEASE)))
            .after(call("Lease/LeaseRevoke", lease_revoke(LEASE)));
        if key.is_empty() {
            return with;
        }
        with.before(call(
            "KV/Put",
            pb::PutRequest {
                lease: LEASE,
                ..put_request(key)
            },
        ))
    }
}

/// A call, whose message must be that of the method.
pub(crate) fn call(method: &'static str, message: impl Message) -> Call {
    Call {
        method,
        message: message.encode_to_vec(),
    }
}

fn row(method: &'static str, case: &'static str, message: impl Message) -> Row {
    Row {
        call: call(method, message),
        case,
        before: Vec::new(),
        after: Vec::new(),
    }
}

/// What there is before the matrix begins.
pub(crate) fn furniture() -> Vec<Call> {
    let mut calls = vec![
        call("KV/Put", put_request("k/a")),
        call("KV/Put", put_request("x/a")),
        call("Auth/RoleAdd", role_add("keeper")),
        call("Auth/RoleAdd", role_add("viewer")),
    ];
    for (role, kind) in [("keeper", Type::Readwrite), ("viewer", Type::Read)] {
        calls.push(call("Auth/RoleGrantPermission", role_grant(role, kind)));
    }
    for (user, role) in [
        ("root", "root"),
        ("alice", "keeper"),
        ("reader", "viewer"),
        ("stranger", ""),
    ] {
        calls.push(call("Auth/UserAdd", user_add(user)));
        if !role.is_empty() {
            calls.push(call("Auth/UserGrantRole", user_grant(user, role)));
        }
    }
    calls
}

/// All rows, in the order of the table.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(reads());
    rows.extend(writes());
    rows.extend(transactions());
    rows.extend(leases());
    rows.extend(cluster());
    rows.extend(maintenance());
    rows.extend(users());
    rows.extend(roles());
    rows.extend(concurrency());
    rows
}

fn reads() -> Vec<Row> {
    let range = |key: &str| range_request(key, "");
    let serializable = pb::RangeRequest {
        serializable: true,
        ..range("x/a")
    };
    let count = pb::RangeRequest {
        count_only: true,
        ..range("x/a")
    };
    vec![
        row("KV/Range", "k/a", range("k/a")),
        row("KV/Range", "all of k/", range_request("k/", "k0")),
        row("KV/Range", "beyond k/", range_request("k/", "x0")),
        row("KV/Range", "x/a", range("x/a")),
        row("KV/Range", "x/a, serializable", serializable),
        row("KV/Range", "x/a, only its count", count),
        row("KV/Range", "everything", range_request("\0", "\0")),
        row("KV/Range", "no key", range("")),
        row("KV/RangeStream", "k/a", range("k/a")),
        row("KV/RangeStream", "x/a", range("x/a")),
        row("Watch/Watch", "k/a", watch_request("k/a", "")),
        row("Watch/Watch", "beyond k/", watch_request("k/", "x0")),
        row("Watch/Watch", "x/a", watch_request("x/a", "")),
        row("KV/Compact", "a revision to come", compaction(1 << 40)),
    ]
}

fn writes() -> Vec<Row> {
    let prev = |key: &str| pb::PutRequest {
        prev_kv: true,
        ..put_request(key)
    };
    let leased = || pb::PutRequest {
        lease: LEASE,
        ..put_request("k/a")
    };
    let delete = |key: &str, end: &str, prev_kv: bool| pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv,
    };
    vec![
        row("KV/Put", "k/a", put_request("k/a")),
        row("KV/Put", "k/a, with what it was", prev("k/a")),
        row("KV/Put", "x/a", put_request("x/a")),
        row("KV/Put", "k/a, to a lease with no key", leased()).with_lease(""),
        row("KV/Put", "k/a, to a lease with k/b", leased()).with_lease("k/b"),
        row("KV/Put", "k/a, to a lease with x/b", leased()).with_lease("x/b"),
        row("KV/Put", "no key", put_request("")),
        row("KV/DeleteRange", "k/z", delete("k/z", "", false)),
        row(
            "KV/DeleteRange",
            "k/z, with what it was",
            delete("k/z", "", true),
        ),
        row("KV/DeleteRange", "x/z", delete("x/z", "", false)),
        row("KV/DeleteRange", "beyond k/", delete("k/y", "l", false)),
    ]
}

fn transactions() -> Vec<Row> {
    let put = |key: &str| Operation::RequestPut(put_request(key));
    let get = |key: &str| Operation::RequestRange(range_request(key, ""));
    let txn = |compared: &str, success: Operation, failure: Operation| pb::TxnRequest {
        compare: vec![pb::Compare {
            key: compared.to_owned().into(),
            ..pb::Compare::default()
        }],
        success: vec![operation(success)],
        failure: vec![operation(failure)],
    };
    let nested = |key: &str| Operation::RequestTxn(txn("k/a", get("k/a"), put(key)));
    vec![
        row("KV/Txn", "nothing", pb::TxnRequest::default()),
        row("KV/Txn", "reads k/", txn("k/a", get("k/a"), get("k/b"))),
        row("KV/Txn", "writes k/", txn("k/a", put("k/c"), put("k/c"))),
        row("KV/Txn", "compares x/", txn("x/a", get("k/a"), get("k/a"))),
        row(
            "KV/Txn",
            "would read x/",
            txn("k/a", get("x/a"), get("k/a")),
        ),
        row(
            "KV/Txn",
            "would write x/",
            txn("k/a", put("x/a"), put("k/c")),
        ),
        row(
            "KV/Txn",
            "might write x/",
            txn("k/a", get("k/a"), put("x/a")),
        ),
        row(
            "KV/Txn",
            "writes k/, nested",
            txn("k/a", get("k/a"), nested("k/c")),
        ),
        row(
            "KV/Txn",
            "writes x/, nested",
            txn("k/a", get("k/a"), nested("x/c")),
        ),
    ]
}

fn leases() -> Vec<Row> {
    let revoke = |id| lease_revoke(id);
    let renew = |id| pb::LeaseKeepAliveRequest { id };
    let left = |id, keys| pb::LeaseTimeToLiveRequest { id, keys };
    let all = pb::LeaseLeasesRequest {};
    vec![
        row("Lease/LeaseGrant", "", lease_grant(LEASE))
            .after(call("Lease/LeaseRevoke", lease_revoke(LEASE))),
        row("Lease/LeaseRevoke", "no key", revoke(LEASE)).with_lease(""),
        row("Lease/LeaseRevoke", "with k/b", revoke(LEASE)).with_lease("k/b"),
        row("Lease/LeaseRevoke", "with x/b", revoke(LEASE)).with_lease("x/b"),
        row("Lease/LeaseRevoke", "unknown", revoke(UNKNOWN)),
        row("Lease/LeaseKeepAlive", "no key", renew(LEASE)).with_lease(""),
        row("Lease/LeaseKeepAlive", "with k/b", renew(LEASE)).with_lease("k/b"),
        row("Lease/LeaseKeepAlive", "with x/b", renew(LEASE)).with_lease("x/b"),
        row("Lease/LeaseKeepAlive", "unknown", renew(UNKNOWN)),
        row("Lease/LeaseTimeToLive", "with x/b", left(LEASE, false)).with_lease("x/b"),
        row("Lease/LeaseTimeToLive", "keys k/b", left(LEASE, true)).with_lease("k/b"),
        row("Lease/LeaseTimeToLive", "keys x/b", left(LEASE, true)).with_lease("x/b"),
        row("Lease/LeaseTimeToLive", "unknown", left(UNKNOWN, false)),
        row(
            "Lease/LeaseTimeToLive",
            "keys, unknown",
            left(UNKNOWN, true),
        ),
        row("Lease/LeaseLeases", "none", all),
        row("Lease/LeaseLeases", "one with k/b", all).with_lease("k/b"),
        row("Lease/LeaseLeases", "one with x/b", all).with_lease("x/b"),
    ]
}

fn cluster() -> Vec<Row> {
    let id = UNKNOWN.unsigned_abs();
    let list = |linearizable| pb::MemberListRequest { linearizable };
    let add = |url: &str| pb::MemberAddRequest {
        peer_urls: vec![url.to_owned()],
        is_learner: true,
    };
    let update = pb::MemberUpdateRequest {
        id,
        peer_urls: vec!["http://127.0.0.1:1".to_owned()],
    };
    let remove = pb::MemberRemoveRequest { id };
    let promote = pb::MemberPromoteRequest { id };
    vec![
        row("Cluster/MemberList", "", list(false)),
        row("Cluster/MemberList", "linearizable", list(true)),
        row("Cluster/MemberAdd", "no URL", add("nowhere")),
        row("Cluster/MemberRemove", "unknown", remove),
        row("Cluster/MemberUpdate", "unknown", update),
        row("Cluster/MemberPromote", "unknown", promote),
    ]
}

fn maintenance() -> Vec<Row> {
    use pb::alarm_request::AlarmAction;
    use pb::downgrade_request::DowngradeAction;
    let alarm = |action: AlarmAction| pb::AlarmRequest {
        action: action as i32,
        member_id: UNKNOWN.unsigned_abs(),
        alarm: pb::AlarmType::Nospace as i32,
    };
    let downgrade = |action: DowngradeAction, version: &str| pb::DowngradeRequest {
        action: action as i32,
        version: version.to_owned(),
    };
    let target_id = UNKNOWN.unsigned_abs();
    let silence = || call("Maintenance/Alarm", alarm(AlarmAction::Deactivate));
    vec![
        row("Maintenance/Alarm", "get", alarm(AlarmAction::Get)),
        row("Maintenance/Alarm", "raise", alarm(AlarmAction::Activate)).after(silence()),
        row("Maintenance/Alarm", "clear", alarm(AlarmAction::Deactivate)),
        row("Maintenance/Status", "", pb::StatusRequest {}),
        row("Maintenance/Defragment", "", pb::DefragmentRequest {}),
        row("Maintenance/Hash", "", pb::HashRequest {}),
        row("Maintenance/HashKV", "", pb::HashKvRequest::default()),
        row("Maintenance/Snapshot", "", pb::SnapshotRequest {}),
        row(
            "Maintenance/MoveLeader",
            "unknown",
            pb::MoveLeaderRequest { target_id },
        ),
        row(
            "Maintenance/Downgrade",
            "validate 3.6",
            downgrade(DowngradeAction::Validate, "3.6"),
        ),
        row(
            "Maintenance/Downgrade",
            "enable 3.0",
            downgrade(DowngradeAction::Enable, "3.0"),
        ),
        row(
            "Maintenance/Downgrade",
            "cancel",
            downgrade(DowngradeAction::Cancel, ""),
        ),
        row("grpc.health.v1.Health/Check", "", ()),
    ]
}

fn users() -> Vec<Row> {
    let get = |name: &str| pb::AuthUserGetRequest { name: name.into() };
    let delete = |name: &str| pb::AuthUserDeleteRequest { name: name.into() };
    let change = |name: &str| pb::AuthUserChangePasswordRequest {
        name: name.into(),
        password: password(name),
        ..pb::AuthUserChangePasswordRequest::default()
    };
    let revoke = |name: &str, role: &str| pb::AuthUserRevokeRoleRequest {
        name: name.into(),
        role: role.into(),
    };
    let login = |name: &str, password: String| pb::AuthenticateRequest {
        name: name.into(),
        password,
    };
    let guest = || call("Auth/UserAdd", user_add("guest"));
    let no_guest = || call("Auth/UserDelete", delete("guest"));
    vec![
        row("Auth/AuthStatus", "", pb::AuthStatusRequest {}),
        row("Auth/AuthEnable", "", pb::AuthEnableRequest {}),
        row("Auth/AuthDisable", "", pb::AuthDisableRequest {}),
        row(
            "Auth/Authenticate",
            "right",
            login("alice", password("alice")),
        ),
        row("Auth/Authenticate", "wrong", login("alice", "wrong".into())),
        row("Auth/Authenticate", "unknown", login("nobody", "p".into())),
        row("Auth/Authenticate", "no name", login("", "p".into())),
        row("Auth/UserAdd", "guest", user_add("guest")).after(no_guest()),
        row("Auth/UserAdd", "there is one", user_add("alice")),
        row("Auth/UserAdd", "no name", user_add("")),
        row("Auth/UserAdd", "no password", no_password("guest")).after(no_guest()),
        row("Auth/UserGet", "alice", get("alice")),
        row("Auth/UserGet", "stranger", get("stranger")),
        row("Auth/UserGet", "unknown", get("nobody")),
        row("Auth/UserList", "", pb::AuthUserListRequest {}),
        row("Auth/UserDelete", "guest", delete("guest"))
            .before(guest())
            .after(no_guest()),
        row("Auth/UserDelete", "unknown", delete("nobody")),
        row("Auth/UserChangePassword", "alice", change("alice")),
        row("Auth/UserChangePassword", "unknown", change("nobody")),
        row("Auth/UserGrantRole", "guest", user_grant("guest", "viewer"))
            .before(guest())
            .after(no_guest()),
        row(
            "Auth/UserGrantRole",
            "unknown role",
            user_grant("alice", "none"),
        ),
        row(
            "Auth/UserGrantRole",
            "unknown user",
            user_grant("nobody", "viewer"),
        ),
        row(
            "Auth/UserRevokeRole",
            "not granted",
            revoke("alice", "viewer"),
        ),
        row(
            "Auth/UserRevokeRole",
            "unknown user",
            revoke("nobody", "viewer"),
        ),
    ]
}

fn roles() -> Vec<Row> {
    let get = |role: &str| pb::AuthRoleGetRequest { role: role.into() };
    let delete = |role: &str| pb::AuthRoleDeleteRequest { role: role.into() };
    let revoke = |role: &str, key: &str| pb::AuthRoleRevokePermissionRequest {
        role: role.into(),
        key: key.to_owned().into(),
        range_end: "k0".into(),
    };
    let guild = || call("Auth/RoleAdd", role_add("guild"));
    let no_guild = || call("Auth/RoleDelete", delete("guild"));
    let granted = || call("Auth/RoleGrantPermission", role_grant("guild", Type::Read));
    vec![
        row("Auth/RoleAdd", "guild", role_add("guild")).after(no_guild()),
        row("Auth/RoleAdd", "there is one", role_add("keeper")),
        row("Auth/RoleAdd", "no name", role_add("")),
        row("Auth/RoleGet", "keeper", get("keeper")),
        row("Auth/RoleGet", "viewer", get("viewer")),
        row("Auth/RoleGet", "unknown", get("none")),
        row("Auth/RoleList", "", pb::AuthRoleListRequest {}),
        row("Auth/RoleDelete", "guild", delete("guild"))
            .before(guild())
            .after(no_guild()),
        row("Auth/RoleDelete", "unknown", delete("none")),
        row(
            "Auth/RoleGrantPermission",
            "guild",
            role_grant("guild", Type::Write),
        )
        .before(guild())
        .after(no_guild()),
        row(
            "Auth/RoleGrantPermission",
            "unknown role",
            role_grant("none", Type::Read),
        ),
        row(
            "Auth/RoleGrantPermission",
            "nothing",
            pb::AuthRoleGrantPermissionRequest {
                name: "keeper".into(),
                perm: None,
            },
        ),
        row("Auth/RoleRevokePermission", "guild", revoke("guild", "k/"))
            .before(guild())
            .before(granted())
            .after(no_guild()),
        row(
            "Auth/RoleRevokePermission",
            "not granted",
            revoke("keeper", "z/"),
        ),
        row(
            "Auth/RoleRevokePermission",
            "unknown role",
            revoke("none", "k/"),
        ),
    ]
}

fn concurrency() -> Vec<Row> {
    let take = |name: &str, lease| lock::LockRequest {
        name: name.to_owned().into(),
        lease,
    };
    let release = |key: &str| lock::UnlockRequest {
        key: key.to_owned().into(),
    };
    let campaign = |name: &str, lease| election::CampaignRequest {
        name: name.to_owned().into(),
        lease,
        value: "v".into(),
    };
    let key = |name: &str| {
        Some(election::LeaderKey {
            name: name.to_owned().into(),
            key: format!("{name}/1").into(),
            rev: 1,
            lease: LEASE,
        })
    };
    let leader = |name: &str| election::LeaderRequest {
        name: name.to_owned().into(),
    };
    let proclaim = |name: &str| election::ProclaimRequest {
        leader: key(name),
        value: "v".into(),
    };
    let resign = |name: &str| election::ResignRequest { leader: key(name) };
    let clear = |name: &str| {
        call(
            "KV/DeleteRange",
            pb::DeleteRangeRequest {
                key: format!("{name}/").into(),
                range_end: format!("{name}0").into(),
                prev_kv: false,
            },
        )
    };
    let led = |row: Row, name: &str| {
        row.before(call("KV/Put", put_request(&format!("{name}/1"))))
            .after(clear(name))
    };
    let (lock_lock, lock_unlock) = ("v3lockpb.Lock/Lock", "v3lockpb.Lock/Unlock");
    vec![
        row(lock_lock, "k/", take("k/lock", LEASE)).with_lease(""),
        row(lock_lock, "x/", take("x/lock", LEASE)).with_lease(""),
        row(lock_lock, "k/, no lease", take("k/lock", 0)).after(clear("k/lock")),
        row(lock_lock, "k/, unknown lease", take("k/lock", UNKNOWN)),
        row(lock_unlock, "k/", release("k/lock/1")),
        row(lock_unlock, "x/", release("x/lock/1")),
        row(
            "v3electionpb.Election/Campaign",
            "k/",
            campaign("k/race", LEASE),
        )
        .with_lease(""),
        row(
            "v3electionpb.Election/Campaign",
            "x/",
            campaign("x/race", LEASE),
        )
        .with_lease(""),
        row(
            "v3electionpb.Election/Campaign",
            "k/, no lease",
            campaign("k/race", 0),
        )
        .after(clear("k/race")),
        row("v3electionpb.Election/Proclaim", "k/", proclaim("k/race")),
        row("v3electionpb.Election/Proclaim", "x/", proclaim("x/race")),
        row("v3electionpb.Election/Leader", "k/, none", leader("k/race")),
        led(
            row("v3electionpb.Election/Leader", "k/", leader("k/race")),
            "k/race",
        ),
        led(
            row("v3electionpb.Election/Leader", "x/", leader("x/race")),
            "x/race",
        ),
        led(
            row("v3electionpb.Election/Observe", "k/", leader("k/race")),
            "k/race",
        ),
        led(
            row("v3electionpb.Election/Observe", "x/", leader("x/race")),
            "x/race",
        ),
        row("v3electionpb.Election/Resign", "k/", resign("k/race")),
        row("v3electionpb.Election/Resign", "x/", resign("x/race")),
    ]
}
