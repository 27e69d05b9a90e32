//! The calls about users, roles and permissions: those that only look are repeated like reads, the others never.

use quorate_proto::etcdserverpb as pb;

use super::{AuthClient, Client, ClientError, Repeat};

macro_rules! calls {
    ($($(#[$doc:meta])* $repeat:ident $name:ident($request:ident) -> $response:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                pub async fn $name(&self, request: pb::$request) -> Result<pb::$response, ClientError> {
                    self.call(Repeat::$repeat, |channel| {
                        let request = self.request(request.clone());
                        async move { AuthClient::new(channel).$name(request).await }
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    /// Switches auth on. There must be a user `root` with the role `root`.
    Never auth_enable(AuthEnableRequest) -> AuthEnableResponse;
    /// Switches auth off.
    Never auth_disable(AuthDisableRequest) -> AuthDisableResponse;
    /// Whether auth is on, and its revision.
    Safe auth_status(AuthStatusRequest) -> AuthStatusResponse;
    /// Makes a user.
    Never user_add(AuthUserAddRequest) -> AuthUserAddResponse;
    /// The roles of a user.
    Safe user_get(AuthUserGetRequest) -> AuthUserGetResponse;
    /// The names of all users.
    Safe user_list(AuthUserListRequest) -> AuthUserListResponse;
    /// Deletes a user.
    Never user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
    /// Gives a user another password.
    Never user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
    /// Gives a user a role.
    Never user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
    /// Takes a role from a user.
    Never user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
    /// Makes a role.
    Never role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
    /// The permissions of a role.
    Safe role_get(AuthRoleGetRequest) -> AuthRoleGetResponse;
    /// The names of all roles.
    Safe role_list(AuthRoleListRequest) -> AuthRoleListResponse;
    /// Deletes a role.
    Never role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
    /// Gives a role a permission.
    Never role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
    /// Takes a permission from a role.
    Never role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
}
