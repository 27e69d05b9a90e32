//! A history in numbers: keys by their order, values by their first appearance, answered operations by their revision.
//!
//! This file finds what needs no search: answers that do not fit their questions, two writes at one revision, and
//! operations whose revisions contradict real time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::{Fault, Found, History, Is, Keys, Operation, Step};

/// A history in numbers.
#[derive(Debug)]
pub(super) struct Compiled {
    /// The names of the keys, in order.
    pub(super) keys: Vec<String>,
    /// The values by their numbers.
    pub(super) values: Vec<String>,
    /// Answered operations, in the order of their revisions; at one revision the write comes first.
    pub(super) known: Vec<Known>,
    pub(super) unknown: Vec<Unknown>,
    /// Revisions of answered writes.
    pub(super) taken: BTreeSet<i64>,
    /// What no answered write has written, as it was seen.
    pub(super) shown: Shown,
    /// Revisions that cannot be those of a write that nobody has seen: runs from and to, in order.
    blocked: Vec<(i64, i64)>,
    /// The number of the group that each key belongs to.
    pub(super) group_of: Vec<u32>,
    pub(super) groups: usize,
}

/// What somebody saw at revisions that no answered write has.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The value of a key that changed at this revision.
    pub(super) value_at: HashMap<(u32, i64), u32>,
    /// The revisions at which this key got this value.
    pub(super) revisions_of: HashMap<(u32, u32), Vec<i64>>,
    revisions: BTreeSet<i64>,
}

/// What an operation asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its place in the history.
    pub(super) operation: usize,
    pub(super) compares: Vec<(u32, Condition)>,
    pub(super) success: Vec<Action>,
    pub(super) failure: Vec<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Condition {
    ModRevision(i64),
    Value(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Put { key: u32, value: u32 },
    Get(Range<u32>),
    Delete(Range<u32>),
}

/// An answered operation.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) wanted: Wanted,
    pub(super) began_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) revision: i64,
    pub(super) succeeded: bool,
    pub(super) writes: bool,
    /// What each step of the chosen list found.
    pub(super) results: Vec<Result>,
}

#[derive(Clone, Debug)]
pub(super) enum Result {
    Put,
    /// (key, value, mod revision).
    Got(Vec<(u32, u32, i64)>),
    Deleted(i64),
}

/// An operation without an answer.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) wanted: Wanted,
    pub(super) began_ns: u64,
    /// It cannot have been done at this revision or before.
    pub(super) floor: i64,
    /// Operations of one kind are interchangeable: they differ at most in values that nobody has ever seen.
    pub(super) kind: u32,
    /// It touches one key, and nobody has seen a value of it.
    pub(super) is_blind: bool,
}

impl Wanted {
    /// The keys that it looks at or changes.
    pub(super) fn touched(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let compared = self.compares.iter().map(|(key, _)| *key..*key + 1);
        let actions = self.success.iter().chain(&self.failure);
        compared.chain(actions.map(Action::keys))
    }
}

impl Action {
    pub(super) fn keys(&self) -> Range<u32> {
        match self {
            Self::Put { key, .. } => *key..*key + 1,
            Self::Get(keys) | Self::Delete(keys) => keys.clone(),
        }
    }
}

