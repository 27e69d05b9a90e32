//! Running many seeds of many scenarios, on as many threads as asked for. A run itself has no threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use quorate_sim::run::SeedReport;

use crate::subject::Subject;

/// What is to be run.
pub(crate) struct Batch<'a> {
    pub(crate) subjects: &'a [Subject],
    /// The seeds of each of them.
    pub(crate) seeds: std::ops::Range<u64>,
    /// How many run at the same time.
    pub(crate) jobs: usize,
    /// No run begins later.
    pub(crate) time_limit: Option<Duration>,
    /// Whether no run begins after one has failed.
    pub(crate) stops_at_failure: bool,
}

/// A run that is over.
pub(crate) struct Ran {
    /// The place of its subject.
    pub(crate) subject: usize,
    pub(crate) report: SeedReport,
    pub(crate) wall: Duration,
    /// For how long it had a core, where the system tells.
    pub(crate) busy: Option<Duration>,
}

impl Batch<'_> {
    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.subjects.len() * (self.seeds.end - self.seeds.start) as usize
    }

    /// Runs all, subject by subject. What is over is taken in the order in which it ends.
    pub(crate) fn run(&self, mut take: impl FnMut(Ran)) {
        let begun = Instant::now();
        let next = AtomicUsize::new(0);
        let is_late = || {
            self.time_limit
                .is_some_and(|limit| begun.elapsed() >= limit)
        };
        std::thread::scope(|scope| {
            let (done, over) = channel();
            for _ in 0..self.jobs {
                let (done, next, is_late) = (done.clone(), &next, &is_late);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.len() || is_late() || done.send(self.one(number)).is_err()
                        {
                            break;
                        }
                    }
                });
            }
            drop(done);
            for ran in &over {
                let is_last = self.stops_at_failure && ran.report.failure.is_some();
                take(ran);
                if is_last {
                    break;
                }
            }
        });
    }

    fn one(&self, number: usize) -> Ran {
        let seeds = (self.seeds.end - self.seeds.start) as usize;
        let (subject, seed) = (number / seeds, self.seeds.start + (number % seeds) as u64);
        let (begun, busy_before) = (Instant::now(), busy());
        let report = self.subjects[subject].run(seed, false);
        let busy = busy_before.zip(busy());
        Ran {
            subject,
            report,
            wall: begun.elapsed(),
            busy: busy.map(|(before, after)| after - before),
        }
    }
}

/// For how long this thread has had a core: what speed is told by, since other programs do not matter to it.
fn busy() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
