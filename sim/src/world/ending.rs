//! The end of a run: everything heals, and then it must work.
//!
//! ```text
//!   Safety ──heal──► Settling ──settled──► (power loss of all, if the run has that) ──► Settling ──► over
//! ```
//!
//! Settled means: all members run and have applied everything, each of them has answered a new write and a new
//! linearizable read, no request is without an answer, every watch has heard everything, and all states are equal.

use std::collections::BTreeMap;

use quorate_core::types::{MemberId, Revision};

use super::clients::PROBE;
use super::machine::OpenRequest;
use super::{Event, World};
use crate::check::Violation;
use crate::check::convergence::{self, Ending};

/// How often it is looked at.
const LOOK_NS: u64 = 100_000_000;

/// Where a run stands.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Load and faults together.
    Safety,
    /// Healed, and judged.
    Settling {
        /// It must have settled by then.
        until_ns: u64,
        /// What each member has answered since: (writes, reads).
        answered: BTreeMap<MemberId, (u64, u64)>,
        /// Whether the power loss at the end is over, or there is none.
        is_last: bool,
    },
}

impl World {
    pub(super) fn is_safety(&self) -> bool {
        matches!(self.stage, Stage::Safety)
    }

    /// Load and faults end.
    pub(super) fn heal(&mut self) {
        self.trace
            .event(self.now_ns, &[9], &[], || "everything heals");
        self.network.calm();
        self.heal_network();
        let members: Vec<_> = self.machines.keys().copied().collect();
        for member in members {
            let machine = self.machines.get_mut(&member).expect("a member");
            machine.is_slow = false;
            machine.disk.heal();
            if machine.is_paused {
                self.resume(member);
            }
        }
        self.options.disk.stall_ppm = 0;
        self.begin_settling(!self.options.final_power_loss);
    }

    fn begin_settling(&mut self, is_last: bool) {
        let election_ns = self.options.election().as_nanos() as u64;
        let patience_ns = self.options.request_timeout.as_nanos() as u64;
        let until_ns = self.now_ns + 30_000_000_000 + 30 * election_ns + 4 * patience_ns;
        self.stage = Stage::Settling {
            until_ns,
            answered: BTreeMap::new(),
            is_last,
        };
        self.at(self.now_ns + LOOK_NS, Event::Settle);
    }

    /// Something was answered at a member.
    pub(super) fn note_answered(&mut self, member: MemberId, is_write: bool) {
        if let Stage::Settling { answered, .. } = &mut self.stage {
            let (writes, reads) = answered.entry(member).or_default();
            *(if is_write { writes } else { reads }) += 1;
        }
    }

    /// Looks whether it has settled. `false` when the run is over.
    pub(super) fn settle(&mut self) -> Result<bool, Violation> {
        let Stage::Settling {
            until_ns, is_last, ..
        } = self.stage
        else {
            return Ok(true);
        };
        if let Some(missing) = self.missing() {
            let in_time = self.now_ns <= until_ns;
            self.facts.expect("converge.live", in_time, || missing)?;
            self.at(self.now_ns + LOOK_NS, Event::Settle);
            self.probe();
            return Ok(true);
        }
        self.facts.expect("converge.live", true, String::new)?;
        self.compare_endings()?;
        if is_last {
            return Ok(false);
        }
        self.lose_all_power()?;
        self.begin_settling(true);
        Ok(true)
    }

    /// Asks each member that has not answered yet for a write and a read.
    fn probe(&mut self) {
        let members: Vec<_> = self.machines.keys().copied().collect();
        for member in members {
            let has_answered = match &self.stage {
                Stage::Settling { answered, .. } => answered.get(&member),
                Stage::Safety => None,
            };
            if has_answered.is_some_and(|&(writes, reads)| writes > 0 && reads > 0) {
                continue;
            }
            let process = self.machines[&member].process.as_ref();
            let is_asked = |open: &OpenRequest| open.client == PROBE;
            if process.is_some_and(|process| !process.open.values().any(is_asked)) {
                self.probe_member(member);
            }
        }
    }

    /// What has not settled.
    fn missing(&self) -> Option<String> {
        let Stage::Settling { answered, .. } = &self.stage else {
            return None;
        };
        let last = self.ledger.last();
        for (member, machine) in &self.machines {
            let Some(process) = &machine.process else {
                return Some(format!("{member:?} does not run"));
            };
            let (writes, reads) = answered.get(member).copied().unwrap_or_default();
            if writes == 0 || reads == 0 {
                return Some(format!(
                    "{member:?} has answered {writes} writes and {reads} reads"
                ));
            }
            let position = self.raft.position(*member);
            if position.applied != last {
                return Some(format!(
                    "{member:?} is at {position:?}, committed are {last}"
                ));
            }
            if let Some((ticket, open)) = process.open.first_key_value() {
                return Some(format!("{member:?} owes an answer to {ticket:?}: {open:?}"));
            }
        }
        let missed = self
            .watchers
            .iter()
            .find_map(|watcher| watcher.missing(&self.ledger));
        missed.or_else(|| self.leader().is_none().then(|| "nobody leads".to_owned()))
    }

    fn compare_endings(&mut self) -> Result<(), Violation> {
        let members: Vec<_> = self.machines.keys().copied().collect();
        let mut endings = BTreeMap::new();
        for member in members {
            self.audit_content(member)?;
            self.audit_platter(member)?;
            let machine = &self.machines[&member];
            let process = machine.process.as_ref().expect("a running member");
            let view = process.node.view();
            let hash = view
                .hash_kv(Revision(0))
                .expect("the present can be hashed");
            let ending = Ending {
                applied: self.raft.position(member).applied,
                revision: view.revision().0,
                compacted: view.compact_revision().0,
                hash: hash.hash,
            };
            endings.insert(member, ending);
        }
        convergence::check(&mut self.facts, &endings)
    }
}
