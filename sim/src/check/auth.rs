//! Auth: who may do what is a function of the applied index, and decided as the model decides it.
//!
//! Entries are judged by their results, like all others. Here are the decisions that each member takes by itself, and the
//! rules that it keeps.

use quorate_core::auth::{Identity, Rules};
use quorate_core::checkpoint::AuthContents;
use quorate_core::error::RequestError;
use quorate_core::types::MemberId;

use super::{Facts, Violation};
use crate::model::{Auth, Who};

/// Whether an error is a decision about users.
pub fn is_decision(error: &RequestError) -> bool {
    use RequestError as Error;
    matches!(
        error,
        Error::UserEmpty
            | Error::UserNotFound
            | Error::UserAlreadyExist
            | Error::RoleEmpty
            | Error::RoleNotFound
            | Error::RoleAlreadyExist
            | Error::RoleNotGranted
            | Error::RootUserNotExist
            | Error::RootRoleNotExist
            | Error::PermissionNotGiven
            | Error::PermissionNotGranted
            | Error::PermissionDenied
            | Error::InvalidAuthMgmt
            | Error::AuthOldRevision
    )
}

/// A member that goes by `rules` has decided whether somebody may read a range.
pub fn check_read(
    facts: &mut Facts,
    member: MemberId,
    (rules, expected): (&Rules, &Auth),
    who: &Identity,
    (key, end): (&[u8], &[u8]),
) -> Result<Result<(), RequestError>, Violation> {
    let asks = Who {
        user: &who.user,
        revision: who.revision,
    };
    let decided = rules.permit_range(who, key, end);
    let wanted = expected.permits(asks, key, end, false);
    facts.expect("auth.decision", decided == wanted, || {
        format!(
            "{member:?} says {decided:?} to {who:?} about {key:?}..{end:?}, expected {wanted:?}"
        )
    })?;
    Ok(decided)
}

/// The switch and the revision that a member goes by.
pub fn check_rules(
    facts: &mut Facts,
    member: MemberId,
    rules: &Rules,
    expected: &Auth,
) -> Result<(), Violation> {
    let found = (rules.is_enabled(), rules.revision());
    let wanted = (expected.enabled, expected.revision);
    facts.expect("auth.decision", found == wanted, || {
        format!("{member:?} has auth (on, revision) {found:?}, expected {wanted:?}")
    })
}

/// Users and roles in an image.
pub fn check_stored(
    facts: &mut Facts,
    member: MemberId,
    index: u64,
    stored: &AuthContents,
    expected: &Auth,
) -> Result<(), Violation> {
    facts.expect("auth.stored", expected.is_in(stored), || {
        format!("the image of {member:?} at {index} has {stored:?}, expected {expected:?}")
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_core::auth::Auth as Store;
    use quorate_proto::authpb::{Permission, Role, User};
    use quorate_proto::etcdserverpb as pb;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::model::Model;

    /// Auth on; ann may read the key `a`.
    fn expected() -> Model {
        let mut model = Model::new(1);
        let user = |name: &str| pb::InternalRaftRequest {
            auth_user_add: Some(pb::AuthUserAddRequest {
                name: name.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let grant = |user: &str, role: &str| pb::InternalRaftRequest {
            auth_user_grant_role: Some(pb::AuthUserGrantRoleRequest {
                user: user.to_owned(),
                role: role.to_owned(),
            }),
            ..Default::default()
        };
        let role = pb::InternalRaftRequest {
            auth_role_add: Some(pb::AuthRoleAddRequest {
                name: "reader".to_owned(),
            }),
            ..Default::default()
        };
        let permission = pb::InternalRaftRequest {
            auth_role_grant_permission: Some(pb::AuthRoleGrantPermissionRequest {
                name: "reader".to_owned(),
                perm: Some(reads("a")),
            }),
            ..Default::default()
        };
        let enable = pb::InternalRaftRequest {
            auth_enable: Some(pb::AuthEnableRequest {}),
            ..Default::default()
        };
        let requests = [
            user("root"),
            user("ann"),
            grant("root", "root"),
            role,
            permission,
            grant("ann", "reader"),
            enable,
        ];
        for (index, request) in (1..).zip(requests) {
            let entry = Entry::normal(1, index, request.encode_to_vec().into());
            let (_, applied) = model.apply(&entry).expect("a request");
            applied.expect("it is allowed");
        }
        model
    }

    fn reads(key: &'static str) -> Permission {
        Permission {
            perm_type: 0,
            key: key.into(),
            range_end: "".into(),
        }
    }

    fn contents(key: &'static str) -> AuthContents {
        let user = |name: &'static str, role: &str| User {
            name: name.into(),
            roles: vec![role.to_owned()],
            ..User::default()
        };
        AuthContents {
            enabled: Some(true),
            revision: 7,
            users: vec![user("ann", "reader"), user("root", "root")],
            roles: vec![Role {
                name: "reader".into(),
                key_permission: vec![reads(key)],
            }],
        }
    }

    const A: MemberId = MemberId(1);

    #[test]
    fn a_member_that_decides_otherwise_is_seen() {
        let model = expected();
        let ann = Identity {
            user: "ann".to_owned(),
            revision: 7,
        };
        let decide = |contents: AuthContents| {
            let store = Store::restore(contents);
            let rules = (store.rules(), model.auth_at(7));
            check_read(&mut Facts::new(), A, rules, &ann, (b"a", b""))
        };
        assert_eq!(decide(contents("a")), Ok(Ok(())));
        assert_eq!(decide(contents("b")).unwrap_err().property, "auth.decision");
        let before = model.auth_at(6);
        assert!(!before.enabled && model.auth_at(7).enabled);
        let store = Store::restore(contents("a"));
        let mut facts = Facts::new();
        check_rules(&mut facts, A, store.rules(), model.auth_at(7)).unwrap();
        let early = check_rules(&mut facts, A, store.rules(), before);
        assert_eq!(early.unwrap_err().property, "auth.decision");
    }

    #[test]
    fn an_image_with_other_rules_is_seen() {
        let model = expected();
        let check = |contents: &AuthContents| {
            check_stored(&mut Facts::new(), A, 7, contents, model.auth_at(7)).is_ok()
        };
        assert!(check(&contents("a")));
        assert!(!check(&contents("b")), "another permission");
        let without_users = AuthContents {
            users: Vec::new(),
            ..contents("a")
        };
        assert!(!check(&without_users));
    }
}
