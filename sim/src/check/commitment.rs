//! Commitment: a leader counts the replicas of entries of its own term only; what came before is committed with them.
//!
//! An entry of an earlier term that stands on a majority may still be overwritten by a later leader (Raft paper, 5.4.2 and
//! figure 8). Whoever is the first in the cluster to call entries committed has counted, so the last of them must be of
//! the term in which it led. Everybody else has been told.

use quorate_core::types::MemberId;

use super::raft::Position;
use super::shadow::ShadowLog;
use super::{Facts, Violation};

/// A member went from one position to another with this log, and is the first to call its last entry committed.
pub fn check_first(
    facts: &mut Facts,
    member: MemberId,
    log: &ShadowLog,
    before: Position,
    now: Position,
) -> Result<(), Violation> {
    // Between two positions it may have heard of another leader.
    let led = match (before.leads, now.leads) {
        (_, true) => Some(now.term),
        (true, false) => Some(before.term),
        (false, false) => None,
    };
    let term = log.term(now.committed);
    facts.expect("raft.own-term", led.is_some() && term == led, || {
        format!(
            "{member:?} is the first to commit entry {} of term {term:?}, and led in term {led:?}",
            now.committed
        )
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_proto::raftpb::Entry;

    use super::*;

    #[test]
    fn an_entry_of_an_earlier_term_that_is_committed_by_counting_is_seen() {
        let mut log = ShadowLog::default();
        assert!(log.append(&[2, 4].map(|term| Entry::normal(term, term / 2, Bytes::new()))));
        let at = |term, committed, leads| Position {
            term,
            committed,
            applied: 0,
            leads,
        };
        let check =
            |before, now| check_first(&mut Facts::new(), MemberId(1), &log, before, now).is_ok();
        let leader = at(4, 0, true);
        assert!(check(leader, at(4, 2, true)), "with one of its own");
        assert!(!check(leader, at(4, 1, true)), "figure 8");
        assert!(check(leader, at(5, 2, false)), "it stepped down afterwards");
        assert!(!check(at(4, 0, false), at(4, 2, false)), "nobody told it");
    }
}
