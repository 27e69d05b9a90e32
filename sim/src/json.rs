//! What runs came to, for programs: one line of JSON each.

use std::collections::BTreeMap;

use quorate_sim::plan::KINDS;
use quorate_sim::points;
use serde_json::json;

use crate::batch::Ran;
use crate::report::Summary;
use crate::subject::Subject;

/// The line of a seed.
pub(crate) fn of_seed(subject: &Subject, ran: &Ran) -> String {
    let report = &ran.report;
    let failure = report.failure.as_ref();
    let faults = KINDS.iter().filter_map(|kind| {
        let count = report.counts.get(kind)?;
        Some((*kind, *count))
    });
    let command = failure.map(|_| subject.repro(report.seed));
    let line = json!({
        "scenario": subject.scenario().map(|scenario| &scenario.name),
        "seed": report.seed,
        "verdict": if failure.is_none() { "pass" } else { "fail" },
        "checker": failure.map(|failure| &failure.checker),
        "message": failure.map(|failure| &failure.message),
        "trace_hash": report.hash.map(|hash| hash.to_string()),
        "events": report.events,
        "sim_seconds": report.simulated_ns as f64 / 1e9,
        "wall_seconds": ran.wall.as_secs_f64(),
        "faults": faults.collect::<BTreeMap<_, _>>(),
        "facts": report.facts.iter().collect::<BTreeMap<_, _>>(),
        "points": points_of(&report.counts),
        "repro": command,
    });
    line.to_string()
}

/// The line of a scenario, or of all random seeds, after all its seeds.
pub(crate) fn of_summary(subject: &Subject, summary: &Summary) -> String {
    let holds = summary.failures.is_empty() && summary.unmet.is_empty();
    let faults = summary.faults().filter(|(_, count)| *count > 0);
    let line = json!({
        "scenario": subject.scenario().map(|scenario| &scenario.name),
        "summary": true,
        "verdict": if holds { "pass" } else { "fail" },
        "seeds": summary.seeds,
        "failed": summary.failures.keys().collect::<Vec<_>>(),
        "unmet": summary.unmet,
        "events": summary.events,
        "sim_seconds": summary.simulated_ns as f64 / 1e9,
        "wall_seconds": summary.wall.as_secs_f64(),
        "core_seconds": summary.busy.as_secs_f64(),
        "faults": faults.collect::<BTreeMap<_, _>>(),
        "facts": summary.facts.iter().collect::<BTreeMap<_, _>>(),
        "points": points_of(&summary.counts),
    });
    line.to_string()
}

/// The line of a scenario that was not run.
pub(crate) fn of_skipped(name: &str, reason: &str) -> String {
    json!({"scenario": name, "verdict": "skipped", "message": reason}).to_string()
}

fn points_of(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    points::reached(counts)
        .filter(|(_, count)| *count > 0)
        .collect()
}
