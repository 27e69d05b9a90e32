//! The arena: every row of the store, in append-only chunks.
//!
//! It owns the encoded records and, beside them, a small fixed header for each. It knows neither keys' order nor
//! which row is needed: the index and the history point into it by [`Location`], and compaction tells it what to
//! forget. Record bytes never move within a chunk and never change; a full chunk is shared with readers as counted
//! [`Bytes`], while records of a chunk that is still filled are copied out.
//!
//! ```text
//! chunk   headers  [previous, main, sub, offset] [..] [..]        16 B a row, mutable (chains are cut, rows move)
//!         bytes    KeyValue KeyValue KeyValue                      about 256 KiB, then sealed
//! ```

use bytes::Bytes;

use super::record;

/// A chunk is sealed when the next record would make it longer.
const CHUNK_BYTES: usize = if cfg!(test) { 2 << 10 } else { 256 << 10 };
/// A record this long gets a chunk of its own, so that little of a chunk is ever left unused.
pub(super) const LONE_RECORD_BYTES: usize = if cfg!(test) { 256 } else { 32 << 10 };
/// Bits of a location that say which row of its chunk it is.
const SLOT_BITS: u32 = 10;
/// Rows of a chunk: with records of 256 bytes and more it is the bytes that fill it.
const CHUNK_ROWS_MAX: usize = 1 << SLOT_BITS;
/// The last chunk's number is part of no location but [`Location::NONE`]. That many chunks hold 512 GiB of records
/// that are short but not tiny, 64 GiB of the shortest that have a chunk of their own, or two thousand million rows.
const CHUNKS_MAX: usize = (1 << (31 - SLOT_BITS)) - 1;

const TOMBSTONE: u32 = 1 << 31;
const KEPT: u32 = 1 << 31;

/// Where a row is, and whether it is a tombstone: that is asked so often that it must not cost a look at the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location(u32);

impl Location {
    /// No row.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn new(chunk: usize, slot: usize, tombstone: bool) -> Self {
        assert!(
            chunk < CHUNKS_MAX,
            "the store has {chunk} chunks, more than it can hold"
        );
        assert!(slot < CHUNK_ROWS_MAX, "slot {slot} of chunk {chunk}");
        let place = (chunk as u32) << SLOT_BITS | slot as u32;
        Self(place | if tombstone { TOMBSTONE } else { 0 })
    }

    pub(super) fn chunk(self) -> usize {
        ((self.0 & !TOMBSTONE) >> SLOT_BITS) as usize
    }

    pub(super) fn slot(self) -> usize {
        self.0 as usize % CHUNK_ROWS_MAX
    }

    pub(super) fn is_tombstone(self) -> bool {
        self.0 & TOMBSTONE != 0
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Which chunk takes a row: rows that outlived a compaction stay among themselves, since they will live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    New = 0,
    Survivors = 1,
}

#[derive(Debug)]
struct Header {
    /// The row of the same key before this one.
    previous: Location,
    /// Main revision, counted from the chunk's base.
    main: i32,
    /// Sub revision; the top bit marks a row that the running compaction keeps.
    sub: u32,
    offset: u32,
}

#[derive(Debug)]
enum Data {
    Filling(Vec<u8>),
    Sealed(Bytes),
}

#[derive(Debug)]
struct Chunk {
    data: Data,
    headers: Vec<Header>,
    /// Rows that the history still holds; at zero the chunk goes.
    rows: usize,
    /// Bytes of the rows that the running compaction keeps.
    kept_bytes: usize,
    /// The main revision of the first row.
    main_base: i64,
    main_max: i64,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Filling(bytes) => bytes,
            Data::Sealed(bytes) => bytes,
        }
    }

    fn range(&self, slot: usize) -> std::ops::Range<usize> {
        let end = self
            .headers
            .get(slot + 1)
            .map_or(self.bytes().len(), |next| next.offset as usize);
        self.headers[slot].offset as usize..end
    }

    fn seal(&mut self) {
        if let Data::Filling(bytes) = &mut self.data {
            let mut bytes = std::mem::take(bytes);
            if bytes.len() < bytes.capacity() / 8 * 7 {
                // Tiny records fill the headers first.
                bytes.shrink_to_fit();
            }
            self.data = Data::Sealed(Bytes::from(bytes));
            self.headers.shrink_to_fit();
        }
    }
}

/// All rows.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// A gone chunk leaves `None`, to be filled again.
    chunks: Vec<Option<Chunk>>,
    gone: Vec<usize>,
    /// The chunk of each lane that is being filled.
    filling: [Option<usize>; 2],
    /// Rows of the chunk of each lane that was filled last: its next one will have about as many.
    filled_rows: [usize; 2],
}

