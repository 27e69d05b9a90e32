//! The trace of a run: a rolling 128-bit hash over every event, and, when asked for, a readable line for each.
//!
//! Two runs of one seed must have the same hash; where they differ, the lines show the first event that does.

use std::fmt;
use std::io::Write as _;

use crate::random::mix;

/// How to read a readable trace.
pub const LEGEND: &str = "\
The columns: simulated time in seconds; the number of the event; the member that it happens at; what happens; details.
`sends to`: x2 is a message that will arrive twice, x0 one that is lost. `hears from`: what arrives is taken at the next
`turn`, which shows the member's state after it. `wants a write`: the number of the write in the upper 32 bits, the sum of the
indexes of its entries in the lower. `is asked by`, `answers`: requests; `the judge` asks when load and faults are over.
Names of faults have their place in the plan above, from 0, as detail.
   seconds    event  who  what                    details";

/// A line of a readable trace: at which member, what, and details.
pub fn line(who: &str, what: impl fmt::Display, details: impl fmt::Display) -> String {
    // Only then does a width apply.
    let what = what.to_string();
    format!("{who:<4} {what:<23} {details}")
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u128,
    /// Events so far.
    events: u64,
    /// Whether lines are printed.
    verbose: bool,
}

/// What a run's trace came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(pub u128);

impl fmt::Display for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Trace {
    /// An empty trace; a verbose one prints its lines to stdout.
    pub fn new(verbose: bool) -> Self {
        Self {
            hash: 0x6a09_e667_f3bc_c908_b2fb_1366_ea95_7d3e,
            events: 0,
            verbose,
        }
    }

    /// Notes an event. `words` and `bytes` are all that matters of it, `line` is for people.
    pub fn event<L: fmt::Display>(
        &mut self,
        time_ns: u64,
        words: &[u64],
        bytes: &[u8],
        line: impl FnOnce() -> L,
    ) {
        self.events += 1;
        self.absorb(time_ns);
        for &word in words {
            self.absorb(word);
        }
        self.absorb_bytes(bytes);
        if self.verbose {
            let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000);
            // A reader that has seen enough closes the pipe; the run goes on without it.
            let _ = writeln!(
                std::io::stdout(),
                "{seconds:4}.{micros:06} {:>7}  {}",
                self.events,
                line()
            );
        }
    }

    /// Adds bytes to the current event.
    pub fn absorb_bytes(&mut self, bytes: &[u8]) {
        self.absorb(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.absorb(u64::from_le_bytes(word));
        }
    }

    /// What it has come to.
    pub fn hash(&self) -> TraceHash {
        TraceHash(self.hash)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether lines are printed.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    fn absorb(&mut self, word: u64) {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mixed = (self.hash ^ u128::from(mix(word))).wrapping_mul(PRIME);
        self.hash = mixed ^ (mixed >> 67);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(events: &[(u64, &[u8])]) -> TraceHash {
        let mut trace = Trace::new(false);
        for (time, bytes) in events {
            trace.event(*time, &[1], bytes, || "");
        }
        trace.hash()
    }

    #[test]
    fn the_hash_sees_order_time_and_content() {
        let base = hash(&[(1, b"a"), (1, b"b")]);
        assert_eq!(base, hash(&[(1, b"a"), (1, b"b")]));
        assert_ne!(base, hash(&[(1, b"b"), (1, b"a")]));
        assert_ne!(base, hash(&[(1, b"a"), (2, b"b")]));
        assert_ne!(base, hash(&[(1, b"a"), (1, b"b\0")]));
        assert_ne!(base, hash(&[(1, b"ab")]));
    }
}
