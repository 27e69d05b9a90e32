//! Histories of a key-value store as its clients saw them, and whether they are linearizable: nothing of a server is
//! needed, neither its log nor this simulator.
//!
//! An operation has a beginning and, if it was answered, an end on one clock. Each answer names the store's revision, as
//! etcd's headers do: a write's own, or the one that a read was answered from. What was not answered may have happened
//! at any time after its beginning, or never.
//!
//! ```text
//!   lines ─► History ─► Compiled: keys and values as numbers, in groups that no operation connects
//!                          │ order of revisions against real time: one pass
//!                          └ each group by itself: a search for what became of the unknown writes
//! ```
//!
//! Revisions put the answered operations in the only order that they can have, so that nothing but the unknown writes is
//! left to search for (Wing and Gong's search with memory, as Lowe made it: sets of states, each reached state kept
//! once). An unknown write is only supposed where an answer cannot be explained without it, at a revision that no
//! answered write has.

mod compile;
mod lines;
mod search;
mod state;
#[cfg(test)]
mod tests;

pub use lines::{LineError, read_lines, write_line};

use compile::Compiled;

/// Steps that a search may take before it gives up: a second or so.
pub const STEPS_MAX: u64 = 20_000_000;

/// What clients saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(pub Vec<Operation>);

/// One operation: a transaction, even if it has one step and no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked; only shown.
    pub client: u64,
    /// When it was sent.
    pub began_ns: u64,
    /// If all of these hold, `success` is done, otherwise `failure`.
    pub compares: Vec<Compare>,
    /// What was wanted.
    pub success: Vec<Step>,
    /// What was wanted if a condition fails.
    pub failure: Vec<Step>,
    /// What came back; `None` if nothing did, or nothing that says whether it happened.
    pub answer: Option<Answer>,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// What it must be.
    pub is: Is,
}

/// What a key must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Is {
    /// Last changed at this revision; 0 is absent.
    ModRevision(i64),
    /// There, with this value.
    Value(String),
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Reads keys.
    Get(Keys),
    /// Deletes keys.
    Delete(Keys),
}

/// One key, or those from `key` to before `range_end`, in etcd's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first.
    pub key: String,
    /// The end, if it is a range.
    pub range_end: Option<String>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When.
    pub ended_ns: u64,
    /// The revision in its header.
    pub revision: i64,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// What each step did.
    pub results: Vec<Found>,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It put.
    Put,
    /// It read all of these, in the order of their keys.
    Got(Vec<KeyValue>),
    /// It deleted so many.
    Deleted(i64),
}

/// A key as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// When it was changed last.
    pub mod_revision: i64,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Answered operations that wrote.
    pub writes: usize,
    /// Answered operations that did not.
    pub reads: usize,
    /// Operations without an answer.
    pub unknown: usize,
    /// Of these, the writes that others have seen.
    pub unknown_seen: usize,
    /// Groups of keys that were judged by themselves.
    pub groups: usize,
    /// Steps of the search.
    pub steps: u64,
    /// The most states that were possible at one time.
    pub states_max: usize,
}

/// Why a history was not found linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not.
    Violation {
        /// The operation (from 0) that cannot be explained.
        operation: usize,
        /// Another one that it contradicts, if it is that simple.
        other: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// An operation makes no sense by itself: its answer does not fit what was asked.
    Malformed {
        /// The operation, from 0.
        operation: usize,
        /// What is wrong.
        reason: String,
    },
    /// The search became too long.
    GaveUp {
        /// Where it was.
        operation: usize,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Violation {
                operation,
                other: Some(other),
                reason,
            } => write!(f, "operation {operation} after {other}: {reason}"),
            Self::Violation {
                operation, reason, ..
            }
            | Self::Malformed { operation, reason } => write!(f, "operation {operation}: {reason}"),
            Self::GaveUp { operation } => {
                write!(
                    f,
                    "the search is too long; it has come to operation {operation}"
                )
            }
        }
    }
}

impl History {
    /// Whether there is an order of its operations that a single store could have carried them out in, with these
    /// revisions, such that what had ended before something else began comes before it.
    pub fn judge(&self) -> Result<Compared, Fault> {
        self.judge_within(STEPS_MAX)
    }

    /// The same with another limit on the search.
    pub fn judge_within(&self, steps_max: u64) -> Result<Compared, Fault> {
        let compiled = Compiled::new(self)?;
        compiled.check_real_time()?;
        search::search(&compiled, steps_max)
    }
}

impl Operation {
    /// Puts one key.
    pub fn put(client: u64, began_ns: u64, key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        Self::of(client, began_ns, Step::Put { key, value })
    }

    /// Reads one key.
    pub fn get(client: u64, began_ns: u64, key: &str) -> Self {
        Self::of(client, began_ns, Step::Get(Keys::one(key)))
    }

    /// Deletes one key.
    pub fn delete(client: u64, began_ns: u64, key: &str) -> Self {
        Self::of(client, began_ns, Step::Delete(Keys::one(key)))
    }

    /// Does one thing.
    pub fn of(client: u64, began_ns: u64, step: Step) -> Self {
        Self {
            client,
            began_ns,
            compares: Vec::new(),
            success: vec![step],
            failure: Vec::new(),
            answer: None,
        }
    }

    /// With its answer.
    pub fn answered(mut self, ended_ns: u64, revision: i64, results: Vec<Found>) -> Self {
        self.answer = Some(Answer {
            ended_ns,
            revision,
            succeeded: true,
            results,
        });
        self
    }
}

impl Keys {
    /// One key.
    pub fn one(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            range_end: None,
        }
    }
}
