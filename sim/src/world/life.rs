//! Birth, crash and return of processes.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::boundary::{Config, RequestIds};
use quorate_core::checkpoint::{self, DATABASE, SettleError};
use quorate_core::disk::{Disk as _, DiskError, DiskErrorKind, DiskFile as _};
use quorate_core::lease;
use quorate_core::node::{LogContents, Node, RecoverError, Recovered};
use quorate_core::types::MemberId;
use quorate_core::wal::{self, Metadata, Wal, WalError};
use quorate_core::watch::{Hub, HubConfig};

use super::machine::Process;
use super::{Event, World, name};
use crate::check::Violation;
use crate::check::durability::Found;
use crate::disk::SimDisk;
use crate::random::{Purpose, Stream, mix};
use crate::trace::line;

/// Restarts after which the platter is read once more, in a million.
const AUDIT_PLATTER_PPM: u32 = 150_000;

/// What a member begins with.
pub(super) struct Beginning {
    pub(super) recovered: Recovered,
    wal: Wal<SimDisk>,
    /// What the log held, if there was one.
    found: Option<FoundLog>,
}

struct FoundLog {
    /// Whether its end was torn, and was cut.
    was_torn: bool,
    base: u64,
    base_term: u64,
    entries: Vec<quorate_proto::raftpb::Entry>,
    hard_state: quorate_proto::raftpb::HardState,
}

/// Why a member does not begin.
enum Refusal {
    /// The disk refused.
    Disk,
    /// What is there does not make a member.
    Broken(String),
}

impl World {
    /// Starts a process on a machine that has none.
    pub(super) fn boot(&mut self, member: MemberId, life: u64) -> Result<(), Violation> {
        let machine = &self.machines[&member];
        let has_begun = machine.process.is_some() || machine.beginning.is_some();
        if has_begun || machine.life != life || machine.is_off || machine.is_lost {
            return Ok(());
        }
        let begun = self.begin(member);
        if self.machines[&member].disk.is_dark() {
            return self.lose_power(member);
        }
        let beginning = match begun {
            Ok(beginning) => beginning,
            Err(Refusal::Disk) => return self.stop_for_disk(member),
            Err(Refusal::Broken(reason)) if self.machines[&member].disk.is_spoilt() => {
                self.count("damage refused");
                self.stop_for_damage(member, &reason);
                return Ok(());
            }
            Err(Refusal::Broken(reason)) => {
                let detail = format!("{member:?} cannot start: {reason}");
                return Err(Violation::new("durable.recovered", detail));
            }
        };
        if let Some(log) = &beginning.found {
            let found = Found {
                base: log.base,
                base_term: log.base_term,
                entries: &log.entries,
                hard_state: log.hard_state,
            };
            self.raft
                .on_restart(&mut self.facts, &self.ledger, member, &found)?;
            if log.was_torn {
                self.count("torn tail cut");
            }
            self.count("restart");
            self.note("restarts", member, log.base + log.entries.len() as u64);
        } else {
            let nothing = Found {
                base: 0,
                base_term: 0,
                entries: &[],
                hard_state: Default::default(),
            };
            self.raft
                .on_restart(&mut self.facts, &self.ledger, member, &nothing)?;
            self.note("is founded", member, 0);
        }
        let compares = beginning.found.is_some() && self.options.comparisons.at_start;
        let view = beginning.recovered.view();
        if compares && view.is_telling_at(view.revision()) {
            self.compare_before_start(member, Box::new(beginning));
            return Ok(());
        }
        self.start(member, beginning)
    }

    /// A member that may take part does so.
    pub(super) fn start(
        &mut self,
        member: MemberId,
        beginning: Beginning,
    ) -> Result<(), Violation> {
        self.start_process(member, beginning);
        let process = self.machines[&member].process.as_ref();
        let begins_at = process.expect("it was started").node.applied().0;
        self.images.on_image(member, begins_at);
        self.turn_at(member, self.now_ns + 1_000);
        if self.audit.chance(AUDIT_PLATTER_PPM) {
            self.audit_platter(member)?;
        }
        Ok(())
    }

