//! A sorted list of keys, searched by numbers that lie side by side.
//!
//! What all keys begin with is kept once; of each key only the next eight bytes are here. The keys themselves are
//! the owner's, and are looked at only where those numbers are equal.

use std::cmp::Ordering;
use std::ops::Range;

/// Grown by so many numbers, since there are very many lists.
const GROWTH: usize = 32;

/// The numbers of a sorted list of keys.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// All keys begin with this.
    prefix: Box<[u8]>,
    /// The eight bytes of each key after the prefix, big-endian, padded with zeros.
    heads: Vec<u64>,
}

impl Heads {
    /// Of this many keys, which are sorted.
    pub(super) fn build<'a>(len: usize, key: impl Fn(usize) -> &'a [u8]) -> Self {
        let prefix: Box<[u8]> = if len == 0 {
            Box::default()
        } else {
            common(key(0), key(len - 1)).into()
        };
        let heads = (0..len)
            .map(|number| head_of(&key(number)[prefix.len()..]))
            .collect();
        Self { prefix, heads }
    }

    /// The keys that may equal this one: those below the range are less, those above are greater.
    pub(super) fn search(&self, key: &[u8]) -> Range<usize> {
        let len = self.heads.len();
        let shared = key.len().min(self.prefix.len());
        match key[..shared].cmp(&self.prefix[..shared]) {
            Ordering::Less => return 0..0,
            Ordering::Greater => return len..len,
            Ordering::Equal if shared < self.prefix.len() => return 0..0,
            Ordering::Equal => {}
        }
        let head = head_of(&key[shared..]);
        let low = self.heads.partition_point(|other| *other < head);
        let equal = self.heads[low..]
            .iter()
            .take_while(|other| **other == head)
            .count();
        low..low + equal
    }

    /// Adds a key. `other` gives the keys that are there, by their number before the insertion.
    pub(super) fn insert<'a>(&mut self, at: usize, key: &[u8], other: impl Fn(usize) -> &'a [u8]) {
        if self.heads.is_empty() {
            self.prefix = key.into();
        } else if !key.starts_with(&self.prefix) {
            self.prefix = common(key, &self.prefix).into();
            for (number, head) in self.heads.iter_mut().enumerate() {
                *head = head_of(&other(number)[self.prefix.len()..]);
            }
        }
        if self.heads.len() == self.heads.capacity() {
            self.heads.reserve_exact(GROWTH.max(self.heads.len() / 8));
        }
        self.heads.insert(at, head_of(&key[self.prefix.len()..]));
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.heads.remove(at);
    }

    /// Keeps only the keys for which the answer is true, in order.
    pub(super) fn retain(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        let mut number = 0;
        self.heads.retain(|_| {
            number += 1;
            wanted(number - 1)
        });
    }

    pub(super) fn shrink(&mut self) {
        self.heads.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.prefix.len() + self.heads.capacity() * size_of::<u64>()
    }

    /// Panics unless these are the numbers of these keys.
    pub(super) fn check<'a>(&self, len: usize, key: impl Fn(usize) -> &'a [u8]) {
        assert_eq!(self.heads.len(), len, "one number a key");
        for (number, head) in self.heads.iter().enumerate() {
            assert!(
                key(number).starts_with(&self.prefix),
                "all keys begin with the prefix"
            );
            assert_eq!(
                *head,
                head_of(&key(number)[self.prefix.len()..]),
                "the number of a key"
            );
        }
    }
}

fn common<'a>(one: &'a [u8], other: &[u8]) -> &'a [u8] {
    let len = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    &one[..len]
}

fn head_of(rest: &[u8]) -> u64 {
    if let Some(head) = rest.first_chunk() {
        return u64::from_be_bytes(*head);
    }
    let mut head = [0; 8];
    head[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(head)
}
