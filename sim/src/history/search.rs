//! What became of the unknown writes: a search over states, group by group, in the order of the revisions.
//!
//! All states that explain what was answered so far are kept, each once. An answered operation is compared with each of
//! them; where it does not fit, unknown writes are supposed until it does, each at a revision of its own that no
//! answered write has, after everything that had ended when it began, and not before anything that would have seen it.
//! A state that cannot be made to fit is dropped. When none is left the history is no history of one store.
//!
//! Supposing late is enough: an unknown write changes nothing that is asked before somebody sees one of its keys, and it
//! may be put at an earlier revision even then. Unknown writes that ask for the same are interchangeable, so that one of
//! them stands for all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use super::compile::{Action, Compiled, Condition, Known, Result as Found};
use super::state::{ABSENT, State};
use super::{Compared, Fault};

/// Unknown writes that are supposed at most to explain one answer.
const SUPPOSED_MAX: u32 = 8;

/// Unknown operations that may change a key, in the order of their floors.
#[derive(Clone, Debug, Default)]
struct Writers {
    /// Those that give it a value (or [`ABSENT`]) that somebody has seen, or touch other keys, too.
    by_value: BTreeMap<u32, Vec<u32>>,
    /// Puts of values that nobody has seen.
    puts: Vec<u32>,
    /// The same under a condition.
    swaps: Vec<u32>,
    /// Deletions of this key alone.
    deletions: Vec<u32>,
}

/// What a key must be.
#[derive(Clone, Copy, Debug)]
enum Need {
    Is(Condition),
    /// Something else than it is.
    Different,
}

/// An answer that a state does not explain.
struct Mismatch(String);

/// One group of keys.
struct Group<'a> {
    compiled: &'a Compiled,
    /// The first of its keys has this place; a range of keys is a range here.
    place_of: &'a [u32],
    /// Its keys, in order.
    keys: Vec<u32>,
    /// For each of its keys: the unknown operations that may change it.
    writers: Vec<Writers>,
    steps: u64,
    steps_max: u64,
    /// Something was not tried because there was too much.
    was_cut: bool,
    /// Whether a put and a swap that would do are both tried.
    is_thorough: bool,
}

/// Judges group by group.
pub(super) fn search(compiled: &Compiled, steps_max: u64) -> Result<Compared, Fault> {
    let mut compared = Compared {
        unknown: compiled.unknown.len(),
        groups: compiled.groups,
        ..Compared::default()
    };
    let mut place_of = vec![0; compiled.keys.len()];
    let mut keys_of = vec![Vec::new(); compiled.groups];
    for (key, group) in (0..).zip(&compiled.group_of) {
        let keys: &mut Vec<u32> = &mut keys_of[*group as usize];
        place_of[key as usize] = keys.len() as u32;
        keys.push(key);
    }
    let mut known_of = vec![Vec::new(); compiled.groups];
    for known in &compiled.known {
        if known.writes {
            compared.writes += 1;
        } else {
            compared.reads += 1;
        }
        let first = known.wanted.touched().find(|keys| !keys.is_empty());
        if let Some(keys) = first {
            known_of[compiled.group_of[keys.start as usize] as usize].push(known);
        }
    }
    for (keys, known) in keys_of.into_iter().zip(known_of) {
        let mut group = Group::new(compiled, &place_of, keys, steps_max - compared.steps);
        let mut found = group.run(&known, &mut compared.states_max);
        if matches!(found, Err(Fault::Violation { .. })) {
            // What is tried first is nearly always enough, and much less; who is to be found guilty gets the rest, too.
            group.is_thorough = true;
            found = group.run(&known, &mut compared.states_max);
        }
        compared.unknown_seen += found?.slots.len();
        compared.steps += group.steps;
    }
    Ok(compared)
}

