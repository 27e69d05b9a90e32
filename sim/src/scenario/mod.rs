//! Scenarios: files that say what a cluster has to go through, and what must hold and happen on the way.
//!
//! A scenario and a seed make the options of a run, as a pure function: whatever a file leaves open (`[first, last]`,
//! `{ one_of = [..] }`, a share `p` of the seeds) is drawn from the seed. Reading is strict: what is not known, does not
//! fit or cannot be is an error that names file, line and column. The format is described in `scenarios/README.md`.
//!
//! ```text
//!   text ─► TOML with places ─► table.rs: strict tables ─► settings, load, faults, expectations ─► + seed ─► Options
//! ```

mod draw;
mod expect;
mod fault;
mod files;
mod load;
mod plan;
mod settings;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod when;

use toml::de::DeTable;

use draw::Draws;
use fault::{FaultSpec, Surroundings};
use load::LoadSpec;
use plan::SwarmSpec;
use settings::{Base, Settings};
use source::Source;
use table::Table;
use when::Names;

use crate::options::Options;

pub use expect::{Expectations, Gathered};
pub use files::{find, read};
pub use source::ScenarioError;

/// The version of the format that this reads.
const FORMAT: i64 = 1;

/// A scenario that makes sense.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, which is that of its file.
    pub name: String,
    /// The file that it was read from, as the user named it.
    pub file: String,
    /// What its first comment says: what it hunts.
    pub about: String,
    /// Why the simulation cannot run it, if it cannot.
    pub skipped_in_simulation: Option<String>,
    /// Why the shell tier cannot run it, if it cannot.
    pub skipped_in_shell: Option<String>,
    /// What must hold and happen over its seeds.
    pub expectations: Expectations,
    settings: Settings,
    loads: Vec<LoadSpec>,
    faults: Vec<FaultSpec>,
    swarm: Option<SwarmSpec>,
}

/// What a seed makes of a scenario.
#[derive(Clone, Debug)]
pub struct Concrete {
    /// The options of the run.
    pub options: Options,
    /// Faults that this seed does without.
    pub absent: Vec<String>,
}

impl Scenario {
    /// Reads a scenario. `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let source = Source { file, text };
        let parsed = DeTable::parse(text).map_err(|error| {
            let message = error.message().replace('\n', ", ");
            source.error(error.span().unwrap_or(0..0), message)
        })?;
        let root = Table::new(&source, "a scenario", 0..0, parsed.get_ref());
        Self::read_table(&source, root)
    }

    fn read_table<'s>(source: &Source<'s>, mut root: Table<'s>) -> Result<Self, ScenarioError> {
        let format = root.require("format", "`format = 1`")?;
        let expected = units::Unit::Count(FORMAT, FORMAT);
        format.number(expected).map_err(|_| {
            format.unexpected("1, the only version of the format that is known here")
        })?;
        let name = root.require("name", "the name of the scenario")?;
        let name = name.text("the name of the scenario")?.to_owned();
        let bases = [("steady", Base::Steady), ("swarm", Base::Swarm)];
        let base = root.take("base").map(|value| value.one_of(&bases));
        let base = base.transpose()?.unwrap_or(Base::Steady);
        let settings = Settings::read(base, &mut root)?;
        let loads = root.tables("load")?;
        let loads = loads.into_iter().map(LoadSpec::read);
        let loads = loads.collect::<Result<Vec<_>, _>>()?;
        let faults = read_faults(&settings, root.tables("fault")?)?;
        let swarm = root.table("swarm")?.map(SwarmSpec::read).transpose()?;
        let mut kinds: Vec<_> = faults.iter().map(FaultSpec::kind_name).collect();
        kinds.extend(swarm.iter().flat_map(|swarm| swarm.kinds.iter().copied()));
        let expectations = Expectations::read(root.table("expect")?, kinds)?;
        let (mut simulation, mut shell) = (None, None);
        if let Some(mut skip) = root.table("skip")? {
            let reason = |value: table::Value<'_>| value.text("a reason").map(str::to_owned);
            simulation = skip.take("simulation").map(reason).transpose()?;
            shell = skip.take("shell").map(reason).transpose()?;
            skip.finish()?;
        }
        let no_load = root.error("found no [[load]], expected at least one");
        root.finish()?;
        if loads.is_empty() {
            return Err(no_load);
        }
        Ok(Self {
            name,
            file: source.file.to_owned(),
            about: first_comment(source.text),
            skipped_in_simulation: simulation,
            skipped_in_shell: shell,
            expectations,
            settings,
            loads,
            faults,
            swarm,
        })
    }

    /// The options of a seed.
    pub fn options(&self, seed: u64) -> Options {
        self.concrete(seed).options
    }

    /// What a seed makes of it.
    pub fn concrete(&self, seed: u64) -> Concrete {
        let draws = Draws::new(seed);
        let mut options = self.settings.options(seed, draws);
        let groups = (1..).zip(&self.loads);
        let groups = groups.map(|(number, load)| load.group(draws, &format!("load.{number}")));
        options.load.groups = groups.collect();
        let (plan, absent) = plan::plan(&self.faults, draws, options.safety_ns);
        options.plan = plan;
        if let Some(swarm) = &self.swarm {
            let more = swarm.plan(draws, options.members, options.safety_ns);
            options.plan.extend(more);
        }
        Concrete { options, absent }
    }
}

fn read_faults(
    settings: &Settings,
    tables: Vec<Table<'_>>,
) -> Result<Vec<FaultSpec>, ScenarioError> {
    let mut faults: Vec<FaultSpec> = Vec::new();
    let mut ids = Vec::new();
    for table in tables {
        let around = Surroundings {
            names: Names {
                members: settings.members_least(),
                faults: &ids,
            },
            safety_ns: settings.safety_most_ns(),
        };
        let fault = FaultSpec::read(table, &around)?;
        ids.push(fault.id.clone());
        faults.push(fault);
    }
    Ok(faults)
}

/// The comment that a file begins with, as one line.
fn first_comment(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}
