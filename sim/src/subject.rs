//! What a seed is a seed of.

use quorate_sim::options::Options;
use quorate_sim::run::{SeedReport, run_options};
use quorate_sim::scenario::{Concrete, Scenario};

/// What is run.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// Everything is drawn from the seed.
    Drawn,
    /// Three members with etcd's timers and twenty operations a second, with faults: what speed is measured with.
    Standard,
    /// A file.
    Scenario(Box<Scenario>),
}

impl Subject {
    /// The scenario, if it is one.
    pub(crate) fn scenario(&self) -> Option<&Scenario> {
        match self {
            Self::Scenario(scenario) => Some(scenario),
            _ => None,
        }
    }

    /// Why it cannot be run here, if it cannot.
    pub(crate) fn skipped(&self) -> Option<&str> {
        self.scenario()?.skipped_in_simulation.as_deref()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Drawn => "random",
            Self::Standard => "standard",
            Self::Scenario(scenario) => &scenario.name,
        }
    }

    /// What a command line needs to mean it, with a blank before it.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Drawn => String::new(),
            Self::Standard => " --standard".to_owned(),
            Self::Scenario(scenario) => format!(" {}", scenario.file),
        }
    }

    /// What a seed makes of it.
    pub(crate) fn concrete(&self, seed: u64) -> Concrete {
        let of = |options| Concrete {
            options,
            absent: Vec::new(),
        };
        match self {
            Self::Drawn => of(Options::draw(seed)),
            Self::Standard => of(Options::draw_standard(seed)),
            Self::Scenario(scenario) => scenario.concrete(seed),
        }
    }

    /// Runs a seed of it.
    pub(crate) fn run(&self, seed: u64, verbose: bool) -> SeedReport {
        run_options(seed, self.concrete(seed).options, verbose)
    }

    /// The command that shows a seed again.
    pub(crate) fn repro(&self, seed: u64) -> String {
        let argument = self.argument();
        format!("cargo run --release -p quorate-sim -- repro {seed}{argument}")
    }
}
