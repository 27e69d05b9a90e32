//! Clients that come by TLS: who is let in, as whom, and what becomes of those who are not.

use std::io;

use hyper_util::rt::TokioIo;
use quorate_net::grpc::etcdserverpb::auth_client::AuthClient;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::tls::{ClientStream, ClientTls, TlsInfo, TlsVersion};
use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type;
use quorate_proto::etcdserverpb as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::authority::Authority;
use crate::support::Member;

const HERE: &[&str] = &["localhost", "127.0.0.1"];

/// A member that has no listener for clients but `https`, with the authority's certificate `server`.
pub(crate) fn secure(authority: &Authority, flags: &[&str]) -> Member {
    authority.issue("server", "", HERE);
    let member = Member::cluster(1).remove(0);
    let url = format!("https://{}", member.client_address());
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    let listening = [
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ];
    member
        .with(&listening)
        .with(&["--cert-file", &certificate, "--key-file", &key])
        .with(flags)
}

/// One that demands certificates of this authority.
fn mutual(authority: &Authority, flags: &[&str]) -> Member {
    let member = secure(authority, &["--client-cert-auth"]);
    member
        .with(&["--trusted-ca-file", &authority.certificate()])
        .with(flags)
}

/// What a client needs to trust the authority; with one of its certificates, if it has one.
fn client(authority: &Authority, name: Option<&str>) -> TlsInfo {
    let file = |end: &str| name.map(|name| authority.path(&format!("{name}.{end}")));
    TlsInfo {
        trusted_ca_file: authority.certificate(),
        cert_file: file("pem").unwrap_or_default(),
        key_file: file("key").unwrap_or_default(),
        ..TlsInfo::default()
    }
}

async fn connect(member: &Member, info: &TlsInfo) -> io::Result<ClientStream<TcpStream>> {
    let tls = ClientTls::new(info).expect("the files are there");
    let stream = TcpStream::connect(member.client_address()).await?;
    tls.connect("127.0.0.1", stream).await
}

/// A gRPC connection.
async fn channel(member: &Member, info: &TlsInfo) -> Result<Channel, Status> {
    let tls = ClientTls::new(info).expect("the files are there");
    let tls = tls.offering(&["h2"]);
    let address = member.client_address();
    let connector = tower::service_fn(move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            let stream = tls.connect("127.0.0.1", stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://member");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| Status::unavailable(format!("{error:?}")))
}

fn put_request(key: &str, value: Vec<u8>) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.into(),
        ..pb::PutRequest::default()
    }
}

async fn put(member: &Member, info: &TlsInfo, key: &str) -> Result<(), Status> {
    let mut kv = KvClient::new(channel(member, info).await?);
    kv.put(put_request(key, b"v".to_vec())).await.map(drop)
}

