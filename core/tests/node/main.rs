//! Nodes driven by hand: the shortest path through the contract, and what each output means.
//!
//! The simulator does this with faults.

mod alone;
mod cluster;
mod corruption;
mod counts;
mod images;
mod members;
mod memory_disk;
mod quota;
mod snapshots;
mod v2;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::boundary::{Input, Request, Response};
use quorate_core::lease;
use quorate_core::node::{LogContents, Node, Recovered};
use quorate_core::{Index, LeaseId, MemberId, RequestError, Term};
use quorate_proto::{etcdserverpb as pb, raftpb};

use cluster::Cluster;

#[test]
fn one_member_serves_and_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::new(1);
    let ticket = cluster.put(1, "foo", "bar");
    let Ok(Response::Put(response)) = cluster.answer(ticket) else {
        panic!("a put")
    };
    assert_eq!(response.header.unwrap().revision, 2);
    assert_eq!(cluster.read(1, "foo").as_deref(), Some("bar"));
    cluster.restart(1);
    assert_eq!(cluster.read(1, "foo").as_deref(), Some("bar"));
    assert_eq!(cluster.status(1).cluster_version.as_deref(), Some("3.7.0"));
}

#[test]
fn every_member_of_three_takes_writes_and_reads() {
    let mut cluster = Cluster::new(3);
    for id in 1..=3 {
        let ticket = cluster.put(id, "key", &format!("from {id}"));
        cluster.answer(ticket).unwrap();
        for reader in 1..=3 {
            assert_eq!(cluster.read(reader, "key"), Some(format!("from {id}")));
        }
    }
    assert_eq!(cluster.status(1).members.len(), 3);
}

#[test]
fn nothing_is_acknowledged_before_a_quorum_is_durable() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    cluster.stalled = vec![1, 2, 3];
    let ticket = cluster.put(leader, "foo", "bar");
    for _ in 0..50 {
        cluster.step();
    }
    assert!(!cluster.answers.contains_key(&ticket));
    cluster.report_writes();
    assert!(cluster.answer(ticket).is_ok());
}

#[test]
fn a_lost_leader_is_replaced_and_its_follower_catches_up_from_the_disk() {
    let mut cluster = Cluster::new(3);
    cluster.log_bytes_in_memory_max = 1000;
    let first = cluster.leader();
    cluster.nodes.remove(&first);
    cluster.run_until("another leader", |cluster| {
        cluster.nodes.values().any(Node::is_leader)
    });
    let leader = cluster.leader();
    cluster.restart(leader); // with the small window
    cluster.run_until("a leader again", |cluster| {
        cluster.nodes.values().any(Node::is_leader)
    });
    for number in 0..200 {
        let leader = cluster.leader();
        let ticket = cluster.put(
            leader,
            &format!("key{number}"),
            "some value that takes some room in the log",
        );
        cluster.answer(ticket).unwrap();
    }
    cluster.restart(first);
    let applied = cluster.status(cluster.leader()).applied;
    cluster.run_until("the old leader catches up", |cluster| {
        cluster.status(first).applied >= applied
    });
    assert_eq!(
        cluster.read(first, "key199").as_deref(),
        Some("some value that takes some room in the log")
    );
}

#[test]
fn while_keys_are_only_added_the_log_after_the_checkpoint_stays_short() {
    let mut cluster = Cluster::new(1);
    cluster.checkpoint_bytes_min = 2_000;
    cluster.restart(1);
    let value = "some value that takes some room in the log and as much in the store";
    let count = 500;
    for number in 0..count {
        let ticket = cluster.put(1, &format!("key{number}"), value);
        cluster.answer(ticket).unwrap();
    }
    let applied = cluster.status(1).applied;
    let last = cluster.checkpoints.last().expect("a checkpoint");
    assert!(
        applied.0 - last.0 < count / 2,
        "{applied:?} is replayed from {last:?}"
    );
    // Each covers half as much again as the one before.
    assert!(cluster.checkpoints.len() < 20, "{:?}", cluster.checkpoints);
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let target = if leader == 1 { 2 } else { 1 };
    let ticket = cluster.request(leader, |_| Request::TransferLeader(Some(MemberId(target))));
    assert_eq!(
        cluster.answer(ticket),
        Ok(Response::LeaderTransferred(MemberId(target)))
    );
    let follower = cluster.request(leader, |_| Request::TransferLeader(Some(MemberId(leader))));
    assert_eq!(cluster.answer(follower), Err(RequestError::NotLeader));
    let stranger = cluster.request(target, |_| Request::TransferLeader(Some(MemberId(99))));
    assert_eq!(
        cluster.answer(stranger),
        Err(RequestError::BadLeaderTransferee)
    );
}

#[test]
fn leadership_is_not_handed_over_to_a_member_that_has_just_gone() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    // Of two equals it would be this one.
    let others = cluster.nodes.keys().filter(|id| **id != leader);
    let gone = *others.max().expect("there are two");
    cluster.nodes.remove(&gone);
    cluster.handle(leader, Input::Unreachable(MemberId(gone)));
    let ticket = cluster.request(leader, |_| Request::TransferLeader(None));
    let stays = MemberId(6 - leader - gone);
    assert_eq!(
        cluster.answer(ticket),
        Ok(Response::LeaderTransferred(stays))
    );
}

#[test]
fn a_request_without_a_quorum_times_out_with_etcds_error() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let others: Vec<_> = cluster
        .nodes
        .keys()
        .copied()
        .filter(|id| *id != leader)
        .collect();
    for id in others {
        cluster.nodes.remove(&id);
    }
    let put = cluster.put(leader, "foo", "bar");
    let read = cluster.request(leader, |_| Request::ReadIndex);
    assert_eq!(cluster.answer(put), Err(RequestError::Timeout));
    assert_eq!(cluster.answer(read), Err(RequestError::Timeout));
    assert_eq!(
        cluster.status(leader).leader,
        None,
        "without a quorum a leader steps down"
    );
}

