//! The oracles: one file a property, each with a count of the facts that it compared.
//!
//! They see everything (the committed log, the disks, the clock) and change nothing. A count of zero over a whole set
//! of runs means that a checker looked at nothing, which is as bad as a violation.

pub mod addresses;
pub mod auth;
pub mod commitment;
pub mod configuration;
pub mod confirmed;
pub mod contract;
pub mod convergence;
pub mod corruption;
pub mod durability;
pub mod history;
pub mod intersection;
pub mod lease;
pub mod ledger;
pub mod linearizability;
pub mod lock;
pub mod members;
pub mod promotion;
pub mod purging;
pub mod quota;
pub mod raft;
pub mod shadow;
pub mod snapshot;
pub mod state;
pub mod watch;

use std::fmt;
use std::sync::LazyLock;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name, as in [`PROPERTIES`].
    pub property: &'static str,
    /// What was seen.
    pub detail: String,
}

/// Every property, with what it says. The names are those of the violations and of the fact counts.
pub const PROPERTIES: &[(&str, &str)] = &[
    (
        "raft.election-safety",
        "at most one leader in a term (Raft paper, figure 3)",
    ),
    (
        "raft.one-vote",
        "a member votes for at most one candidate in a term, across restarts",
    ),
    (
        "raft.log-matching",
        "entries of equal index and term are equal, and so are those before them",
    ),
    (
        "raft.leader-completeness",
        "a leader's log holds what was committed in earlier terms",
    ),
    (
        "raft.committed-immutable",
        "an entry that was committed never changes, on any member",
    ),
    (
        "raft.committed-on-quorum",
        "a committed entry is on the disks of a quorum when it is first called so",
    ),
    (
        "raft.own-term",
        "a leader counts replicas of entries of its own term only (Raft paper, 5.4.2)",
    ),
    (
        "raft.confirmed",
        "reads are answered and leases renewed by whom a quorum has confirmed since they came",
    ),
    (
        "raft.monotone",
        "term, commit index and applied index never go back, and applied <= committed <= last",
    ),
    (
        "raft.promise",
        "a vote or an acknowledged append is on the disk before the message that says so leaves",
    ),
    (
        "raft.members",
        "who the members are is a function of the applied index",
    ),
    (
        "raft.conf-state",
        "who votes, as Raft counts it, is a function of the applied index, and never joint",
    ),
    (
        "members.intersection",
        "quorums before and after a change of the members meet, and changes wait for each other",
    ),
    (
        "members.urls",
        "where members are to be reached is a function of the applied index",
    ),
    (
        "members.promotion",
        "a learner votes only when its disk holds nearly all of the leader's log",
    ),
    ("raft.purge-order", "purged <= snapshot <= applied"),
    (
        "snapshot.content",
        "an image holds what the log up to its index makes, whoever wrote it",
    ),
    (
        "durable.ack",
        "an acknowledged write is on the disks of a quorum when the answer leaves",
    ),
    (
        "durable.recovered",
        "a restart finds everything that was synced, unchanged",
    ),
    (
        "durable.platter",
        "what the log's writer called synced is on the platter",
    ),
    (
        "state.revision",
        "revision and compact revision are a function of the applied index",
    ),
    (
        "state.content",
        "the keys of a member are the model's at its revision, and equal HashKV on every member",
    ),
    (
        "linearizable.write",
        "an acknowledged write has its entry's result, and its entry is new",
    ),
    (
        "linearizable.read",
        "a read sees everything that was committed when it came, and nothing else",
    ),
    (
        "linearizable.history",
        "what clients of registers saw is judged from outside as it is from inside",
    ),
    (
        "serializable.read",
        "a local read is the model's answer at a revision that never goes back on a member",
    ),
    (
        "watch.delivery",
        "events are those of the history, each once, in order and without gaps",
    ),
    (
        "watch.progress",
        "a progress notification never runs ahead of the events",
    ),
    (
        "watch.compacted",
        "only a watch below the compact revision is cancelled for it",
    ),
    (
        "watch.live",
        "after everything has healed every watch has heard everything",
    ),
    (
        "lease.never-early",
        "a lease lasts for its TTL after the last acknowledged renewal, on the fastest clock",
    ),
    (
        "lease.ends",
        "after everything has healed each lease ends in bounded time",
    ),
    (
        "lease.renewal",
        "what is over, or never was, is not renewed",
    ),
    (
        "lease.keys",
        "the keys of a lease end with it, in one revision that does nothing else",
    ),
    (
        "lock.exclusive",
        "at most one holds a lock or an office, by create revision",
    ),
    (
        "lock.own-key",
        "who comes in has its own key at that revision",
    ),
    (
        "converge.equal",
        "after everything has healed all members have the same state",
    ),
    (
        "converge.images",
        "after everything has healed all members write the same checkpoint, byte by byte",
    ),
    (
        "converge.live",
        "after everything has healed writes and reads are served in bounded time",
    ),
    (
        "auth.decision",
        "who may do what is decided by the rules of the applied index, as etcd documents them",
    ),
    (
        "auth.stored",
        "an image holds the users and roles of its index",
    ),
    (
        "contract.answer",
        "each request is answered at most once, with an answer that fits it",
    ),
    (
        "corruption.no-false-alarm",
        "no comparison finds damage, and nobody raises CORRUPT, where no data were altered",
    ),
    (
        "corruption.member",
        "CORRUPT names whose data were altered, or nobody if there is no majority",
    ),
    (
        "corruption.start",
        "who compares before its start does not start exactly if the same rows have another hash elsewhere",
    ),
    (
        "corruption.found",
        "altered data that a comparison can see are found in bounded time",
    ),
    (
        "corruption.refusal",
        "all members tell of CORRUPT, and then change nothing and answer reads",
    ),
    (
        "quota.space",
        "who is over its quota, and nobody else, has no space, and then NOSPACE is raised",
    ),
    (
        "quota.refused",
        "who has no room for a request never says that it is done, and counts at least what it holds",
    ),
    ("contract.once", "a request stands in the log once at most"),
    (
        "contract.id",
        "no request gets an id that the member's own log has, wherever its clock is set",
    ),
    (
        "contract.error",
        "an error is one that the request and the situation allow",
    ),
    (
        "contract.output",
        "outputs come as the boundary promises: writes counted, nothing after a stop",
    ),
];