/// An HTTP/1 request; gives the whole answer, which must end as TLS demands.
async fn ask(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    head: &str,
    body: &str,
) -> String {
    let request = format!(
        "{head} HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

#[tokio::test]
async fn only_certificates_of_the_authority_and_of_their_time_are_let_in() {
    let authority = Authority::new();
    let mut member = mutual(&authority, &[]);
    member.start();
    authority.issue("alice", "alice", &[]);
    put(&member, &client(&authority, Some("alice")), "k")
        .await
        .expect("alice is let in");

    put(&member, &client(&authority, None), "k")
        .await
        .expect_err("no certificate");
    authority.issue_expired("old", "alice", &[]);
    put(&member, &client(&authority, Some("old")), "k")
        .await
        .expect_err("an expired one");
    let other = Authority::new();
    other.issue("alice", "alice", &[]);
    let foreign = TlsInfo {
        trusted_ca_file: authority.certificate(),
        ..client(&other, Some("alice"))
    };
    put(&member, &foreign, "k")
        .await
        .expect_err("a foreign one");
    member.wait_for_log("rejected connection on client endpoint");
    // And the client looks at the server's.
    let stranger = client(&other, Some("alice"));
    let refused = connect(&member, &stranger).await;
    refused.expect_err("the server is of another authority");
    // Plain text is not understood.
    let mut plain = TcpStream::connect(member.client_address()).await.unwrap();
    plain
        .write_all(b"GET /version HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn revoked_numbers_and_hosts_that_are_not_listed_are_refused() {
    let authority = Authority::new();
    authority.revoke(&[]);
    let mut member = mutual(
        &authority,
        &["--client-crl-file", &authority.path("crl.der")],
    );
    member.start();
    authority.issue_numbered("alice", "alice", 4711);
    let alice = client(&authority, Some("alice"));
    put(&member, &alice, "k").await.expect("not revoked yet");
    authority.revoke(&[1, 4711]);
    put(&member, &alice, "k").await.expect_err("revoked");

    let mut member = mutual(
        &authority,
        &[
            "--client-cert-allowed-hostname",
            "a.example.com,b.example.com",
        ],
    );
    member.start();
    authority.issue("here", "", &["b.example.com"]);
    authority.issue("there", "", &["c.example.com"]);
    put(&member, &client(&authority, Some("here")), "k")
        .await
        .expect("it is listed");
    put(&member, &client(&authority, Some("there")), "k")
        .await
        .expect_err("it is not");
}

#[tokio::test]
async fn a_new_certificate_is_shown_while_the_member_runs() {
    let authority = Authority::new();
    let mut member = secure(&authority, &[]);
    member.start();
    let shown = async || {
        let stream = connect(&member, &client(&authority, None)).await;
        let stream = stream.expect("it shakes hands");
        let certificates = stream.get_ref().1.peer_certificates();
        certificates.expect("it shows one")[0].to_vec()
    };
    let before = shown().await;
    assert_eq!(before, shown().await);
    authority.issue("server", "anew", HERE);
    assert_ne!(before, shown().await);
}

#[tokio::test]
async fn one_port_serves_plain_text_and_tls() {
    let authority = Authority::new();
    let member = secure(&authority, &["--host-whitelist", "localhost"]);
    let both = format!("http://{0},https://{0}", member.client_address());
    let mut member = member.with(&["--listen-client-urls", &both]);
    member.start();
    let info = client(&authority, None);
    put(&member, &info, "k").await.expect("gRPC by TLS");
    let plain = member.kv().await.put(put_request("k", Vec::new())).await;
    plain.expect("gRPC in plain text");

    let mut stream = connect(&member, &info).await.expect("it shakes hands");
    let answer = ask(&mut stream, "GET /version", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"etcdserver\":\"3.7.1\""), "{answer}");
    // The white list of hosts is for plain text.
    let mut stream = TcpStream::connect(member.client_address()).await.unwrap();
    let answer = ask(&mut stream, "GET /version", "").await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test]
async fn pages_have_listeners_of_their_own() {
    let authority = Authority::new();
    let port = || format!("https://127.0.0.1:{}", crate::support::free_port());
    let (http, metrics) = (port(), port());
    let mut member = secure(
        &authority,
        &[
            "--listen-client-http-urls",
            &http,
            "--listen-metrics-urls",
            &metrics,
        ],
    );
    member.start();
    let info = client(&authority, None);
    put(&member, &info, "k").await.expect("gRPC");
    let tls = ClientTls::new(&info).expect("the files are there");
    for (url, path, is_there) in [
        (&http, "/version", true),
        (&metrics, "/metrics", true),
        (&metrics, "/version", false),
    ] {
        let address = url.trim_start_matches("https://");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let mut stream = tls.connect("127.0.0.1", stream).await.expect("shaken");
        let answer = ask(&mut stream, &format!("GET {path}"), "").await;
        let code = if is_there {
            "HTTP/1.1 200"
        } else {
            "HTTP/1.1 404"
        };
        assert!(answer.starts_with(code), "{path}: {answer}");
    }
}

#[tokio::test]
async fn large_answers_arrive_whole_in_both_versions() {
    let authority = Authority::new();
    let mut member = secure(&authority, &[]);
    member.start();
    for version in ["TLS1.2", "TLS1.3"] {
        let info = TlsInfo {
            max_version: TlsVersion::parse(version).expect("there is"),
            ..client(&authority, None)
        };
        let mut kv = KvClient::new(channel(&member, &info).await.expect("connected"));
        kv = kv.max_decoding_message_size(64 << 20);
        let value: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        for number in 0..8 {
            let put = put_request(&format!("big{number}"), value.clone());
            kv.put(put).await.expect("written");
        }
        let range = pb::RangeRequest {
            key: "big".into(),
            range_end: "bih".into(),
            ..pb::RangeRequest::default()
        };
        let answer = kv.range(range).await.expect("read").into_inner();
        assert_eq!(answer.kvs.len(), 8);
        assert!(answer.kvs.iter().all(|kv| kv.value == value));
    }
}

#[tokio::test]
async fn clients_that_never_finish_their_handshake_disturb_nobody() {
    let authority = Authority::new();
    let mut member = secure(&authority, &[]);
    member.start();
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(member.client_address()).await.unwrap();
        if number % 2 == 0 {
            // The begin of a record that never comes.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    put(&member, &client(&authority, None), "k")
        .await
        .expect("it is served");
    // They are given up in the end.
    let mut byte = [0];
    for stream in &mut silent {
        let read = stream.read(&mut byte).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}

#[tokio::test]
async fn a_generated_certificate_serves_whoever_believes_it() {
    let mut member = Member::cluster(1).remove(0);
    let url = format!("https://{}", member.client_address());
    member = member.with(&["--listen-client-urls", &url, "--auto-tls"]);
    member = member.with(&["--advertise-client-urls", &url]);
    member.start();
    let made = member.data_dir().join("fixtures/client/cert.pem");
    let before = std::fs::read(&made).expect("it was made");
    let info = TlsInfo {
        trusted_ca_file: made.to_str().expect("it is text").to_owned(),
        ..TlsInfo::default()
    };
    put(&member, &info, "k").await.expect("it is believed");
    member.kill();
    member.start();
    assert_eq!(before, std::fs::read(&made).expect("it is still there"));
    put(&member, &info, "k").await.expect("it is the same");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_at_the_start() {
    let refused = |flags: &[&str]| {
        let member = Member::cluster(1).remove(0);
        let url = format!("https://{}", member.client_address());
        let mut member = member.with(&["--listen-client-urls", &url]).with(flags);
        member.launch();
        let (status, log) = member.wait_exit();
        assert!(!status.success());
        log
    };
    let log = refused(&[]);
    assert!(log.contains("TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:"), "{log}");
    let log = refused(&["--cert-file=/none.pem"]);
    assert!(
        log.contains("KeyFile and CertFile must both be present[key: , cert: /none.pem]"),
        "{log}"
    );
    let log = refused(&["--cert-file=/none.pem", "--key-file=/none.key"]);
    assert!(
        log.contains("open /none.pem: no such file or directory"),
        "{log}"
    );
    let log = refused(&["--cert-file=/c", "--key-file=/k", "--cipher-suites=NONE"]);
    assert!(log.contains("unexpected TLS cipher suite"), "{log}");
}

async fn set_up_users(channel: Channel) -> Result<(), Status> {
    let mut auth = AuthClient::new(channel);
    for name in ["root", "alice"] {
        let user = pb::AuthUserAddRequest {
            name: name.into(),
            password: "p".into(),
            ..pb::AuthUserAddRequest::default()
        };
        auth.user_add(user).await?;
    }
    let role = "keeper".to_owned();
    auth.role_add(pb::AuthRoleAddRequest { name: role.clone() })
        .await?;
    let perm = Permission {
        perm_type: Type::Readwrite as i32,
        key: "k".into(),
        ..Permission::default()
    };
    auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest {
        name: role,
        perm: Some(perm),
    })
    .await?;
    for (user, role) in [("root", "root"), ("alice", "keeper")] {
        auth.user_grant_role(pb::AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        })
        .await?;
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.map(drop)
}

#[tokio::test]
async fn the_common_name_of_a_certificate_is_a_user() {
    let authority = Authority::new();
    let mut member = mutual(&authority, &[]);
    member.start();
    for name in ["root", "alice", "nobody"] {
        authority.issue(name, name, &[]);
    }
    authority.issue("nameless", "", &["localhost"]);
    let of = |name| client(&authority, Some(name));
    let root = channel(&member, &of("root")).await.expect("let in");
    set_up_users(root).await.expect("auth is not enabled yet");

    put(&member, &of("root"), "x").await.expect("root may all");
    put(&member, &of("alice"), "k").await.expect("alice may");
    let refused = put(&member, &of("alice"), "x").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let refused = put(&member, &of("nobody"), "k").await.unwrap_err();
    assert!(!refused.message().is_empty());
    let refused = put(&member, &of("nameless"), "k").await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: user name is empty");

    // A token is worth more than the certificate; what came through a gateway has no certificate.
    let alice = channel(&member, &of("alice")).await.expect("let in");
    let login = pb::AuthenticateRequest {
        name: "root".into(),
        password: "p".into(),
    };
    let mut auth = AuthClient::new(alice.clone());
    let token = auth.authenticate(login).await.expect("it is right");
    let mut kv = KvClient::new(alice);
    let mut request = Request::new(put_request("x", Vec::new()));
    let token = token.into_inner().token.parse().expect("it is ASCII");
    request.metadata_mut().insert("token", token);
    kv.put(request).await.expect("root may all");
    let mut request = Request::new(put_request("k", Vec::new()));
    let accept = "application/json".parse().expect("it is ASCII");
    request.metadata_mut().insert("grpcgateway-accept", accept);
    let refused = kv.put(request).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: user name is empty");

    let mut stream = connect(&member, &of("alice")).await.expect("let in");
    let answer = ask(&mut stream, "POST /v3/kv/put", r#"{"key":"aw=="}"#).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let words = "CommonName of client sending a request against gateway will be ignored and not used as expected";
    assert!(answer.contains(words), "{answer}");
}
