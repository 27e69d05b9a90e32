//! Compaction: the boundary moves at once, rows go in small steps.
//!
//! What stays is exactly what etcd keeps: of each key the newest row not above the boundary, unless that is a
//! tombstone below it. First every key is visited and that row marked, its older rows being cut off; then the history
//! is swept up to the boundary: rows without a mark go, marked rows leave chunks that hold little else. While
//! the sweep sees each row it also makes etcd's compaction hash, over the rows as they were before.
//!
//! ```text
//! Mark    key by key      newest row <= boundary: keep, cut the chain behind it
//! Sweep   segment by segment of the history:   Hash -> Move out of sparse chunks -> Remove
//! ```
//!
//! Only the mutator takes steps, so what it has read under the read lock is still so under the write lock; but a
//! pin may come between any two holds of the lock, and stops it there.

use bytes::Bytes;

use super::HashKv;
use super::arena::{Location, NewRow};
use super::hash::Hasher;
use super::record;
use super::state::{Shared, State};
use super::store::Store;
use crate::error::RequestError;
use crate::types::Revision;

/// Rows moved under one hold of the lock.
const MOVE_ROWS: usize = if cfg!(test) { 3 } else { 64 };
/// Compaction hashes that are remembered.
const HASHES_MAX: usize = 10;

/// One compaction whose rows are being removed.
#[derive(Debug)]
pub(super) struct Job {
    revision: i64,
    /// The boundary before.
    previous: i64,
    /// Whether all rows since the boundary before are there to be hashed.
    hash_wanted: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Mark {
        /// The record of the last key visited.
        resume: Option<Bytes>,
        kept: Kept,
    },
    Sweep(Sweep),
}

/// A hash that a compaction has made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    pub(super) hash: HashKv,
    /// Whether it can be compared: where no key was left, who has compacted has another hash than who has not, in etcd
    /// too.
    pub(super) is_telling: bool,
}

/// What was marked.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Any row.
    any: bool,
    /// One that is no tombstone.
    live: bool,
}

#[derive(Debug)]
struct Sweep {
    segment: usize,
    /// The segment that takes in the rows of emptied ones.
    target: usize,
    stage: Stage,
    kept: Kept,
    hasher: Hasher,
    /// Rows that are gone.
    removed: usize,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Hash,
    Move { row: usize },
    Remove,
}

/// What one hold of the lock came to.
enum Progress {
    /// Somebody needs the rows.
    Pinned,
    /// So many rows or keys were handled.
    Rows(usize),
    /// The phase is over.
    Over,
}

impl Store {
    /// Moves the boundary: reads below `revision` are refused from now on. The rows go in [`Self::compact_step`].
    pub fn compact(&mut self, revision: Revision) -> Result<(), RequestError> {
        let mut state = self.shared.write();
        if revision.0 <= state.compacted {
            return Err(RequestError::Compacted);
        }
        if revision.0 > state.revision {
            return Err(RequestError::FutureRev);
        }
        let hash_wanted = state.scheduled == state.finished;
        let job = begin(&mut state, revision.0, hash_wanted);
        self.shared.publish(&state);
        drop(state);
        self.jobs.push_back(job);
        Ok(())
    }

