//! `quorate grpc-proxy start` between real clients and real members.

use std::time::Duration;

use quorate_net::grpc::etcdserverpb::auth_client::AuthClient;
use quorate_net::grpc::etcdserverpb::cluster_client::ClusterClient;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::lease_client::LeaseClient;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_net::grpc::v3lockpb::lock_client::LockClient;
use quorate_net::tls::TlsInfo;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::v3lockpb::LockRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::auth_matrix;
use crate::authority::Authority;
use crate::client_security;
use crate::ports::free_port;
use crate::support::{Member, Proxy};

const READY: &str = "started gRPC proxy";
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn proxy(member: &Member, flags: &[&str]) -> Proxy {
    let endpoint = member.client_address();
    let mut all = vec!["--endpoints", &endpoint];
    all.extend_from_slice(flags);
    Proxy::start("grpc-proxy", &all, READY)
}

fn range(key: &str, range_end: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..pb::RangeRequest::default()
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..pb::PutRequest::default()
    }
}

/// The keys and values of a range.
async fn read(channel: Channel, request: pb::RangeRequest) -> Vec<(String, String)> {
    let answered = KvClient::new(channel).range(request).await;
    let kvs = answered.expect("it is answered").into_inner().kvs;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is text");
    kvs.iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

async fn write(channel: Channel, key: &str, value: &str) -> i64 {
    let answered = KvClient::new(channel).put(put(key, value)).await;
    let header = answered.expect("it is written").into_inner().header;
    header.expect("there is one").revision
}

/// One watcher on a stream of its own, created.
struct Watcher {
    /// Keeps the stream open.
    _requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watcher {
    async fn new(channel: Channel, key: &str, start_revision: i64) -> Self {
        let (watcher, created) = Self::ask(channel, key, start_revision).await;
        assert!(created.created && !created.canceled, "{created:?}");
        watcher
    }

    /// One that may be refused, and what it is told first.
    async fn ask(channel: Channel, key: &str, start_revision: i64) -> (Self, pb::WatchResponse) {
        let (requests, body) = mpsc::channel(4);
        let create = pb::WatchCreateRequest {
            key: key.to_owned().into(),
            start_revision,
            ..pb::WatchCreateRequest::default()
        };
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        requests.send(create).await.expect("there is room");
        let opened = WatchClient::new(channel)
            .watch(ReceiverStream::new(body))
            .await;
        let mut watcher = Self {
            _requests: requests,
            answers: opened.expect("it is opened").into_inner(),
        };
        let created = watcher.next().await;
        (watcher, created)
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        let answer = answer.expect("something comes in time");
        answer
            .expect("the stream goes on")
            .expect("it does not end")
    }

    /// The key and the revision of the next event.
    async fn event(&mut self) -> (String, i64) {
        let response = self.next().await;
        assert_eq!(response.events.len(), 1, "{response:?}");
        let kv = response.events[0].kv.as_ref().expect("it has a key");
        let key = String::from_utf8(kv.key.to_vec()).expect("it is text");
        (key, kv.mod_revision)
    }
}

/// A page as its code and its text.
async fn page(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("it is HTTP");
    let code = head.split(' ').nth(1).expect("it has a code");
    (code.to_owned(), body.to_owned())
}

/// A number of a metrics page.
async fn number(address: &str, path: &str, name: &str) -> String {
    let (_, text) = page(address, path).await;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .to_owned()
}

/// Waits until a number of the member is this one; it is told from time to time only.
async fn wait_for_number(member: &Member, name: &str, wanted: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = number(&member.client_address(), "/metrics", name).await;
        if found == wanted {
            return;
        }
        let is_late = tokio::time::Instant::now() > deadline;
        assert!(!is_late, "{name} is {found}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_namespace_is_all_that_clients_see() {
    let member = Member::alone();
    let proxy = proxy(&member, &["--namespace", "p/"]);
    let (inside, outside) = (proxy.channel().await, member.channel().await);
    write(outside.clone(), "a", "other").await;
    write(outside.clone(), "z", "other").await;
    write(inside.clone(), "k", "v").await;
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        read(outside.clone(), range("p/k", "")).await,
        [text("p/k", "v")]
    );
    assert_eq!(
        read(inside.clone(), range("\0", "\0")).await,
        [text("k", "v")]
    );
    let mut kv = KvClient::new(inside.clone());
    let compare = pb::Compare {
        key: "k".into(),
        target_union: Some(pb::compare::TargetUnion::Version(1)),
        ..pb::Compare::default()
    };
    let get = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(range("k", ""))),
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![get],
        failure: Vec::new(),
    };
    let answered = kv.txn(txn).await.expect("it is answered").into_inner();
    assert!(answered.succeeded);
    let shown = format!("{answered:?}");
    assert!(
        shown.contains("b\"k\"") && !shown.contains("p/k"),
        "{shown}"
    );
    let delete = pb::DeleteRangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        prev_kv: true,
    };
    let deleted = kv.delete_range(delete).await.expect("it is answered");
    let deleted = deleted.into_inner().prev_kvs;
    assert_eq!((deleted.len(), &deleted[0].key[..]), (1, &b"k"[..]));
    assert_eq!(
        read(outside, range("\0", "\0")).await.len(),
        2,
        "those of others stay"
    );
    let empty = kv
        .range(range("", ""))
        .await
        .expect_err("there is no such key");
    assert_eq!(empty.message(), "etcdserver: key is not provided");
    let mut watcher = Watcher::new(inside.clone(), "k", 0).await;
    let revision = write(inside, "k", "v").await;
    assert_eq!(watcher.event().await, ("k".to_owned(), revision));
}

