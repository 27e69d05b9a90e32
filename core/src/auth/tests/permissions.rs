//! Which requests are let through, with etcd's errors in etcd's order.

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget};
use quorate_proto::etcdserverpb::request_op::Request;

use super::*;
use crate::auth::{permit, permit_admin, permit_lease, permit_read_txn, permit_watch};
use crate::lease::Lessor;
use crate::types::{LeaseId, Time};

/// Auth with alice, who reads [a, c) and [c, d), writes k, and has a lease in common with root: 1 holds k, 2 holds x.
fn world() -> (Auth, Lessor) {
    let mut auth = enabled();
    let requests = [
        add_role("reader"),
        add_role("writer"),
        grant("reader", Type::Read, b"a", b"c"),
        grant("writer", Type::Read, b"c", b"d"),
        grant("writer", Type::Write, b"k", b""),
        add_user("alice"),
        grant_role("alice", "reader"),
        grant_role("alice", "writer"),
    ];
    apply_all(&mut auth, &requests);
    let mut lessor = Lessor::default();
    for (lease, key) in [(1, b"k"), (2, b"x")] {
        lessor
            .grant(Time(0), LeaseId(lease), 10)
            .expect("a free id");
        assert!(lessor.attach(LeaseId(lease), key));
    }
    (auth, lessor)
}

fn asks(user: &str, request: pb::InternalRaftRequest) -> Result<(), RequestError> {
    let (auth, lessor) = world();
    permit(auth.rules(), &lessor, &who(&auth, user), &request)
}

fn put(key: &str, lease: i64, prev_kv: bool) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        lease,
        prev_kv,
        ..pb::PutRequest::default()
    }
}

fn putting(put: pb::PutRequest) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        put: Some(put),
        ..empty()
    }
}

fn ranging(txn: pb::TxnRequest) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        txn: Some(txn),
        ..empty()
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

const DENIED: Result<(), RequestError> = Err(RequestError::PermissionDenied);

#[test]
fn ranges_of_several_roles_join() {
    let (auth, _) = world();
    let alice = who(&auth, "alice");
    let reads = |key: &[u8], end: &[u8]| auth.rules().permit_range(&alice, key, end);
    assert_eq!(reads(b"a", b"d"), Ok(()));
    assert_eq!(reads(b"b", b"cz"), Ok(()));
    assert_eq!(reads(b"a", b""), Ok(()));
    assert_eq!(reads(b"a", b"d\0"), DENIED);
    assert_eq!(reads(b"a", b"\0"), DENIED);
    assert_eq!(reads(b"d", b""), DENIED);
    assert_eq!(reads(b"k", b""), DENIED);
    // A range that holds nothing: its first key decides.
    assert_eq!(reads(b"b", b"a"), Ok(()));
    assert_eq!(reads(b"k", b"a"), DENIED);
}

#[test]
fn a_watch_without_a_key_begins_at_the_smallest() {
    let mut auth = enabled();
    let requests = [
        add_user("alice"),
        add_role("all"),
        grant("all", Type::Read, b"\0", b"\0"),
        grant_role("alice", "all"),
    ];
    apply_all(&mut auth, &requests);
    let create = pb::WatchCreateRequest {
        range_end: Bytes::from_static(b"\0"),
        ..pb::WatchCreateRequest::default()
    };
    assert_eq!(
        permit_watch(auth.rules(), &who(&auth, "alice"), &create),
        Ok(())
    );
    assert_eq!(
        permit_watch(auth.rules(), &Identity::default(), &create),
        Err(RequestError::UserEmpty)
    );
}

#[test]
fn strangers_and_old_credentials_are_told_apart() {
    let (auth, lessor) = world();
    let request = putting(put("k", 0, false));
    let ask = |who: &Identity| permit(auth.rules(), &lessor, who, &request);
    assert_eq!(ask(&Identity::default()), Err(RequestError::UserEmpty));
    let mut alice = who(&auth, "alice");
    assert_eq!(ask(&alice), Ok(()));
    alice.revision -= 1;
    assert_eq!(ask(&alice), Err(RequestError::AuthOldRevision));
    // Even root; administration alone goes by the name.
    let root = Identity {
        user: "root".into(),
        revision: 1,
    };
    assert_eq!(ask(&root), Err(RequestError::AuthOldRevision));
    assert_eq!(permit_admin(auth.rules(), &root, &add_role("x")), Ok(()));
    assert_eq!(ask(&who(&auth, "nobody")), DENIED);
}

#[test]
fn while_auth_is_off_everybody_may() {
    let (mut auth, lessor) = world();
    apply_all(&mut auth, &[disable()]);
    let nobody = Identity::default();
    let request = putting(put("x", 2, true));
    assert_eq!(permit(auth.rules(), &lessor, &nobody, &request), Ok(()));
    assert_eq!(permit_admin(auth.rules(), &nobody, &add_role("x")), Ok(()));
}

#[test]
fn administration_needs_root() {
    let (auth, _) = world();
    let request = add_role("x");
    let ask = |who: &Identity| permit_admin(auth.rules(), who, &request);
    assert_eq!(ask(&who(&auth, "alice")), DENIED);
    assert_eq!(ask(&who(&auth, "nobody")), Err(RequestError::UserNotFound));
    assert_eq!(ask(&Identity::default()), Err(RequestError::UserEmpty));
}

#[test]
fn puts_need_the_previous_value_and_all_keys_of_the_lease() {
    assert_eq!(asks("alice", putting(put("k", 0, false))), Ok(()));
    assert_eq!(asks("alice", putting(put("a", 0, false))), DENIED);
    assert_eq!(asks("alice", putting(put("k", 0, true))), DENIED);
    assert_eq!(asks("alice", putting(put("k", 1, false))), Ok(()));
    assert_eq!(asks("alice", putting(put("k", 2, false))), DENIED);
    assert_eq!(asks("root", putting(put("k", 2, true))), Ok(()));
    // Whether the lease exists is not auth's question.
    assert_eq!(asks("alice", putting(put("k", 3, false))), Ok(()));
}