impl Arena {
    /// Adds a row whose record `write` appends; it is at most `len_max` bytes long.
    pub(super) fn append(
        &mut self,
        lane: Lane,
        row: NewRow,
        len_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Location {
        let number = self.chunk_for(lane, len_max, row.main);
        let chunk = self.chunks[number]
            .as_mut()
            .expect("the chunk being filled is there");
        let Data::Filling(bytes) = &mut chunk.data else {
            panic!("chunk {number} is sealed")
        };
        let offset = bytes.len();
        write(bytes);
        assert!(
            bytes.len() - offset <= len_max,
            "a record outgrew its chunk"
        );
        push_header(chunk, number, row, offset)
    }

    /// Adds a row with a long record, in a chunk of its own and without copying it.
    pub(super) fn append_lone(&mut self, row: NewRow, encoded: Bytes) -> Location {
        let number = self.place(Chunk::new(Data::Sealed(encoded), row.main));
        let chunk = self.chunks[number].as_mut().expect("just placed");
        let location = push_header(chunk, number, row, 0);
        chunk.headers.shrink_to_fit();
        location
    }

    pub(super) fn bytes(&self, location: Location) -> &[u8] {
        let chunk = self.chunk(location);
        &chunk.bytes()[chunk.range(location.slot())]
    }

    /// The record as a view that outlives the lock.
    pub(super) fn share(&self, location: Location) -> Bytes {
        let chunk = self.chunk(location);
        let range = chunk.range(location.slot());
        match &chunk.data {
            Data::Filling(bytes) => Bytes::copy_from_slice(&bytes[range]),
            Data::Sealed(bytes) => bytes.slice(range),
        }
    }

    /// The records of many rows, which lie anywhere.
    pub(super) fn share_all(&self, rows: &[Location], records: &mut Vec<Bytes>) {
        if rows.len() > 1 {
            // Touch them all first: the processor fetches them side by side, which it cannot do across the counting
            // of references below.
            let first = |row: &Location| u64::from(self.bytes(*row).first().copied().unwrap_or(0));
            std::hint::black_box(rows.iter().map(first).sum::<u64>());
        }
        records.extend(rows.iter().map(|row| self.share(*row)));
    }

    pub(super) fn key(&self, location: Location) -> &[u8] {
        record::key(self.bytes(location))
    }

    pub(super) fn main(&self, location: Location) -> i64 {
        let chunk = self.chunk(location);
        chunk.main_base + i64::from(chunk.headers[location.slot()].main)
    }

    /// Main and sub revision.
    pub(super) fn revision(&self, location: Location) -> (i64, i64) {
        let chunk = self.chunk(location);
        let header = &chunk.headers[location.slot()];
        let main = chunk.main_base + i64::from(header.main);
        (main, i64::from(header.sub & !KEPT))
    }

    pub(super) fn previous(&self, location: Location) -> Location {
        self.header(location).previous
    }

    pub(super) fn set_previous(&mut self, location: Location, previous: Location) {
        self.header_mut(location).previous = previous;
    }

    /// Marks a row as one that the running compaction keeps.
    pub(super) fn keep(&mut self, location: Location) {
        let len = self.bytes(location).len();
        self.header_mut(location).sub |= KEPT;
        self.chunk_mut(location).kept_bytes += len;
    }

    pub(super) fn is_kept(&self, location: Location) -> bool {
        self.header(location).sub & KEPT != 0
    }

    /// Takes the mark off a row. The chunk still counts it, or else it would look ever sparser during a sweep.
    pub(super) fn clear_kept(&mut self, location: Location) {
        self.header_mut(location).sub &= !KEPT;
    }

    /// Begins a new compaction: no chunk is known to hold kept rows.
    pub(super) fn forget_kept(&mut self) {
        for chunk in self.chunks.iter_mut().flatten() {
            chunk.kept_bytes = 0;
        }
    }

    /// Whether the chunk of this kept row holds so little besides garbage that its rows should leave it. A chunk
    /// with rows above the compaction is left alone: nothing is known about those.
    pub(super) fn is_sparse(&self, location: Location, compacted: i64) -> bool {
        let chunk = self.chunk(location);
        let sealed = matches!(chunk.data, Data::Sealed(_));
        sealed && chunk.main_max <= compacted && chunk.kept_bytes * 2 < chunk.bytes().len()
    }

    /// Copies a kept row to the survivors, as a kept one. The caller mends what points to it and removes the old one.
    pub(super) fn move_to_survivors(&mut self, old: Location, row: NewRow) -> Location {
        let encoded = self.share(old);
        let moved = if encoded.len() >= LONE_RECORD_BYTES {
            self.append_lone(row, encoded)
        } else {
            self.append(Lane::Survivors, row, encoded.len(), |bytes| {
                bytes.extend_from_slice(&encoded)
            })
        };
        self.keep(moved);
        moved
    }

    /// The history has let go of a row. With its last row a chunk goes.
    pub(super) fn remove(&mut self, location: Location) {
        let number = location.chunk();
        let chunk = self.chunk_mut(location);
        chunk.rows -= 1;
        if chunk.rows == 0 && !self.filling.contains(&Some(number)) {
            self.chunks[number] = None;
            self.gone.push(number);
        }
    }

    /// Bytes that the chunks take, garbage included.
    pub(super) fn memory_bytes(&self) -> usize {
        let chunk_bytes = |chunk: &Chunk| {
            let data = match &chunk.data {
                Data::Filling(bytes) => bytes.capacity(),
                Data::Sealed(bytes) => bytes.len(),
            };
            data + chunk.headers.capacity() * size_of::<Header>()
        };
        self.chunks.iter().flatten().map(chunk_bytes).sum()
    }

    fn chunk_for(&mut self, lane: Lane, len_max: usize, main: i64) -> usize {
        if let Some(number) = self.filling[lane as usize] {
            let chunk = self.chunks[number]
                .as_mut()
                .expect("the chunk being filled is there");
            if chunk.has_room(len_max, main) {
                return number;
            }
            chunk.seal();
            self.filling[lane as usize] = None;
            self.filled_rows[lane as usize] = chunk.headers.len();
            if chunk.rows == 0 {
                self.chunks[number] = None;
                self.gone.push(number);
            }
        }
        let data = Data::Filling(Vec::with_capacity(CHUNK_BYTES.max(len_max)));
        let mut chunk = Chunk::new(data, main);
        // Allocators do not take back the rest of a list that has doubled a little too far.
        let rows = self.filled_rows[lane as usize];
        chunk.headers.reserve_exact(rows + rows / 64);
        let number = self.place(chunk);
        self.filling[lane as usize] = Some(number);
        number
    }

    fn place(&mut self, chunk: Chunk) -> usize {
        if let Some(number) = self.gone.pop() {
            self.chunks[number] = Some(chunk);
            return number;
        }
        self.chunks.push(Some(chunk));
        self.chunks.len() - 1
    }

    fn chunk(&self, location: Location) -> &Chunk {
        self.chunks[location.chunk()]
            .as_ref()
            .expect("a location points into a chunk that is there")
    }

    fn chunk_mut(&mut self, location: Location) -> &mut Chunk {
        self.chunks[location.chunk()]
            .as_mut()
            .expect("a location points into a chunk that is there")
    }

    fn header(&self, location: Location) -> &Header {
        &self.chunk(location).headers[location.slot()]
    }

    fn header_mut(&mut self, location: Location) -> &mut Header {
        &mut self.chunk_mut(location).headers[location.slot()]
    }
}

/// What a row is besides its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRow {
    pub(super) previous: Location,
    pub(super) main: i64,
    pub(super) sub: i64,
    pub(super) tombstone: bool,
}

