//! One member from its start to its end.
//!
//! ```text
//!   bind ─► begin (disk) ─► threads: log, checkpoints, consensus, peers, IO cores
//!        ─► published ─► accept clients ─► signal ─► hand over, checkpoint ─► end in reverse
//! ```
//!
//! The main thread accepts connections and waits for signals; everything else has a thread of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_core::boundary::{self, RequestIds};
use quorate_core::checkpoint;
use quorate_core::disk::{Disk as _, DiskError, DiskErrorKind};
use quorate_core::node::Node;
use quorate_core::wal::{self, Metadata};
use quorate_net::peer::Identity;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use crate::bootstrap::{self, Beginning, BootstrapError};
use crate::config::{Config, Url, texts};
use crate::disk::MmapDisk;
use crate::driver::clock::Clock;
use crate::driver::consensus::{Consensus, Exits};
use crate::driver::queue::Queue;
use crate::driver::{checkpointer, log_writer};
use crate::http::Pages;
use crate::io::core::{self, CoreParts};
use crate::io::mailbox::Mailbox;
use crate::io::{Entry, IoCore, Traffic, assign, listener};
use crate::log::lines;
use crate::metrics::{self, Metrics};
use crate::peer::{PeerParts, PeerThread, Peers};
use crate::shutdown::{self, Signals};
use crate::state::{Limits, ServerState};

/// More IO cores than this bring nothing that was measured.
const IO_CORES_MAX: usize = 4;

/// A checkpoint is written when the log since the last one exceeds this and the size of the data.
const CHECKPOINT_BYTES_MIN: u64 = 64 << 20;

/// Entries kept in memory for followers; older ones are read from the log.
const LOG_BYTES_IN_MEMORY_MAX: usize = 64 << 20;

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
    /// The data directory cannot be used.
    #[error("data directory {path}: {error}")]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The disk holds no member that could start.
    #[error(transparent)]
    Bootstrap(Box<BootstrapError>),
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
    /// Each with what it carries and the URL that it was made for.
    clients: Vec<(TcpListener, Traffic, String)>,
    peers: Vec<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, StartError> {
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
                clients.push((bind(url)?, traffic, url.to_string()));
            }
        }
        let peers = config.listen_peer_urls.iter().map(bind);
        Ok(Self {
            clients,
            peers: peers.collect::<Result<_, _>>()?,
        })
    }
}

fn bind(url: &Url) -> Result<TcpListener, StartError> {
    if url.scheme.is_tls() || url.scheme.is_unix() {
        return Err(StartError::NotOffered(url.to_string()));
    }
    listener::bind(&url.address()).map_err(|source| StartError::Listen {
        url: url.to_string(),
        source,
    })
}

/// Runs a member until a signal or its own end.
pub fn run(config: &Config, arguments: &[String]) -> Result<(), StartError> {
    let listeners = Listeners::bind(config)?;
    let disk = open_disk(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run_on(config, arguments, disk, listeners))
}

fn open_disk(config: &Config) -> Result<MmapDisk, StartError> {
    let refused = |error: DiskError| StartError::DataDirectory {
        path: config.data_dir.clone(),
        error: match error.kind {
            DiskErrorKind::Locked => format!("it is in use by another process ({error})"),
            _ => error.to_string(),
        },
    };
    let mut disk = MmapDisk::open(&config.data_dir).map_err(refused)?;
    disk.make_directory(checkpoint::DIRECTORY)
        .map_err(refused)?;
    Ok(disk)
}

/// The log lies in the data directory unless `--wal-dir` says otherwise.
fn log_options(config: &Config) -> Result<wal::Options, StartError> {
    let Some(directory) = &config.dedicated_wal_dir else {
        return Ok(wal::Options::default());
    };
    let absolute = std::path::absolute(directory)?;
    let directory = absolute.to_str().ok_or_else(|| StartError::DataDirectory {
        path: absolute.clone(),
        error: "its name is not UTF-8".to_owned(),
    })?;
    Ok(wal::Options {
        directory: directory.to_owned(),
        ..wal::Options::default()
    })
}

