//! The JSON gateway by websocket, with a client library that knows nothing of this server.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use quorate_net::tls::{ClientTls, TlsInfo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::auth;
use crate::authority::Authority;
use crate::client_security;
use crate::support::Member;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A conversation on a path; the protocol may carry a token.
async fn open<S>(stream: S, path: &str, header: Option<(&'static str, &str)>) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("ws://localhost{path}")
        .into_client_request()
        .expect("it is a URL");
    if let Some((name, value)) = header {
        let value = value.parse().expect("it is ASCII");
        request.headers_mut().insert(name, value);
    }
    let shaken = client_async(request, stream).await;
    shaken.expect("the member shakes hands").0
}

async fn dial(member: &Member, path: &str) -> WebSocketStream<TcpStream> {
    open(tcp(member).await, path, None).await
}

async fn tcp(member: &Member) -> TcpStream {
    let connected = TcpStream::connect(member.client_address()).await;
    connected.expect("the member listens")
}

async fn say<S>(socket: &mut WebSocketStream<S>, message: Value)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let message = Message::text(message.to_string());
    socket.send(message).await.expect("it is heard");
}

/// The next message; nothing once the member has said goodbye.
async fn hear<S>(socket: &mut WebSocketStream<S>) -> Option<Value>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let heard = tokio::time::timeout(PATIENCE, socket.next());
        match heard.await.expect("something is said in time")? {
            Ok(Message::Text(text)) => {
                return Some(serde_json::from_str(&text).expect("it is JSON"));
            }
            Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => return None,
            other => assert!(other.is_ok(), "{other:?}"),
        }
    }
}

fn put(key: &str) -> Value {
    json!({"key": key, "value": "dg=="})
}

#[tokio::test]
async fn a_watch_tells_of_each_change_in_a_message() {
    let member = Member::alone();
    let mut watch = dial(&member, "/v3/watch").await;
    say(&mut watch, json!({"create_request": {"key": "a2V5"}})).await;
    let created = hear(&mut watch).await.expect("an answer");
    assert_eq!(created["result"]["created"], true, "{created}");
    for number in 1..=3 {
        let mut writer = dial(&member, "/v3/kv/put").await;
        say(&mut writer, put("a2V5")).await;
        let written = hear(&mut writer).await.expect("an answer");
        let revision = &written["header"]["revision"];
        let told = hear(&mut watch).await.expect("an event");
        let event = &told["result"]["events"][0]["kv"];
        assert_eq!(&event["mod_revision"], revision, "{told}");
        assert_eq!(event["version"], number.to_string(), "{told}");
        assert_eq!(hear(&mut writer).await, None, "one answer and no more");
    }
    // A client that asks for more on the same stream is answered there.
    say(&mut watch, json!({"progress_request": {}})).await;
    let progress = hear(&mut watch).await.expect("an answer");
    assert_eq!(progress["result"]["watch_id"], "-1", "{progress}");
    watch.close(None).await.expect("it is heard");
    assert_eq!(hear(&mut watch).await, None);
}

#[tokio::test]
async fn each_renewal_is_answered_on_one_stream() {
    let member = Member::alone();
    let mut grant = dial(&member, "/v3/lease/grant").await;
    say(&mut grant, json!({"TTL": 600, "ID": 7})).await;
    hear(&mut grant).await.expect("an answer");
    let mut renewals = dial(&member, "/v3beta/lease/keepalive").await;
    for (id, ttl) in [("7", Some("600")), ("8", None), ("7", Some("600"))] {
        say(&mut renewals, json!({"ID": id})).await;
        let renewed = hear(&mut renewals).await.expect("an answer");
        assert_eq!(renewed["result"]["ID"], id);
        let left = renewed["result"].get("TTL").and_then(Value::as_str);
        assert_eq!(left, ttl, "{renewed}");
    }
}

#[tokio::test]
async fn a_token_comes_as_a_protocol_or_as_a_cookie() {
    let member = Member::alone();
    auth::set_up(&member)
        .await
        .expect("nobody is asked for yet");
    let alice = auth::login(&member, "alice", "ap").await;
    let alice = alice.expect("the password is right");
    let ask = async |header: Option<(&'static str, &str)>| {
        let mut socket = open(tcp(&member).await, "/v3/kv/range", header).await;
        say(&mut socket, json!({"key": "aw=="})).await;
        hear(&mut socket).await.expect("an answer")
    };
    let protocol = "sec-websocket-protocol";
    let refused = ask(None).await;
    assert_eq!(refused["message"], "etcdserver: user name is empty");
    let cookie = format!("a=b; token={alice}");
    let allowed = ask(Some(("cookie", &cookie))).await;
    assert!(allowed.get("header").is_some(), "{allowed}");
    let invented = ask(Some(("cookie", "token=invented.1"))).await;
    assert_eq!(invented["message"], "etcdserver: invalid auth token");

    // The client's library insists on an answer to its protocols, so it hears which one was taken.
    let bearer = format!("Bearer, {alice}");
    let allowed = ask(Some((protocol, &bearer))).await;
    assert!(allowed.get("header").is_some(), "{allowed}");
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_before_the_end() {
    let member = Member::alone();
    let mut unknown = dial(&member, "/v3/nothing").await;
    let refused = hear(&mut unknown).await.expect("an answer");
    assert_eq!(refused["message"], "Not Found");
    assert_eq!(hear(&mut unknown).await, None);
    let mut nonsense = dial(&member, "/v3/kv/range").await;
    let sent = nonsense.send(Message::text("nonsense")).await;
    sent.expect("it is heard");
    let refused = hear(&mut nonsense).await.expect("an answer");
    assert_eq!(refused["code"], 3, "{refused}");
    assert_eq!(hear(&mut nonsense).await, None);
}

#[tokio::test]
async fn websockets_come_by_tls_and_end_with_the_member() {
    let authority = Authority::new();
    let mut member = client_security::secure(&authority, &[]);
    member.start();
    let info = TlsInfo {
        trusted_ca_file: authority.certificate(),
        ..TlsInfo::default()
    };
    let tls = ClientTls::new(&info).expect("the files are there");
    let stream = tls.connect("127.0.0.1", tcp(&member).await).await;
    let stream = stream.expect("it shakes hands");
    let mut watch = open(stream, "/v3/watch", None).await;
    say(&mut watch, json!({"create_request": {"key": "a2V5"}})).await;
    let created = hear(&mut watch).await.expect("an answer");
    assert_eq!(created["result"]["created"], true, "{created}");
    assert!(member.terminate().success());
}
