//! Changes one by one: etcd's refusals, and what the image holds afterwards.

use quorate_proto::authpb::{Role, User};

use super::*;

fn refused(auth: &mut Auth, request: &pb::InternalRaftRequest, error: RequestError) {
    let before = auth.export();
    assert_eq!(apply(auth, request), Err(error), "{request:?}");
    assert_eq!(auth.export(), before, "a refused request changes nothing");
}

#[test]
fn enabling_needs_root_with_its_role_and_is_done_once() {
    let mut auth = Auth::default();
    refused(&mut auth, &enable(), RequestError::RootUserNotExist);
    apply_all(&mut auth, &[add_user("root")]);
    refused(&mut auth, &enable(), RequestError::RootRoleNotExist);
    // The role itself need not exist.
    apply_all(&mut auth, &[grant_role("root", "root"), enable(), enable()]);
    assert_eq!(
        (auth.rules().is_enabled(), auth.rules().revision()),
        (true, 3)
    );
}

#[test]
fn disabling_counts_as_a_change_only_when_auth_is_on() {
    let mut auth = Auth::default();
    apply_all(&mut auth, &[disable()]);
    assert_eq!((auth.export().enabled, auth.rules().revision()), (None, 1));
    let mut auth = enabled();
    apply_all(&mut auth, &[disable(), disable()]);
    assert_eq!(
        (auth.export().enabled, auth.rules().revision()),
        (Some(false), 4)
    );
}

#[test]
fn root_cannot_be_taken_away_while_auth_is_on() {
    let mut auth = enabled();
    apply_all(&mut auth, &[add_role("root")]);
    refused(
        &mut auth,
        &delete_user("root"),
        RequestError::InvalidAuthMgmt,
    );
    refused(
        &mut auth,
        &delete_role("root"),
        RequestError::InvalidAuthMgmt,
    );
    refused(
        &mut auth,
        &revoke_role("root", "root"),
        RequestError::InvalidAuthMgmt,
    );
    apply_all(
        &mut auth,
        &[disable(), delete_role("root"), delete_user("root")],
    );
}

#[test]
fn users_are_refused_as_etcd_refuses_them() {
    let mut auth = Auth::default();
    refused(&mut auth, &add_user(""), RequestError::UserEmpty);
    apply_all(&mut auth, &[add_user("alice")]);
    refused(
        &mut auth,
        &add_user("alice"),
        RequestError::UserAlreadyExist,
    );
    refused(&mut auth, &delete_user("bob"), RequestError::UserNotFound);
    refused(
        &mut auth,
        &change_password("bob", HASH),
        RequestError::UserNotFound,
    );
    let not_base64 = RequestError::Other(
        "auth: authentication failed, password was given for no password user".into(),
    );
    refused(&mut auth, &change_password("alice", "?"), not_base64);
    refused(
        &mut auth,
        &grant_role("bob", "writer"),
        RequestError::UserNotFound,
    );
    refused(
        &mut auth,
        &grant_role("alice", "writer"),
        RequestError::RoleNotFound,
    );
    refused(
        &mut auth,
        &revoke_role("bob", "writer"),
        RequestError::UserNotFound,
    );
    refused(
        &mut auth,
        &revoke_role("alice", "writer"),
        RequestError::RoleNotGranted,
    );
}

#[test]
fn roles_are_refused_as_etcd_refuses_them() {
    let mut auth = Auth::default();
    refused(&mut auth, &add_role(""), RequestError::RoleEmpty);
    apply_all(&mut auth, &[add_role("writer")]);
    refused(
        &mut auth,
        &add_role("writer"),
        RequestError::RoleAlreadyExist,
    );
    refused(
        &mut auth,
        &delete_role("reader"),
        RequestError::RoleNotFound,
    );
    refused(
        &mut auth,
        &grant("reader", Type::Read, b"a", b""),
        RequestError::RoleNotFound,
    );
    refused(
        &mut auth,
        &revoke("reader", b"a", b""),
        RequestError::RoleNotFound,
    );
    refused(
        &mut auth,
        &revoke("writer", b"a", b""),
        RequestError::PermissionNotGranted,
    );
    for (key, range_end) in [
        (b"" as &[u8], b"" as &[u8]),
        (b"", b"\0"),
        (b"b", b"a"),
        (b"b", b"b"),
    ] {
        let request = grant("writer", Type::Read, key, range_end);
        refused(&mut auth, &request, RequestError::InvalidAuthMgmt);
    }
    let without = pb::InternalRaftRequest {
        auth_role_grant_permission: Some(pb::AuthRoleGrantPermissionRequest {
            name: "nobody".into(),
            perm: None,
        }),
        ..empty()
    };
    refused(&mut auth, &without, RequestError::PermissionNotGiven);
}