impl<'a> Group<'a> {
    fn new(compiled: &'a Compiled, place_of: &'a [u32], keys: Vec<u32>, steps_max: u64) -> Self {
        let mut group = Self {
            writers: vec![Writers::default(); keys.len()],
            compiled,
            place_of,
            keys,
            steps: 0,
            steps_max,
            was_cut: false,
            is_thorough: false,
        };
        for (number, unknown) in (0..).zip(&compiled.unknown) {
            let wanted = &unknown.wanted;
            for action in wanted.success.iter().chain(&wanted.failure) {
                let value = match action {
                    Action::Put { value, .. } => *value,
                    Action::Delete(_) => ABSENT,
                    Action::Get(_) => continue,
                };
                let keys = action.keys();
                if keys.is_empty() || group.keys.binary_search(&keys.start).is_err() {
                    continue;
                }
                let has_conditions = !wanted.compares.is_empty();
                for place in group.places(&keys) {
                    let writers = &mut group.writers[place];
                    let writers = match (unknown.is_blind, value == ABSENT, has_conditions) {
                        (true, true, false) => &mut writers.deletions,
                        (true, false, false) => &mut writers.puts,
                        (true, false, true) => &mut writers.swaps,
                        _ => writers.by_value.entry(value).or_default(),
                    };
                    if writers.last() != Some(&number) {
                        writers.push(number);
                    }
                }
            }
        }
        group
    }

    fn places(&self, keys: &Range<u32>) -> Range<usize> {
        if keys.is_empty() {
            return 0..0;
        }
        let first = self.place_of[keys.start as usize] as usize;
        first..first + (keys.end - keys.start) as usize
    }

    fn place(&self, key: u32) -> usize {
        self.place_of[key as usize] as usize
    }

    /// One of the states that explain everything.
    fn run(&mut self, known: &[&Known], states_max: &mut usize) -> Result<State, Fault> {
        let mut states = vec![State::new(self.keys.len(), self.compiled.unknown.len())];
        for it in known {
            let operation = it.wanted.operation;
            let mut next = Vec::with_capacity(states.len());
            let mut first = None;
            self.was_cut = false;
            for mut state in states {
                self.steps += 1;
                match self.fits(&state, it) {
                    Ok(()) => {
                        self.take(&mut state, it);
                        next.push(state);
                    }
                    Err(mismatch) => {
                        first.get_or_insert(mismatch);
                        self.explain(&state, it, SUPPOSED_MAX, &mut next);
                    }
                }
                if self.steps > self.steps_max {
                    return Err(Fault::GaveUp { operation });
                }
            }
            if next.len() > 1 {
                let mut known = HashSet::new();
                next.retain(|state| known.insert(state.hash));
            }
            *states_max = next.len().max(*states_max);
            states = next;
            if states.is_empty() {
                if self.was_cut {
                    return Err(Fault::GaveUp { operation });
                }
                let Mismatch(reason) = first.expect("some state did not fit");
                return Err(Fault::Violation {
                    operation,
                    other: None,
                    reason,
                });
            }
        }
        Ok(states.swap_remove(0))
    }

    /// Supposes unknown writes until the answer fits.
    fn explain(&mut self, state: &State, known: &Known, left: u32, into: &mut Vec<State>) {
        for (unknown, slot) in self.candidates(state, &self.needs(state, known), known.revision) {
            if left == 0 || self.steps > self.steps_max {
                self.was_cut = true;
                return;
            }
            for mut supposed in self.suppose(state, unknown, slot, left - 1) {
                self.steps += 1;
                if self.fits(&supposed, known).is_ok() {
                    self.take(&mut supposed, known);
                    into.push(supposed);
                } else {
                    self.explain(&supposed, known, left - 1, into);
                }
            }
        }
    }

    /// The states in which this unknown operation was done at this revision, after others if it needs them.
    fn suppose(&mut self, state: &State, unknown: u32, slot: i64, left: u32) -> Vec<State> {
        self.steps += 1;
        if state.is_used(unknown) {
            return Vec::new();
        }
        if let Some(done) = self.done(state, unknown, slot) {
            return vec![done];
        }
        let wanted = &self.compiled.unknown[unknown as usize].wanted;
        let mut needs = Vec::new();
        for (key, condition) in &wanted.compares {
            let place = self.place(*key);
            if !state.keys[place].holds(*condition) {
                needs.push((place, Need::Is(*condition)));
            }
        }
        let mut states = Vec::new();
        for (other, at) in self.candidates(state, &needs, slot - 1) {
            if left == 0 || self.steps > self.steps_max {
                self.was_cut = true;
                break;
            }
            for before in self.suppose(state, other, at, left - 1) {
                states.extend(self.suppose(&before, unknown, slot, left - 1));
            }
        }
        states
    }

