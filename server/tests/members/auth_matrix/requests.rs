//! The messages that the calls of the matrix are made of.

use quorate_proto::authpb::permission::Type;
use quorate_proto::authpb::{Permission, UserAddOptions};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Operation;

/// The password of a user.
pub(crate) fn password(user: &str) -> String {
    format!("password of {user}")
}

pub(super) fn range_request(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

pub(super) fn put_request(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        ..pb::PutRequest::default()
    }
}

pub(super) fn operation(request: Operation) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

pub(super) fn watch_request(key: &str, range_end: &str) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::WatchCreateRequest::default()
    };
    pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    }
}

pub(super) fn compaction(revision: i64) -> pb::CompactionRequest {
    pb::CompactionRequest {
        revision,
        physical: false,
    }
}

pub(super) fn lease_grant(id: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl: 600, id }
}

pub(super) fn lease_revoke(id: i64) -> pb::LeaseRevokeRequest {
    pb::LeaseRevokeRequest { id }
}

pub(super) fn user_add(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest {
        name: name.into(),
        password: password(name),
        ..pb::AuthUserAddRequest::default()
    }
}

pub(super) fn no_password(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest {
        name: name.into(),
        options: Some(UserAddOptions { no_password: true }),
        ..pb::AuthUserAddRequest::default()
    }
}

pub(super) fn user_grant(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest {
        user: user.into(),
        role: role.into(),
    }
}

pub(super) fn role_add(name: &str) -> pb::AuthRoleAddRequest {
    pb::AuthRoleAddRequest { name: name.into() }
}

/// Leave to act on all of `k/`.
pub(super) fn role_grant(role: &str, kind: Type) -> pb::AuthRoleGrantPermissionRequest {
    pb::AuthRoleGrantPermissionRequest {
        name: role.into(),
        perm: Some(Permission {
            perm_type: kind as i32,
            key: "k/".into(),
            range_end: "k0".into(),
        }),
    }
}
