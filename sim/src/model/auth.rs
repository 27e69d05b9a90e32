//! Users, roles and the switch of the plain model, as etcd documents them: what a request may do, asked in the order in
//! which etcd asks, since that decides the error. Nothing is merged or remembered; each question looks through all
//! permissions of all roles of the user.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::boundary::Response;
use quorate_core::checkpoint::AuthContents;
use quorate_core::error::RequestError;
use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use super::{Applied, header};

/// Who may do everything, and the role that lets it.
const ROOT: &str = "root";

/// The rules after some entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Whether anybody looks.
    pub enabled: bool,
    /// Grows with each change but the switching on.
    pub revision: u64,
    users: BTreeMap<String, BTreeSet<String>>,
    roles: BTreeMap<String, Vec<Permission>>,
}

/// Who asks, and the auth revision at which its credentials were looked at.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The user; empty for nobody.
    pub user: &'a str,
    /// The revision; 0 for nobody.
    pub revision: u64,
}

/// Leases with their keys.
type Leases = BTreeMap<i64, BTreeSet<Bytes>>;
type Permitted = Result<(), RequestError>;

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl Auth {
    /// Whether somebody may read or write the keys of a range, or a key if there is no end.
    pub fn permits(&self, who: Who<'_>, key: &[u8], end: &[u8], writes: bool) -> Permitted {
        if !self.enabled {
            return Ok(());
        }
        if who.revision == 0 {
            return Err(RequestError::UserEmpty);
        }
        if who.revision < self.revision {
            return Err(RequestError::AuthOldRevision);
        }
        let roles = self.users.get(who.user);
        let roles = roles.ok_or(RequestError::PermissionDenied)?;
        if roles.contains(ROOT) || self.covers(roles, key, end, writes) {
            return Ok(());
        }
        Err(RequestError::PermissionDenied)
    }

    /// Goes from the first key on from permission to permission, as far as they reach.
    fn covers(&self, roles: &BTreeSet<String>, key: &[u8], end: &[u8], writes: bool) -> bool {
        let allows = |permission: &&Permission| {
            let kind = permission.perm_type();
            kind == Type::Readwrite || (kind == Type::Write) == writes
        };
        let granted: Vec<_> = roles
            .iter()
            .filter_map(|role| self.roles.get(role))
            .flatten()
            .filter(allows)
            .map(|permission| (&permission.key[..], after(permission)))
            .collect();
        let mut at = key.to_vec();
        loop {
            let here = granted
                .iter()
                .filter(|(begin, end)| !begin.is_empty() && *begin <= &at[..] && reaches(end, &at));
            // Without an end is further than any.
            let Some((_, furthest)) = here.max_by_key(|(_, end)| (end.is_none(), end.clone()))
            else {
                return false;
            };
            let Some(furthest) = furthest else {
                return true;
            };
            // No end is a single key; one before the first key holds nothing, and the first key decides.
            if end != b"\0" && (end.is_empty() || end <= &furthest[..]) {
                return true;
            }
            at.clone_from(furthest);
        }
    }

    /// Whether somebody may change users and roles.
    fn permits_admin(&self, who: Who<'_>) -> Permitted {
        if !self.enabled {
            return Ok(());
        }
        if who.user.is_empty() {
            return Err(RequestError::UserEmpty);
        }
        let roles = self.users.get(who.user);
        let roles = roles.ok_or(RequestError::UserNotFound)?;
        match roles.contains(ROOT) {
            true => Ok(()),
            false => Err(RequestError::PermissionDenied),
        }
    }

    /// Whether an entry may be carried out.
    pub(super) fn check(&self, request: &pb::InternalRaftRequest, leases: &Leases) -> Permitted {
        if !self.enabled {
            return Ok(());
        }
        let header = request.header.as_ref();
        let who = Who {
            user: header.map_or("", |header| &header.username),
            revision: header.map_or(0, |header| header.auth_revision),
        };
        if is_administration(request) {
            return self.permits_admin(who);
        }
        if let Some(put) = &request.put {
            return self.check_put(who, put, leases);
        }
        if let Some(delete) = &request.delete_range {
            self.permits(who, &delete.key, &delete.range_end, true)?;
            return self.check_previous(who, delete);
        }
        if let Some(txn) = &request.txn {
            return self.check_txn(who, txn, leases);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.check_lease(who, revoke.id, leases);
        }
        match &request.auth_user_get {
            Some(get) if get.name != who.user => self.permits_admin(who),
            _ => Ok(()),
        }
    }

    fn check_put(&self, who: Who<'_>, put: &pb::PutRequest, leases: &Leases) -> Permitted {
        self.permits(who, &put.key, b"", true)?;
        self.check_lease(who, put.lease, leases)?;
        match put.prev_kv {
            true => self.permits(who, &put.key, b"", false),
            false => Ok(()),
        }
    }

    /// Whoever lets a lease end deletes its keys.
    fn check_lease(&self, who: Who<'_>, lease: i64, leases: &Leases) -> Permitted {
        if self.permits_admin(who).is_ok() {
            return Ok(());
        }
        let mut keys = leases.get(&lease).into_iter().flatten();
        keys.try_for_each(|key| self.permits(who, key, b"", true))
    }

    fn check_previous(&self, who: Who<'_>, delete: &pb::DeleteRangeRequest) -> Permitted {
        match delete.prev_kv {
            true => self.permits(who, &delete.key, &delete.range_end, false),
            false => Ok(()),
        }
    }

    fn check_txn(&self, who: Who<'_>, txn: &pb::TxnRequest, leases: &Leases) -> Permitted {
        for compare in &txn.compare {
            self.permits(who, &compare.key, &compare.range_end, false)?;
        }
        let operations = txn.success.iter().chain(&txn.failure);
        for operation in operations.filter_map(|it| it.request.as_ref()) {
            match operation {
                Request::RequestRange(range) => {
                    self.permits(who, &range.key, &range.range_end, false)?;
                }
                Request::RequestPut(put) => self.check_put(who, put, leases)?,
                Request::RequestDeleteRange(delete) => {
                    self.check_previous(who, delete)?;
                    self.permits(who, &delete.key, &delete.range_end, true)?;
                }
                Request::RequestTxn(txn) => self.check_txn(who, txn, leases)?,
            }
        }
        Ok(())
    }

    /// Whether a request is one about users, roles or the switch.
    pub fn concerns(request: &pb::InternalRaftRequest) -> bool {
        is_administration(request) || request.auth_user_get.is_some()
    }

    /// Carries out what concerns users, roles and the switch; `None` for everything else.
    pub(super) fn apply(
        &mut self,
        request: &pb::InternalRaftRequest,
        revision: i64,
    ) -> Option<Applied> {
        let head = header(revision);
        if let Some(get) = &request.auth_user_get {
            let roles = self.users.get(&get.name).ok_or(RequestError::UserNotFound);
            let answer = |roles: &BTreeSet<String>| pb::AuthUserGetResponse {
                header: Some(head),
                roles: roles.iter().cloned().collect(),
            };
            return Some(roles.map(answer).map(Response::UserGet));
        }
        if request.auth_enable.is_some() {
            return Some(self.enable().map(|()| Response::AuthChanged(head)));
        }
        let changed = self.change(request)?;
        if changed == Ok(true) {
            self.revision += 1;
        }
        Some(changed.map(|_| Response::AuthChanged(head)))
    }

    fn enable(&mut self) -> Permitted {
        if !self.enabled {
            let root = self.users.get(ROOT).ok_or(RequestError::RootUserNotExist)?;
            if !root.contains(ROOT) {
                return Err(RequestError::RootRoleNotExist);
            }
            self.enabled = true;
        }
        Ok(())
    }

    /// Whether anything has changed.
    fn change(&mut self, request: &pb::InternalRaftRequest) -> Option<Result<bool, RequestError>> {
        if request.auth_disable.is_some() {
            return Some(Ok(std::mem::take(&mut self.enabled)));
        }
        if let Some(add) = &request.auth_user_add {
            return Some(add_new(
                &mut self.users,
                &add.name,
                (RequestError::UserEmpty, RequestError::UserAlreadyExist),
            ));
        }
        if let Some(add) = &request.auth_role_add {
            return Some(add_new(
                &mut self.roles,
                &add.name,
                (RequestError::RoleEmpty, RequestError::RoleAlreadyExist),
            ));
        }
        if let Some(delete) = &request.auth_user_delete {
            return Some(self.delete_user(&delete.name));
        }
        if let Some(delete) = &request.auth_role_delete {
            return Some(self.delete_role(&delete.role));
        }
        if let Some(grant) = &request.auth_user_grant_role {
            return Some(self.grant_role(&grant.user, &grant.role));
        }
        if let Some(revoke) = &request.auth_user_revoke_role {
            return Some(self.revoke_role(&revoke.name, &revoke.role));
        }
        if let Some(grant) = &request.auth_role_grant_permission {
            return Some(self.grant_permission(grant));
        }
        let revoke = request.auth_role_revoke_permission.as_ref()?;
        Some(self.revoke_permission(revoke))
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, RequestError> {
        if self.enabled && name == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let gone = self.users.remove(name);
        gone.map(|_| true).ok_or(RequestError::UserNotFound)
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, RequestError> {
        if self.enabled && name == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(RequestError::RoleNotFound)?;
        for roles in self.users.values_mut() {
            roles.remove(name);
        }
        Ok(true)
    }

    /// The role root is there without having been made.
    fn grant_role(&mut self, user: &str, role: &str) -> Result<bool, RequestError> {
        let roles = self.users.get_mut(user);
        let roles = roles.ok_or(RequestError::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(RequestError::RoleNotFound);
        }
        Ok(roles.insert(role.to_owned()))
    }

    fn revoke_role(&mut self, user: &str, role: &str) -> Result<bool, RequestError> {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let roles = self.users.get_mut(user);
        let roles = roles.ok_or(RequestError::UserNotFound)?;
        let had = roles.remove(role);
        had.then_some(true).ok_or(RequestError::RoleNotGranted)
    }

    /// Of several permissions that begin at a key, only the first is ever changed; another one is added after them.
    fn grant_permission(
        &mut self,
        grant: &pb::AuthRoleGrantPermissionRequest,
    ) -> Result<bool, RequestError> {
        let wanted = grant.perm.clone();
        let wanted = wanted.ok_or(RequestError::PermissionNotGiven)?;
        let is_range = wanted.range_end.is_empty()
            || &wanted.range_end[..] == b"\0"
            || wanted.key < wanted.range_end;
        if wanted.key.is_empty() || !is_range {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let known = self.roles.get_mut(&grant.name);
        let known = known.ok_or(RequestError::RoleNotFound)?;
        let first = known.iter_mut().find(|it| it.key == wanted.key);
        match first.filter(|it| it.range_end == wanted.range_end) {
            Some(same) => same.perm_type = wanted.perm_type,
            None => {
                known.push(wanted);
                known.sort_by(|one, two| one.key.cmp(&two.key));
            }
        }
        Ok(true)
    }

    fn revoke_permission(
        &mut self,
        revoke: &pb::AuthRoleRevokePermissionRequest,
    ) -> Result<bool, RequestError> {
        let known = self.roles.get_mut(&revoke.role);
        let known = known.ok_or(RequestError::RoleNotFound)?;
        let before = known.len();
        known.retain(|it| (&it.key, &it.range_end) != (&revoke.key, &revoke.range_end));
        let had = known.len() < before;
        had.then_some(true)
            .ok_or(RequestError::PermissionNotGranted)
    }

    /// Whether an image holds these rules.
    pub fn is_in(&self, contents: &AuthContents) -> bool {
        let users = contents.users.iter().map(|user| {
            let name = String::from_utf8_lossy(&user.name).into_owned();
            (name, user.roles.iter().cloned().collect())
        });
        let roles = contents.roles.iter().map(|role| {
            let name = String::from_utf8_lossy(&role.name).into_owned();
            (name, role.key_permission.clone())
        });
        *self
            == Self {
                enabled: contents.enabled == Some(true),
                revision: contents.revision,
                users: users.collect(),
                roles: roles.collect(),
            }
    }
}

/// Where a permission ends; `None` is nowhere.
fn after(permission: &Permission) -> Option<Vec<u8>> {
    match &permission.range_end[..] {
        [] => Some([&permission.key[..], b"\0"].concat()),
        [0] => None,
        end => Some(end.to_vec()),
    }
}

fn reaches(end: &Option<Vec<u8>>, at: &[u8]) -> bool {
    end.as_ref().is_none_or(|end| at < &end[..])
}

fn add_new<T: Default>(
    known: &mut BTreeMap<String, T>,
    name: &str,
    (empty, exists): (RequestError, RequestError),
) -> Result<bool, RequestError> {
    if name.is_empty() {
        return Err(empty);
    }
    if known.contains_key(name) {
        return Err(exists);
    }
    known.insert(name.to_owned(), T::default());
    Ok(true)
}

/// Whether only who has the role root may do this.
fn is_administration(request: &pb::InternalRaftRequest) -> bool {
    request.auth_enable.is_some()
        || request.auth_disable.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(key: &'static str, end: &'static str, kind: Type) -> Permission {
        Permission {
            perm_type: kind as i32,
            key: key.into(),
            range_end: end.into(),
        }
    }

    #[test]
    fn permissions_of_several_roles_join_where_they_touch() {
        let one = vec![
            granted("a", "c", Type::Read),
            granted("c", "", Type::Readwrite),
        ];
        let two = vec![
            granted("c\0", "f", Type::Read),
            granted("x", "\0", Type::Write),
        ];
        let auth = Auth {
            enabled: true,
            users: BTreeMap::from([("ann".to_owned(), ["one", "two"].map(String::from).into())]),
            roles: BTreeMap::from([("one".to_owned(), one), ("two".to_owned(), two)]),
            ..Auth::default()
        };
        let ann = Who {
            user: "ann",
            revision: 1,
        };
        let reads = |key: &str, end: &str| {
            auth.permits(ann, key.as_bytes(), end.as_bytes(), false)
                .is_ok()
        };
        assert!(reads("a", "") && reads("a", "f") && reads("e", ""));
        assert!(!reads("a", "g") && !reads("f", "") && !reads("a", "\0"));
        assert!(reads("e", "b"), "its first key decides");
        let writes = |key: &str, end: &str| auth.permits(ann, key.as_bytes(), end.as_bytes(), true);
        assert_eq!(writes("c", ""), Ok(()));
        assert_eq!(writes("z", "\0"), Ok(()));
        assert_eq!(writes("a", ""), Err(RequestError::PermissionDenied));
        let late = Who { revision: 0, ..ann };
        let denied = auth.permits(late, b"a", b"", false);
        assert_eq!(denied, Err(RequestError::UserEmpty));
    }
}
