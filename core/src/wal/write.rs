//! The writer: encodes, writes, syncs, and goes from segment to segment.

use bytes::Bytes;
use quorate_proto::raftpb::{ConfState, HardState};

use super::error::WalError;
use super::log::{Log, Position};
use super::record::{ENTRY_OVERHEAD_BYTES, Encoder, STATE_BYTES_MAX};
use super::segment::{self, Segment};
use super::{Metadata, Options};
use crate::boundary::{SnapshotRecord, Write};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::types::{Index, Term};

/// A segment that the driver prepares ahead.
const SPARE_ORDERED: &str = "0.tmp";

/// A segment that the writer makes itself when none is ready; another name, since the ordered one may be on its way.
const SPARE_OWN: &str = "1.tmp";

/// The log of one member, open for appending.
///
/// `D` is a handle to the disk; the log holds its own.
pub struct Wal<D: Disk> {
    pub(super) disk: D,
    pub(super) options: Options,
    /// Never empty, without gaps in the sequence; the last one is written to.
    pub(super) segments: Vec<Segment<D::File>>,
    /// The next segment, all zeros and durable, under a temporary name.
    pub(super) spare: Spare<D::File>,
    /// Frames that are not yet written, and the chain.
    pub(super) encoder: Encoder,
    /// The metadata record's data, byte for byte as in the first segment.
    pub(super) metadata: Bytes,
    /// The last hard state that was appended.
    pub(super) hard_state: HardState,
    /// The last snapshot record that is durable together with a commit index that reaches it: recovery can begin
    /// there.
    pub(super) snapshot_durable: Index,
    /// The last snapshot record that was appended.
    pub(super) snapshot_appended: Index,
    /// Where the entries lie.
    pub(super) log: Log,
    /// Bytes of all frames that were given to the disk since the log was opened.
    pub(super) bytes_written: u64,
    /// Bytes of the active segment's head; 0 if it was not looked for.
    pub(super) head_bytes: u64,
    /// Whether the file holds writes that no sync covers yet.
    pub(super) dirty: bool,
    /// Whether a sync has covered frames of this segment since the last seed in it, so that the next batch begins
    /// with a seed.
    pub(super) seed_due: bool,
    /// The failure that ended writing. Nothing is known of the files after it.
    pub(super) failed: Option<WalError>,
}

/// What is known of the next segment.
#[derive(Debug)]
pub(super) enum Spare<F> {
    /// Not asked for.
    None,
    /// [`Wal::needs_segment`] has asked for it.
    Ordered,
    /// There.
    Ready(F),
}

/// A file that the log will need: create it with [`Disk::create`] and sync it, off the writer's thread, then hand
/// it to [`Wal::supply_segment`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOrder {
    /// Its path.
    pub path: String,
    /// Its length.
    pub length: u64,
}

