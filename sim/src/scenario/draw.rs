//! What a scenario leaves to the seed.
//!
//! Each draw has a stream of its own, named by what it is for (`network.loss`, `fault.cut.from`): a change in one line of
//! a scenario leaves what is drawn for the others as it is.

use crate::random::{Purpose, Stream};

/// A number that is fixed or drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// This one.
    Fixed(i64),
    /// One from the first to the last, both included.
    Between(i64, i64),
    /// One of these.
    OneOf(Vec<i64>),
}

/// Something that is fixed or drawn from a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice<T>(pub(super) Vec<T>);

/// The draws of a seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws {
    seed: u64,
}

impl Number {
    /// The smallest that it can be.
    pub(super) fn least(&self) -> i64 {
        match self {
            Self::Fixed(number) => *number,
            Self::Between(first, _) => *first,
            Self::OneOf(numbers) => numbers.iter().copied().min().unwrap_or_default(),
        }
    }

    /// The largest that it can be.
    pub(super) fn most(&self) -> i64 {
        match self {
            Self::Fixed(number) => *number,
            Self::Between(_, last) => *last,
            Self::OneOf(numbers) => numbers.iter().copied().max().unwrap_or_default(),
        }
    }
}

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream of this name.
    pub(super) fn stream(self, name: &str) -> Stream {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Stream::new(self.seed, Purpose::Scenario, hash)
    }

    pub(super) fn number(self, name: &str, number: &Number) -> i64 {
        match number {
            Number::Fixed(number) => *number,
            Number::Between(first, last) => {
                first + self.stream(name).below(first.abs_diff(*last) + 1) as i64
            }
            Number::OneOf(numbers) => *self.stream(name).pick(numbers),
        }
    }

    pub(super) fn choice<T: Clone>(self, name: &str, choice: &Choice<T>) -> T {
        match &choice.0[..] {
            [only] => only.clone(),
            several => self.stream(name).pick(several).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_and_name_and_reaches_both_ends() {
        let number = Number::Between(-2, 2);
        let drawn = |seed, name: &str| Draws::new(seed).number(name, &number);
        assert_eq!(drawn(1, "a"), drawn(1, "a"));
        let mut seen: Vec<_> = (0..100).map(|seed| drawn(seed, "a")).collect();
        let others: Vec<_> = (0..100).map(|seed| drawn(seed, "b")).collect();
        assert_ne!(seen, others);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [-2, -1, 0, 1, 2]);
    }
}
