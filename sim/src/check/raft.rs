//! Raft's invariants, judged from what the members emit, write and say of themselves.

use std::collections::BTreeMap;

use quorate_core::boundary::Write;
use quorate_core::types::{MemberId, WriteNumber};
use quorate_proto::raftpb::{Entry, HardState, Message, MessageType};

use super::addresses::Addresses;
use super::durability::{Found, check_found};
use super::ledger::Ledger;
use super::members::History;
use super::shadow::Shadow;
use super::{Facts, Violation, commitment, intersection, promotion};

/// What a member says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The current term.
    pub term: u64,
    /// The commit index.
    pub committed: u64,
    /// The applied index.
    pub applied: u64,
    /// Whether it leads.
    pub leads: bool,
}

/// Everything that is remembered to judge by.
#[derive(Debug)]
pub struct Raft {
    members: BTreeMap<MemberId, Followed>,
    /// The entries up to here are the same on all members by agreement: they make the members.
    founding: u64,
    /// Who the members were when.
    pub history: History,
    /// Where they were to be reached when.
    pub addresses: Addresses,
    /// For each committed entry: what its leader had applied before it called the entry committed.
    committed_after: Vec<u64>,
    /// For each committed entry: the term in which it was.
    committed_in: Vec<u64>,
    leaders: BTreeMap<u64, MemberId>,
    votes: BTreeMap<(MemberId, u64), MemberId>,
    /// For each (index, term) that was ever seen: the entry and the term before it.
    entries: BTreeMap<(u64, u64), (Entry, u64)>,
}

#[derive(Debug, Default)]
struct Followed {
    shadow: Shadow,
    position: Position,
    /// Whether nothing was heard of it since it began: its checkpoint may be ahead of its commit index.
    is_new: bool,
    /// The applied index that it began with.
    restored: u64,
    /// What its node knew its disk to hold after its last turn.
    known_durable: u64,
    /// The most that its disk ever held.
    reached: u64,
}

impl Raft {
    /// A cluster of these voters, whose first `founding` entries are agreed upon beforehand.
    pub fn new(voters: &[MemberId], founding: u64) -> Self {
        let members = voters.iter().map(|&voter| (voter, Followed::default()));
        Self {
            members: members.collect(),
            founding,
            history: History::new(voters),
            addresses: Addresses::default(),
            committed_after: Vec::new(),
            committed_in: Vec::new(),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            entries: BTreeMap::new(),
        }
    }

    /// What is known of a member's log.
    pub fn shadow(&self, member: MemberId) -> &Shadow {
        &self.members[&member].shadow
    }

    /// What a member said of itself last.
    pub fn position(&self, member: MemberId) -> Position {
        self.members[&member].position
    }

    /// A machine is there that may become a member.
    pub fn add(&mut self, member: MemberId) {
        self.members.insert(member, Followed::default());
    }

    /// Whether a committed entry is on the disks of a quorum: of the members that its leader went by, or of later ones.
    pub fn on_quorum(&self, entry: &Entry) -> bool {
        let after = self.committed_after.get(entry.index as usize - 1);
        self.on_quorum_since(entry, after.copied().unwrap_or(0))
    }

    fn on_quorum_since(&self, entry: &Entry, index: u64) -> bool {
        let holds = |member| {
            let followed: Option<&Followed> = self.members.get(&member);
            followed.is_some_and(|it| it.shadow.durable.entry(entry.index) == Some(entry))
        };
        let mut since = self.history.since(index);
        since.any(|members| members.have_quorum(holds))
    }

    /// A member wants something written.
    pub fn on_write(
        &mut self,
        facts: &mut Facts,
        member: MemberId,
        write: &Write,
    ) -> Result<(), Violation> {
        let followed = self.members.get_mut(&member).expect("a member");
        let (before, shadow) = (followed.shadow.write_last.0, &mut followed.shadow);
        facts.expect("contract.output", write.number.0 == before + 1, || {
            format!(
                "write {} of {member:?} comes after {before}",
                write.number.0
            )
        })?;
        if let Some(first) = write.entries.first() {
            let committed = followed.position.committed;
            let keeps = shadow.memory.entry(first.index) == Some(first);
            facts.expect(
                "raft.committed-immutable",
                first.index > committed || keeps,
                || {
                    format!(
                        "{member:?} replaces entry {}, committed are {committed}",
                        first.index
                    )
                },
            )?;
        }
        let restored = (write.install.as_ref().zip(write.snapshot.as_ref()))
            .map(|(_, record)| chain(&self.entries, record.index.0, record.term.0));
        let follows = shadow.emit(write, restored);
        facts.expect("contract.output", follows, || {
            format!(
                "write {} of {member:?} leaves a gap in its log",
                write.number.0
            )
        })?;
        for entry in &write.entries {
            let before = shadow.memory.term(entry.index - 1).expect("no gap");
            let known = self.entries.entry((entry.index, entry.term));
            let known = known.or_insert_with(|| (entry.clone(), before));
            facts.expect(
                "raft.log-matching",
                *known == (entry.clone(), before),
                || {
                    format!(
                        "entry {} of term {} after term {before} on {member:?}, elsewhere after {}",
                        entry.index, entry.term, known.1
                    )
                },
            )?;
        }
        Ok(())
    }

