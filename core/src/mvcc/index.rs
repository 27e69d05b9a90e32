//! The index: for every key the location of its newest row, in key order.
//!
//! Two levels: a sorted list of wide leaves. Both are searched by [`Heads`], numbers that stand for keys; only equal
//! numbers need a look at a record. Each leaf counts its live keys, so that counting a range touches two leaves and
//! adds up the rest. Older rows are not here: they hang on the newest one.
//!
//! ```text
//! lows             "/pods/b.."   "/pods/k.."         of each leaf but the first: no key of it is below
//! live    403      512           377
//! leaves  [Location ..] ..
//! ```

use super::arena::{Arena, Location};
use super::heads::Heads;

/// Keys of a leaf.
const LEAF_KEYS_MAX: usize = if cfg!(test) { 8 } else { 512 };
const LEAF_GROWTH: usize = 32;

#[derive(Debug, Default)]
struct Leaf {
    heads: Heads,
    rows: Vec<Location>,
    /// No row of the leaf has a higher main revision.
    main_max: i64,
}

/// The newest row of each key.
#[derive(Debug)]
pub(super) struct Index {
    /// For each leaf but the first a key that none of its own is below, and none of the leaf before reaches.
    lows: Vec<Box<[u8]>>,
    low_heads: Heads,
    leaves: Vec<Leaf>,
    /// Keys of each leaf whose newest row is not a tombstone.
    live: Vec<u32>,
}

/// A place in the index; valid until a key is inserted or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    leaf: usize,
    row: usize,
}

/// The keys of a leaf that are in a range.
#[derive(Debug)]
pub(super) struct LeafPart<'a> {
    pub(super) rows: &'a [Location],
    /// None of the rows has a higher main revision.
    pub(super) main_max: i64,
    /// The number of live ones, if the leaf is whole.
    live: Option<u32>,
}

impl LeafPart<'_> {
    /// The number of live ones, as of the newest row of each.
    pub(super) fn live(&self) -> u64 {
        u64::from(self.live.unwrap_or_else(|| count_live(self.rows)))
    }
}

impl Index {
    /// An index without keys.
    pub(super) fn new() -> Self {
        Self {
            lows: Vec::new(),
            low_heads: Heads::default(),
            leaves: vec![Leaf::default()],
            live: vec![0],
        }
    }

    /// Builds the index of rows that are sorted by key, one a key.
    pub(super) fn build(arena: &Arena, rows: &[Location]) -> Self {
        let mut index = Self::new();
        for (number, part) in rows.chunks(LEAF_KEYS_MAX * 15 / 16).enumerate() {
            let leaf = Leaf::build(arena, part.to_vec());
            let live = count_live(part);
            if number == 0 {
                (index.leaves[0], index.live[0]) = (leaf, live);
            } else {
                index.insert_low(number, arena.key(part[0]));
                index.leaves.push(leaf);
                index.live.push(live);
            }
        }
        index
    }

    /// Where the key is, or else where it would be.
    pub(super) fn find(&self, arena: &Arena, key: &[u8]) -> Result<Place, Place> {
        let leaf = self.leaf_of(key);
        match self.leaves[leaf].find(arena, key) {
            Ok(row) => Ok(Place { leaf, row }),
            Err(row) => Err(Place { leaf, row }),
        }
    }

    /// The place after the last key.
    pub(super) fn end(&self) -> Place {
        Place {
            leaf: self.leaves.len(),
            row: 0,
        }
    }

    /// The place after this one, if there is a key here.
    pub(super) fn after(place: Place) -> Place {
        Place {
            row: place.row + 1,
            ..place
        }
    }

    /// The newest row of the key at this place.
    pub(super) fn row(&self, place: Place) -> Location {
        self.leaves[place.leaf].rows[place.row]
    }

    /// The newest rows from one place to another, with their places.
    pub(super) fn iter(&self, from: Place, to: Place) -> impl Iterator<Item = (Place, Location)> {
        (from.leaf..self.leaves.len().min(to.leaf + 1)).flat_map(move |leaf| {
            let rows = &self.leaves[leaf].rows;
            let start = if leaf == from.leaf { from.row } else { 0 };
            let end = if leaf == to.leaf { to.row } else { rows.len() };
            (start..end.max(start)).map(move |row| (Place { leaf, row }, rows[row]))
        })
    }

