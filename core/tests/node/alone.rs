//! A member that goes on as a cluster of its own, since the others are lost.

use bytes::Bytes;
use quorate_core::boundary::MembersChange;
use quorate_core::{Index, MemberId};
use quorate_proto::raftpb::{ConfChange, ConfChangeType, Entry};

use super::cluster::Cluster;
use super::members::{add, ids};

impl Cluster {
    fn acknowledged_put(&mut self, id: u64, key: &str, value: &str) {
        let ticket = self.put(id, key, value);
        self.answer(ticket).unwrap();
    }

    fn run_until_alone(&mut self, id: u64) {
        self.run_until("the only member leads", |cluster| {
            cluster.nodes[&id].is_leader() && cluster.status(id).members.len() == 1
        });
    }
}

fn some_follower(cluster: &Cluster) -> u64 {
    if cluster.leader() == 1 { 2 } else { 1 }
}

#[test]
fn the_last_of_three_goes_on_with_all_data_and_grows_to_three_again() {
    let mut cluster = Cluster::new(3);
    cluster.strict_reconfig_check = false;
    for number in 0..20 {
        let leader = cluster.leader();
        cluster.acknowledged_put(leader, &format!("key{number}"), "old");
    }
    let last = some_follower(&cluster);
    let term = cluster.disks[&last].hard_state.term;
    let forced = cluster.restart_alone(last).unwrap();
    assert_eq!(forced.removed.len(), 2);
    assert_eq!(forced.dropped, 0);
    let added = &forced.writes[1].entries;
    assert!(added.iter().all(|entry| entry.term > term), "{added:?}");
    cluster.run_until_alone(last);
    for number in 0..20 {
        let key = format!("key{number}");
        assert_eq!(cluster.read(last, &key).as_deref(), Some("old"));
    }
    // The removed ones never come back.
    assert_eq!(cluster.status(last).removed.len(), 2);
    for id in [7, 8] {
        cluster.change(last, add(id, false)).unwrap();
        cluster.join(id);
    }
    cluster.acknowledged_put(8, "key0", "new");
    assert_eq!(cluster.read(7, "key0").as_deref(), Some("new"));
    assert_eq!(cluster.read(7, "key19").as_deref(), Some("old"));
    // As any other member from now on.
    cluster.restart(last);
    assert_eq!(cluster.read(last, "key0").as_deref(), Some("new"));
    assert_eq!(ids(&cluster.status(last).members), [last, 7, 8]);
}

#[test]
fn an_acknowledged_write_that_this_member_does_not_know_to_be_committed_is_kept() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let last = some_follower(&cluster);
    cluster.acknowledged_put(leader, "key", "acknowledged");
    let disk = &cluster.disks[&last];
    let (index, _) = disk.entries.last_key_value().expect("entries");
    assert!(disk.hard_state.commit < *index, "{:?}", disk.hard_state);
    cluster.restart_alone(last).unwrap();
    cluster.run_until_alone(last);
    assert_eq!(cluster.read(last, "key").as_deref(), Some("acknowledged"));
}

#[test]
fn a_learner_that_is_left_votes() {
    let mut cluster = Cluster::new(1);
    cluster.acknowledged_put(1, "key", "old");
    cluster.change(1, add(2, true)).unwrap();
    cluster.join(2);
    cluster.acknowledged_put(1, "key", "newer");
    cluster.run_until("the learner has it", |cluster| {
        cluster.status(2).applied == cluster.status(1).applied
    });
    let forced = cluster.restart_alone(2).unwrap();
    assert_eq!(forced.removed, [MemberId(1)]);
    cluster.run_until_alone(2);
    assert!(!cluster.status(2).is_learner);
    assert_eq!(cluster.read(2, "key").as_deref(), Some("newer"));
}

#[test]
fn an_image_that_is_ahead_of_the_log_loses_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.checkpoint_bytes_min = 500;
    let last = some_follower(&cluster);
    cluster.restart(last); // with the new size
    let entries = cluster.disks[&last].entries.clone();
    let mut number = 0;
    while cluster.disks[&last].record.is_none() {
        let leader = cluster.leader();
        cluster.acknowledged_put(leader, &format!("key{number}"), "some value of some size");
        number += 1;
    }
    let disk = cluster.disks.get_mut(&last).unwrap();
    let image = disk.record.take().expect("a checkpoint").index;
    // Applied entries that never got to the disk, as etcd may leave them.
    disk.hard_state.commit = *entries.last_key_value().expect("entries").0;
    disk.entries = entries;
    let forced = cluster.restart_alone(last).unwrap();
    let record = forced.writes[0].snapshot.as_ref().expect("a record");
    assert_eq!(record.index, image);
    cluster.run_until_alone(last);
    assert_eq!(
        cluster.read(last, "key3").as_deref(),
        Some("some value of some size")
    );
    cluster.acknowledged_put(last, "key", "new");
    cluster.restart(last);
    assert_eq!(cluster.read(last, "key").as_deref(), Some("new"));
}

#[test]
fn who_is_alone_already_is_left_as_it_is() {
    let mut cluster = Cluster::new(1);
    cluster.acknowledged_put(1, "key", "value");
    let before = cluster.disks[&1].entries.len();
    let forced = cluster.restart_alone(1).unwrap();
    assert!(forced.writes.is_empty());
    assert_eq!(cluster.disks[&1].entries.len(), before);
    assert_eq!(cluster.read(1, "key").as_deref(), Some("value"));
}

/// Appends the removal of `id` to its own log, as one that is committed or not.
fn append_own_removal(cluster: &mut Cluster, id: u64, is_committed: bool) -> Index {
    let disk = cluster.disks.get_mut(&id).unwrap();
    let index = disk.entries.last_key_value().expect("entries").0 + 1;
    let kind = ConfChangeType::ConfChangeRemoveNode;
    let change = ConfChange::new(9, kind, id, Bytes::new());
    let entry = Entry::conf_change(disk.hard_state.term, index, &change);
    disk.entries.insert(index, entry);
    if is_committed {
        disk.hard_state.commit = index;
    }
    Index(index)
}

#[test]
fn its_own_removal_that_was_never_decided_is_dropped() {
    let mut cluster = Cluster::new(3);
    let last = some_follower(&cluster);
    let leader = cluster.leader();
    cluster.acknowledged_put(leader, "key", "value");
    let removal = append_own_removal(&mut cluster, last, false);
    let forced = cluster.restart_alone(last).unwrap();
    assert_eq!(forced.dropped, 1);
    assert_eq!(forced.writes[1].entries[0].index, removal.0);
    cluster.run_until_alone(last);
    assert_eq!(cluster.read(last, "key").as_deref(), Some("value"));
}

#[test]
fn who_was_removed_makes_no_cluster() {
    let mut cluster = Cluster::new(3);
    let last = some_follower(&cluster);
    append_own_removal(&mut cluster, last, true);
    let error = cluster.restart_alone(last).unwrap_err().to_string();
    assert!(error.contains("is no member of its cluster"), "{error}");
}

#[test]
fn the_removal_of_another_that_was_never_decided_is_not_repeated() {
    let mut cluster = Cluster::new(3);
    cluster.strict_reconfig_check = false;
    let leader = cluster.leader();
    let last = some_follower(&cluster);
    let gone = 6 - leader - last;
    cluster
        .change(leader, MembersChange::Remove(MemberId(gone)))
        .unwrap();
    let forced = cluster.restart_alone(last).unwrap();
    assert_eq!(forced.removed, [MemberId(leader)]);
    cluster.run_until_alone(last);
}
