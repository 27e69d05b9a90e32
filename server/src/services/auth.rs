//! The Auth service: logins, users, roles and the switch. Everything goes through the log, also what only asks.

use quorate_core::boundary::Response as Answer;
use quorate_core::error::RequestError;
use quorate_net::grpc::etcdserverpb::auth_server;
use quorate_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status, async_trait};
use tracing::{info, warn};

use super::caller::Caller;
use super::propose::{propose, read_index};
use super::{mismatch, status};
use crate::auth::IssueError;
use crate::io::core;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Auth;

/// Proposes what is asked for.
async fn ask<M>(
    request: Request<M>,
    fill: impl FnOnce(&mut pb::InternalRaftRequest, M),
) -> Result<Answer, Status> {
    let caller = Caller::of(&request);
    let message = request.into_inner();
    propose(&caller, |internal| fill(internal, message)).await
}

/// The same for a change, whose answer is a header.
async fn change<M>(
    request: Request<M>,
    fill: impl FnOnce(&mut pb::InternalRaftRequest, M),
) -> Result<Option<pb::ResponseHeader>, Status> {
    match ask(request, fill).await? {
        Answer::AuthChanged(header) => Ok(filled(Some(header))),
        _ => Err(mismatch()),
    }
}

fn filled(mut header: Option<pb::ResponseHeader>) -> Option<pb::ResponseHeader> {
    core::with(|core| core.state().fill(&mut header));
    header
}

#[async_trait]
impl auth_server::Auth for Auth {
    /// The password is looked at here, and never leaves this member: the entry holds the name and the random part of the
    /// token. A change of the rules meanwhile means to begin again.
    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let login = request.into_inner();
        read_index().await?;
        let state = core::state();
        let guard = &state.guard;
        loop {
            let rules = guard.rules.rules();
            let checked = guard
                .passwords
                .check(&rules, &login.name, &login.password)
                .await;
            let who = checked.map_err(|error| {
                if error != RequestError::AuthNotEnabled {
                    warn!(user = %login.name, error = %error, "invalid authentication was requested");
                }
                status(&error)
            })?;
            let authenticate = pb::InternalAuthenticateRequest {
                name: login.name.clone(),
                simple_token: guard.token_prefix(),
                ..pb::InternalAuthenticateRequest::default()
            };
            let fill =
                |internal: &mut pb::InternalRaftRequest| internal.authenticate = Some(authenticate);
            let Answer::Authenticate(response) = propose(&Caller::nobody(), fill).await? else {
                return Err(mismatch());
            };
            if guard.rules.rules().revision() != who.revision {
                info!("revision when password checked became stale; retrying");
                continue;
            }
            let token = guard
                .issue(response.token, &who)
                .map_err(|error| match error {
                    IssueError::NoTokens => status(&RequestError::AuthFailed),
                    error => status(&RequestError::Other(error.to_string().into())),
                })?;
            let header = filled(response.header);
            return Ok(Response::new(pb::AuthenticateResponse { header, token }));
        }
    }

    /// Whoever may not add users should not have passwords hashed either.
    async fn user_add(
        &self,
        mut request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let add = request.get_mut();
        let password = std::mem::take(&mut add.password);
        if !add.options.is_some_and(|options| options.no_password) {
            let hashed = core::state().guard.passwords.hash(password).await;
            add.hashed_password = hashed.map_err(|error| status(&error))?;
        }
        let fill = |internal: &mut pb::InternalRaftRequest, add| internal.auth_user_add = Some(add);
        let header = change(request, fill).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_change_password(
        &self,
        mut request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        Caller::of(&request).require_admin().await?;
        let change_password = request.get_mut();
        let password = std::mem::take(&mut change_password.password);
        if !password.is_empty() {
            let hashed = core::state().guard.passwords.hash(password).await;
            change_password.hashed_password = hashed.map_err(|error| status(&error))?;
        }
        let fill = |internal: &mut pb::InternalRaftRequest, change| {
            internal.auth_user_change_password = Some(change);
        };
        let header = change(request, fill).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_enable = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_disable = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_user_delete = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_user_grant_role = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_user_revoke_role = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_role_add = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_role_delete = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_role_grant_permission = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse {
            header,
        }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let header = change(request, |internal, asked| {
            internal.auth_role_revoke_permission = Some(asked)
        })
        .await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse {
            header,
        }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        match ask(request, |internal, asked| {
            internal.auth_status = Some(asked)
        })
        .await?
        {
            Answer::AuthStatus(response) => {
                let header = filled(response.header);
                Ok(Response::new(pb::AuthStatusResponse { header, ..response }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        match ask(request, |internal, asked| {
            internal.auth_user_get = Some(asked)
        })
        .await?
        {
            Answer::UserGet(response) => {
                let header = filled(response.header);
                Ok(Response::new(pb::AuthUserGetResponse {
                    header,
                    ..response
                }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        match ask(request, |internal, asked| {
            internal.auth_user_list = Some(asked)
        })
        .await?
        {
            Answer::UserList(response) => {
                let header = filled(response.header);
                Ok(Response::new(pb::AuthUserListResponse {
                    header,
                    ..response
                }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        match ask(request, |internal, asked| {
            internal.auth_role_get = Some(asked)
        })
        .await?
        {
            Answer::RoleGet(response) => {
                let header = filled(response.header);
                Ok(Response::new(pb::AuthRoleGetResponse {
                    header,
                    ..response
                }))
            }
            _ => Err(mismatch()),
        }
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        match ask(request, |internal, asked| {
            internal.auth_role_list = Some(asked)
        })
        .await?
        {
            Answer::RoleList(response) => {
                let header = filled(response.header);
                Ok(Response::new(pb::AuthRoleListResponse {
                    header,
                    ..response
                }))
            }
            _ => Err(mismatch()),
        }
    }
}
