//! A set of sectors of one file, as bits: every write of a run marks some.

/// The set.
#[derive(Clone, Debug, Default)]
pub(super) struct Sectors(Vec<u64>);

const BITS: usize = u64::BITS as usize;

impl Sectors {
    /// Adds the sectors from `first` on, without `end`.
    pub(super) fn insert(&mut self, first: usize, end: usize) {
        if end.div_ceil(BITS) > self.0.len() {
            self.0.resize(end.div_ceil(BITS), 0);
        }
        for sector in first..end {
            self.0[sector / BITS] |= 1 << (sector % BITS);
        }
    }

    /// Takes out those from `first` on.
    pub(super) fn truncate(&mut self, first: usize) {
        self.0.truncate(first.div_ceil(BITS));
        if let Some(last) = self.0.get_mut(first / BITS) {
            *last &= (1 << (first % BITS)) - 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn contains(&self, sector: usize) -> bool {
        let word = self.0.get(sector / BITS);
        word.is_some_and(|word| word >> (sector % BITS) & 1 == 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate();
        words.flat_map(|(place, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(place * BITS + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_not_taken_out() {
        let mut sectors = Sectors::default();
        assert!(sectors.is_empty());
        sectors.insert(62, 66);
        sectors.insert(3, 4);
        sectors.insert(200, 201);
        assert_eq!(sectors.iter().collect::<Vec<_>>(), [3, 62, 63, 64, 65, 200]);
        assert_eq!(sectors.len(), 6);
        assert!(sectors.contains(64) && !sectors.contains(66) && !sectors.contains(9000));
        sectors.truncate(64);
        assert_eq!(sectors.iter().collect::<Vec<_>>(), [3, 62, 63]);
        sectors.truncate(3);
        assert!(sectors.is_empty());
    }
}
