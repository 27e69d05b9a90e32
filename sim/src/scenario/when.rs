//! Conditions on the state of the cluster, as scenarios write them: `leader.last > cut.target.last + 20`.
//!
//! ```text
//!   condition  = comparison { "and" comparison }
//!   comparison = term relation term | subject "." field           the latter means: is not 0
//!   term       = number | subject "." field [ ("+" | "-") number ]
//!   subject    = "cluster" | "leader" | "m1" | "m2" .. | ID | ID ".target"
//!   relation   = "<" | "<=" | "==" | "!=" | ">=" | ">"
//! ```

use std::ops::Range;

use super::source::ScenarioError;
use super::table::Value;
use crate::plan::{Comparison, Field, Predicate, Relation, Subject, Term};

const FIELDS: &[(&str, Field)] = &[
    ("term", Field::Term),
    ("committed", Field::Committed),
    ("applied", Field::Applied),
    ("last", Field::Last),
    ("durable", Field::Durable),
    ("revision", Field::Revision),
    ("compacted", Field::Compacted),
    ("leads", Field::Leads),
    ("runs", Field::Runs),
    ("checkpoints", Field::Checkpoints),
    ("snapshots", Field::Snapshots),
];
const FIELDS_OF_CLUSTER: &[(&str, Field)] = &[
    ("committed", Field::Committed),
    ("revision", Field::Revision),
    ("compacted", Field::Compacted),
    ("leads", Field::Leads),
    ("voters", Field::Voters),
];
const FIELDS_OF_FAULT: &[(&str, Field)] = &[("begun", Field::Begun), ("over", Field::Over)];
const RELATIONS: &[(&str, Relation)] = &[
    ("<", Relation::Less),
    ("<=", Relation::AtMost),
    ("==", Relation::Equal),
    ("!=", Relation::NotEqual),
    (">=", Relation::AtLeast),
    (">", Relation::More),
];

/// Which members and faults a condition may speak of.
pub(super) struct Names<'a> {
    /// The members that every run of the scenario has.
    pub(super) members: u64,
    /// The ids of the faults that come before.
    pub(super) faults: &'a [String],
}

impl Names<'_> {
    /// The number of a member of this name.
    pub(super) fn member(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix('m')?.parse::<u64>().ok()?;
        (1..=self.members).contains(&number).then_some(number)
    }

    /// The place of the fault with this id.
    pub(super) fn fault(&self, id: &str) -> Option<usize> {
        self.faults.iter().position(|known| known == id)
    }

    fn subjects(&self) -> String {
        let members = (1..=self.members).map(|number| format!("m{number}"));
        let faults = self
            .faults
            .iter()
            .flat_map(|id| [id.clone(), format!("{id}.target")]);
        let fixed = ["cluster".to_owned(), "leader".to_owned()];
        let all: Vec<_> = fixed.into_iter().chain(members).chain(faults).collect();
        all.join(", ")
    }
}

/// Reads a condition. Faults in it are numbered by their place among the names.
pub(super) fn read(value: Value<'_>, names: &Names<'_>) -> Result<Predicate, ScenarioError> {
    let text = value.text("a condition such as \"leader.last > 20\"")?;
    let words = words(text);
    let mut rest = &words[..];
    let mut comparisons = Vec::new();
    loop {
        let (comparison, left) = read_comparison(value, names, text, rest)?;
        comparisons.push(comparison);
        rest = match left {
            [] => break,
            [("and", _), left @ ..] => left,
            [(word, place), ..] => {
                return Err(value.error_within(
                    place.clone(),
                    format!("found `{word}`, expected `and` or the end of the condition"),
                ));
            }
        };
    }
    Ok(Predicate {
        text: text.to_owned(),
        comparisons,
    })
}

fn words(text: &str) -> Vec<(&str, Range<usize>)> {
    let place = |word: &str| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        start..start + word.len()
    };
    text.split_whitespace()
        .map(|word| (word, place(word)))
        .collect()
}

type Words<'t> = [(&'t str, Range<usize>)];

