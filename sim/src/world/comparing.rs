//! Members ask each other for the hashes of their data: for their nodes, which compare them now and then, and before
//! they start.
//!
//! As in the server each question is a call of its own beside the messages of Raft: it may be lost on both ways, comes
//! late where the link is slow, and ends when patience does. Each hash is made of what its member holds when the
//! question is with it.
//!
//! ```text
//!   wanted ─► own hash, if asked for ─► way there ─► hash ─► way back ─► all answered, or patience ends ─► compared
//! ```

use std::collections::BTreeSet;

use quorate_core::boundary::{Gathered, Input};
use quorate_core::corruption::{HashRefusal, Hashed, PeerHash, compare_at_start};
use quorate_core::error::RequestError;
use quorate_core::mvcc::View;
use quorate_core::types::{MemberId, Revision};

use super::life::Beginning;
use super::{Doing, Event, World, name};
use crate::check::Violation;
use crate::trace::line;

/// How long a hash takes, about.
const HASH_NS: u64 = 200_000;

/// Hashes that a member waits for.
pub(super) struct Question {
    asker: MemberId,
    life: u64,
    /// The node's number of it; `None` before a start.
    number: Option<u64>,
    /// The asker's own.
    own: Option<Result<Hashed, RequestError>>,
    /// What the others are asked for; nothing if that follows from the own one.
    revision: Option<Revision>,
    /// Who has not answered.
    silent: BTreeSet<MemberId>,
    /// Who has.
    peers: Vec<PeerHash>,
}

/// What happens to a question.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The asker goes about it.
    Begins(u64),
    /// It comes to a member.
    Arrives(u64, MemberId),
    /// The member hashes what it has.
    Hashes(u64, MemberId),
    /// What it says is back.
    Answered(u64, MemberId, Result<Hashed, HashRefusal>),
    /// The asker waits no longer.
    GivesUp(u64),
}

impl World {
    /// A node wants hashes.
    pub(super) fn gather(
        &mut self,
        asker: MemberId,
        number: u64,
        revision: Option<Revision>,
        peers: Vec<MemberId>,
    ) {
        let question = self.ask_for_hashes(Question {
            asker,
            life: self.machines[&asker].life,
            number: Some(number),
            own: None,
            revision,
            silent: peers.into_iter().collect(),
            peers: Vec::new(),
        });
        let after_ns = self.comparing.with_tail(HASH_NS);
        let step = Box::new(Step::Begins(question));
        self.in_process(self.now_ns + after_ns, asker, Doing::Compare(step));
    }

    /// A member with data compares them before it takes part.
    pub(super) fn compare_before_start(&mut self, asker: MemberId, beginning: Box<Beginning>) {
        let view = beginning.recovered.view();
        let own = hash(&view, Revision(0)).expect("the present can be hashed");
        self.note_hash(asker, own);
        let others = beginning.recovered.members().into_iter();
        let others = others.map(|member| member.id).filter(|id| *id != asker);
        let question = self.ask_for_hashes(Question {
            asker,
            life: self.machines[&asker].life,
            number: None,
            own: Some(Ok(own)),
            revision: Some(own.hash.hash_revision),
            silent: others.collect(),
            peers: Vec::new(),
        });
        self.machines.get_mut(&asker).expect("a member").beginning = Some(beginning);
        let begins = Event::Compare(Box::new(Step::Begins(question)));
        self.at(self.now_ns, begins);
    }

    fn ask_for_hashes(&mut self, question: Question) -> u64 {
        self.questions_asked += 1;
        let number = self.questions_asked;
        self.count("hashes asked for");
        self.questions.insert(number, question);
        let patience_ns = self.options.request_timeout.as_nanos() as u64;
        let gives_up = Event::Compare(Box::new(Step::GivesUp(number)));
        self.at(self.now_ns + patience_ns, gives_up);
        number
    }

