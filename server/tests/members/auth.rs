//! Auth of one member, over gRPC: logins, what they allow, and what the disk keeps of it.

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::auth_client::AuthClient;
use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb as pb;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::Member;

async fn auth(member: &Member) -> AuthClient<Channel> {
    AuthClient::new(member.channel().await)
}

pub(crate) fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        let token = token.parse().expect("it is ASCII");
        request.metadata_mut().insert("token", token);
    }
    request
}

fn user(name: &str, password: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest {
        name: name.into(),
        password: password.into(),
        ..pb::AuthUserAddRequest::default()
    }
}

fn grant(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest {
        user: user.into(),
        role: role.into(),
    }
}

/// Root, and alice who reads and writes k.
pub(crate) async fn set_up(member: &Member) -> Result<(), Status> {
    let mut auth = auth(member).await;
    auth.user_add(user("root", "rp")).await?;
    auth.user_grant_role(grant("root", "root")).await?;
    auth.user_add(user("alice", "ap")).await?;
    let name = "keeper".to_owned();
    auth.role_add(pb::AuthRoleAddRequest { name: name.clone() })
        .await?;
    let perm = Some(Permission {
        perm_type: Type::Readwrite as i32,
        key: Bytes::from_static(b"k"),
        range_end: Bytes::new(),
    });
    auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name, perm })
        .await?;
    auth.user_grant_role(grant("alice", "keeper")).await?;
    auth.auth_enable(pb::AuthEnableRequest {}).await?;
    Ok(())
}

pub(crate) async fn login(member: &Member, name: &str, password: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest {
        name: name.into(),
        password: password.into(),
    };
    let response = auth(member).await.authenticate(request).await?;
    Ok(response.into_inner().token)
}

async fn put(member: &Member, token: &str, key: &'static str) -> Result<(), Status> {
    let put = pb::PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        ..pb::PutRequest::default()
    };
    member.kv().await.put(with(token, put)).await.map(drop)
}

async fn get(member: &Member, token: &str, key: &'static str) -> Result<(), Status> {
    let range = pb::RangeRequest {
        key: Bytes::from_static(key.as_bytes()),
        ..pb::RangeRequest::default()
    };
    member.kv().await.range(with(token, range)).await.map(drop)
}

fn refusal(result: Result<(), Status>) -> (Code, String) {
    let status = result.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn users_do_what_their_roles_allow_and_nothing_else() {
    let member = Member::alone();
    set_up(&member).await.expect("nobody is asked for yet");
    let alice = login(&member, "alice", "ap")
        .await
        .expect("the password is right");
    put(&member, &alice, "k").await.expect("alice may");
    get(&member, &alice, "k").await.expect("alice may");
    let denied = (
        Code::PermissionDenied,
        "etcdserver: permission denied".to_owned(),
    );
    assert_eq!(refusal(put(&member, &alice, "x").await), denied);
    assert_eq!(refusal(get(&member, &alice, "x").await), denied);
    let nobody = (
        Code::InvalidArgument,
        "etcdserver: user name is empty".to_owned(),
    );
    assert_eq!(refusal(put(&member, "", "k").await), nobody);
    assert_eq!(refusal(get(&member, "", "k").await), nobody);
    let invalid = (
        Code::Unauthenticated,
        "etcdserver: invalid auth token".to_owned(),
    );
    assert_eq!(refusal(get(&member, "invented.1", "k").await), invalid);
    let wrong = login(&member, "alice", "wrong").await.map(drop);
    assert_eq!(
        refusal(wrong),
        (
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password".to_owned()
        )
    );
    let root = login(&member, "root", "rp")
        .await
        .expect("the password is right");
    put(&member, &root, "x").await.expect("root may");
    let delete = pb::AuthUserDeleteRequest {
        name: "alice".into(),
    };
    let refused = auth(&member)
        .await
        .user_delete(with(&alice, delete.clone()))
        .await;
    assert_eq!(refusal(refused.map(drop)), denied);
    let deleted = auth(&member).await.user_delete(with(&root, delete)).await;
    deleted.expect("root may");
    assert_eq!(refusal(get(&member, &alice, "k").await), invalid);
}

#[tokio::test]
async fn auth_outlives_a_restart_and_tokens_do_not() {
    let mut member = Member::alone();
    set_up(&member).await.expect("nobody is asked for yet");
    let before = login(&member, "alice", "ap")
        .await
        .expect("the password is right");
    member.kill();
    member.start();
    let invalid = (
        Code::Unauthenticated,
        "etcdserver: invalid auth token".to_owned(),
    );
    assert_eq!(refusal(get(&member, &before, "k").await), invalid);
    let alice = login(&member, "alice", "ap")
        .await
        .expect("the password is still right");
    get(&member, &alice, "k").await.expect("alice may still");
}
