//! A real Quorate cluster inside your own test: in one thread, in virtual time, from a seed.
//!
//! ```text
//!   your tasks ─► Client ─► members: Node, log, checkpoints on a SimDisk ─► each other, over links that delay
//!        ▲                                    │
//!        └── answers, watch events, time ─────┘      crash, power loss, pause, partition: yours to order, or drawn
//! ```
//!
//! What runs in a member is the code that ships (consensus, log, recovery, store, leases, watches). A [`Cluster`] owns the
//! time: nothing happens unless one of its `run_` functions runs, and a minute of cluster time takes milliseconds. The
//! program under test is written as ordinary `async` functions that use a [`Client`] and are given to
//! [`Cluster::spawn`]. A seed decides every delay and every drawn fault, so that a seed that shows a bug shows it again.
//!
//! # A bug that it finds
//!
//! Two workers count in one key. The first version reads, adds and writes; the second writes only if nobody else has:
//!
//! ```
//! use quorate_sim::embedded::{Client, Cluster, Error, Options};
//!
//! /// Adds one, not minding anybody else.
//! async fn add_carelessly(client: &Client) -> Result<bool, Error> {
//!     let count = client.get("count").await?.map_or(0, |kv| number(&kv.value));
//!     client.put("count", (count + 1).to_string()).await?;
//!     Ok(true)
//! }
//!
//! /// Adds one, unless somebody else did meanwhile.
//! async fn add_carefully(client: &Client) -> Result<bool, Error> {
//!     let known = client.get("count").await?;
//!     let count = known.as_ref().map_or(0, |kv| number(&kv.value));
//!     let revision = known.map_or(0, |kv| kv.mod_revision);
//!     client.put_if_unchanged("count", (count + 1).to_string(), revision).await
//! }
//!
//! fn number(bytes: &[u8]) -> u64 {
//!     std::str::from_utf8(bytes).unwrap().parse().unwrap()
//! }
//!
//! /// Whether the count is at least the number of additions that succeeded, and at most that of those that may have.
//! fn counts_right(seed: u64, careful: bool) -> bool {
//!     let mut cluster = Cluster::new(seed, Options::default());
//!     let sums = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
//!     for _ in 0..2 {
//!         let (client, sums) = (cluster.client(), sums.clone());
//!         cluster.spawn(async move {
//!             for _ in 0..10 {
//!                 let added = match careful {
//!                     true => add_carefully(&client).await,
//!                     false => add_carelessly(&client).await,
//!                 };
//!                 let (sure, maybe) = sums.get();
//!                 match added {
//!                     Ok(true) => sums.set((sure + 1, maybe)),
//!                     Err(Error::Unknown) => sums.set((sure, maybe + 1)),
//!                     Ok(false) | Err(_) => {}
//!                 }
//!             }
//!         });
//!     }
//!     cluster.crash_now_and_then(std::time::Duration::from_secs(2));
//!     cluster.run_until_idle(std::time::Duration::from_secs(300));
//!     let client = cluster.client();
//!     let count = cluster.block_on(async move { client.get("count").await }).unwrap();
//!     let count = count.map_or(0, |kv| number(&kv.value));
//!     let (sure, maybe) = sums.get();
//!     (sure..=sure + maybe).contains(&count)
//! }
//!
//! assert!((0..5).any(|seed| !counts_right(seed, false)), "a lost update shows within a few seeds");
//! assert!((0..5).all(|seed| counts_right(seed, true)), "and never with a comparison");
//! ```
//!
//! `sim/examples/lock_without_fencing.rs` shows another one: a lock whose holder stands still for longer than its lease.

mod client;
mod member;
mod members;
mod snapshots;
mod tasks;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::future::Future;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::boundary::{Request, Response};
use quorate_core::checkpoint::MemberRecord;
use quorate_core::error::RequestError;
use quorate_core::member::{cluster_id, member_id};
use quorate_core::types::{ClusterId, MemberId};
use quorate_proto::etcdserverpb as pb;

use self::member::Member;
use self::snapshots::Parcel;
use self::tasks::Tasks;
use crate::random::{Purpose, Stream};

pub use self::client::{Client, Error, Watch};
pub use self::tasks::TaskId;

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voters.
    pub members: usize,
    /// The heartbeat interval; the election timeout is ten times as long.
    pub heartbeat: Duration,
    /// The delay of a message or a call in one direction, at least and at most.
    pub delay: (Duration, Duration),
    /// How long a sync takes.
    pub sync: Duration,
    /// How long a client waits for an answer.
    pub call_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members: 3,
            heartbeat: Duration::from_millis(100),
            delay: (Duration::from_micros(200), Duration::from_millis(5)),
            sync: Duration::from_millis(1),
            call_timeout: Duration::from_secs(5),
        }
    }
}

/// A cluster and the tasks that use it.
pub struct Cluster {
    state: Rc<RefCell<State>>,
    tasks: Tasks,
}

