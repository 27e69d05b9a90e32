//! A follower that was away for so long that the log no longer has what it needs.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::support::Member;
use crate::three_members::{has, leader, start};

/// More than two segments of the log, so that the first ones are purged.
const PUTS: usize = 100;
const VALUE_BYTES: usize = 1_400_000;

#[tokio::test]
async fn a_follower_that_was_away_past_the_purge_gets_a_snapshot_even_if_it_is_killed_meanwhile() {
    let mut members = Member::cluster(3);
    start(&mut members);
    let leader = leader(&members).await;
    let away = (leader + 1) % 3;
    members[away].kill();
    let mut kv = members[leader].kv().await;
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    for number in 0..PUTS {
        let put = pb::PutRequest {
            key: Bytes::from(format!("key{number}")),
            value: value.clone(),
            ..Default::default()
        };
        kv.put(put).await.expect("two of three are a quorum");
    }
    members[leader].wait_for_log("purged log files");

    members[away].launch();
    members[away].wait_for_log("receiving database snapshot");
    members[away].kill();
    members[away].launch();
    members[away].wait_for_log("installed a snapshot");
    members[away].wait_ready();
    let last = format!("key{}", PUTS - 1);
    assert!(has(&members[away], &last, false).await);

    // What it installed is there after the next crash, too, and nothing is left over.
    members[away].kill();
    members[away].start();
    assert!(has(&members[away], &last, false).await);
    let mut hashes = Vec::new();
    for member in &members {
        let request = pb::HashKvRequest { revision: 0 };
        let answer = member.maintenance().await.hash_kv(request).await;
        hashes.push(answer.expect("it can be hashed").into_inner().hash);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let directory = members[away].data_dir().join("member/snap");
    let names = std::fs::read_dir(directory).expect("it is there");
    let names: Vec<_> = names
        .map(|entry| entry.expect("readable").file_name().into_string())
        .map(|name| name.expect("ASCII"))
        .collect();
    let is_arrival = |name: &String| name.starts_with("tmp") || name.ends_with(".snap.db");
    assert!(!names.iter().any(is_arrival), "{names:?}");
}
