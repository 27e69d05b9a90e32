//! The threads of one running member, and how they begin and end.
//!
//! ```text
//!   main: signals, accepting      io-0 .. io-n: clients       peers: the other members
//!   consensus: the node           log: append and sync        checkpoints: images
//! ```

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use quorate_core::boundary::{self, RequestIds};
use quorate_core::checkpoint;
use quorate_core::lease;
use quorate_core::node::Node;
use quorate_core::wal::{self, Metadata, Wal};
use quorate_net::peer::{Identity, Transport, Wire};
use tokio::sync::mpsc;

use crate::auth::Guard;
use crate::bootstrap::{self, Beginning};
use crate::compactor;
use crate::comparison::Question;
use crate::config::{Config, texts};
use crate::driver::clock::Clock;
use crate::driver::consensus::{Consensus, Exits};
use crate::driver::queue::Queue;
use crate::driver::snapshots::Intake;
use crate::driver::stepwise::Stepwise;
use crate::driver::{checkpointer, log_writer, snapshots};
use crate::host::{self, SharedDisk, Thread};
use crate::http::Pages;
use crate::io::IoCore;
use crate::io::core::{self, CoreParts, Home};
use crate::io::listener::Bound;
use crate::io::mailbox::Mailbox;
use crate::log::lines;
use crate::metrics::{self, Metrics};
use crate::peer::{PeerParts, PeerThread, Peers};
use crate::run::StartError;
#[cfg(not(madsim))]
use crate::spans::Spans;
use crate::state::{Limits, ServerState};

/// More IO cores than this bring nothing that was measured.
const IO_CORES_MAX: usize = 4;

/// The sizes that a member is made with; simulations use smaller ones.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// The allocated size of a log segment.
    pub segment_bytes: u64,
    /// A checkpoint is written when the log since the last one exceeds this and what the data were then.
    pub checkpoint_bytes_min: u64,
    /// Entries kept in memory for followers; older ones are read from the log.
    pub log_bytes_in_memory_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment_bytes: wal::Options::default().segment_bytes,
            checkpoint_bytes_min: 64 << 20,
            log_bytes_in_memory_max: 16 << 20,
        }
    }
}

/// The threads of a running member.
pub(crate) struct Member {
    pub(crate) state: Arc<ServerState>,
    pub(crate) cores: Vec<IoCore>,
    peers: PeerThread,
    driver: Driver,
}

/// The node and the threads that serve it.
struct Driver {
    inbox: Arc<Queue<boundary::Input>>,
    log: Arc<Queue<log_writer::Work>>,
    checkpoints: Arc<Queue<checkpointer::Work>>,
    arrivals: Arc<Queue<snapshots::Work>>,
    /// In the order in which they end.
    consensus: Thread,
    log_thread: Thread,
    checkpoint_thread: Thread,
    arrival_thread: Thread,
}

/// What the driver has of the other members.
struct Links {
    transport: Arc<Transport>,
    /// Snapshots that come in.
    arrivals: Arc<Queue<snapshots::Work>>,
    /// Where the node asks for hashes.
    comparisons: mpsc::UnboundedSender<Question>,
    lease: lease::Config,
}

/// The member's side of its links to the others.
pub(crate) struct PeerSide {
    pub(crate) wire: Wire,
    /// Each with whether it is for TLS.
    pub(crate) listeners: Vec<(Bound, bool)>,
}

/// The generators of tickets, one a slot.
struct Tickets {
    metadata: Metadata,
    /// Where their ids begin.
    begin_ms: u64,
    /// A power of two, since answers find their way by a mask.
    slots: usize,
}

/// Deals out what each asking thread has of its own.
struct Dealer {
    parts: CoreParts,
    tickets: Tickets,
    mailboxes: Vec<Arc<Mailbox>>,
    next: usize,
}

