//! A member: its disk, and the process on it while there is one. What the server's threads do, an event at a time.

use std::collections::BTreeMap;
use std::task::Waker;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::{
    APPEND_BYTES_MAX, Config, Input, Output, Request, RequestIds, Response, Write,
};
use quorate_core::checkpoint::{DATABASE, settle};
use quorate_core::disk::{Disk as _, DiskError, DiskErrorKind, DiskFile as _};
use quorate_core::lease;
use quorate_core::node::{LogContents, Node, Recovered};
use quorate_core::types::{Index, MemberId, Ticket, Time};
use quorate_core::wal::{self, Metadata, Wal};
use quorate_core::watch::{Hub, HubConfig};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Message;

use super::{Ask, Error, Event, Outcome, State, judged};
use crate::disk::{DiskFaults, SimDisk};
use crate::random::{Purpose, Stream, mix};

/// The wall clock when a cluster begins.
const BEGAN_UNIX_MS: u64 = 1_700_000_000_000;
/// Small, so that a short test has several.
const SEGMENT_BYTES: u64 = 256 << 10;
const CHECKPOINT_BYTES_MIN: u64 = 64 << 10;
/// Segments that stay although they are not needed any more.
const SEGMENTS_KEPT: usize = 1;
/// Why its disk never refuses.
pub(super) const INTACT: &str = "a disk without faults takes everything";

pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) disk: SimDisk,
    /// Counts its processes.
    life: u64,
    pub(super) process: Option<Process>,
    pub(super) is_paused: bool,
    /// Its machine was taken away.
    pub(super) is_gone: bool,
    /// What was due while it stood still.
    deferred: Vec<Event>,
}

pub(super) struct Process {
    pub(super) node: Node,
    wal: Wal<SimDisk>,
    pub(super) hub: Hub,
    inbox: Vec<Input>,
    /// When its next turn is.
    turn_at_ns: Option<u64>,
    log_work: Vec<LogWork>,
    ids: RequestIds,
    /// The calls that it has not answered.
    open: BTreeMap<Ticket, (u64, Option<pb::RangeRequest>)>,
    /// Watches that wait for something to happen.
    pub(super) watchers: Vec<Waker>,
}

enum LogWork {
    Append(Write),
    Read(Index, Index, u64),
}

