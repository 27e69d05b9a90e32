//! Applying what changes users, roles and the switch, and what asks about them through the log.
//!
//! The checks of who may do it are over. Refusals come in etcd's order, and a refused request changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quorate_proto::authpb::permission::Type;
use quorate_proto::authpb::{Permission, Role, User, UserAddOptions};
use quorate_proto::etcdserverpb as pb;

use super::rules::has_role;
use super::{Auth, ROOT, Rules, TokenChange, ranges};
use crate::boundary::Response;
use crate::error::RequestError;
use crate::types::Index;

/// Also for a password that nobody could have hashed.
const NO_PASSWORD_USER: &str =
    "auth: authentication failed, password was given for no password user";

/// What came of a request; `None` if it is none of this module's.
type Outcome = Option<Result<Response, RequestError>>;

impl Auth {
    /// Applies a request of the entry at `index`. `header` goes into the answer.
    pub(crate) fn apply(
        &mut self,
        index: Index,
        header: pb::ResponseHeader,
        request: &pb::InternalRaftRequest,
    ) -> Outcome {
        if let Some(asked) = self.answer(index, header, request) {
            return Some(asked);
        }
        let mut rules = (*self.rules).clone();
        let changed = rules.change(request)?;
        if changed == Ok(Changed::Yes) {
            self.publish(rules);
            self.note_tokens(request);
        }
        Some(changed.map(|_| Response::AuthChanged(header)))
    }

    /// What changes no rule.
    fn answer(
        &mut self,
        index: Index,
        header: pb::ResponseHeader,
        request: &pb::InternalRaftRequest,
    ) -> Outcome {
        let header = Some(header);
        if let Some(authenticate) = &request.authenticate {
            let token = self.authenticate(index, authenticate);
            return Some(
                token.map(|token| {
                    Response::Authenticate(pb::AuthenticateResponse { header, token })
                }),
            );
        }
        let rules = &self.rules;
        if request.auth_status.is_some() {
            return Some(Ok(Response::AuthStatus(pb::AuthStatusResponse {
                header,
                enabled: rules.is_enabled(),
                auth_revision: rules.revision,
            })));
        }
        if let Some(get) = &request.auth_user_get {
            let user = rules.user(&get.name).ok_or(RequestError::UserNotFound);
            return Some(user.map(|user| {
                let roles = user.roles.clone();
                Response::UserGet(pb::AuthUserGetResponse { header, roles })
            }));
        }
        if request.auth_user_list.is_some() {
            let users = names(&rules.users);
            return Some(Ok(Response::UserList(pb::AuthUserListResponse {
                header,
                users,
            })));
        }
        if let Some(get) = &request.auth_role_get {
            let role = rules
                .roles
                .get(get.role.as_bytes())
                .ok_or(RequestError::RoleNotFound);
            return Some(role.map(|role| {
                let perm = shown_permissions(role);
                Response::RoleGet(pb::AuthRoleGetResponse { header, perm })
            }));
        }
        if request.auth_role_list.is_some() {
            let roles = names(&rules.roles);
            return Some(Ok(Response::RoleList(pb::AuthRoleListResponse {
                header,
                roles,
            })));
        }
        None
    }

    /// The password was looked at before the entry was made. The number in the token tells other members up to where
    /// they must have applied to know it; etcd's number is that of the entry before.
    fn authenticate(
        &mut self,
        index: Index,
        request: &pb::InternalAuthenticateRequest,
    ) -> Result<String, RequestError> {
        if !self.rules.is_enabled() {
            return Err(RequestError::AuthNotEnabled);
        }
        let user = self
            .rules
            .user(&request.name)
            .ok_or(RequestError::AuthFailed)?;
        if is_without_password(user) {
            return Err(RequestError::AuthFailed);
        }
        let token = format!("{}.{}", request.simple_token, index.0.saturating_sub(1));
        // Members that sign their tokens send nothing random, and nobody must be able to guess the rest.
        if !request.simple_token.is_empty() {
            self.tokens.push(TokenChange::Assigned {
                token: token.clone(),
                user: request.name.clone(),
            });
        }
        Ok(token)
    }

    fn note_tokens(&mut self, request: &pb::InternalRaftRequest) {
        let change = if let Some(delete) = &request.auth_user_delete {
            TokenChange::UserChanged(delete.name.clone())
        } else if let Some(change) = &request.auth_user_change_password {
            TokenChange::UserChanged(change.name.clone())
        } else if request.auth_disable.is_some() {
            TokenChange::AllVoid
        } else {
            return;
        };
        self.tokens.push(change);
    }
}

