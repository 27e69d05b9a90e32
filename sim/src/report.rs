//! What a set of runs came to, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_sim::check::{Facts, PROPERTIES};
use quorate_sim::plan::{ALTERED, KINDS};
use quorate_sim::points;
use quorate_sim::run::SeedReport;
use quorate_sim::scenario::{Gathered, Scenario};

use crate::batch::{Batch, Ran};
use crate::cli::say;
use crate::subject::Subject;

/// From so many random seeds on, a property without a single fact and a fault that was never injected are failures.
const SEEDS_FOR_FACTS: u64 = 200;
/// How wide lists are printed.
const WIDTH: usize = 118;

/// The sum over all runs of a batch.
pub(crate) struct Report<'a> {
    batch: &'a Batch<'a>,
    /// One for each subject.
    summaries: Vec<Summary>,
}

/// The sum over the seeds of one subject.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) seeds: u64,
    pub(crate) events: u64,
    pub(crate) simulated_ns: u64,
    pub(crate) wall: Duration,
    /// For how long its runs had a core.
    pub(crate) busy: Duration,
    pub(crate) facts: Facts,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Failures by seed.
    pub(crate) failures: BTreeMap<u64, String>,
    /// What was expected of all seeds together and is not so.
    pub(crate) unmet: Vec<String>,
}

impl Summary {
    fn add(&mut self, report: SeedReport, wall: Duration, busy: Option<Duration>) {
        self.seeds += 1;
        self.events += report.events;
        self.simulated_ns += report.simulated_ns;
        self.wall += wall;
        self.busy += busy.unwrap_or_default();
        self.facts.add(&report.facts);
        for (kind, count) in report.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        if let Some(failure) = report.failure {
            self.failures.insert(report.seed, failure.to_string());
        }
    }

    fn include(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.simulated_ns += other.simulated_ns;
        self.busy += other.busy;
        self.facts.add(&other.facts);
        for (kind, count) in &other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
    }

    /// Faults injected, by kind.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |kind: &&str| self.counts.get(kind).copied().unwrap_or_default();
        let kinds = KINDS.iter().chain([&ALTERED]);
        kinds.map(move |kind| (*kind, count(kind)))
    }

    fn facts_total(&self) -> u64 {
        self.facts.iter().map(|(_, count)| count).sum()
    }

    fn faults_total(&self) -> u64 {
        self.faults().map(|(_, count)| count).sum()
    }

    /// What was expected of random runs and is not so.
    fn unmet_at_random(&self) -> Vec<String> {
        if self.seeds < SEEDS_FOR_FACTS {
            return Vec::new();
        }
        let empty = self.facts.iter().filter(|(_, count)| *count == 0);
        let empty = empty.map(|(name, _)| format!("the checker {name} compared nothing"));
        let absent = self.faults().filter(|(_, count)| *count == 0);
        let absent = absent.map(|(kind, _)| format!("the fault {kind} was never injected"));
        empty.chain(absent).collect()
    }
}

impl<'a> Report<'a> {
    /// The sum over no runs.
    pub(crate) fn new(batch: &'a Batch<'a>) -> Self {
        let summary = |_| Summary {
            facts: Facts::new(),
            ..Summary::default()
        };
        Self {
            batch,
            summaries: batch.subjects.iter().map(summary).collect(),
        }
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, ran: Ran) {
        let seeds = self.batch.seeds.end - self.batch.seeds.start;
        let summary = &mut self.summaries[ran.subject];
        summary.add(ran.report, ran.wall, ran.busy);
        if summary.seeds < seeds {
            return;
        }
        // Only all seeds together can be asked for what they should have come to.
        summary.unmet = match &self.batch.subjects[ran.subject] {
            Subject::Drawn => summary.unmet_at_random(),
            Subject::Scenario(scenario) if summary.failures.is_empty() => {
                scenario.expectations.unmet(&Gathered {
                    facts: &summary.facts,
                    counts: &summary.counts,
                })
            }
            _ => Vec::new(),
        };
    }

    /// Whether everything held, and was looked at.
    pub(crate) fn is_good(&self) -> bool {
        let is_good = |summary: &Summary| summary.failures.is_empty() && summary.unmet.is_empty();
        self.summaries.iter().all(is_good)
    }

    /// Each subject with its sum.
    pub(crate) fn each_summary(&self, mut take: impl FnMut(&Subject, &Summary)) {
        for (subject, summary) in self.batch.subjects.iter().zip(&self.summaries) {
            take(subject, summary);
        }
    }

    /// Tells of a failure as soon as it is known; the last line reproduces it.
    pub(crate) fn show_failure(&self, subject: &Subject, report: &SeedReport) {
        if let Some(failure) = &report.failure {
            say(format_args!(
                "{} seed {} FAILS: {failure}",
                subject.name(),
                report.seed
            ));
            say(format_args!("  {}", subject.repro(report.seed)));
        }
    }

    fn total(&self) -> Summary {
        let mut total = Summary::default();
        self.summaries
            .iter()
            .for_each(|summary| total.include(summary));
        total
    }

    fn failed(&self) -> usize {
        let failed = self.summaries.iter().map(|summary| summary.failures.len());
        failed.sum()
    }

    /// One line on the way.
    pub(crate) fn show_progress(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let total = self.total();
        eprintln!(
            "{} of {} seeds, {:.1} a second, {:.0} simulated seconds a second, {} faults injected, {} facts checked, {} failed",
            total.seeds,
            self.batch.len(),
            total.seeds as f64 / seconds,
            total.simulated_ns as f64 / 1e9 / seconds,
            total.faults_total(),
            total.facts_total(),
            self.failed(),
        );
    }

