//! Every file in `scenarios/` can be read, says what it hunts, and holds in its first seed. What only all of its seeds
//! together must come to is judged by `quorate-sim run scenarios/`.

use std::path::Path;

use quorate_sim::plan::{ALTERED, KINDS};
use quorate_sim::run::{catch_panics, run_scenario};
use quorate_sim::scenario::{self, Scenario};

fn all() -> Vec<Scenario> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let found = scenario::find(&directory.display().to_string());
    found.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn each_says_what_it_hunts_and_what_must_happen() {
    let all = all();
    for scenario in &all {
        let name = &scenario.name;
        assert!(
            scenario.about.len() > 120,
            "{name} says too little: {}",
            scenario.about
        );
        assert!(
            !scenario.expectations.pass.is_empty(),
            "{name} names no checker"
        );
        assert!(
            !scenario.expectations.sometimes.is_empty(),
            "{name} names no point"
        );
    }
    for kind in KINDS.iter().chain([&ALTERED]) {
        let asks = |scenario: &Scenario| {
            let is_mixture = scenario.name == "everything";
            scenario.expectations.faults.contains(kind) && !is_mixture
        };
        assert!(all.iter().any(asks), "no scenario is about {kind}");
    }
}

#[test]
fn each_holds_in_its_first_seed() {
    catch_panics();
    let all = all();
    // On two threads; each run is alone in its own.
    std::thread::scope(|scope| {
        let (even, odd) = (all.iter().step_by(2), all.iter().skip(1).step_by(2));
        let other = scope.spawn(|| odd.for_each(first_seed_holds));
        even.for_each(first_seed_holds);
        if let Err(panic) = other.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn first_seed_holds(scenario: &Scenario) {
    let report = run_scenario(scenario, 0, false);
    if let Some(failure) = report.failure {
        let file = format!("scenarios/{}.toml", scenario.name);
        panic!("{failure}\ncargo run --release -p quorate-sim -- repro 0 {file}");
    }
}