/// Facts compared so far, by property: a count for each row of [`PROPERTIES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts([u64; PROPERTIES.len()]);

/// Where the rows of [`PROPERTIES`] are found by name: facts are counted millions of times in a run.
static ROWS: LazyLock<Rows> = LazyLock::new(Rows::new);

/// An open hash table of rows; 0 is an empty slot, others are a row plus one.
struct Rows([u8; Self::SLOTS]);

impl Rows {
    const SLOTS: usize = 256;

    fn new() -> Self {
        let mut slots = [0; Self::SLOTS];
        for (row, (name, _)) in (1_u8..).zip(PROPERTIES) {
            let mut slot = Self::slot(name);
            while slots[slot] != 0 {
                slot = (slot + 1) % Self::SLOTS;
            }
            slots[slot] = row;
        }
        Self(slots)
    }

    fn slot(name: &str) -> usize {
        // A few letters tell most names apart.
        let letters = [name.len() / 2, name.len() - 1, name.len() - 3, 6];
        let letters = letters.iter().map(|at| name.as_bytes().get(*at));
        let mixed = letters.fold(name.len(), |sum, letter| {
            sum * 31 + usize::from(letter.copied().unwrap_or(0))
        });
        (mixed ^ mixed >> 8) % Self::SLOTS
    }

    fn find(&self, name: &str) -> Option<usize> {
        let mut slot = Self::slot(name);
        loop {
            let row = usize::from(self.0[slot]).checked_sub(1)?;
            if PROPERTIES[row].0 == name {
                return Some(row);
            }
            slot = (slot + 1) % Self::SLOTS;
        }
    }
}

impl Default for Facts {
    fn default() -> Self {
        Self::new()
    }
}

impl Violation {
    /// A violation of a property.
    pub fn new(property: &'static str, detail: impl Into<String>) -> Self {
        Self {
            property,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.detail)
    }
}

impl Facts {
    /// No facts, of every property.
    pub fn new() -> Self {
        Self([0; PROPERTIES.len()])
    }

    /// Compares one fact.
    pub fn expect(
        &mut self,
        property: &'static str,
        holds: bool,
        detail: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        let row = ROWS.find(property).expect("the property is in the table");
        self.0[row] += 1;
        if holds {
            Ok(())
        } else {
            Err(Violation::new(property, detail()))
        }
    }

    /// Counts by property.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = PROPERTIES.iter().map(|(name, _)| *name);
        names.zip(self.0.iter().copied())
    }

    /// Adds the facts of another run.
    pub fn add(&mut self, other: &Self) {
        for (count, others) in self.0.iter_mut().zip(other.0) {
            *count += others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_counted_whether_they_hold_or_not() {
        let mut facts = Facts::new();
        assert!(facts.expect("raft.monotone", true, String::new).is_ok());
        let violation = facts.expect("raft.monotone", false, || "7 < 8".to_owned());
        assert_eq!(violation.unwrap_err().to_string(), "raft.monotone: 7 < 8");
        assert!(facts.iter().any(|fact| fact == ("raft.monotone", 2)));
        assert!(facts.iter().any(|fact| fact == ("durable.ack", 0)));
    }
}
