//! Where a member begins: from its own data, as one of the first members of a new cluster, or as a new member of a
//! running one.
//!
//! ```text
//!   member/wal holds a log ──► restart: image + log; the flags about the cluster are ignored
//!                          ──► --force-new-cluster: the log goes on with the removal of all others
//!   neither log nor image  ──► found: ids from --initial-cluster and its token, a new log
//!                          ──► --discovery-srv: DNS names them, as --initial-cluster would
//!                          ──► --discovery-token: the founders find each other in another cluster
//!   --initial-cluster-state=existing ──► join: ids from the running members, an empty log; the leader sends the rest
//!   an image without a log ──► refused: the log is what says who this is
//! ```
//!
//! It never starts from nothing in silence: whatever cannot be read, or is not what it should be, is an error that
//! names it, and nothing on the disk is changed by then.

mod discovery;
mod join;
#[cfg(not(madsim))]
mod srv;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_core::checkpoint::{self, DATABASE, MemberRecord, SettleError};
use quorate_core::disk::{Disk, DiskError, DiskErrorKind, DiskFile as _};
use quorate_core::lease;
use quorate_core::node::{LogContents, RecoverError, Recovered};
use quorate_core::types::MemberId;
use quorate_core::wal::{self, Metadata, Wal, WalError};
use quorate_net::peer::{Endpoint, PeerClient, Wire};
use tokio::time::timeout;
use tracing::{info, warn};

pub(crate) use discovery::DiscoveryError;
#[cfg(not(madsim))]
pub(crate) use srv::unless_named;

use crate::config::{Config, ConfigError, parse_cluster};
use crate::log::lines;

/// How long running members may take to say whom they know; etcd's patience.
const KNOWN_PATIENCE: Duration = Duration::from_secs(1);

/// The start of a member's life in this process.
pub(crate) struct Beginning<D: Disk> {
    /// Who this is.
    pub(crate) metadata: Metadata,
    /// What the node begins with.
    pub(crate) recovered: Recovered,
    /// The log, ready for more.
    pub(crate) wal: Wal<D>,
}

/// Why a member cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The flags do not make a cluster.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be read or made.
    #[error(transparent)]
    Log(#[from] WalError),
    /// Another file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log and the image do not make a member.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// What a snapshot has left cannot be sorted out.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// There is an image, but no log.
    #[error(
        "{DATABASE} is there, but member/wal holds no log, so nobody knows which member this is; restore the log, or \
         move the data directory away to start anew"
    )]
    ImageWithoutLog,
    /// The cluster knows this member already, so it has lost its data.
    #[error("member {:x} has already been bootstrapped", .0.0)]
    AlreadyBootstrapped(MemberId),
    /// The log was begun, but its first entries were never written, and the flags now name another member or cluster.
    #[error(
        "member/wal was begun for another member or cluster than the flags name, and holds nothing; remove the data \
         directory to start anew"
    )]
    BegunForAnother,
    /// The other first members were not found.
    #[error("failed to join discovery cluster ({0})")]
    Discovery(#[from] DiscoveryError),
    /// DNS names no members, or not this one.
    #[error("error setting up initial cluster: {0}")]
    Dns(String),
    /// Two of the members that were found have one URL.
    #[error("discovery cluster {0} has duplicate url")]
    DiscoveredTwice(String),
    /// Nobody of the cluster that this member is to join says who its members are.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
    )]
    NobodyKnown,
    /// The running cluster has other members than the flags say.
    #[error("error validating peerURLs {running}: {reason}")]
    OtherMembers {
        /// The peer URLs of the running members.
        running: String,
        /// What does not fit.
        reason: String,
    },
    /// The members of the running cluster cannot work with this one.
    #[error("incompatible with current running cluster")]
    Incompatible,
}

/// Opens what is there, or founds what is not.
pub(crate) async fn begin<D: Disk + Clone>(
    config: &Config,
    wire: &Wire,
    disk: D,
    log: wal::Options,
) -> Result<Beginning<D>, BootstrapError> {
    if wal::exists(&disk, &log)? {
        return restart(config, disk, log).await;
    }
    if read_image(&disk)?.is_some() {
        return Err(BootstrapError::ImageWithoutLog);
    }
    if config.joins_existing_cluster {
        return join::join(config, wire, disk, log).await;
    }
    found(config, wire, disk, log).await
}

