//! Leases: which exist, which keys die with them, and, on the leader alone, when they end.
//!
//! The [`Lessor`] owns two kinds of state and keeps them apart:
//!
//! ```text
//! replicated   id, granted TTL, remaining TTL of the last checkpoint, attached keys     changed by applied entries only
//! local        expiry of each lease, what is being revoked, checkpoint schedule         on the leader only, from its clock
//! ```
//!
//! A clock never changes replicated state: the leader *proposes* to revoke what has expired ([`Lessor::expired`]) and
//! to note what is left ([`Lessor::due_checkpoints`]); applying those entries is what changes anything. On followers
//! every lease lasts forever. A lease never ends early: its expiry is at least its TTL after the last renewal that was
//! answered, and a new leader starts over with the whole TTL (or what a checkpoint left of it) plus an election
//! timeout. This module proposes nothing itself, deletes no key, and never reads a clock.

#[cfg(test)]
mod never_early;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::{etcdserverpb as pb, leasepb};

use crate::error::RequestError;
use crate::types::{LeaseId, Time};

use schedule::Schedule;

/// The longest TTL that may be asked for, in seconds; etcd's number, which keeps nanoseconds within 63 bits.
pub const TTL_MAX: i64 = 9_000_000_000;
/// Leases that are being revoked at one time.
pub const REVOKES_IN_FLIGHT_MAX: usize = 16;
/// Leases whose revocation may start within one [`REVOKE_WINDOW`].
pub const REVOKES_PER_WINDOW: usize = 500;
/// The window of [`REVOKES_PER_WINDOW`].
pub const REVOKE_WINDOW: Duration = Duration::from_millis(500);
/// After this time a revocation that was not applied is proposed again.
pub const REVOKE_RETRY: Duration = Duration::from_secs(3);
/// How often the remaining TTL of a long lease is noted; shorter leases are not noted at all.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Notes in one log entry.
pub const CHECKPOINTS_PER_ENTRY: usize = 1000;
/// Leases that a new leader lets expire within one second: below the revocation rate of 1000, so that those which
/// expire later find room.
const EXPIRIES_PER_SECOND: usize = 750;

/// What a lessor is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Shorter TTLs are raised to this, in seconds. Must be equal on all members: it is part of what is replicated.
    pub ttl_min: i64,
    /// Feature gate LeaseCheckpoint: whether the leader notes remaining TTLs in the log.
    pub checkpoint: bool,
}

impl Config {
    /// The configuration that follows from the timing of elections: a lease must outlive one.
    pub fn new(tick: Duration, election_ticks: u32, checkpoint: bool) -> Self {
        let shortest = tick * (election_ticks * 3 / 2);
        let rounded_up = shortest.as_secs() + u64::from(shortest.subsec_nanos() > 0);
        Self {
            ttl_min: i64::try_from(rounded_up).expect("an election timeout fits"),
            checkpoint,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), 10, false)
    }
}

/// How a renewal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease has its whole TTL again, in seconds.
    Renewed(i64),
    /// A checkpoint says that less than the TTL is left (or is on its way through the log to say so), and a new leader
    /// would believe it: propose this checkpoint, and ask again when it is applied.
    ClearFirst(pb::LeaseCheckpoint),
    /// The lease has expired but is not revoked yet: wait until [`Lessor::revoke`] (then it is unknown) or
    /// [`Lessor::demote`] (then this member is not the one to ask).
    Expired,
    /// No such lease: the client is answered with TTL 0.
    Unknown,
    /// Only the leader renews.
    NotLeader,
}

/// The leases of a member.
#[derive(Debug, Default)]
pub struct Lessor {
    /// Fixed.
    config: Config,
    /// All leases.
    leases: BTreeMap<LeaseId, Lease>,
    /// Keys by lease, in byte order within a lease. Every lease named here exists.
    attachments: BTreeSet<(LeaseId, Box<[u8]>)>,
    /// When leases end; only the leader knows.
    schedule: Option<Schedule>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// Granted TTL in seconds, as it is stored.
    ttl: i64,
    /// What the last checkpoint left, in seconds; 0 is none.
    remaining_ttl: i64,
    /// Meaningless without a schedule.
    expiry: Time,
    /// When to note the remaining TTL; [`Time::NEVER`] when it is not to be noted.
    checkpoint_at: Time,
    /// Notes and what takes them back that are on their way through the log.
    underway: Underway,
}

