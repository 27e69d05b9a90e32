//! Snapshots to followers that the log cannot help any more.

use quorate_core::boundary::{MembersChange, Request, Response};
use quorate_core::lease;
use quorate_core::node::Recovered;
use quorate_core::types::Revision;
use quorate_core::watch::{Hub, HubConfig};
use quorate_core::{Index, MemberId, RequestError};
use quorate_proto::etcdserverpb as pb;

use super::cluster::{Cluster, TICK, member};

impl Cluster {
    /// Writes, and makes a checkpoint that lets every running member purge its log.
    fn purge(&mut self, puts: u64) -> Index {
        for number in 0..puts {
            let leader = self.leader();
            let ticket = self.put(leader, &format!("key{number}"), "value");
            self.answer(ticket).unwrap();
        }
        let mut purged = Index(0);
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let ticket = self.request(id, |_| Request::Checkpoint);
            match self.answer(ticket) {
                Ok(Response::Checkpointed(index)) => purged = purged.max(index),
                other => panic!("no checkpoint: {other:?}"),
            }
        }
        self.step();
        purged
    }

    /// A follower that the log cannot help any more; it is down.
    fn with_lost_follower(size: u64) -> (Self, u64) {
        let mut cluster = Self::new(size);
        cluster.log_bytes_in_memory_max = 1000;
        for id in 1..=size {
            cluster.restart(id);
        }
        cluster.run_until("a leader", |cluster| {
            cluster
                .nodes
                .values()
                .any(quorate_core::node::Node::is_leader)
        });
        let leader = cluster.leader();
        let follower = if leader == 1 { 2 } else { 1 };
        cluster.nodes.remove(&follower);
        cluster.purge(30);
        (cluster, follower)
    }

    fn catch_up(&mut self, id: u64) {
        let leader = self.leader();
        let applied = self.status(leader).applied;
        self.run_until("it catches up", |cluster| {
            cluster.status(id).applied >= applied
        });
        let (mine, theirs) = (self.nodes[&id].view(), self.nodes[&leader].view());
        assert_eq!(
            mine.hash_kv(Revision(0)).unwrap().hash,
            theirs.hash_kv(Revision(0)).unwrap().hash
        );
    }
}

#[test]
fn a_follower_that_was_away_past_the_purge_gets_the_checkpoint() {
    let (mut cluster, follower) = Cluster::with_lost_follower(3);
    cluster.restart(follower);
    cluster.catch_up(follower);
    assert_eq!(cluster.snapshots.len(), 1, "{:?}", cluster.snapshots);
    assert_eq!(cluster.snapshots[0].0, follower);
    assert_eq!(cluster.discarded, 0);
    let ticket = cluster.put(follower, "after", "all");
    cluster.answer(ticket).unwrap();
    assert_eq!(cluster.read(follower, "after").as_deref(), Some("all"));
    cluster.restart(follower);
    cluster.catch_up(follower);
    assert_eq!(cluster.snapshots.len(), 1, "what was installed is there");
}

#[test]
fn an_installed_snapshot_is_not_acknowledged_before_it_is_durable() {
    let (mut cluster, follower) = Cluster::with_lost_follower(3);
    let leader = cluster.leader();
    cluster.stalled = vec![follower];
    cluster.restart(follower);
    cluster
        .nodes
        .retain(|id, _| [leader, follower].contains(id));
    cluster.run_until("it is sent a snapshot", |cluster| {
        !cluster.snapshots.is_empty()
    });
    let ticket = cluster.put(leader, "needs", "both");
    for _ in 0..300 {
        cluster.step();
    }
    assert!(
        !cluster.answers.contains_key(&ticket),
        "the follower has said nothing of its disk"
    );
    cluster.report_writes();
    assert!(cluster.run_until_answered(ticket));
}

impl Cluster {
    fn run_until_answered(&mut self, ticket: u64) -> bool {
        self.run_until("an answer", |cluster| cluster.answers.contains_key(&ticket));
        true
    }
}

#[test]
fn a_crash_between_installing_and_the_log_is_recovered() {
    let (mut cluster, follower) = Cluster::with_lost_follower(3);
    let before = cluster.disks[&follower].clone();
    cluster.restart(follower);
    cluster.catch_up(follower);
    let index = cluster.snapshots[0].1;
    // The image is in place, and nothing of the log's write has survived.
    let mut disk = before;
    disk.files = cluster.disks[&follower].files.clone();
    assert!(
        disk.record
            .as_ref()
            .is_none_or(|record| record.index.0 < index)
    );
    cluster.disks.insert(follower, disk);
    cluster.restart(follower);
    assert_eq!(
        cluster.status(follower).applied,
        Index(index),
        "the image is ahead of the log"
    );
    cluster.catch_up(follower);
}

#[test]
fn a_snapshot_that_does_not_arrive_is_sent_again() {
    let (mut cluster, follower) = Cluster::with_lost_follower(3);
    // It answers, so that the leader learns what it lacks; the image is lost on its way.
    cluster.lost_snapshots = 2;
    cluster.restart(follower);
    cluster.catch_up(follower);
    assert_eq!(cluster.lost_snapshots, 0);
    assert_eq!(cluster.snapshots.len(), 1);
}

#[test]
fn a_new_member_gets_an_image_that_names_it() {
    let mut cluster = Cluster::new(1);
    cluster.log_bytes_in_memory_max = 1000;
    cluster.restart(1);
    cluster.run_until("it leads", |cluster| cluster.nodes[&1].is_leader());
    let purged = cluster.purge(30);
    let mut learner = member(2);
    learner.name.clear();
    learner.is_learner = true;
    cluster.change(1, MembersChange::Add(learner)).unwrap();
    cluster.disks.entry(2).or_default();
    cluster.start(2, Recovered::joining(lease::Config::default()));
    cluster.catch_up(2);
    let (_, index) = cluster.snapshots[0];
    assert!(
        index > purged.0,
        "the checkpoint before it was added does not know it"
    );
    assert!(cluster.status(2).is_learner);
    while cluster.change(1, MembersChange::Promote(MemberId(2)))
        == Err(RequestError::LearnerNotReady)
    {
        cluster.step();
    }
}

#[test]
fn watches_go_on_over_a_snapshot_without_a_gap() {
    let (mut cluster, follower) = Cluster::with_lost_follower(3);
    cluster.cut_off = vec![follower];
    cluster.restart(follower);
    let mut hub = Hub::new(HubConfig {
        response_bytes_max: 1 << 20,
        progress_interval: TICK * 100,
        seed: 1,
    });
    let view = cluster.nodes[&follower].view();
    let shown = view.revision().0;
    let stream = hub.open(cluster.now);
    let create = pb::WatchCreateRequest {
        key: b"key".to_vec().into(),
        range_end: b"kez".to_vec().into(),
        start_revision: shown + 1,
        ..Default::default()
    };
    let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    let request = pb::WatchRequest { request_union };
    hub.handle(cluster.now, stream, request, &view);
    cluster.cut_off.clear();
    cluster.catch_up(follower);
    let view = cluster.nodes[&follower].view();
    hub.advance(cluster.now, &view);
    let mut revisions = Vec::new();
    while let Some(response) = hub.next(stream, &view) {
        assert!(!response.canceled, "{response:?}");
        revisions.extend(
            response
                .events
                .iter()
                .map(|event| event.kv.as_ref().unwrap().mod_revision),
        );
    }
    let expected: Vec<_> = (shown + 1..=shown + 30).collect();
    assert_eq!(revisions, expected);
}
