//! The steps of a cluster's life.

use std::time::Duration;

use crate::fleet::filler::{fill_quota, fill_until};
use crate::fleet::network::Host;
use crate::fleet::trial::Trial;
use crate::fleet::{Fleet, Server, api};
use crate::patience::{until, until_by_attempts};

/// Entries after which etcd drops what is old from its log, and how many it keeps for followers.
pub(super) const SNAPSHOT_COUNT: u64 = 500;
pub(super) const CATCHUP_ENTRIES: u64 = 100;
/// etcd drops entries so many at a time.
const DROPPED_TOGETHER: u64 = 100;
/// A member that is not part of a majority does not answer a linearizable read within this time.
const SILENCE: Duration = Duration::from_secs(2);

/// Members join as learners and are promoted.
pub(super) async fn grow(trial: &mut Trial, server: &Server, members: u8) -> Result<(), String> {
    for size in 2..=members {
        trial
            .step(&format!("grow to {size}"), async |trial| {
                trial.fleet.join(server).await
            })
            .await?;
    }
    Ok(())
}

/// Every member is removed, and a new one with an empty disk takes its place. The first one leads, the others do not.
pub(super) async fn replace_all(trial: &mut Trial, server: &Server) -> Result<(), String> {
    for (place, name) in trial.fleet.names().into_iter().enumerate() {
        let is_leader = place == 0;
        let last = trial.fleet.names().pop().expect("there are members");
        trial
            .fleet
            .make_leader(if is_leader { &name } else { &last })
            .await?;
        trial.forget_pauses().await?;
        let role = if is_leader {
            "the leader"
        } else {
            "a follower"
        };
        trial
            .step(&format!("replace {name}, {role}"), async |trial| {
                trial.fleet.remove(&name).await?;
                trial.fleet.join(server).await
            })
            .await?;
    }
    Ok(())
}

/// A member's disk is gone with everything on it.
pub(super) async fn lose_a_disk(trial: &mut Trial, server: &Server) -> Result<(), String> {
    let leader = trial.fleet.leader().await?;
    trial
        .step("lost disk of the leader, replaced", async |trial| {
            trial.fleet.lose_disk(&leader)?;
            trial.fleet.remove(&leader).await?;
            trial.fleet.join(server).await
        })
        .await
}

/// One member after the other is stopped and started.
pub(super) async fn restart_all(trial: &mut Trial) -> Result<(), String> {
    for name in trial.fleet.names() {
        trial
            .step(&format!("rolling restart: {name}"), async |trial| {
                trial.fleet.stop(&name).await?;
                trial.fleet.start(&name).await
            })
            .await?;
    }
    Ok(())
}

/// How a follower is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    Stopped,
    CutOff,
}

/// A follower is away until the others' logs do not reach back to what it has; it must get a snapshot.
pub(super) async fn miss_the_log(trial: &mut Trial, absence: Absence) -> Result<(), String> {
    let follower = trial.fleet.follower().await?;
    let name = match absence {
        Absence::Stopped => "follower stopped until it needs a snapshot",
        Absence::CutOff => "follower cut off until it needs a snapshot",
    };
    trial
        .step(name, async |trial| {
            let place = trial.fleet.place(&follower);
            let snapshots = trial.fleet.member(&follower).snapshots_received();
            match absence {
                Absence::Stopped => trial.fleet.stop(&follower).await?,
                Absence::CutOff => {
                    trial.fleet.leave(place, true);
                    let lost = trial.fleet.member(&follower).peers_lost();
                    isolate(&trial.fleet, &follower, &Way::BOTH)?;
                    // Until it has given the connections up, what is sent now could still reach it afterwards.
                    let others = others(&trial.fleet, &follower).len();
                    let what = format!("{follower} has lost all others");
                    until(&what, async || {
                        let gone = trial.fleet.member(&follower).peers_lost() - lost;
                        let missing = || format!("{gone} of {others}");
                        (gone >= others).then_some(()).ok_or_else(missing)
                    })
                    .await?;
                }
            }
            let index = commit_index(&trial.fleet).await?;
            let what = format!("{follower} needs a snapshot");
            let is_enough = async |fleet: &Fleet| is_log_gone(fleet, index).await;
            fill_until(&trial.fleet, &mut trial.tail, &what, is_enough).await?;
            match absence {
                Absence::Stopped => trial.fleet.start(&follower).await?,
                Absence::CutOff => {
                    mend(&trial.fleet, &follower, &Way::BOTH)?;
                    trial.fleet.leave(place, false);
                    trial.fleet.wait_until_all_serve().await?;
                }
            }
            if trial.fleet.member(&follower).snapshots_received() == snapshots {
                return Err(format!("{follower} is back without a snapshot"));
            }
            Ok(())
        })
        .await
}