    /// The whole report, but for the verdict.
    pub(crate) fn print(&self, elapsed: Duration) {
        self.each_summary(|subject, summary| match subject {
            Subject::Scenario(scenario) => print_scenario(scenario, summary),
            _ => print_random(summary),
        });
        let mut subjects = self.batch.subjects.iter();
        if subjects.any(|subject| subject.scenario().is_some()) {
            self.print_table();
        }
        let seconds = elapsed.as_secs_f64();
        let total = self.total();
        let simulated = total.simulated_ns as f64 / 1e9;
        say(format_args!(
            "{} seeds in {seconds:.1} s ({:.1} a second), {} events, {simulated:.0} simulated cluster-seconds ({:.0} a second), {} faults, {} facts, {} failed",
            total.seeds,
            total.seeds as f64 / seconds,
            total.events,
            simulated / seconds,
            total.faults_total(),
            total.facts_total(),
            self.failed(),
        ));
        let busy = total.busy.as_secs_f64();
        if busy > 0.0 {
            say(format_args!(
                "{:.0} simulated cluster-seconds in a second of a core, which the runs had for {busy:.1} s",
                simulated / busy
            ));
        }
        if (total.seeds as usize) < self.batch.len() {
            say(
                "the other seeds did not begin; what is expected of all seeds was not judged where some are missing",
            );
        }
    }

    fn print_table(&self) {
        say(format_args!(
            "\n{:<36} {:>6} {:>10} {:>8} {:>8} {:>10} {:>10}  verdict",
            "scenario", "seeds", "events", "sim s", "faults", "facts", "sometimes"
        ));
        self.each_summary(|subject, summary| {
            let Some(scenario) = subject.scenario() else {
                return;
            };
            let wanted = &scenario.expectations.sometimes;
            let reached = points::reached(&summary.counts);
            let reached = reached.filter(|(name, count)| *count > 0 && wanted.contains(name));
            let verdict = match (summary.failures.len(), summary.unmet.len()) {
                (0, 0) => "holds".to_owned(),
                (0, unmet) => format!("{unmet} UNMET"),
                (failed, _) => format!("{failed} FAILED"),
            };
            say(format_args!(
                "{:<36} {:>6} {:>10} {:>8.0} {:>8} {:>10} {:>10}  {verdict}",
                scenario.name,
                summary.seeds,
                summary.events,
                summary.simulated_ns as f64 / 1e9,
                summary.faults_total(),
                summary.facts_total(),
                format!("{} of {}", reached.count(), wanted.len()),
            ));
        });
    }

    /// What was wrong; the last line reproduces the first failure.
    pub(crate) fn print_verdict(&self) {
        let mut first = None;
        self.each_summary(|subject, summary| {
            let (name, range) = (subject.name(), &self.batch.seeds);
            for unmet in &summary.unmet {
                let range = format!("{}..{}", range.start, range.end);
                say(format_args!("{name}: {unmet} in the seeds {range}"));
                let argument = subject.argument();
                first.get_or_insert(format!(
                    "cargo run --release -p quorate-sim -- run{argument} --seeds {range}"
                ));
            }
            for (seed, failure) in &summary.failures {
                say(format_args!("{name}: seed {seed} FAILS: {failure}"));
            }
            if let Some(seed) = summary.failures.keys().next() {
                first.get_or_insert(subject.repro(*seed));
            }
        });
        if let Some(command) = first {
            say(command);
        }
    }
}

fn print_random(summary: &Summary) {
    say("faults and other happenings:");
    for (kind, count) in &summary.counts {
        say(format_args!("  {count:>12}  {kind}"));
    }
    say("facts compared:");
    let meanings: BTreeMap<_, _> = PROPERTIES.iter().copied().collect();
    for (name, count) in summary.facts.iter() {
        say(format_args!("  {count:>12}  {name}: {}", meanings[name]));
    }
}

fn print_scenario(scenario: &Scenario, summary: &Summary) {
    say(format_args!(
        "{}: {} seeds, {} events, {:.0} s simulated",
        scenario.name,
        summary.seeds,
        summary.events,
        summary.simulated_ns as f64 / 1e9
    ));
    let asked = |kind: &str| scenario.expectations.faults.contains(&kind);
    let faults = summary.faults();
    print_list(
        "faults",
        faults.filter(|(kind, count)| *count > 0 || asked(kind)),
    );
    print_list(
        "facts",
        summary.facts.iter().filter(|(_, count)| *count > 0),
    );
    let reached = points::reached(&summary.counts);
    let wanted = &scenario.expectations.sometimes;
    print_list(
        "sometimes",
        reached.filter(|(name, _)| wanted.contains(name)),
    );
}

/// Names with numbers, under a title, in lines that are not too long.
fn print_list<'n>(title: &str, items: impl Iterator<Item = (&'n str, u64)>) {
    let mut line = format!("  {title:<10}");
    let indent = line.len();
    for (position, (name, count)) in items.enumerate() {
        let item = format!("{name} {count}");
        if line.len() + 2 + item.len() > WIDTH {
            say(format_args!("{line},"));
            line = " ".repeat(indent);
        } else if position > 0 {
            line.push(',');
        }
        line.push(' ');
        line.push_str(&item);
    }
    if line.len() > indent {
        say(line);
    }
}
