//! Strict reading of TOML: each key is asked for by name, what nobody has asked for is an error, and every value knows
//! where it stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draw::{Choice, Number};
use super::source::{ScenarioError, Source};
use super::units::Unit;

/// A table whose keys are taken one by one.
pub(super) struct Table<'s> {
    source: &'s Source<'s>,
    /// What errors call it: `[network]`, `[[fault]]`.
    title: String,
    span: Range<usize>,
    /// Its entries in the order of the text.
    entries: Vec<(&'s str, Range<usize>, &'s Spanned<DeValue<'s>>)>,
    /// The keys that were asked for.
    known: Vec<&'static str>,
}

/// A value and its place.
#[derive(Clone, Copy)]
pub(super) struct Value<'s> {
    source: &'s Source<'s>,
    value: &'s Spanned<DeValue<'s>>,
}

impl<'s> Table<'s> {
    pub(super) fn new(
        source: &'s Source<'s>,
        title: impl Into<String>,
        span: Range<usize>,
        table: &'s DeTable<'s>,
    ) -> Self {
        let entries = table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value));
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        Self {
            source,
            title: title.into(),
            span,
            entries,
            known: Vec::new(),
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'s>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.entries.iter().find(|(name, ..)| *name == key);
        entry.map(|(_, _, value)| Value {
            source: self.source,
            value,
        })
    }

    /// The value of a key that must be there.
    pub(super) fn require(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Result<Value<'s>, ScenarioError> {
        let found = self.take(key);
        found.ok_or_else(|| {
            let title = &self.title;
            self.error(format!("{title} has no `{key}`, expected {expected}"))
        })
    }

    /// An error about the table as a whole.
    pub(super) fn error(&self, message: impl Into<String>) -> ScenarioError {
        self.source.error(self.span.clone(), message)
    }

    /// Fails if there is a key that was not asked for.
    pub(super) fn finish(self) -> Result<(), ScenarioError> {
        let unknown = self
            .entries
            .iter()
            .find(|(name, ..)| !self.known.contains(name));
        let Some((name, span, _)) = unknown else {
            return Ok(());
        };
        let known = self.known.iter().map(|key| format!("`{key}`"));
        let known = known.collect::<Vec<_>>().join(", ");
        let message = format!(
            "found the key `{name}`, expected of {} are {known}",
            self.title
        );
        Err(self.source.error(span.clone(), message))
    }

    /// A number, fixed or to be drawn.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        unit: Unit,
    ) -> Result<Option<Number>, ScenarioError> {
        self.take(key).map(|value| value.number(unit)).transpose()
    }

    /// `true` or `false`, or to be drawn.
    pub(super) fn flag(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Choice<bool>>, ScenarioError> {
        let read = |value: Value<'_>| value.boolean();
        self.take(key).map(|value| value.choice(read)).transpose()
    }

    /// One of some names, or to be drawn.
    pub(super) fn named<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'s>) -> Result<T, ScenarioError>,
    ) -> Result<Option<Choice<T>>, ScenarioError> {
        self.take(key).map(|value| value.choice(read)).transpose()
    }

    /// The table under a key.
    pub(super) fn table(&mut self, key: &'static str) -> Result<Option<Table<'s>>, ScenarioError> {
        let value = self.take(key);
        value
            .map(|value| value.table(format!("[{key}]")))
            .transpose()
    }

    /// The tables of an array of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Result<Vec<Table<'s>>, ScenarioError> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        let expected = format!("tables under [[{key}]]");
        let items = value.array(&expected)?;
        items
            .into_iter()
            .map(|item| item.table(format!("[[{key}]]")))
            .collect()
    }
}

impl<'s> Value<'s> {
    /// Says what was found, and what was expected.
    pub(super) fn unexpected(&self, expected: &str) -> ScenarioError {
        self.error(format!("found {}, expected {expected}", self.found()))
    }

    pub(super) fn error(&self, message: impl Into<String>) -> ScenarioError {
        self.source.error(self.value.span(), message)
    }

    /// An error within a text, at these bytes of it.
    pub(super) fn error_within(
        &self,
        part: Range<usize>,
        message: impl Into<String>,
    ) -> ScenarioError {
        let span = self.value.span();
        let is_plain = matches!(self.value.get_ref(), DeValue::String(text)
            if text.len() + 2 == span.len());
        let start = span.start + 1 + part.start;
        let span = if is_plain {
            start..(start + part.len())
        } else {
            span
        };
        self.source.error(span, message)
    }