    /// A member's disk has everything up to a write.
    pub fn on_written(&mut self, member: MemberId, number: WriteNumber) {
        let followed = self.members.get_mut(&member).expect("a member");
        followed.shadow.written(number);
        followed.reached = followed.reached.max(followed.shadow.durable.last());
    }

    /// The newest term that has had a leader.
    pub fn led(&self) -> u64 {
        let newest = self.leaders.last_key_value();
        newest.map_or(0, |(term, _)| *term)
    }

    /// A leader that has applied everything up to `applied` has put these entries into its log.
    pub fn check_proposed(
        &self,
        facts: &mut Facts,
        leader: MemberId,
        (term, applied): (u64, u64),
        entries: &[Entry],
    ) -> Result<(), Violation> {
        let log = &self.members[&leader].shadow.memory;
        let mut own = entries.iter().filter(|entry| entry.term == term);
        own.try_for_each(|entry| intersection::check_proposed(facts, leader, log, applied, entry))
    }

    /// A leader has accepted the promotion of a learner in its present turn.
    pub fn check_promotion(
        &self,
        facts: &mut Facts,
        leader: MemberId,
        learner: MemberId,
    ) -> Result<(), Violation> {
        let Followed {
            shadow,
            known_durable,
            ..
        } = &self.members[&leader];
        // What a write on its way takes back does not count for the leader.
        let is_kept = |index: &u64| shadow.durable.term(*index) == shadow.memory.term(*index);
        let own = (0..=*known_durable).rev().find(is_kept).unwrap_or(0);
        let reached = self.members[&learner].reached;
        promotion::check_accepted(facts, leader, learner, own, reached)
    }

    /// A message leaves: what it promises must be on the disk.
    pub fn on_send(
        &mut self,
        facts: &mut Facts,
        from: MemberId,
        message: &Message,
    ) -> Result<(), Violation> {
        let shadow = &self.members[&from].shadow;
        let HardState { term, vote, .. } = shadow.hard_state;
        let said =
            || format!("{from:?} says {message:?}, its disk holds term {term}, vote {vote:x}");
        match message.kind() {
            Ok(MessageType::MsgAppResp) if !message.reject => {
                let last = shadow.durable.last();
                let kept = shadow.has_reached(message.term, message.index);
                facts.expect("raft.promise", kept, || {
                    format!("{}, log to {last}", said())
                })
            }
            Ok(MessageType::MsgVoteResp) if !message.reject => {
                let kept = term > message.term || (term == message.term && vote == message.to);
                facts.expect("raft.promise", kept, said)?;
                self.on_vote(facts, from, message.term, MemberId(message.to))
            }
            Ok(MessageType::MsgVote) => {
                let kept = term > message.term || (term == message.term && vote == from.0);
                facts.expect("raft.promise", kept, said)?;
                self.on_vote(facts, from, message.term, from)
            }
            Ok(MessageType::MsgApp | MessageType::MsgHeartbeat) => {
                self.on_leader(facts, from, message.term)
            }
            _ => Ok(()),
        }
    }

    fn on_vote(
        &mut self,
        facts: &mut Facts,
        voter: MemberId,
        term: u64,
        candidate: MemberId,
    ) -> Result<(), Violation> {
        let voted = *self.votes.entry((voter, term)).or_insert(candidate);
        facts.expect("raft.one-vote", voted == candidate, || {
            format!("{voter:?} votes for {candidate:?} in term {term} after {voted:?}")
        })
    }

    fn on_leader(
        &mut self,
        facts: &mut Facts,
        member: MemberId,
        term: u64,
    ) -> Result<(), Violation> {
        let leader = *self.leaders.entry(term).or_insert(member);
        facts.expect("raft.election-safety", leader == member, || {
            format!("{member:?} leads in term {term}, and so does {leader:?}")
        })
    }

    /// A member's position after a turn. Extends the ledger by what it calls committed.
    pub fn on_position(
        &mut self,
        facts: &mut Facts,
        ledger: &mut Ledger,
        member: MemberId,
        position: Position,
    ) -> Result<(), Violation> {
        let followed = self.members.get_mut(&member).expect("a member");
        if std::mem::take(&mut followed.is_new) {
            followed.restored = position.applied;
        }
        let before = std::mem::replace(&mut followed.position, position);
        let last = followed.shadow.memory.last();
        let grows = position.term >= before.term
            && position.committed >= before.committed
            && position.applied >= before.applied
            && position.applied <= position.committed.max(followed.restored)
            && position.committed <= last;
        facts.expect("raft.monotone", grows, || {
            format!("{member:?} is at {position:?} after {before:?}, its log ends at {last}")
        })?;
        followed.known_durable = followed.shadow.durable.last();
        if position.committed > before.committed {
            self.on_commit(facts, ledger, member, before)?;
        }
        if position.leads && !(before.leads && before.term == position.term) {
            self.on_leader(facts, member, position.term)?;
            self.check_complete(facts, ledger, member)?;
        }
        Ok(())
    }

