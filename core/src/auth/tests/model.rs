//! Auth against a model that stores plain lists and asks every key.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::auth::rules::Access;

const USERS: [&str; 3] = ["alice", "bob", "root"];
const ROLES: [&str; 3] = ["reader", "root", "writer"];
const KEYS: [&[u8]; 6] = [b"a", b"a\0", b"b", b"ba", b"c", b"\xff"];
const ENDS: [&[u8]; 7] = [b"", b"\0", b"a\0", b"b", b"ba", b"bb", b"d"];

/// (kind, key, range end).
type Grant = (Type, Vec<u8>, Vec<u8>);

#[derive(Clone, Debug, Default)]
struct Model {
    enabled: bool,
    changes: u64,
    users: BTreeMap<String, Vec<String>>,
    roles: BTreeMap<String, Vec<Grant>>,
}

#[derive(Clone, Debug)]
enum Step {
    Enable,
    Disable,
    AddUser(&'static str),
    DeleteUser(&'static str),
    Password(&'static str),
    GrantRole(&'static str, &'static str),
    RevokeRole(&'static str, &'static str),
    AddRole(&'static str),
    DeleteRole(&'static str),
    Grant(&'static str, Type, &'static [u8], &'static [u8]),
    Revoke(&'static str, &'static [u8], &'static [u8]),
    /// Write the image and read it back.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let user = || prop::sample::select(&USERS[..]);
    let role = || prop::sample::select(&ROLES[..]);
    let key = || prop::sample::select(&KEYS[..]);
    let end = || prop::sample::select(&ENDS[..]);
    let kind = prop::sample::select(vec![Type::Read, Type::Write, Type::Readwrite]);
    prop_oneof![
        2 => Just(Step::Enable),
        1 => Just(Step::Disable),
        4 => user().prop_map(Step::AddUser),
        1 => user().prop_map(Step::DeleteUser),
        1 => user().prop_map(Step::Password),
        6 => (user(), role()).prop_map(|(user, role)| Step::GrantRole(user, role)),
        2 => (user(), role()).prop_map(|(user, role)| Step::RevokeRole(user, role)),
        4 => role().prop_map(Step::AddRole),
        1 => role().prop_map(Step::DeleteRole),
        8 => (role(), kind, key(), end()).prop_map(|(role, kind, key, end)| Step::Grant(role, kind, key, end)),
        2 => (role(), key(), end()).prop_map(|(role, key, end)| Step::Revoke(role, key, end)),
        1 => Just(Step::Restart),
    ]
}

impl Step {
    fn request(&self) -> pb::InternalRaftRequest {
        match *self {
            Self::Enable => enable(),
            Self::Disable => disable(),
            Self::AddUser(user) => add_user(user),
            Self::DeleteUser(user) => delete_user(user),
            Self::Password(user) => change_password(user, HASH),
            Self::GrantRole(user, role) => grant_role(user, role),
            Self::RevokeRole(user, role) => revoke_role(user, role),
            Self::AddRole(role) => add_role(role),
            Self::DeleteRole(role) => delete_role(role),
            Self::Grant(role, kind, key, end) => grant(role, kind, key, end),
            Self::Revoke(role, key, end) => revoke(role, key, end),
            Self::Restart => empty(),
        }
    }
}

impl Model {
    /// The user's roles.
    fn roles_of(&mut self, user: &str) -> Result<&mut Vec<String>, RequestError> {
        self.users.get_mut(user).ok_or(RequestError::UserNotFound)
    }

    fn grants_of(&mut self, role: &str) -> Result<&mut Vec<Grant>, RequestError> {
        self.roles.get_mut(role).ok_or(RequestError::RoleNotFound)
    }

    fn apply(&mut self, step: &Step) -> Result<(), RequestError> {
        let changed = self.change(step)?;
        self.changes += u64::from(changed);
        Ok(())
    }

    /// Whether the auth revision grows.
    fn change(&mut self, step: &Step) -> Result<bool, RequestError> {
        let protected = |user: &str, role: &str| user == "root" && role == "root";
        match *step {
            Step::Enable if self.enabled => return Ok(false),
            Step::Enable => {
                let roles = self
                    .users
                    .get("root")
                    .ok_or(RequestError::RootUserNotExist)?;
                if !roles.iter().any(|role| role == "root") {
                    return Err(RequestError::RootRoleNotExist);
                }
                self.enabled = true;
                return Ok(false);
            }
            Step::Disable => return Ok(std::mem::take(&mut self.enabled)),
            Step::AddUser(user) if self.users.contains_key(user) => {
                return Err(RequestError::UserAlreadyExist);
            }
            Step::AddUser(user) => drop(self.users.insert(user.into(), Vec::new())),
            Step::DeleteUser("root") | Step::DeleteRole("root") if self.enabled => {
                return Err(RequestError::InvalidAuthMgmt);
            }
            Step::DeleteUser(user) => {
                self.users.remove(user).ok_or(RequestError::UserNotFound)?;
            }
            Step::Password(user) => drop(self.roles_of(user)?),
            Step::GrantRole(user, role) => {
                let exists = role == "root" || self.roles.contains_key(role);
                let roles = self.roles_of(user)?;
                if !exists {
                    return Err(RequestError::RoleNotFound);
                }
                if roles.iter().any(|known| known == role) {
                    return Ok(false);
                }
                roles.push(role.into());
            }
            Step::RevokeRole(user, role) if self.enabled && protected(user, role) => {
                return Err(RequestError::InvalidAuthMgmt);
            }
            Step::RevokeRole(user, role) => {
                let roles = self.roles_of(user)?;
                let at = roles.iter().position(|known| known == role);
                roles.remove(at.ok_or(RequestError::RoleNotGranted)?);
            }
            Step::AddRole(role) if self.roles.contains_key(role) => {
                return Err(RequestError::RoleAlreadyExist);
            }
            Step::AddRole(role) => drop(self.roles.insert(role.into(), Vec::new())),
            Step::DeleteRole(role) => {
                self.roles.remove(role).ok_or(RequestError::RoleNotFound)?;
                for roles in self.users.values_mut() {
                    roles.retain(|known| known != role);
                }
            }
            Step::Grant(role, kind, key, end) => {
                if !end.is_empty() && end != b"\0" && end <= key {
                    return Err(RequestError::InvalidAuthMgmt);
                }
                let grants = self.grants_of(role)?;
                // Which of several grants of one key is first is etcd's quirk, tested by itself.
                grants.retain(|(_, known, known_end)| known != key || known_end != end);
                grants.push((kind, key.into(), end.into()));
            }
            Step::Revoke(role, key, end) => {
                let grants = self.grants_of(role)?;
                let before = grants.len();
                grants.retain(|(_, known, known_end)| known != key || known_end != end);
                if grants.len() == before {
                    return Err(RequestError::PermissionNotGranted);
                }
            }
            Step::Restart => return Ok(false),
        }
        Ok(true)
    }

    fn may(&self, user: &str, key: &[u8], access: Access) -> bool {
        let fits = |kind: Type| match access {
            Access::Read => kind != Type::Write,
            Access::Write => kind != Type::Read,
        };
        let Some(roles) = self.users.get(user) else {
            return false;
        };
        let covers = |(kind, first, end): &Grant| {
            fits(*kind)
                && match &end[..] {
                    b"" => key == first,
                    b"\0" => key >= &first[..],
                    _ => key >= &first[..] && key < &end[..],
                }
        };
        roles.iter().any(|role| role == "root")
            || roles
                .iter()
                .filter_map(|role| self.roles.get(role))
                .flatten()
                .any(covers)
    }

    /// A range is covered if its first key is, and every key at which some permission could end.
    fn may_all(&self, user: &str, key: &[u8], end: &[u8], access: Access) -> bool {
        let is_open = end == b"\0";
        let inside = |at: &[u8]| at > key && (is_open || at < end);
        let grants = self.roles.values().flatten();
        let ends = grants.map(|(_, first, end)| match &end[..] {
            b"" => [&first[..], b"\0"].concat(),
            _ => end.clone(),
        });
        self.may(user, key, access)
            && ends
                .filter(|at| inside(at))
                .all(|at| self.may(user, &at, access))
    }
}

/// Grants of one key with several ends are etcd's quirk: the model would not know which of them counts.
fn is_ambiguous(model: &Model, step: &Step) -> bool {
    let Step::Grant(role, _, key, end) = step else {
        return false;
    };
    let grants = model.roles.get(*role).into_iter().flatten();
    grants
        .into_iter()
        .any(|(_, known, known_end)| known == key && known_end != end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn auth_decides_as_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let (mut auth, mut model) = (Auth::default(), Model::default());
        for step in steps.iter().filter(|step| !matches!(step, Step::Restart)) {
            if is_ambiguous(&model, step) {
                continue;
            }
            let expected = model.apply(step);
            let answer = apply(&mut auth, &step.request()).map(|_| ());
            prop_assert_eq!(answer, expected, "{:?}", step);
            prop_assert_eq!(auth.rules().revision(), 1 + model.changes);
            prop_assert_eq!(auth.rules().is_enabled(), model.enabled);
        }
        for (user, access) in USERS.iter().flat_map(|user| [(user, Access::Read), (user, Access::Write)]) {
            for (key, end) in KEYS.iter().flat_map(|key| ENDS.iter().map(move |end| (*key, *end))) {
                let expected = !model.enabled || if end.is_empty() || (end <= key && end != b"\0") {
                    model.may(user, key, access)
                } else {
                    model.may_all(user, key, end, access)
                };
                let permitted = auth.rules().permit(&who(&auth, user), key, end, access).is_ok();
                prop_assert_eq!(permitted, expected, "{} {:?} {:?} {:?}", user, access, key, end);
            }
        }
    }

    /// Two members, one of which is restarted from its image at any time, hold the same at every entry.
    #[test]
    fn a_member_restored_from_its_image_goes_on_like_the_others(steps in prop::collection::vec(step(), 1..60)) {
        let (mut steady, mut restarted) = (Auth::default(), Auth::default());
        for step in &steps {
            if matches!(step, Step::Restart) {
                restarted = Auth::restore(restarted.export());
                restarted.check();
                continue;
            }
            prop_assert_eq!(apply(&mut steady, &step.request()), apply(&mut restarted, &step.request()));
            prop_assert_eq!(steady.rules(), restarted.rules());
            prop_assert_eq!(steady.export(), restarted.export());
        }
    }
}