/// Three members whose leader has just granted lease 77, of three seconds, and put the key "leased" with it.
fn with_leased() -> (Cluster, u64) {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let grant = cluster.grant(leader, 77, 3);
    cluster.answer(grant).unwrap();
    put_leased(&mut cluster, leader);
    (cluster, leader)
}

/// Puts the key "leased" with lease 77.
fn put_leased(cluster: &mut Cluster, id: u64) {
    let put = pb::PutRequest {
        key: Bytes::from_static(b"leased"),
        lease: 77,
        ..Default::default()
    };
    let put = cluster.propose(id, |request| request.put = Some(put));
    cluster.answer(put).unwrap();
}

/// Whether the key is gone on all members.
fn is_leased_gone(cluster: &Cluster) -> bool {
    let key = pb::RangeRequest {
        key: Bytes::from_static(b"leased"),
        ..Default::default()
    };
    cluster
        .nodes
        .values()
        .all(|node| node.view().range(&key).unwrap().kvs.is_empty())
}

#[test]
fn a_lease_ends_by_the_leaders_clock_and_takes_its_keys_along() {
    let (mut cluster, leader) = with_leased();
    let granted = cluster.now;
    assert!(cluster.read(leader, "leased").is_some());
    cluster.run_until("the end of the lease", is_leased_gone);
    assert!(
        cluster.now.since(granted) >= Duration::from_millis(2_900),
        "not before its time"
    );
}

#[test]
fn a_lease_that_ends_while_leadership_is_handed_over_does_not_keep_the_driver_busy() {
    let (mut cluster, leader) = with_leased();
    let granted = cluster.now;
    let since = |cluster: &Cluster| cluster.now.since(granted);
    cluster.run_until("most of its time is over", |cluster| {
        since(cluster) >= Duration::from_millis(2_500)
    });
    // The next leader does not answer, so that the hand-over lasts until it is given up.
    let next = if leader == 1 { 2 } else { 1 };
    cluster.step();
    cluster.cut_off.push(next);
    let hand_over = Request::TransferLeader(Some(MemberId(next)));
    let ticket = cluster.request(leader, |_| hand_over);
    cluster.run_until("the hand-over is given up", |cluster| {
        let deadline = cluster.nodes[&leader].deadline();
        assert!(deadline > cluster.now, "after {:?}", since(cluster));
        cluster.answers.contains_key(&ticket)
    });
    assert!(
        since(&cluster) >= Duration::from_secs(3),
        "it ended meanwhile"
    );
    assert!(cluster.answer(ticket).is_err());
    cluster.cut_off.clear();
    cluster.run_until("the end of the lease", is_leased_gone);
}

#[test]
fn an_empty_entry_in_the_middle_of_a_term_prolongs_no_lease() {
    let (mut cluster, leader) = with_leased();
    let granted = cluster.now;
    cluster.run_until("most of its time is over", |cluster| {
        cluster.now.since(granted) >= Duration::from_secs(2)
    });
    // raft-rs puts such an entry where it refuses a change of the members.
    let applied = cluster.status(leader).applied;
    cluster.request(leader, |_| Request::Propose(Bytes::new()));
    cluster.run_until("it is applied", |cluster| {
        cluster.status(leader).applied > applied
    });
    cluster.run_until("the end of the lease", is_leased_gone);
    let lasted = cluster.now.since(granted);
    assert!(lasted < Duration::from_secs(4), "{lasted:?}");
}

#[test]
fn a_leader_that_was_deposed_unawares_renews_nothing() {
    let mut cluster = Cluster::new(3);
    let old = cluster.leader();
    let grant = cluster.grant(old, 77, 60);
    cluster.answer(grant).unwrap();
    let renewal = cluster.request(old, |_| Request::LeaseRenew(LeaseId(77)));
    let renewed = Ok(Response::LeaseRenewed { ttl: 60 });
    assert_eq!(cluster.answer(renewal), renewed, "who leads renews");

    // It stands still for as long as the others need to elect another one, and wakes up cut off.
    let stood_still = cluster.nodes.remove(&old).unwrap();
    cluster.run_until("another leader", |cluster| {
        cluster.nodes.values().any(Node::is_leader)
    });
    let others = std::mem::replace(&mut cluster.nodes, BTreeMap::from([(old, stood_still)]));
    let late = cluster.request(old, |_| Request::LeaseRenew(LeaseId(77)));
    cluster.flush(old);
    assert!(cluster.nodes[&old].is_leader(), "it has not heard of it");
    assert!(!cluster.answers.contains_key(&late));

    // What it then hears makes it say that it is not the one to ask.
    cluster.nodes.extend(others);
    assert_eq!(cluster.answer(late), Err(RequestError::NotLeader));
}

#[test]
fn log_and_checkpoint_that_do_not_fit_are_refused() {
    let log = LogContents {
        snapshot_index: Index(10),
        snapshot_term: Term(1),
        ..LogContents::default()
    };
    let error = Recovered::from_disk(None, log, lease::Config::default()).unwrap_err();
    assert!(
        error.to_string().contains("snap/db ends at index 0"),
        "{error}"
    );
    let log = LogContents {
        hard_state: raftpb::HardState {
            term: 1,
            vote: 0,
            commit: 5,
        },
        ..LogContents::default()
    };
    let error = Recovered::from_disk(None, log, lease::Config::default()).unwrap_err();
    assert!(error.to_string().contains("up to index 5"), "{error}");
}