impl Chunk {
    /// An empty chunk whose first row will have this main revision.
    fn new(data: Data, main_base: i64) -> Self {
        Self {
            data,
            headers: Vec::new(),
            rows: 0,
            kept_bytes: 0,
            main_base,
            main_max: i64::MIN,
        }
    }

    /// Whether a record of at most this length may come next.
    fn has_room(&self, len_max: usize, main: i64) -> bool {
        self.bytes().len() + len_max <= CHUNK_BYTES
            && self.headers.len() < CHUNK_ROWS_MAX
            && self.relative(main).is_some()
    }

    /// A main revision as headers hold it; `None` if it is too far from the others.
    fn relative(&self, main: i64) -> Option<i32> {
        i32::try_from(main.checked_sub(self.main_base)?).ok()
    }
}

fn push_header(chunk: &mut Chunk, number: usize, row: NewRow, offset: usize) -> Location {
    let sub = u32::try_from(row.sub).expect("a transaction has less than 2^31 changes");
    assert!(sub & KEPT == 0, "a transaction has less than 2^31 changes");
    let offset = u32::try_from(offset).expect("a chunk is shorter than 4 GiB");
    let main = chunk.relative(row.main).expect("the chunk has room for it");
    let location = Location::new(number, chunk.headers.len(), row.tombstone);
    chunk.headers.push(Header {
        previous: row.previous,
        main,
        sub,
        offset,
    });
    chunk.rows += 1;
    chunk.main_max = chunk.main_max.max(row.main);
    location
}
