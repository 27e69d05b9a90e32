//! Prometheus' text format, version 0.0.4, written as Go's library writes it: families by name, labels by name,
//! numbers as Go prints them, so that a scrape of a member cannot be told from one of etcd.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::value::HistogramSnapshot;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// What a family's `# TYPE` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Label names and values.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Collects families in any order.
#[derive(Default)]
pub(super) struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

struct Family {
    kind: Type,
    help: &'static str,
    /// Lines by their labels; a histogram has several lines in one.
    samples: BTreeMap<String, String>,
}

impl Exposition {
    /// A counter or gauge.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        kind: Type,
        help: &'static str,
        labels: Labels<'_>,
        value: f64,
    ) {
        let labels = label_text(labels);
        let line = match labels.as_str() {
            "" => format!("{name} {}\n", number_text(value)),
            labels => format!("{name}{{{labels}}} {}\n", number_text(value)),
        };
        self.family(name, kind, help).samples.insert(labels, line);
    }

    /// A histogram.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        snapshot: &HistogramSnapshot,
    ) {
        let labels = label_text(labels);
        let (comma, braced) = match labels.as_str() {
            "" => ("", String::new()),
            labels => (",", format!("{{{labels}}}")),
        };
        let mut lines = String::new();
        let mut cumulative = 0;
        let bounds = snapshot
            .buckets
            .bounds
            .iter()
            .map(|bound| number_text(*bound));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&snapshot.counts) {
            cumulative += count;
            writeln!(
                lines,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {}",
                number_text(cumulative as f64)
            )
            .expect("a string takes all");
        }
        let sum = number_text(snapshot.sum as f64 * snapshot.buckets.unit);
        writeln!(lines, "{name}_sum{braced} {sum}").expect("a string takes all");
        writeln!(
            lines,
            "{name}_count{braced} {}",
            number_text(cumulative as f64)
        )
        .expect("a string takes all");
        self.family(name, Type::Histogram, help)
            .samples
            .insert(labels, lines);
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            writeln!(text, "# HELP {name} {}", family.help).expect("a string takes all");
            writeln!(text, "# TYPE {name} {}", family.kind.as_str()).expect("a string takes all");
            text.extend(family.samples.values().map(String::as_str));
        }
        text
    }

    fn family(&mut self, name: &'static str, kind: Type, help: &'static str) -> &mut Family {
        assert!(
            !help.contains(['\\', '\n']),
            "help texts are one plain line"
        );
        let family = self.families.entry(name).or_insert_with(|| Family {
            kind,
            help,
            samples: BTreeMap::new(),
        });
        assert_eq!(family.kind, kind, "{name} has one type");
        family
    }
}

/// `a="1",b="2"`, by name.
fn label_text(labels: Labels<'_>) -> String {
    let mut labels = labels.to_vec();
    labels.sort_unstable();
    let pairs = labels.iter().map(|(name, value)| {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// As Go's shortest `%g` prints it: `0.001`, `20000`, `1.048576e+06`, `+Inf`.
fn number_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific
        .split_once('e')
        .expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    // Go's rule for the shortest form.
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::super::value::{Buckets, Histogram};
    use super::*;

    #[test]
    fn numbers_print_as_go_prints_them() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (5.2e-05, "5.2e-05"),
            (20000.0, "20000"),
            (819_200.0, "819200"),
            (1_048_576.0, "1.048576e+06"),
            (29_200_384.0, "2.9200384e+07"),
            (1_795_415_781.11, "1.79541578111e+09"),
            (18_446_744_073_709_551_615.0, "1.8446744073709552e+19"),
            (0.096_111_691, "0.096111691"),
            (123_456.5, "123456.5"),
            (-2.0, "-2"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(number_text(value), text);
        }
    }

    #[test]
    fn families_and_labels_stand_in_order() {
        let mut exposition = Exposition::default();
        exposition.number("b", Type::Gauge, "B.", &[], 1.5);
        exposition.number(
            "a_total",
            Type::Counter,
            "A.",
            &[("z", "1"), ("c", "x\"y\n")],
            3.0,
        );
        exposition.number(
            "a_total",
            Type::Counter,
            "A.",
            &[("z", "0"), ("c", "a")],
            4.0,
        );
        let histogram = Histogram::new(Buckets {
            bounds: &[0.5, 1.0],
            unit: 0.25,
        });
        for units in [1, 3, 9] {
            histogram.observe_units(units);
        }
        exposition.histogram("h", "H.", &[("t", "v")], &histogram.snapshot());
        assert_eq!(
            exposition.text(),
            "# HELP a_total A.\n# TYPE a_total counter\n\
             a_total{c=\"a\",z=\"0\"} 4\na_total{c=\"x\\\"y\\n\",z=\"1\"} 3\n\
             # HELP b B.\n# TYPE b gauge\nb 1.5\n\
             # HELP h H.\n# TYPE h histogram\n\
             h_bucket{t=\"v\",le=\"0.5\"} 1\nh_bucket{t=\"v\",le=\"1\"} 2\nh_bucket{t=\"v\",le=\"+Inf\"} 3\n\
             h_sum{t=\"v\"} 3.25\nh_count{t=\"v\"} 3\n"
        );
    }
}
