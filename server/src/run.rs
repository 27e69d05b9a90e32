//! One member from its start to its end.
//!
//! ```text
//!   bind ─► begin (disk) ─► threads: log, checkpoints, consensus, peers, IO cores
//!        ─► published ─► accept clients ─► signal ─► hand over, checkpoint ─► end in reverse
//! ```
//!
//! The main thread accepts connections and waits for signals; everything else has a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::checkpoint;
use quorate_core::disk::{Disk, DiskError};
use quorate_core::wal;
use quorate_net::rt::{self, JoinSet, Listener};
use tokio::sync::mpsc;
use tracing::warn;

use crate::auth::AuthOptionsError;
use crate::bootstrap::{self, BootstrapError};
#[cfg(not(madsim))]
use crate::client_security::{self, ClientSide};
use crate::comparison;
use crate::config::{Config, Url};
use crate::host::SharedDisk;
#[cfg(not(madsim))]
use crate::io::handshakes::{Gate, Handshakes};
use crate::io::listener::{self, Bound};
use crate::io::{Entry, IoCore, Traffic, assign};
use crate::log::lines;
pub use crate::member::Tuning;
use crate::member::{Member, PeerSide};
use crate::peer_security;
use crate::shutdown::{self, Signals};
use crate::state::ServerState;

/// After an accept that failed, most likely since there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("listen {url}: {source}")]
    Listen {
        /// The URL.
        url: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// A listener of a kind that is not there yet.
    #[error("quorate: listening on {0} is not offered by this version")]
    NotOffered(String),
    /// Clients cannot be recognised as it is asked for.
    #[cfg(not(madsim))]
    #[error("{0}")]
    ClientSecurity(quorate_net::tls::TlsError),
    /// Peers cannot be recognised as it is asked for.
    #[cfg(not(madsim))]
    #[error("{0}")]
    PeerSecurity(quorate_net::tls::TlsError),
    /// The data directory cannot be used.
    #[error("data directory {path}: {error}")]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// Memory cannot be kept from being swapped out.
    #[error("{0}")]
    Memory(String),
    /// Traces cannot be sent.
    #[error("{0}")]
    Tracing(String),
    /// The tokens that were asked for cannot be made.
    #[error("--auth-token: {0}")]
    AuthToken(#[from] AuthOptionsError),
    /// The disk holds no member that could start.
    #[error(transparent)]
    Bootstrap(Box<BootstrapError>),
    /// What the disk holds differs from what the other members have.
    #[error("{0}")]
    Inconsistent(String),
    /// The system gives no more threads or event queues.
    #[error("the system refuses a thread: {0}")]
    System(#[from] std::io::Error),
}

impl From<BootstrapError> for StartError {
    fn from(error: BootstrapError) -> Self {
        Self::Bootstrap(Box::new(error))
    }
}

/// Everything that is bound before the disk is touched.
struct Listeners {
    clients: Vec<ClientListener>,
    /// Each with whether it is for TLS.
    peers: Vec<(Bound, bool)>,
}

/// A socket for clients.
struct ClientListener {
    bound: Bound,
    traffic: Traffic,
    /// What it was made for; another URL may be for the same address.
    url: Url,
    /// Whether it carries plain text.
    is_plain: bool,
    /// Whether it carries TLS.
    is_secure: bool,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        let grpc = if config.listen_client_http_urls.is_empty() {
            Traffic::GrpcAndHttp
        } else {
            Traffic::Grpc
        };
        let mut clients = Vec::new();
        for (urls, traffic) in [
            (&config.listen_client_urls, grpc),
            (&config.listen_client_http_urls, Traffic::Http),
            (&config.listen_metrics_urls, Traffic::Metrics),
        ] {
            for url in urls {
                add_client(config, &mut clients, url, traffic).await?;
            }
        }
        let mut peers = Vec::new();
        for url in &config.listen_peer_urls {
            if cfg!(madsim) && url.scheme.is_tls() {
                return Err(StartError::NotOffered(url.to_string()));
            }
            peers.push((bind(config, url).await?, url.scheme.is_tls()));
        }
        Ok(Self { clients, peers })
    }
}

/// Binds a socket for clients, unless there is one that carries the other of plain text and TLS.
async fn add_client(
    config: &Config,
    clients: &mut Vec<ClientListener>,
    url: &Url,
    traffic: Traffic,
) -> Result<(), StartError> {
    let is_secure = url.scheme.is_tls();
    if cfg!(madsim) && is_secure {
        return Err(StartError::NotOffered(url.to_string()));
    }
    let known = clients
        .iter_mut()
        .find(|known| known.traffic == traffic && known.url.address() == url.address());
    if let Some(known) = known {
        known.is_secure |= is_secure;
        known.is_plain |= !is_secure;
        return Ok(());
    }
    clients.push(ClientListener {
        bound: bind(config, url).await?,
        traffic,
        url: url.clone(),
        is_plain: !is_secure,
        is_secure,
    });
    Ok(())
}

async fn bind(config: &Config, url: &Url) -> Result<Bound, StartError> {
    let address = url.address();
    #[cfg(not(madsim))]
    let bound = if url.scheme.is_unix() {
        Bound::unix(address.as_ref())
    } else {
        listener::bind(&address, config.socket_reuse_port)
    };
    #[cfg(madsim)]
    let bound = {
        let _ = config;
        listener::bind(&address).await
    };
    bound.map_err(|source| StartError::Listen {
        url: url.to_string(),
        source,
    })
}

/// Runs a member until a signal or its own end.
#[cfg(not(madsim))]
pub fn run(config: &Config, arguments: &[String]) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if config.memory_mlock {
        crate::memory::lock().map_err(StartError::Memory)?;
    }
    runtime.block_on(async {
        let listeners = Listeners::bind(config).await?;
        let disk = open_disk(config)?;
        run_on(config, arguments, Tuning::default(), disk, listeners).await
    })
}

