//! What a run is, as far as its tasks share it: one thread carries it all, so it lies in the thread.
//!
//! Owns the trace, the disks, the logs that members have written, the history that clients saw and the first violation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorate_core::boundary::Write;
use quorate_core::types::MemberId;
use quorate_net::rt::simulated::{End, Events, Observed};
use quorate_server::simulated::Director;
use quorate_sim::check::Violation;
use quorate_sim::disk::{DiskFaults, SimDisk};
use quorate_sim::random::{Purpose, Stream};
use quorate_sim::trace::Trace;

use crate::appended::Appended;
use crate::history::History;
use crate::options::Options;

/// Bits that tell the events of the trace apart.
const OPENED: u64 = 1;
const SENT: u64 = 2;
const RECEIVED: u64 = 3;
const CLOSED: u64 = 4;
const WRITTEN: u64 = 5;
const NOTED: u64 = 6;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Everything that the tasks of a run share.
pub struct World {
    /// The options of the run.
    pub options: Options,
    /// The seed of the run.
    pub seed: u64,
    /// The trace so far.
    pub trace: Trace,
    /// What clients did and saw.
    pub history: History,
    /// The disk of each machine.
    pub disks: Vec<SimDisk>,
    /// What each member has appended.
    pub logs: BTreeMap<MemberId, Appended>,
    /// When each entry was first appended by any member, by term and index.
    pub first_written: BTreeMap<(u64, u64), u64>,
    /// Whether clients shall go on.
    pub load_goes_on: bool,
    /// How much longer than usual the disk of each machine takes.
    pub disk_factor: Vec<u32>,
    /// How often each machine's process was started.
    pub starts: Vec<u64>,
    /// Faults so far, by name.
    pub faults: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
    start: Instant,
    pieces: Stream,
    work: Stream,
}

impl World {
    /// The world of a seed. Simulated time begins now.
    pub fn begin(seed: u64, options: Options, verbose: bool) {
        let faults = DiskFaults {
            torn_ppm: options.torn_ppm,
            capacity_bytes: None,
        };
        let disks = (0..options.members)
            .map(|machine| SimDisk::new(Stream::new(seed, Purpose::Disk, machine as u64), faults))
            .collect();
        let world = Self {
            seed,
            trace: Trace::new(verbose),
            history: History::default(),
            disks,
            logs: BTreeMap::new(),
            first_written: BTreeMap::new(),
            load_goes_on: true,
            disk_factor: vec![1; options.members],
            starts: vec![0; options.members],
            faults: BTreeMap::new(),
            violation: None,
            start: Instant::now(),
            pieces: Stream::new(seed, Purpose::Network, 0),
            work: Stream::new(seed, Purpose::DiskTiming, 0),
            options,
        };
        WORLD.set(Some(world));
    }

    /// Simulated nanoseconds since the beginning.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The first violation, if there is one.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }
}

/// Works with the world of this thread.
pub fn with<R>(work: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| work(world.as_mut().expect("a run has begun")))
}

/// Notes something that people want to read in the trace.
pub fn note(line: impl FnOnce() -> String) {
    with(|world| {
        let line = line();
        let now = world.now_ns();
        world.trace.event(now, &[NOTED], line.as_bytes(), || &line);
    });
}

/// Notes a violation; the first one counts.
pub fn violated(violation: Violation) {
    note(|| format!("VIOLATED {violation}"));
    with(|world| {
        world.load_goes_on = false;
        world.violation.get_or_insert(violation);
    });
}

/// Sees the network and the members' logs for the world.
pub struct Eyes;

impl Events for Eyes {
    fn on(&mut self, event: Observed<'_>) {
        // A stream of a dead task may be dropped when the world is gone, or while it is looked at.
        WORLD.with(|world| {
            let Ok(mut world) = world.try_borrow_mut() else {
                return;
            };
            if let Some(world) = &mut *world {
                world.on_network(event);
            }
        });
    }

    fn piece(&mut self, bytes: usize) -> usize {
        with(|world| {
            if world.options.pieces && world.pieces.chance(300_000) {
                world.pieces.between(1, bytes as u64) as usize
            } else {
                bytes
            }
        })
    }
}

impl Director for Eyes {
    fn work_time(&mut self, thread: &str) -> Duration {
        with(|world| {
            let machine = crate::cluster::current_machine();
            let factor = machine.map_or(1, |machine| world.disk_factor[machine]);
            let mean = world.options.sync * factor;
            match thread {
                "log" if !mean.is_zero() => {
                    Duration::from_nanos(world.work.with_tail(mean.as_nanos() as u64))
                }
                "checkpoints" => Duration::from_nanos(world.work.with_tail(20_000_000)),
                _ => Duration::ZERO,
            }
        })
    }

    fn on_write(&mut self, member: MemberId, write: &Write) {
        with(|world| world.on_write(member, write));
    }
}

impl World {
    fn on_network(&mut self, event: Observed<'_>) {
        let (kind, bytes): (u64, &[u8]) = match event.end {
            End::Opened => (OPENED, &[]),
            End::Sent(bytes) => (SENT, bytes),
            End::Received(bytes) => (RECEIVED, bytes),
            End::Closed => (CLOSED, &[]),
        };
        let now = self.now_ns();
        let words = [kind, address(event.local), address(event.peer)];
        self.trace.event(now, &words, bytes, || {
            let verb = ["", "opened", "sent", "received", "closed"][kind as usize];
            let (local, peer) = (event.local, event.peer);
            format!("{local} {verb} {} bytes, peer {peer}", bytes.len())
        });
    }

    fn on_write(&mut self, member: MemberId, write: &Write) {
        let now = self.now_ns();
        let last = write.entries.last().map_or(0, |entry| entry.index);
        let words = [WRITTEN, member.0, write.number.0, last];
        self.trace.event(now, &words, &[], || {
            let entries = write.entries.len();
            format!(
                "member {:x} appends {entries} entries up to {last}",
                member.0
            )
        });
        self.logs.entry(member).or_default().note(write);
        for entry in &write.entries {
            self.first_written
                .entry((entry.term, entry.index))
                .or_insert(now);
        }
    }
}

fn address(address: SocketAddr) -> u64 {
    match address {
        SocketAddr::V4(v4) => u64::from(v4.ip().to_bits()) << 16 | u64::from(v4.port()),
        SocketAddr::V6(v6) => u64::from(v6.port()),
    }
}