impl Member {
    pub(super) fn new(seed: u64, place: usize, id: MemberId) -> Self {
        let stream = Stream::new(seed, Purpose::Disk, place as u64 + 1);
        Self {
            id,
            disk: SimDisk::new(stream, DiskFaults::default()),
            life: 0,
            process: None,
            is_paused: false,
            is_gone: false,
            deferred: Vec::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Tells its processes apart.
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    pub(super) fn leads(&self) -> bool {
        let process = self.process.as_ref();
        process.is_some_and(|process| process.node.is_leader())
    }
}

impl State {
    fn now(&self) -> Time {
        Time(self.now_ns)
    }

    /// Starts a process on a machine that has none.
    pub(super) fn boot(&mut self, place: usize) {
        if self.members[place].is_up() || self.members[place].is_gone {
            return;
        }
        let began = self.begin(place);
        let (recovered, wal) = began.expect("a disk without faults holds what was synced");
        let member_id = self.members[place].id;
        let ids_begin_ms = recovered.request_ids_begin_ms(
            member_id,
            self.unix_ms(),
            mix(self.seed ^ mix(member_id.0 ^ self.members[place].life)),
        );
        let (config, now) = (self.node_config(place, ids_begin_ms), self.now());
        let hub = HubConfig {
            response_bytes_max: 2 << 20,
            progress_interval: config.tick * 20,
            seed: config.seed,
        };
        let member = &mut self.members[place];
        member.process = Some(Process {
            node: Node::new(config, recovered, now),
            wal,
            hub: Hub::new(hub),
            inbox: Vec::new(),
            turn_at_ns: None,
            log_work: Vec::new(),
            ids: RequestIds::new(member.id, ids_begin_ms, 1, 2),
            open: BTreeMap::new(),
            watchers: Vec::new(),
        });
        self.turn_at(place, self.now_ns);
    }

    /// What the server's bootstrap does: the log and the image that are there, or a new log.
    fn begin(&self, place: usize) -> Result<(Recovered, Wal<SimDisk>), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut disk = self.members[place].disk.clone();
        let options = wal::Options {
            segment_bytes: SEGMENT_BYTES,
            ..wal::Options::default()
        };
        let lease = lease::Config::new(self.options.heartbeat, 10, false);
        disk.make_directory("member")
            .map_err(|error| text(&error))?;
        disk.sync_directory("").map_err(|error| text(&error))?;
        let id = self.members[place].id;
        let is_founder = self.founders.iter().any(|founder| founder.id == id);
        let fresh = || {
            if is_founder {
                Recovered::fresh(&self.founders, lease)
            } else {
                Recovered::joining(lease)
            }
        };
        if !wal::exists(&disk, &options).map_err(|error| text(&error))? {
            let metadata = Metadata {
                member: self.members[place].id,
                cluster: self.cluster,
            };
            let wal = Wal::create(disk, options, metadata).map_err(|error| text(&error))?;
            return Ok((fresh(), wal));
        }
        let log = wal::recover(disk.clone(), options).map_err(|error| text(&error))?;
        let snapshot = log.snapshots.last().ok_or("no snapshot record")?;
        let contents = LogContents {
            hard_state: log.hard_state,
            snapshot_index: snapshot.index,
            snapshot_term: snapshot.term,
            entries: log.entries,
            older: log.older,
        };
        if contents.is_unfinished_founding() {
            return Ok((fresh(), log.wal));
        }
        settle(&mut disk, contents.snapshot_index).map_err(|error| text(&error))?;
        let image = read_image(&mut disk).map_err(|error| text(&error))?;
        let recovered = Recovered::from_disk(image, contents, lease);
        Ok((recovered.map_err(|error| text(&error))?, log.wal))
    }

    fn unix_ms(&self) -> u64 {
        BEGAN_UNIX_MS + self.now_ns / 1_000_000
    }

    fn node_config(&self, place: usize, ids_begin_ms: u64) -> Config {
        let member = &self.members[place];
        Config {
            member: member.id,
            cluster: self.cluster,
            seed: mix(self.seed ^ mix(place as u64 ^ member.life << 8)),
            tick: self.options.heartbeat,
            election_ticks: 10,
            pre_vote: true,
            request_bytes_max: 1_572_864,
            quota_bytes: -1,
            learners_max: 1,
            corrupt_check_interval: std::time::Duration::ZERO,
            compact_hash_check_interval: None,
            strict_reconfig_check: true,
            lease_checkpoint: false,
            checkpoint_bytes_min: CHECKPOINT_BYTES_MIN,
            log_bytes_in_memory_max: 1 << 20,
            append_bytes_max: APPEND_BYTES_MAX,
            request_timeout: self.options.call_timeout,
            name: format!("m{}", place + 1),
            client_urls: vec![format!("http://10.0.0.{}:2379", place + 1)],
            request_ids: RequestIds::new(member.id, ids_begin_ms, 0, 2),
        }
    }

    /// Ends a process; with `power`, its machine's power goes with it.
    pub(super) fn end_process(&mut self, place: usize, power: bool) {
        let member = &mut self.members[place];
        let process = member.process.take();
        member.life += 1;
        member.is_paused = false;
        member.deferred.clear();
        member.disk = if power {
            member.disk.lose_power()
        } else {
            member.disk.crash()
        };
        let watchers = process.map_or_else(Vec::new, |process| process.watchers);
        watchers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn resume(&mut self, place: usize) {
        self.members[place].is_paused = false;
        for event in std::mem::take(&mut self.members[place].deferred) {
            self.after(0, event);
        }
    }

    /// The process of an event, unless it is gone. One that stands still gets the event later.
    fn process(&mut self, place: usize, life: u64, event: Event) -> Option<&mut Process> {
        let member = &mut self.members[place];
        if member.life != life || member.process.is_none() {
            return None;
        }
        if member.is_paused {
            member.deferred.push(event);
            return None;
        }
        member.process.as_mut()
    }

    pub(super) fn give(&mut self, place: usize, input: Input) {
        if let Some(process) = &mut self.members[place].process {
            process.inbox.push(input);
            self.turn_at(place, self.now_ns + 10_000);
        }
    }

    /// Makes sure that a turn comes at this time or before.
    pub(super) fn turn_at(&mut self, place: usize, at_ns: u64) {
        let (now_ns, life) = (self.now_ns, self.members[place].life);
        let Some(process) = &mut self.members[place].process else {
            return;
        };
        if process.turn_at_ns.is_none_or(|planned| at_ns < planned) {
            process.turn_at_ns = Some(at_ns);
            let turn = Event::Turn {
                member: place,
                life,
            };
            self.after(at_ns.saturating_sub(now_ns), turn);
        }
    }

    pub(super) fn turn(&mut self, place: usize, life: u64) {
        let (now_ns, now) = (self.now_ns, self.now());
        let event = Event::Turn {
            member: place,
            life,
        };
        let Some(process) = self.process(place, life, event) else {
            return;
        };
        if process.turn_at_ns.is_none_or(|planned| planned > now_ns) {
            return; // Another turn came first, and has taken everything.
        }
        process.turn_at_ns = None;
        let inputs = std::mem::take(&mut process.inbox);
        if inputs.is_empty() || process.node.deadline() <= now {
            process.node.handle(now, Input::Wake);
        }
        for input in inputs {
            process.node.handle(now, input);
        }
        let mut outputs = Vec::new();
        process.node.flush(&mut outputs);
        process.node.check();
        for output in outputs {
            self.carry_out(place, output);
        }
        self.serve_watches(place);
    }

    fn carry_out(&mut self, place: usize, output: Output) {
        match output {
            Output::Send { to, message } => self.send(place, to, &message),
            Output::Write(write) => self.want_log_work(place, LogWork::Append(write)),
            Output::ReadEntries {
                first,
                last,
                bytes_max,
            } => self.want_log_work(place, LogWork::Read(first, last, bytes_max)),
            Output::Checkpoint(job) => {
                let mut disk = self.members[place].disk.clone();
                let (index, done) = (job.index(), job.write(&mut disk).is_ok());
                self.give(place, Input::Checkpointed { index, done });
            }
            Output::Reply { ticket, result } => self.reply(place, ticket, result),
            Output::SendSnapshot { to, message } => self.send_snapshot(place, to, message),
            Output::Discard(install) => {
                let mut disk = self.members[place].disk.clone();
                install.discard(&mut disk).expect(INTACT);
            }
            Output::Stop(reason) => {
                assert!(reason.contains("removed"), "member {place} stops: {reason}");
                self.end_process(place, false);
                self.members[place].is_gone = true;
            }
            // Links are always there.
            Output::Peers(peers) => {
                for peer in peers {
                    let (member, is_active) = (peer.member, true);
                    self.give(place, Input::PeerActivity { member, is_active });
                }
            }
            // Watches look at the store after each turn.
            _ => {}
        }
    }

    /// The hub follows the store, and the next turn comes at the deadline.
    fn serve_watches(&mut self, place: usize) {
        let (now, now_ns) = (self.now(), self.now_ns);
        let Some(process) = &mut self.members[place].process else {
            return;
        };
        process.hub.advance(now, &process.node.view());
        if !process.hub.ready().is_empty() {
            process.watchers.drain(..).for_each(Waker::wake);
        }
        let deadline = process.node.deadline();
        if deadline != Time::NEVER {
            self.turn_at(place, deadline.0.max(now_ns + 1_000));
        }
    }

    fn send(&mut self, from: usize, to: MemberId, message: &Message) {
        let to = self.members.iter().position(|member| member.id == to);
        let Some(to) = to.filter(|to| !self.cut.contains(&(from, *to))) else {
            return;
        };
        let bytes = Bytes::from(message.encode_to_vec());
        let way_ns = self.delay_ns();
        self.after(way_ns, Event::Deliver { from, to, bytes });
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: &Bytes) {
        if self.cut.contains(&(from, to)) {
            return;
        }
        let message = Message::decode(bytes.clone()).expect("it was encoded");
        let from = self.members[from].id;
        self.give(to, Input::Receive { from, message });
    }

    fn want_log_work(&mut self, place: usize, work: LogWork) {
        let life = self.members[place].life;
        let sync_ns = self.options.sync.as_nanos() as u64;
        let Some(process) = &mut self.members[place].process else {
            return;
        };
        process.log_work.push(work);
        if process.log_work.len() == 1 {
            let log = Event::Log {
                member: place,
                life,
            };
            self.after(sync_ns, log);
        }
    }

    /// Appends all that waits, syncs once, and says so.
    pub(super) fn write_log(&mut self, place: usize, life: u64) {
        let event = Event::Log {
            member: place,
            life,
        };
        let mut disk = self.members[place].disk.clone();
        let Some(process) = self.process(place, life, event) else {
            return;
        };
        let mut installed = 0;
        let (mut written, mut purge_before, mut answers) = (None, None, Vec::new());
        for work in std::mem::take(&mut process.log_work) {
            match work {
                LogWork::Append(write) => {
                    if let Some(install) = &write.install {
                        install.carry_out(&mut disk).expect(INTACT);
                        installed += 1;
                    }
                    process.wal.append(&write).expect(INTACT);
                    written = Some(write.number);
                    purge_before = write.purge_before.or(purge_before);
                }
                LogWork::Read(first, last, bytes_max) => {
                    let read = process.wal.read_entries(first, last, bytes_max);
                    let entries = read.expect(INTACT);
                    answers.push(Input::EntriesRead { first, entries });
                }
            }
        }
        process.wal.flush().expect(INTACT);
        process.wal.sync().expect(INTACT);
        if let Some(index) = purge_before {
            let purged = process.wal.purge_before(index, SEGMENTS_KEPT);
            purged.expect(INTACT);
        }
        self.snapshots_installed += installed;
        answers.extend(written.map(Input::Written));
        for answer in answers {
            self.give(place, answer);
        }
    }

    /// A call arrives. A process that is not there refuses it at once; nothing was done.
    pub(super) fn call(&mut self, place: usize, slot: u64, ask: Ask) {
        let way_ns = self.delay_ns();
        let Some(process) = &mut self.members[place].process else {
            let answer = Err(Error::NotSent);
            return self.after(way_ns, Event::Answer { slot, answer });
        };
        let ticket = Ticket(process.ids.take());
        let (request, read) = match ask {
            Ask::Propose(mut request) => {
                request.header = Some(pb::RequestHeader {
                    id: ticket.0,
                    ..pb::RequestHeader::default()
                });
                let bytes = Bytes::from(request.encode_to_vec());
                (Request::Propose(bytes), None)
            }
            Ask::Read(range) => (Request::ReadIndex, Some(range)),
            Ask::Other(request) => (request, None),
        };
        process.open.insert(ticket, (slot, read));
        self.give(place, Input::Request { ticket, request });
    }

    fn reply(
        &mut self,
        place: usize,
        ticket: Ticket,
        result: Result<Response, quorate_core::error::RequestError>,
    ) {
        let way_ns = self.delay_ns();
        let Some(process) = &mut self.members[place].process else {
            return;
        };
        let Some((slot, read)) = process.open.remove(&ticket) else {
            return; // The node's own.
        };
        let answer = match (result, read) {
            (Err(error), _) => Err(judged(error)),
            (Ok(_), Some(range)) => match process.node.view().range(&range) {
                Ok(response) => Ok(Outcome::Range(response)),
                Err(error) => Err(judged(error)),
            },
            (Ok(response), None) => Ok(Outcome::Response(response)),
        };
        self.after(way_ns, Event::Answer { slot, answer });
    }
}

fn read_image(disk: &mut SimDisk) -> Result<Option<Bytes>, DiskError> {
    match disk.open(DATABASE) {
        Ok(file) => file.read().map(Some),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
