//! Nodes driven by hand: a perfect network, a disk that keeps what it was told, time in ticks.
//!
//! The simulator does this with faults; here is the shortest path through the contract, and what each output means.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::{Config, Input, Output, Request, RequestIds, Response};
use quorate_core::checkpoint::MemberRecord;
use quorate_core::lease;
use quorate_core::node::{LogContents, Node, Recovered, Status};
use quorate_core::{
    ClusterId, Index, LeaseId, MemberId, RequestError, Term, Ticket, Time, WriteNumber,
};
use quorate_proto::{etcdserverpb as pb, raftpb};

const TICK: Duration = Duration::from_millis(100);

/// What one member's disk holds.
#[derive(Clone, Default)]
struct Disk {
    entries: BTreeMap<u64, raftpb::Entry>,
    hard_state: raftpb::HardState,
}

struct Cluster {
    now: Time,
    nodes: BTreeMap<u64, Node>,
    disks: BTreeMap<u64, Disk>,
    network: VecDeque<(u64, u64, raftpb::Message)>,
    answers: BTreeMap<u64, Result<Response, RequestError>>,
    /// Members whose disk accepts writes but reports none durable.
    stalled: Vec<u64>,
    unreported: Vec<(u64, WriteNumber)>,
    next_ticket: u64,
    log_bytes_in_memory_max: usize,
    checkpoint_bytes_min: u64,
    /// The applied index of each checkpoint that any member asked for.
    checkpoints: Vec<Index>,
}

fn member(id: u64) -> MemberRecord {
    let peer_urls = vec![format!("http://10.0.0.{id}:2380")];
    MemberRecord {
        id: MemberId(id),
        peer_urls,
        name: format!("m{id}"),
        ..MemberRecord::default()
    }
}

impl Cluster {
    fn new(size: u64) -> Self {
        let members: Vec<_> = (1..=size).map(member).collect();
        let mut cluster = Self {
            now: Time(1_000_000_000),
            nodes: BTreeMap::new(),
            disks: (1..=size).map(|id| (id, Disk::default())).collect(),
            network: VecDeque::new(),
            answers: BTreeMap::new(),
            stalled: Vec::new(),
            unreported: Vec::new(),
            next_ticket: 1 << 32,
            log_bytes_in_memory_max: 1 << 20,
            checkpoint_bytes_min: u64::MAX,
            checkpoints: Vec::new(),
        };
        for id in 1..=size {
            let recovered = Recovered::fresh(&members, lease::Config::default());
            cluster.start(id, recovered);
        }
        cluster.run_until("a leader that has published itself", |cluster| {
            cluster
                .nodes
                .values()
                .all(|node| node.status().is_published)
        });
        cluster
    }

    fn start(&mut self, id: u64, recovered: Recovered) {
        let config = Config {
            member: MemberId(id),
            cluster: ClusterId(7),
            seed: 42,
            tick: TICK,
            election_ticks: 10,
            pre_vote: true,
            request_bytes_max: 1 << 20,
            quota_bytes: 1 << 30,
            learners_max: 1,
            lease_checkpoint: false,
            checkpoint_bytes_min: self.checkpoint_bytes_min,
            log_bytes_in_memory_max: self.log_bytes_in_memory_max,
            request_timeout: Duration::from_secs(7),
            name: format!("m{id}"),
            client_urls: vec![format!("http://10.0.0.{id}:2379")],
            request_ids: RequestIds::new(MemberId(id), self.now.0 / 1_000_000, 0, 2),
        };
        self.nodes
            .insert(id, Node::new(config, recovered, self.now));
    }

    /// Forgets the process, keeps the disk.
    fn restart(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.unreported.retain(|(member, _)| *member != id);
        let disk = &self.disks[&id];
        let log = LogContents {
            hard_state: disk.hard_state,
            entries: disk.entries.values().cloned().collect(),
            ..LogContents::default()
        };
        let recovered =
            Recovered::from_disk(None, log, lease::Config::default()).expect("a sound disk");
        self.start(id, recovered);
    }

