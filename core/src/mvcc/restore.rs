//! The store from the rows of a database image: rows are appended as they come, then sorted once by key.

use bytes::Bytes;

use super::Row;
use super::arena::{Arena, LONE_RECORD_BYTES, Lane, Location, NewRow};
use super::compact;
use super::index::Index;
use super::record;
use super::state::State;
use super::store::Store;
use crate::types::{LeaseId, Revision};

/// Why rows are no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError<E> {
    /// The rows could not be read.
    #[error(transparent)]
    Source(E),
    /// The row's value is no encoded `KeyValue`.
    #[error("revision {main}/{sub} of the key bucket holds no key-value message")]
    Damaged {
        /// Its main revision.
        main: i64,
        /// Its sub revision.
        sub: i64,
    },
    /// The row does not come after the one before it.
    #[error("revision {main}/{sub} of the key bucket is out of order")]
    Disordered {
        /// Its main revision.
        main: i64,
        /// Its sub revision.
        sub: i64,
    },
}

impl Store {
    /// A store with these rows, and the keys that have a lease. A compaction that was asked for but not finished is
    /// taken up again.
    #[expect(
        clippy::type_complexity,
        reason = "a pair of what both halves of the state begin with"
    )]
    pub fn restore<E>(
        rows: impl Iterator<Item = Result<Row, E>>,
        scheduled: Option<Revision>,
        finished: Option<Revision>,
    ) -> Result<(Self, Vec<(LeaseId, Bytes)>), RestoreError<E>> {
        let mut state = State::new();
        let mut unsorted = Vec::new();
        let mut leased = Vec::new();
        let mut last = (0, -1);
        let mut prefix: Option<Vec<u8>> = None;
        for row in rows {
            let row = row.map_err(RestoreError::Source)?;
            let (main, sub) = (row.main, row.sub);
            if (main, sub) <= last || i32::try_from(sub).is_err() {
                return Err(RestoreError::Disordered { main, sub });
            }
            last = (main, sub);
            let fields =
                record::parse(&row.key_value).ok_or(RestoreError::Damaged { main, sub })?;
            shorten(&mut prefix, &row.key_value[fields.key.clone()]);
            let location = append(&mut state.arena, &row);
            state.history.push(last, location);
            state.image_bytes += state.image_row_bytes(location);
            if fields.lease != 0 && !row.tombstone {
                leased.push((location, LeaseId(fields.lease)));
            }
            unsorted.push(location);
        }
        state.newest = last.0;
        let newest = link(
            &mut state.arena,
            unsorted,
            prefix.map_or(0, |prefix| prefix.len()),
        );
        state.index = Index::build(&state.arena, &newest);
        let attached = attached(&state.arena, &newest, leased);

        let number = |revision: Option<Revision>| revision.map(|revision| revision.0);
        state.finished = number(finished);
        state.scheduled = number(scheduled);
        state.compacted = number(finished).unwrap_or(-1);
        state.floor = state.compacted;
        // A newest row that was a tombstone may be compacted away: the revision must not fall behind that.
        let known = [
            1,
            last.0,
            number(finished).unwrap_or(0),
            number(scheduled).unwrap_or(0),
        ];
        state.revision = known.into_iter().max().expect("not empty");
        let unfinished = number(scheduled).filter(|scheduled| *scheduled > state.compacted);
        let job = unfinished.map(|revision| compact::begin(&mut state, revision, false));
        let mut store = Self::from_state(state);
        store.jobs.extend(job);
        Ok((store, attached))
    }
}

fn append(arena: &mut Arena, row: &Row) -> Location {
    let new = NewRow {
        previous: Location::NONE,
        main: row.main,
        sub: row.sub,
        tombstone: row.tombstone,
    };
    let encoded = &row.key_value;
    if encoded.len() >= LONE_RECORD_BYTES {
        // A copy: the view would keep all of the image in memory.
        return arena.append_lone(new, Bytes::copy_from_slice(encoded));
    }
    arena.append(Lane::New, new, encoded.len(), |out| {
        out.extend_from_slice(encoded)
    })
}

/// Chains the rows of each key; returns the newest row of each, in key order.
fn link(arena: &mut Arena, unsorted: Vec<Location>, prefix_len: usize) -> Vec<Location> {
    let head = |row: &Location| {
        let mut head = [0; 16];
        let rest = arena.key(*row).get(prefix_len..).unwrap_or(&[]);
        let len = rest.len().min(16);
        head[..len].copy_from_slice(&rest[..len]);
        (u128::from_be_bytes(head), *row)
    };
    let mut sorted: Vec<(u128, Location)> = unsorted.iter().map(head).collect();
    drop(unsorted);
    // Stable, hence rows of one key stay in the order of their revision.
    sorted.sort_by(|(head, row), (other_head, other)| {
        head.cmp(other_head)
            .then_with(|| arena.key(*row).cmp(arena.key(*other)))
    });
    let mut newest: Vec<Location> = Vec::with_capacity(sorted.len());
    let mut last_head = 0;
    for (head, row) in sorted {
        match newest.last_mut() {
            Some(last) if head == last_head && arena.key(*last) == arena.key(row) => {
                arena.set_previous(row, *last);
                *last = row;
            }
            _ => newest.push(row),
        }
        last_head = head;
    }
    newest
}

/// The keys whose newest row is one of those with a lease.
fn attached(
    arena: &Arena,
    newest: &[Location],
    mut leased: Vec<(Location, LeaseId)>,
) -> Vec<(LeaseId, Bytes)> {
    if leased.is_empty() {
        return Vec::new();
    }
    leased.sort_unstable();
    let lease_of = |row: &Location| {
        let found = leased.binary_search_by_key(row, |(row, _)| *row).ok()?;
        Some((leased[found].1, Bytes::copy_from_slice(arena.key(*row))))
    };
    newest.iter().filter_map(lease_of).collect()
}

/// Shortens the prefix to what the key begins with, too. The empty key of a revision bump does not count.
fn shorten(prefix: &mut Option<Vec<u8>>, key: &[u8]) {
    match prefix {
        _ if key.is_empty() => {}
        None => *prefix = Some(key.to_vec()),
        Some(prefix) => {
            let len = prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
            prefix.truncate(len);
        }
    }
}
