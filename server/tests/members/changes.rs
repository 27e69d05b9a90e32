//! A cluster whose members change while it runs.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use tonic::{Code, Status};

use crate::support::Member;
use crate::three_members::has;

const UNHEALTHY: &str = "etcdserver: unhealthy cluster";
const NOT_READY: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";

/// How long a refusal that passes by itself may last.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tries something until it is no longer refused for a reason that passes by itself.
async fn until_taken<T>(passing: &str, attempt: impl AsyncFn() -> Result<T, Status>) -> T {
    // A learner that was just promoted may not have heard of it.
    let known = [passing, "etcdserver: rpc not supported for learner"];
    let mut attempts = tokio::time::interval(Duration::from_millis(50));
    let taken = tokio::time::timeout(PATIENCE, async {
        loop {
            attempts.tick().await;
            match attempt().await {
                Ok(taken) => return taken,
                Err(refusal) => assert!(known.contains(&refusal.message()), "{refusal:?}"),
            }
        }
    });
    taken
        .await
        .unwrap_or_else(|_| panic!("still refused: {passing}"))
}

/// Adds a member that will start then; gives its id. Links that are younger than five seconds do not count, so that the
/// first tries may be refused.
pub(crate) async fn add(running: &Member, joining: &Member, is_learner: bool) -> u64 {
    let request = pb::MemberAddRequest {
        peer_urls: vec![joining.peer_url.clone()],
        is_learner,
    };
    let added = until_taken(UNHEALTHY, async || {
        running.membership().await.member_add(request.clone()).await
    });
    let added = added.await.into_inner();
    added.member.expect("it was added").id
}

async fn promote(asked: &Member, id: u64) {
    until_taken(NOT_READY, async || {
        let request = pb::MemberPromoteRequest { id };
        asked.membership().await.member_promote(request).await
    })
    .await;
}

async fn remove(asked: &Member, id: u64) {
    until_taken(UNHEALTHY, async || {
        let request = pb::MemberRemoveRequest { id };
        asked.membership().await.member_remove(request).await
    })
    .await;
}

pub(crate) async fn put(member: &Member, key: &str) {
    let put = pb::PutRequest {
        key: Bytes::from(key.to_owned()),
        ..Default::default()
    };
    // A leader that was removed is missed for a moment.
    while let Err(error) = member.kv().await.put(put.clone()).await {
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    }
}

/// Whom the cluster consists of, by a linearizable read.
pub(crate) async fn member_ids(asked: &Member) -> Vec<u64> {
    let request = pb::MemberListRequest { linearizable: true };
    let list = asked.membership().await.member_list(request).await;
    let list = list.expect("there is a leader").into_inner().members;
    list.iter().map(|member| member.id).collect()
}

#[tokio::test]
async fn one_member_becomes_three_and_one_again() {
    let mut members = vec![Member::alone()];
    put(&members[0], "alone").await;

    let mut learner = Member::joining(&members, 1);
    let second = add(&members[0], &learner, true).await;
    learner.start();
    promote(&members[0], second).await;
    members.push(learner);

    let mut voter = Member::joining(&members, 2);
    let third = add(&members[1], &voter, false).await;
    voter.start();
    members.push(voter);
    for (number, member) in members.iter().enumerate() {
        put(member, &format!("three-{number}")).await;
    }
    for member in &members {
        assert!(has(member, "alone", false).await && has(member, "three-2", false).await);
    }

    let request = pb::MemberRemoveRequest { id: 77 };
    let unknown = members[0].membership().await.member_remove(request).await;
    assert_eq!(
        unknown.unwrap_err().message(),
        "etcdserver: member not found"
    );

    let status = members[0].maintenance().await;
    let first = { status }.status(pb::StatusRequest {}).await;
    let first = first
        .expect("it is local")
        .into_inner()
        .header
        .unwrap()
        .member_id;
    for id in [first, second] {
        let stays = members.last().expect("the last one stays");
        remove(stays, id).await;
        let (status, log) = members[0].wait_exit();
        assert!(status.success(), "{log}");
        assert!(
            log.contains("the member has been permanently removed"),
            "{log}"
        );
        members.remove(0);
        put(members.last().expect("it stays"), &format!("without-{id}")).await;
    }
    assert_eq!(member_ids(&members[0]).await, [third]);
}

#[tokio::test]
async fn a_member_that_was_not_added_as_it_says_does_not_join() {
    let running = [Member::alone()];
    let mut stranger = Member::joining(&running, 1);
    stranger.launch();
    let (status, log) = stranger.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("member count is unequal"), "{log}");

    let added = Member::joining(&running, 1);
    add(&running[0], &added, true).await;
    let mut moved = Member::joining(&running, 1);
    moved.launch();
    let (status, log) = moved.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("unmatched member while checking PeerURLs"),
        "{log}"
    );
}
