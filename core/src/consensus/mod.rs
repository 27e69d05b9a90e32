//! Consensus: raft-rs behind a seam that speaks etcd's types and withholds what is not yet durable.
//!
//! [`Consensus`] owns the raft group of one member: the log, the term and vote, the followers' progress. It decides
//! when a message may leave and which entries are committed; it never applies an entry and never looks into one.
//!
//! raft-rs hands out numbered `Ready`s. Each one that changes the log or the vote becomes a [`Write`]; its messages
//! wait here until the driver reports that write, except those that promise nothing about this member's disk. A
//! leader's appends leave at once, in parallel with its own sync (Raft thesis, 10.2.1).
//!
//! ```text
//!   Ready 7 --- Write 4 --.                     Written(4)
//!   Ready 8 (no write) ---+-- in_flight [7:4, 8:4] ------> on_persist_ready(8), then the messages of 7 and 8
//! ```
//!
//! Three traps of raft-rs 0.7 are closed here: its election timeouts come from the operating system's entropy
//! (replaced after every call by [`Consensus::reseed`]), a single voter that steps down with a write in flight
//! panics when it elects itself (it does not tick until the write is durable), and a leader drops a read request
//! before its first commit (held back until then).

mod convert;
mod disguise;
mod log;
mod old_entries;
mod proposals;
mod snapshot;

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_proto::raftpb;
use raft::eraftpb;
use raft::{ProgressState, RawNode, ReadOnlyOption, StateRole};

pub use convert::ConvertError;
use log::Log;
pub(crate) use proposals::Proposal;
use snapshot::{Accepted, Restoring};

use crate::boundary::{Config, Output, SnapshotRecord, Write};
use crate::types::{Index, MemberId, Term, WriteNumber};

/// Appends in flight to one follower; etcd's value.
const APPENDS_IN_FLIGHT_MAX: usize = 512;
/// Committed entries handed to apply in one step, in bytes.
const COMMITTED_BYTES_PER_STEP_MAX: u64 = 16 << 20;

/// Where consensus begins.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) hard_state: raftpb::HardState,
    pub(crate) conf_state: raftpb::ConfState,
    /// The log up to here is part of the state.
    pub(crate) snapshot_index: Index,
    pub(crate) snapshot_term: Term,
    /// Entries after the snapshot, oldest first.
    pub(crate) entries: Vec<eraftpb::Entry>,
    /// Entries up to the snapshot that the disk still has: (first index, term) of each run of one term.
    pub(crate) older: Vec<(Index, Term)>,
}

/// What one step of consensus brought.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The log has begun anew after the snapshot that was received: the state is the image's from here on.
    pub(crate) is_restored: bool,
    /// Entries to apply, in order.
    pub(crate) committed: Vec<eraftpb::Entry>,
    /// (context, index) of reads whose leadership is confirmed.
    pub(crate) reads: Vec<(Bytes, Index)>,
}

/// A `Ready` whose messages wait for a write.
#[derive(Debug)]
struct InFlight {
    ready: u64,
    write: WriteNumber,
    messages: Vec<eraftpb::Message>,
}

/// The raft group of one member.
pub(crate) struct Consensus {
    raw: RawNode<Log>,
    member: u64,
    seed: u64,
    election_ticks: u64,
    /// Draws of the election timeout so far.
    draws: u64,
    /// (term, role) after the previous call, to see changes.
    seen: (u64, StateRole),
    in_flight: VecDeque<InFlight>,
    /// The last write that was emitted.
    write_last: WriteNumber,
    /// The last write that must be synced before what follows it may leave.
    write_sync_last: WriteNumber,
    /// The last write known to be durable.
    written: WriteNumber,
    /// A hard state whose only news is the commit index: goes out with the next write.
    commit_unwritten: Option<raftpb::HardState>,
    /// Reads of followers that came before this leader's first commit.
    reads_held: Vec<eraftpb::Message>,
    /// Sending entries that were read back, when they arrive.
    fetch: Option<raft::GetEntriesContext>,
    /// Entries from here on are kept on the disk whatever is purged.
    kept_from: Index,
    /// A snapshot that raft has taken, until its `Ready` comes.
    accepted: Option<Accepted>,
    /// A snapshot that is being installed.
    restoring: Option<Restoring>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.raw.raft;
        write!(
            f,
            "Consensus {{ member: {:x}, term: {}, role: {:?}, ",
            self.member, raft.term, raft.state
        )?;
        write!(
            f,
            "commit: {}, last: {} }}",
            raft.raft_log.committed,
            raft.raft_log.last_index()
        )
    }
}