async fn restart<D: Disk + Clone>(
    config: &Config,
    disk: D,
    options: wal::Options,
) -> Result<Beginning<D>, BootstrapError> {
    let wal::Recovered {
        metadata,
        snapshots,
        hard_state,
        entries,
        older,
        mut wal,
        repair,
    } = wal::recover(disk.clone(), options)?;
    if let Some(repair) = repair {
        warn!(
            path = repair.path,
            offset = repair.offset,
            bytes = repair.bytes,
            reason = repair.reason,
            copy = repair.copy.unwrap_or_default(),
            "cut a torn tail off the log"
        );
    }
    let snapshot = snapshots
        .last()
        .expect("recovery finds a snapshot record or fails");
    checkpoint::settle(&mut disk.clone(), snapshot.index)?;
    let image = read_image(&disk)?;
    info!(
        entries = entries.len(),
        snapshot = snapshot.index.0,
        commit = hard_state.commit,
        image_bytes = image.as_ref().map_or(0, bytes::Bytes::len),
        "recovering from the log"
    );
    let contents = LogContents {
        hard_state,
        snapshot_index: snapshot.index,
        snapshot_term: snapshot.term,
        entries,
        older,
    };
    if config.discovery.is_some() {
        warn!("discovery token is ignored since cluster already initialized; valid logs are found");
    }
    if contents.is_unfinished_founding() && config.joins_existing_cluster {
        info!("nothing had come from the running cluster yet; joining again");
        let recovered = Recovered::joining(lease_config(config));
        return Ok(Beginning {
            metadata,
            recovered,
            wal,
        });
    }
    if contents.is_unfinished_founding() {
        let (members, own) = founders(config).await?;
        if own != metadata {
            return Err(BootstrapError::BegunForAnother);
        }
        warn!("the power went before the first entries were written; founding again");
        let recovered = Recovered::fresh(&members, lease_config(config));
        return Ok(Beginning {
            metadata,
            recovered,
            wal,
        });
    }
    let mut recovered = Recovered::from_disk(image, contents, lease_config(config))?;
    if config.force_new_cluster {
        force_new_cluster(config, metadata, &mut recovered, &mut wal)?;
    }
    Ok(Beginning {
        metadata,
        recovered,
        wal,
    })
}

/// Leaves all other members out of the cluster, durably.
fn force_new_cluster<D: Disk>(
    config: &Config,
    own: Metadata,
    recovered: &mut Recovered,
    wal: &mut Wal<D>,
) -> Result<(), BootstrapError> {
    let forced = recovered.force_new_cluster(own.member, config.max_learners)?;
    for write in &forced.writes {
        wal.append(write)?;
    }
    wal.sync()?;
    lines::forcing_new_cluster(own, &forced);
    Ok(())
}

async fn found<D: Disk + Clone>(
    config: &Config,
    wire: &Wire,
    disk: D,
    options: wal::Options,
) -> Result<Beginning<D>, BootstrapError> {
    let (members, metadata) = founders(config).await?;
    if is_known(wire, &members, metadata.member).await {
        return Err(BootstrapError::AlreadyBootstrapped(metadata.member));
    }
    let wal = Wal::create(disk, options, metadata)?;
    let recovered = Recovered::fresh(&members, lease_config(config));
    Ok(Beginning {
        metadata,
        recovered,
        wal,
    })
}

/// The first members, and which of them this is: the flags name them, or they find each other.
async fn founders(config: &Config) -> Result<(Vec<MemberRecord>, Metadata), BootstrapError> {
    #[cfg(not(madsim))]
    let named = unless_named(config).await?;
    #[cfg(not(madsim))]
    let config = named.as_ref().unwrap_or(config);
    let (members, metadata) = config.founders()?;
    let own = metadata.member;
    let Some(discovery) = &config.discovery else {
        return Ok((members, metadata));
    };
    let found = discovery::join(discovery, own, &config.own_entry()).await;
    let initial_cluster = found.inspect_err(|error| lines::discovery_failed(discovery, error))?;
    let urls = parse_cluster(&initial_cluster).map_err(|_| DiscoveryError::InvalidUrl)?;
    let mut seen = BTreeSet::new();
    if !urls
        .values()
        .flatten()
        .all(|url| seen.insert(url.to_string()))
    {
        return Err(BootstrapError::DiscoveredTwice(initial_cluster));
    }
    let found = Config {
        initial_cluster,
        ..config.clone()
    };
    Ok(found.founders()?)
}

/// Whether a running member says that this one has been running before: then it has voted, and must not begin anew.
async fn is_known(wire: &Wire, members: &[MemberRecord], own: MemberId) -> bool {
    let client = PeerClient::new(wire);
    let others = members.iter().filter(|member| member.id != own);
    let endpoints: Vec<_> = others
        .flat_map(|member| &member.peer_urls)
        .filter_map(|url| Endpoint::parse(url).ok())
        .collect();
    // Members that start together have bound their ports and do not answer yet: nobody knows anybody then.
    let asked = endpoints
        .iter()
        .map(|endpoint| timeout(KNOWN_PATIENCE, client.members(endpoint)));
    let answers = join_all(asked).await;
    answers.into_iter().flatten().flatten().any(|(_, known)| {
        known
            .iter()
            .any(|member| member.id == own.0 && !member.client_urls.is_empty())
    })
}

pub(crate) fn lease_config(config: &Config) -> lease::Config {
    let checkpoint = config.gates.enabled("LeaseCheckpoint");
    lease::Config::new(config.heartbeat_interval, config.election_ticks, checkpoint)
}

fn read_image<D: Disk + Clone>(disk: &D) -> Result<Option<bytes::Bytes>, BootstrapError> {
    // Opening takes a handle of its own: the trait asks for one that may change things.
    let mut disk = disk.clone();
    match disk.open(DATABASE) {
        Ok(file) => Ok(Some(file.read()?)),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