    /// The newest rows from one place to another by leaf, with what can be told of each leaf at once.
    pub(super) fn leaves(&self, from: Place, to: Place) -> impl Iterator<Item = LeafPart<'_>> {
        (from.leaf..self.leaves.len().min(to.leaf + 1)).map(move |number| {
            let leaf = &self.leaves[number];
            let start = if number == from.leaf { from.row } else { 0 };
            let end = if number == to.leaf {
                to.row
            } else {
                leaf.rows.len()
            };
            let rows = &leaf.rows[start..end.max(start)];
            let whole = rows.len() == leaf.rows.len();
            LeafPart {
                rows,
                main_max: leaf.main_max,
                live: whole.then_some(self.live[number]),
            }
        })
    }

    /// Adds a key at the place where [`Self::find`] missed it.
    pub(super) fn insert(&mut self, arena: &Arena, mut place: Place, key: &[u8], row: Location) {
        if self.leaves[place.leaf].rows.len() == LEAF_KEYS_MAX {
            place = self.split(arena, place, key);
        }
        self.leaves[place.leaf].insert(arena, place.row, key, row);
        self.live[place.leaf] += u32::from(!row.is_tombstone());
    }

    /// Puts another row in the place of a key's newest one.
    pub(super) fn replace(&mut self, arena: &Arena, place: Place, row: Location) {
        let leaf = &mut self.leaves[place.leaf];
        leaf.main_max = leaf.main_max.max(arena.main(row));
        let slot = &mut leaf.rows[place.row];
        let live = &mut self.live[place.leaf];
        *live = *live - u32::from(!slot.is_tombstone()) + u32::from(!row.is_tombstone());
        *slot = row;
    }

    /// The number of live keys from one place to another, as of the newest row of each.
    pub(super) fn count_live(&self, from: Place, to: Place) -> u64 {
        if from >= to {
            return 0;
        }
        if from.leaf == to.leaf {
            return u64::from(count_live(&self.leaves[from.leaf].rows[from.row..to.row]));
        }
        let first = count_live(&self.leaves[from.leaf].rows[from.row..]);
        let last = self
            .leaves
            .get(to.leaf)
            .map_or(0, |leaf| count_live(&leaf.rows[..to.row]));
        let between: u64 = self.live[from.leaf + 1..to.leaf]
            .iter()
            .map(|live| u64::from(*live))
            .sum();
        between + u64::from(first) + u64::from(last)
    }

    /// The leaf where the keys after this one begin, and their first one's number in it; `None` if there are none.
    pub(super) fn next_leaf(&self, arena: &Arena, after: Option<&[u8]>) -> Option<(usize, usize)> {
        let from = match after {
            None => Place { leaf: 0, row: 0 },
            Some(key) => self
                .find(arena, key)
                .map_or_else(|place| place, Self::after),
        };
        self.iter(from, self.end())
            .next()
            .map(|(place, _)| (place.leaf, place.row))
    }

    /// The newest rows of the keys of one leaf.
    pub(super) fn leaf(&self, leaf: usize) -> &[Location] {
        &self.leaves[leaf].rows
    }

    /// Keeps only the keys of a leaf for which the answer is true, in order.
    pub(super) fn retain(&mut self, leaf: usize, mut wanted: impl FnMut(usize) -> bool) {
        let Leaf { heads, rows, .. } = &mut self.leaves[leaf];
        heads.retain(&mut wanted);
        let mut number = 0;
        rows.retain(|_| {
            number += 1;
            wanted(number - 1)
        });
        self.live[leaf] = count_live(rows);
    }

    /// Joins a leaf with the one before if both are short enough to stay half empty.
    pub(super) fn join_with_previous(&mut self, arena: &Arena, leaf: usize) {
        if leaf == 0
            || self.leaves[leaf - 1].rows.len() + self.leaves[leaf].rows.len() > LEAF_KEYS_MAX / 2
        {
            return;
        }
        self.lows.remove(leaf - 1);
        self.low_heads.remove(leaf - 1);
        let joined = self.leaves.remove(leaf);
        self.live[leaf - 1] += self.live.remove(leaf);
        let mut rows = std::mem::take(&mut self.leaves[leaf - 1].rows);
        rows.extend_from_slice(&joined.rows);
        self.leaves[leaf - 1] = Leaf::build(arena, rows);
    }

    /// Bytes that the index takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let leaf_bytes =
            |leaf: &Leaf| leaf.heads.memory_bytes() + leaf.rows.capacity() * size_of::<Location>();
        let leaves: usize = self.leaves.iter().map(leaf_bytes).sum();
        let lows: usize = self.lows.iter().map(|low| low.len()).sum();
        let top = size_of::<Box<[u8]>>() + size_of::<Leaf>() + size_of::<u32>();
        leaves + lows + self.low_heads.memory_bytes() + self.leaves.capacity() * top
    }

    /// Panics if the index is not what it should be: sorted keys, right heads, right counts.
    pub(super) fn check(&self, arena: &Arena) {
        assert_eq!(
            self.lows.len() + 1,
            self.leaves.len(),
            "every leaf but the first has a low"
        );
        self.low_heads
            .check(self.lows.len(), |number| &self.lows[number]);
        let mut last: Option<&[u8]> = None;
        for (number, leaf) in self.leaves.iter().enumerate() {
            assert_eq!(
                self.live[number],
                count_live(&leaf.rows),
                "live keys of leaf {number}"
            );
            leaf.heads
                .check(leaf.rows.len(), |row| arena.key(leaf.rows[row]));
            for row in &leaf.rows {
                assert!(
                    arena.main(*row) <= leaf.main_max,
                    "the leaf knows its newest row"
                );
                let key = arena.key(*row);
                assert!(last.is_none_or(|last| last < key), "keys ascend");
                assert_eq!(
                    self.leaf_of(key),
                    number,
                    "the key is in the leaf where it is looked for"
                );
                last = Some(key);
            }
        }
    }

    /// The leaf where the key is, if it is anywhere.
    fn leaf_of(&self, key: &[u8]) -> usize {
        let equal = self.low_heads.search(key);
        equal.start + self.lows[equal].partition_point(|low| &**low <= key)
    }

    /// Notes the low of a new leaf, which is not the first.
    fn insert_low(&mut self, leaf: usize, low: &[u8]) {
        self.low_heads
            .insert(leaf - 1, low, |number| &self.lows[number]);
        self.lows.insert(leaf - 1, low.into());
    }

    /// Makes room in a full leaf; returns the new place for the key.
    fn split(&mut self, arena: &Arena, place: Place, key: &[u8]) -> Place {
        let Place { leaf, row } = place;
        let at_end = leaf + 1 == self.leaves.len() && row == LEAF_KEYS_MAX;
        if at_end {
            // Keys that come in order fill their leaves.
            self.leaves[leaf].shrink();
            self.insert_low(leaf + 1, key);
            self.leaves.push(Leaf::default());
            self.live.push(0);
            return Place {
                leaf: leaf + 1,
                row: 0,
            };
        }
        let middle = LEAF_KEYS_MAX / 2;
        let right = self.leaves[leaf].rows.split_off(middle);
        let left = std::mem::take(&mut self.leaves[leaf].rows);
        self.insert_low(leaf + 1, arena.key(right[0]));
        self.live[leaf] = count_live(&left);
        self.live.insert(leaf + 1, count_live(&right));
        self.leaves[leaf] = Leaf::build(arena, left);
        self.leaves.insert(leaf + 1, Leaf::build(arena, right));
        // A key right between the halves must go below the right one's low, hence to the left.
        if row <= middle {
            place
        } else {
            Place {
                leaf: leaf + 1,
                row: row - middle,
            }
        }
    }
}

