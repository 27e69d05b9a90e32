//! Some hundred seeds as plain tests: everything holds, everything is looked at, and twice the same.

use std::collections::BTreeMap;

use quorate_sim::check::{Facts, PROPERTIES};
use quorate_sim::run::{SeedReport, catch_panics, run_seed};

/// Seeds of the plain test. They run in a debug build, so they are few; `quorate-sim run` takes as many as one likes.
const SEEDS: u64 = 200;
/// Seeds that run a second time.
const TWICE_EVERY: u64 = 20;

/// Runs every `step`-th seed, on two threads; each run is alone in its own.
fn run(step: u64) -> Vec<SeedReport> {
    let part = |rest: u64| {
        let mine = (rest * step..SEEDS).step_by(2 * step as usize);
        mine.map(|seed| run_seed(seed, false)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| part(1));
        let mut reports = part(0);
        reports.extend(other.join().expect("panics are caught by seed"));
        reports
    })
}

#[test]
fn every_property_holds_and_is_looked_at() {
    catch_panics();
    let (mut facts, mut counts) = (Facts::new(), BTreeMap::new());
    let mut hashes = BTreeMap::new();
    for report in run(1) {
        let seed = report.seed;
        if let Some(failure) = report.failure {
            panic!("seed {seed}: {failure}\ncargo run --release -p quorate-sim -- repro {seed}");
        }
        facts.add(&report.facts);
        hashes.insert(seed, report.hash);
        for (kind, count) in report.counts {
            *counts.entry(kind).or_insert(0) += count;
        }
    }
    assert_eq!(facts.iter().count(), PROPERTIES.len());
    for (name, count) in facts.iter() {
        assert!(count > 0, "{name} was never looked at");
    }
    for (kind, count) in counts {
        assert!(count > 0, "{kind} never happened");
    }
    for report in run(TWICE_EVERY) {
        assert_eq!(
            Some(&report.hash),
            hashes.get(&report.seed),
            "seed {} differs",
            report.seed
        );
    }
}
