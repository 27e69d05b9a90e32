//! A cluster of nodes driven by hand: a perfect network, disks that keep what they were told, time in ticks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::{
    APPEND_BYTES_MAX, Config, Gathered, Input, MembersChange, Output, Request, RequestIds,
    Response, SnapshotRecord, Write,
};
use quorate_core::checkpoint::{self, Arrival, DATABASE, MemberRecord};
use quorate_core::corruption::{Finding, HashRefusal, Hashed, PeerHash};
use quorate_core::disk::{Disk as _, DiskFile as _};
use quorate_core::lease;
use quorate_core::node::{
    Forced, LogContents, Node, ReceivedImage, RecoverError, Recovered, Status,
};
use quorate_core::{
    ClusterId, Index, MemberId, RequestError, Revision, Term, Ticket, Time, WriteNumber,
};
use quorate_proto::{etcdserverpb as pb, raftpb};

use super::memory_disk::MemoryDisk;

const LEARNERS_MAX: usize = 1;
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What one member's disk holds.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) entries: BTreeMap<u64, raftpb::Entry>,
    pub(crate) hard_state: raftpb::HardState,
    /// The last snapshot record.
    pub(crate) record: Option<SnapshotRecord>,
    pub(crate) files: MemoryDisk,
}

pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) disks: BTreeMap<u64, Disk>,
    pub(crate) network: VecDeque<(u64, u64, raftpb::Message)>,
    pub(crate) answers: BTreeMap<u64, Result<Response, RequestError>>,
    /// Members whose disk accepts writes but reports none durable.
    pub(crate) stalled: Vec<u64>,
    pub(crate) unreported: Vec<(u64, WriteNumber)>,
    next_ticket: u64,
    pub(crate) log_bytes_in_memory_max: usize,
    pub(crate) checkpoint_bytes_min: u64,
    pub(crate) quota_bytes: i64,
    /// The applied index of each checkpoint that any member asked for.
    pub(crate) checkpoints: Vec<Index>,
    pub(crate) strict_reconfig_check: bool,
    /// Snapshots that arrived: (receiver, index).
    pub(crate) snapshots: Vec<(u64, u64)>,
    /// Members that receive nothing.
    pub(crate) cut_off: Vec<u64>,
    /// Why members stopped.
    pub(crate) stopped: BTreeMap<u64, String>,
    /// Whom each member connects to.
    pub(crate) peers: BTreeMap<u64, Vec<u64>>,
    /// So many snapshots are lost on their way.
    pub(crate) lost_snapshots: u64,
    /// Received images that were not wanted.
    pub(crate) discarded: u64,
    /// Whether members are compared, each second.
    pub(crate) compares: bool,
    /// Whether the hashes of compactions are, each second.
    pub(crate) compares_compactions: bool,
    /// What comparisons have found.
    pub(crate) findings: Vec<Finding>,
}

pub(crate) fn member(id: u64) -> MemberRecord {
    let peer_urls = vec![format!("http://10.0.0.{id}:2380")];
    MemberRecord {
        id: MemberId(id),
        peer_urls,
        name: format!("m{id}"),
        ..MemberRecord::default()
    }
}

