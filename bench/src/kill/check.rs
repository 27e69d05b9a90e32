//! Whether a history is linearizable, with the help of revisions.
//!
//! The store gives each write a revision and tells each read at which revision it was answered, and in the end it
//! shows what was written at each revision. So no search is needed. A history is linearizable if
//!
//! - each acknowledged write stands at its revision, each read shows the state at its revision;
//! - an operation that began after another had ended has a revision not below the other's, and above it for a write.
//!
//! A write without an answer may or may not stand in the log; if it does, it must not stand before anything that had
//! ended when it began.

use std::collections::BTreeMap;

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Write this value, which nobody else writes.
    Put {
        key: String,
        value: String,
    },
    /// Write this value if the key's revision is still this one.
    Swap {
        key: String,
        value: String,
        expected: i64,
    },
    Get {
        key: String,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Written at this revision.
    Written(i64),
    /// The swap found another revision of the key; the store was at this revision.
    NotSwapped(i64),
    /// The value and its revision, and the revision of the store.
    Read {
        found: Option<(String, i64)>,
        revision: i64,
    },
    /// No answer, or one that does not say whether it happened.
    Unknown,
}

/// One operation; times are on one monotonic clock.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) call: Call,
    pub(super) began_ns: u64,
    /// `u64::MAX` if it never ended.
    pub(super) ended_ns: u64,
    pub(super) outcome: Outcome,
}

/// What the store says was written, in order: revision, key, value.
pub(super) type Written = Vec<(i64, String, String)>;

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) writes: usize,
    pub(super) reads: usize,
    pub(super) unknown: usize,
    pub(super) unknown_written: usize,
}

/// Checks a history; the error names the operation and what it contradicts.
pub(super) fn check(history: &[Operation], written: &Written) -> Result<Facts, String> {
    let mut facts = Facts::default();
    let by_revision: BTreeMap<i64, (&str, &str)> = written
        .iter()
        .map(|(revision, key, value)| (*revision, (key.as_str(), value.as_str())))
        .collect();
    let by_value: BTreeMap<&str, i64> = written
        .iter()
        .map(|(revision, _, value)| (value.as_str(), *revision))
        .collect();
    if by_value.len() != written.len() {
        return Err("a value stands in the log twice: a write was carried out twice".into());
    }
    let mut timed = Vec::new();
    for operation in history {
        let at = revision_of(operation, &by_revision, &by_value, written, &mut facts)?;
        if let Some((revision, writes)) = at {
            timed.push((operation, revision, writes));
        }
    }
    check_real_time(&timed)?;
    Ok(facts)
}

/// The revision at which an operation took effect, and whether it is a write; `None` if it had none.
fn revision_of(
    operation: &Operation,
    by_revision: &BTreeMap<i64, (&str, &str)>,
    by_value: &BTreeMap<&str, i64>,
    written: &Written,
    facts: &mut Facts,
) -> Result<Option<(i64, bool)>, String> {
    let fail = |what: String| Err(format!("{what}\n  {operation:?}"));
    let value = match &operation.call {
        Call::Put { key, value } | Call::Swap { key, value, .. } => {
            Some((key.as_str(), value.as_str()))
        }
        Call::Get { .. } => None,
    };
    match (&operation.outcome, value) {
        (Outcome::Written(revision), Some(value)) => {
            facts.writes += 1;
            if by_revision.get(revision) != Some(&value) {
                return fail(format!(
                    "an acknowledged write is lost: {:?} stands there",
                    by_revision.get(revision)
                ));
            }
            if let Call::Swap { key, expected, .. } = &operation.call {
                let before = last_before(written, key, *revision);
                if before != *expected {
                    return fail(format!(
                        "the swap was carried out although the key was at revision {before}"
                    ));
                }
            }
            Ok(Some((*revision, true)))
        }
        (Outcome::NotSwapped(revision), Some((key, value))) => {
            facts.reads += 1;
            if by_value.contains_key(value) {
                return fail("a swap that was refused stands in the log".into());
            }
            if let Call::Swap { expected, .. } = &operation.call
                && last_before(written, key, *revision + 1) == *expected
            {
                return fail("the swap was refused although the key was as expected".into());
            }
            Ok(Some((*revision, false)))
        }
        (Outcome::Read { found, revision }, None) => {
            facts.reads += 1;
            let Call::Get { key } = &operation.call else {
                unreachable!("only a get has no value")
            };
            let at = last_before(written, key, *revision + 1);
            let expected = by_revision
                .get(&at)
                .map(|(_, value)| ((*value).to_string(), at));
            if *found != expected {
                return fail(format!("the state at revision {revision} is {expected:?}"));
            }
            Ok(Some((*revision, false)))
        }
        (Outcome::Unknown, Some((_, value))) => {
            facts.unknown += 1;
            let at = by_value.get(value).copied();
            facts.unknown_written += usize::from(at.is_some());
            Ok(at.map(|revision| (revision, true)))
        }
        (Outcome::Unknown, None) => Ok(None),
        _ => fail("the answer does not fit the question".into()),
    }
}

