//! Members that find each other in DNS.

use std::net::Ipv4Addr;

use quorate_net::srv::{Directory, Place};
use quorate_proto::etcdserverpb as pb;

use crate::changes::put;
use crate::name_server::{Zone, in_own_network};
use crate::support::Member;
use crate::three_members::{has, start};

const SERVICE: &str = "_etcd-server._tcp.cluster.test.";

fn place(host: &str, port: u16) -> Place {
    let host = host.to_owned();
    Place { host, port }
}

#[tokio::test]
async fn places_come_in_the_order_of_their_priority_and_who_offers_nothing_is_named() {
    let zone = Zone::default()
        .service(SERVICE, 2, "b.test.", 2)
        .service(SERVICE, 1, "a.test.", 1)
        .host("nothing.test.", Ipv4Addr::LOCALHOST);
    let server = zone.serve("127.0.0.1:0");
    let directory = Directory::at(server);
    let found = directory.places("etcd-server", "cluster.test").await;
    assert_eq!(found.unwrap(), [place("a.test.", 1), place("b.test.", 2)]);
    let error = directory.places("etcd-server", "nowhere.test").await;
    assert_eq!(
        error.unwrap_err().to_string(),
        format!("lookup _etcd-server._tcp.nowhere.test on {server}: no such host")
    );
}

/// DNS in place of a list of members.
fn by_dns(member: Member) -> Member {
    member.with(&["--initial-cluster", "", "--discovery-srv", "cluster.test"])
}

#[test]
fn members_found_a_cluster_that_dns_lists() {
    in_own_network("srv::with_dns_of_its_own");
}

#[tokio::test]
#[ignore = "it needs a network of its own, which another test gives it"]
async fn with_dns_of_its_own() {
    let mut members: Vec<_> = Member::cluster(3).into_iter().map(by_dns).collect();
    let mut zone = Zone::default();
    for (number, member) in members.iter().enumerate() {
        let host = format!("m{number}.cluster.test.");
        let (_, port) = member.peer_url.rsplit_once(':').expect("it has a port");
        let port = port.parse().expect("a port");
        zone = zone
            .service(SERVICE, 0, &host, port)
            .host(&host, Ipv4Addr::LOCALHOST);
    }
    zone.serve("127.0.0.1:53");
    let mut stranger = by_dns(Member::cluster(1).remove(0));
    stranger.launch();
    let (status, log) = stranger.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("cannot find local etcd member \\\"m0\\\" in SRV records"),
        "{log}"
    );

    start(&mut members);
    put(&members[0], "key").await;
    for member in &members {
        assert!(has(member, "key", false).await);
    }
    let request = pb::MemberListRequest { linearizable: true };
    let listed = members[0].membership().await.member_list(request).await;
    let listed = listed.expect("it serves").into_inner().members;
    let mut names: Vec<_> = listed.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["m0", "m1", "m2"]);
    let url = &listed[0].peer_urls[0];
    assert!(url.contains(".cluster.test:"), "{url}");

    // Who has data does not ask again.
    members[1].kill();
    let restarted = members.remove(1).with(&["--discovery-srv", "nowhere.test"]);
    members.push(restarted);
    members[2].start();
    assert!(has(&members[2], "key", false).await);
}