impl Cluster {
    pub(crate) fn new(size: u64) -> Self {
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
            quota_bytes: 1 << 30,
            checkpoints: Vec::new(),
            strict_reconfig_check: true,
            snapshots: Vec::new(),
            cut_off: Vec::new(),
            stopped: BTreeMap::new(),
            peers: BTreeMap::new(),
            lost_snapshots: 0,
            discarded: 0,
            compares: false,
            compares_compactions: false,
            findings: Vec::new(),
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

    pub(crate) fn start(&mut self, id: u64, recovered: Recovered) {
        let config = Config {
            member: MemberId(id),
            cluster: ClusterId(7),
            seed: 42,
            tick: TICK,
            election_ticks: 10,
            pre_vote: true,
            request_bytes_max: 1 << 20,
            quota_bytes: self.quota_bytes,
            learners_max: LEARNERS_MAX,
            corrupt_check_interval: Duration::from_secs(u64::from(self.compares)),
            compact_hash_check_interval: self
                .compares_compactions
                .then_some(Duration::from_secs(1)),
            strict_reconfig_check: self.strict_reconfig_check,
            lease_checkpoint: false,
            checkpoint_bytes_min: self.checkpoint_bytes_min,
            log_bytes_in_memory_max: self.log_bytes_in_memory_max,
            append_bytes_max: APPEND_BYTES_MAX,
            request_timeout: Duration::from_secs(7),
            name: format!("m{id}"),
            client_urls: vec![format!("http://10.0.0.{id}:2379")],
            request_ids: RequestIds::new(MemberId(id), self.now.0 / 1_000_000, 0, 2),
        };
        self.nodes
            .insert(id, Node::new(config, recovered, self.now));
    }

    /// Forgets the process, keeps the disk.
    pub(crate) fn restart(&mut self, id: u64) {
        let recovered = self.recovered(id);
        self.start(id, recovered);
    }

    /// As [`Cluster::restart`], and all other members are lost for good.
    pub(crate) fn restart_alone(&mut self, id: u64) -> Result<Forced, RecoverError> {
        self.nodes.retain(|member, _| *member == id);
        self.disks.retain(|member, _| *member == id);
        self.network.clear();
        let mut recovered = self.recovered(id);
        let forced = recovered.force_new_cluster(MemberId(id), LEARNERS_MAX)?;
        for write in forced.writes.clone() {
            self.keep(id, write);
        }
        self.start(id, recovered);
        Ok(forced)
    }

    /// What a member finds on its disk.
    pub(crate) fn recovered(&mut self, id: u64) -> Recovered {
        self.nodes.remove(&id);
        self.unreported.retain(|(member, _)| *member != id);
        let mut disk = self.disks[&id].clone();
        let record = disk.record.as_ref();
        let (index, term) = record.map_or((Index(0), Term(0)), |it| (it.index, it.term));
        let log = LogContents {
            hard_state: disk.hard_state,
            snapshot_index: index,
            snapshot_term: term,
            entries: disk
                .entries
                .range(index.0 + 1..)
                .map(|(_, entry)| entry.clone())
                .collect(),
            ..LogContents::default()
        };
        checkpoint::settle(&mut disk.files, index).expect("a sound disk");
        let image = disk
            .files
            .open(DATABASE)
            .ok()
            .map(|file| file.read().unwrap());
        Recovered::from_disk(image, log, lease::Config::default()).expect("a sound disk")
    }

    pub(crate) fn step(&mut self) {
        self.now = self.now.after(Duration::from_millis(10));
        while let Some((from, to, message)) = self.network.pop_front() {
            if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
                continue;
            }
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

    pub(crate) fn flush(&mut self, id: u64) {
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
            Output::Write(write) => self.write(id, write),
            Output::ReadEntries { first, last, .. } => {
                let entries = self.disks[&id].entries.range(first.0..=last.0);
                let entries = entries.map(|(_, entry)| entry.clone()).collect();
                self.handle(id, Input::EntriesRead { first, entries });
            }
            Output::SendSnapshot { to, message } => self.send_snapshot(id, to, message),
            Output::Discard(install) => {
                self.discarded += 1;
                install
                    .discard(&mut self.disks.get_mut(&id).unwrap().files)
                    .unwrap();
            }
            Output::Stop(reason) => {
                self.stopped.insert(id, reason);
            }
            Output::Checkpoint(job) => {
                let index = job.index();
                self.checkpoints.push(index);
                job.write(&mut self.disks.get_mut(&id).unwrap().files)
                    .unwrap();
                self.handle(id, Input::Checkpointed { index, done: true });
            }
            Output::Peers(peers) => {
                let peers = peers.iter().map(|peer| peer.member.0).collect();
                self.peers.insert(id, peers);
            }
            Output::GatherHashes {
                number,
                revision,
                peers,
            } => self.gather(id, number, revision, &peers),
            Output::Compared(findings) => self.findings.extend(findings),
            Output::StoreAdvanced | Output::Token(_) => {}
        }
    }

    fn gather(&mut self, id: u64, number: u64, revision: Option<Revision>, peers: &[MemberId]) {
        let hashed = |cluster: &Self, id: u64, revision| {
            let view = cluster.nodes[&id].view();
            let newest = view.revision();
            view.hash_kv(revision).map(|hash| Hashed { hash, newest })
        };
        let own = match revision {
            Some(_) => None,
            None => Some(hashed(self, id, Revision(0))),
        };
        let at = match &own {
            Some(own) => own
                .as_ref()
                .map_or(Revision(0), |own| own.hash.hash_revision),
            None => revision.expect("there is one or the other"),
        };
        let ask = |member: &MemberId| {
            let is_there = self.nodes.contains_key(&member.0) && !self.cut_off.contains(&member.0);
            let answer = match is_there.then(|| hashed(self, member.0, at)) {
                Some(Ok(hashed)) => Ok(hashed),
                Some(Err(RequestError::Compacted)) => Err(HashRefusal::Compacted),
                Some(Err(_)) => Err(HashRefusal::FutureRevision),
                None => Err(HashRefusal::NoAnswer("it is away".into())),
            };
            let member = *member;
            PeerHash { member, answer }
        };
        let peers = peers.iter().map(ask).collect();
        let gathered = Gathered { number, own, peers };
        self.handle(id, Input::HashesGathered(gathered));
    }

    pub(crate) fn handle(&mut self, id: u64, input: Input) {
        let now = self.now;
        self.nodes.get_mut(&id).unwrap().handle(now, input);
    }

    /// A disk that is stalled keeps what it was told, and does not say so.
    fn write(&mut self, id: u64, write: Write) {
        let number = write.number;
        self.keep(id, write);
        if self.stalled.contains(&id) {
            self.unreported.push((id, number));
        } else {
            self.handle(id, Input::Written(number));
        }
    }

    fn keep(&mut self, id: u64, write: Write) {
        let disk = self.disks.get_mut(&id).unwrap();
        if let Some(install) = write.install {
            install.carry_out(&mut disk.files).unwrap();
            disk.entries.clear();
        }
        for entry in write.entries {
            disk.entries.split_off(&entry.index);
            disk.entries.insert(entry.index, entry);
        }
        disk.hard_state = write.hard_state.unwrap_or(disk.hard_state);
        disk.record = write.snapshot.or(disk.record.take());
        if let Some(before) = write.purge_before {
            disk.entries = disk.entries.split_off(&before.0);
        }
    }

    fn send_snapshot(&mut self, from: u64, to: MemberId, message: raftpb::Message) {
        let is_lost = self.lost_snapshots > 0;
        self.lost_snapshots -= u64::from(is_lost);
        let done = !is_lost && self.nodes.contains_key(&to.0) && !self.cut_off.contains(&to.0);
        if done {
            let metadata = &message.snapshot.as_ref().expect("a snapshot").metadata;
            let index = Index(metadata.index);
            let image = self.disks.get_mut(&from).unwrap().files.open(DATABASE);
            let image = image.unwrap().read().unwrap();
            let files = self.disks[&to.0].files.clone();
            self.snapshots.push((to.0, index.0));
            let mut arrival = Arrival::begin(files, index, self.snapshots.len() as u64).unwrap();
            arrival.write(&image).unwrap();
            let (path, content) = arrival.finish().unwrap();
            let image = ReceivedImage::load(path, content, lease::Config::default()).unwrap();
            let input = Input::SnapshotReceived {
                from: MemberId(from),
                message,
                image: Box::new(image),
            };
            self.handle(to.0, input);
        }
        self.handle(from, Input::SnapshotSent { to, done });
    }

    /// What the stalled disks hold is durable now.
    pub(crate) fn report_writes(&mut self) {
        self.stalled.clear();
        for (id, number) in std::mem::take(&mut self.unreported) {
            self.handle(id, Input::Written(number));
        }
    }

    /// Asks a member for a change of the members.
    pub(crate) fn change(
        &mut self,
        id: u64,
        change: MembersChange,
    ) -> Result<Vec<pb::Member>, RequestError> {
        let ticket = self.request(id, |_| Request::ChangeMembers(change));
        self.answer(ticket).map(|response| match response {
            Response::Members(members) => members,
            other => panic!("another answer: {other:?}"),
        })
    }

    /// All links have been up for long enough, as every member sees it.
    pub(crate) fn connect_all(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for &id in &ids {
            for &member in ids.iter().filter(|member| **member != id) {
                let member = MemberId(member);
                let is_active = true;
                self.handle(id, Input::PeerActivity { member, is_active });
            }
        }
        let end = self.now.after(Duration::from_millis(5_100));
        self.run_until("links that are old enough", |cluster| cluster.now >= end);
    }

    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..5_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never came: {what}");
    }

