//! Linearizability once more, black-box: what the clients of registers saw is judged as if nothing were known of the log.
//!
//! The judge of [`crate::history`] and the oracles that know the log must come to the same verdict. At the end of a run
//! it gets the history as it was, and a copy in which one answer is falsified: what the log explains the judge must
//! accept, and what it rejects must contradict the log.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response as Part;

use quorate_core::boundary::Response;

use super::ledger::Ledger;
use super::{Facts, Violation};
use crate::history::{
    Compare, Compared, Fault, Found, History, Is, KeyValue, Keys, Operation, Step,
};
use crate::random::Stream;

/// What the judge said of a falsified copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampered {
    /// It contradicts the log, and the judge rejects it.
    Seen,
    /// It contradicts the log, but another log would explain it.
    Explained,
    /// The log explains it just as well.
    Harmless,
    /// There was nothing to falsify.
    Nothing,
}

/// Judges a history and a falsified copy.
pub fn check(
    facts: &mut Facts,
    ledger: &Ledger,
    history: &History,
    stream: &mut Stream,
) -> Result<Tampered, Violation> {
    let (inside, _) = agree(facts, ledger, history)?;
    facts.expect("linearizable.history", inside.is_ok(), || {
        format!("the log does not explain what clients saw: {inside:?}")
    })?;
    let mut copy = history.clone();
    if !tamper(&mut copy, ledger, stream) {
        return Ok(Tampered::Nothing);
    }
    let (inside, outside) = agree(facts, ledger, &copy)?;
    Ok(match (inside, outside) {
        (Ok(()), _) => Tampered::Harmless,
        (Err(_), true) => Tampered::Explained,
        (Err(_), false) => Tampered::Seen,
    })
}

/// Both verdicts: of the log, and of the judge; a violation if they cannot both be right.
fn agree(
    facts: &mut Facts,
    ledger: &Ledger,
    history: &History,
) -> Result<(Result<(), String>, bool), Violation> {
    let (inside, outside) = (explain(ledger, history), history.judge());
    let operations = history.0.len();
    compare(facts, operations, &inside, &outside)?;
    Ok((inside, outside.is_ok()))
}

fn compare(
    facts: &mut Facts,
    operations: usize,
    inside: &Result<(), String>,
    outside: &Result<Compared, Fault>,
) -> Result<(), Violation> {
    let is_decided = !matches!(
        &outside,
        Err(Fault::GaveUp { .. } | Fault::Malformed { .. })
    );
    let agrees = is_decided && (outside.is_ok() || inside.is_err());
    facts.expect("linearizable.history", agrees, || {
        format!("the log says {inside:?} of {operations} operations, the judge {outside:?}")
    })
}

/// Whether the log explains a history: each answer is the log's at its revision, the revisions follow real time, and
/// nothing has changed these keys but what is in the history.
fn explain(ledger: &Ledger, history: &History) -> Result<(), String> {
    account(ledger, history, &floors(history)?)?;
    for (number, operation) in history.0.iter().enumerate() {
        explain_one(ledger, operation).map_err(|reason| format!("operation {number}: {reason}"))?;
    }
    Ok(())
}

/// For each operation the highest revision of what had ended when it began; an error if an answer is not above its own.
fn floors(history: &History) -> Result<Vec<i64>, String> {
    let mut times = Vec::new();
    for (number, operation) in history.0.iter().enumerate() {
        times.push((operation.began_ns, true, number));
        if let Some(answer) = &operation.answer {
            times.push((answer.ended_ns, false, number));
        }
    }
    // What ends at the moment at which something else begins has not ended before it.
    times.sort_by_key(|(at_ns, begins, _)| (*at_ns, !begins));
    let mut floors = vec![0; history.0.len()];
    let mut highest = 0;
    for (_, begins, number) in times {
        let answer = history.0[number].answer.as_ref();
        if begins {
            floors[number] = highest;
        }
        let Some(answer) = answer else { continue };
        let (revision, writes) = (answer.revision, answer.results.iter().any(writes));
        if !begins {
            highest = highest.max(revision);
        } else if revision < highest || (writes && revision == highest) {
            return Err(format!("revision {revision} after {highest}"));
        }
    }
    Ok(floors)
}

