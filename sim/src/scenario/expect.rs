//! What a scenario expects of all its seeds together: `[expect]`.
//!
//! Every property is checked in every run, and one that does not hold fails its seed whatever a scenario says. What is
//! expected here is that something was compared and that something happened: a scenario that hunts a bug of watches
//! over a compaction proves nothing if there never was a compaction.

use std::collections::BTreeMap;

use super::source::ScenarioError;
use super::table::Table;
use crate::check::{Facts, PROPERTIES};
use crate::points::POINTS;

/// What must have been compared and must have happened.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// Checkers that must have compared something, as they were written: names, or beginnings of names with a `*`.
    pub pass: Vec<String>,
    /// Points that must have been reached.
    pub sometimes: Vec<&'static str>,
    /// Kinds of faults that must have been injected.
    pub faults: Vec<&'static str>,
}

/// What the seeds of a scenario came to.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a> {
    /// Facts compared.
    pub facts: &'a Facts,
    /// What happened, by kind.
    pub counts: &'a BTreeMap<&'static str, u64>,
}

impl Expectations {
    pub(super) fn read(
        table: Option<Table<'_>>,
        mut faults: Vec<&'static str>,
    ) -> Result<Self, ScenarioError> {
        faults.sort_unstable();
        faults.dedup();
        let mut expectations = Self {
            faults,
            ..Self::default()
        };
        let Some(mut table) = table else {
            return Ok(expectations);
        };
        if let Some(value) = table.take("pass") {
            let expected = "an array of checkers such as [\"raft.*\", \"linearizable.read\"]";
            for item in value.array(expected)? {
                let pattern = item.text("the name of a checker such as \"watch.*\"")?;
                if checkers(pattern).next().is_none() {
                    let known: Vec<_> = PROPERTIES.iter().map(|(name, _)| *name).collect();
                    return Err(item.error(format!(
                        "found \"{pattern}\", which names no checker, expected some of {}",
                        known.join(", ")
                    )));
                }
                expectations.pass.push(pattern.to_owned());
            }
        }
        if let Some(value) = table.take("sometimes") {
            let points: Vec<_> = POINTS
                .iter()
                .map(|point| (point.name, point.name))
                .collect();
            for item in value.array("an array of points such as [\"leader.changed\"]")? {
                expectations.sometimes.push(item.one_of(&points)?);
            }
        }
        table.finish()?;
        Ok(expectations)
    }

    /// What was expected and is not so.
    pub fn unmet(&self, gathered: &Gathered<'_>) -> Vec<String> {
        let facts: BTreeMap<_, _> = gathered.facts.iter().collect();
        let count = |kind: &str| gathered.counts.get(kind).copied().unwrap_or_default();
        let unchecked = self.pass.iter().flat_map(|pattern| checkers(pattern));
        let unchecked = unchecked
            .filter(|name| facts.get(name).copied().unwrap_or_default() == 0)
            .map(|name| format!("the checker {name} compared nothing"));
        let absent = self.faults.iter().filter(|kind| count(kind) == 0);
        let absent = absent.map(|kind| format!("the fault {kind} was never injected"));
        let unreached = POINTS
            .iter()
            .filter(|point| self.sometimes.contains(&point.name) && count(point.count) == 0);
        let unreached = unreached.map(|point| {
            format!(
                "the point {} was never reached: {}",
                point.name, point.meaning
            )
        });
        unchecked.chain(absent).chain(unreached).collect()
    }
}

/// The checkers that a pattern names.
fn checkers(pattern: &str) -> impl Iterator<Item = &'static str> {
    let names = PROPERTIES.iter().map(|(name, _)| *name);
    names.filter(move |name| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => *name == pattern,
    })
}