/// Runs a member on a simulated machine until it is asked to stop or ends by itself.
#[cfg(madsim)]
pub async fn run<D>(config: Config, tuning: Tuning, mut disk: D) -> Result<(), StartError>
where
    D: Disk + Clone + 'static,
{
    let running = async move {
        let listeners = Listeners::bind(&config).await?;
        prepare_directories(&mut disk).map_err(BootstrapError::from)?;
        run_on(&config, &[], tuning, disk, listeners).await
    };
    crate::io::home::Home::none().run(running).await
}

#[cfg(not(madsim))]
fn open_disk(config: &Config) -> Result<crate::disk::MmapDisk, StartError> {
    use quorate_core::disk::DiskErrorKind;
    let refused = |error: DiskError| StartError::DataDirectory {
        path: config.data_dir.clone(),
        error: match error.kind {
            DiskErrorKind::Locked => format!("it is in use by another process ({error})"),
            _ => error.to_string(),
        },
    };
    let mut disk = crate::disk::MmapDisk::open(&config.data_dir).map_err(refused)?;
    if config.unsafe_no_fsync {
        warn!(
            "nothing is synced (--unsafe-no-fsync): a power cut loses acknowledged writes, or all data"
        );
        disk = disk.without_syncs();
    }
    prepare_directories(&mut disk).map_err(refused)?;
    Ok(disk)
}

/// Makes the directories of a member, whose names must be as durable as what will lie in them.
fn prepare_directories<D: Disk>(disk: &mut D) -> Result<(), DiskError> {
    disk.make_directory(checkpoint::DIRECTORY)?;
    let (parent, _) = checkpoint::DIRECTORY
        .rsplit_once('/')
        .expect("it lies in a directory of the data directory");
    disk.sync_directory(parent)?;
    disk.sync_directory("")
}

/// The log lies in the data directory unless `--wal-dir` says otherwise.
fn log_options(config: &Config, tuning: Tuning) -> Result<wal::Options, StartError> {
    let Some(directory) = &config.dedicated_wal_dir else {
        return Ok(wal::Options {
            segment_bytes: tuning.segment_bytes,
            ..wal::Options::default()
        });
    };
    let absolute = std::path::absolute(directory)?;
    let directory = absolute.to_str().ok_or_else(|| StartError::DataDirectory {
        path: absolute.clone(),
        error: "its name is not UTF-8".to_owned(),
    })?;
    Ok(wal::Options {
        directory: directory.to_owned(),
        segment_bytes: tuning.segment_bytes,
    })
}

