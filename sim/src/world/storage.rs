//! What a process does with its disk: the log's writer, its helper that makes segments, and checkpoints.
//!
//! As in the server, the writer takes all that waits, writes it, syncs once and says so. Between any two of these
//! steps, and inside them, the machine may lose its power.

use quorate_core::boundary::Input;
use quorate_core::checkpoint::Job;
use quorate_core::disk::{Disk as _, DiskFile as _};
use quorate_core::types::{Index, MemberId};
use quorate_core::wal::{self, SegmentOrder, WalError};

use super::machine::{LogStage, LogWork, Process};
use super::{Doing, World};
use crate::check::{Violation, durability};

/// Segments that stay although they are not needed any more.
const SEGMENTS_KEPT: usize = 1;

impl World {
    pub(super) fn log_options(&self) -> wal::Options {
        wal::Options {
            segment_bytes: self.options.storage.segment_bytes,
            ..wal::Options::default()
        }
    }

    fn process(&mut self, member: MemberId) -> &mut Process {
        let machine = self.machines.get_mut(&member).expect("a member");
        machine.process.as_mut().expect("a running member")
    }

    pub(super) fn want_log_work(&mut self, member: MemberId, work: LogWork) {
        let process = self.process(member);
        process.log_work.push(work);
        if !std::mem::replace(&mut process.log_is_busy, true) {
            self.log_appends_next(member);
        }
    }

    fn log_appends_next(&mut self, member: MemberId) {
        let done_ns = self.disk_done_ns(member, self.options.disk.write_ns, 0);
        self.in_process(done_ns, member, Doing::Log(LogStage::Append));
    }

    /// When a disk operation of a member is done that begins now.
    fn disk_done_ns(&mut self, member: MemberId, usual_ns: u64, stall_ppm: u32) -> u64 {
        let now_ns = self.now_ns;
        let machine = self.machines.get_mut(&member).expect("a member");
        let (done_ns, stalls) = machine.disk_done_ns(now_ns, usual_ns, stall_ppm);
        if stalls {
            self.count("disk stalled");
        }
        done_ns
    }

    pub(super) fn log_goes_on(
        &mut self,
        member: MemberId,
        stage: LogStage,
    ) -> Result<(), Violation> {
        match stage {
            LogStage::Append => self.log_appends(member),
            LogStage::Sync {
                written,
                must_sync,
                purge_before,
                reads,
            } => {
                let process = self.process(member);
                let done = if must_sync {
                    process.wal.sync()
                } else {
                    process.wal.flush()
                };
                if let Err(error) = done {
                    return self.log_failed(member, &error);
                }
                if let Some(number) = written {
                    self.note("has written", member, number.0);
                    if must_sync {
                        self.raft.on_written(member, number);
                    }
                    self.give(member, Input::Written(number));
                }
                if let Some(index) = purge_before {
                    self.purge(member, index)?;
                    if self.machines[&member].process.is_none() {
                        return Ok(());
                    }
                }
                self.log_reads(member, reads)
            }
        }
    }

    fn log_appends(&mut self, member: MemberId) -> Result<(), Violation> {
        let disk_options = self.options.disk;
        let (mut written, mut must_sync, mut reads) = (None, false, Vec::new());
        let mut purge_before = None;
        for work in std::mem::take(&mut self.process(member).log_work) {
            match work {
                LogWork::Append(write) => {
                    written = Some(write.number);
                    must_sync |= write.must_sync;
                    purge_before = write.purge_before.or(purge_before);
                    let installed = write
                        .install
                        .as_ref()
                        .map_or(Ok(()), |install| self.install(member, install));
                    let appended = installed
                        .map_err(WalError::from)
                        .and_then(|()| self.process(member).wal.append(&write));
                    if let Err(error) = appended {
                        return self.log_failed(member, &error);
                    }
                }
                LogWork::Read {
                    first,
                    last,
                    bytes_max,
                } => reads.push((first, last, bytes_max)),
            }
        }
        if let Err(error) = self.process(member).wal.flush() {
            return self.log_failed(member, &error);
        }
        let done_ns = match must_sync {
            true => self.disk_done_ns(member, disk_options.sync_ns, disk_options.stall_ppm),
            false => self.now_ns + 1,
        };
        let stage = LogStage::Sync {
            written,
            must_sync,
            purge_before,
            reads,
        };
        self.in_process(done_ns, member, Doing::Log(stage));
        Ok(())
    }

