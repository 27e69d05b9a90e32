//! A cluster of three: agreement, and what happens when one is gone.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::support::Member;

fn put(key: String) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::from(key),
        value: Bytes::from_static(b"v"),
        ..Default::default()
    }
}

pub(crate) fn start(members: &mut [Member]) {
    for member in members.iter_mut() {
        member.launch();
    }
    for member in members.iter() {
        member.wait_ready();
    }
}

pub(crate) async fn has(member: &Member, key: &str, serializable: bool) -> bool {
    let range = pb::RangeRequest {
        key: Bytes::from(key.to_owned()),
        serializable,
        ..Default::default()
    };
    member
        .kv()
        .await
        .range(range)
        .await
        .expect("there is a leader")
        .into_inner()
        .count
        == 1
}

/// The index of the leader, once one member knows it.
pub(crate) async fn leader(members: &[Member]) -> usize {
    let status = members[0]
        .maintenance()
        .await
        .status(pb::StatusRequest {})
        .await
        .expect("it is local")
        .into_inner();
    let list = members[0]
        .membership()
        .await
        .member_list(pb::MemberListRequest { linearizable: true })
        .await;
    let list = list.expect("there is a leader").into_inner().members;
    let leader = list
        .iter()
        .find(|member| member.id == status.leader)
        .expect("a member leads");
    leader.name[1..]
        .parse()
        .expect("members are called m0, m1, m2")
}

#[tokio::test]
async fn a_write_to_any_member_is_read_from_every_member() {
    let mut members = Member::cluster(3);
    start(&mut members);
    for (number, member) in members.iter().enumerate() {
        member
            .kv()
            .await
            .put(put(format!("from-{number}")))
            .await
            .expect("there is a quorum");
    }
    for member in &members {
        for number in 0..3 {
            assert!(has(member, &format!("from-{number}"), false).await);
        }
    }
}

#[tokio::test]
async fn leases_are_served_by_followers_too() {
    let mut members = Member::cluster(3);
    start(&mut members);
    let leader = leader(&members).await;
    let mut lease = members[(leader + 1) % 3].lease().await;
    let granted = lease
        .lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 9 })
        .await
        .expect("there is a quorum");
    assert_eq!(granted.into_inner().id, 9);
    let one = tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 9 }]);
    let mut renewed = lease
        .lease_keep_alive(one)
        .await
        .expect("it is legal")
        .into_inner();
    let renewed = renewed
        .message()
        .await
        .expect("no error")
        .expect("an answer");
    assert_eq!((renewed.id, renewed.ttl), (9, 60));
    let left = lease
        .lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 9, keys: false })
        .await;
    assert_eq!(
        left.expect("there is a leader").into_inner().granted_ttl,
        60
    );
}

#[tokio::test]
async fn two_of_three_go_on_and_the_third_catches_up() {
    let mut members = Member::cluster(3);
    start(&mut members);
    members[0]
        .kv()
        .await
        .put(put("before".to_owned()))
        .await
        .expect("there is a quorum");
    let gone = leader(&members).await;
    members[gone].kill();
    let other = (gone + 1) % 3;
    // The first tries may meet the old leader's absence: etcd's clients see the same.
    let mut kv = members[other].kv().await;
    while kv.put(put("between".to_owned())).await.is_err() {}
    members[gone].start();
    assert!(has(&members[gone], "before", false).await);
    assert!(has(&members[gone], "between", false).await);
}

#[tokio::test]
async fn a_member_that_lost_its_data_does_not_begin_anew() {
    let mut members = Member::cluster(3);
    start(&mut members);
    members[2].kill();
    std::fs::remove_dir_all(members[2].data_dir()).expect("the data is there");
    members[2].launch();
    let (status, log) = members[2].wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("has already been bootstrapped"), "{log}");
}
