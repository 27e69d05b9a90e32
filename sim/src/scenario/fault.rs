//! The faults of a scenario as they are written: `[[fault]]`.

use super::draw::{Choice, Number};
use super::source::ScenarioError;
use super::table::{Table, Value};
use super::units::Unit;
use super::when::{self, Names};
use crate::plan::{ALTERED, Alteration, Predicate, RotPlace, Target, Way};

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1000 * MILLISECOND;

/// A fault, some of whose numbers are still to be drawn. Faults that it speaks of are numbered by their place in the
/// file; they come before it.
#[derive(Clone, Debug)]
pub(super) struct FaultSpec {
    pub(super) id: String,
    pub(super) form: &'static Form,
    pub(super) numbers: Vec<(&'static str, Number)>,
    pub(super) shape: Choice<Cut>,
    pub(super) way: Choice<Way>,
    pub(super) place: Choice<RotPlace>,
    pub(super) alteration: Choice<Alteration>,
    pub(super) node: Choice<Target>,
    pub(super) from: Moment,
    pub(super) until: Until,
    pub(super) p_ppm: i64,
    pub(super) times: Number,
    pub(super) every: Number,
}

/// What a kind of fault has besides the keys of all.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) name: &'static str,
    numbers: &'static [(&'static str, Unit, Number)],
    more: More,
    pub(super) length: Length,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Nothing,
    Links,
    Place,
    Alteration,
}

/// How long a kind of fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// It is over at once.
    Moment,
    /// Until its end, which is that of the safety phase if nothing else is said.
    Interval,
    /// The same, and `restart_after` says it as well.
    Absence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Isolate,
    Split,
    Halves,
    Bridge,
    Shatter,
}

#[derive(Clone, Debug)]
pub(super) enum Moment {
    At(Number),
    When(Predicate, Option<Number>),
}

#[derive(Clone, Debug)]
pub(super) enum Until {
    /// The end of the safety phase.
    End,
    /// So long after its beginning.
    For(Number),
    /// At this time of the run.
    At(Number),
    When(Predicate, Option<Number>),
}

const fn form(name: &'static str, length: Length) -> Form {
    Form {
        name,
        numbers: &[],
        more: More::Nothing,
        length,
    }
}

const FORMS: &[Form] = &[
    form("crash", Length::Absence),
    form("power-loss", Length::Absence),
    form("power-loss-all", Length::Moment),
    form("rolling-restart", Length::Interval),
    Form {
        numbers: &[(
            "operations",
            Unit::Count(0, 100_000),
            Number::Between(0, 30),
        )],
        ..form("fuse", Length::Moment)
    },
    form("failed-sync", Length::Moment),
    Form {
        numbers: &[("room", Unit::Bytes(0, 1 << 30), Number::Fixed(4096))],
        ..form("full-disk", Length::Interval)
    },
    Form {
        numbers: &[("times", Unit::Count(2, 10_000), Number::Between(5, 100))],
        ..form("slow-disk", Length::Interval)
    },
    form("stalled-disk", Length::Interval),
    Form {
        more: More::Place,
        ..form("rot", Length::Moment)
    },
    Form {
        more: More::Alteration,
        ..form(ALTERED, Length::Moment)
    },
    form("lost-write", Length::Moment),
    form("misdirected-write", Length::Moment),
    form("pause", Length::Interval),
    form("suspend", Length::Interval),
    Form {
        numbers: &[("size", Unit::Count(1, 4), Number::Fixed(1))],
        more: More::Links,
        ..form("partition", Length::Interval)
    },
    Form {
        numbers: &[
            ("size", Unit::Count(1, 4), Number::Fixed(1)),
            (
                "period",
                Unit::Duration(MILLISECOND),
                Number::Fixed(200 * MILLISECOND),
            ),
        ],
        more: More::Links,
        ..form("flap", Length::Interval)
    },
    Form {
        numbers: &[("times", Unit::Count(2, 10_000), Number::Between(10, 100))],
        ..form("slow-links", Length::Interval)
    },
    Form {
        numbers: &[("loss", Unit::Share, Number::Between(100_000, 500_000))],
        ..form("lossy-links", Length::Interval)
    },
    Form {
        numbers: &[(
            "bytes_per_second",
            Unit::Bytes(1_000, 1 << 30),
            Number::Between(2_000, 20_000),
        )],
        ..form("narrow-links", Length::Interval)
    },
    form("reset", Length::Moment),
    Form {
        numbers: &[("rate", Unit::Rate, Number::Between(950_000, 1_050_000))],
        ..form("clock-rate", Length::Interval)
    },
    Form {
        numbers: &[(
            "by",
            Unit::SignedDuration,
            Number::Between(-3600 * SECOND, 3600 * SECOND),
        )],
        ..form("wall-jump", Length::Moment)
    },
    form("transfer", Length::Moment),
    form("lost-disk", Length::Moment),
    form("replace-member", Length::Moment),
    form("update-urls", Length::Moment),
];