/// The checkpoints of a lease that were handed out to be proposed, and may still be applied. One that was dropped on
/// the way is never seen again, so the counts may be too high (a renewal then asks for one clearing too many), but
/// they are never too low.
#[derive(Clone, Copy, Debug, Default)]
struct Underway {
    /// Notes of what is left.
    notes: u32,
    /// Clearings, which take a note back.
    clearings: u32,
    /// How many of the clearings are in the log before the newest of the notes, so that they do not take it back.
    before_newest_note: u32,
}

impl Underway {
    fn note(&mut self) {
        self.notes += 1;
        self.before_newest_note = self.clearings;
    }

    fn clear(&mut self) {
        self.clearings += 1;
    }

    fn applied(&mut self, remaining_ttl: i64) {
        if remaining_ttl > 0 {
            self.notes = self.notes.saturating_sub(1);
            return;
        }
        self.clearings = self.clearings.saturating_sub(1);
        if self.before_newest_note > 0 {
            self.before_newest_note -= 1;
        } else {
            self.notes = 0;
        }
    }
}

impl Lease {
    fn new(ttl: i64, remaining_ttl: i64) -> Self {
        Self {
            ttl,
            remaining_ttl,
            expiry: Time::NEVER,
            checkpoint_at: Time::NEVER,
            underway: Underway::default(),
        }
    }
}

impl Lessor {
    /// A lessor without leases, which is not the leader's.
    pub fn new(config: Config) -> Self {
        assert!(config.ttl_min > 0, "a lease lasts some time");
        Self {
            config,
            ..Self::default()
        }
    }

    /// A lessor as a checkpoint image has it: the lease table, and each live key that names a lease. A key whose
    /// lease is missing is left alone.
    pub fn restore(
        config: Config,
        leases: impl IntoIterator<Item = leasepb::Lease>,
        attachments: impl IntoIterator<Item = (LeaseId, Bytes)>,
    ) -> Self {
        let mut lessor = Self::new(config);
        lessor.leases = leases
            .into_iter()
            .map(|lease| {
                (
                    LeaseId(lease.id),
                    Lease::new(lease.ttl, lease.remaining_ttl),
                )
            })
            .collect();
        for (id, key) in attachments {
            lessor.attach(id, &key);
        }
        lessor
    }

    /// The lease table for a checkpoint image, sorted by id (as a signed number).
    pub fn export(&self) -> impl Iterator<Item = leasepb::Lease> + '_ {
        let row = |(id, lease): (&LeaseId, &Lease)| leasepb::Lease {
            id: id.0,
            ttl: lease.ttl,
            remaining_ttl: lease.remaining_ttl,
        };
        self.leases.iter().map(row)
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Applies a grant; answers the TTL that was granted, in seconds.
    pub fn grant(&mut self, now: Time, id: LeaseId, ttl: i64) -> Result<i64, RequestError> {
        if id == LeaseId(0) {
            return Err(RequestError::LeaseNotFound);
        }
        if ttl > TTL_MAX {
            return Err(RequestError::LeaseTTLTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(RequestError::LeaseExist);
        }
        let ttl = ttl.max(self.config.ttl_min);
        self.leases.insert(id, Lease::new(ttl, 0));
        self.start(now, id, ttl);
        Ok(ttl)
    }

    /// Applies a revocation; answers the keys that must be deleted in one transaction, in this order.
    pub fn revoke(&mut self, id: LeaseId) -> Result<Vec<Bytes>, RequestError> {
        let lease = self.leases.remove(&id).ok_or(RequestError::LeaseNotFound)?;
        if let Some(schedule) = &mut self.schedule {
            schedule.remove(id, lease.expiry, lease.checkpoint_at);
        }
        let attached = self.attachments.extract_if(keys_of(id), |_| true);
        Ok(attached.map(|(_, key)| Bytes::from(key)).collect())
    }

    /// Applies a checkpoint: this much of the lease is left, in seconds; 0 takes the note back.
    pub fn checkpoint(&mut self, now: Time, id: LeaseId, remaining_ttl: i64) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        lease.remaining_ttl = remaining_ttl;
        lease.underway.applied(remaining_ttl);
        self.schedule_checkpoint(now, id);
    }

    /// Whether the lease exists.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Attaches a key to a lease; answers whether the lease exists. The key is copied, so that it does not keep the
    /// request alive that brought it.
    pub fn attach(&mut self, id: LeaseId, key: impl AsRef<[u8]>) -> bool {
        let exists = self.leases.contains_key(&id);
        if exists {
            self.attachments.insert((id, Box::from(key.as_ref())));
        }
        exists
    }