    pub(crate) fn leader(&self) -> u64 {
        let leader = self.nodes.iter().find(|(_, node)| node.is_leader());
        *leader.expect("there is a leader").0
    }

    pub(crate) fn request(&mut self, id: u64, request: impl FnOnce(u64) -> Request) -> u64 {
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

    /// Asks a member to put an entry into the log, which `fill` says the rest of.
    pub(crate) fn propose(
        &mut self,
        id: u64,
        fill: impl FnOnce(&mut pb::InternalRaftRequest),
    ) -> u64 {
        self.request(id, |ticket| {
            let header = pb::RequestHeader {
                id: ticket,
                ..Default::default()
            };
            let mut request = pb::InternalRaftRequest {
                header: Some(header),
                ..Default::default()
            };
            fill(&mut request);
            Request::Propose(Bytes::from(request.encode_to_vec()))
        })
    }

    pub(crate) fn put(&mut self, id: u64, key: &str, value: &str) -> u64 {
        let put = pb::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..Default::default()
        };
        self.propose(id, |request| request.put = Some(put))
    }

    pub(crate) fn compact(&mut self, id: u64, revision: i64, physical: bool) -> u64 {
        let compaction = pb::CompactionRequest { revision, physical };
        self.propose(id, |request| request.compaction = Some(compaction))
    }

    pub(crate) fn grant(&mut self, id: u64, lease: i64, ttl: i64) -> u64 {
        let grant = pb::LeaseGrantRequest { id: lease, ttl };
        self.propose(id, |request| request.lease_grant = Some(grant))
    }

    pub(crate) fn answer(&mut self, ticket: u64) -> Result<Response, RequestError> {
        self.run_until("an answer", |cluster| cluster.answers.contains_key(&ticket));
        self.answers.remove(&ticket).unwrap()
    }

    pub(crate) fn read(&mut self, id: u64, key: &str) -> Option<String> {
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

    pub(crate) fn status(&self, id: u64) -> Status {
        self.nodes[&id].status()
    }
}