/// What the faults of a scenario are read against.
pub(super) struct Surroundings<'a> {
    pub(super) names: Names<'a>,
    /// The longest safety phase.
    pub(super) safety_ns: i64,
}

impl FaultSpec {
    pub(super) fn read(
        mut table: Table<'_>,
        around: &Surroundings<'_>,
    ) -> Result<Self, ScenarioError> {
        let kind = table.require("do", "the kind of fault")?;
        let forms: Vec<_> = FORMS.iter().map(|form| (form.name, form)).collect();
        let form = kind.one_of(&forms)?;
        let id = match table.take("id") {
            Some(value) => read_id(value, &around.names)?,
            None => format!("{}-{}", form.name, around.names.faults.len() + 1),
        };
        let mut numbers = Vec::new();
        for (key, unit, usual) in form.numbers {
            let number = table.number(key, *unit)?;
            numbers.push((*key, number.unwrap_or_else(|| usual.clone())));
        }
        let (shape, way) = read_links(&mut table, form, &around.names)?;
        let place = match form.more {
            More::Place => table.named("place", |value| value.one_of(PLACES))?,
            _ => None,
        };
        let alteration = match form.more {
            More::Alteration => table.named("change", |value| value.one_of(ALTERATIONS))?,
            _ => None,
        };
        let node = read_node(&mut table, form, &around.names)?;
        let from = read_from(&mut table, around)?;
        // Its end may depend on whom it hit.
        let mut faults = around.names.faults.to_vec();
        faults.push(id.clone());
        let names = Names {
            faults: &faults,
            ..around.names
        };
        let until = read_until(&mut table, form, &names, &from)?;
        let p_ppm = match table.take("p") {
            Some(value) => match value.number(Unit::Share)? {
                Number::Fixed(ppm) => ppm,
                _ => return Err(value.error("found a draw, expected a fixed share")),
            },
            None => 1_000_000,
        };
        let times = table.number("repeat", Unit::Count(1, 1000))?;
        let every = table.number("every", Unit::Duration(MILLISECOND))?;
        if every.is_some() && (times.is_none() || matches!(from, Moment::When(..))) {
            return Err(table.error(
                "found `every`, expected it only next to `repeat` and a `from` that is a time",
            ));
        }
        table.finish()?;
        Ok(Self {
            id,
            form,
            numbers,
            shape: shape.unwrap_or(Choice(vec![Cut::Isolate])),
            way: way.unwrap_or(Choice(vec![Way::Both])),
            alteration: alteration.unwrap_or(Choice(Alteration::ALL.to_vec())),
            place: place.unwrap_or(Choice(vec![RotPlace::Log])),
            node,
            from,
            until,
            p_ppm,
            times: times.unwrap_or(Number::Fixed(1)),
            every: every.unwrap_or(Number::Fixed(SECOND)),
        })
    }

    /// The kind of fault, as it is counted when it is injected.
    pub(super) fn kind_name(&self) -> &'static str {
        self.form.name
    }
}

const PLACES: &[(&str, RotPlace)] = &[
    ("log", RotPlace::Log),
    ("image", RotPlace::Image),
    ("anywhere", RotPlace::Anywhere),
];
const ALTERATIONS: &[(&str, Alteration)] = &[
    ("value", Alteration::Value),
    ("revision", Alteration::Revision),
    ("missing", Alteration::Missing),
    ("extra", Alteration::Extra),
];
const CUTS: &[(&str, Cut)] = &[
    ("isolate", Cut::Isolate),
    ("split", Cut::Split),
    ("halves", Cut::Halves),
    ("bridge", Cut::Bridge),
    ("shatter", Cut::Shatter),
];
const WAYS: &[(&str, Way)] = &[("both", Way::Both), ("out", Way::Out), ("in", Way::In)];

