//! A quota that is used up, and what helps then.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::request_op::Request;
use tonic::{Code, Status};

use crate::support::Member;
use crate::three_members::start;

const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const QUOTA: [&str; 2] = ["--quota-backend-bytes", "100000"];

fn put_of(key: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(vec![b'v'; 1_000]),
        ..Default::default()
    }
}

async fn put(member: &Member, key: &str) -> Result<i64, Status> {
    let put = member.kv().await.put(put_of(key)).await?;
    Ok(put.into_inner().header.expect("there is one").revision)
}

async fn alarms(member: &Member) -> Vec<pb::AlarmMember> {
    let mut maintenance = member.maintenance().await;
    let answer = maintenance.alarm(pb::AlarmRequest::default()).await;
    answer.expect("alarms are listed").into_inner().alarms
}

async fn disarm(member: &Member, alarm: pb::AlarmMember) -> Vec<pb::AlarmMember> {
    let request = pb::AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: alarm.member_id,
        alarm: alarm.alarm,
    };
    let answer = member.maintenance().await.alarm(request).await;
    answer.expect("there is a leader").into_inner().alarms
}

async fn status(member: &Member) -> pb::StatusResponse {
    let mut maintenance = member.maintenance().await;
    let status = maintenance.status(pb::StatusRequest {}).await;
    status.expect("it serves").into_inner()
}

fn is_no_space(refused: &Status) -> bool {
    (refused.code(), refused.message()) == (Code::ResourceExhausted, NO_SPACE)
}

/// Fills a member until it refuses; the last revision.
async fn fill(member: &Member) -> i64 {
    let mut last = 0;
    for number in 0..1_000 {
        match put(member, &format!("key{number}")).await {
            Ok(revision) => last = revision,
            Err(refused) => {
                assert!(is_no_space(&refused), "{refused:?}");
                return last;
            }
        }
    }
    panic!("the quota is never used up");
}

#[tokio::test]
async fn a_used_up_quota_stops_what_grows_on_every_member_until_it_is_disarmed() {
    let members = Member::cluster(3).into_iter();
    let mut members: Vec<_> = members.map(|member| member.with(&QUOTA)).collect();
    start(&mut members);
    let last = fill(&members[0]).await;
    let before = status(&members[0]).await;
    assert_eq!(before.db_size_quota, 100_000);
    assert!((50_000..100_000).contains(&before.db_size), "{before:?}");
    let raised = alarms(&members[1]).await;
    let id = before.header.expect("there is one").member_id;
    let wanted = pb::AlarmMember {
        member_id: id,
        alarm: pb::AlarmType::Nospace.into(),
    };
    assert_eq!(raised, [wanted]);
    assert!(
        before.errors[0].contains("alarm:NOSPACE"),
        "{:?}",
        before.errors
    );
    // What was refused was not done.
    assert_eq!(before.header.expect("there is one").revision, last);

    let refused = put(&members[1], "key").await.expect_err("an alarm");
    assert!(is_no_space(&refused), "{refused:?}");
    let mut kv = members[2].kv().await;
    let with = |request| pb::TxnRequest {
        failure: vec![pb::RequestOp {
            request: Some(request),
        }],
        ..Default::default()
    };
    let refused = kv.txn(with(Request::RequestPut(put_of("key")))).await;
    assert!(is_no_space(&refused.expect_err("it has a put")));
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 60 };
    let refused = members[1].lease().await.lease_grant(grant).await;
    assert!(is_no_space(&refused.expect_err("a lease takes space")));

    // What frees space goes on.
    let range = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"key"),
        range_end: Bytes::from_static(b"kez"),
        ..Default::default()
    };
    kv.delete_range(range.clone())
        .await
        .expect("it frees space");
    kv.txn(with(Request::RequestDeleteRange(range)))
        .await
        .expect("it frees space");
    let compaction = pb::CompactionRequest {
        revision: last + 1,
        physical: true,
    };
    kv.compact(compaction).await.expect("it frees space");
    for member in &members {
        let mut maintenance = member.maintenance().await;
        let defragment = maintenance.defragment(pb::DefragmentRequest {}).await;
        defragment.expect("it is local");
    }
    let after = status(&members[0]).await;
    assert!(after.db_size < before.db_size / 4, "{after:?}");
    let refused = put(&members[0], "key").await.expect_err("an alarm");
    assert!(is_no_space(&refused), "it does not clear by itself");

    // Nor by a restart.
    assert!(members[1].terminate().success());
    members[1].start();
    let raised = alarms(&members[1]).await;
    // Each member that was asked had no space of its own, and said so.
    assert_eq!(raised.len(), 3, "{raised:?}");
    let refused = put(&members[1], "key").await.expect_err("an alarm");
    assert!(is_no_space(&refused), "{refused:?}");

    for alarm in raised {
        let refused = put(&members[1], "key").await.expect_err("one is left");
        assert!(is_no_space(&refused), "{refused:?}");
        assert_eq!(disarm(&members[2], alarm).await, [alarm]);
    }
    assert_eq!(disarm(&members[2], wanted).await, [], "it is gone");
    put(&members[1], "key").await.expect("there is space");
}

#[tokio::test]
async fn a_negative_quota_is_none() {
    let mut members: Vec<_> = Member::cluster(1)
        .into_iter()
        .map(|member| member.with(&["--quota-backend-bytes", "-1"]))
        .collect();
    start(&mut members);
    for number in 0..10 {
        put(&members[0], &format!("key{number}"))
            .await
            .expect("no quota");
    }
    assert_eq!(status(&members[0]).await.db_size_quota, -1);
}