impl Member {
    /// Starts all threads; clients come later.
    pub(crate) fn start<D: SharedDisk>(
        config: &Config,
        arguments: &[String],
        tuning: Tuning,
        disk: D,
        beginning: Beginning<D>,
        peer_side: PeerSide,
        ended: &mpsc::UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let Beginning {
            metadata,
            recovered,
            wal,
        } = beginning;
        let core_count =
            std::thread::available_parallelism().map_or(1, |cores| cores.get().min(IO_CORES_MAX));
        let begin_ms = recovered.request_ids_begin_ms(metadata.member, unix_ms(), host::entropy());
        let tickets = Tickets::new(metadata, begin_ms, core_count);
        let clock = Clock::start();
        let node_config = node_config(config, tuning, metadata, tickets.of_the_node());
        let node = Node::new(node_config, recovered, clock.now());
        let guard = Guard::new(config, node.auth(), clock)?;
        let state = Arc::new(server_state(config, arguments, metadata, &node, guard)?);
        let mut dealer = Dealer::new(tickets, clock, Arc::clone(&state));

        core::install(dealer.deal());
        tokio::spawn(Home::current().run(core::tick_forever()));
        let compacting = compactor::run(config.retention, Arc::clone(&state));
        tokio::spawn(Home::current().run(compacting));
        let arrivals = Arc::new(Queue::default());
        let (comparisons, questions) = mpsc::unbounded_channel();
        let peers = start_peers(
            config,
            metadata,
            dealer.deal(),
            peer_side,
            Intake::new(Arc::clone(&arrivals)),
            questions,
            ended,
        )?;
        dealer.parts.peers = Some(Arc::clone(&peers.transport));
        let cores = (0..core_count)
            .map(|number| IoCore::start(number, dealer.deal()))
            .collect::<std::io::Result<Vec<_>>>()?;
        let driver = Driver::start(
            node,
            wal,
            disk,
            &dealer,
            Links {
                transport: Arc::clone(&peers.transport),
                arrivals,
                comparisons,
                lease: bootstrap::lease_config(config),
            },
            ended,
        )?;
        Ok(Self {
            state,
            driver,
            cores,
            peers,
        })
    }

    /// Ends all threads; what the log took is durable then.
    pub(crate) async fn close(self) {
        for core in self.cores {
            core.close().await;
        }
        self.peers.close().await;
        self.driver.close().await;
    }
}

impl Tickets {
    /// For the IO cores, the main thread, the peer thread and the node itself.
    fn new(metadata: Metadata, begin_ms: u64, core_count: usize) -> Self {
        let slots = (core_count + 3).next_power_of_two();
        Self {
            metadata,
            begin_ms,
            slots,
        }
    }

    fn of(&self, slot: usize) -> RequestIds {
        RequestIds::new(
            self.metadata.member,
            self.begin_ms,
            slot as u64,
            self.slots as u64,
        )
    }

    fn of_the_node(&self) -> RequestIds {
        self.of(self.slots - 1)
    }
}

impl Dealer {
    fn new(tickets: Tickets, clock: Clock, state: Arc<ServerState>) -> Self {
        let mailboxes: Vec<_> = (0..tickets.slots)
            .map(|_| Arc::new(Mailbox::default()))
            .collect();
        let parts = CoreParts {
            inbox: Arc::new(Queue::default()),
            mailbox: Arc::clone(&mailboxes[0]),
            state,
            ids: tickets.of(0),
            clock,
            seed: 0,
            peers: None,
        };
        Self {
            parts,
            tickets,
            mailboxes,
            next: 0,
        }
    }

    fn deal(&mut self) -> CoreParts {
        let slot = self.next;
        self.next += 1;
        CoreParts {
            mailbox: Arc::clone(&self.mailboxes[slot]),
            ids: self.tickets.of(slot),
            seed: host::entropy(),
            ..self.parts.clone()
        }
    }
}

impl Driver {
    fn start<D: SharedDisk>(
        node: Node,
        wal: Wal<D>,
        disk: D,
        dealer: &Dealer,
        links: Links,
        ended: &mpsc::UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let (inbox, state) = (
            Arc::clone(&dealer.parts.inbox),
            Arc::clone(&dealer.parts.state),
        );
        let log = Arc::new(Queue::default());
        let checkpoints = Arc::new(Queue::default());
        let exits = Exits {
            mailboxes: dealer.mailboxes.clone(),
            log: Arc::clone(&log),
            checkpoints: Arc::clone(&checkpoints),
            peers: Peers::new(Arc::clone(&links.transport)),
            comparisons: links.comparisons,
            stop: ended.clone(),
        };
        let consensus = Consensus::new(node, dealer.parts.clock, Arc::clone(&state), exits);
        let writer =
            log_writer::Writer::new(wal, disk.clone(), Arc::clone(&inbox), Arc::clone(&state));
        let metrics = Arc::clone(&state.metrics);
        let checkpointer = checkpointer::Checkpointer {
            disk: Stepwise(disk.clone()),
            inbox: Arc::clone(&inbox),
            state,
            transport: links.transport,
        };
        let store = snapshots::Store::new(Stepwise(disk), Arc::clone(&inbox), links.lease, metrics);
        let arrivals = links.arrivals;
        let log_thread = host::start_worker("log", Arc::clone(&log), writer)?;
        let checkpoint_thread =
            host::start_worker("checkpoints", Arc::clone(&checkpoints), checkpointer)?;
        let arrival_thread = host::start_worker("snapshots", Arc::clone(&arrivals), store)?;
        let consensus = host::start_worker("consensus", Arc::clone(&inbox), consensus)?;
        Ok(Self {
            inbox,
            log,
            checkpoints,
            arrivals,
            consensus,
            log_thread,
            checkpoint_thread,
            arrival_thread,
        })
    }

