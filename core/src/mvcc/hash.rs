//! `HashKV`: the checksum by which members compare what they hold.
//!
//! CRC-32C over the bucket's name and then, in revision order, key and record of each row that counts. Rows above the
//! compact revision count up to the asked one. Of the others those count that the asked revision still shows, so that
//! members at different points of removing rows agree. A tombstone right at the compact revision never counts, since
//! old versions of etcd drop it.

use bytes::Bytes;

use super::HashKv;
use super::arena::Location;
use super::state::{KeyRange, State};
use super::view::{Pin, View};
use crate::error::RequestError;
use crate::types::Revision;

/// Rows hashed under one hold of the lock.
const SLICE_ROWS: usize = if cfg!(test) { 4 } else { 256 };

/// CRC-32C over rows as the image holds them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher(u32);

impl Hasher {
    /// The hash of no rows.
    pub(super) fn new() -> Self {
        Self(crc32c::crc32c(b"key"))
    }

    /// Adds a row.
    pub(super) fn add(&mut self, main: i64, sub: i64, tombstone: bool, encoded: &[u8]) {
        let mut key = [0; 18];
        key[..8].copy_from_slice(&main.to_be_bytes());
        key[8] = b'_';
        key[9..17].copy_from_slice(&sub.to_be_bytes());
        key[17] = b't';
        let len = if tombstone { 18 } else { 17 };
        self.0 = crc32c::crc32c_append(crc32c::crc32c_append(self.0, &key[..len]), encoded);
    }

    /// The checksum.
    pub(super) fn sum(self) -> u32 {
        self.0
    }
}

/// The rows that a revision shows, as far as they are not above another one. Locations stay as they are while the
/// store is pinned.
#[derive(Debug, Default)]
struct Shown {
    chunks: Vec<Vec<u64>>,
    /// Whether the revision shows any key at all.
    any: bool,
}

impl Shown {
    fn add(&mut self, row: Location) {
        if self.chunks.len() <= row.chunk() {
            self.chunks.resize(row.chunk() + 1, Vec::new());
        }
        let words = &mut self.chunks[row.chunk()];
        if words.len() <= row.slot() / 64 {
            words.resize(row.slot() / 64 + 1, 0);
        }
        words[row.slot() / 64] |= 1 << (row.slot() % 64);
    }

    fn contains(&self, row: Location) -> bool {
        let word = self
            .chunks
            .get(row.chunk())
            .and_then(|words| words.get(row.slot() / 64));
        word.is_some_and(|word| word >> (row.slot() % 64) & 1 == 1)
    }
}

/// Answers `HashKV`.
pub(super) fn hash_kv(view: &View, revision: i64) -> Result<HashKv, RequestError> {
    loop {
        if let Some(cached) = view
            .shared
            .read()
            .hashes
            .iter()
            .find(|cached| cached.hash.hash_revision.0 == revision)
        {
            return Ok(cached.hash);
        }
        let pin = view.pin();
        let compacted = pin.compact_revision.0;
        if revision > 0 && revision < compacted {
            return Err(RequestError::Compacted);
        }
        if revision > pin.revision.0 {
            return Err(RequestError::FutureRev);
        }
        let at = if revision == 0 {
            pin.revision.0
        } else {
            revision
        };
        // `None`: the whole store was replaced meanwhile.
        if let Some(hash) = hash_pinned(view, &pin, at, compacted) {
            return Ok(HashKv {
                hash,
                compact_revision: Revision(compacted),
                hash_revision: Revision(at),
            });
        }
    }
}

fn hash_pinned(view: &View, pin: &Pin, revision: i64, compacted: i64) -> Option<u32> {
    let mut shown = Shown::default();
    if compacted >= 0 {
        shown = find_shown(view, pin, revision, compacted)?;
        if !shown.any {
            // etcd then hashes every row it still has, which is what the finished compaction leaves.
            shown = find_shown(view, pin, compacted, compacted)?;
        }
    }
    let mut hasher = Hasher::new();
    let mut from = (0, 0);
    loop {
        let state = view.shared.read();
        if !pin.is_valid(&state) {
            return None;
        }
        let place = state.history.seek(&state.arena, from);
        let mut seen = 0;
        for row in state.history.iter(place).take(SLICE_ROWS) {
            let (main, sub) = state.arena.revision(row);
            if main > revision {
                return Some(hasher.sum());
            }
            let counts = main > compacted || shown.contains(row);
            if counts && !(main == compacted && row.is_tombstone()) {
                hasher.add(main, sub, row.is_tombstone(), state.arena.bytes(row));
            }
            from = (main, sub + 1);
            seen += 1;
        }
        if seen == 0 {
            return Some(hasher.sum());
        }
    }
}

/// The rows not above `compacted` that `revision` shows.
fn find_shown(view: &View, pin: &Pin, revision: i64, compacted: i64) -> Option<Shown> {
    let mut shown = Shown::default();
    let mut resume: Option<Bytes> = None;
    loop {
        let state: &State = &view.shared.read();
        if !pin.is_valid(state) {
            return None;
        }
        // From the empty key on, which a revision bump leaves behind.
        resume = state.walk(KeyRange::new(&[], &[0]), resume.as_ref(), revision, |row| {
            shown.any = true;
            if state.arena.main(row) <= compacted {
                shown.add(row);
            }
            true
        });
        if resume.is_none() {
            return Some(shown);
        }
    }
}