/// Each change of these keys is that of an answered operation, or may be that of one without an answer: it comes after
/// everything that had ended when that one began.
fn account(ledger: &Ledger, history: &History, floors: &[i64]) -> Result<(), String> {
    let (mut keys, mut answered) = (BTreeSet::new(), BTreeSet::new());
    let mut values: BTreeMap<_, i64> = BTreeMap::new();
    let mut deletions: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for (operation, floor) in history.0.iter().zip(floors) {
        for step in operation.success.iter().chain(&operation.failure) {
            match step {
                Step::Put { key, value } => {
                    keys.insert(key.as_bytes());
                    let lowest = values.entry((key.as_bytes(), value.as_bytes()));
                    let lowest = lowest.or_insert(*floor);
                    *lowest = (*lowest).min(*floor);
                }
                Step::Get(wanted) | Step::Delete(wanted) => {
                    keys.insert(wanted.key.as_bytes());
                }
            }
            if let (Step::Delete(wanted), None) = (step, &operation.answer) {
                let floors = deletions.entry(wanted.key.as_bytes()).or_default();
                floors.push(*floor);
            }
        }
        if let Some(answer) = &operation.answer
            && answer.results.iter().any(writes)
        {
            answered.insert(answer.revision);
        }
    }
    for change in ledger.model().changes_from(1) {
        let (key, revision) = (&change.kv.key[..], change.kv.mod_revision);
        if !keys.contains(key) || answered.contains(&revision) {
            continue;
        }
        let is_known = if change.deleted {
            // Any of those that may be it serves: the later changes may be them just as well.
            let floors = deletions.entry(key).or_default();
            let fits = floors.iter().position(|floor| *floor < revision);
            fits.map(|place| floors.swap_remove(place)).is_some()
        } else {
            let floor = values.get(&(key, &change.kv.value[..]));
            floor.is_some_and(|floor| *floor < revision)
        };
        if !is_known {
            return Err(format!("nobody asked for what happened at {revision}"));
        }
    }
    Ok(())
}

fn explain_one(ledger: &Ledger, operation: &Operation) -> Result<(), String> {
    let Some(answer) = &operation.answer else {
        return Ok(());
    };
    let (model, revision) = (ledger.model(), answer.revision);
    if revision > model.revision() {
        return Err(format!("revision {revision} is not there"));
    }
    let writes = answer.results.iter().any(writes);
    let before = revision - i64::from(writes);
    let mod_revision = |key: &str| {
        let kv = model.get(key.as_bytes(), before);
        kv.map_or(0, |kv| kv.mod_revision)
    };
    let holds = |compare: &Compare| match &compare.is {
        Is::ModRevision(revision) => mod_revision(&compare.key) == *revision,
        Is::Value(value) => {
            let kv = model.get(compare.key.as_bytes(), before);
            kv.is_some_and(|kv| kv.value == value.as_bytes())
        }
    };
    if operation.compares.iter().all(holds) != answer.succeeded {
        return Err("its conditions came out otherwise".to_owned());
    }
    let chosen = if answer.succeeded {
        &operation.success
    } else {
        &operation.failure
    };
    for (step, found) in chosen.iter().zip(&answer.results) {
        let fits = match (step, found) {
            (Step::Put { key, value }, Found::Put) => {
                let kv = model.get(key.as_bytes(), revision);
                kv.is_some_and(|kv| kv.mod_revision == revision && kv.value == value.as_bytes())
            }
            (Step::Get(keys), Found::Got(found)) => {
                let kv = model.get(keys.key.as_bytes(), revision);
                let expected = kv.map(|kv| KeyValue {
                    key: keys.key.clone(),
                    value: String::from_utf8_lossy(&kv.value).into_owned(),
                    mod_revision: kv.mod_revision,
                });
                found.iter().eq(expected.iter())
            }
            (Step::Delete(keys), Found::Deleted(count)) => {
                let existed = mod_revision(&keys.key) > 0;
                let is_gone = model.get(keys.key.as_bytes(), revision).is_none();
                is_gone && *count == i64::from(existed)
            }
            _ => false,
        };
        if !fits {
            return Err(format!("{step:?} found {found:?}"));
        }
    }
    Ok(())
}

fn writes(found: &Found) -> bool {
    match found {
        Found::Put => true,
        Found::Got(_) => false,
        Found::Deleted(count) => *count > 0,
    }
}

/// Falsifies one answer: an old value, none, one that nobody wrote, or another revision.
fn tamper(history: &mut History, ledger: &Ledger, stream: &mut Stream) -> bool {
    let is_answered = |operation: &&mut Operation| operation.answer.is_some();
    let mut answered: Vec<_> = history.0.iter_mut().filter(is_answered).collect();
    if answered.is_empty() {
        return false;
    }
    let place = stream.below(answered.len() as u64) as usize;
    let answer = answered[place].answer.as_mut().expect("filtered");
    let shift = if stream.chance(500_000) { 1 } else { -1 };
    match &mut answer.results[..] {
        [Found::Got(kvs)] => match (stream.below(4), kvs.first_mut()) {
            (0, Some(_)) => kvs.clear(),
            (1, Some(kv)) => kv.value.push('?'),
            (2, Some(kv)) => {
                let earlier = ledger.model().get(kv.key.as_bytes(), kv.mod_revision - 1);
                let Some(earlier) = earlier else { return false };
                kv.value = String::from_utf8_lossy(&earlier.value).into_owned();
                kv.mod_revision = earlier.mod_revision;
            }
            _ => answer.revision += shift,
        },
        _ => answer.revision += shift,
    }
    true
}

