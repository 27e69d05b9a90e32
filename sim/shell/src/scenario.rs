//! Scenario files in this tier: what of them it can do, and why it leaves out the rest.
//!
//! The files, their reading and what a seed makes of them are `quorate_sim::scenario`'s. Here that is translated: clients
//! are those of this tier (the client library chooses the member, so a load's `target` says nothing; locks and the like are
//! not built here), TCP neither loses nor reorders, cut links hold back what is on them, all clocks are one, and of the
//! members' state nobody knows more than who leads. What cannot be translated is a reason to skip the file.

use std::time::Duration;

use quorate_server::simulated::Tuning;
use quorate_sim::load::{Group, WatchStart, Work};
use quorate_sim::options::Options as Wanted;
use quorate_sim::plan::{Fault, Field, Kind, Shape, Trigger};
use quorate_sim::scenario::Scenario;

use crate::options::{Mix, Options};

/// Clients of one kind, at most.
const CLIENTS_MAX: usize = 19;

/// The options of a seed, or why this tier does not run it.
pub fn options(scenario: &Scenario, seed: u64) -> Result<Options, String> {
    if let Some(reason) = &scenario.skipped_in_shell {
        return Err(reason.clone());
    }
    let wanted = scenario.options(seed);
    check_world(&wanted)?;
    wanted.plan.iter().try_for_each(check_fault)?;
    let mut options = Options::draw(seed);
    options.members = wanted.members as usize;
    options.heartbeat = wanted.tick;
    options.election_ticks = wanted.election_ticks;
    options.tuning = Tuning {
        segment_bytes: wanted.storage.segment_bytes,
        checkpoint_bytes_min: wanted.storage.checkpoint_bytes_min,
        log_bytes_in_memory_max: wanted.storage.log_bytes_in_memory_max,
    };
    options.safety = Duration::from_nanos(wanted.safety_ns);
    let delay = Duration::from_nanos(wanted.network.delay_ns);
    options.delay = (delay / 2, delay * 2);
    options.sync = Duration::from_nanos(wanted.disk.sync_ns);
    options.torn_ppm = wanted.disk.torn_ppm;
    options.fault_every = None;
    options.plan = wanted.plan;
    options.final_blackout = wanted.final_power_loss;
    options.callers.clear();
    (options.tenants, options.watchers) = (0, 0);
    for group in &wanted.load.groups {
        add_group(&mut options, group)?;
    }
    if options.callers.is_empty() {
        return Err("nobody writes or reads".to_owned());
    }
    if options.callers.len() > CLIENTS_MAX {
        return Err(format!("at most {CLIENTS_MAX} clients read and write here"));
    }
    Ok(options)
}

fn check_world(wanted: &Wanted) -> Result<(), String> {
    let network = &wanted.network;
    let ills = [
        (network.loss_ppm > 0, "TCP does not lose messages"),
        (network.repeat_ppm > 0, "TCP does not repeat messages"),
        (network.overtake_ppm > 0, "TCP keeps the order of messages"),
        (network.bandwidth > 0, "bandwidth is not limited here"),
        (
            network.queue_max != u32::MAX,
            "queues are those of the server here",
        ),
        (
            wanted.clocks.rate_ppm > 0 || wanted.clocks.forget,
            "there is one clock here",
        ),
        (wanted.disk.stall_ppm > 0, "single syncs do not stall here"),
        (wanted.core_first, "everything heals at once here"),
        (
            !wanted.pre_vote,
            "members always ask before they campaign here",
        ),
    ];
    match ills.iter().find(|(is_wanted, _)| *is_wanted) {
        Some((_, reason)) => Err((*reason).to_owned()),
        None => Ok(()),
    }
}

fn check_fault(fault: &Fault) -> Result<(), String> {
    let name = &fault.name;
    let is_known = match &fault.kind {
        Kind::Crash
        | Kind::PowerLoss
        | Kind::PowerLossAll
        | Kind::RollingRestart
        | Kind::Fuse(_)
        | Kind::FailedSync
        | Kind::SlowDisk(_)
        | Kind::Pause
        | Kind::Reset => true,
        Kind::Partition(shape, _) => !matches!(shape, Shape::Bridge | Shape::Shatter),
        _ => false,
    };
    if !is_known {
        return Err(format!(
            "the fault {name} does not exist here: {:?}",
            fault.kind
        ));
    }
    if matches!(fault.until, Trigger::When { .. }) {
        return Err(format!(
            "the end of {name} waits for something that is not seen here"
        ));
    }
    let Trigger::When { predicate, .. } = &fault.from else {
        return Ok(());
    };
    let is_seen = predicate.comparisons.iter().all(|comparison| {
        let shown = [comparison.left.shown, comparison.right.shown];
        let mut shown = shown.into_iter().flatten();
        shown.all(|(_, field)| matches!(field, Field::Begun | Field::Over))
    });
    match is_seen {
        true => Ok(()),
        false => Err(format!("{name} waits for something that is not seen here")),
    }
}

fn add_group(options: &mut Options, group: &Group) -> Result<(), String> {
    let think = Duration::from_nanos(group.think_ns);
    let nothing = Mix {
        put: 0,
        delete: 0,
        txn: 0,
        range: 0,
        think,
    };
    let mix = match &group.work {
        Work::Mixed { .. } => Mix::usual(think),
        Work::Put => Mix {
            put: 100,
            ..nothing
        },
        Work::Delete => Mix {
            delete: 100,
            ..nothing
        },
        Work::Txn | Work::Swap => Mix {
            txn: 100,
            ..nothing
        },
        Work::Get { .. } | Work::Range { .. } => Mix {
            range: 100,
            ..nothing
        },
        Work::Register => Mix {
            put: 30,
            range: 35,
            txn: 25,
            delete: 10,
            ..nothing
        },
        Work::Compaction { .. } => nothing,
        Work::Lease(session) => {
            options.tenants += group.clients;
            options.lease_ttl_max = session.ttl_max;
            return Ok(());
        }
        Work::Watch(watch) if matches!(watch.start, None | Some(WatchStart::Beginning)) => {
            options.watchers += group.clients;
            return Ok(());
        }
        Work::Watch(_) => return Err("watches begin at the first revision here".to_owned()),
        other => return Err(format!("the load {} does not exist here", other.name())),
    };
    options.keys = group.keys;
    options.value_bytes_max = group.value_bytes_max.max(1);
    let callers = (0..group.clients).map(|_| mix);
    options.callers.extend(callers);
    Ok(())
}