    /// A question goes on.
    pub(super) fn compare(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Begins(question) => self.send_question(question),
            Step::Arrives(question, member) => self.question_arrives(question, member),
            Step::Hashes(question, member) => self.answer_question(question, member),
            Step::Answered(question, member, answer) => {
                if let Some(open) = self.questions.get_mut(&question)
                    && open.silent.remove(&member)
                {
                    open.peers.push(PeerHash { member, answer });
                    if open.silent.is_empty() {
                        return self.finish_question(question);
                    }
                }
                Ok(())
            }
            Step::GivesUp(question) => self.finish_question(question),
        }
    }

    fn send_question(&mut self, question: u64) -> Result<(), Violation> {
        let Some(open) = self.questions.get(&question) else {
            return Ok(());
        };
        let asker = open.asker;
        if open.own.is_none() && open.revision.is_none() {
            let process = self.machines[&asker].process.as_ref();
            let view = process.expect("a running member").node.view();
            let own = hash(&view, Revision(0));
            if let Ok(own) = own {
                self.note_hash(asker, own);
                self.check_hash(asker, own)?;
            }
            let open = self.questions.get_mut(&question).expect("just looked at");
            open.revision = own.as_ref().ok().map(|own| own.hash.hash_revision);
            open.own = Some(own);
        }
        let open = &self.questions[&question];
        if open.silent.is_empty() || open.revision.is_none() {
            return self.finish_question(question);
        }
        for member in open.silent.clone() {
            let arrives = Event::Compare(Box::new(Step::Arrives(question, member)));
            self.travel(asker, member, arrives);
        }
        Ok(())
    }

    /// Something makes its way from one member to another, or is lost.
    fn travel(&mut self, from: MemberId, to: MemberId, arrival: Event) {
        let way = self.network.way(from, to);
        let is_lost = self.comparing.chance(way.loss_ppm);
        if way.is_cut || is_lost {
            self.count("hash lost");
            return;
        }
        let after_ns = self.comparing.with_tail(way.delay_ns);
        self.at(self.now_ns + after_ns, arrival);
    }

    fn question_arrives(&mut self, question: u64, member: MemberId) -> Result<(), Violation> {
        let Some(open) = self.questions.get(&question) else {
            return Ok(());
        };
        if self.network.way(open.asker, member).is_cut {
            self.count("hash lost");
            return Ok(());
        }
        if self.machines[&member].process.is_none() {
            let refused = HashRefusal::NoAnswer("connection refused".to_owned());
            return self.compare(Step::Answered(question, member, Err(refused)));
        }
        let after_ns = self.comparing.with_tail(HASH_NS);
        let step = Box::new(Step::Hashes(question, member));
        self.in_process(self.now_ns + after_ns, member, Doing::Compare(step));
        Ok(())
    }

    fn answer_question(&mut self, question: u64, member: MemberId) -> Result<(), Violation> {
        let Some(open) = self.questions.get(&question) else {
            return Ok(());
        };
        let (asker, revision) = (open.asker, open.revision.expect("it was sent"));
        let process = self.machines[&member].process.as_ref();
        let view = process.expect("a running member").node.view();
        let answer = hash(&view, revision).map_err(|error| match error {
            RequestError::Compacted => HashRefusal::Compacted,
            _ => HashRefusal::FutureRevision,
        });
        if let Ok(hashed) = answer {
            self.count("hash given");
            self.note_hash(member, hashed);
            self.check_hash(member, hashed)?;
        }
        let answered = Step::Answered(question, member, answer);
        // Whoever asks before its start has no process that could stand still.
        let life = self.machines[&asker].life;
        let arrival = match self.machines[&asker].process {
            Some(_) => Event::Process {
                member: asker,
                life,
                what: Doing::Compare(Box::new(answered)),
            },
            None => Event::Compare(Box::new(answered)),
        };
        self.travel(member, asker, arrival);
        Ok(())
    }

    /// The hash that a member makes of its data is the one that others make of the same rows.
    fn check_hash(&mut self, member: MemberId, hashed: Hashed) -> Result<(), Violation> {
        let hash = hashed.hash;
        let is_told = !self.ledger.model().is_empty_at(hash.hash_revision.0);
        if self.corruption.is_altered(member) || !is_told {
            return Ok(()); // Where nothing is left, etcd's hash depends on when it is made (docs/bugs.md, Q3).
        }
        self.hashes.note(&mut self.facts, member, hash)
    }

    fn note_hash(&mut self, member: MemberId, hashed: Hashed) {
        let words = [13, member.0, u64::from(hashed.hash.hash)];
        self.trace.event(self.now_ns, &words, &[], || {
            let hashed = format_args!("{hashed:?}").to_string();
            line(&name(member), "compares", hashed)
        });
    }

    /// All have answered, or nobody waits for the others any longer.
    fn finish_question(&mut self, question: u64) -> Result<(), Violation> {
        let Some(mut open) = self.questions.remove(&question) else {
            return Ok(());
        };
        let asker = open.asker;
        if self.machines[&asker].life != open.life {
            return Ok(());
        }
        let silent = std::mem::take(&mut open.silent);
        open.peers.extend(silent.into_iter().map(|member| PeerHash {
            member,
            answer: Err(HashRefusal::NoAnswer(
                "context deadline exceeded".to_owned(),
            )),
        }));
        open.peers.sort_unstable_by_key(|peer| peer.member);
        let Question { own, peers, .. } = open;
        let Some(number) = open.number else {
            return self.start_or_refuse(asker, own, &peers);
        };
        let gathered = Gathered { number, own, peers };
        self.give(asker, Input::HashesGathered(gathered));
        Ok(())
    }

    /// A member has compared its data with those of the others, and starts if they do not differ.
    fn start_or_refuse(
        &mut self,
        member: MemberId,
        own: Option<Result<Hashed, RequestError>>,
        peers: &[PeerHash],
    ) -> Result<(), Violation> {
        let machine = self.machines.get_mut(&member).expect("a member");
        let Some(beginning) = machine.beginning.take() else {
            return Ok(());
        };
        let own = own.expect("it was made first").expect("the present");
        let findings = compare_at_start(own.hash, peers);
        self.count("compared before the start");
        self.judge_findings(member, &findings)?;
        let is_damaged = findings.iter().any(|finding| finding.kind.is_damage());
        self.judge_start(member, (own, peers), !is_damaged)?;
        let machine = self.machines.get_mut(&member).expect("a member");
        machine.refuses = is_damaged;
        if is_damaged {
            self.count("start refused: other data");
            self.note("does not start: it holds other data", member, 0);
            self.end_before_start(member);
            return Ok(());
        }
        self.start(member, *beginning)
    }
}

fn hash(view: &View, revision: Revision) -> Result<Hashed, RequestError> {
    let newest = view.revision();
    let hash = view.hash_kv(revision)?;
    let newest = newest.max(hash.hash_revision);
    Ok(Hashed { hash, newest })
}
