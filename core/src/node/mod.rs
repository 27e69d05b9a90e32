//! The node: one member's state machine, from input to output.
//!
//! [`Node`] joins consensus, the applied state and those who wait. It decides what happens next and in which order;
//! the parts compute. Nothing leaves before [`Node::flush`], and what leaves is safe to carry out in any tempo.
//!
//! ```text
//!   handle(now, input)* ──► proposals, reads, consensus
//!   flush(out)          ──► loop: upkeep · propose what is queued · begin a read round · one step of consensus
//!                                 └─ committed entries ─► apply ─► replies
//!                                 └─ log changes ───────► Write ... Written ─► messages that depended on it
//! ```
//!
//! Architecture invariant: time is only what `handle` was told; a stall of the driver is not time (at most one
//! election timeout of ticks is made up).

mod alone;
mod applying;
mod check;
mod corruption;
mod measure;
mod membership;
mod recover;
mod renewals;
mod snapshots;
mod upkeep;
mod versions;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

pub use alone::Forced;
pub use measure::{Applied, Counts, LEASE_TTL_BOUNDS};
pub use recover::{LogContents, RecoverError, Recovered};
pub use snapshots::ReceivedImage;

use crate::apply::State;
use crate::auth::{self, AuthView};
use crate::boundary::{Config, Input, Output, Request, RequestIds, Response};
use crate::checkpoint::Downgrade;
use crate::consensus::{self, Consensus, Proposal};
use crate::error::RequestError;
use crate::mvcc::View;
use crate::types::{Index, MemberId, Revision, Term, Ticket, Time};
use corruption::Comparisons;
use renewals::Renewals;
use snapshots::{Incoming, Sending};
use upkeep::{Checkpoints, Leadership, Upkeep};
use waiting::{Proposals, Reads};

/// The version of etcd that this member behaves as.
pub const ETCD_VERSION: &str = "3.7.1";

/// Unanswered proposals and reads of clients; more are refused with `too many requests`.
const OPEN_REQUESTS_MAX: usize = 1 << 16;
/// A read round without an answer for this long is begun anew; etcd's value.
const READ_RETRY: Duration = Duration::from_millis(500);

/// One member's state machine.
#[derive(Debug)]
pub struct Node {
    /// Fixed.
    config: Config,
    /// The Raft group.
    consensus: Consensus,
    /// What the log has built.
    state: State,
    /// Proposals without an answer.
    proposals: Proposals,
    /// Linearizable reads without an answer.
    reads: Reads,
    /// Renewals without an answer. Each unconfirmed one is among the reads, too.
    renewals: Renewals,
    /// Physical compactions whose rows are still being removed.
    compactions: Vec<(Ticket, Response)>,
    /// Leader changes.
    leadership: Leadership,
    /// What the member does by itself.
    upkeep: Upkeep,
    /// Checkpoints.
    checkpoints: Checkpoints,
    /// Comparisons of the members' data.
    comparisons: Comparisons,
    /// A snapshot that raft has not seen yet.
    incoming: Option<Incoming>,
    /// The state of the snapshot that raft has taken, until the log begins anew.
    accepted: Option<Box<State>>,
    /// Snapshots that were sent lately.
    sending: BTreeMap<MemberId, Sending>,
    /// Since when the links to other members are up.
    active_since: BTreeMap<MemberId, Time>,
    /// When this member ends, once it was removed; until then it serves nobody, but tells the others what it knows.
    leaving: Option<Time>,
    /// Ids of the requests that the node makes itself.
    ids: RequestIds,
    /// The time of the last input; never goes back.
    now: Time,
    /// When the next tick is due.
    tick_due: Time,
    /// What those who measure want to know.
    measured: measure::Measured,
    /// What `flush` will hand out.
    out: Vec<Output>,
    /// (revision, compact revision) that the watch hubs were last told of.
    announced: (Revision, Revision),
    /// The lists of members and alarms as clients see them, made once per change.
    members: Arc<Vec<pb::Member>>,
    removed: Arc<Vec<MemberId>>,
    alarms: Arc<Vec<pb::AlarmMember>>,
    /// What other members run, as the shell learned; `None` for one that cannot be reached.
    peer_versions: BTreeMap<u64, Option<String>>,
    /// Entries up to here were in the log before this process began.
    logins_after: Index,
    /// Set once: nothing happens any more.
    stopped: bool,
}

