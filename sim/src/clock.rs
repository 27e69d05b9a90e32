//! A machine's two clocks.
//!
//! The monotonic one began somewhere, runs a little fast or slow, may change its rate, and may stand still while the
//! machine is suspended; it never goes back. The wall clock is what somebody set it to: it jumps, both ways, and
//! nothing that is replicated or promised may depend on it.

use quorate_core::types::Time;

use crate::random::{Purpose, Stream};

/// The wall clock of an honest machine when a run begins.
const BEGAN_UNIX_MS: u64 = 1_700_000_000_000;
/// A wall clock is off by at most this much when a run begins.
const WALL_OFFSET_MS_MAX: u64 = 600_000;

/// One machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The monotonic clock showed `local_ns` at the true time `true_ns`, and has run at `rate` since.
    true_ns: u64,
    local_ns: u64,
    /// Local nanoseconds in a million of true ones.
    rate: u64,
    is_frozen: bool,
    /// What the wall clock shows is this much after (or before) an honest one.
    wall_offset_ms: i64,
    /// That, when the run began.
    wall_offset_began_ms: i64,
}

impl Clock {
    /// The clocks of `node`, whose rate is off by at most `rate_ppm_max`.
    pub fn draw(seed: u64, node: u64, rate_ppm_max: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Clock, node);
        let local_ns = stream.below(1 << 50);
        let rate = 1_000_000 - rate_ppm_max + stream.between(0, 2 * rate_ppm_max);
        let wall = stream.between(0, 2 * WALL_OFFSET_MS_MAX) as i64;
        let wall_offset_ms = wall - WALL_OFFSET_MS_MAX as i64;
        Self {
            true_ns: 0,
            local_ns,
            rate,
            is_frozen: false,
            wall_offset_ms,
            wall_offset_began_ms: wall_offset_ms,
        }
    }

    /// What the monotonic one shows.
    pub fn read(&self, now_ns: u64) -> Time {
        if self.is_frozen {
            return Time(self.local_ns);
        }
        let elapsed_ns = now_ns - self.true_ns;
        // Whole runs fit into 64 bits; the wide multiplication is for those that do not.
        let local_ns = match elapsed_ns.checked_mul(self.rate) {
            Some(scaled) => scaled / 1_000_000,
            None => (u128::from(elapsed_ns) * u128::from(self.rate) / 1_000_000) as u64,
        };
        Time(self.local_ns + local_ns)
    }

    /// The first moment at which it shows `time` or later, as things stand; `None` if that never comes.
    pub fn when(&self, time: Time) -> Option<u64> {
        if time == Time::NEVER || self.is_frozen {
            return None;
        }
        let local_ns = time.0.saturating_sub(self.local_ns);
        let elapsed_ns = match local_ns.checked_mul(1_000_000) {
            Some(scaled) => scaled.div_ceil(self.rate),
            None => {
                let scaled = u128::from(local_ns) * 1_000_000;
                u64::try_from(scaled.div_ceil(u128::from(self.rate))).ok()?
            }
        };
        Some(self.true_ns + elapsed_ns)
    }

    /// The rate by which it runs from now on.
    pub fn set_rate(&mut self, now_ns: u64, rate: u64) {
        assert!(rate > 0, "a clock that stands still is frozen");
        self.rebase(now_ns);
        self.rate = rate;
    }

    /// Local nanoseconds in a million of true ones.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// The monotonic clock stands still, as on a machine that is suspended.
    pub fn freeze(&mut self, now_ns: u64) {
        self.rebase(now_ns);
        self.is_frozen = true;
    }

    /// It goes on where it stood.
    pub fn thaw(&mut self, now_ns: u64) {
        if self.is_frozen {
            self.true_ns = now_ns;
            self.is_frozen = false;
        }
    }

    /// Somebody sets the wall clock forward, or back.
    pub fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// The wall clock begins where it began, as on a machine in which nothing keeps it.
    pub fn forget_wall(&mut self, now_ns: u64) {
        self.wall_offset_ms = self.wall_offset_began_ms - (now_ns / 1_000_000) as i64;
    }

    /// What the wall clock shows, in milliseconds since 1970.
    pub fn unix_ms(&self, now_ns: u64) -> u64 {
        (BEGAN_UNIX_MS + now_ns / 1_000_000).saturating_add_signed(self.wall_offset_ms)
    }

    fn rebase(&mut self, now_ns: u64) {
        self.local_ns = self.read(now_ns).0;
        self.true_ns = now_ns;
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

    #[test]
    fn a_frozen_clock_stands_still_and_goes_on_where_it_stood() {
        let mut clock = Clock::draw(1, 1, 0);
        let stood = clock.read(1000);
        clock.freeze(1000);
        assert_eq!(clock.read(5000), stood);
        assert_eq!(clock.when(Time(stood.0 + 1)), None);
        clock.thaw(6000);
        assert_eq!(clock.read(6007), Time(stood.0 + 7));
        assert_eq!(clock.when(Time(stood.0 + 7)), Some(6007));
    }

    #[test]
    fn a_change_of_rate_never_turns_a_clock_back() {
        let mut clock = Clock::draw(3, 1, 0);
        let before = clock.read(1_000_000);
        clock.set_rate(1_000_000, 500_000);
        assert_eq!(clock.read(1_000_000), before);
        assert_eq!(clock.read(3_000_000), Time(before.0 + 1_000_000));
    }

    #[test]
    fn only_the_wall_clock_jumps() {
        let mut clock = Clock::draw(3, 1, 0);
        let (monotonic, wall) = (clock.read(5), clock.unix_ms(5));
        clock.jump_wall(-3_600_000);
        assert_eq!(clock.read(5), monotonic);
        assert_eq!(clock.unix_ms(5), wall - 3_600_000);
        let later_ns = 77_000_000_000;
        clock.forget_wall(later_ns);
        assert_eq!(clock.unix_ms(later_ns), wall);
    }
}