    /// Detaches a key; a lease or key that is not there is fine.
    pub fn detach(&mut self, id: LeaseId, key: &[u8]) {
        self.attachments.remove(&(id, Box::from(key)));
    }

    /// The keys of a lease, in byte order.
    pub fn keys(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> {
        self.attachments.range(keys_of(id)).map(|(_, key)| &**key)
    }

    /// Renews a lease.
    pub fn renew(&mut self, now: Time, id: LeaseId) -> Renewal {
        let Some(schedule) = &mut self.schedule else {
            return Renewal::NotLeader;
        };
        let Some(lease) = self.leases.get_mut(&id) else {
            return Renewal::Unknown;
        };
        if lease.expiry <= now {
            return Renewal::Expired;
        }
        if lease.remaining_ttl > 0 || lease.underway.notes > 0 {
            lease.underway.clear();
            return Renewal::ClearFirst(pb::LeaseCheckpoint {
                id: id.0,
                remaining_ttl: 0,
            });
        }
        let ttl = lease.ttl.max(self.config.ttl_min);
        let expiry = now.after(seconds(ttl));
        schedule.move_expiry(id, lease.expiry, expiry);
        lease.expiry = expiry;
        Renewal::Renewed(ttl)
    }

    /// What is left of a lease, with its keys if wanted; the header is the caller's. The seconds are truncated, and
    /// negative for a lease that waits for its revocation. An unknown lease is no error: TTL -1.
    pub fn time_to_live(
        &self,
        now: Time,
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, RequestError> {
        if self.schedule.is_none() {
            return Err(RequestError::LeaderChanged);
        }
        let mut response = pb::LeaseTimeToLiveResponse {
            id: id.0,
            ttl: -1,
            ..Default::default()
        };
        if let Some(lease) = self.leases.get(&id) {
            let left = i128::from(lease.expiry.0) - i128::from(now.0);
            response.ttl = i64::try_from(left / 1_000_000_000)
                .expect("64 bits of nanoseconds are fewer seconds");
            response.granted_ttl = lease.ttl.max(self.config.ttl_min);
            if keys {
                response.keys = self.keys(id).map(Bytes::copy_from_slice).collect();
            }
        }
        Ok(response)
    }

    /// All leases: those that end first come first; where every lease is forever, by id.
    pub fn leases(&self) -> Vec<LeaseId> {
        if self.schedule.is_none() {
            return self.leases.keys().copied().collect();
        }
        let mut by_expiry: Vec<_> = self
            .leases
            .iter()
            .map(|(id, lease)| (lease.expiry, *id))
            .collect();
        by_expiry.sort_unstable();
        by_expiry.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether this is the leader's lessor.
    pub fn is_leader(&self) -> bool {
        self.schedule.is_some()
    }

    /// This member has become the leader and has applied everything of earlier terms: leases end from now on. Each
    /// gets its TTL, or what the last checkpoint left of it, and `extend` (the election timeout) on top.
    pub fn promote(&mut self, now: Time, extend: Duration) {
        let ttl_min = self.config.ttl_min;
        let base = now.after(extend);
        let row = |(id, lease): (&LeaseId, &Lease)| {
            (base.after(seconds(lease.left_at_promotion(ttl_min))), *id)
        };
        let mut expiries: Vec<_> = self.leases.iter().map(row).collect();
        expiries.sort_unstable();
        spread(&mut expiries);
        let mut schedule = Schedule::new(now, &expiries);
        // By id again, to go through the leases side by side: a million look-ups would take longer than an election.
        expiries.sort_unstable_by_key(|(_, id)| *id);
        for ((id, lease), (expiry, _)) in self.leases.iter_mut().zip(expiries) {
            let noted = self.config.checkpoint
                && seconds(lease.left_at_promotion(ttl_min)) > CHECKPOINT_INTERVAL;
            lease.expiry = expiry;
            lease.underway = Underway::default();
            lease.checkpoint_at = if noted {
                now.after(CHECKPOINT_INTERVAL)
            } else {
                Time::NEVER
            };
            schedule.move_checkpoint(*id, Time::NEVER, lease.checkpoint_at);
        }
        self.schedule = Some(schedule);
    }

    /// This member leads no longer: every lease lasts forever.
    pub fn demote(&mut self) {
        self.schedule = None;
    }

    /// Up to `limit` expired leases, for each of which a revocation must be proposed now. Those that are not revoked
    /// some time later are named again.
    pub fn expired(&mut self, now: Time, limit: usize) -> Vec<LeaseId> {
        self.schedule
            .as_mut()
            .map_or_else(Vec::new, |schedule| schedule.expired(now, limit))
    }

    /// Up to [`CHECKPOINTS_PER_ENTRY`] notes of remaining TTLs that must be proposed now, as one entry. Call until it
    /// answers nothing.
    pub fn due_checkpoints(&mut self, now: Time) -> Vec<pb::LeaseCheckpoint> {
        let Some(schedule) = &mut self.schedule else {
            return Vec::new();
        };
        let mut notes = Vec::new();
        while notes.len() < CHECKPOINTS_PER_ENTRY {
            let Some(id) = schedule.next_checkpoint(now) else {
                break;
            };
            let lease = self.leases.get_mut(&id).expect("a scheduled lease exists");
            let next = now.after(CHECKPOINT_INTERVAL);
            schedule.move_checkpoint(id, lease.checkpoint_at, next);
            lease.checkpoint_at = next;
            let left = lease.expiry.since(now);
            let remaining_ttl =
                i64::try_from(left.as_nanos().div_ceil(1_000_000_000)).expect("a TTL fits");
            if !left.is_zero() && remaining_ttl < lease.ttl {
                lease.underway.note();
                notes.push(pb::LeaseCheckpoint {
                    id: id.0,
                    remaining_ttl,
                });
            }
        }
        notes
    }

    /// When [`Lessor::expired`] or [`Lessor::due_checkpoints`] has something to say at the latest.
    pub fn deadline(&self) -> Time {
        self.schedule
            .as_ref()
            .map_or(Time::NEVER, Schedule::deadline)
    }

    /// Checks every invariant; panics with the name of the one that does not hold.
    pub fn check(&self) {
        for (id, _) in &self.attachments {
            assert!(
                self.leases.contains_key(id),
                "attached_lease_exists: {id:?}"
            );
        }
        let Some(schedule) = &self.schedule else {
            return;
        };
        let expiries = self
            .leases
            .iter()
            .map(|(id, lease)| (*id, lease.expiry, lease.checkpoint_at));
        schedule.check(expiries);
    }

    /// Gives a new lease its expiry.
    fn start(&mut self, now: Time, id: LeaseId, ttl: i64) {
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        let lease = self
            .leases
            .get_mut(&id)
            .expect("only a lease that exists is started");
        lease.expiry = now.after(seconds(ttl));
        schedule.insert_expiry(id, lease.expiry);
        self.schedule_checkpoint(now, id);
    }

    fn schedule_checkpoint(&mut self, now: Time, id: LeaseId) {
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        let lease = self
            .leases
            .get_mut(&id)
            .expect("only a lease that exists is noted");
        let wanted = self.config.checkpoint
            && seconds(lease.left_at_promotion(self.config.ttl_min)) > CHECKPOINT_INTERVAL;
        let at = if wanted {
            now.after(CHECKPOINT_INTERVAL)
        } else {
            Time::NEVER
        };
        schedule.move_checkpoint(id, lease.checkpoint_at, at);
        lease.checkpoint_at = at;
    }
}

impl Lease {
    /// What a new leader must still grant, in seconds.
    fn left_at_promotion(&self, ttl_min: i64) -> i64 {
        if self.remaining_ttl > 0 {
            self.remaining_ttl
        } else {
            self.ttl.max(ttl_min)
        }
    }
}

/// Delays expiries (which are sorted) so that no more than [`EXPIRIES_PER_SECOND`] fall into any second: many leases
/// of one TTL would otherwise pile up a TTL after each election.
fn spread(expiries: &mut [(Time, LeaseId)]) {
    for at in EXPIRIES_PER_SECOND..expiries.len() {
        let earliest = expiries[at - EXPIRIES_PER_SECOND]
            .0
            .after(Duration::from_secs(1));
        expiries[at].0 = expiries[at].0.max(earliest);
    }
}

/// The run of the attachments that belongs to a lease: they are ordered by lease, then by key.
fn keys_of(id: LeaseId) -> impl RangeBounds<(LeaseId, Box<[u8]>)> {
    let end = id.0.checked_add(1).map_or(Bound::Unbounded, |next| {
        Bound::Excluded((LeaseId(next), Box::default()))
    });
    (Bound::Included((id, Box::default())), end)
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(
        u64::try_from(ttl).expect("a TTL is raised to the minimum, which is positive"),
    )
}