impl Consensus {
    pub(crate) fn new(config: &Config, start: Start) -> Self {
        let log = Log::new(
            convert::hard_state_in(&start.hard_state),
            convert::conf_state_in(&start.conf_state),
            start.snapshot_index.0,
            start.snapshot_term.0,
            start
                .older
                .iter()
                .map(|&(first, term)| (first.0, term.0))
                .collect(),
            start.entries,
        );
        let raft_config = raft::Config {
            id: config.member.0,
            election_tick: config.election_ticks as usize,
            heartbeat_tick: 1,
            applied: start.snapshot_index.0,
            max_size_per_msg: config.append_bytes_max,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            read_only_option: ReadOnlyOption::Safe,
            // raft-rs joins an append for entries that were rejected to an empty one for a later place: the follower then
            // acknowledges entries that it does not have (docs/bugs.md, Q1). Proposals come in batches anyway.
            batch_append: false,
            max_uncommitted_size: raft::NO_LIMIT,
            max_committed_size_per_ready: COMMITTED_BYTES_PER_STEP_MAX,
            ..raft::Config::default()
        };
        let silent = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, log, &silent)
            .expect("the recovered log and state fit together");
        let mut consensus = Self {
            member: config.member.0,
            seed: config.seed,
            election_ticks: u64::from(config.election_ticks),
            draws: 0,
            seen: (0, StateRole::Follower),
            in_flight: VecDeque::new(),
            write_last: WriteNumber(0),
            write_sync_last: WriteNumber(0),
            written: WriteNumber(0),
            commit_unwritten: None,
            reads_held: Vec::new(),
            fetch: None,
            kept_from: Index(0),
            accepted: None,
            restoring: None,
            raw,
        };
        consensus.reseed();
        consensus
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        let leader = self.raw.raft.leader_id;
        (leader != 0).then_some(MemberId(leader))
    }

    pub(crate) fn committed(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    pub(crate) fn last_index(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    /// The first index that the log on disk has.
    pub(crate) fn first_index(&self) -> Index {
        Index(self.raw.store().first())
    }

    /// Whether this leader has committed an entry of its own term.
    pub(crate) fn has_committed_in_term(&self) -> bool {
        self.raw.raft.commit_to_current_term()
    }

    pub(crate) fn is_single_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.member)
    }

    /// The voter other than this member that can be reached and whose log is the longest, as this leader knows it.
    pub(crate) fn best_successor(&self) -> Option<MemberId> {
        let prs = self.raw.raft.prs();
        let voters = prs.conf().voters();
        let mut best: Option<(bool, u64, u64)> = None;
        for (&id, progress) in prs
            .iter()
            .filter(|&(&id, _)| id != self.member && voters.contains(id))
        {
            // Who has gone counts as active for an election timeout; one that could not be reached is only probed.
            // The id decides between equals, so that the choice does not depend on the order of a map.
            let is_reached = progress.state == ProgressState::Replicate;
            let rank = (is_reached, progress.matched, id);
            if progress.recent_active && best.is_none_or(|found| rank > found) {
                best = Some(rank);
            }
        }
        best.map(|(_, _, id)| MemberId(id))
    }

    pub(crate) fn is_voter(&self, member: MemberId) -> bool {
        self.raw.raft.prs().conf().voters().contains(member.0)
    }

    /// One heartbeat interval has passed.
    pub(crate) fn tick(&mut self) {
        if self.must_wait_for_disk() {
            return;
        }
        self.raw.tick();
        self.reseed();
    }

    /// Becomes leader without waiting for a timeout; for a group of one.
    pub(crate) fn campaign(&mut self) {
        if self.must_wait_for_disk() || self.is_leader() {
            return;
        }
        // It fails only for a member that may not campaign yet; the election timeout tries again.
        let _ = self.raw.campaign();
        self.reseed();
    }

    /// A single voter with a write in flight must not elect itself, nor anybody with a snapshot in flight: raft-rs
    /// would panic.
    fn must_wait_for_disk(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        let is_alone =
            !self.is_leader() && self.is_single_voter() && log.persisted < log.last_index();
        is_alone || self.is_restoring()
    }

    /// Takes a message of another member. Messages that make no sense here are dropped, as a network would.
    pub(crate) fn receive(&mut self, message: raftpb::Message) -> Result<(), ConvertError> {
        let message = convert::message_in(message)?;
        let kind = message.get_msg_type();
        let is_hasty = kind == eraftpb::MessageType::MsgTimeoutNow && self.is_restoring();
        if kind == eraftpb::MessageType::MsgSnapshot || is_hasty {
            return Ok(());
        }
        if self.is_single_voter() && self.raw.raft.prs().get(message.from).is_none() {
            return Ok(());
        }
        if kind == eraftpb::MessageType::MsgAppendResponse && self.is_removed_leader() {
            return Ok(());
        }
        let is_read = kind == eraftpb::MessageType::MsgReadIndex;
        if is_read && self.is_leader() && !self.has_committed_in_term() {
            self.reads_held.push(message);
            return Ok(());
        }
        // A refused message (a dropped proposal, an unknown sender) is a lost message to its sender.
        let _ = self.raw.step(message);
        self.reseed();
        Ok(())
    }

    /// Begins a read; `context` must never have been used before (etcd#20418). It may get no answer.
    pub(crate) fn read_index(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
        self.reseed();
    }

    pub(crate) fn transfer_leader(&mut self, to: MemberId) {
        self.raw.transfer_leader(to.0);
        self.reseed();
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    pub(crate) fn report_unreachable(&mut self, member: MemberId) {
        self.raw.report_unreachable(member.0);
        self.reseed();
    }

    /// Changes the configuration; called when the change is applied.
    pub(crate) fn apply_conf_change(
        &mut self,
        change: &raftpb::ConfChange,
    ) -> Result<raftpb::ConfState, ConvertError> {
        let change = convert::conf_change_in(change)?.unwrap_or_default();
        let state = self
            .raw
            .apply_conf_change(&change)
            .expect("membership has accepted the change");
        self.raw.mut_store().set_conf_state(state.clone());
        self.reseed();
        Ok(convert::conf_state_out(&state))
    }

    /// The configuration that binds now.
    pub(crate) fn conf_state(&self) -> raftpb::ConfState {
        let state = self.raw.raft.prs().conf().to_conf_state();
        raftpb::ConfState {
            voters_outgoing: state.get_voters_outgoing().to_vec(),
            learners_next: state.get_learners_next().to_vec(),
            ..convert::conf_state_out(&state)
        }
    }

    /// Everything up to this write is durable: what waited for it may go.
    pub(crate) fn on_written(&mut self, number: WriteNumber, out: &mut Vec<Output>) {
        assert!(
            number <= self.write_last,
            "write {} was never emitted",
            number.0
        );
        self.written = self.written.max(number);
        let released = self
            .in_flight
            .partition_point(|waiting| waiting.write <= number);
        let released: Vec<_> = self.in_flight.drain(..released).collect();
        let Some(last) = released.last() else { return };
        let ready = last.ready;
        self.persisted(ready);
        self.end_restoring(number);
        self.reseed();
        for message in released.into_iter().flat_map(|waiting| waiting.messages) {
            send(message, out);
        }
    }

    /// Emits a write of entries that are in the log already (those of a bootstrap).
    pub(crate) fn write_bootstrap(
        &mut self,
        entries: Vec<raftpb::Entry>,
        hard_state: raftpb::HardState,
        out: &mut Vec<Output>,
    ) {
        let number = self.next_write(true);
        let hard_state = Some(hard_state);
        out.push(Output::Write(Write {
            number,
            entries,
            hard_state,
            must_sync: true,
            ..Write::default()
        }));
    }

    /// Emits the record of a checkpoint with a hard state that makes it valid (commit >= its index). Entries before
    /// `purge_before` may go then.
    pub(crate) fn write_snapshot_record(
        &mut self,
        record: SnapshotRecord,
        purge_before: Index,
        out: &mut Vec<Output>,
    ) {
        self.commit_unwritten = None;
        self.kept_from = self.kept_from.max(purge_before);
        let number = self.next_write(true);
        let hard_state = Some(convert::hard_state_out(&self.raw.raft.hard_state()));
        let write = Write {
            number,
            hard_state,
            snapshot: Some(record),
            purge_before: Some(self.kept_from),
            must_sync: true,
            ..Write::default()
        };
        out.push(Output::Write(write));
    }

    /// Does what is ready. `None` when there is nothing more to do until the next input.
    pub(crate) fn step(&mut self, out: &mut Vec<Output>) -> Option<Progress> {
        if !self.reads_held.is_empty() && (!self.is_leader() || self.has_committed_in_term()) {
            for message in std::mem::take(&mut self.reads_held) {
                let _ = self.raw.step(message);
            }
        }
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        for message in ready.take_messages() {
            send(message, out);
        }
        let progress = Progress {
            is_restored: !ready.snapshot().is_empty(),
            committed: ready.take_committed_entries(),
            reads: ready
                .take_read_states()
                .into_iter()
                .map(|state| (Bytes::from(state.request_ctx), Index(state.index)))
                .collect(),
        };
        self.log_and_hold(ready, out);
        self.reseed();
        Some(progress)
    }

    /// Makes the log changes of a `Ready` durable and keeps back the messages that depend on it.
    fn log_and_hold(&mut self, mut ready: raft::Ready, out: &mut Vec<Output>) {
        let entries = ready.take_entries();
        let accepted = (!ready.snapshot().is_empty()).then(|| self.restart_log(&ready));
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
            self.commit_unwritten = Some(convert::hard_state_out(hard_state));
        }
        if ready.must_sync() {
            let number = self.next_write(true);
            let mut write = Write {
                number,
                entries: entries.iter().map(convert::entry_out).collect(),
                hard_state: self.commit_unwritten.take(),
                must_sync: true,
                ..Write::default()
            };
            if let Some(Accepted { record, install }) = accepted {
                let index = record.index.0;
                assert!(
                    write.hard_state.is_some_and(|state| state.commit >= index),
                    "a snapshot is committed"
                );
                self.restoring = Some(Restoring {
                    index,
                    write: number,
                });
                self.kept_from = record.index.next();
                write.purge_before = Some(self.kept_from);
                write.install = Some(Box::new(install));
                write.snapshot = Some(record);
            }
            out.push(Output::Write(write));
        }
        self.raw.mut_store().append(entries);
        // Who leads no more has nobody to send a snapshot to.
        let (at_once, waiting) = ready
            .take_persisted_messages()
            .into_iter()
            .filter(|message| message.get_msg_type() != eraftpb::MessageType::MsgSnapshot)
            .partition(promises_nothing);
        for message in at_once {
            send(message, out);
        }
        let number = ready.number();
        self.raw.advance_append_async(ready);
        if self.write_sync_last > self.written {
            self.in_flight.push_back(InFlight {
                ready: number,
                write: self.write_sync_last,
                messages: waiting,
            });
        } else {
            self.persisted(number);
            for message in waiting {
                send(message, out);
            }
        }
    }

    /// The state machine has applied everything up to here.
    pub(crate) fn on_applied(&mut self, index: Index, window_bytes_max: usize) {
        self.raw.advance_apply_to(index.0);
        self.raw.mut_store().shrink(index.0, window_bytes_max);
    }

    /// What these `Ready`s changed is durable.
    fn persisted(&mut self, ready: u64) {
        if !self.is_removed_leader() {
            self.raw.on_persist_ready(ready);
        }
    }

    /// A leader that was removed is in no quorum any more: whenever something is committed, raft-rs would look for its
    /// progress, and panic. Its heartbeats still tell the others that the removal is committed.
    fn is_removed_leader(&self) -> bool {
        self.is_leader() && self.raw.raft.prs().get(self.member).is_none()
    }

    fn next_write(&mut self, must_sync: bool) -> WriteNumber {
        self.write_last = WriteNumber(self.write_last.0 + 1);
        if must_sync {
            self.write_sync_last = self.write_last;
        }
        self.write_last
    }

    /// Replaces the election timeout that raft-rs drew from the system by one drawn from the seed.
    fn reseed(&mut self) {
        let raft = &mut self.raw.raft;
        let now = (raft.term, raft.state);
        if now == self.seen && raft.election_elapsed != 0 {
            return;
        }
        self.seen = now;
        self.draws += 1;
        let draw = scramble(
            self.seed ^ scramble(self.member) ^ self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let ticks = self.election_ticks + draw % self.election_ticks;
        raft.set_randomized_election_timeout(usize::try_from(ticks).expect("a small number"));
    }

    /// Invariants of the log and its bookkeeping, by name; see `node::Node::check`.
    pub(crate) fn check(&self) {
        let log = &self.raw.raft.raft_log;
        assert!(log.applied <= log.committed, "applied_not_beyond_committed");
        assert!(
            log.committed <= log.last_index(),
            "committed_not_beyond_last"
        );
        assert!(
            log.persisted <= log.last_index(),
            "persisted_not_beyond_last"
        );
        assert!(
            self.written <= self.write_last,
            "written_not_beyond_emitted"
        );
        assert!(
            self.in_flight
                .iter()
                .all(|waiting| waiting.write > self.written),
            "nothing_waits_for_a_write_that_is_durable"
        );
    }
}