    /// Whether rows are still to be removed.
    pub fn is_compacting(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether the last [`Self::compact_step`] found the rows still needed: trying again at once is of no use.
    pub fn is_compaction_held(&self) -> bool {
        self.is_held
    }

    /// Removes compacted rows: looks at about `rows_max` keys or rows. Returns whether nothing is left to do; it may
    /// also not have got on at all, because of a [`super::Pin`].
    pub fn compact_step(&mut self, rows_max: usize) -> bool {
        let mut rows = 0;
        self.is_held = false;
        while rows < rows_max
            && let Some(job) = self.jobs.front_mut()
        {
            match job.step(&self.shared) {
                Progress::Pinned => {
                    self.is_held = true;
                    return false;
                }
                Progress::Rows(more) => rows += more,
                Progress::Over => {
                    self.counts.rows_compacted += job.rows_removed() as u64;
                    self.jobs.pop_front();
                }
            }
        }
        self.jobs.is_empty()
    }

    /// The last compaction asked for, `scheduledCompactRev` of the image.
    pub fn scheduled_compaction(&self) -> Option<Revision> {
        self.shared.read().scheduled.map(Revision)
    }

    /// The last compaction whose rows are gone, `finishedCompactRev` of the image.
    pub fn finished_compaction(&self) -> Option<Revision> {
        self.shared.read().finished.map(Revision)
    }
}

/// Moves the boundary of a state.
pub(super) fn begin(state: &mut State, revision: i64, hash_wanted: bool) -> Job {
    let previous = std::mem::replace(&mut state.compacted, revision);
    state.scheduled = Some(revision);
    Job {
        revision,
        previous,
        hash_wanted,
        phase: Phase::Mark {
            resume: None,
            kept: Kept::default(),
        },
    }
}

impl Job {
    fn step(&mut self, shared: &Shared) -> Progress {
        match &mut self.phase {
            Phase::Mark { resume, kept } => {
                let mut state = shared.write();
                if shared.pinned().is_some_and(|pinned| pinned < self.revision) {
                    return Progress::Pinned;
                }
                if resume.is_none() {
                    state.floor = self.revision;
                    state.arena.forget_kept();
                }
                let rows = mark_leaf(&mut state, self.revision, resume, kept);
                if rows == 0 {
                    self.phase = Phase::Sweep(Sweep {
                        segment: 0,
                        target: 0,
                        stage: Stage::Hash,
                        kept: *kept,
                        hasher: Hasher::new(),
                        removed: 0,
                    });
                }
                Progress::Rows(rows)
            }
            Phase::Sweep(sweep) => {
                if sweep.is_over(&shared.read(), self.revision) {
                    self.finish(shared);
                    return Progress::Over;
                }
                sweep.step(shared, self.revision, self.previous)
            }
        }
    }

    fn rows_removed(&self) -> usize {
        match &self.phase {
            Phase::Mark { .. } => 0,
            Phase::Sweep(sweep) => sweep.removed,
        }
    }

    fn finish(&mut self, shared: &Shared) {
        let Phase::Sweep(sweep) = &self.phase else {
            panic!("a compaction ends with its sweep")
        };
        let mut state = shared.write();
        state.history.drop_empty();
        state.finished = Some(self.revision);
        if self.hash_wanted {
            let hash = HashKv {
                hash: sweep.hasher.sum(),
                compact_revision: Revision(self.previous),
                hash_revision: Revision(self.revision),
            };
            let is_telling = sweep.kept.live;
            state.hashes.push_back(Remembered { hash, is_telling });
            if state.hashes.len() > HASHES_MAX {
                state.hashes.pop_front();
            }
        }
    }
}

/// Visits the next leaf of the index; returns the number of its keys, 0 if there is none left.
fn mark_leaf(
    state: &mut State,
    compacted: i64,
    resume: &mut Option<Bytes>,
    kept: &mut Kept,
) -> usize {
    let State { arena, index, .. } = state;
    let Some((leaf, first)) = index.next_leaf(arena, resume.as_ref().map(|last| record::key(last)))
    else {
        return 0;
    };
    let rows = index.leaf(leaf).to_vec();
    *resume = Some(arena.share(*rows.last().expect("the next leaf has keys left")));
    let mut forgotten = vec![false; rows.len()];
    for (number, newest) in rows.iter().enumerate().skip(first) {
        let mut above = Location::NONE;
        let mut row = *newest;
        while !row.is_none() && arena.main(row) > compacted {
            above = row;
            row = arena.previous(row);
        }
        if row.is_none() {
            continue;
        }
        if !row.is_tombstone() || arena.main(row) == compacted {
            arena.keep(row);
            arena.set_previous(row, Location::NONE);
            kept.any = true;
            kept.live |= !row.is_tombstone();
        } else if above.is_none() {
            forgotten[number] = true;
        } else {
            arena.set_previous(above, Location::NONE);
        }
    }
    if forgotten.contains(&true) {
        index.retain(leaf, |row| !forgotten[row]);
    }
    index.join_with_previous(arena, leaf);
    rows.len() - first
}

impl Sweep {
    fn is_over(&self, state: &State, compacted: i64) -> bool {
        self.segment == state.history.segment_count()
            || state
                .history
                .segment(self.segment)
                .first()
                .is_some_and(|row| state.arena.main(*row) > compacted)
    }

