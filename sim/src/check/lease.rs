//! Leases: never too early, never for ever, with all their keys at once, and over when they are over.
//!
//! A lease is promised to last for its TTL from the moment at which the grant or the renewal that was acknowledged last
//! had come to a member. Who ends it measures that with a clock of its own, which may run a little fast; the fastest
//! that was seen sets the shortest time that a TTL may take. What a client ends itself may end at any time.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::boundary::Response;
use quorate_core::mvcc::View;
use quorate_core::types::MemberId;
use quorate_proto::etcdserverpb as pb;

use super::ledger::Ledger;
use super::state::everything;
use super::{Facts, Violation};

const SECOND: u64 = 1_000_000_000;
/// Clocks run at this rate when they are right, and this slow at the slowest.
const RATE: u64 = 1_000_000;
const RATE_MIN: u64 = 900_000;
/// What the end of a lease may take after its time, in a cluster that works: proposing, and proposing again what was
/// lost.
const ENDING_NS_MAX: u64 = 8 * SECOND;

/// What is known of all leases.
#[derive(Debug)]
pub struct Leases {
    leases: BTreeMap<i64, Known>,
    /// Leases that a client wanted to end, whatever came of it.
    given_back: BTreeSet<i64>,
    /// The lease that ended at each index of the log.
    ended_at: BTreeMap<u64, i64>,
    /// The rate of the fastest clock so far.
    rate_max: u64,
    /// How far the ledger was read.
    seen: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    ttl: i64,
    /// When the request came that was acknowledged last; 0 if none was.
    promised_from_ns: u64,
    /// The last time that anybody did something that may make it longer.
    touched_ns: u64,
    ended_ns: Option<u64>,
}

/// An acknowledgement that a lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The lease.
    pub lease: i64,
    /// For so many seconds.
    pub ttl: i64,
    /// From when on: when the request came to the member that answers.
    pub came_ns: u64,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            leases: BTreeMap::new(),
            given_back: BTreeSet::new(),
            ended_at: BTreeMap::new(),
            rate_max: RATE,
            seen: 0,
        }
    }
}

impl Leases {
    /// Some member's monotonic clock runs at this rate, in a million.
    pub fn on_rate(&mut self, rate: u64) {
        self.rate_max = self.rate_max.max(rate);
    }

    /// A client asks for the end of a lease.
    pub fn on_given_back(&mut self, lease: i64) {
        self.given_back.insert(lease);
    }

    /// A renewal has come somewhere.
    pub fn on_touched(&mut self, now_ns: u64, lease: i64) {
        if let Some(known) = self.leases.get_mut(&lease) {
            known.touched_ns = now_ns;
        }
    }