    fn purge(&mut self, member: MemberId, before: Index) -> Result<(), Violation> {
        self.images.check_purge(&mut self.facts, member, before.0)?;
        match self.process(member).wal.purge_before(before, SEGMENTS_KEPT) {
            Ok(0) => Ok(()),
            Ok(count) => {
                self.count("log purged");
                self.note("purges segments", member, count as u64);
                Ok(())
            }
            Err(error) => self.log_failed(member, &error),
        }
    }

    fn log_reads(
        &mut self,
        member: MemberId,
        reads: Vec<(Index, Index, u64)>,
    ) -> Result<(), Violation> {
        for (first, last, bytes_max) in reads {
            match self
                .process(member)
                .wal
                .read_entries(first, last, bytes_max)
            {
                Ok(entries) => self.give(member, Input::EntriesRead { first, entries }),
                Err(error) => return self.log_failed(member, &error),
            }
        }
        self.order_segment(member);
        let process = self.process(member);
        process.log_is_busy = !process.log_work.is_empty();
        if process.log_is_busy {
            self.log_appends_next(member);
        }
        Ok(())
    }

    fn order_segment(&mut self, member: MemberId) {
        if !self.options.storage.prepares_segments {
            return;
        }
        let sync_ns = self.options.disk.sync_ns;
        if let Some(order) = self.process(member).wal.needs_segment() {
            let done_ns = self.disk_done_ns(member, sync_ns * 4, 0);
            self.in_process(done_ns, member, Doing::Segment(order));
        }
    }

    /// The helper makes a segment. If it cannot, the log makes its own when it must.
    pub(super) fn make_segment(
        &mut self,
        member: MemberId,
        order: &SegmentOrder,
    ) -> Result<(), Violation> {
        let mut disk = self.machines[&member].disk.clone();
        let made = disk.create(&order.path, order.length).and_then(|mut file| {
            file.sync()?;
            Ok(file)
        });
        if disk.is_dark() {
            return self.lose_power(member);
        }
        self.note("makes a segment", member, u64::from(made.is_ok()));
        if let Ok(file) = made {
            self.count("segment prepared");
            self.process(member).wal.supply_segment(file);
        }
        Ok(())
    }

    pub(super) fn want_checkpoint(&mut self, member: MemberId, job: Box<Job>) {
        let sync_ns = self.options.disk.sync_ns;
        let process = self.process(member);
        assert!(process.checkpoint.is_none(), "one checkpoint at a time");
        process.checkpoint = Some(job);
        let done_ns = self.disk_done_ns(member, sync_ns * 10, 0);
        self.in_process(done_ns, member, Doing::Checkpoint);
    }

    pub(super) fn write_checkpoint(&mut self, member: MemberId) -> Result<(), Violation> {
        let mut disk = self.machines[&member].disk.clone();
        let job = self
            .process(member)
            .checkpoint
            .take()
            .expect("a checkpoint is wanted");
        let written = job.write(&mut disk);
        if disk.is_dark() {
            return self.lose_power(member);
        }
        // The log still holds everything: the member goes on, and tries again later.
        let done = written.is_ok();
        self.count(if done {
            "checkpoint written"
        } else {
            "checkpoint failed"
        });
        let machine = self.machines.get_mut(&member).expect("a member");
        if done {
            machine.checkpoints += 1;
            machine.image_index = job.index().0;
            self.images.on_image(member, job.index().0);
            self.audit_written_image(member, job.index().0)?;
        }
        self.note("writes a checkpoint", member, job.index().0);
        self.give(
            member,
            Input::Checkpointed {
                index: job.index(),
                done,
            },
        );
        Ok(())
    }

    /// The log's writer cannot go on. A member whose log fails ends.
    pub(super) fn log_failed(
        &mut self,
        member: MemberId,
        error: &WalError,
    ) -> Result<(), Violation> {
        if self.machines[&member].disk.is_dark() {
            return self.lose_power(member);
        }
        match error {
            WalError::Disk(_) => self.stop_for_disk(member),
            error if self.machines[&member].may_see_damage() => {
                self.count("stopped by damage");
                self.stop_for_damage(member, &error.to_string());
                Ok(())
            }
            error => Err(Violation::new(
                "durable.recovered",
                format!("{member:?}: {error}"),
            )),
        }
    }

    /// Reads what is on the platter, as if the power went at this moment.
    pub(super) fn audit_platter(&mut self, member: MemberId) -> Result<(), Violation> {
        let options = self.log_options();
        let disk = &self.machines[&member].disk;
        let shadow = self.raft.shadow(member);
        durability::check_platter(&mut self.facts, member, disk, &options, shadow)
    }
}
