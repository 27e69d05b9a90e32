//! What a set of seeds came to, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_sim::check::{Facts, PROPERTIES};
use quorate_sim::run::SeedReport;
use serde_json::json;

/// From so many seeds on, a property without a single fact is a failure.
const SEEDS_FOR_FACTS: u64 = 200;

/// The sum over a set of seeds.
#[derive(Debug)]
pub(crate) struct Summary {
    wanted: u64,
    seeds: u64,
    events: u64,
    simulated_ns: u64,
    facts: Facts,
    counts: BTreeMap<&'static str, u64>,
    /// Failures by seed.
    failures: BTreeMap<u64, String>,
}

impl Summary {
    /// The sum over no seeds, of so many to come.
    pub(crate) fn new(wanted: u64) -> Self {
        Self {
            wanted,
            seeds: 0,
            events: 0,
            simulated_ns: 0,
            facts: Facts::new(),
            counts: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Adds a seed.
    pub(crate) fn add(&mut self, report: SeedReport) {
        self.seeds += 1;
        self.events += report.events;
        self.simulated_ns += report.simulated_ns;
        self.facts.add(&report.facts);
        for (kind, count) in report.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        if let Some(failure) = report.failure {
            self.failures.insert(report.seed, failure);
        }
    }

    /// Whether every property held, and was looked at.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && self.unchecked().is_empty()
    }

    /// Properties that nothing was compared for although there were seeds enough.
    fn unchecked(&self) -> Vec<&'static str> {
        if self.seeds < SEEDS_FOR_FACTS {
            return Vec::new();
        }
        let empty = self.facts.iter().filter(|(_, count)| *count == 0);
        empty.map(|(name, _)| name).collect()
    }

    /// Tells of a failure as soon as it is known; the last line reproduces it.
    pub(crate) fn show_failure(&self, report: &SeedReport) {
        if let Some(failure) = &report.failure {
            println!(
                "seed {} FAILS: {failure}\n  {}",
                report.seed,
                repro(report.seed)
            );
        }
    }

    /// One line on the way.
    pub(crate) fn show_progress(&self, elapsed: Duration) {
        let rate = self.seeds as f64 / elapsed.as_secs_f64();
        let (seeds, wanted, failed) = (self.seeds, self.wanted, self.failures.len());
        eprintln!("{seeds} of {wanted} seeds, {rate:.1} a second, {failed} failed");
    }

    /// The whole report.
    pub(crate) fn print(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let simulated = self.simulated_ns as f64 / 1e9;
        println!("faults and other happenings:");
        for (kind, count) in &self.counts {
            println!("  {count:>12}  {kind}");
        }
        println!("facts compared:");
        let meanings: BTreeMap<_, _> = PROPERTIES.iter().copied().collect();
        for (name, count) in self.facts.iter() {
            println!("  {count:>12}  {name}: {}", meanings[name]);
        }
        for name in self.unchecked() {
            println!("{name} was never looked at");
        }
        println!(
            "{} seeds in {seconds:.1} s ({:.1} a second), {} events, {simulated:.0} simulated cluster-seconds ({:.0} a second), {} failed",
            self.seeds,
            self.seeds as f64 / seconds,
            self.events,
            simulated / seconds,
            self.failures.len(),
        );
        for (seed, failure) in &self.failures {
            println!("seed {seed} FAILS: {failure}");
        }
        if let Some(seed) = self.failures.keys().next() {
            println!("{}", repro(*seed));
        }
    }

    /// The same as one JSON object.
    pub(crate) fn print_json(&self, elapsed: Duration) {
        let facts: BTreeMap<_, _> = self.facts.iter().collect();
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|(seed, failure)| json!({"seed": seed, "failure": failure, "repro": repro(*seed)}))
            .collect();
        let report = json!({
            "seeds": self.seeds,
            "events": self.events,
            "seconds": elapsed.as_secs_f64(),
            "simulated_seconds": self.simulated_ns as f64 / 1e9,
            "happenings": self.counts,
            "facts": facts,
            "unchecked": self.unchecked(),
            "failures": failures,
        });
        println!("{report}");
    }
}

/// The command that shows a seed again.
pub(crate) fn repro(seed: u64) -> String {
    format!("cargo run --release -p quorate-sim -- repro {seed}")
}
