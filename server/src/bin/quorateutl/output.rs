//! What answers look like, in each of etcdutl's forms.

use std::io::Write as _;

use crate::{Exit, Failure};

/// etcdutl's forms of output that it can print anything in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Table,
}

/// One column, field or JSON member of an answer.
pub(crate) struct Cell {
    /// The column's title in a table.
    pub(crate) column: &'static str,
    /// The name in `fields`.
    pub(crate) field: &'static str,
    /// The name in JSON.
    pub(crate) json: &'static str,
    /// The value for people.
    pub(crate) shown: String,
    /// The value for programs, as JSON.
    pub(crate) value: String,
}

impl Format {
    /// `--write-out`. etcdutl takes `protobuf`, and then has nothing to print in it.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        match name {
            "simple" => Ok(Self::Simple),
            "fields" => Ok(Self::Fields),
            "json" => Ok(Self::Json),
            "table" => Ok(Self::Table),
            "protobuf" => Err(Failure::new(
                Exit::Feature,
                "protobuf not supported as output format",
            )),
            _ => Err(Failure::new(Exit::Feature, "unsupported output format")),
        }
    }

    /// Prints one answer.
    pub(crate) fn print(self, cells: &[Cell]) {
        let text = match self {
            Self::Simple => {
                let shown: Vec<_> = cells.iter().map(|cell| cell.shown.as_str()).collect();
                shown.join(", ") + "\n"
            }
            Self::Fields => cells
                .iter()
                .map(|cell| format!("\"{}\" : {}\n", cell.field, cell.value.trim_matches('"')))
                .collect(),
            Self::Json => {
                let members: Vec<_> = cells
                    .iter()
                    .map(|cell| format!("\"{}\":{}", cell.json, cell.value))
                    .collect();
                format!("{{{}}}\n", members.join(","))
            }
            Self::Table => table(cells),
        };
        write(&text);
    }
}

/// Titles in the middle, values to the right.
fn table(cells: &[Cell]) -> String {
    let widths: Vec<usize> = cells
        .iter()
        .map(|cell| cell.column.len().max(cell.shown.len()))
        .collect();
    let border = |left: &str, middle: &str, right: &str| {
        let parts: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(middle))
    };
    let line = |texts: Vec<String>| format!("│ {} │\n", texts.join(" │ "));
    let with_widths = || cells.iter().zip(&widths);
    let titles = with_widths().map(|(cell, width)| format!("{:^width$}", cell.column));
    let values = with_widths().map(|(cell, width)| format!("{:>width$}", cell.shown));
    border("┌", "┬", "┐")
        + &line(titles.collect())
        + &border("├", "┼", "┤")
        + &line(values.collect())
        + &border("└", "┴", "┘")
}

/// Writes to stdout. That nobody reads it is no reason to fail.
pub(crate) fn write(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Decimal units, two digits below ten.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog(1000);
    let value = (bytes as f64 / 1000f64.powi(power.cast_signed()) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power as usize];
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}