impl Compiled {
    pub(super) fn new(history: &History) -> std::result::Result<Self, Fault> {
        let mut names = Names::of(history);
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for (operation, asked) in history.0.iter().enumerate() {
            let wanted = names.wanted(operation, asked);
            let malformed = |reason: &str| Fault::Malformed {
                operation,
                reason: reason.to_owned(),
            };
            let Some(answer) = &asked.answer else {
                let writes = |action: &Action| !matches!(action, Action::Get(_));
                let mut actions = wanted.success.iter().chain(&wanted.failure);
                if !actions.any(writes) {
                    continue; // It can have changed nothing.
                }
                unknown.push(Unknown {
                    wanted,
                    began_ns: asked.began_ns,
                    floor: 0,
                    kind: 0,
                    is_blind: false,
                });
                continue;
            };
            let chosen = if answer.succeeded {
                &wanted.success
            } else {
                &wanted.failure
            };
            if chosen.len() != answer.results.len() {
                return Err(malformed("it has as many results as it has no steps"));
            }
            if answer.ended_ns < asked.began_ns {
                return Err(malformed("it ends before it begins"));
            }
            if !answer.succeeded && wanted.compares.is_empty() {
                return Err(malformed("it has no conditions that could fail"));
            }
            let results = chosen
                .iter()
                .zip(&answer.results)
                .map(|(action, found)| names.result(action, found));
            let results: Option<Vec<_>> = results.collect();
            let results = results.ok_or_else(|| malformed("a result does not fit its step"))?;
            let writes = results.iter().any(|result| match result {
                Result::Put => true,
                Result::Got(_) => false,
                Result::Deleted(count) => *count > 0,
            });
            known.push(Known {
                wanted,
                began_ns: asked.began_ns,
                ended_ns: answer.ended_ns,
                revision: answer.revision,
                succeeded: answer.succeeded,
                writes,
                results,
            });
        }
        known.sort_by_key(|it: &Known| (it.revision, !it.writes, it.began_ns));
        let taken = taken(&known)?;
        let shown = Shown::of(&known, &taken);
        set_kinds(&known, &mut unknown, &shown);
        let mut compiled = Self {
            group_of: vec![0; names.keys.len()],
            groups: 0,
            keys: names.keys,
            values: names.values,
            known,
            unknown,
            blocked: runs(taken.union(&shown.revisions)),
            taken,
            shown,
        };
        compiled.group();
        compiled.set_floors();
        Ok(compiled)
    }

