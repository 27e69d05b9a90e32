//! Random grants, renewals, checkpoints and elections: no lease ends before its TTL after what its client was told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{ELECTION, at, leader};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Grant(i64, i64),
    Revoke(i64),
    Renew(i64),
    Expire { applied: bool },
    Note,
    Apply,
    Elect { log_lost: bool },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..8i64, prop_oneof![1..20i64, 200..900i64]).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        (1..8i64).prop_map(Step::Revoke),
        (1..8i64).prop_map(Step::Renew),
        any::<bool>().prop_map(|applied| Step::Expire { applied }),
        Just(Step::Note),
        Just(Step::Apply),
        any::<bool>().prop_map(|log_lost| Step::Elect { log_lost }),
        prop_oneof![1..5_000u64, 100_000..400_000u64].prop_map(Step::Pass),
    ]
}

/// A leader, what its clients were told, and its log of checkpoints.
#[derive(Debug)]
struct World {
    lessor: Lessor,
    now: u64,
    /// Until when each lease must live.
    promised: BTreeMap<i64, u64>,
    /// Checkpoints that were proposed and not applied yet; a renewal may wait for one.
    log: Vec<(pb::LeaseCheckpoint, bool)>,
}

impl World {
    fn promise(&mut self, id: i64, ttl: i64) {
        self.promised
            .insert(id, self.now + u64::try_from(ttl).unwrap() * 1000);
    }

    fn renew(&mut self, id: i64) {
        match self.lessor.renew(at(self.now), LeaseId(id)) {
            Renewal::Renewed(ttl) => self.promise(id, ttl),
            Renewal::ClearFirst(note) => self.log.push((note, true)),
            Renewal::Expired => assert!(self.promised[&id] <= self.now),
            Renewal::Unknown => assert!(!self.promised.contains_key(&id)),
            Renewal::NotLeader => panic!("this is the leader"),
        }
    }

    fn apply(&mut self, renewals_alive: bool) {
        for (note, renews) in std::mem::take(&mut self.log) {
            self.lessor
                .checkpoint(at(self.now), LeaseId(note.id), note.remaining_ttl);
            if renews && renewals_alive {
                self.renew(note.id);
            }
        }
    }

    /// Applies what is in the log before an entry that is appended now. A note is older than the grant that comes
    /// after it in the log, so it never speaks of that grant's lease, even if the ids are the same.
    fn apply_what_is_before(&mut self) {
        while !self.log.is_empty() {
            self.apply(true);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Grant(id, ttl) => {
                self.apply_what_is_before();
                if let Ok(ttl) = self.lessor.grant(at(self.now), LeaseId(id), ttl) {
                    assert!(!self.promised.contains_key(&id));
                    self.promise(id, ttl);
                }
            }
            Step::Revoke(id) => {
                self.apply_what_is_before();
                assert_eq!(
                    self.lessor.revoke(LeaseId(id)).is_ok(),
                    self.promised.remove(&id).is_some()
                );
            }
            Step::Renew(id) => self.renew(id),
            Step::Expire { applied } => {
                let expired = self.lessor.expired(at(self.now), usize::MAX);
                if applied {
                    self.apply_what_is_before();
                }
                for LeaseId(id) in expired {
                    assert!(self.promised[&id] <= self.now, "lease {id} ended early");
                    if applied {
                        self.lessor.revoke(LeaseId(id)).unwrap();
                        self.promised.remove(&id);
                    }
                }
            }
            Step::Note => {
                let notes = self.lessor.due_checkpoints(at(self.now));
                assert!(notes.iter().all(|note| note.remaining_ttl > 0));
                self.log.extend(notes.into_iter().map(|note| (note, false)));
            }
            Step::Apply => self.apply(true),
            Step::Elect { log_lost } => {
                self.lessor.demote();
                if log_lost {
                    self.log.clear();
                }
                self.apply(false);
                self.lessor.promote(at(self.now), ELECTION);
            }
            Step::Pass(ms) => self.now += ms,
        }
        self.lessor.check();
    }
}

proptest! {
    /// A lease is handed out for revocation no earlier than its TTL after the last acknowledged grant or renewal,
    /// whatever elections and checkpoints come between.
    #[test]
    fn lease_never_ends_early(steps in prop::collection::vec(step(), 1..120)) {
        let mut world =
            World { lessor: leader(true), now: 0, promised: BTreeMap::new(), log: Vec::new() };
        for step in steps {
            world.step(step);
        }
        // In the end all of them end.
        let mut last = 0;
        while !world.lessor.is_empty() {
            world.now += 3_000;
            world.step(Step::Note);
            world.step(Step::Apply);
            world.step(Step::Expire { applied: true });
            last += 1;
            prop_assert!(last < 1_000, "leases are left: {:?}", world.lessor);
        }
    }
}