async fn run_on<D: SharedDisk>(
    config: &Config,
    arguments: &[String],
    tuning: Tuning,
    disk: D,
    listeners: Listeners,
) -> Result<(), StartError> {
    let mut signals = Signals::listen()?;
    let log = log_options(config, tuning)?;
    #[cfg(not(madsim))]
    let security = client_security::open(config).map_err(StartError::ClientSecurity)?;
    let initialized = wal::exists(&disk, &log).map_err(BootstrapError::from)?;
    lines::data_directory(config, initialized);
    #[cfg(not(madsim))]
    let named = tokio::select! {
        named = bootstrap::unless_named(config), if !initialized => named?,
        name = signals.next(), if !initialized => {
            lines::received_signal(name);
            return Ok(());
        }
        else => None,
    };
    #[cfg(not(madsim))]
    let config = named.as_ref().unwrap_or(config);
    let wire = peer_security::wire(config)?;
    lines::starting(config, initialized);
    let beginning = tokio::select! {
        begun = bootstrap::begin(config, &wire, disk.clone(), log) => begun?,
        // The other first members may never come.
        name = signals.next() => {
            lines::received_signal(name);
            return Ok(());
        }
    };
    let metadata = beginning.metadata;
    lines::starting_member(metadata.member, metadata.cluster);
    if initialized && config.gates.enabled("InitialCorruptCheck") {
        let checked = comparison::at_start(config, &wire, metadata, &beginning.recovered).await;
        checked.map_err(StartError::Inconsistent)?;
    }

    let (ended, mut ends) = mpsc::unbounded_channel();
    let member = Member::start(
        config,
        arguments,
        tuning,
        disk,
        beginning,
        PeerSide {
            wire,
            listeners: listeners.peers,
        },
        &ended,
    )?;
    let serving = async {
        published(&member.state).await;
        lines::published(metadata.member, metadata.cluster, config);
        let entries = member.cores.iter().map(IoCore::entry).collect();
        let doors = Doors {
            entries,
            #[cfg(not(madsim))]
            security,
        };
        let mut acceptors = accept(config, &member, listeners.clients, &doors)?;
        #[cfg(not(madsim))]
        crate::notify::ready();
        // They never end by themselves.
        while acceptors.join_next().await.is_some() {}
        Ok::<_, StartError>(())
    };
    let asked = tokio::select! {
        served = serving => {
            served?;
            false
        }
        name = signals.next() => {
            lines::received_signal(name);
            true
        }
        reason = ends.recv() => {
            warn!(reason = reason.unwrap_or_default(), "the member has ended");
            false
        }
    };
    signals.end_hard();
    lines::closing(config);
    if asked {
        shutdown::take_leave(&member.state).await;
    }
    #[cfg(not(madsim))]
    let state = Arc::clone(&member.state);
    member.close().await;
    #[cfg(not(madsim))]
    if let Some(spans) = &state.spans {
        spans.close();
    }
    lines::closed(config);
    Ok(())
}

/// Waits until the cluster knows this member's name and client URLs.
async fn published(state: &Arc<ServerState>) {
    let mut status = state.watch_status();
    let known = status.wait_for(|status| status.is_published).await;
    known.expect("the state lives as long as this borrow");
}

/// Through what clients come in.
struct Doors {
    entries: Vec<Entry>,
    #[cfg(not(madsim))]
    security: Option<ClientSide>,
}

/// Where the connections of one listener go.
enum Door {
    /// To a core, as they come.
    Plain(Vec<Entry>),
    /// To shake hands.
    #[cfg(not(madsim))]
    Secure(Handshakes, Gate),
}

/// Accepts clients from now on.
fn accept(
    config: &Config,
    member: &Member,
    listeners: Vec<ClientListener>,
    doors: &Doors,
) -> Result<JoinSet<()>, StartError> {
    let mut acceptors = JoinSet::new();
    lines::ready_to_serve_client_requests();
    #[cfg(not(madsim))]
    let handshakes = match &doors.security {
        Some(_) => Some(Handshakes::start(doors.entries.clone())?),
        None => None,
    };
    for listener in listeners {
        let ClientListener {
            bound,
            traffic,
            url,
            is_plain,
            is_secure,
        } = listener;
        let address = bound.local_address()?;
        let door = Door::Plain(doors.entries.clone());
        #[cfg(not(madsim))]
        let door = match (&handshakes, &doors.security) {
            (Some(handshakes), Some(security)) if is_secure => {
                Door::Secure(handshakes.clone(), security.gate(traffic, is_plain))
            }
            _ => door,
        };
        acceptors.spawn(accept_forever(Listener::adopt(bound)?, traffic, door));
        let carried = match traffic {
            Traffic::GrpcAndHttp => lines::Traffic::GrpcAndHttp,
            Traffic::Grpc => lines::Traffic::Grpc,
            Traffic::Http => lines::Traffic::Http,
            Traffic::Metrics => {
                lines::serving_metrics(&url.to_string());
                continue;
            }
        };
        if is_plain {
            lines::serving_clients_insecurely(carried, &address);
        }
        if is_secure {
            lines::serving_clients_securely(carried, &address);
        }
    }
    lines::now_serving(member.state.member, config);
    Ok(acceptors)
}

async fn accept_forever(listener: Listener, traffic: Traffic, door: Door) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, remote)| Ok((rt::detach(stream)?, remote))) {
            Ok((stream, remote)) => match &door {
                Door::Plain(entries) => assign(entries, stream, remote, traffic),
                #[cfg(not(madsim))]
                Door::Secure(handshakes, gate) => {
                    handshakes
                        .begin(stream, remote, traffic, gate.clone())
                        .await;
                }
            },
            Err(error) => {
                warn!(error = %error, "cannot accept a client connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
