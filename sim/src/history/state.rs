//! One state of a group of keys that is possible so far, with its hash.

use std::collections::BTreeSet;

use super::compile::Condition;

/// Stands for no value: the key is absent.
pub(super) const ABSENT: u32 = u32::MAX;

/// A key in a state.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// [`ABSENT`] if it is not there.
    pub(super) value: u32,
    /// 0 if it is not there.
    pub(super) mod_revision: i64,
    /// When it was put or deleted last.
    pub(super) changed: i64,
    /// When somebody last saw exactly what it was; nothing can be supposed before.
    pub(super) observed: i64,
    /// What somebody saw of it since: at this revision, this held or did not.
    pub(super) glimpses: Vec<(i64, Condition, bool)>,
}

/// One of the states that are possible.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) keys: Vec<Key>,
    /// The unknown operations that were supposed, as a set of bits, and the revisions that they have.
    pub(super) used: Vec<u64>,
    pub(super) slots: BTreeSet<i64>,
    /// Of what can be compared: Zobrist's, so that each change costs two words.
    pub(super) hash: u128,
}

impl State {
    pub(super) fn new(keys: usize, unknown: usize) -> Self {
        let key = Key {
            value: ABSENT,
            mod_revision: 0,
            changed: 0,
            observed: 0,
            glimpses: Vec::new(),
        };
        Self {
            keys: vec![key; keys],
            used: vec![0; unknown.div_ceil(64)],
            slots: BTreeSet::new(),
            hash: 0,
        }
    }

    pub(super) fn is_used(&self, unknown: u32) -> bool {
        self.used[unknown as usize / 64] >> (unknown % 64) & 1 == 1
    }

    pub(super) fn use_up(&mut self, unknown: u32, slot: i64) {
        self.used[unknown as usize / 64] |= 1 << (unknown % 64);
        self.slots.insert(slot);
        self.hash ^= mix(u64::MAX, u64::from(unknown), slot as u64);
    }

    /// An answered write.
    pub(super) fn set(&mut self, place: usize, value: u32, revision: i64) {
        let key = &mut self.keys[place];
        self.hash ^= key.word(place);
        key.value = value;
        key.mod_revision = if value == ABSENT { 0 } else { revision };
        key.changed = revision;
        key.glimpses.clear();
        self.hash ^= key.word(place);
    }

    /// A supposed write; `false` if it contradicts what was seen since.
    pub(super) fn set_unseen(&mut self, place: usize, value: u32, slot: i64) -> bool {
        let key = &mut self.keys[place];
        self.hash ^= key.word(place);
        key.value = value;
        key.mod_revision = if value == ABSENT { 0 } else { slot };
        key.changed = slot;
        self.hash ^= key.word(place);
        let key = &self.keys[place];
        let mut later = key.glimpses.iter().filter(|(at, ..)| *at >= slot);
        later.all(|(_, condition, held)| key.holds(*condition) == *held)
    }
}

impl Key {
    pub(super) fn holds(&self, condition: Condition) -> bool {
        match condition {
            Condition::ModRevision(revision) => self.mod_revision == revision,
            Condition::Value(value) => self.value == value,
        }
    }

    pub(super) fn see(&mut self, revision: i64) {
        self.observed = self.observed.max(revision);
        self.glimpses.clear();
    }

    pub(super) fn word(&self, place: usize) -> u128 {
        if self.changed == 0 {
            return 0;
        }
        let value = u64::from(self.value) << 32 | place as u64;
        mix(value, self.mod_revision as u64, self.changed as u64)
    }
}

/// A word for a fact, as good as drawn.
fn mix(one: u64, two: u64, three: u64) -> u128 {
    let mut word = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835_u128;
    for part in [one, two, three] {
        word ^= u128::from(part);
        word = word.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645);
        word ^= word >> 64;
    }
    word
}
