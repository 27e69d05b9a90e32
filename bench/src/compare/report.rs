//! The table and the chart.

use std::fmt::Write as _;
use std::path::Path;

use plotters::prelude::*;

/// One line of the table.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) ours: f64,
    pub(super) etcd: f64,
    /// Whether a higher number is the better one.
    pub(super) more_is_better: bool,
}

impl Row {
    /// How many times better ours is.
    fn advantage(&self) -> f64 {
        if self.more_is_better {
            self.ours / self.etcd
        } else {
            self.etcd / self.ours
        }
    }
}

/// Prints the table, and leaves table, figures and chart under a name.
pub(super) fn store(output: &Path, name: &str, rows: &[Row]) -> Result<(), String> {
    let text = table(rows);
    println!("\n{text}");
    let fail = |error: std::io::Error| format!("{}: {error}", output.display());
    std::fs::create_dir_all(output).map_err(fail)?;
    std::fs::write(output.join(format!("{name}.md")), text).map_err(fail)?;
    let json = serde_json::to_string_pretty(rows).map_err(|error| error.to_string())?;
    std::fs::write(output.join(format!("{name}.json")), json).map_err(fail)?;
    chart(rows, &output.join(format!("{name}.svg")))?;
    println!("table, figures and chart are in {}", output.display());
    Ok(())
}

/// The table in Markdown.
fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| what | unit | quorate | etcd | quorate / etcd |\n|---|---|--:|--:|--:|\n");
    for row in rows {
        let (ours, etcd) = (number(row.ours), number(row.etcd));
        let _ = writeln!(
            text,
            "| {} | {} | {ours} | {etcd} | {:.2} |",
            row.what,
            row.unit,
            row.ours / row.etcd
        );
    }
    text
}

fn number(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// A bar for each row: how many times better ours is, on a logarithmic scale. Bars to the left of 1 are worse.
fn chart(rows: &[Row], file: &Path) -> Result<(), String> {
    let height = 60 + 26 * u32::try_from(rows.len()).expect("a short table");
    let area = SVGBackend::new(file, (900, height)).into_drawing_area();
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    area.fill(&WHITE).map_err(|error| fail(&error))?;
    let title = "How many times better than etcd (right of the line is better)";
    area.draw(&Text::new(title, (20, 16), ("sans-serif", 17)))
        .map_err(|error| fail(&error))?;
    // One time better is at 480; each doubling is 70 wide.
    let position = |times: f64| 480 + (times.clamp(0.05, 40.0).log2() * 70.0) as i32;
    for (row, top) in rows.iter().zip((48..).step_by(26)) {
        let times = row.advantage();
        let color = if times >= 1.0 {
            RGBColor(46, 125, 50)
        } else {
            RGBColor(198, 40, 40)
        };
        let (from, to) = (
            position(1.0).min(position(times)),
            position(1.0).max(position(times)),
        );
        let bar = Rectangle::new([(from, top), (to.max(from + 1), top + 18)], color.filled());
        area.draw(&bar).map_err(|error| fail(&error))?;
        let label = Text::new(row.what.clone(), (20, top + 3), ("sans-serif", 14));
        area.draw(&label).map_err(|error| fail(&error))?;
        let value = Text::new(
            format!("{times:.1}x"),
            (to + 6, top + 3),
            ("sans-serif", 14),
        );
        area.draw(&value).map_err(|error| fail(&error))?;
    }
    let bottom = i32::try_from(height).expect("a small picture") - 8;
    let line = PathElement::new(vec![(480, 40), (480, bottom)], BLACK.stroke_width(1));
    area.draw(&line).map_err(|error| fail(&error))?;
    area.present().map_err(|error| fail(&error))
}