/// Everything but the tasks.
struct State {
    seed: u64,
    options: Options,
    now_ns: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    /// What happens, by the number in the queue.
    events: BTreeMap<u64, Event>,
    scheduled: u64,
    cluster: ClusterId,
    founders: Vec<MemberRecord>,
    members: Vec<Member>,
    /// Links that carry nothing, from one member to another.
    cut: BTreeSet<(usize, usize)>,
    /// Calls without an answer yet, and answers that nobody has taken yet.
    calls: BTreeMap<u64, Slot>,
    calls_made: u64,
    clients_made: u64,
    snapshots_installed: u64,
    network: Stream,
    faults: Stream,
    /// The mean time between two drawn faults.
    fault_every: Option<Duration>,
}

type Answer = Result<Outcome, Error>;

/// What a member answers to a call.
#[derive(Clone, Debug)]
enum Outcome {
    Response(Response),
    Range(pb::RangeResponse),
    /// The time that was waited for has come.
    Woken,
}

/// What a client asks of a member.
#[derive(Clone, Debug)]
enum Ask {
    /// A change, without its header.
    Propose(Box<pb::InternalRaftRequest>),
    /// A linearizable read.
    Read(pb::RangeRequest),
    /// Anything else.
    Other(Request),
}

#[derive(Debug, Default)]
struct Slot {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Event {
    /// A member's process begins.
    Boot(usize),
    /// A message arrives.
    Deliver {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    /// A snapshot arrives.
    Snapshot(Box<Parcel>),
    /// A member takes its inbox.
    Turn { member: usize, life: u64 },
    /// A member's log is written and synced.
    Log { member: usize, life: u64 },
    /// A call arrives at a member.
    Call { member: usize, slot: u64, ask: Ask },
    /// An answer arrives at a client, or the client has waited long enough.
    Answer { slot: u64, answer: Answer },
    /// A drawn fault.
    Fault,
}

impl Cluster {
    /// A new cluster, whose members start when time does.
    pub fn new(seed: u64, options: Options) -> Self {
        let founder = |number: usize| {
            let peer_urls = vec![format!("http://10.0.0.{number}:2380")];
            MemberRecord {
                id: member_id(&peer_urls, "embedded", None),
                peer_urls,
                name: format!("m{number}"),
                client_urls: Vec::new(),
                is_learner: false,
            }
        };
        let founders: Vec<_> = (1..=options.members).map(founder).collect();
        let ids: Vec<MemberId> = founders.iter().map(|member| member.id).collect();
        let members = ids.iter().enumerate();
        let members = members.map(|(place, &id)| Member::new(seed, place, id));
        let mut state = State {
            seed,
            now_ns: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            cluster: cluster_id(&ids),
            members: members.collect(),
            founders,
            cut: BTreeSet::new(),
            calls: BTreeMap::new(),
            calls_made: 0,
            clients_made: 0,
            snapshots_installed: 0,
            network: Stream::new(seed, Purpose::Network, 0),
            faults: Stream::new(seed, Purpose::Faults, 0),
            fault_every: None,
            options,
        };
        for member in 0..state.members.len() {
            state.after(0, Event::Boot(member));
        }
        Self {
            state: Rc::new(RefCell::new(state)),
            tasks: Tasks::default(),
        }
    }

    /// A client of all members.
    pub fn client(&self) -> Client {
        Client::new(Rc::clone(&self.state))
    }

    /// Starts a task of the program under test.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) -> TaskId {
        self.tasks.spawn(Box::pin(task))
    }

    /// Lets a task stand still, as a process does that is stopped or collects garbage, until it is resumed.
    pub fn pause_task(&mut self, task: TaskId) {
        self.tasks.pause(task, true);
    }

    /// Lets it go on.
    pub fn resume_task(&mut self, task: TaskId) {
        self.tasks.pause(task, false);
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.state.borrow().now_ns)
    }