/// Whether a follower's message may leave before its disk is done: it makes no statement about term, vote or log
/// that a crash could take back. These are the ones that etcd's raft sends at once, too.
fn promises_nothing(message: &eraftpb::Message) -> bool {
    use eraftpb::MessageType::{MsgHeartbeatResponse, MsgPropose, MsgReadIndex, MsgReadIndexResp};
    matches!(
        message.get_msg_type(),
        MsgHeartbeatResponse | MsgReadIndex | MsgReadIndexResp | MsgPropose
    )
}

fn send(message: eraftpb::Message, out: &mut Vec<Output>) {
    let to = MemberId(message.to);
    let is_snapshot = message.get_msg_type() == eraftpb::MessageType::MsgSnapshot;
    let message = convert::message_out(message);
    out.push(if is_snapshot {
        Output::SendSnapshot { to, message }
    } else {
        Output::Send { to, message }
    });
}

/// A 64-bit mix (SplitMix64's finaliser): spreads a counter over all bits.
fn scramble(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The encoded change of the members that an entry holds.
pub(crate) fn change_in(entry: &eraftpb::Entry) -> Bytes {
    convert::payload(entry)
}

/// Entries as the log of consensus holds them.
pub(crate) fn entries_in(entries: Vec<raftpb::Entry>) -> Result<Vec<eraftpb::Entry>, ConvertError> {
    entries.into_iter().map(convert::entry_in).collect()
}
