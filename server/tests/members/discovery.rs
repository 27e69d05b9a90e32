//! Members that find each other by a token, in a cluster that runs already.

use quorate_proto::etcdserverpb as pb;

use crate::changes::{member_ids, put};
use crate::support::Member;
use crate::three_members::{has, start};

async fn plan(service: &Member, token: &str, size: &str) {
    write(
        service,
        format!("/_etcd/registry/{token}/_config/size"),
        size,
    )
    .await;
}

async fn write(service: &Member, key: String, value: &str) {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    service.kv().await.put(request).await.expect("it serves");
}

fn refusal(mut member: Member) -> String {
    member.launch();
    let (status, log) = member.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[tokio::test]
async fn members_found_a_cluster_through_a_token_until_it_is_full() {
    let service = Member::alone();
    plan(&service, "t1", "3").await;
    let mut members: Vec<_> = (0..3)
        .map(|number| Member::discovering(&service, number, "t1"))
        .collect();
    // One that has to wait for the others can be told to end, and comes back as the same member.
    members[1].launch();
    members[1].wait_for_log("waiting for peers from discovery service");
    assert!(members[1].terminate().success());
    start(&mut members);
    put(&members[0], "key").await;
    let ids = member_ids(&members[0]).await;
    assert_eq!(ids.len(), 3);
    for member in &members {
        assert!(has(member, "key", false).await);
        assert_eq!(member_ids(member).await, ids);
    }
    let late = refusal(Member::discovering(&service, 3, "t1"));
    assert!(late.contains("failed to join discovery cluster (discovery: cluster is full)"));
    assert!(late.contains("do not reuse discovery token"), "{late}");

    // Who has data needs the service no more.
    drop(service);
    members[2].kill();
    members[2].start();
    assert!(has(&members[2], "key", false).await);
}

#[tokio::test]
async fn a_token_that_nobody_has_planned_well_is_refused_in_etcds_words() {
    let service = Member::alone();
    let log = refusal(Member::discovering(&service, 0, "unknown"));
    assert!(log.contains("(discovery: size key not found)"), "{log}");
    for (token, size) in [("zero", "0"), ("word", "three")] {
        plan(&service, token, size).await;
        let log = refusal(Member::discovering(&service, 0, token));
        assert!(log.contains("(discovery: size key is bad)"), "{log}");
    }
    plan(&service, "bad", "2").await;
    write(
        &service,
        "/_etcd/registry/bad/members/1".into(),
        "m9=nonsense",
    )
    .await;
    let log = refusal(Member::discovering(&service, 0, "bad"));
    assert!(log.contains("(discovery: invalid peer URL)"), "{log}");

    plan(&service, "twice", "2").await;
    let twin = Member::discovering(&service, 0, "twice");
    let entry = format!("m8={}", twin.peer_url);
    write(&service, "/_etcd/registry/twice/members/1".into(), &entry).await;
    let log = refusal(twin);
    assert!(log.contains("has duplicate url"), "{log}");
}