async fn run_on(
    config: &Config,
    arguments: &[String],
    disk: MmapDisk,
    listeners: Listeners,
) -> Result<(), StartError> {
    let mut signals = Signals::listen()?;
    let log = log_options(config)?;
    let initialized = wal::exists(&disk, &log).map_err(BootstrapError::from)?;
    lines::data_directory(config, initialized);
    lines::starting(config, initialized);
    let beginning = bootstrap::begin(config, disk.clone(), log).await?;
    let metadata = beginning.metadata;
    lines::starting_member(metadata.member, metadata.cluster);

    let (ended, mut ends) = mpsc::unbounded_channel();
    let member = Member::start(config, arguments, disk, beginning, listeners.peers, &ended)?;
    let serving = async {
        published(&member.state).await;
        lines::published(metadata.member, metadata.cluster, config);
        let mut acceptors = accept(config, &member, listeners.clients)?;
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
    member.close();
    lines::closed(config);
    Ok(())
}

/// Waits until the cluster knows this member's name and client URLs.
async fn published(state: &Arc<ServerState>) {
    let mut status = state.watch_status();
    let known = status.wait_for(|status| status.is_published).await;
    known.expect("the state lives as long as this borrow");
}

/// Accepts clients from now on.
fn accept(
    config: &Config,
    member: &Member,
    listeners: Vec<(TcpListener, Traffic, String)>,
) -> Result<JoinSet<()>, StartError> {
    let entries: Vec<_> = member.cores.iter().map(IoCore::entry).collect();
    let mut acceptors = JoinSet::new();
    lines::ready_to_serve_client_requests();
    for (listener, traffic, url) in listeners {
        let address = listener.local_addr()?.to_string();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        acceptors.spawn(accept_forever(listener, traffic, entries.clone()));
        let carried = match traffic {
            Traffic::GrpcAndHttp => lines::Traffic::GrpcAndHttp,
            Traffic::Grpc => lines::Traffic::Grpc,
            Traffic::Http => lines::Traffic::Http,
            Traffic::Metrics => {
                lines::serving_metrics(&url);
                continue;
            }
        };
        lines::serving_clients_insecurely(carried, &address);
    }
    lines::now_serving(member.state.member, config);
    Ok(acceptors)
}

async fn accept_forever(listener: tokio::net::TcpListener, traffic: Traffic, entries: Vec<Entry>) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|(stream, remote)| Ok((stream.into_std()?, remote))) {
            Ok((stream, remote)) => assign(&entries, stream, remote, traffic),
            Err(error) => {
                warn!(error = %error, "cannot accept a client connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The threads of a running member.
struct Member {
    state: Arc<ServerState>,
    inbox: Arc<Queue<boundary::Input>>,
    log: Arc<Queue<log_writer::Work>>,
    checkpoints: Arc<Queue<checkpointer::Work>>,
    /// In the order in which they end.
    consensus: JoinHandle<()>,
    log_thread: JoinHandle<()>,
    checkpoint_thread: JoinHandle<()>,
    cores: Vec<IoCore>,
    peers: PeerThread,
}

/// Deals out what each asking thread has of its own.
struct Dealer {
    parts: CoreParts,
    metadata: Metadata,
    started_unix_ms: u64,
    mailboxes: Vec<Arc<Mailbox>>,
    next: usize,
}

impl Dealer {
    fn ids(&self, slot: usize) -> RequestIds {
        let slots = self.mailboxes.len() as u64;
        RequestIds::new(
            self.metadata.member,
            self.started_unix_ms,
            slot as u64,
            slots,
        )
    }

    fn deal(&mut self) -> CoreParts {
        let slot = self.next;
        self.next += 1;
        CoreParts {
            mailbox: Arc::clone(&self.mailboxes[slot]),
            ids: self.ids(slot),
            seed: rand::random(),
            ..self.parts.clone()
        }
    }
}

impl Member {
    /// Starts all threads; clients come later.
    fn start(
        config: &Config,
        arguments: &[String],
        disk: MmapDisk,
        beginning: Beginning<MmapDisk>,
        peer_listeners: Vec<TcpListener>,
        ended: &mpsc::UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let Beginning {
            metadata,
            recovered,
            wal,
        } = beginning;
        let core_count =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(IO_CORES_MAX));
        // The IO cores, this thread, the peer thread, the node itself.
        let slots = (core_count + 3).next_power_of_two();
        let mailboxes: Vec<_> = (0..slots).map(|_| Arc::new(Mailbox::default())).collect();
        let started_unix_ms = unix_ms();
        let clock = Clock::start();
        let node_ids = RequestIds::new(
            metadata.member,
            started_unix_ms,
            slots as u64 - 1,
            slots as u64,
        );
        let node = Node::new(
            node_config(config, metadata, node_ids),
            recovered,
            clock.now(),
        );
        let metrics = Arc::new(Metrics::new(metrics::Identity {
            member: metadata.member,
            gates: config.gates.clone(),
            extensive: config.metrics_extensive,
        }));
        let state = Arc::new(ServerState::new(
            metadata,
            limits(config),
            node.view(),
            node.status(),
            Arc::clone(&metrics),
            Pages::new(config, Arc::clone(&metrics), arguments.to_vec()),
            config.data_dir.join(checkpoint::DATABASE),
        ));
        let inbox = Arc::new(Queue::default());
        let parts = CoreParts {
            inbox: Arc::clone(&inbox),
            mailbox: Arc::clone(&mailboxes[0]),
            state: Arc::clone(&state),
            ids: RequestIds::new(metadata.member, started_unix_ms, 0, slots as u64),
            clock,
            seed: 0,
            peers: None,
        };
        let mut dealer = Dealer {
            parts,
            metadata,
            started_unix_ms,
            mailboxes: mailboxes.clone(),
            next: 0,
        };
        core::install(dealer.deal());
        tokio::spawn(core::tick_forever());
        let peers = start_peers(config, metadata, dealer.deal(), peer_listeners, ended)?;
        dealer.parts.peers = Some(Arc::clone(&peers.transport));
        let cores = (0..core_count)
            .map(|number| IoCore::start(number, dealer.deal()))
            .collect::<std::io::Result<Vec<_>>>()?;

        // A follower that lags is served from the log alone: no snapshot can be sent to it, so its peers keep all.
        let has_peers = state.status().members.len() > 1;
        let segments_kept = if has_peers {
            usize::MAX
        } else {
            log_writer::SEGMENTS_KEPT
        };
        let log = Arc::new(Queue::default());
        let checkpoints = Arc::new(Queue::default());
        let exits = Exits {
            mailboxes,
            log: Arc::clone(&log),
            checkpoints: Arc::clone(&checkpoints),
            peers: Peers::new(Arc::clone(&peers.transport)),
            stop: ended.clone(),
        };
        let consensus = Consensus::new(node, clock, Arc::clone(&inbox), Arc::clone(&state), exits);
        let log_thread = spawn("log", {
            let (disk, work, inbox) = (disk.clone(), Arc::clone(&log), Arc::clone(&inbox));
            move || log_writer::run(wal, disk, &work, inbox, metrics, segments_kept)
        })?;
        let checkpoint_thread = spawn("checkpoints", {
            let (work, inbox, state) = (
                Arc::clone(&checkpoints),
                Arc::clone(&inbox),
                Arc::clone(&state),
            );
            move || checkpointer::run(disk, &work, &inbox, &state)
        })?;
        let consensus = spawn("consensus", move || consensus.run())?;
        Ok(Self {
            state,
            inbox,
            log,
            checkpoints,
            consensus,
            log_thread,
            checkpoint_thread,
            cores,
            peers,
        })
    }

    /// Ends all threads; what the log took is durable then.
    fn close(self) {
        for core in self.cores {
            core.close();
        }
        self.peers.close();
        self.inbox.close();
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                warn!("a thread had panicked");
            }
        };
        join(self.consensus);
        self.checkpoints.close();
        self.log.close();
        join(self.log_thread);
        join(self.checkpoint_thread);
    }
}