    /// What the server's bootstrap does: the log and the image that are there, or a new log.
    fn begin(&self, member: MemberId) -> Result<Beginning, Refusal> {
        let mut disk = self.machines[&member].disk.clone();
        let options = self.log_options();
        let lease = lease::Config::new(self.options.tick, self.options.election_ticks, false);
        disk.make_directory("member").map_err(|_| Refusal::Disk)?;
        disk.sync_directory("").map_err(|_| Refusal::Disk)?;
        if !wal::exists(&disk, &options)? {
            let metadata = Metadata {
                member,
                cluster: self.cluster,
            };
            let wal = Wal::create(disk, options, metadata)?;
            let recovered = self.beginner(member, lease);
            return Ok(Beginning {
                recovered,
                wal,
                found: None,
            });
        }
        let log = wal::recover(disk.clone(), options)?;
        let snapshot = log
            .snapshots
            .last()
            .expect("recovery finds a snapshot record");
        let found = FoundLog {
            was_torn: log.repair.is_some(),
            base: snapshot.index.0,
            base_term: snapshot.term.0,
            entries: log.entries.clone(),
            hard_state: log.hard_state,
        };
        let contents = LogContents {
            hard_state: log.hard_state,
            snapshot_index: snapshot.index,
            snapshot_term: snapshot.term,
            entries: log.entries,
            older: log.older,
        };
        if contents.is_unfinished_founding() {
            let recovered = self.beginner(member, lease);
            return Ok(Beginning {
                recovered,
                wal: log.wal,
                found: Some(found),
            });
        }
        checkpoint::settle(&mut disk, contents.snapshot_index)?;
        let image = read_image(&mut disk).map_err(|_| Refusal::Disk)?;
        let recovered = Recovered::from_disk(image, contents, lease)?;
        Ok(Beginning {
            recovered,
            wal: log.wal,
            found: Some(found),
        })
    }

    /// A member without a log.
    fn beginner(&self, member: MemberId, lease: lease::Config) -> Recovered {
        if self.machines[&member].joins {
            return Recovered::joining(lease);
        }
        Recovered::fresh(&self.founders, lease)
    }

    fn start_process(&mut self, member: MemberId, beginning: Beginning) {
        let now_ns = self.now_ns;
        if self.options.clocks.forget {
            self.count("wall clock began anew");
            let machine = self.machines.get_mut(&member).expect("a member");
            machine.clock.forget_wall(now_ns);
        }
        let machine = &self.machines[&member];
        let (number, life) = (machine.number, machine.life);
        let entropy = Stream::new(self.seed, Purpose::RequestIds, number << 32 | life).draw();
        let unix_ms = machine.clock.unix_ms(now_ns);
        let recovered = &beginning.recovered;
        let ids_begin_ms = recovered.request_ids_begin_ms(member, unix_ms, entropy);
        let log_had = beginning.found.as_ref().map_or(0..0, |log| {
            log.base + 1..log.base + 1 + log.entries.len() as u64
        });
        let config = self.node_config(member, ids_begin_ms);
        let machine = self.machines.get_mut(&member).expect("a member");
        let now = machine.clock.read(now_ns);
        let hub_config = HubConfig {
            response_bytes_max: self.options.load.watch_response_bytes_max,
            progress_interval: config.tick * 20,
            seed: config.seed,
        };
        machine.process = Some(Process {
            node: Node::new(config, beginning.recovered, now),
            wal: beginning.wal,
            hub: Hub::new(hub_config),
            inbox: Vec::new(),
            turn_at_ns: None,
            turns_queued: Vec::new(),
            log_work: Vec::new(),
            log_is_busy: false,
            checkpoint: None,
            ids: RequestIds::new(member, ids_begin_ms, 1, 2),
            log_had,
            open: BTreeMap::new(),
            streams: BTreeMap::new(),
            revision_shown: 0,
            applied_before: 0,
            saw_damage: false,
        });
    }

    fn node_config(&self, member: MemberId, ids_begin_ms: u64) -> Config {
        let machine = &self.machines[&member];
        let storage = &self.options.storage;
        Config {
            member,
            cluster: self.cluster,
            seed: mix(self.seed ^ mix(machine.number ^ machine.life << 8)),
            tick: self.options.tick,
            election_ticks: self.options.election_ticks,
            pre_vote: self.options.pre_vote,
            request_bytes_max: 1 << 20,
            quota_bytes: self.quota_bytes(),
            learners_max: 1,
            corrupt_check_interval: self.options.comparisons.everything,
            compact_hash_check_interval: self.options.comparisons.compactions,
            // What is checked about the others' links would refuse most changes under faults.
            strict_reconfig_check: false,
            lease_checkpoint: false,
            checkpoint_bytes_min: storage.checkpoint_bytes_min,
            log_bytes_in_memory_max: storage.log_bytes_in_memory_max,
            append_bytes_max: storage.append_bytes_max,
            request_timeout: self.options.request_timeout,
            name: format!("m{}", machine.number),
            client_urls: vec![format!("http://10.0.0.{}:2379", machine.number)],
            request_ids: RequestIds::new(member, ids_begin_ms, 0, 2),
        }
    }

    /// `kill -9`: what was written stays in the page cache.
    pub(super) fn crash(&mut self, member: MemberId) {
        self.note("crashes", member, 0);
        self.end_process(member, SimDisk::crash);
    }

