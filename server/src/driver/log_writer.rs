//! The log thread: appends all that waits, syncs once, and says so (group commit).
//!
//! A failed write or sync is final: nothing is known of what was written, so the process says why and ends. A helper
//! thread prepares the next segment, so that no write waits for a file full of zeros.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use quorate_core::boundary::{Input, Write};
use quorate_core::disk::{Disk, DiskError, DiskFile as _};
use quorate_core::types::{Index, WriteNumber};
use quorate_core::wal::{SegmentOrder, Wal, WalError};
use tracing::warn;

use super::queue::Queue;
use crate::log::lines;
use crate::state::ServerState;

/// Segments of a single member that are kept although a checkpoint covers them; etcd's `--max-wals`.
const SEGMENTS_KEPT: usize = 5;

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
}

/// The log thread's state.
struct Writer<D: Disk> {
    wal: Wal<D>,
    inbox: Arc<Queue<Input>>,
    state: Arc<ServerState>,
    orders: Sender<SegmentOrder>,
    segments: Receiver<D::File>,
    /// What one batch answers.
    answers: Vec<Input>,
}

/// Runs until the queue is closed; what was taken by then is durable.
pub(crate) fn run<D>(
    wal: Wal<D>,
    disk: D,
    work: &Queue<Work>,
    inbox: Arc<Queue<Input>>,
    state: Arc<ServerState>,
) where
    D: Disk + Send + 'static,
    D::File: Send,
{
    let (orders, ordered) = channel();
    let (made, segments) = channel();
    let helper = std::thread::Builder::new().name("segments".to_owned());
    let helper = helper.spawn(move || prepare_segments(disk, &ordered, &made));
    if let Err(error) = helper {
        // The log then makes its segments itself.
        warn!(error = %error, "cannot start the thread that prepares log segments");
    }
    let mut writer = Writer {
        wal,
        inbox,
        state,
        orders,
        segments,
        answers: Vec::new(),
    };
    writer.order_segment();
    let mut batch = Vec::new();
    while work.take(&mut batch, None) {
        if let Err(error) = writer.carry_out(&mut batch) {
            give_up(&error);
        }
    }
    if let Err(error) = writer.wal.sync() {
        give_up(&error);
    }
}

impl<D: Disk> Writer<D> {
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
            }
        }
        self.inbox.append(&mut self.answers);
        // After the answers: nobody waits for this.
        while let Ok(segment) = self.segments.try_recv() {
            self.wal.supply_segment(segment);
        }
        self.order_segment();
        Ok(())
    }

    fn append(&mut self, batch: &[Work]) -> Result<(), WalError> {
        let mut last: Option<WriteNumber> = None;
        let mut must_sync = false;
        let mut checkpoint = None;
        for work in batch {
            let Work::Append(write) = work else { continue };
            self.wal.append(write)?;
            last = Some(write.number);
            must_sync |= write.must_sync;
            checkpoint = write
                .snapshot
                .as_ref()
                .map(|snapshot| snapshot.index)
                .or(checkpoint);
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
            if took > SLOW_SYNC {
                lines::slow_fdatasync(took);
            }
        } else {
            self.wal.flush()?;
        }
        self.answers.push(Input::Written(last));
        if let Some(index) = checkpoint
            && self.state.status().members.len() <= 1
        {
            // A follower that lags is served from the log alone, since no snapshot can be sent to it: with peers
            // all of it is kept.
            self.wal.purge_before(index, SEGMENTS_KEPT)?;
        }
        Ok(())
    }

    fn order_segment(&mut self) {
        if let Some(order) = self.wal.needs_segment() {
            // Without the helper the log makes its own.
            let _ = self.orders.send(order);
        }
    }
}

fn prepare_segments<D: Disk>(
    mut disk: D,
    ordered: &Receiver<SegmentOrder>,
    made: &Sender<D::File>,
) {
    while let Ok(order) = ordered.recv() {
        match prepare(&mut disk, &order) {
            Ok(file) => {
                if made.send(file).is_err() {
                    return;
                }
            }
            // The log tries again itself when it must, and then fails for good.
            Err(error) => warn!(error = %error, "cannot prepare a log segment"),
        }
    }
}

fn prepare<D: Disk>(disk: &mut D, order: &SegmentOrder) -> Result<D::File, DiskError> {
    let mut file = disk.create(&order.path, order.length)?;
    file.sync()?;
    Ok(file)
}

fn give_up(error: &WalError) -> ! {
    lines::fatal(
        "cannot write the log; the member stops, since nothing is known of what was written",
        error,
    );
    std::process::exit(1);
}
