//! The HTTP pages beside gRPC on one port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::support::{Member, free_port};

/// Status line and body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the member listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .expect("the member reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the member answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (
        head.lines().next().expect("a head has a status").to_owned(),
        body.to_owned(),
    )
}

#[tokio::test]
async fn health_version_and_metrics_share_the_port_with_grpc() {
    let member = Member::alone();
    let address = member.client_address();
    let health = get(&address, "/health");
    assert_eq!(health.0, "HTTP/1.1 200 OK");
    assert_eq!(health.1, r#"{"health":"true","reason":""}"#);
    assert_eq!(
        get(&address, "/readyz"),
        ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned())
    );
    assert!(
        get(&address, "/version")
            .1
            .contains(r#""etcdserver":"3.7.1""#)
    );

    let put = pb::PutRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    member.kv().await.put(put).await.expect("it is legal");
    let (status, metrics) = get(&address, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "etcd_server_has_leader 1",
        "etcd_debugging_mvcc_keys_total 1",
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "no {line} in\n{metrics}"
        );
    }
    let syncs = metrics
        .lines()
        .find_map(|line| line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count "));
    assert_ne!(syncs.expect("syncs are counted"), "0");
}

#[tokio::test]
async fn http_and_metrics_can_have_ports_of_their_own() {
    let (http, metrics) = (free_port(), free_port());
    let mut member = Member::cluster(1).remove(0).with(&[
        "--listen-client-http-urls",
        &format!("http://127.0.0.1:{http}"),
        "--listen-metrics-urls",
        &format!("http://127.0.0.1:{metrics}"),
    ]);
    member.start();
    assert!(get(&member.client_address(), "/health").0.contains("404"));
    let (http, metrics) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{metrics}"));
    assert!(get(&http, "/version").0.contains("200"));
    assert!(get(&metrics, "/health").0.contains("200"));
    assert!(get(&metrics, "/version").0.contains("404"));
    let get = pb::RangeRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    assert_eq!(
        member
            .kv()
            .await
            .range(get)
            .await
            .expect("it is legal")
            .into_inner()
            .count,
        0
    );
}
