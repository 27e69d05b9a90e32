//! Reading entries back out of the segments, for followers that lag behind what is kept in memory.

use quorate_proto::raftpb::Entry;

use super::error::WalError;
use super::frame::{self, Place};
use super::log::Span;
use super::record::{self, Content, Fault};
use super::segment::Segment;
use crate::disk::{Disk, DiskFile};
use crate::types::Index;
use crate::wal::Wal;

impl<D: Disk> Wal<D> {
    /// The entries from `first` to `last`, both included, in their latest version, without a copy where the disk can
    /// map its files. Stops when more than `bytes_max` of payload is together, but not before one entry. Empty if
    /// the log does not hold `first`; shorter if it does not reach `last`.
    pub fn read_entries(
        &mut self,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, WalError> {
        self.flush()?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for span in self.log.spans_from(first) {
            if span.first > last || bytes > bytes_max {
                break;
            }
            let segment = segment_of(&mut self.segments, span.position.sequence);
            read_span(segment, span, first, last, |entry| {
                bytes += entry
                    .data
                    .as_ref()
                    .map_or(0, |payload| payload.len() as u64);
                entries.push(entry);
                bytes <= bytes_max
            })?;
        }
        Ok(entries)
    }
}

fn segment_of<F>(segments: &mut [Segment<F>], sequence: u64) -> &mut Segment<F> {
    let at = segments.partition_point(|segment| segment.sequence < sequence);
    assert_eq!(
        segments[at].sequence, sequence,
        "a span lies in a segment that is kept"
    );
    &mut segments[at]
}

/// Feeds the entries of `span` between `first` and `last` to `take` until it has enough.
fn read_span<F: DiskFile>(
    segment: &mut Segment<F>,
    span: &Span,
    first: Index,
    last: Index,
    mut take: impl FnMut(Entry) -> bool,
) -> Result<(), WalError> {
    let content = segment.content()?;
    let mut offset =
        usize::try_from(span.position.offset).expect("a segment fits the address space");
    let mut checksum = span.position.checksum;
    loop {
        let fault = match frame::read(&content, offset) {
            Place::Frame { record, next } => {
                match record::decode(content.slice(record), Some(checksum)) {
                    Ok((content, after)) => {
                        (offset, checksum) = (next, after);
                        let Content::Entry(entry) = content else {
                            continue;
                        };
                        let index = Index(entry.index);
                        if index > last || (index >= first && !take(entry)) || index >= span.last {
                            return Ok(());
                        }
                        continue;
                    }
                    Err(fault) => fault,
                }
            }
            _ => Fault::new(
                format!("the frames up to entry {}", span.last.0),
                "no frame",
            ),
        };
        return Err(fault.at(&segment.path, offset as u64));
    }
}
