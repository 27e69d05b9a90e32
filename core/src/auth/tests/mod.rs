//! Properties of auth, each by its name.

mod changes;
mod model;
mod permissions;

use quorate_proto::authpb::permission::Type;
use quorate_proto::authpb::{Permission, UserAddOptions};
use quorate_proto::etcdserverpb as pb;

use super::{Auth, Identity, TokenChange};
use crate::boundary::Response;
use crate::error::RequestError;
use crate::types::Index;

/// base64 of "hash".
const HASH: &str = "aGFzaA==";

fn empty() -> pb::InternalRaftRequest {
    pb::InternalRaftRequest::default()
}

fn enable() -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        auth_enable: Some(pb::AuthEnableRequest {}),
        ..empty()
    }
}

fn disable() -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        auth_disable: Some(pb::AuthDisableRequest {}),
        ..empty()
    }
}

fn add_user(name: &str) -> pb::InternalRaftRequest {
    let add = pb::AuthUserAddRequest {
        name: name.into(),
        hashed_password: HASH.into(),
        ..pb::AuthUserAddRequest::default()
    };
    pb::InternalRaftRequest {
        auth_user_add: Some(add),
        ..empty()
    }
}

fn add_user_without_password(name: &str) -> pb::InternalRaftRequest {
    let add = pb::AuthUserAddRequest {
        name: name.into(),
        options: Some(UserAddOptions { no_password: true }),
        ..pb::AuthUserAddRequest::default()
    };
    pb::InternalRaftRequest {
        auth_user_add: Some(add),
        ..empty()
    }
}

fn delete_user(name: &str) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        auth_user_delete: Some(pb::AuthUserDeleteRequest { name: name.into() }),
        ..empty()
    }
}

fn change_password(name: &str, hashed_password: &str) -> pb::InternalRaftRequest {
    let change = pb::AuthUserChangePasswordRequest {
        name: name.into(),
        hashed_password: hashed_password.into(),
        ..pb::AuthUserChangePasswordRequest::default()
    };
    pb::InternalRaftRequest {
        auth_user_change_password: Some(change),
        ..empty()
    }
}

fn grant_role(user: &str, role: &str) -> pb::InternalRaftRequest {
    let grant = pb::AuthUserGrantRoleRequest {
        user: user.into(),
        role: role.into(),
    };
    pb::InternalRaftRequest {
        auth_user_grant_role: Some(grant),
        ..empty()
    }
}

fn revoke_role(name: &str, role: &str) -> pb::InternalRaftRequest {
    let revoke = pb::AuthUserRevokeRoleRequest {
        name: name.into(),
        role: role.into(),
    };
    pb::InternalRaftRequest {
        auth_user_revoke_role: Some(revoke),
        ..empty()
    }
}

fn add_role(name: &str) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        auth_role_add: Some(pb::AuthRoleAddRequest { name: name.into() }),
        ..empty()
    }
}

fn delete_role(role: &str) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        auth_role_delete: Some(pb::AuthRoleDeleteRequest { role: role.into() }),
        ..empty()
    }
}

fn permission(kind: Type, key: &[u8], range_end: &[u8]) -> Permission {
    Permission {
        perm_type: kind as i32,
        key: key.to_vec().into(),
        range_end: range_end.to_vec().into(),
    }
}

fn grant(role: &str, kind: Type, key: &[u8], range_end: &[u8]) -> pb::InternalRaftRequest {
    let grant = pb::AuthRoleGrantPermissionRequest {
        name: role.into(),
        perm: Some(permission(kind, key, range_end)),
    };
    pb::InternalRaftRequest {
        auth_role_grant_permission: Some(grant),
        ..empty()
    }
}

fn revoke(role: &str, key: &[u8], range_end: &[u8]) -> pb::InternalRaftRequest {
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: role.into(),
        key: key.to_vec().into(),
        range_end: range_end.to_vec().into(),
    };
    pb::InternalRaftRequest {
        auth_role_revoke_permission: Some(revoke),
        ..empty()
    }
}

fn login(name: &str, simple_token: &str) -> pb::InternalRaftRequest {
    let authenticate = pb::InternalAuthenticateRequest {
        name: name.into(),
        simple_token: simple_token.into(),
        ..pb::InternalAuthenticateRequest::default()
    };
    pb::InternalRaftRequest {
        authenticate: Some(authenticate),
        ..empty()
    }
}

/// Applies a request that only auth knows.
fn apply(auth: &mut Auth, request: &pb::InternalRaftRequest) -> Result<Response, RequestError> {
    let applied = auth
        .apply(Index(28), pb::ResponseHeader::default(), request)
        .expect("a request of auth");
    auth.check();
    applied
}

/// The same, whose answer is known.
fn apply_all(auth: &mut Auth, requests: &[pb::InternalRaftRequest]) {
    for request in requests {
        apply(auth, request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }
}

fn who(auth: &Auth, user: &str) -> Identity {
    Identity {
        user: user.into(),
        revision: auth.rules().revision(),
    }
}

/// Auth that is on, with root.
fn enabled() -> Auth {
    let mut auth = Auth::default();
    apply_all(
        &mut auth,
        &[add_user("root"), grant_role("root", "root"), enable()],
    );
    auth
}

#[test]
fn logins_are_good_until_the_user_changes_or_auth_is_off() {
    let mut auth = enabled();
    apply_all(
        &mut auth,
        &[add_user("alice"), login("alice", "abcdefghijklmnop")],
    );
    let assigned = TokenChange::Assigned {
        token: "abcdefghijklmnop.27".into(),
        user: "alice".into(),
    };
    assert_eq!(auth.take_token_changes(), [assigned]);
    let changes = [
        change_password("alice", HASH),
        delete_user("alice"),
        disable(),
    ];
    apply_all(&mut auth, &changes);
    let voided = TokenChange::UserChanged("alice".into());
    assert_eq!(
        auth.take_token_changes(),
        [voided.clone(), voided, TokenChange::AllVoid]
    );
}

#[test]
fn a_login_without_a_random_part_makes_no_token_that_could_be_guessed() {
    let mut auth = enabled();
    apply_all(&mut auth, &[login("root", "")]);
    assert_eq!(auth.take_token_changes(), []);
}

#[test]
fn logins_are_refused_to_strangers_to_users_without_password_and_while_auth_is_off() {
    let mut auth = Auth::default();
    assert_eq!(
        apply(&mut auth, &login("root", "x")),
        Err(RequestError::AuthNotEnabled)
    );
    let mut auth = enabled();
    apply_all(&mut auth, &[add_user_without_password("machine")]);
    for name in ["machine", "nobody", ""] {
        assert_eq!(
            apply(&mut auth, &login(name, "x")),
            Err(RequestError::AuthFailed)
        );
    }
    assert_eq!(auth.take_token_changes(), []);
}

#[test]
fn readers_see_a_change_as_soon_as_it_is_applied() {
    let mut auth = Auth::default();
    let view = auth.view();
    assert!(!view.is_enabled());
    apply_all(&mut auth, &[add_user("root"), grant_role("root", "root")]);
    assert_eq!(view.rules().revision(), 3);
    apply_all(&mut auth, &[enable()]);
    assert!(view.is_enabled());
    let other = enabled();
    auth.replace(other.export());
    auth.check();
    assert_eq!(view.rules().export(), other.export());
}
