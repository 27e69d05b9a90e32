//! The text of one line.

use std::fmt::{self, Write as _};

use jiff::Zoned;
use tracing::Event;
use tracing::field::{Field, Visit};

/// The field that holds further fields as one JSON object.
const MORE: &str = "more";

/// Now, in the time zone of this machine, as etcd writes it: microseconds, and `Z` for UTC.
pub(super) fn timestamp() -> String {
    text_of(&Zoned::now())
}

fn text_of(time: &Zoned) -> String {
    let zone = if time.offset().seconds() == 0 {
        "Z".to_owned()
    } else {
        time.strftime("%z").to_string()
    };
    format!("{}{zone}", time.strftime("%Y-%m-%dT%H:%M:%S%.6f"))
}

/// A line, and what an output may want to know of it.
pub(super) struct Line {
    /// All of it, with its newline.
    pub(super) text: String,
    /// The level as written.
    pub(super) level: &'static str,
    /// File and line of the source.
    pub(super) caller: String,
}

/// The line of `event`.
pub(super) fn format(event: &Event<'_>, timestamp: &str, console: bool) -> Line {
    let mut fields = Fields {
        message: String::new(),
        fields: String::new(),
        console,
    };
    event.record(&mut fields);
    let metadata = event.metadata();
    let level = match *metadata.level() {
        _ if metadata.target() == super::FATAL => "fatal",
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
    };
    let caller = caller(
        metadata.file().unwrap_or("unknown"),
        metadata.line().unwrap_or(0),
    );
    let text = if console {
        let tail = if fields.fields.is_empty() {
            String::new()
        } else {
            format!("\t{{{}}}", fields.fields)
        };
        format!("{timestamp}\t{level}\t{caller}\t{}{tail}\n", fields.message)
    } else {
        let tail = if fields.fields.is_empty() {
            String::new()
        } else {
            format!(",{}", fields.fields)
        };
        format!(
            "{{\"level\":\"{level}\",\"ts\":\"{timestamp}\",\"caller\":\"{caller}\",\"msg\":{}{tail}}}\n",
            quoted(&fields.message)
        )
    };
    Line {
        text,
        level,
        caller,
    }
}

/// The file with its directory: enough to find it, and as short as etcd's.
fn caller(file: &str, line: u32) -> String {
    let start = file
        .rmatch_indices('/')
        .nth(1)
        .map_or(0, |(slash, _)| slash + 1);
    format!("{}:{line}", &file[start..])
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// Collects an event's message and the JSON of its other fields.
struct Fields {
    message: String,
    fields: String,
    console: bool,
}

impl Fields {
    /// Adds a field whose value is JSON already.
    fn add(&mut self, field: &Field, json: &str) {
        let (comma, colon) = if self.console {
            (", ", ": ")
        } else {
            (",", ":")
        };
        if !self.fields.is_empty() {
            self.fields.push_str(comma);
        }
        write!(self.fields, "{}{colon}{json}", quoted(field.name())).expect("a string takes all");
    }

    fn splice(&mut self, members: &str) {
        if !members.is_empty() {
            let comma = if self.fields.is_empty() { "" } else { "," };
            write!(self.fields, "{comma}{members}").expect("a string takes all");
        }
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            self.add(field, &quoted(text));
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let json = if value.is_finite() {
            value.to_string()
        } else {
            quoted(&value.to_string())
        };
        self.add(field, &json);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, if value { "true" } else { "false" });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Fields whose names are known only at run time come as one JSON object.
        let object = value
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        match object {
            Some(members) if field.name() == MORE => self.splice(members),
            _ => self.add_text(field, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() != "message"
            && text.starts_with('[')
            && let Ok(items) = serde_json::from_str::<Vec<serde_json::Value>>(&text)
        {
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            self.add(
                field,
                &format!("[{}]", items.join(if self.console { ", " } else { "," })),
            );
            return;
        }
        self.add_text(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_carry_microseconds_and_the_zone() {
        let utc: Zoned = "2026-08-20T14:13:15.123456789+00:00[UTC]".parse().unwrap();
        assert_eq!(text_of(&utc), "2026-08-20T14:13:15.123456Z");
        let summer = utc.with_time_zone(jiff::tz::TimeZone::fixed(jiff::tz::offset(1)));
        assert_eq!(text_of(&summer), "2026-08-20T15:13:15.123456+0100");
    }

    #[test]
    fn a_caller_is_the_file_and_its_directory() {
        assert_eq!(caller("server/src/driver/mod.rs", 7), "driver/mod.rs:7");
        assert_eq!(caller("main.rs", 7), "main.rs:7");
        assert_eq!(caller("src/main.rs", 7), "src/main.rs:7");
    }
}
