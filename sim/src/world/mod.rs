//! The world: one run, hand-stepped from event to event.
//!
//! It owns the queue of events, the machines, the network, the clients and the oracles, and carries out what nodes
//! want done as the boundary says. No threads, no async: an event is taken, what it causes is queued, and the order of
//! the queue (time, then number) is the only order there is.
//!
//! ```text
//!   queue ──► event ──► machine: inbox ─turn─► Node ──► outputs ──► network, log writer, checkpoint, clients, watches
//!     ▲                                                    │             │
//!     └────────────────── later events ────────────────────┴─────────────┘            oracles look on everywhere
//! ```

mod altering;
mod auth;
mod clients;
mod comparing;
mod ending;
mod faults;
mod judging;
mod life;
mod machine;
mod points;
mod queue;
mod quota;
mod replace;
mod sessions;
mod snapshots;
mod storage;
mod turn;
mod watchers;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use quorate_core::boundary::{Input, Output};
use quorate_core::checkpoint::MemberRecord;
use quorate_core::lease;
use quorate_core::member::{cluster_id, member_id};
use quorate_core::types::{ClusterId, MemberId};

use crate::check::corruption::Corruption;
use crate::check::history::Recorder;
use crate::check::lease::Leases;
use crate::check::ledger::Ledger;
use crate::check::lock::Locks;
use crate::check::purging;
use crate::check::raft::Raft;
use crate::check::snapshot;
use crate::check::state::Hashes;
use crate::check::{Facts, Violation};
use crate::load::{Load, Work};
use crate::model::Model;
use crate::network::{Delivery, Network, NetworkCounts};
use crate::options::Options;
use crate::random::{Purpose, Stream};
use crate::trace::{Trace, TraceHash, line};

use clients::Client;
use comparing::{Question, Step};
use ending::Stage;
use faults::FaultState;
use machine::{LogStage, Machine};
use points::Remembered;
use queue::Queue;
use replace::Replacement;
use snapshots::Parcel;
use watchers::Watcher;

/// Events that a run may have; a run with more is one that does not end.
const EVENTS_MAX: u64 = 3_000_000;

/// One run.
pub struct World {
    seed: u64,
    options: Options,
    now_ns: u64,
    queue: Queue<Event>,
    cluster: ClusterId,
    /// The first members, as each of them is told.
    founders: Vec<MemberRecord>,
    machines: BTreeMap<MemberId, Machine>,
    network: Network,
    clients: Vec<Client>,
    watchers: Vec<Watcher>,
    /// Members that are gone, and what becomes of their places.
    replacements: Vec<Replacement>,
    /// How often the members have changed.
    changes_seen: usize,
    /// The operator who looks after the quota, and the members that have still to raise the alarm.
    operator: Stream,
    owes_alarm: BTreeSet<MemberId>,
    /// Hashes that members wait for, and how many they ever asked for.
    questions: BTreeMap<u64, Question>,
    questions_asked: u64,
    comparing: Stream,
    /// Room for the inputs and outputs of a turn, which has nothing between two of them.
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    stage: Stage,
    /// How often it was to settle.
    settled: i64,
    faults: Vec<FaultState>,
    /// Faults whose beginning or end waits for something.
    awaited: Vec<usize>,
    /// Draws who heals first.
    healing: Stream,
    audit: Stream,
    /// Draws which images are looked into.
    image_audit: Stream,
    /// What the oracles know.
    raft: Raft,
    ledger: Ledger,
    hashes: Hashes,
    /// Where the image of each member is, and what images held.
    images: purging::Images,
    snapshots: snapshot::Images,
    corruption: Corruption,
    locks: Locks,
    leases: Leases,
    recorder: Recorder,
    remembered: Remembered,
    facts: Facts,
    counts: BTreeMap<&'static str, u64>,
    trace: Trace,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash of its trace.
    pub hash: TraceHash,
    /// Events in it.
    pub events: u64,
    /// Simulated time.
    pub simulated_ns: u64,
    /// Facts compared.
    pub facts: Facts,
    /// Faults injected and other things that happened, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// What was wrong.
    pub violation: Option<Violation>,
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    /// A message arrives.
    Deliver(Delivery),
    /// A snapshot arrives.
    Snapshot(Box<Parcel>),
    /// Something happens in a process; void when that process is gone.
    Process {
        member: MemberId,
        life: u64,
        what: Doing,
    },
    /// A machine without a process gets one.
    Boot { member: MemberId, life: u64 },
    /// A client acts.
    ClientActs(usize),
    /// A client's request arrives at a member.
    ClientCalls { client: usize, operation: u64 },
    /// A client has waited long enough.
    ClientGivesUp { client: usize, operation: u64 },
    /// A watcher connects.
    WatcherConnects(usize),
    /// A fault of the plan begins.
    FaultBegins(usize),
    /// It does something more.
    FaultSteps(usize),
    /// It ends.
    FaultEnds(usize),
    /// Somebody goes on with a replacement.
    Replace(usize),
    /// The operator looks.
    Operate,
    /// Hashes are asked for.
    Compare(Box<Step>),
    /// A damaged disk is repaired.
    Repair { member: MemberId, life: u64 },
    /// Load and faults end; what follows is judged by whether it heals.
    Heal,
    /// Looks whether it has healed.
    Settle,
}