/// An index that nobody who is away can have passed.
async fn commit_index(fleet: &Fleet) -> Result<u64, String> {
    let urls = fleet.urls();
    // What was on its way to the one that left comes before this in the log.
    let put = async || api::put(&urls[0], "filler", b"small").await;
    until("a value is written", put).await?;
    let status = async || api::status(&urls[0]).await;
    Ok(until("a member tells its status", status).await?.raft_index)
}

/// Whether no member that is there can tell a follower what comes after an index.
async fn is_log_gone(fleet: &Fleet, index: u64) -> Result<bool, String> {
    let urls = fleet.urls();
    for member in fleet.members() {
        if !urls.contains(&member.client_url) {
            continue;
        }
        // etcd serves followers from memory, others from the log's files.
        let is_gone = if member.server().name.contains("etcd") {
            let what = format!("{} tells its status", member.name);
            let status = until(&what, async || api::status(&member.client_url).await).await?;
            let kept = SNAPSHOT_COUNT + CATCHUP_ENTRIES + 2 * DROPPED_TOGETHER;
            status.raft_applied_index > index + kept
        } else {
            member.log_begins()? > index
        };
        if !is_gone {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which ways between a member and the others are concerned.
struct Way {
    from_it: bool,
    to_it: bool,
}

impl Way {
    const BOTH: Self = Self {
        from_it: true,
        to_it: true,
    };
    const FROM: Self = Self {
        from_it: true,
        to_it: false,
    };
    const TO: Self = Self {
        from_it: false,
        to_it: true,
    };
}

/// Real cuts: nobody reaches the leader and it reaches nobody, only one of both, and a bridge between two halves.
pub(super) async fn cut(trial: &mut Trial) -> Result<(), String> {
    for (name, way) in [
        ("leader cut off", Way::BOTH),
        ("leader not heard by others", Way::FROM),
        ("leader hears no others", Way::TO),
    ] {
        let leader = trial.fleet.leader().await?;
        trial
            .step(name, async |trial| {
                let place = trial.fleet.place(&leader);
                isolate(&trial.fleet, &leader, &way)?;
                trial.fleet.leave(place, true);
                // Leaders differ only by what has been cut: this waits for its effect.
                trial.fleet.leader().await?;
                api::revision(&trial.fleet.urls()).await?;
                must_be_silent(trial, &leader).await?;
                mend(&trial.fleet, &leader, &way)?;
                trial.fleet.leave(place, false);
                Ok(())
            })
            .await?;
    }
    trial.step("halves that one member joins", halves).await
}

/// Two halves that only one follower belongs to both of. The leader's half goes on.
async fn halves(trial: &mut Trial) -> Result<(), String> {
    let leader = trial.fleet.leader().await?;
    let mut others = trial.fleet.names();
    others.retain(|name| *name != leader);
    let far = others.split_off(others.len() - (others.len() / 2));
    others.pop();
    others.push(leader);
    for_pairs(&trial.fleet, &others, &far, |near, far| {
        near.cut_way_to(far)?;
        far.cut_way_to(near)
    })?;
    for name in &far {
        let place = trial.fleet.place(name);
        trial.fleet.leave(place, true);
    }
    for name in &far {
        must_be_silent(trial, name).await?;
    }
    api::revision(&trial.fleet.urls()).await?;
    for_pairs(&trial.fleet, &others, &far, |near, far| {
        near.mend_way_to(far)?;
        far.mend_way_to(near)
    })?;
    for name in &far {
        let place = trial.fleet.place(name);
        trial.fleet.leave(place, false);
    }
    Ok(())
}

/// Waits until a member answers no linearizable read any more: the cut works.
async fn must_be_silent(trial: &Trial, name: &str) -> Result<(), String> {
    let member = trial.fleet.member(name);
    let what = format!("{name} answers no linearizable read");
    until_by_attempts(&what, 2 * SILENCE, async || {
        let read = tokio::time::timeout(SILENCE, api::read(&member.client_url)).await;
        match read {
            Ok(Ok(revision)) => Err(format!("it has answered, at revision {revision}")),
            _ => Ok(()),
        }
    })
    .await
}

/// Cuts a member off from all others.
fn isolate(fleet: &Fleet, name: &str, way: &Way) -> Result<(), String> {
    let others = others(fleet, name);
    for_pairs(fleet, &[name.to_string()], &others, |own, other| {
        if way.from_it {
            own.cut_way_to(other)?;
        }
        if way.to_it {
            other.cut_way_to(own)?;
        }
        Ok(())
    })
}

/// Undoes [`isolate`].
fn mend(fleet: &Fleet, name: &str, way: &Way) -> Result<(), String> {
    let others = others(fleet, name);
    for_pairs(fleet, &[name.to_string()], &others, |own, other| {
        if way.from_it {
            own.mend_way_to(other)?;
        }
        if way.to_it {
            other.mend_way_to(own)?;
        }
        Ok(())
    })
}

fn others(fleet: &Fleet, name: &str) -> Vec<String> {
    let mut others = fleet.names();
    others.retain(|other| other != name);
    others
}

fn for_pairs(
    fleet: &Fleet,
    left: &[String],
    right: &[String],
    act: impl Fn(&Host, &Host) -> Result<(), String>,
) -> Result<(), String> {
    let host = |name: &str| {
        let host = fleet.member(name).host();
        host.expect("cuts are made between namespaces").clone()
    };
    for left in left {
        for right in right {
            act(&host(left), &host(right))?;
        }
    }
    Ok(())
}

/// Values are written until the quota refuses them; then the operator makes room.
pub(super) async fn reach_the_quota(trial: &mut Trial) -> Result<(), String> {
    trial
        .step("quota reached, and room made", async |trial| {
            let fleet = &trial.fleet;
            fill_quota(fleet).await?;
            let urls = fleet.urls();
            let raised = until("the alarm is raised", async || {
                let alarms = api::alarms(&urls).await?;
                if alarms.is_empty() {
                    return Err("there is no alarm".to_string());
                }
                Ok(alarms)
            })
            .await?;
            let refused = api::put(&urls[0], "filler", b"small").await;
            if refused.is_ok() {
                return Err(format!("a write is taken in spite of {raised:?}"));
            }
            let revision = api::revision(&urls).await?;
            trial.tail.reach(revision).await?;
            api::compact(&urls, revision).await?;
            for url in &urls {
                api::defragment(url).await?;
            }
            // A member that reached its quota later has raised an alarm of its own meanwhile.
            until("a value is written again", async || {
                for alarm in api::alarms(&urls).await? {
                    api::disarm(&urls, alarm).await?;
                }
                api::put(&urls[0], "filler", b"small").await
            })
            .await?;
            Ok(())
        })
        .await
}

/// Members are removed until one is left, leaders too.
pub(super) async fn shrink(trial: &mut Trial) -> Result<(), String> {
    while trial.fleet.names().len() > 1 {
        let size = trial.fleet.names().len() - 1;
        let (leaving, role) = if size.is_multiple_of(2) {
            (trial.fleet.leader().await?, "the leader")
        } else {
            (trial.fleet.follower().await?, "a follower")
        };
        trial
            .step(&format!("shrink to {size}: {role} leaves"), async |trial| {
                trial.fleet.remove(&leaving).await
            })
            .await?;
    }
    Ok(())
}