    /// The machine loses its power, and comes back after a while.
    pub(super) fn lose_power(&mut self, member: MemberId) -> Result<(), Violation> {
        self.go_dark(member);
        self.boot_later(member);
        let point = self.options.crash_point.take();
        if point.is_some_and(|point| point.takes_all) {
            let others = self.members().into_iter().filter(|it| *it != member);
            for other in others.collect::<Vec<_>>() {
                self.lose_power(other)?;
            }
        }
        Ok(())
    }

    /// The machine loses its power, and stays off until somebody turns it on.
    pub(super) fn go_dark(&mut self, member: MemberId) {
        self.count("power lost");
        self.note("loses power", member, 0);
        self.end_process(member, SimDisk::lose_power);
    }

    /// Something on the disk is not what was written there, and the member has seen it: it ends, or does not begin. It
    /// stays so until somebody repairs the disk.
    pub(super) fn stop_for_damage(&mut self, member: MemberId, reason: &str) {
        self.trace
            .event(self.now_ns, &[11, member.0], reason.as_bytes(), || {
                line(&name(member), "refuses its disk", reason)
            });
        self.end_process(member, SimDisk::crash);
        let now_ns = self.now_ns;
        let restart_ns = self.options.restart_ns;
        let machine = self.machines.get_mut(&member).expect("a member");
        let at_ns = now_ns + machine.restart.with_tail(4 * restart_ns);
        let life = machine.life;
        self.at(at_ns, Event::Repair { member, life });
    }

    /// Somebody repairs a member's disk and starts the member again.
    pub(super) fn repair(&mut self, member: MemberId, life: u64) {
        let machine = &self.machines[&member];
        if machine.life != life || machine.process.is_some() || machine.is_off {
            return;
        }
        self.machines
            .get_mut(&member)
            .expect("a member")
            .repair_disk();
        self.count("disk repaired");
        self.note("has its disk repaired", member, 0);
        self.at(self.now_ns, Event::Boot { member, life });
    }

    /// The disk has failed, and the member ends, as it must. Nothing is known of what the page cache holds that the
    /// platter does not, so the machine is started anew.
    pub(super) fn stop_for_disk(&mut self, member: MemberId) -> Result<(), Violation> {
        self.count("stopped by its disk");
        self.note("stops: its disk has failed", member, 0);
        self.machines[&member].disk.set_capacity(None);
        self.end_process(member, SimDisk::lose_power);
        self.boot_later(member);
        Ok(())
    }

    fn end_process(&mut self, member: MemberId, then: impl FnOnce(&SimDisk) -> SimDisk) {
        let machine = self.machines.get_mut(&member).expect("a member");
        let process = machine.process.take();
        machine.life += 1;
        machine.beginning = None;
        machine.is_paused = false;
        machine.deferred.clear();
        machine.disk = then(&machine.disk);
        self.raft.on_stop(member);
        self.forget_owed_alarm(member);
        let watchers = process
            .into_iter()
            .flat_map(|process| process.streams.into_values());
        for watcher in watchers.collect::<Vec<_>>() {
            self.watcher_is_cut_off(watcher);
        }
    }

    /// A process ends that has not taken part yet; somebody tries again later.
    pub(super) fn end_before_start(&mut self, member: MemberId) {
        self.end_process(member, SimDisk::crash);
        self.boot_later(member);
    }

    /// A process is started on the machine after a while.
    pub(super) fn boot_later(&mut self, member: MemberId) {
        let restart_ns = self.options.restart_ns;
        let machine = self.machines.get_mut(&member).expect("a member");
        let after_ns = machine.restart.with_tail(restart_ns);
        let life = machine.life;
        self.at(self.now_ns + after_ns, Event::Boot { member, life });
    }

    /// Lets a process stand still.
    pub(super) fn pause(&mut self, member: MemberId) {
        self.note("is paused", member, 0);
        self.machines.get_mut(&member).expect("a member").is_paused = true;
    }

    /// Lets it go on: everything that was due happens now.
    pub(super) fn resume(&mut self, member: MemberId) {
        let machine = self.machines.get_mut(&member).expect("a member");
        machine.is_paused = false;
        for what in std::mem::take(&mut machine.deferred) {
            self.in_process(self.now_ns, member, what);
        }
    }
}

fn read_image(disk: &mut SimDisk) -> Result<Option<Bytes>, DiskError> {
    match disk.open(DATABASE) {
        Ok(file) => file.read().map(Some),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<WalError> for Refusal {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Disk(_) => Self::Disk,
            error => Self::Broken(error.to_string()),
        }
    }
}

impl From<SettleError> for Refusal {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Disk(_) => Self::Disk,
            error => Self::Broken(error.to_string()),
        }
    }
}

impl From<RecoverError> for Refusal {
    fn from(error: RecoverError) -> Self {
        Self::Broken(error.to_string())
    }
}