/// What happens in a process.
#[derive(Debug)]
enum Doing {
    /// The node takes its inbox.
    Turn,
    /// The log's writer goes on.
    Log(LogStage),
    /// The next segment is made.
    Segment(quorate_core::wal::SegmentOrder),
    /// The checkpoint is written.
    Checkpoint,
    /// A watcher reads its stream.
    Pull(usize),
    /// Hashes are asked for.
    Compare(Box<Step>),
}

impl World {
    /// The run of a seed with these options, before its first event.
    pub fn new(seed: u64, options: Options, verbose: bool) -> Self {
        let founders = founders(options.members);
        let ids: Vec<_> = founders.iter().map(|member| member.id).collect();
        let ttl_min = lease::Config::new(options.tick, options.election_ticks, false).ttl_min;
        let machines = (1..)
            .zip(&ids)
            .map(|(number, &id)| (id, Machine::new(seed, number, &options)));
        let mut world = Self {
            now_ns: 0,
            queue: Queue::default(),
            cluster: cluster_id(&ids),
            machines: machines.collect(),
            network: Network::new(seed, options.network),
            clients: clients(seed, &options.load),
            watchers: watchers(seed, &options.load),
            replacements: Vec::new(),
            changes_seen: 0,
            operator: Stream::new(seed, Purpose::Operator, 1),
            owes_alarm: BTreeSet::new(),
            questions: BTreeMap::new(),
            questions_asked: 0,
            comparing: Stream::new(seed, Purpose::Compare, 1),
            inputs: Vec::new(),
            outputs: Vec::new(),
            stage: Stage::Safety,
            settled: 0,
            faults: (0..options.plan.len())
                .map(|number| FaultState::new(seed, number))
                .collect(),
            awaited: Vec::new(),
            healing: Stream::new(seed, Purpose::Heal, 0),
            audit: Stream::new(seed, Purpose::Audit, 0),
            image_audit: Stream::new(seed, Purpose::Audit, 2),
            raft: Raft::new(&ids, ids.len() as u64),
            ledger: Ledger::new(Model::new(ttl_min)),
            hashes: Hashes::default(),
            images: purging::Images::default(),
            snapshots: snapshot::Images::default(),
            corruption: Corruption::default(),
            locks: Locks::default(),
            leases: Leases::default(),
            recorder: Recorder::default(),
            remembered: Remembered::default(),
            facts: Facts::new(),
            counts: BTreeMap::new(),
            trace: Trace::new(verbose),
            seed,
            options,
            founders,
        };
        world.schedule_beginning(&ids);
        world
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Outcome {
        let violation = loop {
            match self.step() {
                Ok(true) => {}
                // What clients heard of altered data is no history of one store.
                Ok(false) if self.corruption.is_anybody() => break None,
                Ok(false) => break self.judge_history().err(),
                Err(violation) => break Some(violation),
            }
        };
        self.count_by_kind();
        Outcome {
            hash: self.trace.hash(),
            events: self.trace.events(),
            simulated_ns: self.now_ns,
            facts: self.facts,
            counts: self.counts,
            violation,
        }
    }

    /// Adds what the network and the disks have counted.
    fn count_by_kind(&mut self) {
        let NetworkCounts {
            lost,
            cut,
            repeated,
            overtaken,
            held,
            refused,
            reset,
            slowed,
            lost_on_bad_link,
            queued,
            sent: _,
        } = self.network.counts();
        let network = [
            ("message lost", lost),
            ("message lost in a cut", cut),
            ("message repeated", repeated),
            ("message overtaken", overtaken),
            ("message held", held),
            ("message refused: lane full", refused),
            ("message lost in a reset", reset),
            ("message slowed", slowed),
            ("message lost on a bad link", lost_on_bad_link),
            ("message waited for bandwidth", queued),
        ];
        let disks = self.machines.values().map(|machine| machine.disk.counts());
        let disks: Vec<_> = disks.flat_map(|counts| counts.kinds()).collect();
        for (kind, count) in network.into_iter().chain(disks) {
            *self.counts.entry(kind).or_default() += count;
        }
    }

    fn schedule_beginning(&mut self, ids: &[MemberId]) {
        for &member in ids {
            self.at(0, Event::Boot { member, life: 0 });
        }
        for client in 0..self.clients.len() {
            let pause_ns = self.clients[client].pause_ns();
            self.at(pause_ns, Event::ClientActs(client));
        }
        for watcher in 0..self.watchers.len() {
            self.at(
                self.options.election().as_nanos() as u64,
                Event::WatcherConnects(watcher),
            );
        }
        self.schedule_plan();
        if self.options.quota_room_bytes.is_some() {
            self.at(self.options.election().as_nanos() as u64, Event::Operate);
        }
        self.at(self.options.safety_ns, Event::Heal);
    }

    /// One event. `false` when the run is over.
    fn step(&mut self) -> Result<bool, Violation> {
        let Some((at_ns, event)) = self.queue.pop() else {
            return Err(Violation::new(
                "converge.live",
                "nothing will ever happen again",
            ));
        };
        assert!(at_ns >= self.now_ns, "time does not go back");
        self.now_ns = at_ns;
        if self.trace.events() > EVENTS_MAX {
            return Err(Violation::new(
                "converge.live",
                "the run has too many events",
            ));
        }
        match event {
            Event::Deliver(delivery) => self.on_delivery(delivery),
            Event::Snapshot(parcel) => self.on_snapshot(*parcel)?,
            Event::Process { member, life, what } => self.on_process(member, life, what)?,
            Event::Boot { member, life } => self.boot(member, life)?,
            Event::ClientActs(client) => self.client_acts(client),
            Event::ClientCalls { client, operation } => self.client_calls(client, operation)?,
            Event::ClientGivesUp { client, operation } => {
                self.client_gives_up(client, operation)?;
            }
            Event::WatcherConnects(watcher) => self.watcher_connects(watcher),
            Event::FaultBegins(fault) => self.begin_fault(fault)?,
            Event::FaultSteps(fault) => self.step_fault(fault)?,
            Event::FaultEnds(fault) => self.end_fault(fault),
            Event::Replace(number) => self.replace(number)?,
            Event::Operate => self.operate()?,
            Event::Compare(step) => self.compare(*step)?,
            Event::Repair { member, life } => self.repair(member, life),
            Event::Heal => self.heal()?,
            Event::Settle => return self.settle(),
        }
        Ok(true)
    }

    fn on_process(&mut self, member: MemberId, life: u64, what: Doing) -> Result<(), Violation> {
        let machine = self.machines.get_mut(&member).expect("a member");
        if machine.life != life || machine.process.is_none() {
            return Ok(());
        }
        if machine.is_paused {
            machine.deferred.push(what);
            return Ok(());
        }
        match what {
            Doing::Turn => self.turn(member),
            Doing::Log(stage) => self.log_goes_on(member, stage),
            Doing::Segment(order) => self.make_segment(member, &order),
            Doing::Checkpoint => self.write_checkpoint(member),
            Doing::Pull(watcher) => self.pull(member, watcher),
            Doing::Compare(step) => self.compare(*step),
        }
    }

    /// Queues an event.
    fn at(&mut self, at_ns: u64, event: Event) {
        self.queue.push(at_ns.max(self.now_ns), event);
    }

    /// Queues something in the present process of a member.
    fn in_process(&mut self, at_ns: u64, member: MemberId, what: Doing) {
        let life = self.machines[&member].life;
        self.at(at_ns, Event::Process { member, life, what });
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Notes what happened at a member.
    fn note(&mut self, kind: &'static str, member: MemberId, detail: u64) {
        let digest = kind
            .bytes()
            .fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        self.trace
            .event(self.now_ns, &[digest, member.0, detail], &[], || {
                line(&name(member), kind, detail)
            });
    }

    /// All members, without those that are gone for good.
    fn members(&self) -> Vec<MemberId> {
        let is_there = |(_, machine): &(&MemberId, &Machine)| !machine.is_lost;
        let there = self.machines.iter().filter(is_there);
        there.map(|(member, _)| *member).collect()
    }

    /// The member that leads, if one says so; the one of the highest term if several do.
    fn leader(&self) -> Option<MemberId> {
        self.leaders()
            .max_by_key(|member| self.raft.position(*member).term)
    }

    /// All that say that they lead; those of old terms have not heard of the new one.
    fn leaders(&self) -> impl Iterator<Item = MemberId> {
        let leads = |(member, machine): &(&MemberId, &Machine)| {
            machine.process.is_some() && self.raft.position(**member).leads
        };
        self.machines
            .iter()
            .filter(leads)
            .map(|(member, _)| *member)
    }
}

/// A member as people call it, for lines of the trace.
fn name(member: MemberId) -> String {
    /// More than any run has.
    const NUMBERS: u64 = 20;
    static NAMES: OnceLock<BTreeMap<MemberId, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let members = founders(NUMBERS).into_iter();
        members.map(|member| (member.id, member.name)).collect()
    });
    // One that came later has an id that depends on when.
    let known = names.get(&member).cloned();
    known.unwrap_or_else(|| format!("{:04x}", member.0 >> 48))
}