    /// Whoever leads holds what was committed in earlier terms. Votes may arrive so late that a later leader has committed
    /// more by then, which this one cannot know (Raft paper, 5.4.3, speaks of leaders of higher terms).
    fn check_complete(
        &self,
        facts: &mut Facts,
        ledger: &Ledger,
        member: MemberId,
    ) -> Result<(), Violation> {
        let Followed {
            position, shadow, ..
        } = &self.members[&member];
        let earlier = |term: &u64| *term < position.term;
        let index = self
            .committed_in
            .iter()
            .rposition(earlier)
            .map_or(0, |place| place as u64 + 1);
        let newest = ledger.get(index).map(|committed| &committed.entry);
        let complete = newest.is_none_or(|entry| shadow.memory.entry(index) == Some(entry));
        facts.expect("raft.leader-completeness", complete, || {
            let term = position.term;
            format!("{member:?} leads in term {term} without the committed entry {index}")
        })
    }

    fn on_commit(
        &mut self,
        facts: &mut Facts,
        ledger: &mut Ledger,
        member: MemberId,
        before: Position,
    ) -> Result<(), Violation> {
        let Followed {
            position, shadow, ..
        } = &self.members[&member];
        if position.committed > ledger.last().max(self.founding) {
            commitment::check_first(facts, member, &shadow.memory, before, *position)?;
        }
        for index in before.committed + 1..=position.committed {
            let followed = &self.members[&member];
            let entry = followed.shadow.memory.entry(index).expect("within the log");
            if let Some(known) = ledger.get(index) {
                facts.expect("raft.committed-immutable", known.entry == *entry, || {
                    let (here, there) = (entry.term, known.entry.term);
                    format!(
                        "{member:?} commits entry {index} of term {here}, it was of term {there}"
                    )
                })?;
            } else {
                let is_agreed =
                    index <= self.founding || self.on_quorum_since(entry, before.applied);
                facts.expect("raft.committed-on-quorum", is_agreed, || {
                    format!("{member:?} commits entry {index} of term {}", entry.term)
                })?;
                let entry = entry.clone();
                self.addresses.push(&entry);
                if self.history.push(&entry) && index > self.founding {
                    let (before, after) = (self.history.at(index - 1), self.history.last());
                    intersection::check_step(facts, index, before, after)?;
                }
                self.committed_after.push(before.applied);
                // A leader that has heard of a higher term since then has led in the term before.
                let led = if before.leads { before } else { *position };
                self.committed_in.push(led.term);
                ledger.push(entry);
            }
        }
        Ok(())
    }

    /// A member's process has ended. What it knew but its disk does not is forgotten.
    pub fn on_stop(&mut self, member: MemberId) {
        let followed = self.members.get_mut(&member).expect("a member");
        followed.position.leads = false;
    }

    /// A member begins with what its disk holds.
    pub fn on_restart(
        &mut self,
        facts: &mut Facts,
        ledger: &Ledger,
        member: MemberId,
        found: &Found<'_>,
    ) -> Result<(), Violation> {
        let followed = self.members.get_mut(&member).expect("a member");
        facts.expect("durable.recovered", found.base <= ledger.last(), || {
            let (base, last) = (found.base, ledger.last());
            format!("{member:?} has a checkpoint at {base}, committed are {last}")
        })?;
        check_found(facts, "durable.recovered", member, &followed.shadow, found)?;
        let durable = &followed.shadow.durable;
        let restored = match durable.term(found.base) {
            Some(term) if term == found.base_term => durable.up_to(found.base),
            _ => chain(&self.entries, found.base, found.base_term),
        };
        followed
            .shadow
            .restart(restored, found.entries, found.hard_state);
        // A write that was never reported as durable may have survived all the same.
        followed.reached = followed.reached.max(followed.shadow.durable.last());
        followed.position = Position {
            term: found.hard_state.term,
            ..Position::default()
        };
        followed.is_new = true;
        if self.members.len() == 1 {
            // Alone, a member leads before its vote is on the disk: it may lead in the same term again, and nobody
            // has seen what it wrote the first time.
            self.entries
                .retain(|_, (entry, _)| found.entry(entry.index) == Some(entry));
        }
        Ok(())
    }
}

/// The entries up to one, as they were seen.
fn chain(
    entries: &BTreeMap<(u64, u64), (Entry, u64)>,
    mut index: u64,
    mut term: u64,
) -> Vec<Entry> {
    let mut found = Vec::new();
    while index > 0 {
        let Some((entry, before)) = entries.get(&(index, term)) else {
            break; // It was founded with these.
        };
        found.push(entry.clone());
        (index, term) = (index - 1, *before);
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests;