    /// What keys must be for an answer to fit.
    fn needs(&self, state: &State, known: &Known) -> Vec<(usize, Need)> {
        let mut needs = Vec::new();
        let mut is_exact = BTreeSet::new();
        let mut need = |place: usize, condition: Condition| {
            let is_new = is_exact.insert(place);
            if is_new && !state.keys[place].holds(condition) {
                needs.push((place, Need::Is(condition)));
            }
        };
        let absent = Condition::ModRevision(0);
        for (action, result) in known.chosen().iter().zip(&known.results) {
            let found = match result {
                Found::Got(found) => &found[..],
                Found::Deleted(0) => &[],
                _ => continue,
            };
            let mut found = found.iter().peekable();
            for key in action.keys() {
                match found.next_if(|(found, ..)| *found == key) {
                    Some((.., at)) if known.writes && *at == known.revision => {}
                    Some((.., at)) => need(self.place(key), Condition::ModRevision(*at)),
                    None => need(self.place(key), absent),
                }
            }
        }
        for (key, condition) in known.wanted.compares.iter().filter(|_| known.succeeded) {
            need(self.place(*key), *condition);
        }
        // Conditions that should have failed, and counts that are others, say only that something is different.
        let deletes = known.chosen().iter().filter_map(|action| match action {
            Action::Delete(keys) => Some(keys.clone()),
            _ => None,
        });
        let compared = known.wanted.compares.iter().filter(|_| !known.succeeded);
        let different = compared.map(|(key, _)| *key..*key + 1).chain(deletes);
        let places: BTreeSet<_> = different.flat_map(|keys| self.places(&keys)).collect();
        let places = places.into_iter().filter(|place| !is_exact.contains(place));
        needs.extend(places.map(|place| (place, Need::Different)));
        needs
    }