    /// How far the log was read.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Reads what the log has committed since the last time.
    pub fn follow(
        &mut self,
        facts: &mut Facts,
        now_ns: u64,
        ledger: &Ledger,
    ) -> Result<(), Violation> {
        while let Some(committed) = ledger.get(self.seen + 1) {
            self.seen += 1;
            match &committed.applied {
                Some((_, Ok(Response::LeaseGrant(granted)))) => {
                    let known = Known {
                        ttl: granted.ttl,
                        touched_ns: now_ns,
                        ..Known::default()
                    };
                    self.leases.insert(granted.id, known);
                }
                Some((_, Ok(Response::LeaseRevoke(_)))) => {
                    let lease = committed.revoked().expect("the entry of its result");
                    self.ended_at.insert(self.seen, lease);
                    self.on_end(facts, now_ns, lease)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_end(&mut self, facts: &mut Facts, now_ns: u64, lease: i64) -> Result<(), Violation> {
        let known = self.leases.get_mut(&lease);
        let known = known.expect("a lease that ends was granted");
        known.ended_ns = Some(now_ns);
        if self.given_back.contains(&lease) {
            return Ok(());
        }
        let known = *known;
        self.check_end(facts, lease, &known, now_ns)
    }

    fn check_end(
        &self,
        facts: &mut Facts,
        lease: i64,
        known: &Known,
        ended_ns: u64,
    ) -> Result<(), Violation> {
        // The clock may have become fast after the promise.
        let until_ns = known.promised_from_ns + nanoseconds(known.ttl, self.rate_max);
        let is_promised = known.promised_from_ns > 0;
        facts.expect(
            "lease.never-early",
            !is_promised || ended_ns >= until_ns,
            || format!("lease {lease} ends at {ended_ns} ns, promised was {until_ns}: {known:?}"),
        )
    }

    /// A grant is acknowledged.
    pub fn on_granted(&mut self, facts: &mut Facts, promise: Promise) -> Result<(), Violation> {
        self.on_promise(facts, promise)
    }

    /// A renewal is acknowledged.
    pub fn on_renewed(&mut self, facts: &mut Facts, promise: Promise) -> Result<(), Violation> {
        let ended_ns = self
            .leases
            .get(&promise.lease)
            .and_then(|known| known.ended_ns);
        let lives = ended_ns.is_none_or(|ended_ns| promise.came_ns <= ended_ns);
        facts.expect("lease.renewal", lives, || {
            format!("{promise:?} is acknowledged, the lease ended at {ended_ns:?}")
        })?;
        self.on_promise(facts, promise)
    }

    fn on_promise(&mut self, facts: &mut Facts, promise: Promise) -> Result<(), Violation> {
        let Promise {
            lease,
            ttl,
            came_ns,
        } = promise;
        let known = self.leases.get_mut(&lease);
        facts.expect("lease.renewal", known.is_some(), || {
            format!("{promise:?} is acknowledged, no such lease was ever granted")
        })?;
        let known = known.expect("just looked at");
        facts.expect("lease.renewal", known.ttl == ttl, || {
            format!("{promise:?} is acknowledged, granted was {known:?}")
        })?;
        known.promised_from_ns = known.promised_from_ns.max(came_ns);
        let known = *known;
        // It may have ended while the answer was on its way.
        if let Some(ended_ns) = known.ended_ns
            && !self.given_back.contains(&lease)
        {
            self.check_end(facts, lease, &known, ended_ns)?;
        }
        Ok(())
    }

    /// In a cluster that has worked since `since_ns` under one leader: each lease ends in time. `true` if all have ended.
    pub fn check_ends(
        &self,
        facts: &mut Facts,
        now_ns: u64,
        since_ns: u64,
        election_ns: u64,
    ) -> Result<bool, Violation> {
        let mut all_ended = true;
        for (lease, known) in &self.leases {
            let lasts_ns = nanoseconds(known.ttl, RATE_MIN);
            let until_ns =
                since_ns.max(known.touched_ns) + lasts_ns + 2 * election_ns + ENDING_NS_MAX;
            let has_ended = known.ended_ns.is_some();
            facts.expect("lease.ends", has_ended || now_ns <= until_ns, || {
                format!("lease {lease} is still there at {now_ns} ns: {known:?}")
            })?;
            all_ended &= has_ended;
        }
        Ok(all_ended)
    }

    /// Whether a lease has ended; `None` if it was never granted.
    pub fn has_ended(&self, lease: i64) -> Option<bool> {
        let known = self.leases.get(&lease)?;
        Some(known.ended_ns.is_some())
    }

    /// How long the longest lease that is left may last, by the slowest clock.
    pub fn longest_ns(&self) -> u64 {
        let left = self.leases.values().filter(|it| it.ended_ns.is_none());
        let longest = left.map(|known| nanoseconds(known.ttl, RATE_MIN));
        longest.max().unwrap_or(0)
    }

    /// A member has applied the entries after `before` up to `applied`: where a lease ended, its keys are gone, in one
    /// revision that did nothing else.
    pub fn check_keys(
        &self,
        facts: &mut Facts,
        ledger: &Ledger,
        member: MemberId,
        (before, applied): (u64, u64),
        view: &View,
    ) -> Result<(), Violation> {
        for (index, lease) in self.ended_at.range(before + 1..=applied) {
            let (after, _) = ledger.revisions_at(*index).expect("it was committed");
            let (earlier, _) = ledger.revisions_at(*index - 1).expect("it was committed");
            let at = |revision| {
                let request = pb::RangeRequest {
                    revision,
                    ..everything()
                };
                view.range(&request).ok()
            };
            let (Some(was), Some(is)) = (at(earlier), at(after)) else {
                continue; // A compaction has taken it away.
            };
            let wanted = was.kvs.iter().filter(|kv| kv.lease != *lease);
            facts.expect("lease.keys", wanted.eq(&is.kvs), || {
                format!("{member:?} ends lease {lease} at revision {after}: from {was:?} to {is:?}")
            })?;
        }
        Ok(())
    }
}

/// How long a clock of this rate needs for some seconds.
fn nanoseconds(seconds: i64, rate: u64) -> u64 {
    let exact = u128::from(seconds.unsigned_abs()) * u128::from(SECOND) * u128::from(RATE);
    u64::try_from(exact / u128::from(rate)).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use quorate_core::mvcc::Store;
    use quorate_core::types::LeaseId;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::model::Model;

    fn push(ledger: &mut Ledger, fill: impl FnOnce(&mut pb::InternalRaftRequest)) {
        let index = ledger.last() + 1;
        let mut request = pb::InternalRaftRequest {
            id: index,
            ..pb::InternalRaftRequest::default()
        };
        fill(&mut request);
        ledger.push(Entry::normal(
            1,
            index,
            Bytes::from(request.encode_to_vec()),
        ));
    }

    fn grant(ledger: &mut Ledger, id: i64) {
        push(ledger, |request| {
            request.lease_grant = Some(pb::LeaseGrantRequest { id, ttl: 2 });
        });
    }

    fn revoke(ledger: &mut Ledger, id: i64) {
        push(ledger, |request| {
            request.lease_revoke = Some(pb::LeaseRevokeRequest { id });
        });
    }

    fn put(ledger: &mut Ledger, key: &'static str, lease: i64) {
        push(ledger, |request| {
            request.put = Some(pb::PutRequest {
                key: key.into(),
                lease,
                ..pb::PutRequest::default()
            });
        });
    }

    fn promise(came_ns: u64) -> Promise {
        Promise {
            lease: 7,
            ttl: 2,
            came_ns,
        }
    }

    /// Lease 7, granted and promised at second 1, renewed at second 2.
    fn renewed() -> (Leases, Ledger, Facts) {
        let (mut ledger, mut leases) = (Ledger::new(Model::new(1)), Leases::default());
        let mut facts = Facts::new();
        grant(&mut ledger, 7);
        leases.follow(&mut facts, SECOND, &ledger).unwrap();
        leases.on_granted(&mut facts, promise(SECOND)).unwrap();
        leases.on_touched(2 * SECOND, 7);
        leases.on_renewed(&mut facts, promise(2 * SECOND)).unwrap();
        (leases, ledger, facts)
    }

    #[test]
    fn an_end_before_the_renewed_ttl_is_seen() {
        for (at_ns, rate, holds) in [
            (3 * SECOND, RATE, false),
            (4 * SECOND, RATE, true),
            (4 * SECOND - SECOND / 10, 1_100_000, true),
            (3 * SECOND + SECOND / 2, 1_100_000, false),
        ] {
            let (mut leases, mut ledger, mut facts) = renewed();
            leases.on_rate(rate);
            revoke(&mut ledger, 7);
            let followed = leases.follow(&mut facts, at_ns, &ledger);
            assert_eq!(followed.is_ok(), holds, "{at_ns} {rate}");
        }
    }

    #[test]
    fn what_a_client_gives_back_may_end_at_once() {
        let (mut leases, mut ledger, mut facts) = renewed();
        leases.on_given_back(7);
        revoke(&mut ledger, 7);
        leases.follow(&mut facts, 2 * SECOND, &ledger).unwrap();
    }

    #[test]
    fn a_renewal_that_is_acknowledged_after_the_end_is_seen() {
        let (mut leases, mut ledger, mut facts) = renewed();
        revoke(&mut ledger, 7);
        leases.follow(&mut facts, 5 * SECOND, &ledger).unwrap();
        let late = leases.on_renewed(&mut facts, promise(5 * SECOND + 1));
        assert_eq!(late.unwrap_err().property, "lease.renewal");
        let concurrent = leases.on_renewed(&mut facts, promise(4 * SECOND));
        assert_eq!(concurrent.unwrap_err().property, "lease.never-early");
        let unknown = Promise {
            lease: 8,
            ..promise(1)
        };
        let unknown = leases.on_renewed(&mut facts, unknown);
        assert_eq!(unknown.unwrap_err().property, "lease.renewal");
    }

    #[test]
    fn a_lease_that_never_ends_is_seen() {
        let (leases, _, mut facts) = renewed();
        let mut check = |now_ns| leases.check_ends(&mut facts, now_ns, 0, SECOND);
        assert_eq!(check(5 * SECOND), Ok(false));
        assert_eq!(check(60 * SECOND).unwrap_err().property, "lease.ends");
    }

    #[test]
    fn a_key_that_stays_and_a_key_that_goes_too_are_seen() {
        let (mut leases, mut ledger, mut facts) = renewed();
        for (key, lease) in [("a", 7), ("b", 7), ("c", 0)] {
            put(&mut ledger, key, lease);
        }
        revoke(&mut ledger, 7);
        leases.follow(&mut facts, 9 * SECOND, &ledger).unwrap();
        for (deleted, holds) in [
            (&["a", "b"][..], true),
            (&["a"], false),
            (&["a", "b", "c"], false),
        ] {
            let mut store = Store::new();
            for (key, lease) in [("a", 7), ("b", 7), ("c", 0)] {
                let mut write = store.begin();
                write.put(key.as_bytes(), b"", LeaseId(lease));
                write.end();
            }
            let mut write = store.begin();
            for key in deleted {
                write.delete_range(key.as_bytes(), b"", |_, _| {});
            }
            write.end();
            let (view, member) = (store.view(), MemberId(1));
            let checked = leases.check_keys(&mut facts, &ledger, member, (0, 5), &view);
            assert_eq!(checked.is_ok(), holds, "{deleted:?}");
        }
    }
}