#[tokio::test]
async fn serializable_ranges_are_answered_from_the_cache_until_they_are_written() {
    let member = Member::alone();
    let proxy = proxy(&member, &[]);
    let (inside, outside) = (proxy.channel().await, member.channel().await);
    write(inside.clone(), "k", "1").await;
    let stale = pb::RangeRequest {
        serializable: true,
        ..range("k", "")
    };
    let value = async |request: pb::RangeRequest| {
        let found = read(inside.clone(), request).await;
        found[0].1.clone()
    };
    assert_eq!(value(stale.clone()).await, "1");
    write(outside.clone(), "k", "2").await;
    assert_eq!(value(stale.clone()).await, "1", "nobody told the proxy");
    let counted = async |name: &str| {
        let name = format!("etcd_grpc_proxy_cache_{name}_total");
        number(&proxy.address(), "/proxy/metrics", &name).await
    };
    assert_eq!(counted("hits").await, "1");
    assert_eq!(counted("misses").await, "1");
    assert_eq!(counted("keys").await, "1");
    assert_eq!(value(range("k", "")).await, "2", "what must be fresh is");
    assert_eq!(
        value(stale.clone()).await,
        "2",
        "and the proxy knows it now"
    );
    write(inside.clone(), "k", "3").await;
    assert_eq!(counted("keys").await, "0");
    assert_eq!(value(stale.clone()).await, "3");
    let streamed = KvClient::new(inside.clone()).range_stream(stale).await;
    let refused = streamed.map(drop).expect_err("as in etcd");
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn watchers_of_one_range_share_a_stream_and_the_late_catch_up() {
    let member = Member::alone();
    let proxy = proxy(&member, &[]);
    let first = write(member.channel().await, "k", "1").await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(Watcher::new(proxy.channel().await, "k", 0).await);
    }
    let at_member = "etcd_debugging_mvcc_watcher_total";
    wait_for_number(&member, at_member, "1").await;
    let shared = "etcd_grpc_proxy_watchers_coalescing_total";
    assert_eq!(
        number(&proxy.address(), "/proxy/metrics", shared).await,
        "7"
    );
    let second = write(member.channel().await, "k", "2").await;
    for watcher in &mut watchers {
        assert_eq!(watcher.event().await, ("k".to_owned(), second));
    }
    // One that begins in the past hears all of it once, and then what the others hear.
    let mut late = Watcher::new(proxy.channel().await, "k", first).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let response = late.next().await;
        let kvs = response.events.iter().filter_map(|event| event.kv.as_ref());
        heard.extend(kvs.map(|kv| kv.mod_revision));
    }
    assert_eq!(heard, [first, second]);
    for round in 3..6 {
        let revision = write(proxy.channel().await, "k", &round.to_string()).await;
        for watcher in watchers.iter_mut().chain([&mut late]) {
            assert_eq!(watcher.event().await, ("k".to_owned(), revision));
        }
    }
    // The late one has joined the others.
    wait_for_number(&member, at_member, "1").await;
    let coalesced = "etcd_grpc_proxy_events_coalescing_total";
    let coalesced = number(&proxy.address(), "/proxy/metrics", coalesced).await;
    assert!(
        coalesced.parse::<u64>().expect("a number") >= 4 * 7,
        "{coalesced}"
    );
}

