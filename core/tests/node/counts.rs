//! What a node counts and times for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::boundary::{Request, Response};
use quorate_core::node::Counts;
use quorate_core::{LeaseId, mvcc};
use quorate_proto::etcdserverpb as pb;

use super::cluster::Cluster;

fn propose(
    cluster: &mut Cluster,
    id: u64,
    fill: impl FnOnce(&mut pb::InternalRaftRequest),
) -> Response {
    let ticket = cluster.propose(id, fill);
    cluster.answer(ticket).expect("it is applied")
}

fn put_operation(key: &str, value: &str) -> pb::RequestOp {
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put)),
    }
}

#[test]
fn each_member_counts_what_it_applied_and_the_leader_what_it_renewed() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let ticket = cluster.put(leader, "a", "12345");
    cluster.answer(ticket).expect("it is put");
    propose(&mut cluster, leader, |request| {
        let success = vec![put_operation("b", "1"), put_operation("c", "1")];
        request.txn = Some(pb::TxnRequest {
            success,
            ..Default::default()
        });
    });
    propose(&mut cluster, leader, |request| {
        let key = "a".into();
        request.delete_range = Some(pb::DeleteRangeRequest {
            key,
            ..Default::default()
        });
    });
    for (lease, ttl) in [(7, 60), (8, 64), (9, 65)] {
        let ticket = cluster.grant(leader, lease, ttl);
        cluster.answer(ticket).expect("it is granted");
    }
    let ticket = cluster.request(leader, |_| Request::LeaseRenew(LeaseId(7)));
    cluster.answer(ticket).expect("it is renewed");
    propose(&mut cluster, leader, |request| {
        request.lease_revoke = Some(pb::LeaseRevokeRequest { id: 8 });
    });
    propose(&mut cluster, leader, |request| {
        request.compaction = Some(pb::CompactionRequest {
            revision: 4,
            physical: false,
        });
    });
    let is_done = |counts: &Counts| counts.compactions == 1 && !counts.is_compacting;
    cluster.run_until("compaction everywhere", |cluster| {
        cluster.nodes.values().all(|node| is_done(&node.counts()))
    });
    for (id, node) in &cluster.nodes {
        let counts = node.counts();
        let store = mvcc::Counts {
            ranges: 0,
            puts: 3,
            put_bytes: 10,
            deletes: 1,
            txns: 1,
            // The first put of a key that is gone, and its tombstone stays: it is at the boundary.
            rows_compacted: 1,
        };
        assert_eq!(counts.store, store, "{id:x}");
        assert_eq!((counts.leases_granted, counts.leases_revoked), (3, 1));
        assert_eq!(counts.lease_ttl_seconds, 60 + 64 + 65);
        assert_eq!((counts.lease_ttls[6], counts.lease_ttls[7]), (2, 1));
        assert_eq!(counts.leases_renewed, u64::from(*id == leader));
    }
}

#[test]
fn a_lent_stopwatch_times_each_request_and_nothing_else_is_told() {
    fn ticks() -> Duration {
        static TICKS: AtomicU64 = AtomicU64::new(0);
        Duration::from_millis(TICKS.fetch_add(1, Ordering::Relaxed))
    }
    let mut cluster = Cluster::new(1);
    let ticket = cluster.put(1, "a", "1");
    cluster.answer(ticket).expect("it is put");
    let untimed = cluster
        .nodes
        .get_mut(&1)
        .expect("it runs")
        .take_applied()
        .count();
    assert_eq!(untimed, 0);
    cluster
        .nodes
        .get_mut(&1)
        .expect("it runs")
        .set_stopwatch(ticks);
    let ticket = cluster.put(1, "a", "2");
    cluster.answer(ticket).expect("it is put");
    let node = cluster.nodes.get_mut(&1).expect("it runs");
    let applied: Vec<_> = node.take_applied().collect();
    assert_eq!(applied.len(), 1);
    assert_eq!((applied[0].operation, applied[0].succeeded), ("Put", true));
    assert!(applied[0].took >= Duration::from_millis(1));
    assert_eq!(node.take_applied().count(), 0, "each is told once");
}
