//! What the command runs: seeds of scenarios, or of nothing but themselves.

use std::collections::BTreeMap;

use quorate_sim::scenario;

use crate::scenario::options;

/// The runs of a command.
pub(crate) struct Subjects {
    /// Each with its seed and its scenario's file.
    pub(crate) runs: Vec<(u64, Option<String>)>,
    /// Scenarios of which at least one seed is not run, with how many and the reason of the first.
    skipped: Vec<(String, u64, String)>,
    /// Faults that the scenarios ask for where they are run.
    faults: Vec<&'static str>,
}

impl Subjects {
    /// All seeds of the scenarios of these paths, as far as this tier can run them.
    pub(crate) fn find(paths: &[String], seeds: (u64, u64)) -> Result<Self, String> {
        let mut subjects = Self {
            runs: Vec::new(),
            skipped: Vec::new(),
            faults: Vec::new(),
        };
        if paths.is_empty() {
            subjects.runs = (seeds.0..seeds.1).map(|seed| (seed, None)).collect();
            return Ok(subjects);
        }
        for path in paths {
            for scenario in scenario::find(path).map_err(|error| error.to_string())? {
                let (mut count, mut reason) = (0, None);
                for seed in seeds.0..seeds.1 {
                    match options(&scenario, seed) {
                        Ok(_) => subjects.runs.push((seed, Some(scenario.file.clone()))),
                        Err(why) => {
                            count += 1;
                            reason.get_or_insert(why);
                        }
                    }
                }
                if count == 0 {
                    subjects.faults.extend(&scenario.expectations.faults);
                }
                if let Some(reason) = reason {
                    subjects.skipped.push((scenario.name, count, reason));
                }
            }
        }
        Ok(subjects)
    }

    /// Says what was not run, and why.
    pub(crate) fn tell_skipped(&self) {
        for (name, seeds, reason) in &self.skipped {
            println!("{name}: {seeds} seeds skipped: {reason}");
        }
    }

    /// Faults that were asked for and never injected.
    pub(crate) fn never_injected(&self, injected: &BTreeMap<String, u64>) -> Vec<&'static str> {
        let mut absent: Vec<_> = self.faults.clone();
        absent.retain(|kind| injected.get(*kind).copied().unwrap_or_default() == 0);
        absent.sort_unstable();
        absent.dedup();
        absent
    }
}
