//! A member whose data are not what the log makes, and what becomes of it.
//!
//! The alteration is what etcd's own tests do: the member is stopped, its image is written anew with one row changed,
//! and it is started again. Nothing of the image shows that; only a comparison with the others can. From then on that
//! member's answers are worth nothing, and so the run ends differently:
//!
//! ```text
//!   heal ─► all have applied everything ─► a restart, a compaction ─► can a comparison see it? ─► CORRUPT ─► all refuse
//! ```

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use quorate_core::boundary::Response;
use quorate_core::checkpoint::{self, DATABASE, Loaded};
use quorate_core::corruption::{Hashed, PeerHash};
use quorate_core::disk::{Disk, DiskError, DiskFile as _};
use quorate_core::error::RequestError;
use quorate_core::mvcc::{HashKv, Row, View};
use quorate_core::types::{MemberId, Revision};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::clients::PROBE;
use super::ending::{LOOK_NS, Stage};
use super::workload::{Call, delete, probe_key, probe_put, propose};
use super::{Event, World};
use crate::check::Violation;
use crate::plan::Alteration;
use crate::random::Stream;
use crate::trace::line;

/// Where the altered image is written first.
const ALTERED: &str = "member/snap/altered";
const SNAPSHOTS: &str = "member/snap";
/// How often something is done before all comparisons must have seen what they can.
const STEPS: u64 = 4;
/// The first of these steps that removes something.
const COMPACTION: u64 = 3;

/// What members have done in a cluster that is known to be corrupt.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    /// Changes refused, by member.
    refused: BTreeMap<MemberId, u64>,
    /// Reads answered.
    read: BTreeMap<MemberId, u64>,
}

impl World {
    /// Something in a member's image changes, and the member starts with that. `false` if it has no image yet.
    pub(super) fn alter(
        &mut self,
        number: usize,
        member: MemberId,
        what: Alteration,
    ) -> Result<bool, Violation> {
        let machine = &self.machines[&member];
        let image = machine.disk.read_file(DATABASE);
        let image = image.filter(|_| !machine.disk.is_spoilt());
        let Some(Ok(Loaded { contents, rows })) = image.map(checkpoint::load) else {
            return Ok(false);
        };
        let rows: Result<Vec<_>, _> = rows.collect();
        let rows = rows.expect("an image that is whole");
        let stream = self.fault_stream(number);
        let Some(rows) = alter_rows(rows, what, stream) else {
            return Ok(false);
        };
        self.crash(member);
        self.corruption.alter(member);
        let mut disk = self.machines[&member].disk.clone();
        let replaced = replace_image(&mut disk, &contents, rows);
        if disk.is_dark() {
            self.lose_power(member)?;
            return Ok(false);
        }
        self.boot_later(member);
        Ok(replaced.is_ok())
    }

    /// Everything heals, and somebody holds what the log does not make.
    pub(super) fn heal_altered(&mut self) {
        self.heal_everywhere();
        self.stage = Stage::Suspecting {
            until_ns: self.settling_until_ns(),
            steps: 0,
            refusals: Refusals::default(),
        };
        self.at(self.now_ns + LOOK_NS, Event::Settle);
    }

    /// Looks whether the alteration was found. `false` when the run is over.
    pub(super) fn suspect(&mut self, until_ns: u64, steps: u64) -> Result<bool, Violation> {
        self.at(self.now_ns + LOOK_NS, Event::Settle);
        if self.ledger.model().has_alarm(pb::AlarmType::Corrupt) {
            self.facts.expect("corruption.found", true, String::new)?;
            return self.expect_refusals(until_ns);
        }
        let is_late = self.now_ns > until_ns;
        let refuses = self.machines.values().any(|machine| machine.refuses);
        if let Some(missing) = self.not_at_rest() {
            // Those that do not start are found, and nothing can be asked of the rest.
            self.facts
                .expect("converge.live", !is_late || refuses, || missing)?;
            return Ok(!is_late);
        }
        // What a compaction would remove is found before. Earlier compactions may have been compared before the data were
        // altered, and are not compared again.
        if steps == COMPACTION && !refuses {
            let difference = self.seen_in_everything();
            if self.wait_for_comparison(is_late, difference)? {
                return Ok(true);
            }
        }
        if steps < STEPS {
            self.bring_to_light(steps)?;
            return Ok(true);
        }
        if refuses {
            self.count("altered member did not start");
            return self
                .facts
                .expect("corruption.found", true, String::new)
                .map(|()| false);
        }
        let difference = self.seen_in_everything();
        let difference = difference.or_else(|| self.seen_in_compaction());
        let waits = self.wait_for_comparison(is_late, difference)?;
        if !waits {
            self.count("altered data not to be seen");
        }
        Ok(waits)
    }

