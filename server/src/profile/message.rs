//! A profile as `pprof` reads it: a protobuf in which every text, function and place is there once and has a number.
//!
//! Only the fields that are filled are named; their numbers are those of pprof's `profile.proto`.

use std::collections::BTreeMap;
use std::time::Duration;

/// A stack, innermost frame first, that was seen so many times.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Each with the functions that were inlined into it, innermost first.
    pub(super) frames: Vec<Vec<Function>>,
    /// The name of its thread.
    pub(super) thread: String,
    pub(super) count: i64,
}

/// A line of a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Function {
    pub(super) name: String,
    /// As the linker knows it.
    pub(super) system_name: String,
    pub(super) file: String,
    pub(super) line: i64,
}

/// When samples were taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) since_epoch: Duration,
    pub(super) duration: Duration,
    /// The processor time that one sample stands for.
    pub(super) period: Duration,
}

/// The message of these samples: the number of samples and the time that they stand for, each with its thread.
pub(super) fn profile(samples: &[Sample], span: &Span) -> Profile {
    let mut texts = Texts::default();
    let sample_type = vec![
        texts.value_type("samples", "count"),
        texts.value_type("cpu", "nanoseconds"),
    ];
    let mut profile = Profile {
        period_type: sample_type.last().cloned(),
        sample_type,
        // Names are resolved already, says this one.
        mapping: vec![Mapping {
            id: 1,
            file: texts.number("quorate"),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        }],
        time_nanos: nanoseconds(span.since_epoch),
        duration_nanos: nanoseconds(span.duration),
        period: nanoseconds(span.period),
        ..Profile::default()
    };
    let thread = texts.number("thread");
    let (mut functions, mut locations) = (BTreeMap::new(), BTreeMap::new());
    for sample in samples {
        let ids = sample.frames.iter().map(|frame| {
            let next = locations.len() as u64 + 1;
            *locations.entry(frame).or_insert_with(|| {
                let line = frame.iter().map(|function| {
                    line(&mut profile.function, &mut functions, &mut texts, function)
                });
                profile.location.push(Location {
                    id: next,
                    mapping_id: 1,
                    line: line.collect(),
                });
                next
            })
        });
        let location_id = ids.collect();
        profile.sample.push(CountedStack {
            location_id,
            value: vec![sample.count, sample.count * profile.period],
            label: vec![Label {
                key: thread,
                text: texts.number(&sample.thread),
            }],
        });
    }
    profile.string_table = texts.texts;
    profile
}

fn line<'a>(
    named: &mut Vec<NamedFunction>,
    known: &mut BTreeMap<(&'a str, &'a str), u64>,
    texts: &mut Texts,
    function: &'a Function,
) -> Line {
    let next = known.len() as u64 + 1;
    let key = (function.system_name.as_str(), function.file.as_str());
    let function_id = *known.entry(key).or_insert_with(|| {
        named.push(NamedFunction {
            id: next,
            name: texts.number(&function.name),
            system_name: texts.number(&function.system_name),
            filename: texts.number(&function.file),
        });
        next
    });
    Line {
        function_id,
        line: function.line,
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Every text once; the first one is empty.
struct Texts {
    texts: Vec<String>,
    numbers: BTreeMap<String, i64>,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            texts: vec![String::new()],
            numbers: BTreeMap::from([(String::new(), 0)]),
        }
    }
}

impl Texts {
    fn number(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as i64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType {
            kind: self.number(kind),
            unit: self.number(unit),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<CountedStack>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<NamedFunction>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CountedStack {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "5")]
    file: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
    #[prost(bool, tag = "8")]
    has_filenames: bool,
    #[prost(bool, tag = "9")]
    has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    has_inline_frames: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct NamedFunction {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, line: i64) -> Function {
        Function {
            name: name.to_owned(),
            system_name: format!("_{name}"),
            file: "a.rs".to_owned(),
            line,
        }
    }

    #[test]
    fn functions_and_places_are_there_once_and_stacks_name_them() {
        let (outer, inner) = (
            vec![function("f", 1)],
            vec![function("g", 2), function("f", 9)],
        );
        let sample = |frames: &[&Vec<Function>], count| Sample {
            frames: frames.iter().map(|frame| (*frame).clone()).collect(),
            thread: "core-0".to_owned(),
            count,
        };
        let samples = [
            sample(&[&inner, &outer], 3),
            sample(&[&outer], 1),
            sample(&[], 2),
        ];
        let span = Span {
            since_epoch: Duration::from_secs(5),
            duration: Duration::from_secs(2),
            period: Duration::from_millis(10),
        };
        let profile = profile(&samples, &span);
        let text = |number: i64| profile.string_table[number as usize].as_str();
        let kinds = profile
            .sample_type
            .iter()
            .map(|kind| (text(kind.kind), text(kind.unit)));
        assert_eq!(
            kinds.collect::<Vec<_>>(),
            [("samples", "count"), ("cpu", "nanoseconds")]
        );
        let stacks = profile
            .sample
            .iter()
            .map(|stack| (&stack.location_id[..], &stack.value[..]));
        assert_eq!(
            stacks.collect::<Vec<_>>(),
            [
                (&[1, 2][..], &[3, 30_000_000][..]),
                (&[2], &[1, 10_000_000]),
                (&[], &[2, 20_000_000]),
            ]
        );
        let lines = profile.location.iter().map(|location| {
            let lines = location
                .line
                .iter()
                .map(|line| (line.function_id, line.line));
            (location.id, lines.collect::<Vec<_>>())
        });
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [(1, vec![(1, 2), (2, 9)]), (2, vec![(2, 1)])]
        );
        let functions = profile.function.iter().map(|named| {
            (
                named.id,
                text(named.name),
                text(named.system_name),
                text(named.filename),
            )
        });
        assert_eq!(
            functions.collect::<Vec<_>>(),
            [(1, "g", "_g", "a.rs"), (2, "f", "_f", "a.rs")]
        );
        let label = profile.sample[0].label[0];
        assert_eq!((text(label.key), text(label.text)), ("thread", "core-0"));
        assert_eq!(
            (profile.time_nanos, profile.duration_nanos, profile.period),
            (5_000_000_000, 2_000_000_000, 10_000_000)
        );
        assert_eq!(text(0), "");
    }
}
