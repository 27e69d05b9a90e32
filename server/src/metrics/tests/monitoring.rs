//! The dashboard and the alert rules of `docs/monitoring`: whatever they name is there.

use saphyr::{LoadableYamlNode as _, Yaml};

use super::*;

/// The expressions of the dashboard, with the panels that hold them.
fn dashboard() -> Vec<(String, String)> {
    let text = include_str!("../../../../docs/monitoring/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let mut expressions = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a panel has a title");
        let targets = panel["targets"].as_array().expect("a panel asks something");
        assert!(!targets.is_empty(), "{title} is empty");
        for target in targets {
            let expression = target["expr"].as_str().expect("a target has an expression");
            expressions.push((title.to_owned(), expression.to_owned()));
        }
    }
    expressions
}

/// The expressions of the rules, with the names of these.
fn rules() -> Vec<(String, String)> {
    let text = include_str!("../../../../docs/monitoring/alerts.yaml");
    let documents = Yaml::load_from_str(text).expect("it is YAML");
    let groups = documents[0]["groups"].as_sequence().expect("it has groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_sequence().expect("a group has rules"));
    let said = |rule: &Yaml<'_>, field: &str| {
        let value = rule[field].as_str().unwrap_or_default().trim().to_owned();
        assert!(!value.is_empty(), "a rule without {field}");
        value
    };
    rules
        .map(|rule| {
            for (part, field) in [
                ("labels", "severity"),
                ("annotations", "summary"),
                ("annotations", "description"),
            ] {
                said(&rule[part], field);
            }
            (said(rule, "alert"), said(rule, "expr"))
        })
        .collect()
}

/// The metrics of an expression, each with the labels that it is asked by.
fn selectors(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = expression;
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    while let Some(start) = rest.find(|character: char| character.is_ascii_alphabetic()) {
        let name: String = rest[start..].chars().take_while(|c| is_name(*c)).collect();
        rest = &rest[start + name.len()..];
        let Some(inside) = rest.strip_prefix('{') else {
            continue;
        };
        let end = end_of_matchers(inside);
        let labels = matchers(&inside[..end]);
        found.push((name, labels));
        rest = &inside[end..];
    }
    found
}

/// Where the braces close, but for those in quotes.
fn end_of_matchers(inside: &str) -> usize {
    let mut is_quoted = false;
    inside
        .find(|character| {
            is_quoted ^= character == '"';
            character == '}' && !is_quoted
        })
        .expect("braces close")
}

fn matchers(inside: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for (number, part) in inside.split('"').enumerate() {
        // Every other part is a value.
        if number % 2 == 0 && !part.is_empty() {
            labels.push(part.trim_matches([',', ' ', '=', '~', '!']).to_owned());
        }
    }
    labels
}

/// The labels of `by (…)` and `without (…)`.
fn grouped(expression: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for word in [" by (", " without ("] {
        for rest in expression.split(word).skip(1) {
            let (list, _) = rest.split_once(')').expect("parentheses close");
            labels.extend(list.split(',').map(|label| label.trim().to_owned()));
        }
    }
    labels
}

#[test]
fn dashboard_and_rules_ask_only_for_what_is_there() {
    let (metrics, gauges) = used();
    let shapes = shapes(&metrics.render(&gauges));
    // What Prometheus adds to each sample.
    let added = ["job", "instance", "pod", "le"];
    let (dashboard, rules) = (dashboard(), rules());
    assert!(dashboard.len() > 40 && rules.len() > 15, "all were read");
    for (place, expression) in dashboard.iter().chain(&rules) {
        let mut labels: BTreeSet<String> = added.iter().map(|label| (*label).to_owned()).collect();
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "{place} asks for nothing");
        for (name, wanted) in &selectors {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .filter(|family| shapes.contains_key(*family))
                .unwrap_or(name);
            if name == "up" {
                continue;
            }
            let shape = shapes
                .get(family)
                .unwrap_or_else(|| panic!("{place}: there is no {name}"));
            let is_histogram = shape.kind == "histogram";
            assert_eq!(is_histogram, family != name, "{place}: {name}");
            labels.extend(shape.labels.iter().cloned());
            for label in wanted {
                let is_there = shape.labels.contains(label) || added.contains(&label.as_str());
                assert!(is_there, "{place}: {name} has no label {label}");
            }
        }
        for label in grouped(expression) {
            assert!(labels.contains(&label), "{place}: no label {label}");
        }
    }
}

#[test]
fn what_etcd_has_nothing_like_is_on_the_dashboard() {
    let asked: BTreeSet<String> = dashboard()
        .iter()
        .flat_map(|(_, expression)| selectors(expression))
        .map(|(name, _)| name.trim_end_matches("_bucket").to_owned())
        .collect();
    let own: BTreeSet<String> = shown_families()
        .into_iter()
        .filter(|name| name.starts_with("quorate_"))
        .collect();
    assert_eq!(own.len(), 5);
    assert!(own.is_subset(&asked), "{own:?}");
}