    /// Whether there is something that a comparison must find, and has not found yet.
    fn wait_for_comparison(
        &mut self,
        is_late: bool,
        difference: Option<String>,
    ) -> Result<bool, Violation> {
        let Some(difference) = difference else {
            return Ok(false);
        };
        self.facts.expect("corruption.found", !is_late, || {
            format!("nobody was told that {difference}")
        })?;
        self.count("altered data waited for");
        Ok(true)
    }

    /// What is still to come before nothing changes any more.
    fn not_at_rest(&self) -> Option<String> {
        if self.leader().is_none() {
            return Some("nobody leads".to_owned());
        }
        let last = self.ledger.last();
        self.members().into_iter().find_map(|member| {
            let machine = &self.machines[&member];
            let applied = self.raft.position(member).applied;
            if machine.refuses {
                return None;
            }
            if machine.process.is_none() {
                return Some(format!("{member:?} does not run"));
            }
            (applied != last).then(|| format!("{member:?} is at {applied} of {last}"))
        })
    }

    /// Lets each comparison look at what there is now. Who compares before its start is started with all that it has; and a
    /// compaction hashes all rows that are left, after a write that makes its revision a new one.
    fn bring_to_light(&mut self, steps: u64) -> Result<(), Violation> {
        let Some(leader) = self.leader().filter(|it| self.can_be_probed(*it)) else {
            return Ok(());
        };
        let suspects = self.members().into_iter();
        let suspects = suspects
            .filter(|it| self.corruption.is_altered(*it) && !self.machines[it].refuses)
            .filter(|_| self.options.comparisons.at_start);
        let suspects: Vec<_> = suspects.collect();
        if !suspects.iter().all(|suspect| self.can_be_probed(*suspect)) {
            return Ok(());
        }
        if let Stage::Suspecting { steps, .. } = &mut self.stage {
            *steps += 1;
        }
        match steps {
            0 => {
                for suspect in suspects {
                    self.ask(suspect, PROBE, self.now_ns, Call::Checkpoint)?;
                }
            }
            1 => {
                for suspect in suspects {
                    self.crash(suspect);
                    self.boot_later(suspect);
                }
            }
            2 => self.ask(leader, PROBE, self.now_ns, probe_put(self.now_ns))?,
            _ => {
                let revision = self.ledger.model().revision();
                let physical = true;
                let compaction = pb::CompactionRequest { revision, physical };
                let call = propose(|it| it.compaction = Some(compaction));
                self.ask(leader, PROBE, self.now_ns, call)?;
            }
        }
        Ok(())
    }

    /// What the leader and the others hold.
    fn views(&self) -> Option<(View, Vec<(MemberId, View)>)> {
        let leader = self.leader()?;
        let view = |member: MemberId| {
            let process = self.machines[&member].process.as_ref();
            process.map(|process| process.node.view())
        };
        let others = self.members().into_iter().filter(|it| *it != leader);
        let others = others.filter_map(|member| Some((member, view(member)?)));
        Some((view(leader)?, others.collect()))
    }

    /// What the comparison of everything must find now, if it is switched on.
    fn seen_in_everything(&self) -> Option<String> {
        if self.options.comparisons.everything.is_zero() {
            return None;
        }
        let (own, others) = self.views()?;
        let hash = own.hash_kv(Revision(0)).ok()?;
        let differing = others.iter().find(|(_, other)| {
            // Who has compacted the leader's revision away refuses, and tells nothing of itself.
            let is_told = other.hash_kv(hash.hash_revision).is_ok();
            let is_ahead = other.revision() > own.revision()
                || other.compact_revision() > own.compact_revision();
            is_told && is_ahead || differs(hash, other)
        });
        differing.map(|(member, _)| format!("{member:?} holds other data"))
    }