/// The revision of the last write to a key below `revision`; 0 if there is none.
fn last_before(written: &Written, key: &str, revision: i64) -> i64 {
    let end = written.partition_point(|(at, _, _)| *at < revision);
    written[..end]
        .iter()
        .rev()
        .find(|(_, of, _)| of == key)
        .map_or(0, |(at, _, _)| *at)
}

/// Operations in order of their beginning against the highest revision of all that had ended before.
fn check_real_time(operations: &[(&Operation, i64, bool)]) -> Result<(), String> {
    let mut by_beginning: Vec<_> = operations.iter().collect();
    by_beginning.sort_by_key(|(operation, ..)| operation.began_ns);
    let mut by_end: Vec<_> = operations
        .iter()
        .filter(|(operation, ..)| operation.ended_ns != u64::MAX)
        .collect();
    by_end.sort_by_key(|(operation, ..)| operation.ended_ns);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<&(&Operation, i64, bool)> = None;
    for (operation, revision, writes) in by_beginning {
        while let Some(earlier) =
            ended.next_if(|(earlier, ..)| earlier.ended_ns < operation.began_ns)
        {
            if highest.is_none_or(|(_, highest, _)| earlier.1 > *highest) {
                highest = Some(earlier);
            }
        }
        let Some((earlier, before, _)) = highest else {
            continue;
        };
        if revision < before || (*writes && revision == before) {
            return Err(format!(
                "at revision {revision}:\n  {operation:?}\nafter revision {before} was seen:\n  {earlier:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &str, began_ns: u64, ended_ns: u64, outcome: Outcome) -> Operation {
        Operation {
            call: Call::Put {
                key: "k".into(),
                value: value.into(),
            },
            began_ns,
            ended_ns,
            outcome,
        }
    }

    fn get(began_ns: u64, ended_ns: u64, found: Option<(&str, i64)>, revision: i64) -> Operation {
        let found = found.map(|(value, at)| (value.to_string(), at));
        let outcome = Outcome::Read { found, revision };
        Operation {
            call: Call::Get { key: "k".into() },
            began_ns,
            ended_ns,
            outcome,
        }
    }

    fn log() -> Written {
        vec![(2, "k".into(), "a".into()), (3, "k".into(), "b".into())]
    }

    #[test]
    fn a_sound_history_passes() {
        let history = [
            put("a", 0, 10, Outcome::Written(2)),
            put("b", 5, u64::MAX, Outcome::Unknown),
            get(12, 15, Some(("a", 2)), 2),
            get(16, 18, Some(("b", 3)), 3),
        ];
        let facts = check(&history, &log()).unwrap();
        assert_eq!(
            facts,
            Facts {
                writes: 1,
                reads: 2,
                unknown: 1,
                unknown_written: 1
            }
        );
    }

    #[test]
    fn a_lost_write_is_found() {
        let history = [put("c", 0, 10, Outcome::Written(4))];
        assert!(check(&history, &log()).unwrap_err().contains("lost"));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            put("b", 0, 10, Outcome::Written(3)),
            get(11, 12, Some(("a", 2)), 2),
        ];
        assert!(
            check(&history, &log())
                .unwrap_err()
                .contains("after revision 3 was seen")
        );
    }

    #[test]
    fn a_read_of_the_wrong_value_is_found() {
        let history = [get(11, 12, Some(("a", 2)), 3)];
        assert!(
            check(&history, &log())
                .unwrap_err()
                .contains("the state at revision 3")
        );
    }

    #[test]
    fn a_write_carried_out_before_it_began_is_found() {
        let history = [
            get(1, 2, Some(("b", 3)), 3),
            put("b", 5, u64::MAX, Outcome::Unknown),
        ];
        assert!(check(&history, &log()).is_err());
    }

    #[test]
    fn a_refused_swap_that_happened_is_found() {
        let call = Call::Swap {
            key: "k".into(),
            value: "b".into(),
            expected: 1,
        };
        let history = [Operation {
            call,
            began_ns: 0,
            ended_ns: 1,
            outcome: Outcome::NotSwapped(3),
        }];
        assert!(check(&history, &log()).is_err());
    }

    #[test]
    fn a_write_carried_out_twice_is_found() {
        let twice = vec![
            (2, "k".to_string(), "a".to_string()),
            (3, "k".to_string(), "a".to_string()),
        ];
        assert!(check(&[], &twice).unwrap_err().contains("twice"));
    }
}
