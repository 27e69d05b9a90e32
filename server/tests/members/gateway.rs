//! `quorate gateway start` between real clients and real members.

use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb as pb;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::ports::free_port;
use crate::support::{Member, Proxy};

const READY: &str = "ready to proxy client requests";

/// The member that answers on a new connection, by its id.
async fn answers(gateway: &Proxy) -> u64 {
    let range = pb::RangeRequest {
        key: "k".into(),
        ..pb::RangeRequest::default()
    };
    let answered = KvClient::new(gateway.channel().await).range(range).await;
    let header = answered.expect("it is carried").into_inner().header;
    header.expect("there is one").member_id
}

#[tokio::test]
async fn connections_go_to_the_members_in_turn() {
    let (one, other) = (Member::alone(), Member::alone());
    let endpoints = format!("http://{},{}", one.client_address(), other.client_address());
    let gateway = Proxy::start("gateway", &["--endpoints", &endpoints], READY);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(answers(&gateway).await);
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[..2], seen[2..]);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_left_alone_until_it_takes_connections_again() {
    let mut member = Member::cluster(1).remove(0);
    let endpoints = format!("127.0.0.1:{},{}", free_port(), member.client_address());
    let flags = ["--endpoints", &endpoints, "--retry-delay", "100ms"];
    let gateway = Proxy::start("gateway", &flags, READY);
    // Nobody is there: a client is let go without a word.
    let mut client = TcpStream::connect(gateway.address())
        .await
        .expect("it listens");
    let said = client.read(&mut [0; 1]).await;
    assert!(matches!(said, Ok(0) | Err(_)), "{said:?}");
    gateway.wait_for_log("deactivated endpoint");
    gateway.wait_for_log("failed to activate endpoint");
    member.start();
    gateway.wait_for_log("\"msg\":\"activated\"");
    let first = answers(&gateway).await;
    assert_eq!(
        answers(&gateway).await,
        first,
        "the other one is still away"
    );
}