    /// Runs for so long.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now() + time;
        self.run_until(end, |_| false);
    }

    /// Runs until `done`, or until the time `end`. Says whether it is done.
    pub fn run_until(&mut self, end: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            self.tasks.poll();
            if done(self) {
                return true;
            }
            let due = self.state.borrow().next_ns();
            if due.is_none_or(|due| Duration::from_nanos(due) > end) {
                let mut state = self.state.borrow_mut();
                state.now_ns = state.now_ns.max(end.as_nanos() as u64);
                return false;
            }
            self.state.borrow_mut().step();
        }
    }

    /// Runs until all tasks have ended, at most for so long. Says whether they have.
    pub fn run_until_idle(&mut self, most: Duration) -> bool {
        let end = self.now() + most;
        self.run_until(end, |cluster| cluster.tasks.is_empty())
    }

    /// Runs until this future has its output. Panics if that takes an hour of virtual time.
    pub fn block_on<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let output = Rc::new(RefCell::new(None));
        let place = Rc::clone(&output);
        self.spawn(async move {
            let value = future.await;
            *place.borrow_mut() = Some(value);
        });
        let end = self.now() + Duration::from_secs(3600);
        self.run_until(end, |_| output.borrow().is_some());
        output.take().expect("the future ends within an hour")
    }

    /// The member that leads, counting from 0, if one does.
    pub fn leader(&self) -> Option<usize> {
        let state = self.state.borrow();
        state.members.iter().position(Member::leads)
    }

    /// Kills a member's process; what it wrote, the system still has.
    pub fn crash(&mut self, member: usize) {
        self.state.borrow_mut().end_process(member, false);
    }

    /// Takes a member's power: what it has not synced is lost, or in part.
    pub fn lose_power(&mut self, member: usize) {
        self.state.borrow_mut().end_process(member, true);
    }

    /// Starts a member that is down.
    pub fn restart(&mut self, member: usize) {
        self.state.borrow_mut().after(0, Event::Boot(member));
    }

    /// Lets a member stand still.
    pub fn pause(&mut self, member: usize) {
        self.state.borrow_mut().members[member].is_paused = true;
    }

    /// Lets it go on.
    pub fn resume(&mut self, member: usize) {
        self.state.borrow_mut().resume(member);
    }

    /// Cuts these members off from the others. Clients still reach everybody.
    pub fn partition(&mut self, inside: &[usize]) {
        let mut state = self.state.borrow_mut();
        for from in 0..state.members.len() {
            for to in 0..state.members.len() {
                if inside.contains(&from) != inside.contains(&to) {
                    state.cut.insert((from, to));
                }
            }
        }
    }

    /// Joins all members again.
    pub fn heal(&mut self) {
        self.state.borrow_mut().cut.clear();
    }

    /// From now on a member crashes or loses its power now and then, and comes back after a while; never a majority at
    /// once.
    pub fn crash_now_and_then(&mut self, every: Duration) {
        let mut state = self.state.borrow_mut();
        state.fault_every = Some(every);
        state.plan_fault();
    }
}

impl State {
    fn after(&mut self, after_ns: u64, event: Event) {
        self.scheduled += 1;
        let number = self.scheduled;
        self.queue.push(Reverse((self.now_ns + after_ns, number)));
        self.events.insert(number, event);
    }

    fn next_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at_ns, _))| *at_ns)
    }

    /// The delay of a message.
    fn delay_ns(&mut self) -> u64 {
        let (least, most) = self.options.delay;
        self.network
            .between(least.as_nanos() as u64, most.as_nanos() as u64)
    }

    fn step(&mut self) {
        let Some(Reverse((at_ns, number))) = self.queue.pop() else {
            return;
        };
        self.now_ns = at_ns;
        match self.events.remove(&number).expect("it was queued") {
            Event::Boot(member) => self.boot(member),
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::Snapshot(parcel) => self.on_snapshot(*parcel),
            Event::Turn { member, life } => self.turn(member, life),
            Event::Log { member, life } => self.write_log(member, life),
            Event::Call { member, slot, ask } => self.call(member, slot, ask),
            Event::Answer { slot, answer } => self.answer(slot, answer),
            Event::Fault => self.strike(),
        }
    }

    /// A client begins a call; gives its slot.
    fn ask(&mut self, member: usize, ask: Ask) -> u64 {
        let slot = self.open_slot();
        let way_ns = self.delay_ns();
        self.after(way_ns, Event::Call { member, slot, ask });
        let patience_ns = self.options.call_timeout.as_nanos() as u64;
        let answer = Err(Error::Unknown);
        self.after(patience_ns, Event::Answer { slot, answer });
        slot
    }

    /// A slot that is answered after some time.
    fn wake_after(&mut self, after: Duration) -> u64 {
        let slot = self.open_slot();
        let answer = Ok(Outcome::Woken);
        self.after(after.as_nanos() as u64, Event::Answer { slot, answer });
        slot
    }

    fn open_slot(&mut self) -> u64 {
        self.calls_made += 1;
        self.calls.insert(self.calls_made, Slot::default());
        self.calls_made
    }

    /// The first answer counts.
    fn answer(&mut self, slot: u64, answer: Answer) {
        let Some(slot) = self.calls.get_mut(&slot) else {
            return;
        };
        slot.answer.get_or_insert(answer);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }

    fn plan_fault(&mut self) {
        if let Some(every) = self.fault_every {
            let after_ns = self.faults.with_tail(every.as_nanos() as u64);
            self.after(after_ns, Event::Fault);
        }
    }

    fn strike(&mut self) {
        let member = self.faults.below(self.members.len() as u64) as usize;
        let power = self.faults.chance(500_000);
        let back_ns = self.faults.with_tail(500_000_000);
        let there = || self.members.iter().filter(|member| !member.is_gone);
        let down = there().filter(|member| !member.is_up()).count();
        if self.members[member].is_up() && (down + 1) * 2 < there().count() {
            self.end_process(member, power);
            self.after(back_ns, Event::Boot(member));
        }
        self.plan_fault();
    }
}

/// Whether an error says what became of a change, or only that nothing is known.
fn judged(error: RequestError) -> Error {
    if error == RequestError::NotLeader {
        Error::NotSent
    } else if crate::check::linearizability::is_result(&error) || members::is_refusal(&error) {
        Error::Refused(error)
    } else {
        Error::Unknown
    }
}
