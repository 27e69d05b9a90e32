//! The consensus thread: the one owner of the `Node`.
//!
//! ```text
//!   inbox (all that waits) ──► node.handle × n ──► node.flush ──► publish the status ──► route
//!                                                                                         │
//!        writes ► log writer    sends ► peers    answers ► the core that asked (one batch, one wake-up each)
//! ```
//!
//! It never touches a file or a socket, and never waits for anything but its inbox (`host` does that for it).

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use quorate_core::boundary::{Input, Output};
use quorate_core::node::{Node, Status};
use quorate_core::types::Time;
use tracing::{error, info};

use super::checkpointer;
use super::clock::Clock;
use super::log_writer;
use super::queue::Queue;
use super::tickets::slot_of;
use crate::comparison::{self, Question};
use crate::host::Worker;
use crate::io::mailbox::{Mailbox, Reply};
use crate::log::lines;
use crate::peer::Peers;
use crate::state::ServerState;

/// Everything that the consensus thread hands its outputs to.
#[derive(Debug)]
pub(crate) struct Exits {
    /// One mailbox an asking thread, by the slot of its tickets.
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) log: Arc<Queue<log_writer::Work>>,
    pub(crate) checkpoints: Arc<Queue<checkpointer::Work>>,
    pub(crate) peers: Peers,
    /// Asks members for the hashes of their data.
    pub(crate) comparisons: tokio::sync::mpsc::UnboundedSender<Question>,
    /// Told once, when the node itself wants to end.
    pub(crate) stop: tokio::sync::mpsc::UnboundedSender<String>,
}

/// The state of the consensus thread.
#[derive(Debug)]
pub(crate) struct Consensus {
    node: Node,
    clock: Clock,
    state: Arc<ServerState>,
    exits: Exits,
    /// Answers of this batch by slot, each list reused.
    replies: Vec<Vec<Reply>>,
    /// Work of this batch for the log writer.
    log_work: Vec<log_writer::Work>,
    /// What the node said to this batch, reused.
    outputs: Vec<Output>,
    store_advanced: bool,
    published: Status,
}

impl Worker for Consensus {
    type Item = Input;

    fn deadline(&self) -> Option<Instant> {
        self.clock.instant(self.node.deadline())
    }

    fn work(&mut self, inputs: &mut Vec<Input>) {
        let (deadline, now) = (self.node.deadline(), self.clock.now());
        let work = &self.state.metrics.work;
        work.consensus_batch.observe_units(inputs.len() as u64);
        self.handle(now, deadline, inputs);
        let mut outputs = std::mem::take(&mut self.outputs);
        self.node.flush(&mut outputs);
        self.take_up_tokens(&mut outputs);
        self.publish();
        self.measure();
        for output in outputs.drain(..) {
            self.route(output);
        }
        self.outputs = outputs;
        self.hand_over();
    }

    fn end(self) {
        for mailbox in &self.exits.mailboxes {
            mailbox.stopped();
        }
    }
}

impl Consensus {
    pub(crate) fn new(mut node: Node, clock: Clock, state: Arc<ServerState>, exits: Exits) -> Self {
        assert!(
            exits.mailboxes.len().is_power_of_two(),
            "tickets are dealt by a mask"
        );
        let replies = exits.mailboxes.iter().map(|_| Vec::new()).collect();
        let published = node.status();
        node.set_stopwatch(since_first_asked);
        Self {
            node,
            clock,
            state,
            exits,
            replies,
            log_work: Vec::new(),
            outputs: Vec::new(),
            store_advanced: false,
            published,
        }
    }

    fn handle(&mut self, now: Time, deadline: Time, inputs: &mut Vec<Input>) {
        // First the timer: inputs without end must not keep it from running.
        if inputs.is_empty() || deadline <= now {
            self.node.handle(now, Input::Wake);
        }
        for input in inputs.drain(..) {
            self.node.handle(now, input);
        }
    }

    /// Who sees in the status that a login is applied must find its token.
    fn take_up_tokens(&self, outputs: &mut Vec<Output>) {
        outputs.retain_mut(|output| match output {
            Output::Token(change) => {
                self.state.guard.on_change(change.clone());
                false
            }
            _ => true,
        });
    }

