//! The invariants of a node, one function each.
//!
//! | name | holds because | source |
//! |---|---|---|
//! | `applied_not_beyond_committed` | only committed entries are handed to apply | Raft 5.3 |
//! | `applied_index_is_consensus_applied` | every committed entry is applied before the next step | ours |
//! | `voters_are_the_members` | one place applies conf changes to both | etcd `confState` |
//! | `only_a_leader_ends_leases` | a lessor is promoted by the leader's own entry, demoted at once | etcd lessor |
//! | `checkpoint_not_beyond_applied` | an image holds applied entries only | ours |
//! | `merged_permissions_follow_from_the_roles` | every change and every restore merges them anew | etcd#14571 |
//! | `nothing_waits_for_a_write_that_is_durable` | messages are released with the write | Raft 5.1, TiKV async ready |

use super::Node;

impl Node {
    /// Checks every invariant; panics with the name of the one that does not hold. Cheap enough for every event of
    /// a simulation.
    pub fn check(&self) {
        self.consensus.check();
        self.check_applied();
        self.check_voters();
        self.check_leases();
        self.check_checkpoint();
        self.state.auth.check();
    }

    fn check_applied(&self) {
        // A checkpoint that is ahead of its record in the log makes the state run ahead of consensus for a while.
        let committed = self.consensus.committed();
        let ahead = self.state.index.max(self.checkpoints.last);
        assert!(
            self.state.index <= committed.max(ahead),
            "applied_not_beyond_committed"
        );
        assert!(
            committed <= self.consensus.last_index(),
            "committed_not_beyond_last"
        );
        assert!(
            self.consensus.first_index().0 <= self.consensus.last_index().0 + 1,
            "log_is_a_range"
        );
    }

    fn check_voters(&self) {
        let me = self.config.member;
        let is_member = self
            .state
            .membership
            .member(me)
            .is_some_and(|member| !member.is_learner);
        assert!(
            !self.consensus.is_leader() || is_member || self.leaving.is_some() || self.stopped,
            "voters_are_the_members"
        );
    }

    fn check_leases(&self) {
        let is_promoted = self.state.lessor.is_leader();
        // Between losing leadership and the next flush the lessor may still believe in it; it decides nothing then.
        assert!(
            !is_promoted || self.leadership.leader.is_some(),
            "only_a_leader_ends_leases"
        );
    }

    fn check_checkpoint(&self) {
        assert!(
            self.checkpoints.last <= self.state.index,
            "checkpoint_not_beyond_applied"
        );
        if let Some(record) = &self.checkpoints.in_flight {
            assert!(
                record.index <= self.state.index,
                "checkpoint_not_beyond_applied"
            );
        }
    }
}
