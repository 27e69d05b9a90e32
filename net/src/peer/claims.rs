//! Which processes say that they are one member: a data directory that was copied makes two of it.
//!
//! Each start of a process draws a number, which it shows to its peers. A process that was restarted shows a new one,
//! and the old one is never seen again. Where an old one comes back after a new one, both processes live. Raft cannot
//! survive that: what one of them has promised the other does not know. Nothing is decided here about who is right.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Processes that are remembered; a member is not copied more often at a time.
const PAST_MAX: usize = 8;
/// Both dial again and again: so often is it worth a line.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// The processes that have claimed to be one member.
#[derive(Debug, Default)]
pub(super) struct Claims {
    current: Option<String>,
    /// Those before, the last one at the end.
    past: VecDeque<String>,
    told: Option<Instant>,
}

impl Claims {
    /// A process claims to be the member. Whether that is to be reported: another one has claimed it since this one did.
    pub(super) fn claim(&mut self, process: &str, now: Instant) -> bool {
        if self.current.as_deref() == Some(process) {
            return false;
        }
        let is_back = self.past.iter().any(|past| past == process);
        self.past.retain(|past| past != process);
        self.past.extend(self.current.replace(process.to_owned()));
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
        let is_news = self.told.is_none_or(|told| now - told >= TELL_INTERVAL);
        if is_back && is_news {
            self.told = Some(now);
        }
        is_back && is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_that_are_one_member_are_told_from_restarts() {
        let mut claims = Claims::default();
        let now = Instant::now();
        for process in ["a", "a", "b", "b", "c"] {
            assert!(!claims.claim(process, now), "{process} was started once");
        }
        assert!(claims.claim("b", now), "c has not replaced it");
        assert!(!claims.claim("c", now), "that is known");
        assert!(claims.claim("b", now + TELL_INTERVAL), "it goes on");
    }

    #[test]
    fn restarts_without_end_are_not_all_remembered() {
        let mut claims = Claims::default();
        for number in 0..100 {
            assert!(!claims.claim(&number.to_string(), Instant::now()));
        }
        assert_eq!(claims.past.len(), PAST_MAX);
    }
}