    /// What began after something had ended has no lower revision, and a higher one if it writes.
    pub(super) fn check_real_time(&self) -> std::result::Result<(), Fault> {
        let mut by_beginning: Vec<_> = self.known.iter().collect();
        by_beginning.sort_by_key(|it| it.began_ns);
        let mut ended = Ended::of(&self.known);
        for it in by_beginning {
            let Some(earlier) = ended.before(it.began_ns) else {
                continue;
            };
            let before = earlier.revision;
            if it.revision < before || (it.writes && it.revision == before) {
                let reason = format!(
                    "it is at revision {}, and revision {before} had been answered before it began",
                    it.revision
                );
                return Err(Fault::Violation {
                    operation: it.wanted.operation,
                    other: Some(earlier.wanted.operation),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// The first revision after this one that a write may have that nobody has seen.
    pub(super) fn unseen_after(&self, revision: i64) -> i64 {
        let next = revision + 1;
        let run = self.blocked.partition_point(|(_, last)| *last < next);
        match self.blocked.get(run) {
            Some((first, last)) if *first <= next => last + 1,
            _ => next,
        }
    }

    fn set_floors(&mut self) {
        self.unknown.sort_by_key(|it| it.began_ns);
        let mut ended = Ended::of(&self.known);
        for it in &mut self.unknown {
            it.floor = ended.before(it.began_ns).map_or(0, |known| known.revision);
        }
    }

    /// Keys that one operation touches, or that were seen to change at one revision, are judged together.
    fn group(&mut self) {
        let mut sets = Sets::new(self.keys.len());
        let known = self.known.iter().map(|it| &it.wanted);
        let unknown = self.unknown.iter().map(|it| &it.wanted);
        // Ranges that cover a key and the next one, as what begins and ends there.
        let mut joins = vec![0_i64; self.keys.len() + 1];
        for wanted in known.chain(unknown) {
            let ranges = wanted.touched().filter(|keys| !keys.is_empty());
            let mut first = None;
            for keys in ranges {
                sets.join(*first.get_or_insert(keys.start), keys.start);
                joins[keys.start as usize] += 1;
                joins[keys.end as usize - 1] -= 1;
            }
        }
        let mut covering = 0;
        for key in 1..self.keys.len() as u32 {
            covering += joins[key as usize - 1];
            if covering > 0 {
                sets.join(key - 1, key);
            }
        }
        let mut first: HashMap<i64, u32> = HashMap::new();
        for it in &self.known {
            for result in &it.results {
                let Result::Got(found) = result else { continue };
                for (key, _, revision) in found {
                    sets.join(*first.entry(*revision).or_insert(*key), *key);
                }
            }
        }
        let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
        for key in 0..self.keys.len() as u32 {
            let root = sets.root(key);
            let next = numbers.len() as u32;
            self.group_of[key as usize] = *numbers.entry(root).or_insert(next);
        }
        self.groups = numbers.len();
    }
}

/// The revisions of answered writes.
fn taken(known: &[Known]) -> std::result::Result<BTreeSet<i64>, Fault> {
    let mut taken = BTreeSet::new();
    let mut before: Option<&Known> = None;
    for it in known.iter().filter(|it| it.writes) {
        if let Some(other) = before.filter(|other| other.revision == it.revision) {
            return Err(Fault::Violation {
                operation: it.wanted.operation,
                other: Some(other.wanted.operation),
                reason: format!("both have written at revision {}", it.revision),
            });
        }
        taken.insert(it.revision);
        before = Some(it);
    }
    Ok(taken)
}

impl Shown {
    fn of(known: &[Known], taken: &BTreeSet<i64>) -> Self {
        let mut shown = Self::default();
        for it in known {
            for result in &it.results {
                let Result::Got(found) = result else { continue };
                for (key, value, revision) in found {
                    if taken.contains(revision) {
                        continue;
                    }
                    shown.revisions.insert(*revision);
                    shown.value_at.insert((*key, *revision), *value);
                    let revisions = shown.revisions_of.entry((*key, *value)).or_default();
                    if !revisions.contains(revision) {
                        revisions.push(*revision);
                    }
                }
            }
            for (_, condition) in it.wanted.compares.iter().filter(|_| it.succeeded) {
                if let Condition::ModRevision(revision) = condition
                    && *revision > 0
                    && !taken.contains(revision)
                {
                    shown.revisions.insert(*revision);
                }
            }
        }
        shown
    }
}

/// Numbers the kinds of unknown operations.
fn set_kinds(known: &[Known], unknown: &mut [Unknown], shown: &Shown) {
    let mut matters: BTreeSet<u32> = shown.value_at.values().copied().collect();
    let wanted = unknown.iter().map(|it| &it.wanted);
    for wanted in known.iter().map(|it| &it.wanted).chain(wanted) {
        matters.extend(
            wanted
                .compares
                .iter()
                .filter_map(|(_, condition)| match condition {
                    Condition::Value(value) => Some(*value),
                    Condition::ModRevision(_) => None,
                }),
        );
    }
    let bare = |actions: &[Action]| -> Vec<Action> {
        let bare = actions.iter().map(|action| match action {
            Action::Put { key, value } if !matters.contains(value) => Action::Put {
                key: *key,
                value: u32::MAX,
            },
            other => other.clone(),
        });
        bare.collect()
    };
    let mut kinds = HashMap::new();
    for it in unknown {
        let wanted = &it.wanted;
        let kind = (
            wanted.compares.clone(),
            bare(&wanted.success),
            bare(&wanted.failure),
        );
        let touched: BTreeSet<_> = wanted.touched().flatten().collect();
        let matters = |action: &Action| match action {
            Action::Put { value, .. } => matters.contains(value),
            _ => false,
        };
        let mut actions = wanted.success.iter().chain(&wanted.failure);
        it.is_blind = touched.len() == 1 && !actions.any(matters);
        let next = kinds.len() as u32;
        it.kind = *kinds.entry(kind).or_insert(next);
    }
}

/// Numbers in order, as runs from and to.
fn runs<'a>(numbers: impl Iterator<Item = &'a i64>) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// The answered operations by their end: the highest revision that had been answered by some time.
struct Ended<'a> {
    by_end: std::iter::Peekable<std::vec::IntoIter<&'a Known>>,
    highest: Option<&'a Known>,
}

impl<'a> Ended<'a> {
    fn of(known: &'a [Known]) -> Self {
        let mut by_end: Vec<_> = known.iter().collect();
        by_end.sort_by_key(|it| it.ended_ns);
        Self {
            by_end: by_end.into_iter().peekable(),
            highest: None,
        }
    }

    /// Of those that ended before this time, the one with the highest revision. Times must not go back.
    fn before(&mut self, began_ns: u64) -> Option<&'a Known> {
        while let Some(it) = self.by_end.next_if(|it| it.ended_ns < began_ns) {
            if self
                .highest
                .is_none_or(|highest| it.revision > highest.revision)
            {
                self.highest = Some(it);
            }
        }
        self.highest
    }
}

/// The numbers of keys and values.
struct Names {
    keys: Vec<String>,
    values: Vec<String>,
    value_numbers: HashMap<String, u32>,
}

impl Names {
    fn of(history: &History) -> Self {
        let mut keys: BTreeSet<&str> = BTreeSet::new();
        for operation in &history.0 {
            keys.extend(operation.compares.iter().map(|it| it.key.as_str()));
            for step in operation.success.iter().chain(&operation.failure) {
                keys.insert(match step {
                    Step::Put { key, .. } => key,
                    Step::Get(keys) | Step::Delete(keys) => &keys.key,
                });
            }
            for found in operation.answer.iter().flat_map(|answer| &answer.results) {
                if let Found::Got(found) = found {
                    keys.extend(found.iter().map(|it| it.key.as_str()));
                }
            }
        }
        Self {
            keys: keys.into_iter().map(str::to_owned).collect(),
            values: Vec::new(),
            value_numbers: HashMap::new(),
        }
    }

    fn key(&self, name: &str) -> u32 {
        self.keys.partition_point(|known| known.as_str() < name) as u32
    }

    fn value(&mut self, value: &str) -> u32 {
        if let Some(number) = self.value_numbers.get(value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.to_owned());
        self.value_numbers.insert(value.to_owned(), number);
        number
    }

    fn range(&self, keys: &Keys) -> Range<u32> {
        let first = self.key(&keys.key);
        match keys.range_end.as_deref() {
            None => first..first + 1,
            Some("\0") => first..self.keys.len() as u32,
            Some(end) => first..self.key(end).max(first),
        }
    }

    fn wanted(&mut self, operation: usize, asked: &Operation) -> Wanted {
        let mut compares = Vec::new();
        for compare in &asked.compares {
            let condition = match &compare.is {
                Is::ModRevision(revision) => Condition::ModRevision(*revision),
                Is::Value(value) => Condition::Value(self.value(value)),
            };
            compares.push((self.key(&compare.key), condition));
        }
        Wanted {
            operation,
            compares,
            success: self.actions(&asked.success),
            failure: self.actions(&asked.failure),
        }
    }

    fn actions(&mut self, steps: &[Step]) -> Vec<Action> {
        let mut actions = Vec::new();
        for step in steps {
            actions.push(match step {
                Step::Put { key, value } => Action::Put {
                    key: self.key(key),
                    value: self.value(value),
                },
                Step::Get(keys) => Action::Get(self.range(keys)),
                Step::Delete(keys) => Action::Delete(self.range(keys)),
            });
        }
        actions
    }

    /// `None` if the result is one of another step.
    fn result(&mut self, action: &Action, found: &Found) -> Option<Result> {
        Some(match (action, found) {
            (Action::Put { .. }, Found::Put) => Result::Put,
            (Action::Delete(_), Found::Deleted(count)) if *count >= 0 => Result::Deleted(*count),
            (Action::Get(keys), Found::Got(found)) => {
                let mut got = Vec::new();
                for it in found {
                    let key = self.key(&it.key);
                    let follows = got.last().is_none_or(|(before, _, _)| *before < key);
                    if !keys.contains(&key) || !follows {
                        return None;
                    }
                    got.push((key, self.value(&it.value), it.mod_revision));
                }
                Result::Got(got)
            }
            _ => return None,
        })
    }
}

/// Sets of keys that grow together.
struct Sets(Vec<u32>);

impl Sets {
    fn new(keys: usize) -> Self {
        Self((0..keys as u32).collect())
    }

    fn root(&mut self, key: u32) -> u32 {
        let mut at = key;
        while self.0[at as usize] != at {
            let above = self.0[at as usize];
            self.0[at as usize] = self.0[above as usize];
            at = above;
        }
        at
    }

    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other) as usize] = one.min(other);
    }
}