    /// What the comparison of compactions must find now, if it is switched on.
    fn seen_in_compaction(&self) -> Option<String> {
        self.options.comparisons.compactions?;
        let (own, others) = self.views()?;
        let hashes = own.compaction_hashes();
        let newest = hashes.iter().max_by_key(|hash| hash.hash_revision)?;
        let differing = others.iter().find(|(_, other)| differs(*newest, other));
        differing.map(|(member, _)| format!("{member:?} has compacted other data"))
    }

    /// CORRUPT is raised: all members know it, change nothing and answer reads.
    fn expect_refusals(&mut self, until_ns: u64) -> Result<bool, Violation> {
        let alarms = self.ledger.model().alarms();
        let last = self.ledger.last();
        let patience_ns = self.settling_until_ns() - self.now_ns;
        let in_time = self.now_ns <= until_ns + patience_ns;
        let mut waits = None;
        for member in self.members() {
            let Some(process) = &self.machines[&member].process else {
                continue;
            };
            if self.raft.position(member).applied == last {
                let told = process.node.status().alarms;
                self.facts
                    .expect("corruption.refusal", *told == alarms, || {
                        format!("{member:?} tells of {told:?}, raised are {alarms:?}")
                    })?;
            }
            let Stage::Suspecting { refusals, .. } = &self.stage else {
                return Ok(true);
            };
            let count = |of: &BTreeMap<_, _>| of.get(&member).copied().unwrap_or(0_u64);
            if count(&refusals.refused) < 4 || count(&refusals.read) == 0 {
                waits = Some(member);
                if self.can_be_probed(member) {
                    self.ask_for_refusals(member)?;
                }
            }
        }
        let Some(member) = waits else {
            self.count("corrupt cluster refused everything");
            return Ok(false);
        };
        if !in_time && self.is_stopped_by_refusals() {
            self.count("corrupt cluster without a quorum");
            return Ok(false);
        }
        self.facts.expect("converge.live", in_time, || {
            format!("{member:?} answers nothing in a corrupt cluster")
        })?;
        Ok(true)
    }

    /// Whether too many members do not start beside data that differ from theirs, and nobody can lead the rest.
    fn is_stopped_by_refusals(&self) -> bool {
        let (off, on): (BTreeSet<_>, BTreeSet<_>) = self
            .members()
            .into_iter()
            .partition(|member| self.machines[member].process.is_none());
        let refuse = off.iter().any(|member| self.machines[member].refuses);
        refuse && !self.has_quorum(&on)
    }

    fn ask_for_refusals(&mut self, member: MemberId) -> Result<(), Violation> {
        let key = probe_key();
        let deletion = pb::DeleteRangeRequest {
            key,
            ..pb::DeleteRangeRequest::default()
        };
        let compaction = pb::CompactionRequest {
            revision: self.ledger.model().revision(),
            physical: false,
        };
        let calls = [
            probe_put(self.now_ns),
            delete(deletion),
            propose(|it| it.compaction = Some(compaction)),
            super::workload::probe_grant(1 << 50),
            Call::Read(crate::check::state::everything()),
        ];
        for call in calls {
            self.ask(member, PROBE, self.now_ns, call)?;
        }
        Ok(())
    }

    /// A member answers in a run that looks for altered data.
    pub(super) fn note_refusal(
        &mut self,
        member: MemberId,
        call: &Call,
        result: &Result<Response, RequestError>,
    ) {
        let Stage::Suspecting { refusals, .. } = &mut self.stage else {
            return;
        };
        match (call, result) {
            (Call::Read(_), Ok(_)) => *refusals.read.entry(member).or_default() += 1,
            (Call::Propose(_), Err(RequestError::Corrupt)) => {
                *refusals.refused.entry(member).or_default() += 1;
            }
            // Before the alarm, by who has not heard of it, or nobody knows.
            _ => {}
        }
    }