    /// Shows the new status before any answer of this batch leaves.
    fn publish(&mut self) {
        let status = self.node.status();
        if status != self.published {
            if status.leader != self.published.leader {
                log_leader(&self.published, &status);
            }
            log_versions(&self.published, &status);
            self.state.publish(status.clone());
            self.published = status;
        }
    }

    /// Passes on what the node has measured of this batch.
    fn measure(&mut self) {
        let (work, slow) = (&self.state.metrics.work, self.state.limits.slow_apply);
        for applied in self.node.take_applied() {
            work.request_applied(&applied, slow);
            if applied.took > slow {
                lines::slow_apply(&applied, slow);
            }
        }
        if let Some(took) = work.publish(self.node.counts()) {
            lines::finished_compaction(self.state.view.compact_revision(), took);
        }
    }

    fn route(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.exits.peers.send(to, message),
            Output::Write(write) => self.log_work.push(log_writer::Work::Append(write)),
            Output::ReadEntries {
                first,
                last,
                bytes_max,
            } => {
                self.log_work.push(log_writer::Work::Read {
                    first,
                    last,
                    bytes_max,
                });
            }
            Output::Checkpoint(job) => self.exits.checkpoints.push(checkpointer::Work::Write(job)),
            Output::Reply { ticket, result } => {
                let slot = slot_of(ticket, self.replies.len());
                self.replies[slot].push(Reply { ticket, result });
            }
            Output::SendSnapshot { to, message } => {
                let message = Box::new(message);
                let work = checkpointer::Work::Send { to, message };
                self.exits.checkpoints.push(work);
            }
            Output::Discard(install) => self.log_work.push(log_writer::Work::Discard(install)),
            Output::GatherHashes {
                number,
                revision,
                peers,
            } => {
                let question = Question {
                    number,
                    revision,
                    peers,
                };
                // The peer thread ends before this one; then nothing is compared any more.
                let _ = self.exits.comparisons.send(question);
            }
            Output::Compared(findings) => comparison::log_findings(self.state.member, &findings),
            Output::StoreAdvanced => self.store_advanced = true,
            Output::Token(_) => unreachable!("taken up before"),
            Output::Peers(peers) => self.exits.peers.update(peers),
            Output::Stop(reason) => {
                error!(reason = %reason, "the member stops");
                // The main thread may be gone already: then the process is ending anyway.
                let _ = self.exits.stop.send(reason);
            }
        }
    }

    /// Wakes whoever this batch is for.
    fn hand_over(&mut self) {
        self.exits.log.append(&mut self.log_work);
        self.exits.peers.flush();
        let advanced = std::mem::take(&mut self.store_advanced);
        for (mailbox, replies) in self.exits.mailboxes.iter().zip(&mut self.replies) {
            mailbox.deliver(replies, advanced);
        }
    }
}

/// The node's stopwatch.
fn since_first_asked() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn log_leader(before: &Status, after: &Status) {
    let id = |status: &Status| {
        status
            .leader
            .map_or_else(|| "none".to_owned(), |leader| format!("{:x}", leader.0))
    };
    info!(term = after.term.0, before = %id(before), leader = %id(after), "raft leader changed");
}

/// What operators who change the cluster's version wait for.
fn log_versions(before: &Status, after: &Status) {
    if before.cluster_version != after.cluster_version {
        let from = before.cluster_version.as_deref().unwrap_or_default();
        let to = after.cluster_version.as_deref().unwrap_or_default();
        let what = if from.is_empty() {
            "set initial cluster version"
        } else {
            "updated cluster version"
        };
        info!(from, to, "{what}");
    }
    let downgrade = after.downgrade.as_ref();
    if after.is_ready_for_downgrade && !before.is_ready_for_downgrade {
        let target = downgrade.map_or("", |downgrade| &downgrade.target_version);
        info!(
            "target-version" = target,
            "server-version" = crate::config::ETCD_VERSION,
            "The server is ready to downgrade"
        );
    }
}