/// A request as an operation of a history; `None` if histories cannot hold it.
pub fn operation(
    client: u64,
    began_ns: u64,
    request: &pb::InternalRaftRequest,
) -> Option<Operation> {
    if let Some(put) = &request.put {
        return Some(Operation::of(client, began_ns, put_step(put)));
    }
    if let Some(delete) = &request.delete_range {
        let keys = keys(&delete.key, &delete.range_end);
        return Some(Operation::of(client, began_ns, Step::Delete(keys)));
    }
    let txn = request.txn.as_ref()?;
    let compares = txn
        .compare
        .iter()
        .map(|compare| match compare.target_union {
            Some(TargetUnion::ModRevision(revision)) => Some(Compare {
                key: text(&compare.key),
                is: Is::ModRevision(revision),
            }),
            _ => None,
        });
    let steps = |list: &[pb::RequestOp]| -> Option<Vec<Step>> {
        let steps = list
            .iter()
            .map(|operation| match operation.request.as_ref()? {
                Request::RequestPut(put) => Some(put_step(put)),
                Request::RequestRange(range) => Some(Step::Get(keys(&range.key, &range.range_end))),
                Request::RequestDeleteRange(delete) => {
                    Some(Step::Delete(keys(&delete.key, &delete.range_end)))
                }
                Request::RequestTxn(_) => None,
            });
        steps.collect()
    };
    Some(Operation {
        client,
        began_ns,
        compares: compares.collect::<Option<_>>()?,
        success: steps(&txn.success)?,
        failure: steps(&txn.failure)?,
        answer: None,
    })
}

/// A linearizable read as an operation.
pub fn read(client: u64, began_ns: u64, range: &pb::RangeRequest) -> Operation {
    let step = Step::Get(keys(&range.key, &range.range_end));
    Operation::of(client, began_ns, step)
}

/// Adds what a member answered.
pub fn answered(operation: Operation, ended_ns: u64, response: &Response) -> Operation {
    let revision =
        |header: &Option<pb::ResponseHeader>| header.as_ref().map_or(0, |header| header.revision);
    match response {
        Response::Put(put) => operation.answered(ended_ns, revision(&put.header), vec![Found::Put]),
        Response::DeleteRange(delete) => {
            let found = vec![Found::Deleted(delete.deleted)];
            operation.answered(ended_ns, revision(&delete.header), found)
        }
        Response::Txn(txn) => {
            let found = txn.responses.iter().filter_map(|part| {
                Some(match part.response.as_ref()? {
                    Part::ResponsePut(_) => Found::Put,
                    Part::ResponseRange(range) => got(range),
                    Part::ResponseDeleteRange(delete) => Found::Deleted(delete.deleted),
                    Part::ResponseTxn(_) => return None,
                })
            });
            let found = found.collect();
            let mut operation = operation.answered(ended_ns, revision(&txn.header), found);
            let answer = operation.answer.as_mut().expect("just given");
            answer.succeeded = txn.succeeded;
            operation
        }
        _ => operation,
    }
}

/// Adds what a read saw.
pub fn answered_read(operation: Operation, ended_ns: u64, range: &pb::RangeResponse) -> Operation {
    let revision = range.header.as_ref().map_or(0, |header| header.revision);
    operation.answered(ended_ns, revision, vec![got(range)])
}

fn got(range: &pb::RangeResponse) -> Found {
    let kvs = range.kvs.iter().map(|kv| KeyValue {
        key: text(&kv.key),
        value: text(&kv.value),
        mod_revision: kv.mod_revision,
    });
    Found::Got(kvs.collect())
}

fn put_step(put: &pb::PutRequest) -> Step {
    Step::Put {
        key: text(&put.key),
        value: text(&put.value),
    }
}

