//! A cluster on its way to the version before, and back.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use tonic::{Code, Status};

use crate::support::Member;
use crate::three_members::start;

async fn ask(member: &Member, action: DowngradeAction, version: &str) -> Result<String, Status> {
    let request = pb::DowngradeRequest {
        action: action.into(),
        version: version.to_owned(),
    };
    let answer = member.maintenance().await.downgrade(request).await?;
    Ok(answer.into_inner().version)
}

async fn status(member: &Member) -> pb::StatusResponse {
    let mut maintenance = member.maintenance().await;
    let status = maintenance.status(pb::StatusRequest {}).await;
    status.expect("it serves").into_inner()
}

/// Waits for the log's word of a cluster version, which comes after `seen` other ones.
async fn is_at(member: &Member, version: &str) {
    loop {
        if status(member).await.storage_version == version {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cluster_goes_down_by_one_minor_version_and_comes_back_when_that_is_cancelled() {
    let mut members = Member::cluster(3);
    start(&mut members);
    for member in &members {
        is_at(member, "3.7.0").await;
    }
    use DowngradeAction::{Cancel, Enable, Validate};
    for (version, code, words) in [
        (
            "",
            Code::InvalidArgument,
            "etcdserver: wrong downgrade target version format",
        ),
        (
            "x",
            Code::InvalidArgument,
            "etcdserver: wrong downgrade target version format",
        ),
        (
            "3.5.0",
            Code::InvalidArgument,
            "etcdserver: invalid downgrade target version",
        ),
        (
            "3.7.0",
            Code::InvalidArgument,
            "etcdserver: invalid downgrade target version",
        ),
    ] {
        for action in [Validate, Enable] {
            let refused = ask(&members[1], action, version)
                .await
                .expect_err("no target");
            assert_eq!(
                (refused.code(), refused.message()),
                (code, words),
                "{version}"
            );
        }
    }
    // etcd says so as well, whether or not there was anything to cancel.
    assert_eq!(
        ask(&members[0], Cancel, "").await.expect("it is admin's"),
        "3.7"
    );
    assert_eq!(
        ask(&members[0], Validate, "3.6").await.expect("one down"),
        "3.7"
    );
    ask(&members[1], Enable, "3.6.0").await.expect("one down");
    let refused = ask(&members[2], Validate, "3.5.0").await;
    assert!(refused.is_err(), "whichever version the cluster has by now");
    for member in &members {
        member.wait_for_log("The server is ready to downgrade");
        let status = status(member).await;
        assert_eq!(status.storage_version, "3.6.0");
        let wanted = pb::DowngradeInfo {
            enabled: true,
            target_version: "3.6.0".to_owned(),
        };
        assert_eq!(status.downgrade_info, Some(wanted));
    }
    let refused = ask(&members[2], Enable, "3.5.0")
        .await
        .expect_err("one is under way");
    assert_eq!(
        refused.message(),
        "etcdserver: cluster has a downgrade job in progress"
    );

    // It is kept.
    assert!(members[2].terminate().success());
    members[2].start();
    assert!(
        status(&members[2])
            .await
            .downgrade_info
            .expect("always")
            .enabled
    );
    ask(&members[2], Cancel, "").await.expect("it ends");
    for member in &members {
        is_at(member, "3.7.0").await;
        assert_eq!(
            status(member).await.downgrade_info,
            Some(pb::DowngradeInfo::default())
        );
    }
}