/// What a member knows of itself and its cluster, for those who only look: services, metrics, health.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The leader, if one is known.
    pub leader: Option<MemberId>,
    /// Whether this member is a learner.
    pub is_learner: bool,
    /// Whether this member has made its name and client URLs known, which is when it may serve clients.
    pub is_published: bool,
    /// The current term.
    pub term: Term,
    /// The commit index.
    pub committed: Index,
    /// The applied index.
    pub applied: Index,
    /// Alarms raised anywhere in the cluster, sorted.
    pub alarms: Arc<Vec<pb::AlarmMember>>,
    /// All members, sorted by id.
    pub members: Arc<Vec<pb::Member>>,
    /// Ids that were members once, ascending.
    pub removed: Arc<Vec<MemberId>>,
    /// The cluster version (`X.Y.0`), once decided.
    pub cluster_version: Option<String>,
    /// The last downgrade that was begun or ended.
    pub downgrade: Option<Downgrade>,
    /// Whether this member's disk holds nothing of the version from which the cluster is going down.
    pub is_ready_for_downgrade: bool,
    /// Bytes counted against the quota.
    pub size_bytes: u64,
    /// Bytes in use after compaction.
    pub size_in_use_bytes: u64,
    /// Proposals waiting for their answer.
    pub proposals_pending: usize,
    /// Leader changes seen, the first leader included.
    pub leader_changes: u64,
}

impl Node {
    /// A member as it stood when it last stopped, or a new one.
    pub fn new(config: Config, recovered: Recovered, now: Time) -> Self {
        let Recovered {
            hard_state,
            snapshot_index,
            snapshot_term,
            entries,
            older,
            state,
            is_bootstrap,
        } = recovered;
        // Not the commit index: it reaches the disk later than what it commits.
        let logins_after = entries
            .last()
            .map_or(snapshot_index, |entry| Index(entry.index));
        let bootstrap = is_bootstrap.then(|| (entries.clone(), hard_state));
        let checkpoints = Checkpoints::new(&state);
        let start = consensus::Start {
            hard_state,
            conf_state: state.membership.conf_state(),
            snapshot_index,
            snapshot_term,
            entries: consensus::entries_in(entries).expect("recovery has looked at every entry"),
            older,
        };
        let mut node = Self {
            consensus: Consensus::new(&config, start),
            proposals: Proposals::default(),
            reads: Reads::default(),
            renewals: Renewals::new(),
            compactions: Vec::new(),
            leadership: Leadership::new(now),
            upkeep: Upkeep::new(now),
            checkpoints,
            comparisons: Comparisons::new(
                now,
                config.corrupt_check_interval,
                config.compact_hash_check_interval,
            ),
            incoming: None,
            accepted: None,
            sending: BTreeMap::new(),
            active_since: BTreeMap::new(),
            leaving: None,
            ids: config.request_ids.clone(),
            now,
            tick_due: now.after(config.tick),
            measured: measure::Measured::default(),
            out: Vec::new(),
            announced: (state.store.revision(), state.store.compact_revision()),
            members: Arc::default(),
            removed: Arc::default(),
            alarms: Arc::default(),
            peer_versions: BTreeMap::new(),
            logins_after,
            stopped: false,
            state,
            config,
        };
        if let Some((entries, hard_state)) = bootstrap {
            node.consensus
                .write_bootstrap(entries, hard_state, &mut node.out);
        }
        let checkpoint = node.checkpoints.record.clone();
        node.consensus.offer_checkpoint(checkpoint.as_ref());
        if node.state.membership.is_removed(node.config.member) {
            node.say_farewell();
        }
        node.refresh_alarms();
        node.announce_peers();
        node.shorten_first_election();
        node
    }

