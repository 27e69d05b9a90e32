//! The rules at one moment: users, roles, and the questions that can be asked of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::authpb::permission::Type;
use quorate_proto::authpb::{Permission, Role, User};

use super::ROOT;
use super::ranges::Ranges;
use crate::checkpoint::AuthContents;
use crate::error::RequestError;

/// Who asks, and the auth revision that its credentials were looked at. The default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: String,
    /// The auth revision; 0 is nobody's.
    pub revision: u64,
}

/// The rules at one moment; never changed, only replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// `None` until auth is switched for the first time: the image then has no such key.
    pub(super) enabled: Option<bool>,
    pub(super) revision: u64,
    pub(super) users: BTreeMap<Bytes, Arc<Account>>,
    pub(super) roles: BTreeMap<Bytes, Arc<Role>>,
}

/// A user, and what its roles come to.
#[derive(Debug, PartialEq)]
pub(super) struct Account {
    pub(super) user: User,
    reads: Ranges,
    writes: Ranges,
}

/// What somebody wants to do to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Rules {
    pub(super) fn restore(contents: AuthContents) -> Self {
        let AuthContents {
            enabled,
            revision,
            users,
            roles,
        } = contents;
        let mut rules = Self {
            enabled,
            revision,
            users: BTreeMap::new(),
            roles: roles
                .into_iter()
                .map(|role| (role.name.clone(), Arc::new(role)))
                .collect(),
        };
        for user in users {
            rules.put_user(user);
        }
        rules
    }

    pub(super) fn export(&self) -> AuthContents {
        AuthContents {
            enabled: self.enabled,
            revision: self.revision,
            users: self
                .users
                .values()
                .map(|account| account.user.clone())
                .collect(),
            roles: self.roles.values().map(|role| (**role).clone()).collect(),
        }
    }

    /// Whether auth is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled == Some(true)
    }

    /// Grows with each change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A user as it is stored.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name.as_bytes()).map(|account| &account.user)
    }

    /// Whether the user may administer.
    pub fn permit_admin(&self, who: &Identity) -> Result<(), RequestError> {
        if !self.is_enabled() {
            return Ok(());
        }
        if who.user.is_empty() {
            return Err(RequestError::UserEmpty);
        }
        let user = self.user(&who.user).ok_or(RequestError::UserNotFound)?;
        if has_role(user, ROOT) {
            Ok(())
        } else {
            Err(RequestError::PermissionDenied)
        }
    }

    /// Whether the user may read a range; no end means the single key.
    pub fn permit_range(
        &self,
        who: &Identity,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), RequestError> {
        self.permit(who, key, range_end, Access::Read)
    }

    pub(super) fn permit(
        &self,
        who: &Identity,
        key: &[u8],
        range_end: &[u8],
        access: Access,
    ) -> Result<(), RequestError> {
        if !self.is_enabled() {
            return Ok(());
        }
        if who.revision == 0 {
            return Err(RequestError::UserEmpty);
        }
        if who.revision < self.revision {
            return Err(RequestError::AuthOldRevision);
        }
        let account = self
            .users
            .get(who.user.as_bytes())
            .ok_or(RequestError::PermissionDenied)?;
        let ranges = match access {
            Access::Read => &account.reads,
            Access::Write => &account.writes,
        };
        if has_role(&account.user, ROOT) || ranges.cover(key, range_end) {
            Ok(())
        } else {
            Err(RequestError::PermissionDenied)
        }
    }

    /// Stores a user, with what its roles allow now.
    pub(super) fn put_user(&mut self, user: User) {
        let account = Account::new(user, &self.roles);
        self.users
            .insert(account.user.name.clone(), Arc::new(account));
    }

    /// Stores a role, and looks again at those who have it.
    pub(super) fn put_role(&mut self, role: Role) {
        let name = role.name.clone();
        self.roles.insert(name.clone(), Arc::new(role));
        for user in self.users_with(&name) {
            self.put_user(user);
        }
    }

    pub(super) fn users_with(&self, role: &[u8]) -> Vec<User> {
        let has = |user: &User| user.roles.iter().any(|name| name.as_bytes() == role);
        self.users
            .values()
            .filter(|account| has(&account.user))
            .map(|account| account.user.clone())
            .collect()
    }

    /// Checks every invariant; panics with the name of the one that does not hold.
    pub fn check(&self) {
        for (name, account) in &self.users {
            assert_eq!(*name, account.user.name, "users_are_stored_by_name");
            let fresh = Account::new(account.user.clone(), &self.roles);
            assert_eq!(fresh, **account, "merged_permissions_follow_from_the_roles");
        }
        for (name, role) in &self.roles {
            assert_eq!(*name, role.name, "roles_are_stored_by_name");
        }
        if self.is_enabled() {
            assert!(
                self.user(ROOT).is_some_and(|root| has_role(root, ROOT)),
                "root_can_always_log_in_while_auth_is_on"
            );
        }
    }
}

impl Account {
    /// Roles that do not exist allow nothing; etcd lets a user have the role root before that is made.
    fn new(user: User, roles: &BTreeMap<Bytes, Arc<Role>>) -> Self {
        let permissions: Vec<&Permission> = user
            .roles
            .iter()
            .filter_map(|name| roles.get(name.as_bytes()))
            .flat_map(|role| &role.key_permission)
            .collect();
        let allows = |wanted: Type| {
            let fits = move |permission: &&&Permission| match Type::try_from(permission.perm_type) {
                Ok(kind) => kind == wanted || kind == Type::Readwrite,
                Err(_) => false,
            };
            Ranges::union(permissions.iter().filter(fits).copied())
        };
        Self {
            reads: allows(Type::Read),
            writes: allows(Type::Write),
            user,
        }
    }
}

/// Whether a user has a role; its roles are sorted.
pub(super) fn has_role(user: &User, role: &str) -> bool {
    user.roles
        .binary_search_by(|name| name.as_str().cmp(role))
        .is_ok()
}