#[tokio::test]
async fn a_watch_goes_on_when_its_member_comes_back() {
    let mut member = Member::alone();
    let proxy = proxy(&member, &[]);
    let mut watcher = Watcher::new(proxy.channel().await, "k", 0).await;
    let before = write(proxy.channel().await, "k", "1").await;
    assert_eq!(watcher.event().await, ("k".to_owned(), before));
    // This one catches up, on a stream of its own, for as long as nothing happens.
    write(proxy.channel().await, "other", "1").await;
    let mut late = Watcher::new(proxy.channel().await, "quiet", before).await;
    member.kill();
    member.start();
    let after = write(member.channel().await, "k", "2").await;
    assert_eq!(watcher.event().await, ("k".to_owned(), after));
    let after = write(member.channel().await, "quiet", "2").await;
    assert_eq!(late.event().await, ("quiet".to_owned(), after));
}

#[tokio::test]
async fn a_watch_that_its_client_leaves_while_it_catches_up_leaves_nothing_behind() {
    let member = Member::alone();
    let proxy = proxy(&member, &[]);
    let first = write(member.channel().await, "k", "1").await;
    write(member.channel().await, "other", "1").await;
    let watcher = Watcher::new(proxy.channel().await, "k", first + 1).await;
    let at_member = "etcd_debugging_mvcc_watcher_total";
    // Its own stream, and the one that it will share.
    wait_for_number(&member, at_member, "2").await;
    drop(watcher);
    wait_for_number(&member, at_member, "0").await;
}

#[tokio::test]
async fn who_may_not_read_a_range_does_not_join_those_who_watch_it() {
    let member = Member::alone();
    let proxy = proxy(&member, &[]);
    let _watcher = Watcher::new(proxy.channel().await, "k", 0).await;
    crate::auth::set_up(&member)
        .await
        .expect("nobody is asked for yet");
    let (_refused, created) = Watcher::ask(proxy.channel().await, "k", 0).await;
    assert!(created.created && created.canceled, "{created:?}");
    assert_eq!(created.cancel_reason, "etcdserver: user name is empty");
}

#[tokio::test]
async fn calls_go_on_to_a_member_that_lives() {
    let member = Member::alone();
    let endpoints = format!("127.0.0.1:{},{}", free_port(), member.client_address());
    let proxy = Proxy::start("grpc-proxy", &["--endpoints", &endpoints], READY);
    write(proxy.channel().await, "k", "v").await;
    assert_eq!(read(proxy.channel().await, range("k", "")).await.len(), 1);
    let healthy = (
        "200".to_owned(),
        r#"{"health":"true","reason":""}"#.to_owned(),
    );
    assert_eq!(page(&proxy.address(), "/health").await, healthy);
    assert_eq!(page(&proxy.address(), "/proxy/health").await, healthy);
    drop(member);
    let (code, text) = page(&proxy.address(), "/health").await;
    assert_eq!(code, "503", "{text}");
    assert!(
        text.starts_with(r#"{"health":"false","reason":"GET ERROR:"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_proxy_that_synchronizes_goes_where_the_members_say_that_they_are() {
    let member = Member::alone();
    let detour = member.client_address();
    let gateway = Proxy::start("gateway", &["--endpoints", &detour], "ready to proxy");
    let endpoint = gateway.address();
    let flags = [
        ["--endpoints", &endpoint],
        ["--endpoints-auto-sync-interval", "50ms"],
    ];
    let proxy = Proxy::start("grpc-proxy", flags.as_flattened(), READY);
    proxy.wait_for_log(&format!("[\"http://{}\"]", member.client_address()));
    drop(gateway);
    write(proxy.channel().await, "k", "v").await;
    assert_eq!(read(proxy.channel().await, range("k", "")).await.len(), 1);
}

#[tokio::test]
async fn ordered_reads_do_not_go_back_to_a_member_that_is_behind() {
    // Two clusters are as far apart as members can be.
    let (ahead, behind) = (Member::alone(), Member::alone());
    write(ahead.channel().await, "k", "v").await;
    let endpoints = format!("{},{}", ahead.client_address(), behind.client_address());
    let flags = ["--endpoints", &endpoints];
    let ordered = [&flags[..], &["--experimental-serializable-ordering"]].concat();
    let plain = Proxy::start("grpc-proxy", &flags, READY);
    let ordered = Proxy::start("grpc-proxy", &ordered, READY);
    for proxy in [&plain, &ordered] {
        assert_eq!(read(proxy.channel().await, range("k", "")).await.len(), 1);
    }
    drop(ahead);
    assert_eq!(read(plain.channel().await, range("k", "")).await, []);
    let refused = KvClient::new(ordered.channel().await)
        .range(range("k", ""))
        .await;
    let refused = refused.expect_err("nobody is as far");
    let words = "etcdclient: no cluster members have a revision higher than the previously received revision";
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, words));
}