    async fn close(self) {
        self.inbox.close();
        self.consensus.join().await;
        self.checkpoints.close();
        self.arrivals.close();
        self.log.close();
        self.log_thread.join().await;
        self.checkpoint_thread.join().await;
        self.arrival_thread.join().await;
    }
}

fn server_state(
    config: &Config,
    arguments: &[String],
    metadata: Metadata,
    node: &Node,
    guard: Guard,
) -> Result<ServerState, StartError> {
    let metrics = Arc::new(Metrics::new(metrics::Identity {
        member: metadata.member,
        gates: config.gates.clone(),
        extensive: config.metrics_extensive,
    }));
    let state = ServerState::new(
        metadata,
        limits(config),
        node.view(),
        guard,
        node.status(),
        Arc::clone(&metrics),
        Pages::new(config, metrics, arguments.to_vec()),
        config.data_dir.join(checkpoint::DATABASE),
    );
    #[cfg(not(madsim))]
    if let Some(asked) = &config.tracing {
        let spans = Spans::open(asked).map_err(StartError::Tracing)?;
        tracing::info!("distributed tracing setup enabled");
        return Ok(state.with_spans(Some(spans)));
    }
    Ok(state)
}

fn start_peers(
    config: &Config,
    metadata: Metadata,
    core: CoreParts,
    peers: PeerSide,
    snapshots: Intake,
    questions: mpsc::UnboundedReceiver<Question>,
    ended: &mpsc::UnboundedSender<String>,
) -> Result<PeerThread, StartError> {
    for (listener, _) in &peers.listeners {
        lines::serving_peers(&listener.local_address()?);
    }
    let identity = Identity {
        member: metadata.member,
        cluster: metadata.cluster,
        peer_urls: texts(&config.initial_advertise_peer_urls),
        process: host::entropy(),
    };
    Ok(PeerThread::start(PeerParts {
        identity,
        wire: peers.wire,
        listeners: peers.listeners,
        core,
        snapshots,
        questions,
        ended: ended.clone(),
    })?)
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
        slow_apply: config.warning_apply_duration,
        slow_unary: config.warning_unary_request_duration,
        ..Limits::default()
    }
}

fn node_config(
    config: &Config,
    tuning: Tuning,
    metadata: Metadata,
    request_ids: RequestIds,
) -> boundary::Config {
    boundary::Config {
        member: metadata.member,
        cluster: metadata.cluster,
        seed: host::entropy(),
        tick: config.heartbeat_interval,
        election_ticks: config.election_ticks,
        pre_vote: config.pre_vote,
        request_bytes_max: config.max_request_bytes,
        quota_bytes: config.quota_bytes,
        learners_max: config.max_learners,
        strict_reconfig_check: config.strict_reconfig_check,
        corrupt_check_interval: config.corrupt_check_interval,
        compact_hash_check_interval: config
            .gates
            .enabled("CompactHashCheck")
            .then_some(config.compact_hash_check_interval),
        lease_checkpoint: config.gates.enabled("LeaseCheckpoint"),
        checkpoint_bytes_min: tuning.checkpoint_bytes_min,
        log_bytes_in_memory_max: tuning.log_bytes_in_memory_max,
        append_bytes_max: boundary::APPEND_BYTES_MAX,
        request_timeout: config.request_timeout(),
        name: config.name.clone(),
        client_urls: texts(&config.advertise_client_urls),
        request_ids,
    }
}
