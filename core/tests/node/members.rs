//! Changes of the members: what is refused, in etcd's words, and what becomes of those who come and go.

use std::time::Duration;

use quorate_core::boundary::{Input, MembersChange, Request};
use quorate_core::node::Recovered;
use quorate_core::{MemberId, RequestError, lease};
use quorate_proto::etcdserverpb as pb;

use super::cluster::{Cluster, member};

pub(crate) fn add(id: u64, is_learner: bool) -> MembersChange {
    let name = String::new();
    MembersChange::Add(quorate_core::checkpoint::MemberRecord {
        is_learner,
        name,
        ..member(id)
    })
}

fn text(result: Result<Vec<pb::Member>, RequestError>) -> String {
    result.expect_err("it is refused").message().to_owned()
}

pub(crate) fn ids(members: &[pb::Member]) -> Vec<u64> {
    members.iter().map(|member| member.id).collect()
}

impl Cluster {
    /// Starts a member that was added, and waits until it has published itself.
    pub(crate) fn join(&mut self, id: u64) {
        self.disks.entry(id).or_default();
        self.start(id, Recovered::joining(lease::Config::default()));
        self.run_until("the new member publishes itself", |cluster| {
            cluster.status(id).is_published
        });
    }
}

#[test]
fn one_member_becomes_three_by_learners_and_voters_and_one_again() {
    let mut cluster = Cluster::new(1);
    let ticket = cluster.put(1, "key", "old");
    cluster.answer(ticket).unwrap();
    let members = cluster.change(1, add(2, true)).unwrap();
    assert_eq!(ids(&members), [1, 2]);
    assert!(members[1].is_learner && members[1].name.is_empty());
    cluster.join(2);
    assert!(cluster.status(2).is_learner);
    assert_eq!(
        cluster
            .change(1, MembersChange::Promote(MemberId(1)))
            .unwrap_err(),
        RequestError::MemberNotLearner
    );
    while cluster.change(1, MembersChange::Promote(MemberId(2)))
        == Err(RequestError::LearnerNotReady)
    {
        cluster.step();
    }
    cluster.run_until("the learner hears that it votes", |cluster| {
        !cluster.status(2).is_learner
    });
    cluster.connect_all();
    cluster.change(1, add(3, false)).unwrap();
    cluster.join(3);
    cluster.connect_all();
    for id in 1..=3 {
        let ticket = cluster.put(id, "key", &format!("from {id}"));
        cluster.answer(ticket).unwrap();
        assert_eq!(cluster.read(1, "key"), Some(format!("from {id}")));
    }
    for id in [3, 2] {
        let leader = cluster.leader();
        let asked = if leader == id { 1 } else { leader };
        cluster
            .change(asked, MembersChange::Remove(MemberId(id)))
            .unwrap();
        cluster.run_until("the others go on", |cluster| {
            cluster
                .status(1)
                .leader
                .is_some_and(|leader| leader.0 != id)
        });
        cluster.run_until("the removed member stops", |cluster| {
            cluster.stopped.contains_key(&id)
        });
        cluster.nodes.remove(&id);
        cluster.connect_all();
    }
    let ticket = cluster.put(1, "key", "alone");
    cluster.answer(ticket).unwrap();
    assert_eq!(cluster.read(1, "key").as_deref(), Some("alone"));
    assert_eq!(ids(&cluster.status(1).members), [1]);
    assert_eq!(cluster.peers[&1], Vec::<u64>::new());
}

#[test]
fn what_would_endanger_the_quorum_is_refused_in_etcds_words() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let other = if leader == 1 { 2 } else { 1 };
    assert_eq!(
        text(cluster.change(leader, add(4, false))),
        "etcdserver: unhealthy cluster",
        "nobody has been connected for five seconds"
    );
    assert_eq!(
        text(cluster.change(leader, add(4, true))),
        "etcdserver: unhealthy cluster"
    );
    let is_active = true;
    for member in (1..=3).filter(|id| *id != leader).map(MemberId) {
        cluster.handle(leader, Input::PeerActivity { member, is_active });
    }
    assert_eq!(
        text(cluster.change(leader, MembersChange::Remove(MemberId(other)))),
        "etcdserver: unhealthy cluster",
        "links that are younger than five seconds do not count"
    );
    cluster.connect_all();
    cluster.change(leader, add(4, false)).unwrap();
    cluster
        .change(leader, add(5, false))
        .expect("three of five are connected");
    assert_eq!(
        text(cluster.change(leader, add(6, false))),
        "etcdserver: re-configuration failed due to not enough started members",
        "three are started, and four of six must be"
    );
    let id = MemberId(5);
    cluster.change(leader, MembersChange::Remove(id)).unwrap();
    // Of four, three are started.
    cluster
        .change(leader, MembersChange::Remove(MemberId(4)))
        .unwrap();
    assert_eq!(
        text(cluster.change(leader, MembersChange::Remove(MemberId(4)))),
        "etcdserver: member not found",
        "a removed id never comes back"
    );
    assert_eq!(
        text(cluster.change(leader, add(4, false))),
        "etcdserver: member not found"
    );
    assert_eq!(
        text(cluster.change(leader, add(other, false))),
        "etcdserver: member ID already exist"
    );
    assert_eq!(
        text(cluster.change(leader, MembersChange::Remove(MemberId(77)))),
        "etcdserver: member not found"
    );
}

