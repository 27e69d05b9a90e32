//! What a seed makes of a scenario, for people: the concrete schedule.

use std::fmt::Write as _;
use std::time::Duration;

use quorate_sim::load::{Group, Work};
use quorate_sim::options::Options;
use quorate_sim::plan::{Fault, Target, Trigger};

use crate::subject::Subject;

/// The schedule of a seed.
pub(crate) fn explain(subject: &Subject, seed: u64) -> String {
    let concrete = subject.concrete(seed);
    let mut text = format!("{}, seed {seed}\n", subject.name());
    let options = &concrete.options;
    for (name, line) in settings(options) {
        writeln!(text, "  {name:<9} {line}").expect("a string takes everything");
    }
    for group in &options.load.groups {
        writeln!(text, "  load      {}", load(group)).expect("a string takes everything");
    }
    let mut by_time: Vec<_> = options.plan.iter().enumerate().collect();
    by_time.sort_by_key(|(_, fault)| fault.from.latest_ns());
    for (place, fault) in by_time {
        let line = fault_line(fault, &options.plan);
        writeln!(text, "  fault {place:>3} {line}").expect("a string takes everything");
    }
    for id in &concrete.absent {
        writeln!(text, "  absent    {id}: not in this seed").expect("a string takes everything");
    }
    text
}

fn settings(options: &Options) -> [(&'static str, String); 6] {
    let ns = Duration::from_nanos;
    let ppm = |share: u32| format!("{} %", f64::from(share) / 10_000.0);
    let yes = |is: bool, text: &str| {
        if is {
            format!(", {text}")
        } else {
            String::new()
        }
    };
    let Options {
        storage,
        disk,
        network,
        ..
    } = options;
    let limit = |number: u64, unit: &str, none: bool| match none {
        true => "no limit".to_owned(),
        false => format!("{number} {unit}"),
    };
    let cluster = format!(
        "{} members, tick {:?}, election after {} ticks{}, requests wait {:?}",
        options.members,
        options.tick,
        options.election_ticks,
        yes(options.pre_vote, "asks before campaigning"),
        options.request_timeout,
    );
    let time = format!(
        "load and faults for {:?}, a machine is off for about {:?}{}{}",
        ns(options.safety_ns),
        ns(options.restart_ns),
        yes(options.core_first, "then a core heals alone"),
        yes(options.final_power_loss, "in the end all lose power"),
    );
    let storage = format!(
        "checkpoint after {} B, {} B of log in memory, {} B of it in a message, segments of {} B{}, a turn within {:?}",
        storage.checkpoint_bytes_min,
        storage.log_bytes_in_memory_max,
        storage.append_bytes_max,
        storage.segment_bytes,
        yes(storage.prepares_segments, "prepared ahead"),
        ns(storage.turn_ns),
    );
    let disk = format!(
        "write {:?}, sync {:?}, {} stall, {} torn",
        ns(disk.write_ns),
        ns(disk.sync_ns),
        ppm(disk.stall_ppm),
        ppm(disk.torn_ppm),
    );
    let links = format!(
        "delay {:?}, {} lost, {} repeated, {} overtaken, {}, queue {}{}",
        ns(network.delay_ns),
        ppm(network.loss_ppm),
        ppm(network.repeat_ppm),
        ppm(network.overtake_ppm),
        limit(network.bandwidth, "B/s", network.bandwidth == 0),
        limit(
            u64::from(network.queue_max),
            "messages",
            network.queue_max == u32::MAX
        ),
        yes(network.hold, "cuts hold messages back"),
    );
    let deviation = options.clocks.rate_ppm as f64 / 10_000.0;
    [
        ("cluster", cluster),
        ("time", time),
        ("storage", storage),
        ("disk", disk),
        ("network", links),
        (
            "clocks",
            format!(
                "rates off by at most {deviation} %{}",
                yes(
                    options.clocks.forget,
                    "every process starts at the same wall clock time"
                ),
            ),
        ),
    ]
}

fn load(group: &Group) -> String {
    let pace = Duration::from_nanos(group.think_ns);
    let details = match &group.work {
        Work::Mixed { .. }
        | Work::Lease(_)
        | Work::Lock(_)
        | Work::Election(_)
        | Work::Watch(_)
        | Work::Compaction { .. } => format!("; {:?}", group.work),
        _ => String::new(),
    };
    format!(
        "{:<18} {} clients at {:?}, {} keys, values to {} B, every {pace:?}{details}",
        group.work.name(),
        group.clients,
        group.target,
        group.keys,
        group.value_bytes_max,
    )
}

fn fault_line(fault: &Fault, plan: &[Fault]) -> String {
    let target = match fault.target {
        Target::SameAs(other) => format!("the target of {}", plan[other].name),
        Target::NotSameAs(other) => format!("another one than the target of {}", plan[other].name),
        Target::Member(number) => format!("m{number}"),
        Target::Any => "any member".to_owned(),
        Target::Leader => "the leader".to_owned(),
        Target::Follower => "a follower".to_owned(),
    };
    let from = moment(&fault.from, "at");
    let mut line = format!("{:<22} {from} {:?} of {target}", fault.name, fault.kind);
    if !fault.kind.is_momentary() {
        write!(line, ", {}", moment(&fault.until, "for")).expect("a string takes everything");
    }
    line
}

fn moment(trigger: &Trigger, word: &str) -> String {
    let seconds = |at_ns: u64| format!("{:.3} s", at_ns as f64 / 1e9);
    match trigger {
        Trigger::At(at_ns) => format!("{word} {}", seconds(*at_ns)),
        Trigger::When {
            predicate,
            at_most_ns,
        } => {
            let word = if word == "at" { "when" } else { "until" };
            let is_limited = *at_most_ns < 24 * 3600 * 1_000_000_000;
            let limit = match is_limited {
                true => format!(" (or {})", seconds(*at_most_ns)),
                false => String::new(),
            };
            format!("{word} {}{limit}", predicate.text)
        }
    }
}