    /// Unknown operations that may help, each with the revision that it would have.
    fn candidates(&self, state: &State, needs: &[(usize, Need)], last: i64) -> Vec<(u32, i64)> {
        let mut found = Vec::new();
        for &(place, need) in needs {
            let key = self.keys[place];
            let writers = &self.writers[place];
            let mut some = Vec::new();
            let (wanted, at) = match need {
                Need::Is(Condition::ModRevision(0)) => (Some(ABSENT), None),
                Need::Is(Condition::ModRevision(revision)) => {
                    let shown = self.compiled.shown.value_at.get(&(key, revision));
                    (shown.copied(), Some(revision))
                }
                Need::Is(Condition::Value(value)) => (Some(value), None),
                Need::Different => (None, None),
            };
            if wanted.is_none() {
                some.extend(self.blind_puts(state, place, last));
            }
            if at.is_none() && wanted.is_none_or(|value| value == ABSENT) {
                some.extend(self.first_open(state, &writers.deletions, last));
            }
            let of_value = wanted.and_then(|value| writers.by_value.get_key_value(&value));
            let all = writers.by_value.iter().filter(|_| wanted.is_none());
            let mut kinds = HashSet::new();
            for (value, unknown) in of_value.into_iter().chain(all) {
                let is_new = |unknown: &u32| {
                    let kind = self.compiled.unknown[*unknown as usize].kind;
                    self.is_open(state, *unknown, last) && kinds.insert((*value, kind))
                };
                some.extend(unknown.iter().copied().filter(is_new));
            }
            for unknown in some {
                let slots = self.slots(state, unknown, place, (at, last));
                found.extend(slots.into_iter().map(|slot| (unknown, slot)));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn is_open(&self, state: &State, unknown: u32, last: i64) -> bool {
        self.compiled.unknown[unknown as usize].floor < last && !state.is_used(unknown)
    }

    fn first_open(&self, state: &State, unknown: &[u32], last: i64) -> Option<u32> {
        let mut unknown = unknown.iter().copied();
        unknown.find(|unknown| self.is_open(state, *unknown, last))
    }

    /// Writes of something that nobody has seen. A swap that would be done now, and has a revision left, goes before any
    /// put, since it is good for less later; a thorough search tries both, since the put may leave a revision free that
    /// something else needs. A swap that would not be done is only tried where there is nothing else.
    fn blind_puts(&self, state: &State, place: usize, last: i64) -> Vec<u32> {
        let writers = &self.writers[place];
        let open = writers.swaps.iter().copied();
        let open = open.filter(|unknown| self.is_open(state, *unknown, last));
        let would_be_done = |unknown: &u32| {
            let compares = &self.compiled.unknown[*unknown as usize].wanted.compares;
            compares
                .iter()
                .all(|(_, condition)| state.keys[place].holds(*condition))
        };
        let has_room = |unknown: &u32| {
            let slots = self.slots(state, *unknown, place, (None, last));
            !slots.is_empty()
        };
        let swap = open
            .clone()
            .find(|unknown| would_be_done(unknown) && has_room(unknown));
        let put = self.first_open(state, &writers.puts, last);
        let found = swap.into_iter().chain(put);
        let found: Vec<u32> = found.take(if self.is_thorough { 2 } else { 1 }).collect();
        if !found.is_empty() {
            return found;
        }
        let mut kinds = HashSet::new();
        let kind = |unknown: &u32| self.compiled.unknown[*unknown as usize].kind;
        open.filter(|unknown| kinds.insert(kind(unknown))).collect()
    }

    /// The revisions that an unknown write may have: `at`, or those at which somebody saw its value, or one at which
    /// nobody saw anything.
    fn slots(
        &self,
        state: &State,
        unknown: u32,
        place: usize,
        (at, last): (Option<i64>, i64),
    ) -> Vec<i64> {
        let it = &self.compiled.unknown[unknown as usize];
        let key = &state.keys[place];
        let after = it.floor.max(key.changed).max(key.observed);
        let is_free = |slot: &i64| {
            let is_taken = self.compiled.taken.contains(slot) || state.slots.contains(slot);
            *slot > after && *slot <= last && !is_taken
        };
        if at.is_some() {
            return at.into_iter().filter(is_free).collect();
        }
        let mut slots = Vec::new();
        let mut may_be_unseen = true;
        for action in it.wanted.success.iter().chain(&it.wanted.failure) {
            if let Action::Put { key, value } = action
                && let Some(shown) = self.compiled.shown.revisions_of.get(&(*key, *value))
            {
                slots.extend(shown.iter().copied().filter(is_free));
                let writers = &self.writers[self.place(*key)].by_value;
                may_be_unseen &= writers.get(value).is_some_and(|it| it.len() > 1);
            }
        }
        if may_be_unseen {
            // As early as possible, to leave room; or after what somebody has seen that it may contradict.
            let glimpsed = key.glimpses.iter().map(|(at, ..)| *at).max();
            for after in [Some(after), glimpsed.filter(|at| *at > after)] {
                let Some(after) = after else { continue };
                let mut slot = self.compiled.unseen_after(after);
                while state.slots.contains(&slot) {
                    slot = self.compiled.unseen_after(slot);
                }
                slots.extend((slot <= last).then_some(slot));
            }
        }
        slots
    }

    /// Does an unknown operation at a revision; `None` if it would change nothing, or somebody would have seen it.
    fn done(&self, state: &State, unknown: u32, slot: i64) -> Option<State> {
        let it = &self.compiled.unknown[unknown as usize];
        let mut next = state.clone();
        let mut holds = true;
        for (key, condition) in &it.wanted.compares {
            let key = &mut next.keys[self.place_of[*key as usize] as usize];
            // Of what was overwritten since nothing is known any more: it may have held.
            if slot > key.changed {
                holds &= key.holds(*condition);
                key.glimpses
                    .push((slot - 1, *condition, key.holds(*condition)));
            }
        }
        let actions = if holds {
            &it.wanted.success
        } else {
            &it.wanted.failure
        };
        let mut changes = false;
        for action in actions {
            let value = match action {
                Action::Put { value, .. } => *value,
                Action::Delete(_) => ABSENT,
                Action::Get(_) => continue,
            };
            for place in self.places(&action.keys()) {
                let key = &next.keys[place];
                if value == ABSENT && key.value == ABSENT && slot > key.changed {
                    continue;
                }
                changes = true;
                if slot <= key.observed {
                    return None;
                }
                if slot > key.changed && !next.set_unseen(place, value, slot) {
                    return None;
                }
            }
        }
        next.use_up(unknown, slot);
        changes.then_some(next)
    }

    /// Whether an answer is what this state gives.
    fn fits(&self, state: &State, known: &Known) -> Result<(), Mismatch> {
        let holds =
            |(key, condition): &(u32, Condition)| state.keys[self.place(*key)].holds(*condition);
        let compares = &known.wanted.compares;
        if compares.iter().all(holds) != known.succeeded {
            let not = if known.succeeded { "" } else { "not " };
            let keys = compares.iter().map(|(key, _)| self.show(state, *key));
            let keys: Vec<_> = keys.collect();
            return Err(Mismatch(format!(
                "its conditions did {not}hold, but {}",
                keys.join(", ")
            )));
        }
        let mut own: BTreeMap<u32, u32> = BTreeMap::new();
        for (action, result) in known.chosen().iter().zip(&known.results) {
            match (action, result) {
                (Action::Put { key, value }, _) => {
                    own.insert(*key, *value);
                }
                (Action::Delete(keys), Found::Deleted(count)) => {
                    let exists = |key: &u32| match own.get(key) {
                        Some(value) => *value != ABSENT,
                        None => state.keys[self.place(*key)].value != ABSENT,
                    };
                    let deleted: Vec<_> = keys.clone().filter(exists).collect();
                    if deleted.len() as i64 != *count {
                        let there = deleted.len();
                        return Err(Mismatch(format!(
                            "it deleted {count} keys, there were {there}"
                        )));
                    }
                    own.extend(deleted.into_iter().map(|key| (key, ABSENT)));
                }
                (Action::Get(keys), Found::Got(found)) => {
                    self.fits_read(state, known.revision, &own, keys, found)?;
                }
                _ => unreachable!("results fit their steps"),
            }
        }
        Ok(())
    }

    fn fits_read(
        &self,
        state: &State,
        revision: i64,
        own: &BTreeMap<u32, u32>,
        keys: &Range<u32>,
        found: &[(u32, u32, i64)],
    ) -> Result<(), Mismatch> {
        let mut found = found.iter().peekable();
        for key in keys.clone() {
            let is = match own.get(&key) {
                Some(&ABSENT) => (ABSENT, 0),
                Some(value) => (*value, revision),
                None => {
                    let key = &state.keys[self.place(key)];
                    (key.value, key.mod_revision)
                }
            };
            let seen = found.next_if(|(seen, ..)| *seen == key);
            let seen = seen.map_or((ABSENT, 0), |(_, value, at)| (*value, *at));
            if is != seen {
                let seen = self.show_value(seen.0, seen.1);
                return Err(Mismatch(format!(
                    "it saw {:?} {seen}, but {}",
                    self.compiled.keys[key as usize],
                    self.show(state, key)
                )));
            }
        }
        Ok(())
    }

    /// An answer that fits is done, and what it says is remembered.
    fn take(&self, state: &mut State, known: &Known) {
        let revision = known.revision;
        let is_single = known.wanted.compares.len() == 1;
        // A write's conditions are about what was there before it.
        let compared_at = revision - i64::from(known.writes);
        for (key, condition) in &known.wanted.compares {
            let key = &mut state.keys[self.place(*key)];
            match condition {
                Condition::ModRevision(_) if known.succeeded => key.see(compared_at),
                _ if known.succeeded || is_single => {
                    key.glimpses
                        .push((compared_at, *condition, known.succeeded));
                }
                _ => {}
            }
        }
        for (action, result) in known.chosen().iter().zip(&known.results) {
            match (action, result) {
                (Action::Put { key, value }, _) => state.set(self.place(*key), *value, revision),
                (Action::Delete(keys), _) => {
                    for place in self.places(keys) {
                        if state.keys[place].value != ABSENT {
                            state.set(place, ABSENT, revision);
                        }
                    }
                }
                (Action::Get(keys), _) => {
                    for place in self.places(keys) {
                        state.keys[place].see(revision);
                    }
                }
            }
        }
    }

    fn show(&self, state: &State, key: u32) -> String {
        let it = &state.keys[self.place(key)];
        let is = self.show_value(it.value, it.mod_revision);
        format!("{:?} was {is}", self.compiled.keys[key as usize])
    }

    fn show_value(&self, value: u32, revision: i64) -> String {
        match self.compiled.values.get(value as usize) {
            Some(value) => format!("{value:?} of revision {revision}"),
            None => "absent".to_owned(),
        }
    }
}

impl Known {
    fn chosen(&self) -> &[Action] {
        if self.succeeded {
            &self.wanted.success
        } else {
            &self.wanted.failure
        }
    }
}
