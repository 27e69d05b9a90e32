//! Confirmation: who answers a linearizable read or renews a lease has heard from a quorum after it was asked.
//!
//! Whatever came of the answer is judged elsewhere; but an old leader that answers by itself mostly happens to be right.
//! Here it is judged by when leaders were elected: a quorum that had elected a newer leader before the request came would
//! have told the old one so, instead of confirming it.

use quorate_core::types::MemberId;

use super::{Facts, Violation};

/// A member that is in this term answers what came when `led` was the newest term that had a leader.
pub fn check_answer(
    facts: &mut Facts,
    member: MemberId,
    term: u64,
    led: u64,
) -> Result<(), Violation> {
    facts.expect("raft.confirmed", term >= led, || {
        format!("{member:?} answers in term {term}, when it was asked another led in term {led}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_leader_that_was_deposed_before_is_seen() {
        let mut facts = Facts::new();
        check_answer(&mut facts, MemberId(1), 5, 5).unwrap();
        check_answer(&mut facts, MemberId(1), 6, 5).unwrap();
        let stale = check_answer(&mut facts, MemberId(1), 4, 5).unwrap_err();
        assert_eq!(stale.property, "raft.confirmed");
    }
}
