//! Typed settings: the value of each flag that was given, by the table of flags.
//!
//! Owns how a text becomes a value. Never looks at what a setting means: that is the parent's work.

use std::collections::BTreeMap;

use super::flags::{FLAGS, Flag, Kind, find};
use super::gates::FeatureGates;
use super::go_syntax::{parse_bool, parse_duration, parse_signed, parse_unsigned};
use super::url::Url;

/// The value of one flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// In nanoseconds.
    Duration(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    Gates(FeatureGates),
    Nothing,
}

impl Value {
    /// Reads `text` as a value of `flag`.
    pub(super) fn parse(flag: &Flag, text: &str) -> Result<Self, String> {
        let list = || text.split(',').map(str::to_owned).collect::<Vec<_>>();
        Ok(match flag.kind {
            Kind::Text => Self::Text(text.to_owned()),
            Kind::Bool => Self::Bool(parse_bool(text).ok_or("parse error")?),
            Kind::Unsigned(max) => match parse_unsigned(text).map_err(|misread| misread.words())? {
                number if number > max => return Err("value out of range".to_owned()),
                number => Self::Unsigned(number),
            },
            Kind::Signed => Self::Signed(parse_signed(text).map_err(|misread| misread.words())?),
            Kind::Duration => {
                Self::Duration(parse_duration(text).map_err(|misread| misread.words())?)
            }
            Kind::Urls if text.is_empty() => Self::Urls(Vec::new()),
            // Origins may be "all", which is no URL; they are looked at as texts.
            Kind::Urls if flag.name == "cors" && text == "*" => Self::List(list()),
            Kind::Urls if flag.name == "cors" => {
                Self::List(super::url::texts(&Url::parse_list(text)?))
            }
            Kind::Urls => Self::Urls(Url::parse_list(text)?),
            Kind::Set if text.is_empty() => Self::List(Vec::new()),
            Kind::Set => {
                let mut texts = list();
                texts.sort();
                texts.dedup();
                Self::List(texts)
            }
            Kind::List if text.is_empty() => Self::List(Vec::new()),
            Kind::List => Self::List(list()),
            // The default of a choice need not be one of its values: it then means "not chosen".
            Kind::Choice(_) if text == flag.default => Self::Text(text.to_owned()),
            Kind::Choice(choices) if choices.contains(&text) => Self::Text(text.to_owned()),
            Kind::Choice(_) => return Err("invalid value".to_owned()),
            Kind::Gates => {
                let mut gates = FeatureGates::default();
                gates.merge(text)?;
                Self::Gates(gates)
            }
            Kind::Obsolete => Self::Nothing,
        })
    }

    fn default_of(flag: &Flag) -> Self {
        Self::parse(flag, flag.default).expect("the defaults of the table are values")
    }
}

/// The flags that were set, each with its last value.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// Sets `flag` from a text.
    pub(super) fn set(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        // Gates are the one flag whose values add up.
        if let Some(Value::Gates(gates)) = self.values.get_mut(flag.name) {
            return gates.merge(text);
        }
        self.set_value(flag, Value::parse(flag, text)?);
        Ok(())
    }

    pub(super) fn set_value(&mut self, flag: &'static Flag, value: Value) {
        self.values.insert(flag.name, value);
    }

    /// Whether the flag was given, at whatever value.
    pub(super) fn is_set(&self, name: &str) -> bool {
        assert!(find(name).is_some(), "unknown flag {name}");
        self.values.contains_key(name)
    }

    /// The flags that were given.
    pub(super) fn set_flags(&self) -> impl Iterator<Item = &'static Flag> {
        FLAGS
            .iter()
            .filter(|flag| self.values.contains_key(flag.name))
    }

    /// Whether the flag differs from its default.
    pub(super) fn is_changed(&self, flag: &Flag) -> bool {
        self.values
            .get(flag.name)
            .is_some_and(|value| *value != Value::default_of(flag))
    }

    fn value(&self, name: &str) -> Value {
        let flag = find(name).expect("flags are named by the table");
        self.values
            .get(name)
            .cloned()
            .unwrap_or_else(|| Value::default_of(flag))
    }

    pub(super) fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("{name} is no text but {other:?}"),
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => value,
            other => panic!("{name} is no switch but {other:?}"),
        }
    }

    pub(super) fn unsigned(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Unsigned(number) => number,
            other => panic!("{name} is no unsigned number but {other:?}"),
        }
    }

    pub(super) fn signed(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Signed(number) => number,
            other => panic!("{name} is no number but {other:?}"),
        }
    }

    /// In nanoseconds.
    pub(super) fn duration(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Duration(nanoseconds) => nanoseconds,
            other => panic!("{name} is no duration but {other:?}"),
        }
    }

    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => panic!("{name} is no list of URLs but {other:?}"),
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(texts) => texts,
            Value::Urls(urls) => super::url::texts(&urls),
            other => panic!("{name} is no list but {other:?}"),
        }
    }

    pub(super) fn gates(&self) -> FeatureGates {
        match self.value("feature-gates") {
            Value::Gates(gates) => gates,
            other => panic!("feature-gates holds {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_flag() {
        for flag in FLAGS {
            Value::default_of(flag);
            assert_eq!(
                FLAGS.iter().filter(|other| other.name == flag.name).count(),
                1,
                "{}",
                flag.name
            );
        }
    }
}
