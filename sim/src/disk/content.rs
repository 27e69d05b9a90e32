//! The content of one file: what a reader sees, and what a power loss would leave of it.

use std::collections::BTreeSet;

use crate::random::Stream;

/// The unit in which written bytes survive a power loss.
pub const SECTOR_BYTES: usize = 512;

/// One file's bytes, twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// What a reader sees: the page cache.
    current: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// Sectors of `current` that were written since the last sync.
    dirty: BTreeSet<usize>,
}

/// Which of a set of unsynced things survive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survival {
    None,
    All,
    /// The first this many.
    Prefix(u64),
    /// Each with this probability.
    Each(u32),
}

impl Survival {
    /// How a power loss treats `count` unsynced things.
    pub(super) fn draw(stream: &mut Stream, count: u64) -> Self {
        match stream.below(4) {
            0 => Self::None,
            1 => Self::All,
            2 => Self::Prefix(stream.between(0, count)),
            _ => Self::Each(*stream.pick(&[100_000, 500_000, 900_000])),
        }
    }

    /// Whether the one at `position` survives.
    pub(super) fn keeps(self, stream: &mut Stream, position: u64) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Prefix(first) => position < first,
            Self::Each(ppm) => stream.chance(ppm),
        }
    }
}

impl Content {
    /// Allocated zeros, whose length is not durable yet.
    pub(super) fn zeros(length: usize) -> Self {
        Self {
            current: vec![0; length],
            ..Self::default()
        }
    }

    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    /// The file as only what is synced makes it.
    pub(super) fn durable_only(&self) -> Self {
        Self {
            current: self.durable.clone(),
            durable: self.durable.clone(),
            dirty: BTreeSet::new(),
        }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.current.len() {
            self.grow(end);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.mark(offset, end);
    }

    pub(super) fn set_length(&mut self, length: usize) {
        if length > self.current.len() {
            self.grow(length);
        } else {
            self.current.truncate(length);
            self.dirty.split_off(&length.div_ceil(SECTOR_BYTES));
        }
    }

    /// New zeros at the end hide older bytes on the platter, so they count as written there.
    fn grow(&mut self, length: usize) {
        let old_length = self.current.len();
        self.current.resize(length, 0);
        self.mark(old_length, length.min(self.durable.len()));
    }

    fn mark(&mut self, start: usize, end: usize) {
        if start < end {
            self.dirty
                .extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.write_back(sector, SECTOR_BYTES);
        }
    }

    /// A sync that did not work: some sectors reached the platter, and the page cache takes all for clean.
    pub(super) fn sync_partly(&mut self, stream: &mut Stream, forget: bool) {
        if stream.chance(500_000) {
            self.durable.resize(self.current.len(), 0);
        }
        let survival = Survival::draw(stream, self.dirty.len() as u64);
        for (position, sector) in (0..).zip(self.dirty.clone()) {
            if survival.keeps(stream, position) {
                self.write_back(sector, SECTOR_BYTES);
            }
        }
        if forget {
            self.dirty.clear();
        }
    }

    /// Copies the first `bytes` of a sector to the platter, as far as the file reaches there.
    fn write_back(&mut self, sector: usize, bytes: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + bytes)
            .min(self.current.len())
            .min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.current[start..end]);
        }
    }

    /// The power goes. With `torn`, a sector may also survive in part.
    pub(super) fn lose_power(&mut self, stream: &mut Stream, torn: bool) {
        if self.dirty.is_empty() && self.current.len() == self.durable.len() {
            // What a failed sync left behind is forgotten here, too.
            self.current.copy_from_slice(&self.durable);
            return;
        }
        if stream.chance(500_000) {
            self.durable.resize(self.current.len(), 0);
        }
        let survival = Survival::draw(stream, self.dirty.len() as u64);
        for (position, sector) in (0..).zip(std::mem::take(&mut self.dirty)) {
            if survival.keeps(stream, position) {
                self.write_back(sector, SECTOR_BYTES);
            } else if torn && stream.chance(100_000) {
                self.write_back(sector, stream.below(SECTOR_BYTES as u64) as usize);
            }
        }
        self.current.clone_from(&self.durable);
    }
}
