//! Each invariant against a run that breaks it.

use bytes::Bytes;

use super::*;
use crate::model::Model;

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);

struct Run {
    raft: Raft,
    facts: Facts,
    ledger: Ledger,
}

impl Run {
    fn new() -> Self {
        Self {
            raft: Raft::new(&[A, B, C], 0),
            facts: Facts::new(),
            ledger: Ledger::new(Model::new(1)),
        }
    }

    /// Emits a write of entries `(index, term)` with the hard state `(term, vote)`.
    fn emit(
        &mut self,
        member: MemberId,
        entries: &[(u64, u64)],
        state: (u64, u64),
    ) -> Result<(), Violation> {
        let number = WriteNumber(self.raft.shadow(member).write_last.0 + 1);
        let entry = |&(index, term): &(u64, u64)| Entry::normal(term, index, Bytes::new());
        let write = Write {
            number,
            entries: entries.iter().map(entry).collect(),
            hard_state: Some(HardState {
                term: state.0,
                vote: state.1,
                commit: 0,
            }),
            snapshot: None,
            must_sync: true,
            ..Write::default()
        };
        self.raft.on_write(&mut self.facts, member, &write)
    }

    /// The same, and durable at once.
    fn write(&mut self, member: MemberId, entries: &[(u64, u64)], state: (u64, u64)) {
        self.emit(member, entries, state).unwrap();
        let number = self.raft.shadow(member).write_last;
        self.raft.on_written(member, number);
    }

    fn send(
        &mut self,
        kind: MessageType,
        from: MemberId,
        to: MemberId,
        term: u64,
        index: u64,
    ) -> Result<(), Violation> {
        let message = Message {
            r#type: kind as i32,
            from: from.0,
            to: to.0,
            term,
            index,
            ..Message::default()
        };
        self.raft.on_send(&mut self.facts, from, &message)
    }

    fn position(
        &mut self,
        member: MemberId,
        term: u64,
        committed: u64,
        leads: bool,
    ) -> Result<(), Violation> {
        let position = Position {
            term,
            committed,
            applied: committed,
            leads,
        };
        self.raft
            .on_position(&mut self.facts, &mut self.ledger, member, position)
    }
}

fn property(result: Result<(), Violation>) -> &'static str {
    result.expect_err("a violation").property
}

#[test]
fn a_sound_run_is_accepted_and_committed() {
    let mut run = Run::new();
    for member in [A, B] {
        run.write(member, &[(1, 1), (2, 1)], (1, 1));
    }
    run.send(MessageType::MsgAppResp, B, A, 1, 2).unwrap();
    run.position(A, 1, 2, true).unwrap();
    assert_eq!(run.ledger.last(), 2);
}

#[test]
fn two_leaders_in_a_term_are_seen() {
    let mut run = Run::new();
    run.position(A, 3, 0, true).unwrap();
    assert_eq!(
        property(run.position(B, 3, 0, true)),
        "raft.election-safety"
    );
    run.position(A, 4, 0, false).unwrap();
    assert_eq!(
        property(run.send(MessageType::MsgHeartbeat, C, A, 3, 0)),
        "raft.election-safety"
    );
}

#[test]
fn a_second_vote_is_seen_even_when_the_first_was_forgotten() {
    let mut run = Run::new();
    run.write(A, &[], (2, B.0));
    run.send(MessageType::MsgVoteResp, A, B, 2, 0).unwrap();
    run.write(A, &[], (2, C.0));
    assert_eq!(
        property(run.send(MessageType::MsgVoteResp, A, C, 2, 0)),
        "raft.one-vote"
    );
}

#[test]
fn a_promise_before_its_sync_is_seen() {
    let mut run = Run::new();
    run.emit(A, &[(1, 1)], (1, B.0)).unwrap();
    assert_eq!(
        property(run.send(MessageType::MsgAppResp, A, B, 1, 1)),
        "raft.promise"
    );
    assert_eq!(
        property(run.send(MessageType::MsgVoteResp, A, B, 1, 0)),
        "raft.promise"
    );
    run.raft.on_written(A, WriteNumber(1));
    run.send(MessageType::MsgAppResp, A, B, 1, 1).unwrap();
}

#[test]
fn a_commit_without_a_durable_quorum_is_seen() {
    let mut run = Run::new();
    run.write(A, &[(1, 1)], (1, A.0));
    run.emit(B, &[(1, 1)], (1, A.0)).unwrap();
    assert_eq!(
        property(run.position(A, 1, 1, true)),
        "raft.committed-on-quorum"
    );
}

