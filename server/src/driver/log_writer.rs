//! The log thread: appends all that waits, syncs once, and says so (group commit).
//!
//! A failed write or sync is final: nothing is known of what was written, so the process says why and ends. The next
//! segment is prepared beside it (`segments`), so that no write waits for a file full of zeros.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_core::boundary::{Input, Write};
use quorate_core::checkpoint::Install;
use quorate_core::types::{Index, WriteNumber};
use quorate_core::wal::{Wal, WalError};
use tracing::{info, warn};

use super::queue::Queue;
use super::segments::Segments;
use crate::host::{self, SharedDisk, Worker};
use crate::log::lines;
use crate::state::ServerState;

/// Segments that are kept although a checkpoint covers them: a follower that was away for a moment goes on from them. A
/// restart reads and checks all that is there, so there are few.
const SEGMENTS_KEPT: usize = 1;

/// A sync that takes longer is worth a line.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// What the log thread is asked for.
#[derive(Debug)]
pub(crate) enum Work {
    /// Append; then `Input::Written`.
    Append(Write),
    /// Read old entries; then `Input::EntriesRead`.
    Read {
        /// The first wanted.
        first: Index,
        /// The last wanted.
        last: Index,
        /// Enough when reached.
        bytes_max: u64,
    },
    /// Remove a received image that nobody wants.
    Discard(Install),
}

/// The log thread's state.
pub(crate) struct Writer<D: SharedDisk> {
    wal: Wal<D>,
    /// Where received images are put in their place.
    disk: D,
    inbox: Arc<Queue<Input>>,
    state: Arc<ServerState>,
    segments: Segments<D>,
    /// What one batch answers.
    answers: Vec<Input>,
}

impl<D: SharedDisk> Worker for Writer<D> {
    type Item = Work;

    fn work(&mut self, batch: &mut Vec<Work>) {
        if let Err(error) = self.carry_out(batch) {
            give_up(&error);
        }
    }

    /// What was taken by then is durable.
    fn end(mut self) {
        if let Err(error) = self.wal.sync() {
            give_up(&error);
        }
    }
}

impl<D: SharedDisk> Writer<D> {
    pub(crate) fn new(
        wal: Wal<D>,
        disk: D,
        inbox: Arc<Queue<Input>>,
        state: Arc<ServerState>,
    ) -> Self {
        let mut writer = Self {
            wal,
            inbox,
            state,
            segments: Segments::start(disk.clone()),
            disk,
            answers: Vec::new(),
        };
        writer.order_segment();
        writer
    }

    fn carry_out(&mut self, batch: &mut Vec<Work>) -> Result<(), WalError> {
        self.append(batch)?;
        for work in batch.drain(..) {
            if let Work::Read {
                first,
                last,
                bytes_max,
            } = work
            {
                let entries = self.wal.read_entries(first, last, bytes_max)?;
                self.answers.push(Input::EntriesRead { first, entries });
            } else if let Work::Discard(install) = work
                && let Err(error) = install.discard(&mut self.disk)
            {
                // It is removed at the next start.
                warn!(error = %error, "cannot remove a snapshot that is not wanted");
            }
        }
        self.inbox.append(&mut self.answers);
        // After the answers: nobody waits for this.
        while let Some(segment) = self.segments.take() {
            self.wal.supply_segment(segment);
        }
        self.order_segment();
        Ok(())
    }

    fn append(&mut self, batch: &[Work]) -> Result<(), WalError> {
        let mut last: Option<WriteNumber> = None;
        let mut must_sync = false;
        let mut writes = 0;
        let mut purge_before = None;
        for work in batch {
            let Work::Append(write) = work else { continue };
            if let Some(install) = &write.install {
                let installing = &self.state.metrics.work.installing;
                installing.add(1);
                install.carry_out(&mut self.disk)?;
                installing.add(-1);
                info!(index = install.index().0, "installed a snapshot");
            }
            self.wal.append(write)?;
            #[cfg(madsim)]
            crate::simulated::note_write(self.state.member, write);
            last = Some(write.number);
            writes += 1;
            must_sync |= write.must_sync;
            purge_before = write.purge_before.or(purge_before);
        }
        let Some(last) = last else { return Ok(()) };
        if must_sync {
            let begun = Instant::now();
            self.wal.flush()?;
            let flushed = Instant::now();
            self.state.metrics.wal_write.observe(flushed - begun);
            self.wal.sync()?;
            let took = flushed.elapsed();
            self.state.metrics.wal_fsync.observe(took);
            self.state.metrics.work.wal_batch.observe_units(writes);
            if took > SLOW_SYNC {
                lines::slow_fdatasync(took);
            }
        } else {
            self.wal.flush()?;
        }
        let written = self.wal.bytes_written();
        let counted = &self.state.metrics.work.wal_bytes;
        counted.add(written - counted.value());
        self.answers.push(Input::Written(last));
        if let Some(index) = purge_before {
            let purged = self.wal.purge_before(index, SEGMENTS_KEPT)?;
            if purged > 0 {
                info!(purged, before = index.0, "purged log files");
            }
        }
        Ok(())
    }

    fn order_segment(&mut self) {
        if let Some(order) = self.wal.needs_segment() {
            self.segments.order(order);
        }
    }
}

fn give_up(error: &WalError) -> ! {
    lines::fatal(
        "cannot write the log; the member stops, since nothing is known of what was written",
        error,
    );
    host::exit(1);
}