#[tokio::test]
async fn profiles_are_shown_where_they_are_asked_for_and_no_limit_is_etcds_default() {
    let member = Member::alone();
    let path = "/debug/pprof/cmdline";
    let silent = proxy(&member, &[]);
    assert_eq!(page(&silent.address(), path).await.0, "404");
    let limits = ["--max-send-bytes", "0", "--max-recv-bytes", "0"];
    let proxy = proxy(&member, &[&limits[..], &["--enable-pprof"]].concat());
    let (code, text) = page(&proxy.address(), path).await;
    assert_eq!(code, "200");
    assert!(text.ends_with("--enable-pprof"), "{text}");
    write(proxy.channel().await, "k", "v").await;
    assert_eq!(read(proxy.channel().await, range("k", "")).await.len(), 1);
}

#[tokio::test]
async fn leases_locks_and_tokens_pass_through() {
    let member = Member::alone();
    let proxy = proxy(&member, &[]);
    let mut leases = LeaseClient::new(proxy.channel().await);
    let grant = pb::LeaseGrantRequest { ttl: 600, id: 7 };
    leases.lease_grant(grant).await.expect("it is granted");
    let renewals = [7, 8, 7].map(|id| pb::LeaseKeepAliveRequest { id });
    let renewed = leases.lease_keep_alive(tokio_stream::iter(renewals)).await;
    let mut renewed = renewed.expect("it is opened").into_inner();
    for (id, ttl) in [(7, 600), (8, 0), (7, 600)] {
        let answer = renewed
            .message()
            .await
            .expect("it goes on")
            .expect("an answer");
        assert_eq!((answer.id, answer.ttl), (id, ttl));
    }
    let lock = LockRequest {
        name: "l".into(),
        lease: 7,
    };
    let locked = LockClient::new(proxy.channel().await).lock(lock).await;
    assert_eq!(locked.expect("it is free").into_inner().key, "l/7");
    let mut auth = AuthClient::new(proxy.channel().await);
    let status = auth.auth_status(pb::AuthStatusRequest {}).await;
    assert!(!status.expect("it is answered").into_inner().enabled);

    // What one user has read is not shown to another one.
    write(member.channel().await, "k", "v").await;
    crate::auth::set_up(&member)
        .await
        .expect("nobody is asked for yet");
    let alice = crate::auth::login(&member, "alice", "ap").await;
    let alice = alice.expect("the password is right");
    let stale = || pb::RangeRequest {
        serializable: true,
        ..range("k", "")
    };
    let mut kv = KvClient::new(proxy.channel().await);
    let allowed = kv.range(crate::auth::with(&alice, stale())).await;
    assert_eq!(allowed.expect("alice may").into_inner().kvs.len(), 1);
    let refused = kv.range(stale()).await.expect_err("nobody may not");
    assert_eq!(refused.message(), "etcdserver: user name is empty");
}

#[tokio::test]
async fn both_sides_may_be_tls() {
    let authority = Authority::new();
    let mut member = client_security::secure(&authority, &[]);
    member.start();
    let endpoint = format!("https://{}", member.client_address());
    let (ca, certificate, key) = (
        authority.certificate(),
        authority.path("server.pem"),
        authority.path("server.key"),
    );
    let flags = [
        ["--endpoints", &endpoint],
        ["--cacert", &ca],
        ["--cert-file", &certificate],
        ["--key-file", &key],
    ];
    let proxy = Proxy::start("grpc-proxy", flags.as_flattened(), READY);
    let info = TlsInfo {
        trusted_ca_file: ca,
        ..TlsInfo::default()
    };
    let channel = auth_matrix::connect_as(proxy.address(), &info).await;
    let channel = channel.expect("it shakes hands");
    write(channel.clone(), "k", "v").await;
    assert_eq!(read(channel, range("k", "")).await.len(), 1);
    let mut plain = TcpStream::connect(proxy.address())
        .await
        .expect("it listens");
    let asked = plain.write_all(b"GET /health HTTP/1.1\r\n\r\n").await;
    asked.expect("it is sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn proxies_that_register_list_each_other() {
    let member = Member::alone();
    let addresses = ["10.0.0.1:1", "10.0.0.2:2"];
    let proxies = addresses.map(|address| {
        let flags = ["--resolver-prefix", "_proxies", "--resolver-ttl", "60"];
        let proxy = proxy(
            &member,
            &[&flags[..], &["--advertise-client-url", address]].concat(),
        );
        proxy.wait_for_log("registered session with lease");
        proxy
    });
    for proxy in &proxies {
        let mut cluster = ClusterClient::new(proxy.channel().await);
        let listed = cluster.member_list(pb::MemberListRequest::default()).await;
        let members = listed.expect("it is answered").into_inner().members;
        let urls: Vec<_> = members
            .iter()
            .flat_map(|member| &member.client_urls)
            .collect();
        assert_eq!(urls, addresses);
    }
}
