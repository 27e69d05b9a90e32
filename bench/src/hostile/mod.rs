//! Hostile clients against one member that others use at the same time.
//!
//! ```text
//!   well-behaved clients ─────────────────────────────►  how long their calls take
//!   (nothing) │ attack 1 │ (rest) │ attack 2 │ …      ►  memory, and whether the member lives and serves
//! ```
//!
//! The same goes on against a second server, whose figures are the measure. What fails is a member that dies, or that does
//! not serve any more when an attack is over.

mod attacks;
mod victims;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::cluster::Cluster;
use crate::compare::process::resident_bytes;
use crate::patience::until;
use attacks::Attack;
use victims::{Latencies, Victims};

/// Who is attacked, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// The server to attack; it takes etcd's flags.
    #[arg(long)]
    server: PathBuf,
    /// A second server, which suffers the same afterwards: the measure.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// Seconds that each attack lasts.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Only attacks whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// More arguments for the servers.
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Between two looks at the member's memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What one attack did to a server.
struct Row {
    attack: &'static str,
    tally: attacks::Tally,
    rest: Latencies,
    attacked: Latencies,
    /// Before, at most, and a moment after the attack, in bytes.
    memory: [u64; 3],
}

/// Attacks; `true` if the servers survive all of it.
pub(crate) async fn run(options: &Options) -> Result<bool, String> {
    for server in std::iter::once(&options.server).chain(&options.beside) {
        let name = server.file_name().unwrap_or_default().to_string_lossy();
        println!("{name}");
        println!("{}", Row::TITLE);
        if let Err(error) = suffer(options, server).await {
            println!("FAILED: {error}");
            return Ok(false);
        }
    }
    Ok(true)
}

async fn suffer(options: &Options, server: &Path) -> Result<(), String> {
    let directory = std::env::temp_dir().join(format!("quorate-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let outcome = suffer_in(options, server, &directory).await;
    let _ = std::fs::remove_dir_all(&directory);
    outcome
}

async fn suffer_in(options: &Options, server: &Path, directory: &Path) -> Result<(), String> {
    let mut cluster = Cluster::new(server, directory, 1, &options.extra)?;
    cluster.start(0)?;
    let url = cluster.client_urls().remove(0);
    let address = url.trim_start_matches("http://");
    let address: SocketAddr = address.parse().map_err(|_| format!("{url}: no address"))?;
    let victims = Victims::new(&url)?;
    until("the server serves", async || victims.ask().await).await?;
    victims.fill().await?;
    let time = Duration::from_secs(options.seconds);
    for attack in attacks::all() {
        if !attack.name.contains(&options.only) {
            continue;
        }
        let row = endure(&mut cluster, &victims, attack, address, time).await?;
        println!("{row}");
    }
    Ok(())
}

/// One attack, and the time before it.
async fn endure(
    cluster: &mut Cluster,
    victims: &Victims,
    attack: Attack,
    address: SocketAddr,
    time: Duration,
) -> Result<Row, String> {
    let process = cluster.process_id(0).ok_or("the server was not started")?;
    let rest = victims.work(Duration::from_secs(1), || {}).await;
    let before = resident_bytes(process).1;
    let mut most = before;
    let thread = attack.launch(address, time);
    let attacked = victims
        .work(time, || most = most.max(resident_bytes(process).1))
        .await;
    let tally = tokio::task::spawn_blocking(|| thread.join())
        .await
        .map_err(|error| error.to_string())?
        .map_err(|_| "an attacker panicked".to_owned())?
        .map_err(|error| error.to_string())?;
    until("the server serves after an attack", async || {
        victims.ask().await
    })
    .await
    .map_err(|error| format!("{}: {error}", attack.name))?;
    if let Some((_, log)) = cluster.died() {
        return Err(format!("{}: the server has ended:\n{log}", attack.name));
    }
    Ok(Row {
        attack: attack.name,
        tally,
        rest,
        attacked,
        memory: [before, most, resident_bytes(process).1],
    })
}

impl Row {
    const TITLE: &str = "  attack                                connections   closed   p99 ms rest/attack     failed   \
                         MB before/most/after";
}

impl std::fmt::Display for Row {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [before, most, after] = self.memory.map(|bytes| bytes >> 20);
        write!(
            out,
            "  {:<38} {:>10} {:>8}   {:>8.1} {:>8.1}   {:>4}/{:<6}   {before:>6} {most:>6} {after:>6}",
            self.attack,
            self.tally.made,
            self.tally.closed,
            self.rest.p99_ms(),
            self.attacked.p99_ms(),
            self.attacked.failed,
            self.attacked.calls,
        )
    }
}
