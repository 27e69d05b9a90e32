//! When members are compared, and what follows: the leader asks at fixed intervals, and has the alarm raised for those
//! whose data differ.
//!
//! Two comparisons, as in etcd: one of everything at the newest revision, one of the hashes that compactions left behind.
//! One goes on at a time. What the hashes mean is decided in [`crate::corruption`].
//!
//! ```text
//!   everything:   gather own + others' ─► linearizable read ─► gather own ─► compare
//!   compactions:  newest one not settled: gather others' ─► compare ─► all have it: settled
//!                                                              └─► not all: the one before it
//! ```

use std::time::Duration;

use quorate_proto::etcdserverpb as pb;

use super::Node;
use crate::boundary::{Gathered, Output};
use crate::corruption::{
    Agreement, Finding, FirstLook, PeerHash, compare_compaction, compare_with_leader,
};
use crate::mvcc::HashKv;
use crate::types::{MemberId, Revision, Ticket, Time};

/// The comparisons of this member.
#[derive(Debug)]
pub(super) struct Comparisons {
    everything_due: Time,
    compactions_due: Time,
    /// Names what is gathered; an answer to an earlier question means nothing.
    asked: u64,
    stage: Stage,
    /// Compactions up to here are equal on all members.
    settled: Revision,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// Everything: own hash and the others'.
    First,
    /// Everything: the read that makes this member's revision the newest.
    Reading(Ticket, FirstLook, Vec<PeerHash>),
    /// Everything: own hash again.
    Second(FirstLook, Vec<PeerHash>),
    /// Compactions: the last of the list is asked for, the others are older.
    Compactions(Vec<HashKv>),
}

impl Comparisons {
    pub(super) fn new(now: Time, everything: Duration, compactions: Option<Duration>) -> Self {
        Self {
            everything_due: match everything {
                Duration::ZERO => Time::NEVER,
                interval => now.after(interval),
            },
            compactions_due: compactions.map_or(Time::NEVER, |interval| now.after(interval)),
            asked: 0,
            stage: Stage::Idle,
            settled: Revision(0),
        }
    }
}

impl Node {
    /// Begins a comparison whose time has come.
    pub(super) fn compare_when_due(&mut self) {
        let comparisons = &mut self.comparisons;
        let is_idle = matches!(comparisons.stage, Stage::Idle);
        if comparisons.everything_due <= self.now && is_idle {
            comparisons.everything_due = self.now.after(self.config.corrupt_check_interval);
            if self.consensus.is_leader() {
                self.comparisons.stage = Stage::First;
                self.gather(None, self.others());
            }
            return;
        }
        if comparisons.compactions_due <= self.now && is_idle {
            let interval = self.config.compact_hash_check_interval;
            comparisons.compactions_due = self.now.after(interval.expect("it was due"));
            if self.consensus.is_leader() {
                let settled = comparisons.settled;
                let mut hashes = self.state.store.view().compaction_hashes();
                hashes.retain(|hash| hash.hash_revision > settled);
                hashes.sort_unstable_by_key(|hash| hash.hash_revision);
                self.ask_for_compaction(hashes);
            }
        }
    }

    /// The shell has gathered what it was asked for.
    pub(super) fn on_gathered(&mut self, gathered: Gathered) {
        if gathered.number != self.comparisons.asked {
            return;
        }
        let stage = std::mem::replace(&mut self.comparisons.stage, Stage::Idle);
        match (stage, gathered.own) {
            (Stage::First, Some(Ok(own))) => {
                let ticket = Ticket(self.ids.take());
                self.reads.arrive(self.now, ticket);
                let first = FirstLook {
                    hash: own.hash,
                    // Where no key is left the hashes of equal members may differ.
                    is_telling: self.view().is_telling_at(own.hash.hash_revision),
                };
                self.comparisons.stage = Stage::Reading(ticket, first, gathered.peers);
            }
            (Stage::Second(first, peers), Some(Ok(second))) => {
                let leader = self.config.member;
                let findings = compare_with_leader(leader, first, second, &peers);
                let damage = findings.iter().find(|finding| finding.kind.is_damage());
                if let Some(member) = damage.map(|finding| finding.member) {
                    self.raise_corrupt(member);
                }
                self.report(findings);
            }
            (Stage::Compactions(hashes), _) => self.judge_compaction(hashes, &gathered.peers),
            // The store could not be hashed: the next time will show.
            _ => {}
        }
    }

    /// The read of a comparison may go on; `false` if the ticket is none of it.
    pub(super) fn confirm_comparison(&mut self, ticket: Ticket) -> bool {
        if !matches!(self.comparisons.stage, Stage::Reading(own, ..) if own == ticket) {
            return false;
        }
        let stage = std::mem::replace(&mut self.comparisons.stage, Stage::Idle);
        if let Stage::Reading(_, first, peers) = stage {
            self.comparisons.stage = Stage::Second(first, peers);
            self.gather(None, Vec::new());
        }
        true
    }

    /// The read of a comparison waited for too long; `false` if the ticket is none of it.
    pub(super) fn give_up_comparison(&mut self, ticket: Ticket) -> bool {
        let is_own = matches!(self.comparisons.stage, Stage::Reading(own, ..) if own == ticket);
        if is_own {
            self.comparisons.stage = Stage::Idle;
        }
        is_own
    }

    fn judge_compaction(&mut self, mut hashes: Vec<HashKv>, peers: &[PeerHash]) {
        let own = hashes.pop().expect("one was asked for");
        match compare_compaction(self.config.member, own, peers) {
            Agreement::All if !peers.is_empty() => {
                let settled = &mut self.comparisons.settled;
                *settled = own.hash_revision.max(*settled);
            }
            Agreement::All | Agreement::Incomplete => self.ask_for_compaction(hashes),
            Agreement::Broken(findings) => {
                for finding in &findings {
                    self.raise_corrupt(finding.member);
                }
                self.report(findings);
            }
        }
    }

    /// Asks the others for the newest of these.
    fn ask_for_compaction(&mut self, hashes: Vec<HashKv>) {
        let others = self.others();
        match hashes.last() {
            Some(newest) if !others.is_empty() => {
                let revision = newest.hash_revision;
                self.comparisons.stage = Stage::Compactions(hashes);
                self.gather(Some(revision), others);
            }
            _ => self.comparisons.stage = Stage::Idle,
        }
    }

    fn gather(&mut self, revision: Option<Revision>, peers: Vec<MemberId>) {
        self.comparisons.asked += 1;
        self.out.push(Output::GatherHashes {
            number: self.comparisons.asked,
            revision,
            peers,
        });
    }

    fn report(&mut self, findings: Vec<Finding>) {
        if !findings.is_empty() {
            self.out.push(Output::Compared(findings));
        }
    }

    /// All members but this one, learners too, by id.
    fn others(&self) -> Vec<MemberId> {
        let members = self.state.membership.members().map(|member| member.id);
        members.filter(|id| *id != self.config.member).collect()
    }

    /// Zero is the whole cluster.
    fn raise_corrupt(&mut self, member: MemberId) {
        let alarm = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Activate as i32,
            member_id: member.0,
            alarm: pb::AlarmType::Corrupt as i32,
        };
        self.propose_own(pb::InternalRaftRequest {
            alarm: Some(alarm),
            ..Default::default()
        });
    }
}