fn keys(key: &[u8], range_end: &[u8]) -> Keys {
    Keys {
        key: text(key),
        range_end: (!range_end.is_empty()).then(|| text(range_end)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What clients of registers have asked and heard, while the run goes on.
#[derive(Debug, Default)]
pub struct Recorder {
    history: History,
    open: BTreeMap<u64, Operation>,
}

impl Recorder {
    /// A client asks.
    pub fn begins(&mut self, operation: Operation) {
        let client = operation.client;
        let before = self.open.insert(client, operation);
        assert!(before.is_none(), "one operation at a time");
    }

    /// It hears, or gives up.
    pub fn ends(&mut self, client: u64, end: impl FnOnce(Operation) -> Operation) {
        if let Some(operation) = self.open.remove(&client) {
            self.history.0.push(end(operation));
        }
    }

    /// Everything; what is still open is unknown.
    pub fn take(&mut self) -> History {
        let open = std::mem::take(&mut self.open);
        self.history.0.extend(open.into_values());
        std::mem::take(&mut self.history)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::model::Model;
    use crate::random::Purpose;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Model::new(1));
        for (index, value) in [(1, "a"), (2, "b")] {
            let request = pb::InternalRaftRequest {
                id: index,
                put: Some(pb::PutRequest {
                    key: "k".into(),
                    value: value.into(),
                    ..pb::PutRequest::default()
                }),
                ..pb::InternalRaftRequest::default()
            };
            let payload = Bytes::from(request.encode_to_vec());
            ledger.push(Entry::normal(1, index, payload));
        }
        ledger
    }

    fn put(began_ns: u64, value: &str, revision: i64) -> Operation {
        Operation::put(0, began_ns, "k", value).answered(began_ns + 5, revision, vec![Found::Put])
    }

    fn get(began_ns: u64, value: &str, mod_revision: i64, revision: i64) -> Operation {
        let kv = KeyValue {
            key: "k".to_owned(),
            value: value.to_owned(),
            mod_revision,
        };
        Operation::get(1, began_ns, "k").answered(
            began_ns + 5,
            revision,
            vec![Found::Got(vec![kv])],
        )
    }

    #[test]
    fn what_the_log_explains_is_accepted_by_both() {
        let history = History(vec![put(0, "a", 2), put(10, "b", 3), get(20, "b", 3, 3)]);
        let mut facts = Facts::new();
        let (inside, outside) = agree(&mut facts, &ledger(), &history).unwrap();
        assert!(inside.is_ok() && outside);
    }

    #[test]
    fn what_contradicts_the_log_is_rejected_by_both() {
        for wrong in [
            get(20, "a", 2, 2),
            get(20, "a", 2, 3),
            get(20, "c", 3, 3),
            put(20, "b", 3),
        ] {
            let history = History(vec![put(0, "a", 2), put(10, "b", 3), wrong]);
            let (inside, outside) = agree(&mut Facts::new(), &ledger(), &history).unwrap();
            assert!(inside.is_err() && !outside, "{history:?}");
        }
    }

    #[test]
    fn a_write_without_an_answer_comes_after_what_had_ended_before_it() {
        let mut earlier = get(20, "a", 2, 2);
        let history = |earlier: &Operation| {
            let late = Operation::put(0, 30, "k", "b");
            History(vec![
                put(0, "a", 2),
                earlier.clone(),
                late,
                get(40, "b", 3, 3),
            ])
        };
        let fits = agree(&mut Facts::new(), &ledger(), &history(&earlier)).unwrap();
        assert!(fits.0.is_ok() && fits.1);
        // Another key was read at the revision of the write that had not begun.
        earlier = Operation::get(1, 20, "other").answered(25, 3, vec![Found::Got(Vec::new())]);
        let (inside, outside) = agree(&mut Facts::new(), &ledger(), &history(&earlier)).unwrap();
        assert!(inside.is_err() && !outside);
    }

    #[test]
    fn a_judge_that_rejects_what_the_log_explains_is_seen() {
        let rejected = Fault::Violation {
            operation: 0,
            other: None,
            reason: String::new(),
        };
        let mut facts = Facts::new();
        let mut verdict = |inside, outside| compare(&mut facts, 1, &inside, &outside);
        let wrong = verdict(Ok(()), Err(rejected.clone()));
        assert_eq!(wrong.unwrap_err().property, "linearizable.history");
        let gave_up = verdict(Ok(()), Err(Fault::GaveUp { operation: 0 }));
        assert_eq!(gave_up.unwrap_err().property, "linearizable.history");
        let one_sided = "the log is another one".to_owned();
        verdict(Err(one_sided.clone()), Ok(Compared::default())).unwrap();
        verdict(Err(one_sided), Err(rejected)).unwrap();
    }

    #[test]
    fn a_write_that_no_client_made_is_seen_by_both() {
        let history = History(vec![put(0, "a", 2), get(20, "b", 3, 3)]);
        let (inside, outside) = agree(&mut Facts::new(), &ledger(), &history).unwrap();
        assert!(inside.is_err() && !outside);
    }

    #[test]
    fn falsified_answers_are_mostly_seen() {
        let history = History(vec![put(0, "a", 2), put(10, "b", 3), get(20, "b", 3, 3)]);
        let seen = (0..100).filter(|seed| {
            let stream = &mut Stream::new(*seed, Purpose::Audit, 1);
            let tampered = check(&mut Facts::new(), &ledger(), &history, stream);
            tampered.unwrap() == Tampered::Seen
        });
        assert!(seen.count() > 60);
    }
}