impl<D: Disk> Wal<D> {
    /// Starts the log of a new member. The log appears as a whole or not at all: it is built aside and renamed.
    ///
    /// An [`exists`](super::exists) that answered no must come before: what else lies in the directory is removed.
    pub fn create(mut disk: D, options: Options, metadata: Metadata) -> Result<Self, WalError> {
        assert!(
            !super::exists(&disk, &options)?,
            "{} holds a log",
            options.directory
        );
        let aside = format!("{}.tmp", options.directory);
        for directory in [&aside, &options.directory] {
            for name in disk.list(directory)? {
                disk.remove(&format!("{directory}/{name}"))?;
            }
        }
        disk.make_directory(&aside)?;
        let name = segment::name(0, Index(0));
        let mut file = disk.create(&format!("{aside}/{name}"), options.segment_bytes)?;
        let metadata = metadata.encode();
        let mut encoder = Encoder::new(0);
        encoder.seed();
        encoder.metadata(&metadata);
        let origin = SnapshotRecord {
            index: Index(0),
            term: Term(0),
            conf_state: ConfState::default(),
        };
        encoder.snapshot(&origin);
        file.write_at(0, encoder.frames())?;
        file.sync()?;
        disk.sync_directory(&aside)?;
        match disk.remove(&options.directory) {
            Err(DiskError {
                kind: DiskErrorKind::NotFound,
                ..
            })
            | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        disk.rename(&aside, &options.directory)?;
        disk.sync_directory(options.parent())?;

        let mut log = Log::default();
        log.begin_after(Index(0), Term(0));
        let length = encoder.frames().len() as u64;
        encoder.clear();
        let path = options.path(&name);
        let segment = Segment {
            sequence: 0,
            first: Index(0),
            path,
            file,
            length,
            content: Bytes::new(),
        };
        Ok(Self {
            disk,
            options,
            segments: vec![segment],
            spare: Spare::None,
            encoder,
            metadata,
            hard_state: HardState::default(),
            bytes_written: 0,
            head_bytes: length,
            snapshot_durable: Index(0),
            snapshot_appended: Index(0),
            log,
            dirty: false,
            seed_due: false,
            failed: None,
        })
    }

    /// Adds a write: its snapshot record, then its entries, then its hard state. Nothing is durable, nor even
    /// written, before [`Wal::sync`] or [`Wal::flush`]; a batch is several appends and one of these.
    ///
    /// # Panics
    ///
    /// If the entries leave a gap after the log, or their terms go back: that is the caller's bug.
    pub fn append(&mut self, write: &Write) -> Result<(), WalError> {
        self.check_failed()?;
        if write.entries.is_empty() && write.hard_state.is_none() && write.snapshot.is_none() {
            return Ok(());
        }
        let full = self.position() + encoded_bytes_max(write) > self.options.segment_bytes;
        if full && self.position() > self.head_bytes {
            let result = self.cut();
            self.keep_failure(result)?;
        }
        if self.seed_due {
            self.encoder.seed();
            self.seed_due = false;
        }
        if let Some(snapshot) = &write.snapshot {
            self.append_snapshot(snapshot, write.hard_state.unwrap_or(self.hard_state));
        }
        let sequence = self.active().sequence;
        for entry in &write.entries {
            let offset = self.position();
            let position = Position {
                sequence,
                offset,
                checksum: self.encoder.checksum(),
            };
            self.encoder.entry(entry);
            if let Err(misplaced) =
                self.log
                    .add_entry(Index(entry.index), Term(entry.term), position)
            {
                panic!(
                    "entry {} of term {} cannot follow: {misplaced:?}",
                    entry.index, entry.term
                );
            }
        }
        if let Some(state) = write.hard_state.as_ref().filter(|state| !state.is_empty()) {
            self.encoder.hard_state(state);
            self.hard_state = *state;
        }
        Ok(())
    }

    /// Writes what was appended, in one call to the disk. It survives the end of the process, not a power loss.
    pub fn flush(&mut self) -> Result<(), WalError> {
        self.check_failed()?;
        let result = self.try_flush();
        self.keep_failure(result)
    }

    /// Writes what was appended and makes everything durable. What was appended before is safe when this returns.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.check_failed()?;
        let result = self.try_sync();
        self.keep_failure(result)
    }

    /// Asks, once per segment, for the next one, when it is time to prepare it. Without an answer the log makes its
    /// own when it must, and the writer waits for that.
    pub fn needs_segment(&mut self) -> Option<SegmentOrder> {
        let due = self.position() >= self.options.segment_bytes / 4;
        if !due || !matches!(self.spare, Spare::None) || self.failed.is_some() {
            return None;
        }
        self.spare = Spare::Ordered;
        Some(SegmentOrder {
            path: self.options.path(SPARE_ORDERED),
            length: self.options.segment_bytes,
        })
    }

    /// Takes the file that [`Wal::needs_segment`] asked for: all zeros, allocated and synced.
    pub fn supply_segment(&mut self, file: D::File) {
        self.spare = Spare::Ready(file);
    }

    /// Deletes segments, oldest first, that hold nothing but what lies before `index`, as long as more than `keep`
    /// are left. The log never goes behind the last snapshot record that recovery could begin at, whatever `index`
    /// is. Answers how many segments went.
    pub fn purge_before(&mut self, index: Index, keep: usize) -> Result<usize, WalError> {
        self.check_failed()?;
        let result = self.try_purge(index.min(self.snapshot_durable), keep.max(1));
        self.keep_failure(result)
    }

    /// The last index in the log, or under it when it is empty.
    pub fn last_index(&self) -> Index {
        self.log.last()
    }

    /// The first index that [`Wal::read_entries`] can answer, if there is an entry at all.
    pub fn first_index(&self) -> Option<Index> {
        self.log.range().map(|(first, _)| first)
    }

    /// About how many bytes of log there are from the entry at `index` on: what recovery would have to replay.
    pub fn bytes_from(&self, index: Index) -> u64 {
        let Some(span) = self.log.spans_from(index).first() else {
            return 0;
        };
        let segments = self
            .segments
            .iter()
            .filter(|segment| segment.sequence >= span.position.sequence);
        let bytes: u64 = segments.map(|segment| segment.length).sum();
        bytes + self.encoder.frames().len() as u64 - span.position.offset
    }