#[test]
fn the_image_holds_what_etcds_would() {
    let mut auth = Auth::default();
    let requests = [
        add_user("bob"),
        add_user_without_password("alice"),
        add_role("writer"),
        add_role("reader"),
        grant_role("bob", "writer"),
        grant_role("bob", "reader"),
        // Not a change.
        grant_role("bob", "reader"),
        grant("writer", Type::Write, b"k", b""),
        grant("writer", Type::Write, b"a", b"\0"),
        grant("writer", Type::Readwrite, b"k", b""),
    ];
    apply_all(&mut auth, &requests);
    let exported = auth.export();
    assert_eq!((exported.enabled, exported.revision), (None, 10));
    let user = |name: &str, password: &'static [u8], roles: &[&str], no_password| User {
        name: name.as_bytes().to_vec().into(),
        password: password.into(),
        roles: roles.iter().map(ToString::to_string).collect(),
        options: Some(UserAddOptions { no_password }),
    };
    let users = [
        user("alice", b"", &[], true),
        user("bob", b"hash", &["reader", "writer"], false),
    ];
    assert_eq!(exported.users, users);
    let writer = Role {
        name: "writer".into(),
        key_permission: vec![
            permission(Type::Write, b"a", b"\0"),
            permission(Type::Readwrite, b"k", b""),
        ],
    };
    assert_eq!(exported.roles[1], writer);
}

#[test]
fn a_deleted_role_leaves_all_users() {
    let mut auth = Auth::default();
    let requests = [
        add_role("reader"),
        add_user("alice"),
        add_user("bob"),
        grant_role("alice", "reader"),
        grant_role("bob", "reader"),
        delete_role("reader"),
    ];
    apply_all(&mut auth, &requests);
    assert!(auth.export().users.iter().all(|user| user.roles.is_empty()));
    assert_eq!(auth.rules().revision(), 7);
}

#[test]
fn the_first_permission_of_a_key_alone_is_replaced() {
    let mut auth = Auth::default();
    let requests = [
        add_role("reader"),
        grant("reader", Type::Read, b"a", b"b"),
        grant("reader", Type::Read, b"a", b"c"),
        grant("reader", Type::Write, b"a", b"c"),
    ];
    apply_all(&mut auth, &requests);
    // As in etcd 3.7.1: the second grant of [a, c) does not find the first one behind [a, b).
    let permissions = [
        permission(Type::Read, b"a", b"b"),
        permission(Type::Read, b"a", b"c"),
        permission(Type::Write, b"a", b"c"),
    ];
    assert_eq!(auth.export().roles[0].key_permission, permissions);
    apply_all(&mut auth, &[revoke("reader", b"a", b"c")]);
    assert_eq!(auth.export().roles[0].key_permission, permissions[..1]);
}

#[test]
fn users_without_password_keep_having_none() {
    let mut auth = Auth::default();
    apply_all(
        &mut auth,
        &[
            add_user_without_password("alice"),
            change_password("alice", HASH),
        ],
    );
    assert_eq!(auth.export().users[0].password, "");
}

#[test]
fn the_role_root_shows_that_it_allows_everything() {
    let mut auth = enabled();
    apply_all(&mut auth, &[add_role("root")]);
    let get = pb::InternalRaftRequest {
        auth_role_get: Some(pb::AuthRoleGetRequest {
            role: "root".into(),
        }),
        ..empty()
    };
    let Ok(Response::RoleGet(response)) = apply(&mut auth, &get) else {
        panic!("the role exists");
    };
    assert_eq!(response.perm, [permission(Type::Readwrite, b"", b"\0")]);
}
