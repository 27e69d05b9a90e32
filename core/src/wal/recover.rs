//! Opening a log after whatever ended its writer.
//!
//! This module owns the choice of the snapshot to begin at and the repair of a torn tail. It changes nothing on the
//! disk unless the log as a whole is found good.

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb;
use quorate_proto::raftpb::{Entry, HardState};

use super::error::WalError;
use super::frame;
use super::record::{Encoder, Fault};
use super::scan::{Scan, Tail};
use super::segment::{self, Segment};
use super::write::{Spare, Wal};
use super::{Metadata, Options};
use crate::boundary::SnapshotRecord;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::types::{ClusterId, Index, MemberId, Term};

/// What a log held.
pub struct Recovered<D: Disk> {
    /// Whose log it is.
    pub metadata: Metadata,
    /// The snapshot records that the commit index reaches, in the log's order. The last one is where the log begins;
    /// there is at least one.
    pub snapshots: Vec<SnapshotRecord>,
    /// The last hard state; empty if none was written.
    pub hard_state: HardState,
    /// The entries after the last of `snapshots`, without gaps; their data are slices of the segments. The
    /// checkpoint may well be ahead of all of them.
    pub entries: Vec<Entry>,
    /// Entries up to that snapshot that the log still holds, as the first index and the term of each run of one term,
    /// ascending and without gaps up to the snapshot: [`Wal::read_entries`] answers them.
    pub older: Vec<(Index, Term)>,
    /// The log, ready to append to.
    pub wal: Wal<D>,
    /// What was cut from the log's end, if something was.
    pub repair: Option<Repair>,
}

/// A torn tail that was cut. It was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The last segment.
    pub path: String,
    /// Where its content ends now.
    pub offset: u64,
    /// How many bytes after that were zeroed.
    pub bytes: u64,
    /// What was wrong there.
    pub reason: String,
    /// A copy of the segment as it was; `None` when the disk had no room for it.
    pub copy: Option<String>,
}

/// Whether there is a log to recover.
pub fn exists<D: Disk>(disk: &D, options: &Options) -> Result<bool, WalError> {
    Ok(disk
        .list(&options.directory)?
        .iter()
        .any(|name| segment::parse_name(name).is_some()))
}

/// Opens the log: reads and checks all of it, chooses the snapshot to begin at, cuts a torn tail.
///
/// Damage that no power loss explains is an error, and the files stay as they are. Everything that is
/// handed out is durable, even if the process that wrote it never synced it.
pub fn recover<D: Disk>(mut disk: D, options: Options) -> Result<Recovered<D>, WalError> {
    let mut segments = open_segments(&mut disk, &options)?;
    let (mut scan, tail) = scan_segments(&mut segments)?;
    let last = segments.last_mut().expect("there is a segment");
    let snapshots =
        choose_snapshots(&mut scan).map_err(|fault| fault.at(&last.path, last.length))?;
    let begin = snapshots
        .last()
        .expect("there is a snapshot to begin at")
        .index;
    let metadata = scan.metadata.expect("each segment's head holds metadata");
    let identity = etcdserverpb::Metadata::decode(metadata.clone())
        .map_err(|error| Fault::new("metadata", error.to_string()).at(&last.path, 0))?;

    let repair = repair_tail(&mut disk, &options, last, tail)?;
    make_durable(&mut disk, &options, last, scan.seed_offset)?;
    for name in disk.list(&options.directory)? {
        if name.ends_with(".tmp") {
            disk.remove(&options.path(&name))?;
        }
    }
    let checksum = scan.checksum.expect("each segment's head seeds the chain");
    let mut wal = Wal {
        disk,
        options,
        segments,
        spare: Spare::None,
        encoder: Encoder::new(checksum),
        metadata: Bytes::copy_from_slice(&metadata),
        hard_state: scan.hard_state,
        snapshot_durable: begin,
        snapshot_appended: begin,
        log: scan.log,
        bytes_written: 0,
        head_bytes: 0,
        dirty: false,
        seed_due: true,
        failed: None,
    };
    Ok(Recovered {
        metadata: Metadata {
            member: MemberId(identity.node_id),
            cluster: ClusterId(identity.cluster_id),
        },
        snapshots,
        hard_state: wal.hard_state,
        entries: wal.read_entries(begin.next(), Index(u64::MAX), u64::MAX)?,
        older: wal.log.terms_up_to(begin),
        wal,
        repair,
    })
}

/// Reads all segments, oldest first.
fn scan_segments<F: DiskFile>(segments: &mut [Segment<F>]) -> Result<(Scan, Tail), WalError> {
    let mut scan = Scan::default();
    let mut tail = Tail {
        length: 0,
        torn: None,
    };
    let count = segments.len();
    for (at, segment) in segments.iter_mut().enumerate() {
        let bytes = segment.file.read()?;
        tail = scan.add_segment(&segment.path, segment.sequence, &bytes, at + 1 == count)?;
        segment.length = tail.length;
        segment.content = bytes.slice(..tail.length as usize);
    }
    let last = segments.last_mut().expect("there is a segment");
    drop_unfinished_snapshot(&mut scan, last, &mut tail)?;
    Ok((scan, tail))
}

