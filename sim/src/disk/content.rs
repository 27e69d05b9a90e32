//! The content of one file: what a reader sees, and what a power loss would leave of it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::sectors::Sectors;
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
    dirty: Sectors,
    /// Sectors of `durable` that the disk spoilt, as they should be.
    truth: BTreeMap<usize, Spoilt>,
    /// Counts syncs that had something to write.
    syncs: u64,
    /// The sectors that the last of them wrote.
    last_synced: Sectors,
    /// Whether it is a log. What the last sync of a log lost cannot be missed by anybody who reads it: without its last
    /// batch it looks as if that had never been written.
    is_log: bool,
}

/// A sector that is not what it should be.
#[derive(Clone, Debug)]
struct Spoilt {
    /// What it should be.
    truth: Vec<u8>,
    /// What it should be once everything is synced that was written since.
    cached: Vec<u8>,
    /// What became of it.
    how: Spoiling,
}

/// How a sector was spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoiling {
    /// It rotted where it lay.
    Rotten,
    /// The write of this sync went astray.
    Astray(u64),
    /// A power loss left it half written. Who takes it as it is, and writes it again, is right to do so.
    Torn,
}

/// How a write goes astray although its sync succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Astray {
    /// It goes nowhere.
    Lost,
    /// It goes to another sector of the file.
    Misdirected,
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
    pub(super) fn zeros(length: usize, is_log: bool) -> Self {
        Self {
            current: vec![0; length],
            is_log,
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
            ..Self::default()
        }
        .restored(&self.truth)
    }

    fn restored(mut self, truth: &BTreeMap<usize, Spoilt>) -> Self {
        for (&sector, spoilt) in truth {
            put(&mut self.durable, sector, &spoilt.truth);
            put(&mut self.current, sector, &spoilt.truth);
        }
        self
    }

    /// Whether something on the platter is not what it should be.
    pub(super) fn is_spoilt(&self) -> bool {
        !self.truth.is_empty()
    }

    /// Puts everything on the platter right again.
    pub(super) fn repair(&mut self) {
        for (sector, spoilt) in std::mem::take(&mut self.truth) {
            put(&mut self.durable, sector, &spoilt.truth);
            put(&mut self.current, sector, &spoilt.cached);
        }
    }

    /// Sectors that rot may hit: those in use, of a log without what nobody would miss.
    pub(super) fn sectors_to_rot(&self) -> Vec<usize> {
        let mut sectors = self.sectors_in_use();
        sectors.retain(|sector| !self.is_log || !self.last_synced.contains(*sector));
        sectors
    }

    /// Sectors on the platter that hold something.
    fn sectors_in_use(&self) -> Vec<usize> {
        let sectors = self.durable.chunks(SECTOR_BYTES).enumerate();
        let holds = |(_, bytes): &(usize, &[u8])| bytes.iter().any(|&byte| byte != 0);
        sectors.filter(holds).map(|(sector, _)| sector).collect()
    }

    /// Some bits of a sector change where they lie. What reads it from now on reads the same each time.
    pub(super) fn rot(&mut self, stream: &mut Stream, sector: usize) {
        let before = self.platter_sector(sector).to_vec();
        for _ in 0..stream.between(1, 8) {
            let byte = stream.below(before.len() as u64) as usize;
            self.durable[sector * SECTOR_BYTES + byte] ^= 1 << stream.below(8);
        }
        if self.platter_sector(sector) == before {
            self.durable[sector * SECTOR_BYTES] ^= 1;
        }
        self.spoil(sector, before, Spoiling::Rotten);
        if !self.dirty.contains(sector) {
            let rotten = self.platter_sector(sector).to_vec();
            put(&mut self.current, sector, &rotten);
        } else if let Some(spoilt) = self.truth.get_mut(&sector) {
            // The page cache has a copy of its own, as it was meant.
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.current.len());
            spoilt.cached = self.current[start.min(end)..end].to_vec();
        }
    }

    /// Notes that a sector of the platter is not what it should be.
    fn spoil(&mut self, sector: usize, truth: Vec<u8>, how: Spoiling) {
        let spoilt = Spoilt {
            cached: truth.clone(),
            truth,
            how,
        };
        self.truth.entry(sector).or_insert(spoilt);
    }

    fn platter_sector(&self, sector: usize) -> &[u8] {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.durable.len());
        &self.durable[start..end]
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.current.len() {
            self.grow(end);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.note_written(offset, end);
        self.mark(offset, end);
    }

    pub(super) fn set_length(&mut self, length: usize) {
        if length > self.current.len() {
            self.grow(length);
        } else {
            self.current.truncate(length);
            self.dirty.truncate(length.div_ceil(SECTOR_BYTES));
        }
    }

    /// New zeros at the end hide older bytes on the platter, so they count as written there.
    fn grow(&mut self, length: usize) {
        let old_length = self.current.len();
        self.current.resize(length, 0);
        self.note_written(old_length, length);
        self.mark(old_length, length.min(self.durable.len()));
    }

    fn mark(&mut self, start: usize, end: usize) {
        if start < end {
            self.dirty
                .insert(start / SECTOR_BYTES, end.div_ceil(SECTOR_BYTES));
        }
    }

    /// A sync that promises everything and loses, or misdirects, one of the sectors. `false` when there was none.
    pub(super) fn sync_astray(&mut self, stream: &mut Stream, astray: Astray) -> bool {
        let dirty: Vec<_> = self.dirty.iter().collect();
        if dirty.is_empty() {
            self.sync();
            return false;
        }
        let sector = *stream.pick(&dirty);
        self.durable.resize(self.current.len(), 0);
        let before = self.platter_sector(sector).to_vec();
        let others = self.sectors_in_use();
        self.sync();
        let meant = self.platter_sector(sector).to_vec();
        if meant == before {
            return false;
        }
        let at = Spoiling::Astray(self.syncs);
        put(&mut self.durable, sector, &before);
        if astray == Astray::Misdirected {
            let others: Vec<_> = others.into_iter().filter(|&it| it != sector).collect();
            if let Some(&other) = (!others.is_empty()).then(|| stream.pick(&others)) {
                let truth = self.platter_sector(other).to_vec();
                put(&mut self.durable, other, &meant);
                if self.platter_sector(other) != truth {
                    self.spoil(other, truth, at);
                }
            }
        }
        self.spoil(sector, meant, at);
        true
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return;
        }
        for sector in dirty.iter() {
            self.write_back(sector, SECTOR_BYTES);
        }
        self.syncs += 1;
        self.last_synced = dirty;
    }

    /// A sync that did not work: some sectors reached the platter, and the page cache takes all for clean.
    pub(super) fn sync_partly(&mut self, stream: &mut Stream, forget: bool) {
        if stream.chance(500_000) {
            self.durable.resize(self.current.len(), 0);
        }
        let survival = Survival::draw(stream, self.dirty.len());
        for (position, sector) in (0..).zip(self.dirty.clone().iter()) {
            if survival.keeps(stream, position) {
                self.write_back(sector, SECTOR_BYTES);
            }
        }
        if forget {
            self.dirty.clear();
        }
    }

    /// Somebody has written these bytes of the page cache: they are as he meant them, whatever lies beside them.
    fn note_written(&mut self, start: usize, end: usize) {
        let sectors = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        for (sector, spoilt) in self.truth.range_mut(sectors) {
            let begin = sector * SECTOR_BYTES;
            let (from, to) = (start.max(begin), end.min(begin + SECTOR_BYTES));
            if spoilt.cached.len() < to - begin {
                spoilt.cached.resize(to - begin, 0);
            }
            spoilt.cached[from - begin..to - begin].copy_from_slice(&self.current[from..to]);
        }
    }

    /// A sector that was spoilt is written to the platter again.
    fn correct(&mut self, sector: usize, start: usize, end: usize) {
        let Some(spoilt) = self.truth.get_mut(&sector) else {
            return;
        };
        let length = end - start;
        spoilt.cached.resize(spoilt.cached.len().max(length), 0);
        spoilt.truth.resize(spoilt.truth.len().max(length), 0);
        spoilt.truth[..length].copy_from_slice(&spoilt.cached[..length]);
        let is_good = spoilt.truth[..length] == self.current[start..end];
        if is_good || spoilt.how == Spoiling::Torn {
            self.truth.remove(&sector);
        }
    }

    /// Copies the first `bytes` of a sector to the platter, as far as the file reaches there.
    fn write_back(&mut self, sector: usize, bytes: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + bytes)
            .min(self.current.len())
            .min(self.durable.len());
        if start < end {
            self.correct(sector, start, end);
            self.durable[start..end].copy_from_slice(&self.current[start..end]);
        }
    }

    /// Which bytes of a dirty sector are not on the platter: from the first to the last of them. `None` if there are fewer
    /// than two, of which no part could survive.
    fn changed_bytes(&self, sector: usize) -> Option<Range<usize>> {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES)
            .min(self.current.len())
            .min(self.durable.len());
        let (new, old) = (self.current.get(start..end)?, &self.durable[start..end]);
        let differs = |at: &usize| new[*at] != old[*at];
        let first = (0..new.len()).find(differs)?;
        let last = (0..new.len()).rev().find(differs)?;
        (first < last).then_some(first..last + 1)
    }

    /// The power goes; of what does not survive, this many sectors in a million survive in part. Returns how many did.
    pub(super) fn lose_power(&mut self, stream: &mut Stream, torn_ppm: u32) -> u64 {
        // Nobody is asked to notice what nobody could: that write is made good.
        let last = if self.is_log { self.syncs } else { u64::MAX };
        let (unnoticed, noticed) = std::mem::take(&mut self.truth)
            .into_iter()
            .partition(|(_, spoilt)| spoilt.how == Spoiling::Astray(last));
        self.truth = unnoticed;
        self.repair();
        self.truth = noticed;
        if self.dirty.is_empty() && self.current.len() == self.durable.len() {
            // What a failed sync left behind is forgotten here, too.
            self.current.copy_from_slice(&self.durable);
            return 0;
        }
        let mut torn = 0;
        if stream.chance(500_000) {
            self.durable.resize(self.current.len(), 0);
        }
        let survival = Survival::draw(stream, self.dirty.len());
        for (position, sector) in (0..).zip(std::mem::take(&mut self.dirty).iter()) {
            if survival.keeps(stream, position) {
                self.write_back(sector, SECTOR_BYTES);
            } else if stream.chance(torn_ppm)
                && let Some(changed) = self.changed_bytes(sector)
            {
                // It is torn where it has changed: anywhere else it would be whole.
                let first = changed.start as u64 + 1;
                let kept = stream.between(first, changed.end as u64 - 1) as usize;
                let before = self.platter_sector(sector).to_vec();
                self.write_back(sector, kept);
                self.spoil(sector, before, Spoiling::Torn);
                torn += 1;
            }
        }
        self.current.clone_from(&self.durable);
        for spoilt in self.truth.values_mut() {
            spoilt.cached.clone_from(&spoilt.truth);
        }
        torn
    }
}

/// Puts a sector's bytes in their place, as far as the file reaches there.
fn put(file: &mut [u8], sector: usize, bytes: &[u8]) {
    let start = sector * SECTOR_BYTES;
    let end = (start + bytes.len()).min(file.len());
    if start < end {
        file[start..end].copy_from_slice(&bytes[..end - start]);
    }
}