#[test]
fn deletions_need_to_write_and_for_previous_values_to_read() {
    let delete = |key: &'static str, prev_kv| pb::InternalRaftRequest {
        delete_range: Some(pb::DeleteRangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            prev_kv,
            ..pb::DeleteRangeRequest::default()
        }),
        ..empty()
    };
    assert_eq!(asks("alice", delete("k", false)), Ok(()));
    assert_eq!(asks("alice", delete("k", true)), DENIED);
    assert_eq!(asks("alice", delete("a", false)), DENIED);
}

#[test]
fn both_lists_of_a_transaction_and_of_those_inside_are_looked_at() {
    let good = || operation(Request::RequestPut(put("k", 0, false)));
    let bad = || operation(Request::RequestPut(put("a", 0, false)));
    let inner = |list: Vec<pb::RequestOp>| {
        operation(Request::RequestTxn(pb::TxnRequest {
            failure: list,
            ..pb::TxnRequest::default()
        }))
    };
    let lists = |success, failure| {
        ranging(pb::TxnRequest {
            success,
            failure,
            ..pb::TxnRequest::default()
        })
    };
    assert_eq!(
        asks("alice", lists(vec![good()], vec![inner(vec![good()])])),
        Ok(())
    );
    assert_eq!(asks("alice", lists(vec![bad()], vec![])), DENIED);
    assert_eq!(asks("alice", lists(vec![good()], vec![bad()])), DENIED);
    assert_eq!(
        asks("alice", lists(vec![inner(vec![bad()])], vec![])),
        DENIED
    );
    assert_eq!(
        asks(
            "alice",
            lists(vec![good()], vec![inner(vec![inner(vec![bad()])])])
        ),
        DENIED
    );
    let leased = operation(Request::RequestPut(put("k", 2, false)));
    assert_eq!(asks("alice", lists(vec![leased], vec![])), DENIED);
    let compare = |key: &'static str| pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: Bytes::from_static(key.as_bytes()),
        ..pb::Compare::default()
    };
    let (auth, _) = world();
    let comparing = |key| {
        let txn = pb::TxnRequest {
            compare: vec![compare(key)],
            ..pb::TxnRequest::default()
        };
        permit_read_txn(auth.rules(), &who(&auth, "alice"), &txn)
    };
    assert_eq!(comparing("a"), Ok(()));
    assert_eq!(comparing("k"), DENIED);
}

#[test]
fn leases_belong_to_those_who_may_touch_their_keys() {
    let revoke = |id| pb::InternalRaftRequest {
        lease_revoke: Some(pb::LeaseRevokeRequest { id }),
        ..empty()
    };
    assert_eq!(asks("alice", revoke(1)), Ok(()));
    assert_eq!(asks("alice", revoke(2)), DENIED);
    assert_eq!(asks("alice", revoke(3)), Ok(()));
    assert_eq!(asks("root", revoke(2)), Ok(()));
    let (auth, mut lessor) = world();
    let ask = |lessor: &Lessor, user, id, writes| {
        permit_lease(auth.rules(), lessor, &who(&auth, user), id, writes)
    };
    assert_eq!(ask(&lessor, "alice", Some(LeaseId(1)), true), Ok(()));
    assert_eq!(ask(&lessor, "alice", Some(LeaseId(1)), false), DENIED);
    assert_eq!(ask(&lessor, "alice", None, false), DENIED);
    assert_eq!(ask(&lessor, "root", None, false), Ok(()));
    for id in [1, 2] {
        lessor.revoke(LeaseId(id)).expect("it exists");
    }
    assert_eq!(ask(&lessor, "alice", None, false), Ok(()));
    assert_eq!(
        permit_lease(auth.rules(), &world().1, &Identity::default(), None, false),
        Err(RequestError::UserEmpty)
    );
}

#[test]
fn the_member_ends_leases_as_root() {
    let (auth, lessor) = world();
    let header = auth.own_header(7, true);
    assert_eq!((header.id, header.username.as_str()), (7, "root"));
    let root = Identity {
        user: header.username,
        revision: header.auth_revision,
    };
    let revoke = pb::InternalRaftRequest {
        lease_revoke: Some(pb::LeaseRevokeRequest { id: 2 }),
        ..empty()
    };
    assert_eq!(permit(auth.rules(), &lessor, &root, &revoke), Ok(()));
    assert_eq!(auth.own_header(7, false).username, "");
    assert_eq!(Auth::default().own_header(7, true).username, "");
}

#[test]
fn users_may_look_at_themselves_and_at_their_roles() {
    let user_get = |name: &str| pb::InternalRaftRequest {
        auth_user_get: Some(pb::AuthUserGetRequest { name: name.into() }),
        ..empty()
    };
    let role_get = |role: &str| pb::InternalRaftRequest {
        auth_role_get: Some(pb::AuthRoleGetRequest { role: role.into() }),
        ..empty()
    };
    assert_eq!(asks("alice", user_get("alice")), Ok(()));
    assert_eq!(asks("alice", user_get("root")), DENIED);
    assert_eq!(asks("alice", role_get("reader")), Ok(()));
    assert_eq!(asks("alice", role_get("root")), DENIED);
    assert_eq!(asks("root", role_get("nothing")), Ok(()));
    assert_eq!(
        asks("nobody", role_get("reader")),
        Err(RequestError::UserNotFound)
    );
}