fn open_segments<D: Disk>(
    disk: &mut D,
    options: &Options,
) -> Result<Vec<Segment<D::File>>, WalError> {
    let mut names: Vec<_> = disk
        .list(&options.directory)?
        .iter()
        .filter_map(|name| segment::parse_name(name))
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        return Err(WalError::Absent(options.directory.clone()));
    }
    let mut segments: Vec<Segment<D::File>> = Vec::new();
    for (sequence, first) in names {
        let path = options.path(&segment::name(sequence, first));
        if let Some(before) = segments
            .last()
            .filter(|before| sequence != before.sequence.wrapping_add(1))
        {
            let expected = format!(
                "segment {:016x} after {}",
                before.sequence.wrapping_add(1),
                before.path
            );
            return Err(Fault::new(expected, "this one").at(&path, 0));
        }
        let file = disk.open(&path)?;
        segments.push(Segment {
            sequence,
            first,
            path,
            file,
            length: 0,
            content: Bytes::new(),
        });
    }
    Ok(segments)
}

/// Cuts off a snapshot record that its writer did not get to commit, and what follows it.
fn drop_unfinished_snapshot<F>(
    scan: &mut Scan,
    last: &mut Segment<F>,
    tail: &mut Tail,
) -> Result<(), WalError> {
    let Some(position) = scan.take_back_unfinished_snapshot() else {
        return Ok(());
    };
    if position.sequence != last.sequence {
        let fault = Fault::new("a hard state that commits the snapshot", "none");
        return Err(fault.at(&last.path, last.length));
    }
    last.length = position.offset;
    tail.length = position.offset;
    tail.torn = Some("a snapshot record without the hard state that commits it".to_owned());
    Ok(())
}

/// The snapshot records that the commit index reaches, and whether the log fits the last of them.
fn choose_snapshots(scan: &mut Scan) -> Result<Vec<SnapshotRecord>, Fault> {
    let commit = scan.hard_state.commit;
    let snapshots: Vec<SnapshotRecord> = scan
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.index <= commit)
        .map(|snapshot| SnapshotRecord {
            index: Index(snapshot.index),
            term: Term(snapshot.term),
            conf_state: snapshot.conf_state.clone().unwrap_or_default(),
        })
        .collect();
    let Some(begin) = snapshots.last() else {
        let expected = format!("a snapshot record at or below the commit index {commit}");
        return Err(Fault::new(expected, "none"));
    };
    match scan.log.range() {
        None => scan.log.begin_after(begin.index, begin.term),
        Some((first, _)) if first > begin.index.next() => {
            return Err(Fault::new(
                format!("entry {} after the snapshot", begin.index.next().0),
                format!("entry {}", first.0),
            ));
        }
        Some(_) => {}
    }
    let last = scan.log.last();
    if commit > last.0 {
        return Err(Fault::new(
            format!("entries up to the commit index {commit}"),
            format!("entries up to {}", last.0),
        ));
    }
    Ok(snapshots)
}

/// Cuts a torn tail.
fn repair_tail<D: Disk>(
    disk: &mut D,
    options: &Options,
    segment: &mut Segment<D::File>,
    tail: Tail,
) -> Result<Option<Repair>, WalError> {
    let Some(reason) = tail.torn else {
        return Ok(None);
    };
    let bytes = segment.file.read()?;
    let end = frame::content_end(&bytes) as u64;
    let copy = copy_aside(disk, options, &segment.path, &bytes[..end as usize])?;
    zero(&mut segment.file, tail.length, end)?;
    let (path, offset) = (segment.path.clone(), tail.length);
    Ok(Some(Repair {
        path,
        offset,
        bytes: end.saturating_sub(offset),
        reason,
        copy,
    }))
}

/// Makes the last segment durable, and as long as a segment should be.
///
/// A sync alone would not do: after one that failed, the page cache holds what the disk does not, and takes it for
/// written. So everything that is not known to have been synced well is written again.
fn make_durable<D: Disk>(
    disk: &mut D,
    options: &Options,
    segment: &mut Segment<D::File>,
    seed_offset: u64,
) -> Result<(), WalError> {
    let content = segment.content()?;
    let unproven = content.slice(content.len().min(seed_offset as usize)..);
    segment.file.write_at(seed_offset, &unproven)?;
    if segment.file.length() < options.segment_bytes {
        segment.file.truncate(options.segment_bytes)?;
    }
    segment.file.sync()?;
    disk.sync_directory(&options.directory)?;
    Ok(())
}

/// Copies the segment, as etcd does. A full disk must not keep a member from starting.
fn copy_aside<D: Disk>(
    disk: &mut D,
    options: &Options,
    path: &str,
    bytes: &[u8],
) -> Result<Option<String>, WalError> {
    let copy = format!("{path}.broken");
    let mut make = || {
        let mut file = disk.create(&copy, bytes.len() as u64)?;
        file.write_at(0, bytes)?;
        file.sync()?;
        disk.sync_directory(&options.directory)
    };
    match make() {
        Ok(()) => Ok(Some(copy)),
        Err(error) if error.kind == DiskErrorKind::Full => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn zero<F: DiskFile>(file: &mut F, from: u64, to: u64) -> Result<(), WalError> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut offset = from;
    while offset < to {
        let bytes = (to - offset).min(ZEROS.len() as u64);
        file.write_at(offset, &ZEROS[..bytes as usize])?;
        offset += bytes;
    }
    Ok(())
}