fn read_comparison<'w, 't>(
    value: Value<'_>,
    names: &Names<'_>,
    text: &str,
    words: &'w Words<'t>,
) -> Result<(Comparison, &'w Words<'t>), ScenarioError> {
    let (left, rest) = read_term(value, names, text, words)?;
    match rest {
        [] | [("and", _), ..] if left.shown.is_some() => {
            let comparison = Comparison {
                left,
                relation: Relation::NotEqual,
                right: Term {
                    shown: None,
                    plus: 0,
                },
            };
            Ok((comparison, rest))
        }
        [(word, place), rest @ ..] => {
            let known = RELATIONS.iter().find(|(name, _)| name == word);
            let Some((_, relation)) = known else {
                let message = format!("found `{word}`, expected one of <, <=, ==, !=, >=, >");
                return Err(value.error_within(place.clone(), message));
            };
            let (right, rest) = read_term(value, names, text, rest)?;
            let relation = *relation;
            let comparison = Comparison {
                left,
                relation,
                right,
            };
            Ok((comparison, rest))
        }
        [] => Err(missing(value, text, "one of <, <=, ==, !=, >=, >")),
    }
}

fn missing(value: Value<'_>, text: &str, expected: &str) -> ScenarioError {
    let end = text.len().saturating_sub(1)..text.len();
    value.error_within(
        end,
        format!("found the end of the condition, expected {expected}"),
    )
}

fn read_term<'w, 't>(
    value: Value<'_>,
    names: &Names<'_>,
    text: &str,
    words: &'w Words<'t>,
) -> Result<(Term, &'w Words<'t>), ScenarioError> {
    let [(word, place), rest @ ..] = words else {
        let expected = "a number, or what somebody shows such as `leader.last`";
        return Err(missing(value, text, expected));
    };
    if let Ok(number) = word.parse::<i64>() {
        let term = Term {
            shown: None,
            plus: number,
        };
        return Ok((term, rest));
    }
    let shown = Some(read_shown(value, names, word, place)?);
    match rest {
        [(sign @ ("+" | "-"), _), rest @ ..] => {
            let [(word, place), rest @ ..] = rest else {
                return Err(missing(value, text, "a number"));
            };
            let Ok(number) = word.parse::<i32>() else {
                let message = format!("found `{word}`, expected a number");
                return Err(value.error_within(place.clone(), message));
            };
            let number = i64::from(number);
            let plus = if *sign == "+" { number } else { -number };
            Ok((Term { shown, plus }, rest))
        }
        _ => Ok((Term { shown, plus: 0 }, rest)),
    }
}

fn read_shown(
    value: Value<'_>,
    names: &Names<'_>,
    word: &str,
    place: &Range<usize>,
) -> Result<(Subject, Field), ScenarioError> {
    let Some((who, what)) = word.rsplit_once('.') else {
        let message = format!(
            "found `{word}`, expected a number, or what somebody shows such as `leader.last`"
        );
        return Err(value.error_within(place.clone(), message));
    };
    let member = names.member(who).map(Subject::Member);
    let fault = |id: &str| names.fault(id).map(Subject::TargetOf);
    let (subject, fields) = match who {
        "cluster" => (Some(Subject::Cluster), FIELDS_OF_CLUSTER),
        "leader" => (Some(Subject::Leader), FIELDS),
        _ if member.is_some() => (member, FIELDS),
        _ => match who.strip_suffix(".target") {
            Some(id) => (fault(id), FIELDS),
            None => (fault(who), FIELDS_OF_FAULT),
        },
    };
    let Some(subject) = subject else {
        let message = format!(
            "found `{who}`, expected one of {} (faults may speak of those before them)",
            names.subjects()
        );
        return Err(value.error_within(place.start..place.start + who.len(), message));
    };
    let field = fields.iter().find(|(name, _)| *name == what);
    let Some((_, field)) = field else {
        let known: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "found `{what}` of {who}, expected one of {}",
            known.join(", ")
        );
        return Err(value.error_within(place.start + who.len() + 1..place.end, message));
    };
    Ok((subject, *field))
}