impl Leaf {
    fn build(arena: &Arena, mut rows: Vec<Location>) -> Self {
        rows.shrink_to_fit();
        let heads = Heads::build(rows.len(), |row| arena.key(rows[row]));
        let main_max = rows.iter().map(|row| arena.main(*row)).max().unwrap_or(0);
        Self {
            heads,
            rows,
            main_max,
        }
    }

    fn find(&self, arena: &Arena, key: &[u8]) -> Result<usize, usize> {
        let equal = self.heads.search(key);
        let start = equal.start;
        match self.rows[equal].binary_search_by(|row| arena.key(*row).cmp(key)) {
            Ok(row) => Ok(start + row),
            Err(row) => Err(start + row),
        }
    }

    fn insert(&mut self, arena: &Arena, at: usize, key: &[u8], row: Location) {
        self.heads
            .insert(at, key, |other| arena.key(self.rows[other]));
        if self.rows.len() == self.rows.capacity() {
            self.rows.reserve_exact(LEAF_GROWTH);
        }
        self.rows.insert(at, row);
        self.main_max = self.main_max.max(arena.main(row));
    }

    fn shrink(&mut self) {
        self.rows.shrink_to_fit();
        self.heads.shrink();
    }
}

fn count_live(rows: &[Location]) -> u32 {
    rows.iter().map(|row| u32::from(!row.is_tombstone())).sum()
}