    fn step(&mut self) {
        self.now = self.now.after(Duration::from_millis(10));
        while let Some((from, to, message)) = self.network.pop_front() {
            if let Some(node) = self.nodes.get_mut(&to) {
                // Every message crosses the wire.
                let message =
                    raftpb::Message::decode(Bytes::from(message.encode_to_vec())).unwrap();
                node.handle(
                    self.now,
                    Input::Receive {
                        from: MemberId(from),
                        message,
                    },
                );
            }
        }
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).unwrap();
            if node.deadline() <= self.now {
                node.handle(self.now, Input::Wake);
            }
            self.flush(id);
        }
    }

    fn flush(&mut self, id: u64) {
        loop {
            let mut out = Vec::new();
            let node = self.nodes.get_mut(&id).unwrap();
            node.flush(&mut out);
            node.check();
            if out.is_empty() {
                return;
            }
            for output in out {
                self.carry_out(id, output);
            }
        }
    }

    fn carry_out(&mut self, id: u64, output: Output) {
        match output {
            Output::Send { to, message } => self.network.push_back((id, to.0, message)),
            Output::Reply { ticket, result } => {
                assert!(
                    self.answers.insert(ticket.0, result).is_none(),
                    "a ticket is answered once"
                );
            }
            Output::Write(write) => {
                let disk = self.disks.get_mut(&id).unwrap();
                for entry in write.entries {
                    disk.entries.split_off(&entry.index);
                    disk.entries.insert(entry.index, entry);
                }
                disk.hard_state = write.hard_state.unwrap_or(disk.hard_state);
                if self.stalled.contains(&id) {
                    self.unreported.push((id, write.number));
                } else {
                    self.nodes
                        .get_mut(&id)
                        .unwrap()
                        .handle(self.now, Input::Written(write.number));
                }
            }
            Output::ReadEntries { first, last, .. } => {
                let entries = self.disks[&id]
                    .entries
                    .range(first.0..=last.0)
                    .map(|(_, entry)| entry.clone());
                let entries = entries.collect();
                self.nodes
                    .get_mut(&id)
                    .unwrap()
                    .handle(self.now, Input::EntriesRead { first, entries });
            }
            Output::Stop(reason) => panic!("member {id} stopped: {reason}"),
            Output::Checkpoint(job) => {
                let index = job.index();
                self.checkpoints.push(index);
                let done = Input::Checkpointed { index, done: true };
                self.nodes.get_mut(&id).unwrap().handle(self.now, done);
            }
            Output::StoreAdvanced | Output::Token(_) | Output::Peers(_) => {}
        }
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..5_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never came: {what}");
    }

    fn leader(&self) -> u64 {
        let leader = self.nodes.iter().find(|(_, node)| node.is_leader());
        *leader.expect("there is a leader").0
    }

    fn request(&mut self, id: u64, request: impl FnOnce(u64) -> Request) -> u64 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let request = request(ticket);
        self.nodes.get_mut(&id).unwrap().handle(
            self.now,
            Input::Request {
                ticket: Ticket(ticket),
                request,
            },
        );
        ticket
    }

    fn put(&mut self, id: u64, key: &str, value: &str) -> u64 {
        let put = pb::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..Default::default()
        };
        self.request(id, |ticket| {
            let header = Some(pb::RequestHeader {
                id: ticket,
                ..Default::default()
            });
            let request = pb::InternalRaftRequest {
                header,
                put: Some(put),
                ..Default::default()
            };
            Request::Propose(Bytes::from(request.encode_to_vec()))
        })
    }

    fn grant(&mut self, id: u64, lease: i64, ttl: i64) -> u64 {
        self.request(id, |ticket| {
            let header = Some(pb::RequestHeader {
                id: ticket,
                ..Default::default()
            });
            let lease_grant = Some(pb::LeaseGrantRequest { id: lease, ttl });
            let request = pb::InternalRaftRequest {
                header,
                lease_grant,
                ..Default::default()
            };
            Request::Propose(Bytes::from(request.encode_to_vec()))
        })
    }

    fn answer(&mut self, ticket: u64) -> Result<Response, RequestError> {
        self.run_until("an answer", |cluster| cluster.answers.contains_key(&ticket));
        self.answers.remove(&ticket).unwrap()
    }

    fn read(&mut self, id: u64, key: &str) -> Option<String> {
        let ticket = self.request(id, |_| Request::ReadIndex);
        assert_eq!(self.answer(ticket), Ok(Response::ReadReady));
        let request = pb::RangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..Default::default()
        };
        let response = self.nodes[&id].view().range(&request).unwrap();
        response
            .kvs
            .first()
            .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    fn status(&self, id: u64) -> Status {
        self.nodes[&id].status()
    }
}

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
    cluster.stalled.clear();
    for (id, number) in std::mem::take(&mut cluster.unreported) {
        cluster
            .nodes
            .get_mut(&id)
            .unwrap()
            .handle(cluster.now, Input::Written(number));
    }
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

#[test]
fn a_lease_ends_by_the_leaders_clock_and_takes_its_keys_along() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.leader();
    let grant = cluster.grant(leader, 77, 3);
    cluster.answer(grant).unwrap();
    let put = cluster.request(leader, |ticket| {
        let header = Some(pb::RequestHeader {
            id: ticket,
            ..Default::default()
        });
        let put = Some(pb::PutRequest {
            key: Bytes::from_static(b"leased"),
            lease: 77,
            ..Default::default()
        });
        Request::Propose(Bytes::from(
            pb::InternalRaftRequest {
                header,
                put,
                ..Default::default()
            }
            .encode_to_vec(),
        ))
    });
    cluster.answer(put).unwrap();
    let granted = cluster.now;
    assert!(cluster.read(leader, "leased").is_some());
    cluster.run_until("the end of the lease", |cluster| {
        let key = pb::RangeRequest {
            key: Bytes::from_static(b"leased"),
            ..Default::default()
        };
        cluster
            .nodes
            .values()
            .all(|node| node.view().range(&key).unwrap().kvs.is_empty())
    });
    assert!(
        cluster.now.since(granted) >= Duration::from_millis(2_900),
        "not before its time"
    );
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