fn read_id(value: Value<'_>, names: &Names<'_>) -> Result<String, ScenarioError> {
    let expected = "an id of lower-case letters, digits and hyphens such as \"cut\"";
    let id = value.text(expected)?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_word = id.starts_with(|letter: char| letter.is_ascii_lowercase());
    if !is_word || !id.bytes().all(is_plain) {
        return Err(value.unexpected(expected));
    }
    let is_member = |id: &str| {
        let number = id.strip_prefix('m').unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    if ["cluster", "leader", "follower", "any", "not"].contains(&id) || is_member(id) {
        return Err(value.error(format!(
            "found the id \"{id}\", which already means something"
        )));
    }
    if names.fault(id).is_some() {
        return Err(value.error(format!("found the id \"{id}\" a second time")));
    }
    Ok(id.to_owned())
}

type Links = (Option<Choice<Cut>>, Option<Choice<Way>>);

fn read_links(
    table: &mut Table<'_>,
    form: &Form,
    names: &Names<'_>,
) -> Result<Links, ScenarioError> {
    if form.more != More::Links {
        return Ok((None, None));
    }
    let members = names.members;
    let shape = table.named("shape", |value| {
        let cut = value.one_of(CUTS)?;
        if cut == Cut::Bridge && members < 3 {
            return Err(value.error("found \"bridge\", which needs 3 members in every run"));
        }
        Ok(cut)
    })?;
    if let Some(value) = table.take("size") {
        let is_split = |choice: &Choice<Cut>| choice.0.contains(&Cut::Split);
        if !shape.as_ref().is_some_and(is_split) {
            return Err(value.error("found `size`, expected it only with `shape = \"split\"`"));
        }
        let size = value.number(Unit::Count(1, 4))?;
        if size.most() as u64 >= members {
            return Err(value.error(format!(
                "found a part of {}, expected fewer than the {members} members of every run",
                size.most()
            )));
        }
    }
    Ok((shape, table.named("way", |value| value.one_of(WAYS))?))
}

fn read_node(
    table: &mut Table<'_>,
    form: &Form,
    names: &Names<'_>,
) -> Result<Choice<Target>, ScenarioError> {
    if ["power-loss-all", "rolling-restart"].contains(&form.name) {
        return Ok(Choice(vec![Target::Any])); // They concern all members.
    }
    let read = |value: Value<'_>| {
        let expected = format!(
            "\"any\", \"leader\", \"follower\", \"m1\" to \"m{}\", \"ID.target\" or \"not ID.target\" of a fault above",
            names.members
        );
        let text = value.text(&expected)?;
        let (is_other, id) = match text.strip_prefix("not ") {
            Some(id) => (true, id),
            None => (false, text),
        };
        let fault = id.strip_suffix(".target").and_then(|id| names.fault(id));
        Ok(match (text, names.member(text), fault) {
            ("any", ..) => Target::Any,
            ("leader", ..) => Target::Leader,
            ("follower", ..) => Target::Follower,
            (_, Some(number), _) => Target::Member(number),
            (_, _, Some(fault)) if is_other => Target::NotSameAs(fault),
            (_, _, Some(fault)) => Target::SameAs(fault),
            _ => return Err(value.unexpected(&expected)),
        })
    };
    let node = table.named("node", read)?;
    Ok(node.unwrap_or(Choice(vec![Target::Any])))
}

/// `{ when = "..", at_most = ".." }`
fn read_when(
    value: Value<'_>,
    names: &Names<'_>,
) -> Result<(Predicate, Option<Number>), ScenarioError> {
    let mut table = value.table("a moment".to_owned())?;
    let condition = table.require("when", "a condition such as \"leader.last > 20\"")?;
    let predicate = when::read(condition, names)?;
    let at_most = table.number("at_most", Unit::Duration(0))?;
    table.finish()?;
    Ok((predicate, at_most))
}

fn is_when(value: Value<'_>) -> bool {
    let table = value.table(String::new());
    table.is_ok_and(|mut table| table.take("one_of").is_none())
}

fn read_from(table: &mut Table<'_>, around: &Surroundings<'_>) -> Result<Moment, ScenarioError> {
    let expected = "a time such as \"5s\", or { when = \"leader.last > 20\" }";
    let value = table.require("from", expected)?;
    if is_when(value) {
        let (predicate, at_most) = read_when(value, &around.names)?;
        return Ok(Moment::When(predicate, at_most));
    }
    let number = value.number(Unit::Duration(0))?;
    if number.least() >= around.safety_ns {
        return Err(value.error(format!(
            "found a time after the safety phase, which ends at {} s at the latest: it would never begin",
            around.safety_ns as f64 / 1e9
        )));
    }
    Ok(Moment::At(number))
}

fn read_until(
    table: &mut Table<'_>,
    form: &Form,
    names: &Names<'_>,
    from: &Moment,
) -> Result<Until, ScenarioError> {
    if form.length == Length::Moment {
        return Ok(Until::End); // Its keys are unknown then.
    }
    let mut found = Vec::new();
    if let Some(value) = table.take("for") {
        found.push(Until::For(value.number(Unit::Duration(1))?));
    }
    if form.length == Length::Absence
        && let Some(value) = table.take("restart_after")
    {
        found.push(Until::For(value.number(Unit::Duration(1))?));
    }
    if let Some(value) = table.take("until") {
        if is_when(value) {
            let (predicate, at_most) = read_when(value, names)?;
            found.push(Until::When(predicate, at_most));
        } else {
            let until = value.number(Unit::Duration(1))?;
            let Moment::At(from) = from else {
                return Err(value.error(
                    "found a time, expected `for` with a length, since `from` is a condition",
                ));
            };
            if until.least() <= from.most() {
                return Err(value.error("found an end that is not after the beginning"));
            }
            found.push(Until::At(until));
        }
    }
    if found.len() > 1 {
        return Err(table
            .error("found more than one end, expected one of `for`, `until` and `restart_after`"));
    }
    Ok(found.pop().unwrap_or(match form.name {
        "crash" | "power-loss" => Until::For(Number::Between(50 * MILLISECOND, 2 * SECOND)),
        "rolling-restart" => Until::For(Number::Fixed(3 * SECOND)),
        _ => Until::End,
    }))
}
