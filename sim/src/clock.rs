//! A machine's monotonic clock: it began somewhere, and it runs a little fast or slow.

use quorate_core::types::Time;

use crate::random::{Purpose, Stream};

/// One machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: u64,
    /// Local nanoseconds in a million of true ones.
    rate: u64,
}

impl Clock {
    /// The clock of `node`, whose rate is off by at most `rate_ppm_max`.
    pub fn draw(seed: u64, node: u64, rate_ppm_max: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Clock, node);
        Self {
            offset_ns: stream.below(1 << 50),
            rate: 1_000_000 - rate_ppm_max + stream.between(0, 2 * rate_ppm_max),
        }
    }

    /// What it shows.
    pub fn read(&self, now_ns: u64) -> Time {
        let elapsed = u128::from(now_ns) * u128::from(self.rate) / 1_000_000;
        Time(self.offset_ns + elapsed as u64)
    }

    /// The first moment at which it shows `time` or later; `None` if that never comes.
    pub fn when(&self, time: Time) -> Option<u64> {
        if time == Time::NEVER {
            return None;
        }
        let elapsed = u128::from(time.0.saturating_sub(self.offset_ns));
        let true_ns = (elapsed * 1_000_000).div_ceil(u128::from(self.rate));
        u64::try_from(true_ns).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_the_clock_says_so_and_not_before() {
        for node in 0..50 {
            let clock = Clock::draw(1, node, 50_000);
            for delay in [1, 7, 1_000_003, 10_000_000_000] {
                let deadline = Time(clock.read(1_000_000).0 + delay);
                let when = clock.when(deadline).unwrap();
                assert!(clock.read(when) >= deadline);
                assert!(clock.read(when - 1) < deadline);
            }
        }
        assert_eq!(Clock::draw(1, 1, 0).when(Time::NEVER), None);
    }
}