    /// Before its start a member has been told these hashes: it may start exactly if none over the same rows differs.
    pub(super) fn judge_start(
        &mut self,
        member: MemberId,
        (own, peers): (Hashed, &[PeerHash]),
        starts: bool,
    ) -> Result<(), Violation> {
        let mut answers = peers.iter().filter_map(|peer| peer.answer.as_ref().ok());
        let has_other = answers.any(|other| {
            other.hash.compact_revision == own.hash.compact_revision
                && other.hash.hash != own.hash.hash
        });
        self.facts
            .expect("corruption.start", starts != has_other, || {
                format!("{member:?} has {own:?}, is told {peers:?}, and starts: {starts}")
            })?;
        self.trace
            .event(self.now_ns, &[15, member.0, u64::from(starts)], &[], || {
                line(&super::name(member), "may start", starts)
            });
        Ok(())
    }
}

fn differs(hash: HashKv, other: &View) -> bool {
    let other = other.hash_kv(hash.hash_revision);
    other.is_ok_and(|other| {
        other.compact_revision == hash.compact_revision && other.hash != hash.hash
    })
}

fn replace_image(
    disk: &mut impl Disk,
    contents: &checkpoint::Contents,
    rows: Vec<Row>,
) -> Result<(), DiskError> {
    let file = disk.create(ALTERED, 0)?;
    let (mut file, _) = checkpoint::write_image(file, contents, rows.into_iter())?;
    file.sync()?;
    drop(file);
    disk.rename(ALTERED, DATABASE)?;
    disk.sync_directory(SNAPSHOTS)
}

/// The rows with one of them altered. `None` if there is none that could be.
fn alter_rows(mut rows: Vec<Row>, what: Alteration, stream: &mut Stream) -> Option<Vec<Row>> {
    let mut newest = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        let kv = KeyValue::decode(row.key_value.clone()).ok()?;
        newest.insert(kv.key.clone(), (place, row.tombstone));
    }
    // What is there, so that it stays to be seen for a while.
    let live = newest.values().filter(|(_, is_gone)| !is_gone);
    let live: Vec<_> = live.map(|(place, _)| *place).collect();
    if live.is_empty() {
        return None;
    }
    // Of two the one that has not changed for longer, which will not change so soon.
    let (one, other) = (*stream.pick(&live), *stream.pick(&live));
    let place = one.min(other);
    let row = &mut rows[place];
    let mut kv = KeyValue::decode(row.key_value.clone()).ok()?;
    match what {
        Alteration::Value => {
            let mut value = kv.value.to_vec();
            value.push(b'!');
            kv.value = value.into();
        }
        Alteration::Revision => kv.mod_revision += 1,
        Alteration::Missing => {
            rows.remove(place);
            return Some(rows);
        }
        Alteration::Extra => {
            let mut key = kv.key.to_vec();
            key.push(b'~');
            let main = row.main;
            let kv = KeyValue {
                key: key.into(),
                create_revision: main,
                mod_revision: main,
                version: 1,
                value: kv.value,
                lease: 0,
            };
            let end = rows.partition_point(|row| row.main <= main);
            let extra = Row {
                main,
                sub: rows[end - 1].sub + 1,
                tombstone: false,
                key_value: kv.encode_to_vec().into(),
            };
            rows.insert(end, extra);
            return Some(rows);
        }
    }
    row.key_value = kv.encode_to_vec().into();
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn row(main: i64, key: &'static str, tombstone: bool) -> Row {
        let kv = KeyValue {
            key: key.into(),
            mod_revision: main,
            ..KeyValue::default()
        };
        Row {
            main,
            sub: 0,
            tombstone,
            key_value: kv.encode_to_vec().into(),
        }
    }

    #[test]
    fn each_alteration_changes_one_row_that_is_there() {
        let rows = vec![
            row(2, "gone", false),
            row(3, "stays", false),
            row(4, "gone", true),
        ];
        let alter = |what| {
            let stream = &mut Stream::new(1, Purpose::Compare, 9);
            alter_rows(rows.clone(), what, stream).expect("a key is there")
        };
        for what in Alteration::ALL {
            let altered = alter(what);
            assert_ne!(altered, rows, "{what:?}");
            assert!(altered.contains(&rows[0]) && altered.contains(&rows[2]));
        }
        assert_eq!(alter(Alteration::Missing).len(), 2);
        assert_eq!(alter(Alteration::Extra)[2].sub, 1);
        let stream = &mut Stream::new(1, Purpose::Compare, 9);
        let gone = vec![row(2, "gone", false), row(4, "gone", true)];
        assert!(alter_rows(gone, Alteration::Value, stream).is_none());
    }
}