    fn step(&mut self, shared: &Shared, compacted: i64, previous: i64) -> Progress {
        if let Stage::Hash = self.stage {
            self.hash(&shared.read(), compacted, previous);
            self.stage = Stage::Move { row: 0 };
        }
        let mut state = shared.write();
        if shared.pinned().is_some_and(|pinned| pinned < compacted) {
            return Progress::Pinned;
        }
        let rows = state.history.segment(self.segment).len();
        match self.stage {
            Stage::Hash => panic!("hashed above"),
            Stage::Move { row } if row < rows => {
                let end = rows.min(row + MOVE_ROWS);
                for row in row..end {
                    move_row(&mut state, compacted, self.segment, row);
                }
                self.stage = Stage::Move { row: end };
                Progress::Rows(end - row)
            }
            Stage::Move { .. } => {
                self.stage = Stage::Remove;
                Progress::Rows(0)
            }
            Stage::Remove => {
                let staying = staying_rows(&mut state, compacted, self.segment);
                self.removed += rows - staying.len();
                self.target = state.history.shrink(self.segment, self.target, staying);
                self.segment += 1;
                self.stage = Stage::Hash;
                Progress::Rows(rows)
            }
        }
    }

    /// Rows since the boundary before count, older ones if they stay; if nothing stays, all count.
    fn hash(&mut self, state: &State, compacted: i64, previous: i64) {
        for row in state.history.segment(self.segment) {
            let (main, sub) = state.arena.revision(*row);
            if main > compacted {
                break;
            }
            let counts = main > previous || !self.kept.any || state.arena.is_kept(*row);
            if counts && !(main == previous && row.is_tombstone()) {
                self.hasher
                    .add(main, sub, row.is_tombstone(), state.arena.bytes(*row));
            }
        }
    }
}

/// If the row stays but its chunk does not deserve to, moves it and mends what points to it.
fn move_row(state: &mut State, compacted: i64, segment: usize, number: usize) {
    let State {
        arena,
        index,
        history,
        ..
    } = state;
    let old = history.segment(segment)[number];
    if arena.main(old) > compacted || !arena.is_kept(old) || !arena.is_sparse(old, compacted) {
        return;
    }
    let (main, sub) = arena.revision(old);
    // It is the oldest of its key: the mark has cut off what was before.
    let new = NewRow {
        previous: Location::NONE,
        main,
        sub,
        tombstone: old.is_tombstone(),
    };
    let moved = arena.move_to_survivors(old, new);
    let place = index
        .find(arena, arena.key(moved))
        .expect("the key of a kept row is in the index");
    let mut above = index.row(place);
    if above == old {
        index.replace(arena, place, moved);
    } else {
        while arena.previous(above) != old {
            above = arena.previous(above);
        }
        arena.set_previous(above, moved);
    }
    history.set(segment, number, moved);
    arena.remove(old);
}

/// Removes the rows of a segment that do not stay from everything but the history; returns the others.
fn staying_rows(state: &mut State, compacted: i64, segment: usize) -> Vec<Location> {
    let rows = state.history.segment(segment).to_vec();
    let mut staying = Vec::with_capacity(rows.len());
    for row in rows {
        if state.arena.main(row) > compacted {
            staying.push(row);
        } else if state.arena.is_kept(row) {
            state.arena.clear_kept(row);
            staying.push(row);
        } else {
            state.image_bytes -= state.image_row_bytes(row);
            state.arena.remove(row);
        }
    }
    staying.shrink_to_fit();
    staying
}