    /// Takes one input. Nothing leaves before [`Node::flush`].
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        if self.stopped {
            return;
        }
        match input {
            Input::Wake => {}
            Input::Receive { from, message } => self.on_message(from, message),
            Input::Request { ticket, .. } if self.leaving.is_some() => {
                self.reply(ticket, Err(RequestError::Stopped));
            }
            Input::Request { ticket, request } => self.on_request(ticket, request),
            Input::Written(number) => self.consensus.on_written(number, &mut self.out),
            Input::EntriesRead { first, entries } => self.consensus.on_entries_read(first, entries),
            Input::Checkpointed { index, done } => self.on_checkpointed(index, done),
            Input::SnapshotReceived {
                from,
                message,
                image,
            } => self.on_snapshot(from, message, image),
            Input::SnapshotSent { to, done } => self.on_snapshot_sent(to, done),
            Input::HashesGathered(gathered) => self.on_gathered(gathered),
            Input::Unreachable(member) => self.consensus.report_unreachable(member),
            Input::PeerActivity { member, is_active } => self.on_activity(member, is_active),
            Input::PeerVersion { member, version } => {
                self.peer_versions.insert(member.0, version);
            }
        }
        self.run_ticks();
    }

    /// Moves everything that may leave now into `out`, in order. Call once per batch of inputs.
    pub fn flush(&mut self, out: &mut Vec<Output>) {
        while !self.stopped {
            self.run_upkeep();
            self.take_incoming();
            self.propose_queued();
            self.begin_read_round();
            let Some(progress) = self.consensus.step(&mut self.out) else {
                break;
            };
            if progress.is_restored {
                self.restore();
            }
            for (context, index) in progress.reads {
                self.reads.confirm(&context, index);
            }
            self.apply_committed(progress.committed);
        }
        self.consensus.request_old_entries(&mut self.out);
        self.release_reads();
        self.retry_renewals();
        self.announce_store();
        self.note_snapshots_sent();
        self.leave_when_due();
        out.append(&mut self.out);
    }

    /// When to call `handle(Wake)` at the latest: the only timer.
    pub fn deadline(&self) -> Time {
        if self.stopped {
            return Time::NEVER;
        }
        // A compaction that waits for a reader is tried again at the next tick: until then it would only spin.
        if self.state.store.is_compacting() && !self.state.store.is_compaction_held() {
            return self.now;
        }
        let read_retry = match self.reads.newest_began() {
            Some(began) if self.can_confirm_reads() => began.after(READ_RETRY),
            _ => Time::NEVER,
        };
        // Leases that end while nothing can be proposed are seen to at the next tick after that.
        let leases = if self.may_propose_own() {
            self.state.lessor.deadline()
        } else {
            Time::NEVER
        };
        self.tick_due
            .min(leases)
            .min(read_retry)
            .min(self.leaving.unwrap_or(Time::NEVER))
    }

    /// A handle to read the store with.
    pub fn view(&self) -> View {
        self.state.store.view()
    }

    /// A handle to ask who may do what.
    pub fn auth(&self) -> AuthView {
        self.state.auth.view()
    }

    /// What the outside may know.
    pub fn status(&self) -> Status {
        let me = self.state.membership.member(self.config.member);
        Status {
            leader: self.consensus.leader(),
            is_learner: me.is_some_and(|member| member.is_learner),
            is_published: self.upkeep.is_published,
            term: self.consensus.term(),
            committed: self.consensus.committed(),
            applied: self.state.index,
            alarms: Arc::clone(&self.alarms),
            members: Arc::clone(&self.members),
            removed: Arc::clone(&self.removed),
            cluster_version: self.state.cluster_version.clone(),
            downgrade: self.state.downgrade.clone(),
            is_ready_for_downgrade: self.is_ready_for_downgrade(),
            size_bytes: self.state.store.size_bytes(),
            size_in_use_bytes: self.state.store.size_bytes(),
            proposals_pending: self.proposals.open_count(),
            leader_changes: self.leadership.changes,
        }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.consensus.term()
    }

    /// The commit index.
    pub fn committed(&self) -> Index {
        self.consensus.committed()
    }

    /// The index up to which the state has applied the log.
    pub fn applied(&self) -> Index {
        self.state.index
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.consensus.is_leader()
    }

    /// Who votes and who learns, as Raft counts them at this moment.
    pub fn conf_state(&self) -> quorate_proto::raftpb::ConfState {
        self.consensus.conf_state()
    }

    fn on_message(&mut self, from: MemberId, message: quorate_proto::raftpb::Message) {
        // The transport knows who speaks; a message that claims another sender is not from a member.
        if message.from == from.0 && !self.state.membership.is_removed(from) {
            // What cannot be understood is dropped, as if the network had lost it.
            let _ = self.consensus.receive(message);
        }
    }

    fn on_request(&mut self, ticket: Ticket, request: Request) {
        if self.proposals.open_count() + self.reads.open_count() >= OPEN_REQUESTS_MAX {
            return self.reply(ticket, Err(RequestError::RequestTooManyRequests));
        }
        match request {
            Request::Propose(payload) => {
                self.proposals
                    .open(self.now, ticket, Proposal::Request(payload));
            }
            Request::ChangeMembers(change) => self.on_change(ticket, &change),
            Request::ReadIndex => self.reads.arrive(self.now, ticket),
            Request::LeaseRenew(id) => self.on_renew(ticket, id),
            Request::LeaseTimeToLive { id, keys } => {
                let answer = self.state.lessor.time_to_live(self.now, id, keys);
                self.reply(ticket, answer.map(Response::LeaseTimeToLive));
            }
            Request::LeaseLeases => {
                let leases = self.state.lessor.leases();
                let leases = leases
                    .into_iter()
                    .map(|id| pb::LeaseStatus { id: id.0 })
                    .collect();
                self.reply(
                    ticket,
                    Ok(Response::LeaseLeases(pb::LeaseLeasesResponse {
                        header: None,
                        leases,
                    })),
                );
            }
            Request::PermitLease { who, id, writes } => {
                let State { auth, lessor, .. } = &self.state;
                let permitted = auth::permit_lease(auth.rules(), lessor, &who, id, writes);
                self.reply(ticket, permitted.map(|()| Response::Permitted));
            }
            Request::TransferLeader(target) => self.on_transfer(ticket, target),
            Request::Checkpoint => self.checkpoints.waiting.push(ticket),
            Request::Image => self.checkpoints.images.push(ticket),
        }
    }

    fn reply(&mut self, ticket: Ticket, result: Result<Response, RequestError>) {
        self.out.push(Output::Reply { ticket, result });
    }

    /// Gives everything that is queued to consensus, as one batch.
    fn propose_queued(&mut self) {
        let may_change = !self.consensus.has_pending_change();
        let proposals = self.proposals.queued(may_change);
        if !proposals.is_empty() && self.consensus.propose(proposals) {
            self.proposals.on_accepted(may_change);
        }
    }

    /// Proposes something of this member's own.
    fn propose_own(&mut self, request: pb::InternalRaftRequest) {
        let id = self.ids.take();
        let ends_lease = request.lease_revoke.is_some();
        let header = Some(self.state.auth.own_header(id, ends_lease));
        let payload = pb::InternalRaftRequest { header, ..request }.encode_to_vec();
        self.proposals.queue(Ticket(id), Bytes::from(payload));
    }

    /// Confirms leadership for all reads that wait, in one round of heartbeats.
    fn begin_read_round(&mut self) {
        let began_last = self.now.0.checked_sub(nanos(READ_RETRY)).map(Time);
        if self.reads.may_begin(began_last) && self.can_confirm_reads() {
            let context = self.ids.take().to_be_bytes();
            self.reads.begin(self.now, Bytes::copy_from_slice(&context));
            self.consensus.read_index(context.to_vec());
        }
    }

    /// Whether there is a leader that answers.
    fn can_confirm_reads(&self) -> bool {
        match self.consensus.leader() {
            None => false,
            Some(leader) if leader == self.config.member => self.consensus.has_committed_in_term(),
            Some(_) => true,
        }
    }

    fn release_reads(&mut self) {
        for ticket in self.reads.release(self.state.index) {
            if !self.confirm_renewal(ticket) && !self.confirm_comparison(ticket) {
                self.reply(ticket, Ok(Response::ReadReady));
            }
        }
    }

    fn announce_store(&mut self) {
        let now = (
            self.state.store.revision(),
            self.state.store.compact_revision(),
        );
        if now != self.announced {
            self.announced = now;
            self.out.push(Output::StoreAdvanced);
        }
    }

    fn announce_peers(&mut self) {
        self.members = Arc::new(self.state.membership.to_proto());
        self.removed = Arc::new(self.state.membership.removed().collect());
        self.out.push(Output::Peers(
            self.state.membership.peers_of(self.config.member),
        ));
    }

    fn refresh_alarms(&mut self) {
        let alarms = self
            .state
            .alarms
            .iter()
            .map(|&(member_id, alarm)| pb::AlarmMember { member_id, alarm });
        self.alarms = Arc::new(alarms.collect());
    }

    fn stop(&mut self, reason: String) {
        self.stopped = true;
        self.out.push(Output::Stop(reason));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a short duration")
}
