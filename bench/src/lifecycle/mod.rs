//! The life of a cluster: it grows with learners, its members are replaced, lose their disks, are restarted, stay away
//! until they need a snapshot, are cut off from each other, reach their quota, and are removed down to one.
//!
//! All of it happens to real processes under load whose history is judged. A second server goes through the same, and
//! its windows without a write stand beside the first one's.

mod steps;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::{Args, ValueEnum};

use crate::fleet::Server;
use crate::fleet::network::{self, Network};
use crate::fleet::trial::{Load, Row, Trial, table};

/// What goes through its life, and where.
#[derive(Args)]
pub(crate) struct Options {
    /// The server to test; it takes etcd's flags.
    #[arg(long)]
    server: PathBuf,
    /// A second server, which goes through the same afterwards: the measure.
    #[arg(long)]
    beside: Option<PathBuf>,
    /// How many members the cluster grows to.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=9))]
    members: u8,
    /// Where the members run: each in a network namespace of its own, or all in this network. Without namespaces nothing
    /// can be cut.
    #[arg(long, value_enum, default_value_t = Ground::Auto)]
    network: Ground,
    #[command(flatten)]
    load: Load,
    /// More arguments for every member.
    #[arg(last = true)]
    extra: Vec<String>,
}

/// Where members run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ground {
    /// Namespaces if they are permitted, otherwise this network.
    Auto,
    /// Namespaces; not permitted is an error.
    Namespaces,
    /// All on 127.0.0.1.
    Loopback,
}

/// Size at which writes are refused: far above what the other steps leave behind.
const QUOTA_BYTES: u64 = 160 << 20;

/// Runs the steps; `true` if everything holds.
pub(crate) async fn run(options: Options) -> Result<bool, String> {
    let network = ground(options.network)?;
    let extra = &options.extra;
    let ours = server(&options.server, extra)?;
    let Some(ours) = live(&options, &ours, network.clone()).await? else {
        return Ok(false);
    };
    let Some(beside) = &options.beside else {
        return Ok(true);
    };
    let theirs = server(beside, extra)?;
    let Some(theirs) = live(&options, &theirs, network).await? else {
        return Ok(false);
    };
    let names = [&options.server, beside].map(|path| file_name(path));
    print!("{}", table(&ours, &theirs, [&names[0], &names[1]]));
    Ok(true)
}

/// Where the members are to run; says so if it is not where they would best.
fn ground(wanted: Ground) -> Result<Option<Rc<Network>>, String> {
    if wanted == Ground::Loopback {
        return Ok(None);
    }
    match network::enter() {
        Ok(()) => Ok(Some(Rc::new(Network::new()?))),
        Err(error) if wanted == Ground::Namespaces => Err(format!(
            "network namespaces are not to be had here: {error}"
        )),
        Err(error) => {
            println!(
                "members run in one network, and nothing is cut: no namespaces here ({error})"
            );
            Ok(None)
        }
    }
}

/// A server's program with flags that make logs short and quotas small.
pub(crate) fn server(binary: &Path, extra: &[String]) -> Result<Server, String> {
    let mut flags = vec![
        format!("--quota-backend-bytes={QUOTA_BYTES}"),
        format!("--snapshot-count={}", steps::SNAPSHOT_COUNT),
        format!("--snapshot-catchup-entries={}", steps::CATCHUP_ENTRIES),
    ];
    flags.extend_from_slice(extra);
    // Members may run with another working directory or name space, so the path is whole.
    let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
    if !binary.is_file() {
        return Err(format!("{}: there is no such program", binary.display()));
    }
    Ok(Server {
        name: file_name(&binary),
        binary,
        flags,
    })
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// One cluster's life; `None` if something was violated.
async fn live(
    options: &Options,
    server: &Server,
    network: Option<Rc<Network>>,
) -> Result<Option<Vec<Row>>, String> {
    let has_network = network.is_some();
    let mut trial = Trial::begin(&options.load, server, 1, network).await?;
    steps::grow(&mut trial, server, options.members).await?;
    steps::replace_all(&mut trial, server).await?;
    steps::lose_a_disk(&mut trial, server).await?;
    steps::restart_all(&mut trial).await?;
    steps::miss_the_log(&mut trial, steps::Absence::Stopped).await?;
    if has_network {
        steps::cut(&mut trial).await?;
        // Not right after the other absence: a leader keeps its log for a while after it has sent a snapshot. The
        // cuts have given the leadership to others.
        steps::miss_the_log(&mut trial, steps::Absence::CutOff).await?;
    } else {
        println!("  skipped: cuts between members, for which each needs a network namespace");
    }
    steps::reach_the_quota(&mut trial).await?;
    steps::shrink(&mut trial).await?;
    let rows = trial.rows.clone();
    Ok(trial.finish().await?.then_some(rows))
}
