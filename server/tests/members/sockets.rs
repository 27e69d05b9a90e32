//! Other sockets than a TCP port of one's own: Unix sockets, and a port that several processes share.

use std::time::Duration;

use quorate_net::client::{Client, Config};
use quorate_proto::etcdserverpb as pb;

use crate::support::Member;

fn client(endpoint: &str) -> Client {
    let endpoints = vec![endpoint.parse().expect("an endpoint")];
    let config = Config {
        endpoints,
        call_timeout: Some(Duration::from_secs(30)),
        ..Config::default()
    };
    Client::new(config).expect("it has an endpoint")
}

async fn put_and_get(to: &Client, from: &Client) {
    // A read waits for a leader; a write to one that has just died would be lost.
    let range = pb::RangeRequest {
        key: "k".into(),
        ..pb::RangeRequest::default()
    };
    to.range(range.clone()).await.expect("there is a leader");
    let put = pb::PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..pb::PutRequest::default()
    };
    to.put(put).await.expect("it is written");
    let answer = from.range(range).await.expect("it is read");
    assert_eq!(&answer.kvs[0].value[..], b"v");
}

#[tokio::test]
async fn members_and_clients_meet_on_unix_sockets() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = |name: &str| format!("unix://{}/{name}.sock", directory.path().display());
    let peers = [socket("peer0"), socket("peer1")];
    let cluster = format!("m0={},m1={}", peers[0], peers[1]);
    let mut members: Vec<_> = Member::cluster(2)
        .into_iter()
        .zip(&peers)
        .enumerate()
        .map(|(number, (member, peer))| {
            let client = socket(&format!("client{number}"));
            member.with(&[
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
                "--initial-cluster",
                &cluster,
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
        })
        .collect();
    members.iter_mut().for_each(Member::launch);
    members.iter().for_each(Member::wait_ready);
    put_and_get(&client(&socket("client0")), &client(&socket("client1"))).await;
    // What a killed process leaves behind is no obstacle.
    members[0].kill();
    members[0].start();
    put_and_get(&client(&socket("client1")), &client(&socket("client0"))).await;
    assert!(members[0].terminate().success());
    assert!(!directory.path().join("client0.sock").exists());
    assert!(!directory.path().join("peer0.sock").exists());
}

#[tokio::test]
async fn a_port_is_shared_only_by_those_who_ask_for_it() {
    let mut first = Member::cluster(1).remove(0).with(&["--socket-reuse-port"]);
    first.start();
    let shared = format!("http://{}", first.client_address());
    let on_the_same_port = |member: Member| member.with(&["--listen-client-urls", &shared]);
    let mut second = on_the_same_port(Member::cluster(1).remove(0)).with(&["--socket-reuse-port"]);
    second.start();
    let mut third = on_the_same_port(Member::cluster(1).remove(0));
    third.launch();
    let (status, log) = third.wait_exit();
    assert!(!status.success());
    assert!(log.contains("in use"), "{log}");
}
