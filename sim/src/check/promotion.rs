//! Promotion: a learner is made a voter only when it has nearly all of the log, as etcd has it: nine tenths of what the
//! leader has. Before that it would count for a quorum and could not help it.

use quorate_core::types::MemberId;

use super::{Facts, Violation};

/// Of the leader's log, in hundredths.
const READY_PERCENT: u64 = 90;

/// A leader has accepted a promotion. `own` is what its disk held at least, `reached` what the learner's disk ever held.
pub fn check_accepted(
    facts: &mut Facts,
    leader: MemberId,
    learner: MemberId,
    own: u64,
    reached: u64,
) -> Result<(), Violation> {
    let is_ready = reached * 100 >= own * READY_PERCENT;
    facts.expect("members.promotion", is_ready, || {
        format!("{leader:?} promotes {learner:?}, which has {reached} entries of {own}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_that_is_promoted_too_early_is_seen() {
        let mut facts = Facts::new();
        let mut check = |own, reached| {
            let (leader, learner) = (MemberId(1), MemberId(2));
            check_accepted(&mut facts, leader, learner, own, reached).is_ok()
        };
        assert!(check(100, 100) && check(100, 90) && check(0, 0));
        assert!(!check(100, 89) && !check(1, 0));
    }
}
