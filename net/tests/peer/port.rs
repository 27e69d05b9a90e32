//! What the peer port answers, to members and to others.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::{ClusterId, LeaseId, MemberId, Revision};
use quorate_net::peer::{CallError, Endpoint, PeerClient, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixed_node::{LEASE, LEASE_STUCK};
use super::member::{CLUSTER, Member, heartbeat, pair};

/// Sends bytes, then reads until the port closes the connection or has sent a whole head and `body` is in it.
async fn exchange(member: &Member, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(member.address).await.expect("connects");
    stream.write_all(request).await.expect("is read");
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request with the headers of member 2, some of them replaced or (with an empty value) left out.
async fn ask(member: &Member, line: &str, changes: &[(&str, &str)], body: &[u8]) -> String {
    let mut headers = vec![
        ("X-Server-From", "2"),
        ("X-Server-Version", "3.7.1"),
        ("X-Min-Cluster-Version", "3.0.0"),
        ("X-Etcd-Cluster-ID", "c1"),
        ("X-Raft-To", "1"),
    ];
    headers.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    headers.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    exchange(member, &[head.as_bytes(), body].concat()).await
}

fn check(answer: &str, status: u16, text: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "expected {status}: {answer}"
    );
    assert!(answer.ends_with(text), "expected {text:?}: {answer}");
}

#[tokio::test]
async fn requests_for_raft_are_refused_with_etcds_words() {
    let (one, _two) = pair().await;
    let stream = "GET /raft/stream/message/2";
    let cases = [
        (
            stream,
            &[("X-Etcd-Cluster-ID", "c2")][..],
            412,
            "cluster ID mismatch\n",
        ),
        (
            stream,
            &[("X-Etcd-Cluster-ID", "")][..],
            412,
            "cluster ID mismatch\n",
        ),
        (
            stream,
            &[("X-Server-Version", "2.3.0")][..],
            412,
            "incompatible version\n",
        ),
        (
            stream,
            &[("X-Server-Version", "")][..],
            412,
            "incompatible version\n",
        ),
        (
            stream,
            &[("X-Server-Version", "nonsense")][..],
            412,
            "incompatible version\n",
        ),
        (
            stream,
            &[("X-Min-Cluster-Version", "3.8.0")][..],
            412,
            "incompatible version\n",
        ),
        (
            stream,
            &[("X-Raft-To", "3")][..],
            412,
            "to field mismatch\n",
        ),
        (stream, &[("X-Raft-To", "")][..], 412, "to field mismatch\n"),
        (
            "GET /raft/stream/message/3",
            &[][..],
            404,
            "error sender not found\n",
        ),
        (
            "GET /raft/stream/message/xyz",
            &[][..],
            404,
            "invalid from\n",
        ),
        ("GET /raft/stream/other/2", &[][..], 404, "invalid path\n"),
        (
            "GET /raft/stream/message/dead",
            &[][..],
            410,
            "removed member\n",
        ),
        (
            "POST /raft/stream/message/2",
            &[][..],
            405,
            "Method Not Allowed\n",
        ),
        ("GET /raft", &[][..], 405, "Method Not Allowed\n"),
        (
            "POST /raft",
            &[("X-Etcd-Cluster-ID", "c2")][..],
            412,
            "cluster ID mismatch\n",
        ),
        (
            "POST /raft/snapshot",
            &[][..],
            400,
            "error decoding raft message: unexpected EOF\n",
        ),
        ("GET /raft/elsewhere", &[][..], 404, "404 page not found\n"),
    ];
    for (line, changes, status, text) in cases {
        let answer = ask(&one, line, changes, b"").await;
        check(&answer, status, text);
        if status != 404 || line.contains("stream") {
            let head = answer.to_ascii_lowercase();
            assert_eq!(
                head.contains("x-etcd-cluster-id: c1"),
                status != 405,
                "{line}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn posted_messages_are_taken_or_refused() {
    use prost::Message as _;
    let (mut one, _two) = pair().await;
    let post = async |message: Vec<u8>| ask(&one, "POST /raft", &[], &message).await;
    let message = |from, to| {
        quorate_proto::raftpb::Message {
            from,
            to,
            ..heartbeat(6)
        }
        .encode_to_vec()
    };
    check(&post(message(2, 1)).await, 204, "\r\n\r\n");
    check(
        &post(message(2, 5)).await,
        403,
        r#"{"message":"cannot process message to mismatch member"}"#,
    );
    check(
        &post(message(0xdead, 1)).await,
        403,
        r#"{"message":"cannot process message from removed member"}"#,
    );
    check(
        &post(b"\xff\xff".to_vec()).await,
        400,
        "error unmarshalling raft message\n",
    );
    assert_eq!(one.message().await.commit, 6);
}

#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let (one, mut two) = pair().await;
    two.wait_for_streams(one.id).await;
    one.wait_for_streams(two.id).await;
    let long_header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(4 << 20));
    let huge = "POST /raft HTTP/1.1\r\nHost: x\r\nX-Server-Version: 3.7.1\r\nX-Etcd-Cluster-ID: c1\r\n\
                X-Min-Cluster-Version: 3.0.0\r\nContent-Length: 18446744073709551615\r\n\r\n";
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        &[0; 100_000],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /raft HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        huge.as_bytes(),
        long_header.as_bytes(),
    ] {
        let mut stream = TcpStream::connect(one.address).await.expect("connects");
        // The port may hang up before it has read everything.
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    one.send(two.id, [heartbeat(3)]);
    assert_eq!(two.message().await.commit, 3);
    assert_eq!(one.transport.statuses()[0].disconnects, 0);
}

#[tokio::test]
async fn a_stream_of_garbage_is_dialled_again() {
    let mut one = Member::start(1).await;
    let liar = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let peer_urls = vec![format!("http://{}", liar.local_addr().expect("bound"))];
    one.transport
        .update_peers(vec![quorate_core::boundary::Peer {
            member: MemberId(2),
            peer_urls,
        }]);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\r\n";
    let mut dials = 0;
    while dials < 6 {
        let (mut stream, _) = liar.accept().await.expect("accepts");
        let mut request = vec![0; 1024];
        let read = stream.read(&mut request).await.expect("reads");
        if request[..read].starts_with(b"GET /raft/stream/") {
            dials += 1;
        }
        stream.write_all(answer).await.expect("is read");
        // Held open until the member has hung up.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    one.wait(MemberId(2), |status| status.received_failures >= 4)
        .await;
    one.send(MemberId(2), [heartbeat(1)]);
    drop(liar);
    while one.event().await != quorate_net::peer::PeerEvent::Unreachable(MemberId(2)) {}
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let one = Member::start(1).await;
    let (silent, slow) = tokio::join!(
        exchange(&one, b""),
        exchange(&one, b"GET /version HTTP/1.1\r\nHost:")
    );
    assert_eq!(silent, "");
    assert!(!slow.contains("200 OK"), "{slow}");
}

#[tokio::test]
async fn single_calls_are_answered() {
    let (one, two) = pair().await;
    let client = PeerClient::new(&Wire::new(Duration::from_secs(1)));
    let at = Endpoint::parse(&one.peer().peer_urls[0]).expect("a URL");

    let (cluster, members) = client.members(&at).await.expect("members");
    assert_eq!((cluster, members[0].id), (CLUSTER, 9));
    assert_eq!(
        client.versions(&at).await.expect("versions").cluster,
        "3.7.0"
    );
    assert!(!client.downgrade_enabled(&at).await.expect("downgrade"));

    let hash = client
        .hash_kv(&at, CLUSTER, Revision(0))
        .await
        .expect("hash");
    assert_eq!(
        (hash.hash, hash.compact_revision, hash.hash_revision),
        (4, -1, 10)
    );
    let refused = client
        .hash_kv(&at, CLUSTER, Revision(11))
        .await
        .expect_err("in the future")
        .to_string();
    assert!(
        refused.contains("400")
            && refused.ends_with("mvcc: required revision is a future revision"),
        "{refused}"
    );
    let refused = client
        .hash_kv(&at, ClusterId(5), Revision(0))
        .await
        .expect_err("foreign")
        .to_string();
    assert!(
        refused.contains("412") && refused.ends_with("cluster ID mismatch"),
        "{refused}"
    );

    assert_eq!(
        two.transport
            .lease_renew(one.id, LEASE)
            .await
            .expect("renewed"),
        60
    );
    let missing = two.transport.lease_renew(one.id, LeaseId(1)).await;
    assert!(matches!(missing, Err(CallError::NotFound(text)) if text == "lease not found"));
    let stuck = two.transport.lease_renew(one.id, LEASE_STUCK).await;
    assert!(matches!(stuck, Err(CallError::Timeout(_))));
    let unknown = two.transport.lease_renew(MemberId(50), LEASE).await;
    assert!(matches!(unknown, Err(CallError::UnknownMember)));
    let lease = two
        .transport
        .lease_time_to_live(one.id, LEASE, true)
        .await
        .expect("lease");
    assert_eq!(
        (lease.id, lease.ttl, lease.granted_ttl, lease.keys.len()),
        (LEASE.0, 5, 60, 1)
    );
    let missing = two
        .transport
        .lease_time_to_live(one.id, LeaseId(1), true)
        .await;
    assert!(matches!(missing, Err(CallError::NotFound(_))));
}

#[tokio::test]
async fn single_calls_check_their_method_and_size() {
    let one = Member::start(1).await;
    for path in [
        "/members",
        "/version",
        "/downgrade/enabled",
        "/members/hashkv",
    ] {
        check(
            &ask(&one, &format!("POST {path}"), &[], b"").await,
            405,
            "Method Not Allowed\n",
        );
    }
    check(
        &ask(&one, "GET /leases", &[], b"").await,
        405,
        "Method Not Allowed\n",
    );
    check(
        &ask(&one, "POST /leases", &[], &[0; 65_537]).await,
        413,
        "request body too large\n",
    );
    check(
        &ask(&one, "POST /leases", &[], b"\xff").await,
        400,
        "error unmarshalling request\n",
    );
    check(
        &ask(&one, "POST /leases/internal", &[], b"").await,
        400,
        "error unmarshalling request\n",
    );
    check(
        &ask(&one, "GET /members/hashkv", &[], b"no json").await,
        400,
        "error unmarshalling request\n",
    );
    check(
        &ask(&one, "GET /elsewhere", &[], b"").await,
        404,
        "404 page not found\n",
    );
    let probe = ask(&one, "GET /raft/probing", &[], b"").await;
    assert!(probe.contains(r#"{"OK":true,"Now":"20"#), "{probe}");
}

#[tokio::test]
async fn many_idle_connections_do_not_keep_a_member_out() {
    let one = Arc::new(Member::start(1).await);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(one.address).await.expect("connects"));
    }
    let client = PeerClient::new(&Wire::new(Duration::from_secs(1)));
    let at = Endpoint::parse(&one.peer().peer_urls[0]).expect("a URL");
    client.versions(&at).await.expect("is answered");
}
