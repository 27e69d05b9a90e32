//! Compacts by itself, while this member leads: all but the last revisions, or all that is older than some time.
//!
//! When is decided as etcd decides it. What is compacted goes through the log like any client's compaction.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::services;
use crate::state::ServerState;

/// How often the number of revisions is looked at; etcd's interval.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// A long period is compacted in steps of this; etcd's as well.
const STEP_MAX: Duration = Duration::from_secs(3600);
/// The revision is noted, and a failed compaction tried again, this many times a step.
const LOOKS_PER_STEP: u32 = 10;

/// What `--auto-compaction-mode` and `--auto-compaction-retention` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Keep everything.
    All,
    /// Keep what was written within this time.
    Time(Duration),
    /// Keep this many revisions.
    Revisions(i64),
}

/// Decides when to compact to which revision.
#[derive(Debug)]
enum Schedule {
    Time {
        period: Duration,
        /// Revisions noted lately; the first is as old as the period once there are enough.
        noted: VecDeque<i64>,
        /// When the last compaction was, or the start.
        last: Instant,
        /// How long after that the next one may be.
        wait: Duration,
        compacted: i64,
    },
    Revisions {
        kept: i64,
        compacted: i64,
    },
}

impl Schedule {
    fn new(retention: Retention, now: Instant) -> Option<Self> {
        match retention {
            Retention::All => None,
            Retention::Time(period) => Some(Self::Time {
                period,
                noted: VecDeque::new(),
                last: now,
                wait: period,
                compacted: 0,
            }),
            Retention::Revisions(kept) => Some(Self::Revisions { kept, compacted: 0 }),
        }
    }

    /// Between two looks.
    fn interval(&self) -> Duration {
        match self {
            Self::Time { period, .. } => (*period).min(STEP_MAX) / LOOKS_PER_STEP,
            Self::Revisions { .. } => REVISION_INTERVAL,
        }
    }

    /// Notes the revision of now, before the wait for the next look.
    fn note(&mut self, revision: i64) {
        let interval = self.interval();
        if let Self::Time { period, noted, .. } = self {
            let places = period.as_nanos() / interval.as_nanos().max(1);
            noted.push_back(revision);
            if noted.len() as u128 > places {
                noted.pop_front();
            }
        }
    }

    /// The revision to compact to now, if it is time; `revision` is that of now.
    fn due(&mut self, now: Instant, revision: i64) -> Option<i64> {
        match self {
            Self::Time {
                period,
                noted,
                last,
                wait,
                compacted,
            } => {
                let oldest = *noted.front()?;
                if now.duration_since(*last) < *wait || oldest == *compacted {
                    return None;
                }
                *wait = (*period).min(STEP_MAX);
                Some(oldest)
            }
            Self::Revisions { kept, compacted } => {
                let target = revision - *kept;
                (target > 0 && target != *compacted).then_some(target)
            }
        }
    }

    /// It is compacted to here.
    fn done(&mut self, now: Instant, revision: i64) {
        match self {
            Self::Time {
                last, compacted, ..
            } => (*last, *compacted) = (now, revision),
            Self::Revisions { compacted, .. } => *compacted = revision,
        }
    }
}

/// Compacts for as long as the member runs.
pub(crate) async fn run(retention: Retention, state: Arc<ServerState>) {
    let Some(mut schedule) = Schedule::new(retention, Instant::now()) else {
        return;
    };
    loop {
        schedule.note(state.view.revision().0);
        sleep(schedule.interval()).await;
        if state.leader() != Some(state.member) {
            continue;
        }
        let now = Instant::now();
        let Some(revision) = schedule.due(now, state.view.revision().0) else {
            continue;
        };
        match services::compact_here(revision).await {
            Ok(()) => {
                info!(revision, took = ?now.elapsed(), "completed auto compaction");
                schedule.done(now, revision);
            }
            Err(error) => warn!(revision, error = error.message(), "failed auto compaction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The compactions of a store that gains ten revisions a minute, as (minute, revision).
    fn compactions(retention: Retention, minutes: u64) -> Vec<(u64, i64)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(retention, start).expect("it compacts");
        let (mut now, mut done) = (start, Vec::new());
        let revision = |now: Instant| (now - start).as_secs() as i64 / 6;
        while now - start < Duration::from_secs(60 * minutes) {
            schedule.note(revision(now));
            now += schedule.interval();
            if let Some(target) = schedule.due(now, revision(now)) {
                done.push(((now - start).as_secs() / 60, target));
                schedule.done(now, target);
            }
        }
        done
    }

    #[tokio::test]
    async fn a_period_is_kept_and_a_long_one_compacted_by_the_hour() {
        let ten_minutes = Retention::Time(Duration::from_secs(600));
        assert_eq!(
            compactions(ten_minutes, 31),
            [(11, 10), (21, 110), (31, 210)]
        );
        let day = Retention::Time(Duration::from_secs(24 * 3600));
        let hourly = compactions(day, 27 * 60);
        assert_eq!(hourly.len(), 3, "{hourly:?}");
        assert_eq!(
            (hourly[1].0 - hourly[0].0, hourly[1].1 - hourly[0].1),
            (60, 600)
        );
    }

    #[tokio::test]
    async fn so_many_revisions_are_kept() {
        let hundred = Retention::Revisions(100);
        assert_eq!(
            compactions(hundred, 20),
            [(15, 50), (20, 100)],
            "nothing before there are more than a hundred"
        );
        assert!(Schedule::new(Retention::All, Instant::now()).is_none());
    }
}
