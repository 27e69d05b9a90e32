//! Peers that are not whom they say they are, or belong elsewhere.

use std::process::Command;

use crate::changes::put;
use crate::support::Member;
use crate::three_members::{has, start};

#[tokio::test]
async fn two_processes_with_the_data_of_one_member_are_noticed_by_the_others() {
    let mut members = Member::cluster(3);
    start(&mut members);
    put(&members[0], "before").await;
    assert!(members[2].terminate().success());
    let mut rival = Member::cluster(1).remove(0);
    let copied = Command::new("cp")
        .arg("-r")
        .args([members[2].data_dir(), rival.data_dir()])
        .status();
    assert!(copied.expect("there is cp").success());
    members[2].start();
    put(&members[0], "between").await;
    assert!(
        !members[0].has_logged("the data of one member"),
        "a restart is none"
    );

    rival.launch();
    for member in &members[..2] {
        member.wait_for_log("two processes run with the data of one member");
    }
    rival.kill();
    put(&members[0], "after").await;
    for key in ["before", "between", "after"] {
        assert!(has(&members[2], key, false).await, "{key}");
    }
}

#[test]
fn founders_with_different_tokens_are_two_clusters_that_refuse_each_other() {
    let tokens = ["--initial-cluster-token=a", "--initial-cluster-token=b"];
    let members = Member::cluster(2).into_iter().zip(tokens);
    let mut members: Vec<_> = members
        .map(|(member, token)| member.with(&[token]))
        .collect();
    for member in &mut members {
        member.launch();
    }
    for member in &members {
        member.wait_for_log("cluster ID mismatch");
    }
    for member in &mut members {
        assert!(!member.has_logged("ready to serve client requests"));
        assert!(member.terminate().success());
    }
}
