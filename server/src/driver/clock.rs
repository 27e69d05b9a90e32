//! The monotonic clock that the node is driven by.

use std::time::{Duration, Instant};

use quorate_core::types::Time;

/// Counts from the start of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        Time::default().after(self.start.elapsed())
    }

    /// The moment in the operating system's terms; `None` for a moment that never comes.
    pub fn instant(&self, time: Time) -> Option<Instant> {
        if time == Time::NEVER {
            return None;
        }
        self.start.checked_add(Duration::from_nanos(time.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_the_way_there_and_back() {
        let clock = Clock::start();
        let soon = clock.now().after(Duration::from_millis(100));
        let instant = clock.instant(soon).expect("it comes");
        assert!(instant > Instant::now());
        assert!(instant <= Instant::now() + Duration::from_millis(100));
        assert_eq!(clock.instant(Time::NEVER), None);
    }
}
