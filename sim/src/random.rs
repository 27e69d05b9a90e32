//! Randomness in keyed streams: every draw is a hash of (seed, purpose, node, counter).
//!
//! A new draw in one place must not shift the draws of another, or every change would turn every seed into a
//! different run. So there is no generator that all share: each use has its own [`Stream`], named by its
//! [`Purpose`] and, where it applies, by a node or client.

use crate::decisions;

/// What a stream is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The options of a run.
    Options = 1,
    /// Which unsynced sectors and names survive.
    Disk,
    /// How long disk work takes and where power is cut.
    DiskTiming,
    /// Loss, delay and duplication of messages.
    Network,
    /// What goes wrong and when.
    Faults,
    /// What a client does.
    Client,
    /// The rate and offset of a clock.
    Clock,
    /// The seed of a node.
    Node,
    /// Which audits are made when.
    Audit,
    /// What the clients of a run do.
    Load,
    /// What will go wrong, drawn before the run.
    Plan,
    /// How long a machine stays off.
    Restart,
    /// Who heals first.
    Heal,
    /// What a scenario leaves to the seed.
    Scenario,
    /// How members ask each other for hashes, and what is altered on one of them.
    Compare,
    /// What an operator does about alarms.
    Operator,
    /// Where the ids of a process's requests begin.
    RequestIds,
}

/// One stream of draws.
#[derive(Clone, Debug)]
pub struct Stream {
    key: u64,
    counter: u64,
    /// What whoever records the run knows it by; 0 if nobody does.
    number: u32,
}

/// A bijection of 64 bits in which every input bit reaches every output bit (Stafford's mix 13).
pub fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn key(seed: u64, purpose: u64, node: u64) -> u64 {
    let key = mix(seed.wrapping_add(STEP));
    let key = mix(key ^ mix(purpose.wrapping_mul(STEP)));
    mix(key ^ mix(node.wrapping_add(STEP).wrapping_mul(3)))
}

fn draw(key: u64, counter: u64) -> u64 {
    mix(key.wrapping_add(counter.wrapping_mul(STEP)))
}

/// The draw of this number, from 1, of the stream of a purpose and a node.
pub(crate) fn draw_at(seed: u64, purpose: u64, node: u64, counter: u64) -> u64 {
    draw(key(seed, purpose, node), counter)
}

impl Stream {
    /// The stream of `purpose` for `node` (0 where there is none) in the run of `seed`.
    pub fn new(seed: u64, purpose: Purpose, node: u64) -> Self {
        Self {
            key: key(seed, purpose as u64, node),
            counter: 0,
            number: decisions::on_stream(purpose as u64, node),
        }
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.counter += 1;
        let value = draw(self.key, self.counter);
        if self.number == 0 {
            return value;
        }
        decisions::on_draw(self.number, self.counter, value)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "a draw needs something to choose from");
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        assert!(first <= last, "{first} to {last} is empty");
        first + self.below(last - first + 1)
    }

    /// True with a probability of `ppm` in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// About `mean`, at most 16 times as much: most draws are small, some are long.
    pub fn with_tail(&mut self, mean: u64) -> u64 {
        let doublings = self.draw().trailing_ones().min(4);
        let scale = mean.max(2) << doublings;
        self.between(scale / 4, scale / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_in_one_stream_shifts_no_other() {
        let mut before = Stream::new(7, Purpose::Network, 1);
        let mut other = Stream::new(7, Purpose::Faults, 1);
        let expected: Vec<_> = (0..4).map(|_| before.draw()).collect();
        let mut after = Stream::new(7, Purpose::Network, 1);
        let interleaved: Vec<_> = (0..4)
            .map(|_| {
                other.draw();
                after.draw()
            })
            .collect();
        assert_eq!(expected, interleaved);
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_node() {
        let first = |seed, purpose, node| Stream::new(seed, purpose, node).draw();
        let all = [
            first(1, Purpose::Disk, 0),
            first(2, Purpose::Disk, 0),
            first(1, Purpose::Client, 0),
            first(1, Purpose::Disk, 1),
        ];
        for (position, one) in all.iter().enumerate() {
            assert!(all[..position].iter().all(|earlier| earlier != one));
        }
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_its_ends() {
        let mut stream = Stream::new(1, Purpose::Options, 0);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[(stream.between(3, 7) - 3) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert!((0..100).all(|_| !stream.chance(0) && stream.chance(1_000_000)));
        assert!((0..1000).all(|_| stream.with_tail(100) <= 1600));
    }
}
