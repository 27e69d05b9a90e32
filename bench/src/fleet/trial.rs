//! Steps in a row, under load: each is timed, ends with all members alike, and says how long nobody could write.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use super::api;
use super::crew::Crew;
use super::network::Network;
use super::{Fleet, Server};
use crate::patience::until;
use crate::recorded::judge::{Agreed, agree};
use crate::recorded::{Tail, judge};

/// The load of a trial, and where its traces go.
#[derive(Args, Clone)]
pub(crate) struct Load {
    /// Where the members keep their data; must not exist. A temporary directory by default.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// How many clients each member has.
    #[arg(long, default_value_t = 2)]
    clients: usize,
    /// How long a client rests after each operation, in milliseconds.
    #[arg(long, default_value_t = 10)]
    rest: u64,
    /// The seed of the load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what the clients saw into this file, one operation a line, as `quorate-sim judge` reads it. The
    /// server's name is added to the file's.
    #[arg(long)]
    history: Option<PathBuf>,
}

/// What one step took.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) step: String,
    pub(crate) took: Duration,
    /// The longest time in which no client's value was written.
    pub(crate) unavailable: Duration,
}

/// A cluster that goes through steps.
pub(crate) struct Trial {
    pub(crate) fleet: Fleet,
    pub(crate) tail: Tail,
    pub(crate) rows: Vec<Row>,
    directory: PathBuf,
    is_temporary: bool,
    history: Option<PathBuf>,
}

impl Trial {
    /// Founds a cluster of some members, and load on it.
    pub(crate) async fn begin(
        load: &Load,
        server: &Server,
        size: usize,
        network: Option<std::rc::Rc<Network>>,
    ) -> Result<Self, String> {
        let name = format!("quorate-trial-{}", std::process::id());
        let temporary = std::env::temp_dir().join(name);
        let directory = load.directory.clone().unwrap_or(temporary);
        let directory = directory.with_added_extension(&server.name);
        std::fs::create_dir(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let crew = Crew::new(load.clients, Duration::from_millis(load.rest), load.seed);
        let tail = Tail::start(Arc::clone(&crew.present));
        let mut trial = Self {
            fleet: Fleet::new(&directory, network, crew),
            tail,
            rows: Vec::new(),
            directory,
            is_temporary: load.directory.is_none(),
            history: load
                .history
                .as_ref()
                .map(|file| file.with_added_extension(&server.name)),
        };
        let founded = trial.fleet.found(server, size).await;
        founded.map_err(|error| trial.blame(&error))?;
        trial.forget_pauses().await?;
        println!(
            "{}: {size} member(s), {} clients each",
            server.name, load.clients
        );
        println!(
            "  {:<44} {:>9} {:>15}   HashKV of all",
            "step", "time", "without a write"
        );
        Ok(trial)
    }

    /// One step. Afterwards all members serve and agree, and clients write.
    pub(crate) async fn step(
        &mut self,
        name: &str,
        work: impl AsyncFnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let began = Instant::now();
        let outcome = match work(self).await {
            Ok(()) => self.settle().await,
            Err(error) => Err(error),
        };
        let agreed = outcome.map_err(|error| self.blame(&format!("{name}: {error}")))?;
        let now = Instant::now();
        let pulse = &self.fleet.crew.shared.pulse;
        let row = Row {
            step: name.to_string(),
            took: began.elapsed(),
            unavailable: pulse.lock().expect("no panic").take_longest(now),
        };
        println!(
            "  {:<44} {:>7.1} s {:>12.0} ms   {:08x}",
            row.step,
            row.took.as_secs_f64(),
            row.unavailable.as_secs_f64() * 1000.0,
            agreed.hash
        );
        self.rows.push(row);
        Ok(())
    }

    /// Waits until values are written, and does not count what was before in any step.
    pub(crate) async fn forget_pauses(&mut self) -> Result<(), String> {
        self.wait_until_written().await?;
        let pulse = &self.fleet.crew.shared.pulse;
        pulse.lock().expect("no panic").take_longest(Instant::now());
        Ok(())
    }

    /// Waits until a client has a value written: a pause that is under way has ended.
    async fn wait_until_written(&self) -> Result<(), String> {
        let pulse = &self.fleet.crew.shared.pulse;
        let beats = || pulse.lock().expect("no panic").beats();
        let before = beats();
        until("clients write", async || {
            if beats() == before {
                return Err("nothing is written".to_string());
            }
            Ok(())
        })
        .await
    }

    async fn settle(&mut self) -> Result<Agreed, String> {
        self.fleet.wait_until_all_serve().await?;
        self.fleet.died()?;
        self.wait_until_written().await?;
        let urls = self.fleet.urls();
        let revision = api::revision(&urls).await?;
        agree(&urls, revision).await
    }

    /// Ends the load and has everything judged. `true` if it holds.
    pub(crate) async fn finish(mut self) -> Result<bool, String> {
        self.fleet.crew.end().await?;
        let urls = self.fleet.urls();
        let shared = Arc::clone(&self.fleet.crew.shared);
        let file = self.history.as_deref();
        let verdict = judge(&urls, &shared, Some(&mut self.tail), file).await;
        let longest = self.rows.iter().max_by_key(|row| row.unavailable);
        if let Some(row) = longest {
            let ms = row.unavailable.as_secs_f64() * 1000.0;
            println!("  longest time without a write: {ms:.0} ms ({})", row.step);
        }
        println!(
            "  requests without an answer: {} refused, {} of unknown outcome",
            shared.failed.load(Ordering::Relaxed),
            shared.unknown.load(Ordering::Relaxed)
        );
        match verdict {
            Ok(report) => {
                println!("  {report}");
                drop(self.fleet);
                if self.is_temporary {
                    let _ = std::fs::remove_dir_all(&self.directory);
                }
                Ok(true)
            }
            Err(violation) => {
                let text = self.blame(&violation);
                println!("VIOLATION {text}");
                Ok(false)
            }
        }
    }

    fn blame(&self, error: &str) -> String {
        format!("{error}\ndata and logs are in {}", self.directory.display())
    }
}

/// Two clusters' rows side by side, the second being the measure.
pub(crate) fn table(ours: &[Row], theirs: &[Row], names: [&str; 2]) -> String {
    let mut text = format!(
        "  {:<44} {:>14} {:>14} {:>7}\n",
        "longest time without a write", names[0], names[1], "ratio"
    );
    for row in ours {
        let Some(other) = theirs.iter().find(|other| other.step == row.step) else {
            continue;
        };
        let ms = |row: &Row| row.unavailable.as_secs_f64() * 1000.0;
        text += &format!(
            "  {:<44} {:>11.0} ms {:>11.0} ms {:>7.2}\n",
            row.step,
            ms(row),
            ms(other),
            ms(row) / ms(other).max(0.001)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: &str, ms: u64) -> Row {
        Row {
            step: step.to_string(),
            took: Duration::ZERO,
            unavailable: Duration::from_millis(ms),
        }
    }

    #[test]
    fn the_table_compares_steps_that_both_have_gone_through() {
        let ours = [row("grow", 30), row("cut", 1)];
        let theirs = [row("lose", 5), row("grow", 60)];
        let table = table(&ours, &theirs, ["quorate", "etcd"]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        let words: Vec<_> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["grow", "30", "ms", "60", "ms", "0.50"]);
    }
}