#[test]
fn a_changed_commit_is_seen() {
    let mut run = Run::new();
    for member in [A, B] {
        run.write(member, &[(1, 1)], (1, A.0));
    }
    run.position(A, 1, 1, true).unwrap();
    assert_eq!(
        property(run.emit(A, &[(1, 2)], (2, B.0))),
        "raft.committed-immutable"
    );
    run.write(C, &[(1, 2)], (2, C.0));
    assert_eq!(
        property(run.position(C, 2, 1, false)),
        "raft.committed-immutable"
    );
}

#[test]
fn a_leader_that_lacks_a_commit_is_seen() {
    let mut run = Run::new();
    for member in [A, B] {
        run.write(member, &[(1, 1)], (1, A.0));
    }
    run.position(A, 1, 1, true).unwrap();
    assert_eq!(
        property(run.position(C, 2, 0, true)),
        "raft.leader-completeness"
    );
}

#[test]
fn a_leader_of_an_earlier_term_need_not_hold_what_a_later_one_has_committed() {
    let mut run = Run::new();
    for member in [A, B] {
        run.write(member, &[(1, 1), (2, 3)], (3, A.0));
    }
    run.position(A, 3, 0, true).unwrap();
    run.position(A, 3, 2, true).unwrap();
    run.position(C, 2, 0, true)
        .expect("its votes were on their way for long");
    assert_eq!(
        property(run.position(C, 4, 0, true)),
        "raft.leader-completeness"
    );
}

#[test]
fn entries_that_are_equal_after_different_ones_are_seen() {
    let mut run = Run::new();
    run.write(A, &[(1, 1), (2, 3)], (3, A.0));
    assert_eq!(
        property(run.emit(B, &[(1, 2), (2, 3)], (3, A.0))),
        "raft.log-matching"
    );
}

#[test]
fn what_goes_back_is_seen() {
    let mut run = Run::new();
    run.position(A, 5, 0, false).unwrap();
    assert_eq!(property(run.position(A, 4, 0, false)), "raft.monotone");
    assert_eq!(property(run.position(B, 1, 1, false)), "raft.monotone");
}

#[test]
fn writes_out_of_count_and_gaps_are_seen() {
    let mut run = Run::new();
    assert_eq!(property(run.emit(A, &[(2, 1)], (1, 0))), "contract.output");
    let write = Write {
        number: WriteNumber(7),
        entries: Vec::new(),
        hard_state: None,
        snapshot: None,
        must_sync: false,
        ..Write::default()
    };
    assert_eq!(
        property(run.raft.on_write(&mut run.facts, B, &write)),
        "contract.output"
    );
}

#[test]
fn what_a_restart_lost_is_seen() {
    let entry = |index, term| Entry::normal(term, index, Bytes::new());
    let state = |term, vote| HardState {
        term,
        vote,
        commit: 0,
    };
    let restart = |entries: &[Entry], hard_state| {
        let mut run = Run::new();
        run.write(A, &[(1, 1), (2, 1)], (1, B.0));
        let Run {
            raft,
            facts,
            ledger,
        } = &mut run;
        let found = Found {
            base_term: 0,
            base: 0,
            entries,
            hard_state,
        };
        raft.on_restart(facts, ledger, A, &found)
    };
    restart(&[entry(1, 1), entry(2, 1)], state(1, B.0)).unwrap();
    restart(&[entry(1, 1), entry(2, 1), entry(3, 1)], state(2, 0)).unwrap();
    restart(&[entry(1, 2)], state(2, 0)).unwrap();
    for (entries, hard_state) in [
        (vec![entry(1, 1)], state(1, B.0)),
        (vec![entry(1, 1), entry(2, 1)], state(1, C.0)),
        (vec![entry(1, 1), entry(2, 1)], state(0, 0)),
        (Vec::new(), state(2, 0)),
    ] {
        assert_eq!(property(restart(&entries, hard_state)), "durable.recovered");
    }
}

#[test]
fn what_survived_unsynced_counts_for_a_promotion() {
    let mut run = Run::new();
    run.write(A, &[(1, 1), (2, 1)], (1, A.0));
    run.position(A, 1, 0, true).unwrap();
    run.write(B, &[(1, 1)], (1, A.0));
    run.emit(B, &[(2, 1)], (1, A.0)).unwrap();
    let promote = |run: &mut Run| run.raft.check_promotion(&mut run.facts, A, B);
    assert_eq!(property(promote(&mut run)), "members.promotion");
    let entries = [1, 2].map(|index| Entry::normal(1, index, Bytes::new()));
    let found = Found {
        base_term: 0,
        base: 0,
        entries: &entries,
        hard_state: HardState {
            term: 1,
            vote: A.0,
            commit: 0,
        },
    };
    run.raft
        .on_restart(&mut run.facts, &run.ledger, B, &found)
        .unwrap();
    promote(&mut run).expect("its disk has all");
}
