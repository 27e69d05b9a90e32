//! Members whose data differ: who is named, and what is still possible afterwards.

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::{Request, Response};
use quorate_core::checkpoint::{self, DATABASE, Job};
use quorate_core::disk::{Disk as _, DiskFile as _};
use quorate_core::mvcc::{Row, Store};
use quorate_core::{MemberId, RequestError};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::cluster::Cluster;

/// Three members with a few keys and a checkpoint each, which are compared from then on.
fn compared(everything: bool, compactions: bool) -> Cluster {
    let mut cluster = Cluster::new(3);
    (cluster.compares, cluster.compares_compactions) = (everything, compactions);
    for number in 0..5 {
        let ticket = cluster.put(1, &format!("key{number}"), "value");
        cluster.answer(ticket).unwrap();
    }
    for id in 1..=3 {
        let ticket = cluster.request(id, |_| Request::Checkpoint);
        cluster.answer(ticket).unwrap();
    }
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.run_until("a leader", |cluster| {
        cluster.nodes.values().any(|node| node.is_leader())
    });
    cluster
}

/// Ends a member's process and gives its newest key another value in its image, soundly written.
fn corrupt(cluster: &mut Cluster, id: u64) {
    alter(cluster, id, |rows| {
        let newest = rows.last_mut().expect("there are keys");
        let mut record = KeyValue::decode(newest.key_value.clone()).unwrap();
        record.value = Bytes::from_static(b"other");
        newest.key_value = Bytes::from(record.encode_to_vec());
    });
}

/// Ends a member's process, changes the rows of its image, soundly written, and starts it again.
fn alter(cluster: &mut Cluster, id: u64, change: impl FnOnce(&mut Vec<Row>)) {
    cluster.nodes.remove(&id);
    let files = &mut cluster.disks.get_mut(&id).unwrap().files;
    let image = files.open(DATABASE).unwrap().read().unwrap();
    let loaded = checkpoint::load(image).unwrap();
    let mut rows: Vec<Row> = loaded.rows.map(Result::unwrap).collect();
    change(&mut rows);
    let contents = loaded.contents;
    let rows = rows.into_iter().map(Ok::<_, ()>);
    let (store, _) =
        Store::restore(rows, contents.scheduled_compact, contents.finished_compact).unwrap();
    Job::new(contents, &store.view()).write(files).unwrap();
    cluster.restart(id);
}

fn follower(cluster: &Cluster) -> u64 {
    let leader = cluster.leader();
    (1..=3).find(|id| *id != leader).unwrap()
}

fn compact(cluster: &mut Cluster, revision: i64) -> Result<Response, RequestError> {
    let ticket = cluster.compact(1, revision, true);
    cluster.answer(ticket)
}

fn delete_everything(cluster: &mut Cluster) {
    let everything = pb::DeleteRangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        prev_kv: false,
    };
    let ticket = cluster.propose(1, |request| request.delete_range = Some(everything));
    cluster.answer(ticket).unwrap();
}

fn wait_for_alarm(cluster: &mut Cluster, member: u64) {
    let alarm = pb::AlarmMember {
        member_id: member,
        alarm: pb::AlarmType::Corrupt as i32,
    };
    cluster.run_until("the alarm on every member", |cluster| {
        let mut nodes = cluster.nodes.values();
        nodes.all(|node| *node.status().alarms == [alarm])
    });
}

#[test]
fn equal_members_are_compared_in_peace() {
    let mut cluster = compared(true, true);
    compact(&mut cluster, 4).unwrap();
    let end = cluster.now.after(std::time::Duration::from_secs(10));
    cluster.run_until("ten seconds", |cluster| cluster.now >= end);
    assert_eq!(cluster.findings, []);
    assert!(cluster.status(1).alarms.is_empty());
}

#[test]
fn a_follower_with_another_value_is_named_and_writes_are_refused() {
    let mut cluster = compared(true, false);
    let damaged = follower(&cluster);
    corrupt(&mut cluster, damaged);
    wait_for_alarm(&mut cluster, damaged);
    let ticket = cluster.put(1, "key", "value");
    assert_eq!(cluster.answer(ticket), Err(RequestError::Corrupt));
    assert_eq!(compact(&mut cluster, 3), Err(RequestError::Corrupt));
    assert_eq!(
        cluster.read(1, "key0").as_deref(),
        Some("value"),
        "as in etcd"
    );
}

#[test]
fn the_hash_of_a_compaction_names_the_one_who_leads_with_other_data() {
    let mut cluster = compared(false, true);
    let leader = cluster.leader();
    corrupt(&mut cluster, leader);
    let ticket = cluster.request(leader, |_| Request::ReadIndex);
    cluster.answer(ticket).unwrap();
    let now_leading = cluster.leader();
    if now_leading != leader {
        let target = Some(MemberId(leader));
        let ticket = cluster.request(now_leading, |_| Request::TransferLeader(target));
        cluster.answer(ticket).unwrap();
    }
    let revision = cluster.nodes[&leader].view().revision().0;
    compact(&mut cluster, revision).unwrap();
    wait_for_alarm(&mut cluster, leader);
}

#[test]
fn a_follower_that_is_ahead_is_named_although_no_key_is_left() {
    let mut cluster = compared(true, false);
    let damaged = follower(&cluster);
    delete_everything(&mut cluster);
    let ticket = cluster.request(damaged, |_| Request::Checkpoint);
    cluster.answer(ticket).unwrap();
    alter(&mut cluster, damaged, |rows| {
        let newest = rows.last().expect("tombstones");
        let again = Row {
            main: newest.main + 1,
            sub: 0,
            ..newest.clone()
        };
        rows.push(again);
    });
    wait_for_alarm(&mut cluster, damaged);
}

#[test]
fn a_member_that_cannot_be_asked_is_not_blamed() {
    let mut cluster = compared(true, true);
    let damaged = follower(&cluster);
    cluster.nodes.remove(&damaged);
    let end = cluster.now.after(std::time::Duration::from_secs(5));
    cluster.run_until("five seconds", |cluster| cluster.now >= end);
    assert!(!cluster.findings.is_empty(), "it was asked");
    let leader = cluster.leader();
    assert!(cluster.status(leader).alarms.is_empty());
}