fn start_peers(
    config: &Config,
    metadata: Metadata,
    core: CoreParts,
    listeners: Vec<TcpListener>,
    ended: &mpsc::UnboundedSender<String>,
) -> Result<PeerThread, StartError> {
    for listener in &listeners {
        lines::serving_peers(&listener.local_addr()?.to_string());
    }
    let identity = Identity {
        member: metadata.member,
        cluster: metadata.cluster,
        peer_urls: texts(&config.initial_advertise_peer_urls),
    };
    let dial_timeout = config.peer_dial_timeout();
    Ok(PeerThread::start(PeerParts {
        identity,
        dial_timeout,
        listeners,
        core,
        ended: ended.clone(),
    })?)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn limits(config: &Config) -> Limits {
    Limits {
        request_bytes_max: config.max_request_bytes,
        txn_operations_max: config.max_txn_ops,
        concurrent_streams_max: config.max_concurrent_streams,
        quota_bytes: config.quota_bytes,
        leader_loss: config.leader_loss_timeout(),
        request_timeout: config.request_timeout(),
        keepalive_interval: config.grpc_keepalive_interval,
        keepalive_timeout: config.grpc_keepalive_timeout,
        watch_progress_interval: config.watch_progress_notify_interval,
        ..Limits::default()
    }
}

fn node_config(config: &Config, metadata: Metadata, request_ids: RequestIds) -> boundary::Config {
    boundary::Config {
        member: metadata.member,
        cluster: metadata.cluster,
        seed: rand::random(),
        tick: config.heartbeat_interval,
        election_ticks: config.election_ticks,
        pre_vote: config.pre_vote,
        request_bytes_max: config.max_request_bytes,
        quota_bytes: config.quota_bytes,
        learners_max: config.max_learners,
        lease_checkpoint: config.gates.enabled("LeaseCheckpoint"),
        checkpoint_bytes_min: CHECKPOINT_BYTES_MIN,
        log_bytes_in_memory_max: LOG_BYTES_IN_MEMORY_MAX,
        request_timeout: config.request_timeout(),
        name: config.name.clone(),
        client_urls: texts(&config.advertise_client_urls),
        request_ids,
    }
}