/// Whether a request that was granted changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    Yes,
    /// It was so already.
    No,
}

impl Rules {
    /// Carries out a change; whoever gets an error or [`Changed::No`] throws these rules away.
    fn change(
        &mut self,
        request: &pb::InternalRaftRequest,
    ) -> Option<Result<Changed, RequestError>> {
        if request.auth_enable.is_some() {
            return Some(self.enable());
        }
        if request.auth_disable.is_some() && !self.is_enabled() {
            return Some(Ok(Changed::No));
        }
        let changed = self
            .change_users(request)
            .or_else(|| self.change_roles(request))?;
        if changed == Ok(Changed::Yes) {
            self.revision += 1;
        }
        Some(changed)
    }

    /// Alone among the changes this one leaves the revision as it is.
    fn enable(&mut self) -> Result<Changed, RequestError> {
        if self.is_enabled() {
            return Ok(Changed::No);
        }
        let root = self.user(ROOT).ok_or(RequestError::RootUserNotExist)?;
        if !has_role(root, ROOT) {
            return Err(RequestError::RootRoleNotExist);
        }
        self.enabled = Some(true);
        Ok(Changed::Yes)
    }

    fn change_users(
        &mut self,
        request: &pb::InternalRaftRequest,
    ) -> Option<Result<Changed, RequestError>> {
        if request.auth_disable.is_some() {
            self.enabled = Some(false);
            return Some(Ok(Changed::Yes));
        }
        if let Some(add) = &request.auth_user_add {
            return Some(self.add_user(add));
        }
        if let Some(delete) = &request.auth_user_delete {
            return Some(self.delete_user(&delete.name));
        }
        if let Some(change) = &request.auth_user_change_password {
            return Some(self.change_password(change));
        }
        if let Some(grant) = &request.auth_user_grant_role {
            return Some(self.grant_role(&grant.user, &grant.role));
        }
        if let Some(revoke) = &request.auth_user_revoke_role {
            return Some(self.revoke_role(&revoke.name, &revoke.role));
        }
        None
    }

    fn change_roles(
        &mut self,
        request: &pb::InternalRaftRequest,
    ) -> Option<Result<Changed, RequestError>> {
        if let Some(add) = &request.auth_role_add {
            return Some(self.add_role(&add.name));
        }
        if let Some(delete) = &request.auth_role_delete {
            return Some(self.delete_role(&delete.role));
        }
        if let Some(grant) = &request.auth_role_grant_permission {
            return Some(self.grant_permission(grant));
        }
        if let Some(revoke) = &request.auth_role_revoke_permission {
            return Some(self.revoke_permission(revoke));
        }
        None
    }

    fn existing_user(&self, name: &str) -> Result<User, RequestError> {
        self.user(name).cloned().ok_or(RequestError::UserNotFound)
    }

    fn existing_role(&self, name: &str) -> Result<Role, RequestError> {
        let role = self
            .roles
            .get(name.as_bytes())
            .ok_or(RequestError::RoleNotFound)?;
        Ok((**role).clone())
    }

    fn add_user(&mut self, add: &pb::AuthUserAddRequest) -> Result<Changed, RequestError> {
        if add.name.is_empty() {
            return Err(RequestError::UserEmpty);
        }
        if self.user(&add.name).is_some() {
            return Err(RequestError::UserAlreadyExist);
        }
        let mut user = User {
            name: Bytes::copy_from_slice(add.name.as_bytes()),
            options: Some(add.options.unwrap_or(UserAddOptions { no_password: false })),
            ..User::default()
        };
        if !is_without_password(&user) {
            user.password = hash(&add.hashed_password)?;
        }
        self.put_user(user);
        Ok(Changed::Yes)
    }

    fn delete_user(&mut self, name: &str) -> Result<Changed, RequestError> {
        if self.is_enabled() && name == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        self.users
            .remove(name.as_bytes())
            .ok_or(RequestError::UserNotFound)?;
        Ok(Changed::Yes)
    }

    fn change_password(
        &mut self,
        change: &pb::AuthUserChangePasswordRequest,
    ) -> Result<Changed, RequestError> {
        let mut user = self.existing_user(&change.name)?;
        user.password = if is_without_password(&user) {
            Bytes::new()
        } else {
            hash(&change.hashed_password)?
        };
        self.put_user(user);
        Ok(Changed::Yes)
    }

