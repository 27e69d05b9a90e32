//! The history: every row of the store in revision order.
//!
//! A list of segments, each a short array of locations, so that growing never moves more than a segment and a
//! compaction can work segment by segment. It never looks into records beyond their revision.
//!
//! ```text
//! segments   [(2,0)..] [(900,3)..] [..]     sorted by first revision; emptied ones stay until the sweep ends
//! ```

use super::arena::{Arena, Location};

/// Rows of a segment.
const SEGMENT_ROWS: usize = if cfg!(test) { 8 } else { 512 };

#[derive(Debug)]
struct Segment {
    /// Not above the revision of the first row; those of the segments ascend.
    first: (i64, i64),
    rows: Vec<Location>,
}

/// All rows, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    segments: Vec<Segment>,
}

/// A place in the history; valid until the next change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    segment: usize,
    row: usize,
}

impl History {
    /// Adds the newest row.
    pub(super) fn push(&mut self, revision: (i64, i64), location: Location) {
        match self.segments.last_mut() {
            Some(last) if last.rows.is_empty() => {
                // Its old rows may live on in the segment before.
                last.first = revision;
                last.rows.push(location);
            }
            Some(last) if last.rows.len() < SEGMENT_ROWS => last.rows.push(location),
            _ => {
                let mut rows = Vec::with_capacity(SEGMENT_ROWS);
                rows.push(location);
                self.segments.push(Segment {
                    first: revision,
                    rows,
                });
            }
        }
    }

    /// The place of the first row at or above a revision.
    pub(super) fn seek(&self, arena: &Arena, from: (i64, i64)) -> Place {
        let mut segment = self
            .segments
            .partition_point(|segment| segment.first <= from)
            .saturating_sub(1);
        // A sweep may have moved this segment's rows into the one before.
        while segment > 0 && self.segments[segment].rows.is_empty() {
            segment -= 1;
        }
        let row = self.segments.get(segment).map_or(0, |found| {
            found
                .rows
                .partition_point(|location| arena.revision(*location) < from)
        });
        Place { segment, row }
    }

    /// The rows from a place on.
    pub(super) fn iter(&self, from: Place) -> impl Iterator<Item = Location> {
        let first = self
            .segments
            .get(from.segment)
            .map_or(&[][..], |segment| &segment.rows[from.row..]);
        let rest = self.segments.get(from.segment + 1..).unwrap_or(&[]);
        first
            .iter()
            .chain(rest.iter().flat_map(|segment| &segment.rows))
            .copied()
    }

    /// The number of segments.
    pub(super) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The rows of one segment.
    pub(super) fn segment(&self, number: usize) -> &[Location] {
        &self.segments[number].rows
    }

    /// Puts a moved row in its old one's place.
    pub(super) fn set(&mut self, segment: usize, number: usize, row: Location) {
        self.segments[segment].rows[number] = row;
    }

    /// Replaces the rows of a segment by fewer ones, in the same order. If they fit into segment `target`, which
    /// comes before and is followed only by empty ones, they go there. Returns the segment where they are.
    pub(super) fn shrink(&mut self, number: usize, target: usize, rows: Vec<Location>) -> usize {
        assert!(
            target <= number && rows.len() <= self.segments[number].rows.len(),
            "a sweep only removes"
        );
        if target < number && self.segments[target].rows.len() + rows.len() <= SEGMENT_ROWS {
            self.segments[target].rows.extend_from_slice(&rows);
            self.segments[number].rows = Vec::new();
            return target;
        }
        if rows.len() < self.segments[number].rows.len() {
            self.segments[number].rows = rows;
        } else {
            self.segments[number].rows.copy_from_slice(&rows);
        }
        number
    }

    /// Forgets emptied segments.
    pub(super) fn drop_empty(&mut self) {
        self.segments.retain(|segment| !segment.rows.is_empty());
    }

    /// Bytes that the history takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let rows: usize = self
            .segments
            .iter()
            .map(|segment| segment.rows.capacity() * size_of::<Location>())
            .sum();
        rows + self.segments.capacity() * size_of::<Segment>()
    }
}
