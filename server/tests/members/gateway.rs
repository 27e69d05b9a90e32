//! `quorate gateway start` between real clients and real members.

use std::net::Ipv4Addr;

use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb as pb;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::name_server::{Zone, in_own_network};
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

#[test]
fn dns_lists_the_members() {
    in_own_network("gateway::with_dns_of_its_own");
}

#[tokio::test]
#[ignore = "it needs a network of its own, which another test gives it"]
async fn with_dns_of_its_own() {
    let member = Member::alone();
    let address = member.client_address();
    let (_, port) = address.rsplit_once(':').expect("it has a port");
    let port = port.parse().expect("a port");
    Zone::default()
        .service(
            "_etcd-client._tcp.cluster.test.",
            0,
            "m1.cluster.test.",
            port,
        )
        .host("m1.cluster.test.", Ipv4Addr::LOCALHOST)
        .serve("127.0.0.1:53");
    let by_dns = ["--discovery-srv", "cluster.test"];
    let trusting = [&by_dns[..], &["--insecure-discovery"]].concat();
    let gateway = Proxy::start("gateway", &trusting, READY);
    let known = answers(&gateway).await;
    let proxy = Proxy::start("grpc-proxy", &trusting, "started gRPC proxy");
    assert_eq!(answers(&proxy).await, known);
    // What is not secure is not used: the default endpoint counts.
    let careful = Proxy::start("gateway", &by_dns, READY);
    careful.wait_for_log("is insecure");
    careful.wait_for_log("127.0.0.1:2379");
}
