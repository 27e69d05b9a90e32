//! A server that knows one user, `a`, and one role, `r`, whose permissions are of every form; auth cannot be switched on
//! until the user `root` has its role.

use quorate_net::grpc::etcdserverpb::auth_server::Auth;
use quorate_proto::authpb::{Permission, permission::Type};
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::{Canned, header};

/// The service: calls that answer with a header and nothing else, then the others.
macro_rules! service {
    ({ $($name:ident($request:ident) -> $response:ident;)* } $($others:tt)*) => {
        #[tonic::async_trait]
        impl Auth for Canned {
        $(
            async fn $name(
                &self,
                request: Request<pb::$request>,
            ) -> Result<Response<pb::$response>, Status> {
                self.note(&request);
                Ok(Response::new(pb::$response { header: header(1) }))
            }
        )*
        $($others)*
        }
    };
}

fn permission(kind: Type, key: &'static str, range_end: &'static str) -> Permission {
    Permission {
        perm_type: kind.into(),
        key: key.into(),
        range_end: range_end.into(),
    }
}

service! {
    {
        auth_disable(AuthDisableRequest) -> AuthDisableResponse;
        user_add(AuthUserAddRequest) -> AuthUserAddResponse;
        user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
        user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
        user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
        user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
        role_add(AuthRoleAddRequest) -> AuthRoleAddResponse;
        role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
        role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
        role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
    }

    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let is_granted = self.has_seen("AuthUserGrantRoleRequest");
        self.note(&request);
        if !is_granted {
            let words = "etcdserver: root user does not have root role";
            return Err(Status::failed_precondition(words));
        }
        Ok(Response::new(pb::AuthEnableResponse { header: header(1) }))
    }

    async fn auth_status(
        &self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        Ok(Response::new(pb::AuthStatusResponse {
            header: header(1),
            enabled: true,
            auth_revision: 29,
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        self.note(&request);
        Ok(Response::new(pb::AuthenticateResponse {
            header: header(1),
            token: "token".to_string(),
        }))
    }

    async fn user_get(
        &self,
        _: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        Ok(Response::new(pb::AuthUserGetResponse {
            header: header(1),
            roles: vec!["r".to_string(), "r2".to_string()],
        }))
    }

    async fn user_list(
        &self,
        _: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        Ok(Response::new(pb::AuthUserListResponse {
            header: header(1),
            users: vec!["a".to_string(), "n".to_string()],
        }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let perm = match request.get_ref().role.as_str() {
            "r" => vec![
                permission(Type::Readwrite, "a", "z"),
                permission(Type::Readwrite, "f", "\0"),
                permission(Type::Read, "k", ""),
                permission(Type::Write, "p", "q"),
            ],
            "r2" => Vec::new(),
            _ => {
                return Err(Status::failed_precondition(
                    "etcdserver: role name not found",
                ));
            }
        };
        Ok(Response::new(pb::AuthRoleGetResponse {
            header: header(1),
            perm,
        }))
    }

    async fn role_list(
        &self,
        _: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        Ok(Response::new(pb::AuthRoleListResponse {
            header: header(1),
            roles: vec!["r".to_string(), "r2".to_string()],
        }))
    }
}
