//! Every file in `scenarios/` can be read, says what it hunts, and holds in its first seed. What only all of its seeds
//! together must come to is judged by `quorate-sim run scenarios/`.

use std::path::Path;

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
}

#[test]
fn each_holds_in_its_first_seed() {
    catch_panics();
    for scenario in all() {
        let report = run_scenario(&scenario, 0, false);
        if let Some(failure) = report.failure {
            let file = format!("scenarios/{}.toml", scenario.name);
            panic!("{failure}\ncargo run --release -p quorate-sim -- repro 0 {file}");
        }
    }
}
