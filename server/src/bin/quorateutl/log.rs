//! Lines on stderr, in the form in which etcdutl's log lines stand there.

use std::panic::Location;

/// A line: time, level, place, message, and fields whose values are JSON already.
#[track_caller]
pub(crate) fn line(level: &str, message: &str, fields: &[(&str, String)]) {
    let place = Location::caller();
    let mut parts = place.file().rsplit('/');
    let file = parts.next().unwrap_or_default();
    let directory = parts.next().unwrap_or_default();
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let line = place.line();
    let mut text = format!("{now}\t{level}\t{directory}/{file}:{line}\t{message}");
    if !fields.is_empty() {
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\": {value}"))
            .collect();
        text += &format!("\t{{{}}}", fields.join(", "));
    }
    eprintln!("{text}");
}

/// A string as a field's value.
pub(crate) fn text(value: impl AsRef<str>) -> String {
    serde_json::to_string(value.as_ref()).expect("a string is JSON")
}