#[test]
fn members_that_never_started_count_against_the_quorum() {
    let mut cluster = Cluster::new(1);
    cluster.change(1, add(2, false)).unwrap();
    // Two voters, one of them started: nothing can be decided until the second starts, and it never did.
    assert_eq!(
        text(cluster.change(1, add(3, false))),
        "etcdserver: re-configuration failed due to not enough started members"
    );
    assert_eq!(
        text(cluster.change(1, MembersChange::Remove(MemberId(1)))),
        "etcdserver: re-configuration failed due to not enough started members"
    );
}

#[test]
fn without_the_strict_check_only_what_cannot_be_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.strict_reconfig_check = false;
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.run_until("a leader", |cluster| {
        cluster
            .nodes
            .values()
            .any(quorate_core::node::Node::is_leader)
    });
    let leader = cluster.leader();
    cluster.change(leader, add(4, true)).unwrap();
    assert_eq!(
        text(cluster.change(leader, add(5, true))),
        "etcdserver: too many learner members in cluster"
    );
    assert_eq!(
        text(cluster.change(leader, MembersChange::Promote(MemberId(4)))),
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    let follower = if leader == 1 { 2 } else { 1 };
    assert_eq!(
        cluster.change(follower, MembersChange::Promote(MemberId(4))),
        Err(RequestError::NotLeader),
        "only the leader knows"
    );
    assert_eq!(
        text(cluster.change(leader, MembersChange::Promote(MemberId(9)))),
        "etcdserver: member not found"
    );
    let taken = MembersChange::UpdateUrls {
        member: MemberId(4),
        peer_urls: member(1).peer_urls,
    };
    assert_eq!(
        text(cluster.change(leader, taken)),
        "etcdserver: Peer URLs already exists"
    );
    let moved = MembersChange::UpdateUrls {
        member: MemberId(4),
        peer_urls: vec!["http://10.0.0.44:2380".into()],
    };
    let members = cluster.change(follower, moved).unwrap();
    assert_eq!(members[3].peer_urls, ["http://10.0.0.44:2380"]);
    assert!(members[3].is_learner);
}

#[test]
fn a_removed_leader_tells_the_others_and_stops_by_itself() {
    for size in [2, 3] {
        let mut cluster = Cluster::new(size);
        cluster.connect_all();
        let leader = cluster.leader();
        let asked = cluster.now;
        cluster
            .change(leader, MembersChange::Remove(MemberId(leader)))
            .unwrap();
        let refused = cluster.request(leader, |_| Request::ReadIndex);
        assert_eq!(cluster.answer(refused), Err(RequestError::Stopped));
        cluster.run_until("it stops", |cluster| cluster.stopped.contains_key(&leader));
        assert_eq!(
            cluster.stopped[&leader],
            "the member has been permanently removed from the cluster"
        );
        let stayed = cluster.now.since(asked);
        assert!(stayed >= Duration::from_secs(1) && stayed < Duration::from_secs(2));
        cluster.nodes.remove(&leader);
        cluster.run_until("another leader", |cluster| {
            cluster
                .nodes
                .values()
                .any(quorate_core::node::Node::is_leader)
        });
        let next = cluster.leader();
        let ticket = cluster.put(next, "key", "value");
        cluster.answer(ticket).unwrap();
    }
}

#[test]
fn what_a_follower_is_asked_while_a_removed_leader_leaves_waits_for_the_next_one() {
    let mut cluster = Cluster::new(3);
    cluster.connect_all();
    let leader = cluster.leader();
    cluster
        .change(leader, MembersChange::Remove(MemberId(leader)))
        .unwrap();
    let follower = leader % 3 + 1;
    cluster.run_until("the follower knows", |cluster| {
        !ids(&cluster.status(follower).members).contains(&leader)
    });
    assert_eq!(cluster.status(follower).leader, Some(MemberId(leader)));
    let ticket = cluster.put(follower, "key", "value");
    cluster.answer(ticket).unwrap();
    assert_ne!(cluster.status(follower).leader, Some(MemberId(leader)));
}