    /// The role root may be given before it is made.
    fn grant_role(&mut self, name: &str, role: &str) -> Result<Changed, RequestError> {
        let mut user = self.existing_user(name)?;
        if role != ROOT {
            self.existing_role(role)?;
        }
        let Err(at) = user
            .roles
            .binary_search_by(|known| known.as_str().cmp(role))
        else {
            return Ok(Changed::No);
        };
        user.roles.insert(at, role.to_string());
        self.put_user(user);
        Ok(Changed::Yes)
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<Changed, RequestError> {
        if self.is_enabled() && name == ROOT && role == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let mut user = self.existing_user(name)?;
        let before = user.roles.len();
        user.roles.retain(|known| known != role);
        if user.roles.len() == before {
            return Err(RequestError::RoleNotGranted);
        }
        self.put_user(user);
        Ok(Changed::Yes)
    }

    fn add_role(&mut self, name: &str) -> Result<Changed, RequestError> {
        if name.is_empty() {
            return Err(RequestError::RoleEmpty);
        }
        if self.roles.contains_key(name.as_bytes()) {
            return Err(RequestError::RoleAlreadyExist);
        }
        // A user may have had the role before it exists, and gets nothing from it yet.
        self.put_role(Role {
            name: Bytes::copy_from_slice(name.as_bytes()),
            key_permission: Vec::new(),
        });
        Ok(Changed::Yes)
    }

    fn delete_role(&mut self, name: &str) -> Result<Changed, RequestError> {
        if self.is_enabled() && name == ROOT {
            return Err(RequestError::InvalidAuthMgmt);
        }
        self.roles
            .remove(name.as_bytes())
            .ok_or(RequestError::RoleNotFound)?;
        for mut user in self.users_with(name.as_bytes()) {
            user.roles.retain(|known| known != name);
            self.put_user(user);
        }
        Ok(Changed::Yes)
    }

    fn grant_permission(
        &mut self,
        grant: &pb::AuthRoleGrantPermissionRequest,
    ) -> Result<Changed, RequestError> {
        let wanted = grant
            .perm
            .as_ref()
            .ok_or(RequestError::PermissionNotGiven)?;
        if !ranges::is_valid(&wanted.key, &wanted.range_end) {
            return Err(RequestError::InvalidAuthMgmt);
        }
        let mut role = self.existing_role(&grant.name)?;
        let permissions = &mut role.key_permission;
        // etcd looks at the first permission with this key only: another one with this key is added again.
        let first = permissions.partition_point(|known| known.key < wanted.key);
        match permissions.get_mut(first) {
            Some(known) if known.key == wanted.key && known.range_end == wanted.range_end => {
                known.perm_type = wanted.perm_type;
            }
            _ => {
                let after = permissions.partition_point(|known| known.key <= wanted.key);
                permissions.insert(after, wanted.clone());
            }
        }
        self.put_role(role);
        Ok(Changed::Yes)
    }

    fn revoke_permission(
        &mut self,
        revoke: &pb::AuthRoleRevokePermissionRequest,
    ) -> Result<Changed, RequestError> {
        let mut role = self.existing_role(&revoke.role)?;
        let before = role.key_permission.len();
        role.key_permission
            .retain(|known| known.key != revoke.key || known.range_end != revoke.range_end);
        if role.key_permission.len() == before {
            return Err(RequestError::PermissionNotGranted);
        }
        self.put_role(role);
        Ok(Changed::Yes)
    }
}

/// Whether the user can only log in with a certificate.
pub(super) fn is_without_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

/// The hash that the proposer has made.
fn hash(base64: &str) -> Result<Bytes, RequestError> {
    STANDARD
        .decode(base64)
        .map(Bytes::from)
        .map_err(|_| RequestError::Other(NO_PASSWORD_USER.into()))
}

/// The role root allows everything, whatever is stored with it.
fn shown_permissions(role: &Role) -> Vec<Permission> {
    if role.name != ROOT {
        return role.key_permission.clone();
    }
    vec![Permission {
        perm_type: Type::Readwrite as i32,
        key: Bytes::new(),
        range_end: Bytes::from_static(b"\0"),
    }]
}

fn names<T>(records: &BTreeMap<Bytes, Arc<T>>) -> Vec<String> {
    records
        .keys()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}
