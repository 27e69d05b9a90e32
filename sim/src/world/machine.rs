//! A machine: its disk and clock, and the process on it while there is one.

use std::collections::BTreeMap;
use std::ops::Range;

use quorate_core::auth::Identity;
use quorate_core::boundary::{Input, RequestIds, Write};
use quorate_core::checkpoint::Job;
use quorate_core::node::Node;
use quorate_core::types::{Index, Ticket, WriteNumber};
use quorate_core::wal::Wal;
use quorate_core::watch::{Hub, StreamId};

use crate::clock::Clock;
use crate::disk::{DiskFaults, SimDisk};
use crate::options::Options;
use crate::random::{Purpose, Stream};

use super::Doing;
use super::life::Beginning;
use super::quota::Before;
use super::workload::Call;

/// No disk operation takes longer.
const DISK_NS_MAX: u64 = 3_000_000_000;

/// One machine.
pub(super) struct Machine {
    /// Its place in the list of members, from 1.
    pub(super) number: u64,
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    pub(super) timing: Stream,
    /// Counts the snapshots that it was sent.
    pub(super) arrivals: u64,
    /// Counts processes; events of an earlier one are void.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    /// What it will start with, once it has compared that with the others.
    pub(super) beginning: Option<Box<Beginning>>,
    /// It did not start last time, since the others hold other data.
    pub(super) refuses: bool,
    /// Its database before the present turn, where there is a quota.
    pub(super) before: Before,
    pub(super) is_paused: bool,
    /// What would have happened while it stood still.
    pub(super) deferred: Vec<Doing>,
    /// Its disk takes so many times as long.
    pub(super) slowness: u64,
    /// Its disk answers nothing before this.
    pub(super) stalled_until_ns: u64,
    /// It stays off whatever happens, until everything heals.
    pub(super) is_off: bool,
    /// It is gone for good.
    pub(super) is_lost: bool,
    /// It did not found the cluster, but joined it.
    pub(super) joins: bool,
    /// How long it stays off when it went off by itself.
    pub(super) restart: Stream,
    /// Checkpoints written on it.
    pub(super) checkpoints: u64,
    /// The applied index of the last one.
    pub(super) image_index: u64,
    /// Snapshots of the leader installed on it.
    pub(super) snapshots: u64,
}

/// A running member.
pub(super) struct Process {
    pub(super) node: Node,
    pub(super) wal: Wal<SimDisk>,
    pub(super) hub: Hub,
    /// Inputs since the last turn.
    pub(super) inbox: Vec<Input>,
    /// When the next turn is, if it is known.
    pub(super) turn_at_ns: Option<u64>,
    /// When turns are queued, that one and others that will find nothing to do.
    pub(super) turns_queued: Vec<u64>,
    /// Work for the log's writer.
    pub(super) log_work: Vec<LogWork>,
    pub(super) log_is_busy: bool,
    /// The checkpoint that is to be written.
    pub(super) checkpoint: Option<Box<Job>>,
    /// Ids for the requests of clients.
    pub(super) ids: RequestIds,
    /// The entries after the snapshot that its log had when it began.
    pub(super) log_had: Range<u64>,
    /// Requests of clients that are not answered.
    pub(super) open: BTreeMap<Ticket, OpenRequest>,
    /// The watcher of each stream.
    pub(super) streams: BTreeMap<StreamId, usize>,
    /// The highest revision that a local read has shown.
    pub(super) revision_shown: i64,
    /// The applied index before the present turn.
    pub(super) applied_before: u64,
    /// Whether its disk was repaired under it: it may have read, and kept, what was wrong.
    pub(super) saw_damage: bool,
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct OpenRequest {
    pub(super) client: usize,
    pub(super) operation: u64,
    pub(super) call: Call,
    /// The last committed index when it came.
    pub(super) floor: u64,
    /// Who asks.
    pub(super) who: Identity,
    /// The newest term that had a leader then.
    pub(super) led: u64,
    /// When it came.
    pub(super) came_ns: u64,
    /// How large the database of the member was then, where there is a quota.
    pub(super) size_bytes: u64,
}

/// Work for the log's writer.
#[derive(Debug)]
pub(super) enum LogWork {
    Append(Write),
    Read {
        first: Index,
        last: Index,
        bytes_max: u64,
    },
}

/// A step of the log's writer.
#[derive(Debug)]
pub(super) enum LogStage {
    /// Takes all work and writes it.
    Append,
    /// Syncs what was written, then reads what is wanted.
    Sync {
        written: Option<WriteNumber>,
        must_sync: bool,
        /// Older entries are not needed any more.
        purge_before: Option<Index>,
        reads: Vec<(Index, Index, u64)>,
    },
}

impl Machine {
    /// Somebody puts everything on the disk right.
    pub(super) fn repair_disk(&mut self) {
        if let Some(process) = &mut self.process {
            process.saw_damage |= self.disk.is_spoilt();
        }
        self.disk.repair();
    }

    /// Whether the process may find its data to be other than it should be.
    pub(super) fn may_see_damage(&self) -> bool {
        let kept = self
            .process
            .as_ref()
            .is_some_and(|process| process.saw_damage);
        kept || self.disk.is_spoilt()
    }

    pub(super) fn new(seed: u64, number: u64, options: &Options) -> Self {
        // Each point leaves something else of what was not synced.
        let point = options.crash_point.map_or(0, |point| point.operation + 1);
        let disk = SimDisk::new(
            Stream::new(seed, Purpose::Disk, number + (point << 8)),
            DiskFaults {
                torn_ppm: options.disk.torn_ppm,
                capacity_bytes: None,
            },
        );
        if let Some(point) = options.crash_point.filter(|it| it.member == number) {
            disk.set_fuse(point.operation);
        }
        Self {
            number,
            disk,
            clock: Clock::draw(seed, number, options.clocks.rate_ppm),
            timing: Stream::new(seed, Purpose::DiskTiming, number),
            arrivals: 0,
            life: 0,
            process: None,
            beginning: None,
            refuses: false,
            before: Before::default(),
            is_paused: false,
            deferred: Vec::new(),
            slowness: 1,
            stalled_until_ns: 0,
            is_off: false,
            is_lost: false,
            joins: false,
            restart: Stream::new(seed, Purpose::Restart, number),
            checkpoints: 0,
            image_index: 0,
            snapshots: 0,
        }
    }

    /// When a disk operation is done that begins now and usually takes this long, and whether it stalls.
    pub(super) fn disk_done_ns(
        &mut self,
        now_ns: u64,
        usual_ns: u64,
        stall_ppm: u32,
    ) -> (u64, bool) {
        let stalls = self.timing.chance(stall_ppm);
        let slowness = if stalls {
            self.slowness.max(100)
        } else {
            self.slowness
        };
        let takes_ns = (self.timing.with_tail(usual_ns) * slowness).min(DISK_NS_MAX);
        let begins_ns = now_ns.max(self.stalled_until_ns);
        (begins_ns + takes_ns, stalls || begins_ns > now_ns)
    }
}
