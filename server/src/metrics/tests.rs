//! The text of `/metrics` against that of real etcd, as kept in `etcd-3.7.1.txt`.

mod monitoring;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::node::Applied;

use super::*;

/// A family as its text tells: type, labels, bounds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    kind: String,
    labels: BTreeSet<String>,
    bounds: Vec<String>,
}

fn real() -> BTreeMap<String, Shape> {
    let list = |text: &str| -> Vec<String> {
        text.split(',')
            .filter(|item| *item != "-")
            .map(str::to_owned)
            .collect()
    };
    include_str!("etcd-3.7.1.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [name, kind, labels, bounds] = fields[..] else {
                panic!("{line}")
            };
            let labels = list(labels).into_iter().collect();
            (
                name.to_owned(),
                Shape {
                    kind: kind.to_owned(),
                    labels,
                    bounds: list(bounds),
                },
            )
        })
        .collect()
}

/// Reads the text as a scraper does; a line that fits no family fails.
fn shapes(text: &str) -> BTreeMap<String, Shape> {
    let mut shapes = BTreeMap::<String, Shape>::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let shape = Shape {
                kind: kind.to_owned(),
                ..Shape::default()
            };
            assert!(
                shapes.insert(name.to_owned(), shape).is_none(),
                "{name} twice"
            );
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = series
            .split_once('{')
            .map_or((series, ""), |(name, labels)| {
                (name, labels.trim_end_matches('}'))
            });
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| {
                name.strip_suffix(suffix)
                    .filter(|base| shapes.contains_key(*base))
            })
            .unwrap_or(name);
        let shape = shapes
            .get_mut(family)
            .unwrap_or_else(|| panic!("{line} has no family"));
        for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap();
            let value = value.trim_end_matches('"');
            if label != "le" {
                shape.labels.insert(label.to_owned());
            } else if !shape.bounds.iter().any(|bound| bound == value) {
                shape.bounds.push(value.to_owned());
            }
        }
    }
    shapes
}

/// Metrics of which every family has been used, so that it shows.
fn used() -> (Metrics, Gauges) {
    let member = MemberId(0x2e12_59d4_15f2_a040);
    let identity = Identity {
        member,
        gates: FeatureGates::default(),
        extensive: true,
    };
    let metrics = Metrics::new(identity);
    let core = metrics.core();
    for request_type in REQUEST_TYPES {
        core.request_done(request_type, true, Duration::from_millis(1));
    }
    core.range_done(false, Duration::from_micros(10));
    core.client_request(Some("3.7"), "unary");
    metrics.health_checked("readyz", "non_learner", true);
    metrics.health_checked("readyz", "non_learner", false);
    let link = metrics.peer(MemberId(2));
    link.round_trip.observe(Duration::from_millis(2));
    for snapshots in [&link.snapshots_sent, &link.snapshots_received] {
        snapshots.end(snapshots.begin(), true);
    }
    core.watch_broken.increment();
    core.keep_alive_broken.increment();
    metrics.work.promotion_refused("no");
    metrics.work.request_applied(
        &Applied {
            operation: "Put",
            succeeded: true,
            took: Duration::from_millis(1),
        },
        Duration::from_secs(1),
    );
    let gauges = Gauges {
        leader_changes: Some(1),
        cluster_version: Some("3.7.0".to_owned()),
        compact_revision: 1,
        keys: Some(1),
        watch_streams: Some(1),
        watchers: Some(1),
        slow_watchers: Some(1),
        members: vec![member, MemberId(2)],
        alarms: vec![(member, "NOSPACE")],
        ..Gauges::default()
    };
    (metrics, gauges)
}

/// The names of the families that a member can show.
pub(crate) fn shown_families() -> BTreeSet<String> {
    let (metrics, gauges) = used();
    shapes(&metrics.render(&gauges)).into_keys().collect()
}

#[test]
fn every_family_has_the_type_labels_and_buckets_of_etcds() {
    let real = real();
    let (metrics, gauges) = used();
    for (name, shape) in shapes(&metrics.render(&gauges)) {
        if name.starts_with("quorate_") {
            continue;
        }
        let Some(expected) = real.get(&name) else {
            panic!("etcd has no {name}")
        };
        assert_eq!(&shape, expected, "{name}");
    }
}

#[test]
fn what_the_documentation_claims_is_there_and_nothing_else() {
    let documentation = include_str!("../../../docs/compatibility.md");
    let table = documentation
        .split("## Metrics")
        .nth(1)
        .expect("there is a table of metrics");
    let claimed: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            Some((
                cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?,
                *cells.get(2)?,
            ))
        })
        .collect();
    let shown = shown_families();
    for (name, state) in &claimed {
        assert_eq!(
            *state == "there",
            shown.contains(*name),
            "{name} is said to be {state}"
        );
    }
    let real = real();
    for name in real.keys() {
        assert!(
            claimed.contains_key(name.as_str()),
            "{name} is not in the table"
        );
    }
    assert_eq!(
        claimed.len(),
        real.len(),
        "the table names metrics that etcd does not have"
    );
}

#[test]
fn grpc_methods_are_there_with_zeros_before_any_call() {
    let identity = Identity {
        member: MemberId(1),
        gates: FeatureGates::default(),
        extensive: false,
    };
    let text = Metrics::new(identity).render(&Gauges::default());
    let labels =
        "grpc_method=\"RangeStream\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"server_stream\"";
    assert!(text.contains(&format!("\ngrpc_server_started_total{{{labels}}} 0\n")));
    assert!(text.contains(&format!(
        "\ngrpc_server_handled_total{{grpc_code=\"Unavailable\",{labels}}} 0\n"
    )));
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("grpc_server_handled_total{"))
            .count(),
        45 * 17
    );
    assert!(
        !text.contains("grpc_server_handling_seconds"),
        "only with --metrics=extensive"
    );
}

#[test]
fn what_a_member_is_shows_in_its_labels() {
    let (metrics, mut gauges) = used();
    gauges.has_leader = true;
    let text = metrics.render(&gauges);
    for line in [
        "etcd_server_id{server_id=\"2e1259d415f2a040\"} 1",
        "etcd_server_version{server_version=\"3.7.1\"} 1",
        "etcd_server_has_leader 1",
        "etcd_server_feature_enabled{name=\"AllAlpha\",stage=\"ALPHA\"} 0",
        "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
        "etcd_network_known_peers{Local=\"2e1259d415f2a040\",Remote=\"2\"} 1",
        "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"2e1259d415f2a040\"} 1",
        "etcd_server_healthchecks_total{name=\"non_learner\",status=\"error\",type=\"readyz\"} 1",
        "etcd_network_peer_round_trip_time_seconds_bucket{To=\"2\",le=\"0.0032\"} 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}