    /// What stands there, for people.
    fn found(&self) -> String {
        match self.value.get_ref() {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(is) => is.to_string(),
            DeValue::Datetime(_) => "a date or time".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    pub(super) fn text(&self, expected: &str) -> Result<&'s str, ScenarioError> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(self.unexpected(expected)),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, ScenarioError> {
        let boolean = self.value.get_ref().as_bool();
        boolean.ok_or_else(|| self.unexpected("true or false"))
    }

    pub(super) fn array(&self, expected: &str) -> Result<Vec<Value<'s>>, ScenarioError> {
        match self.value.get_ref() {
            DeValue::Array(items) => Ok(items
                .iter()
                .map(|value| Value {
                    source: self.source,
                    value,
                })
                .collect()),
            _ => Err(self.unexpected(expected)),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn table(&self, title: String) -> Result<Table<'s>, ScenarioError> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Table::new(self.source, title, self.value.span(), table)),
            _ => Err(self.unexpected(&format!("the table {title}"))),
        }
    }

    /// One of these names.
    pub(super) fn one_of<T: Clone>(&self, names: &[(&str, T)]) -> Result<T, ScenarioError> {
        let expected = || {
            let known = names.iter().map(|(name, _)| format!("\"{name}\""));
            known.collect::<Vec<_>>().join(", ")
        };
        let DeValue::String(text) = self.value.get_ref() else {
            return Err(self.unexpected(&format!("one of {}", expected())));
        };
        let known = names.iter().find(|(name, _)| name == text);
        known
            .map(|(_, value)| value.clone())
            .ok_or_else(|| self.unexpected(&format!("one of {}", expected())))
    }

    /// A number: `n`, `[first, last]` or `{ one_of = [..] }`.
    pub(super) fn number(&self, unit: Unit) -> Result<Number, ScenarioError> {
        match self.value.get_ref() {
            DeValue::Array(_) => {
                let expected = format!("{} or [first, last]", unit.expected());
                let ends = self.array(&expected)?;
                let [first, last] = ends[..] else {
                    let count = ends.len();
                    return Err(self.error(format!(
                        "found an array of {count}, expected [first, last], between which is drawn"
                    )));
                };
                let range = (first.one_number(unit)?, last.one_number(unit)?);
                if range.0 > range.1 {
                    return Err(self.error(format!(
                        "found {} before {}, expected the smaller one first",
                        first.found(),
                        last.found()
                    )));
                }
                Ok(Number::Between(range.0, range.1))
            }
            DeValue::Table(_) => {
                let items = self.items_of_choice()?;
                let numbers = items.iter().map(|item| item.one_number(unit));
                Ok(Number::OneOf(numbers.collect::<Result<_, _>>()?))
            }
            _ => Ok(Number::Fixed(self.one_number(unit)?)),
        }
    }

    /// A value that is not a number: itself, or `{ one_of = [..] }`.
    pub(super) fn choice<T>(
        &self,
        read: impl Fn(Value<'s>) -> Result<T, ScenarioError>,
    ) -> Result<Choice<T>, ScenarioError> {
        if !self.is_table() {
            return Ok(Choice(vec![read(*self)?]));
        }
        let items = self.items_of_choice()?;
        Ok(Choice(
            items.into_iter().map(read).collect::<Result<_, _>>()?,
        ))
    }

    fn items_of_choice(&self) -> Result<Vec<Value<'s>>, ScenarioError> {
        let mut table = self.table("a choice".to_owned())?;
        let value = table.require("one_of", "an array of values")?;
        let items = value.array("an array of values")?;
        table.finish()?;
        if items.is_empty() {
            return Err(value.error("found nothing to choose from, expected at least one value"));
        }
        Ok(items)
    }

    fn one_number(&self, unit: Unit) -> Result<i64, ScenarioError> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => unit.read_integer(number.as_str(), number.radix()),
            DeValue::Float(number) => unit.read_float(number.as_str()),
            DeValue::String(text) => unit.read_text(text),
            _ => None,
        };
        number.ok_or_else(|| self.unexpected(&unit.expected()))
    }
}