fn founders(count: u64) -> Vec<MemberRecord> {
    let founder = |number: u64| {
        let peer_urls = vec![format!("http://10.0.0.{number}:2380")];
        MemberRecord {
            id: member_id(&peer_urls, "simulation", None),
            peer_urls,
            name: format!("m{number}"),
            client_urls: Vec::new(),
            is_learner: false,
        }
    };
    (1..=count).map(founder).collect()
}

/// The clients of a load that read and write.
fn clients(seed: u64, load: &Load) -> Vec<Client> {
    let groups = load.groups.iter();
    let acting = groups.filter(|group| !matches!(group.work, Work::Watch(_)));
    let each = acting.flat_map(|group| (0..group.clients).map(move |_| group));
    (0..)
        .zip(each)
        .map(|(number, group)| Client::new(seed, number, group))
        .collect()
}

/// Its clients that watch.
fn watchers(seed: u64, load: &Load) -> Vec<Watcher> {
    let watching = load.groups.iter().filter_map(|group| match group.work {
        Work::Watch(work) => Some((group, work)),
        _ => None,
    });
    let each = watching.flat_map(|(group, work)| (0..group.clients).map(move |_| (group, work)));
    (0..)
        .zip(each)
        .map(|(number, (group, work))| Watcher::new(seed, number, group, work))
        .collect()
}