    /// How many bytes were written since the log was opened; for metrics.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Adds a snapshot record. One that starts the log anew gets its commit index with it, before any entry, so
    /// that wherever a crash cuts the log, the record holds or is the last thing in it.
    fn append_snapshot(&mut self, snapshot: &SnapshotRecord, state: HardState) {
        self.encoder.snapshot(snapshot);
        self.snapshot_appended = snapshot.index;
        if self.log.is_restarted_by(snapshot.index, snapshot.term) {
            self.log.restart(snapshot.index, snapshot.term);
            self.hard_state = HardState {
                commit: snapshot.index.0.max(self.hard_state.commit),
                ..state
            };
            self.encoder.hard_state(&self.hard_state);
        }
    }

    fn check_failed(&self) -> Result<(), WalError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn keep_failure<T>(&mut self, result: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn active(&self) -> &Segment<D::File> {
        self.segments.last().expect("a log has a segment")
    }

    /// Where the next frame goes in the active segment.
    fn position(&self) -> u64 {
        self.active().length + self.encoder.frames().len() as u64
    }

    fn try_flush(&mut self) -> Result<(), WalError> {
        if self.encoder.frames().is_empty() {
            return Ok(());
        }
        let segment = self.segments.last_mut().expect("a log has a segment");
        segment
            .file
            .write_at(segment.length, self.encoder.frames())?;
        segment.length += self.encoder.frames().len() as u64;
        self.bytes_written += self.encoder.frames().len() as u64;
        self.encoder.clear();
        self.dirty = true;
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), WalError> {
        self.try_flush()?;
        if self.dirty {
            let segment = self.segments.last_mut().expect("a log has a segment");
            segment.file.sync()?;
            self.dirty = false;
            self.seed_due = true;
        }
        if self.hard_state.commit >= self.snapshot_appended.0 {
            self.snapshot_durable = self.snapshot_appended;
        }
        Ok(())
    }

    /// Leaves the active segment for a new one. Everything in the old one is durable before the new one has a name,
    /// and its head and name are before anything is appended to it.
    fn cut(&mut self) -> Result<(), WalError> {
        self.try_sync()?;
        let (spare, mut file) = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::Ready(file) => (self.options.path(SPARE_ORDERED), file),
            other => {
                self.spare = other;
                let path = self.options.path(SPARE_OWN);
                let file = self.disk.create(&path, self.options.segment_bytes)?;
                (path, file)
            }
        };
        self.encoder.seed();
        self.encoder.metadata(&self.metadata);
        if !self.hard_state.is_empty() {
            self.encoder.hard_state(&self.hard_state);
        }
        file.write_at(0, self.encoder.frames())?;
        file.sync()?;
        let sequence = self.active().sequence + 1;
        let first = self.log.last().next();
        let path = self.options.path(&segment::name(sequence, first));
        self.disk.rename(&spare, &path)?;
        self.disk.sync_directory(&self.options.directory)?;
        let length = self.encoder.frames().len() as u64;
        self.encoder.clear();
        self.seed_due = false;
        self.head_bytes = length;
        self.segments.push(Segment {
            sequence,
            first,
            path,
            file,
            length,
            content: Bytes::new(),
        });
        Ok(())
    }

    fn try_purge(&mut self, index: Index, keep: usize) -> Result<usize, WalError> {
        // Recovery from a snapshot at `index` begins in the last segment whose first index is not above it.
        let begin = self
            .segments
            .iter()
            .rposition(|segment| segment.first <= index)
            .unwrap_or(0);
        let count = begin.min(self.segments.len().saturating_sub(keep));
        for _ in 0..count {
            let segment = self.segments.remove(0);
            self.log.purge_before(self.segments[0].sequence);
            self.disk.remove(&segment.path)?;
            // One by one, so that no crash leaves a gap in the sequence.
            self.disk.sync_directory(&self.options.directory)?;
        }
        Ok(count)
    }
}

/// At most how many bytes of segment a write takes.
fn encoded_bytes_max(write: &Write) -> u64 {
    let entries: usize = write
        .entries
        .iter()
        .map(|entry| entry.data.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES)
        .sum();
    let members = write.snapshot.as_ref().map_or(0, |snapshot| {
        let conf = &snapshot.conf_state;
        conf.voters.len()
            + conf.learners.len()
            + conf.voters_outgoing.len()
            + conf.learners_next.len()
    });
    // A seed, a hard state and a snapshot record with 11 bytes a member.
    (entries + 3 * STATE_BYTES_MAX + 11 * members) as u64
}
