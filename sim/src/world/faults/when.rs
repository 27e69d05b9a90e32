//! Faults that wait for something: their predicates, looked at after every turn.

use quorate_core::types::MemberId;

use super::super::{Event, World};
use super::FaultStage;
use crate::plan::{Comparison, Field, Predicate, Subject, Term, Trigger};

impl World {
    /// Lets begin and end what waited for the state that there is now.
    pub(in super::super) fn look_for_triggers(&mut self) {
        if self.awaited.is_empty() || !self.is_safety() {
            return;
        }
        for number in self.awaited.clone() {
            let fault = &self.options.plan[number];
            let (trigger, event) = match self.faults[number].stage {
                FaultStage::Waiting => (&fault.from, Event::FaultBegins(number)),
                FaultStage::Going => (&fault.until, Event::FaultEnds(number)),
                FaultStage::Over => continue,
            };
            if let Trigger::When { predicate, .. } = trigger
                && self.holds(predicate)
            {
                self.awaited.retain(|awaited| *awaited != number);
                self.count("condition met");
                self.at(self.now_ns, event);
            }
        }
    }

    fn holds(&self, predicate: &Predicate) -> bool {
        predicate.comparisons.iter().all(|comparison| {
            let Comparison {
                left,
                relation,
                right,
            } = *comparison;
            match (self.value(left), self.value(right)) {
                (Some(left), Some(right)) => relation.holds(left, right),
                _ => false,
            }
        })
    }

    fn value(&self, term: Term) -> Option<i64> {
        let shown = match term.shown {
            None => 0,
            Some((Subject::Cluster, field)) => self.shown_by_cluster(field)?,
            Some((Subject::Leader, field)) => self.shown_by(self.leader()?, field)?,
            Some((Subject::Member(number), field)) => {
                let mut machines = self.machines.iter();
                let (member, _) = machines.find(|(_, machine)| machine.number == number)?;
                self.shown_by(*member, field)?
            }
            Some((Subject::TargetOf(fault), Field::Begun)) => {
                i64::from(self.faults[fault].stage != FaultStage::Waiting)
            }
            Some((Subject::TargetOf(fault), Field::Over)) => {
                i64::from(self.faults[fault].stage == FaultStage::Over)
            }
            Some((Subject::TargetOf(fault), field)) => {
                self.shown_by(self.faults[fault].target?, field)?
            }
        };
        Some(shown + term.plus)
    }

    fn shown_by_cluster(&self, field: Field) -> Option<i64> {
        match field {
            Field::Committed | Field::Last | Field::Applied => Some(self.ledger.last() as i64),
            Field::Revision => Some(self.ledger.model().revision()),
            Field::Compacted => Some(self.ledger.model().compacted()),
            Field::Voters => Some(self.raft.history.last().voters.len() as i64),
            Field::Leads => Some(i64::from(self.leader().is_some())),
            _ => None,
        }
    }

    fn shown_by(&self, member: MemberId, field: Field) -> Option<i64> {
        let machine = &self.machines[&member];
        if field == Field::Runs {
            return Some(i64::from(machine.process.is_some()));
        }
        let process = machine.process.as_ref()?;
        let position = self.raft.position(member);
        Some(match field {
            Field::Term => position.term as i64,
            Field::Committed => position.committed as i64,
            Field::Applied => position.applied as i64,
            Field::Last => self.raft.shadow(member).memory.last() as i64,
            Field::Durable => self.raft.shadow(member).durable.last() as i64,
            Field::Revision => process.node.view().revision().0,
            Field::Compacted => process.node.view().compact_revision().0,
            Field::Leads => i64::from(position.leads),
            Field::Checkpoints => machine.checkpoints as i64,
            Field::Snapshots => machine.snapshots as i64,
            Field::Runs | Field::Voters | Field::Begun | Field::Over => return None,
        })
    }
}
