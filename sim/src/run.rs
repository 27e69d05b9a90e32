//! Running seeds: one after the other, each in its own world, a panic being one of the ways in which a seed fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use crate::check::Facts;
use crate::options::Options;
use crate::scenario::Scenario;
use crate::trace::TraceHash;
use crate::world::World;

thread_local! {
    /// What the panic of the seed that runs on this thread said; `None` while none runs.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// The hash of its trace; `None` when it panicked.
    pub hash: Option<TraceHash>,
    /// Events in it.
    pub events: u64,
    /// Simulated time.
    pub simulated_ns: u64,
    /// Facts compared.
    pub facts: Facts,
    /// Faults and other happenings, by kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// What was wrong, if something was.
    pub failure: Option<Failure>,
}

/// Why a seed failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The property that does not hold, or `panic`.
    pub checker: String,
    /// What was seen.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.message)
    }
}

/// Keeps panics of seeds quiet: they are told by the report of their seed. Call it once, before the first seed.
pub fn catch_panics() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |information| {
        let is_seed = PANIC.with_borrow_mut(|said| {
            if let Some(said) = said {
                *said = information.to_string().replace('\n', " ");
            }
            said.is_some()
        });
        if !is_seed {
            others(information);
        }
    }));
}

/// Runs a seed with the options that it draws.
pub fn run_seed(seed: u64, verbose: bool) -> SeedReport {
    run_options(seed, Options::draw(seed), verbose)
}

/// Runs a seed of a scenario.
pub fn run_scenario(scenario: &Scenario, seed: u64, verbose: bool) -> SeedReport {
    run_options(seed, scenario.options(seed), verbose)
}

/// Runs a seed with these options.
pub fn run_options(seed: u64, options: Options, verbose: bool) -> SeedReport {
    let run = AssertUnwindSafe(|| World::new(seed, options, verbose).run());
    PANIC.set(Some(String::new()));
    let outcome = panic::catch_unwind(run);
    let said = PANIC.take().unwrap_or_default();
    match outcome {
        Ok(outcome) => SeedReport {
            seed,
            hash: Some(outcome.hash),
            events: outcome.events,
            simulated_ns: outcome.simulated_ns,
            facts: outcome.facts,
            counts: outcome.counts,
            failure: outcome.violation.map(|violation| Failure {
                checker: violation.property.to_owned(),
                message: shortened(&violation.detail),
            }),
        },
        Err(_) => SeedReport {
            seed,
            hash: None,
            events: 0,
            simulated_ns: 0,
            facts: Facts::new(),
            counts: BTreeMap::new(),
            failure: Some(Failure {
                checker: "panic".to_owned(),
                message: shortened(&said),
            }),
        },
    }
}

/// A failure's text, not longer than a screen.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 1500;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text.to_owned(),
    }
}
