//! The judgement: members agree, nothing that was acknowledged is lost, and what clients saw is linearizable.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb as pb;
use quorate_sim::history::{Compared, Fault, History, Operation, Step, write_line};
use tonic::transport::Channel;

use super::load::{self, Shared};
use super::{Tail, Written, rows, watch_from};
use crate::patience::{PATIENCE, until};

/// Compares members with each other and with the log that was kept meanwhile, and has the history judged. All clients
/// have ended. Without a log the members must still know everything.
pub(crate) async fn judge(
    urls: &[String],
    shared: &Shared,
    tail: Option<&mut Tail>,
    file: Option<&Path>,
) -> Result<String, String> {
    // What each member shows in the end is part of the history, and so is a last write, up to which they are compared.
    let mut revision = 0;
    for url in urls {
        let mut member = load::connect(url)?;
        if revision == 0 {
            let end = load::write_end(shared, &mut member).await;
            let end = end.map_err(|status| format!("{url}: {status}"))?;
            revision = end.answer.as_ref().map_or(0, |answer| answer.revision);
            shared.history.lock().expect("no panic").push(end);
        }
        let all = load::read_all(shared, &mut member).await;
        let all = all.map_err(|status| format!("{url}: {status}"))?;
        shared.history.lock().expect("no panic").push(all);
    }
    let agreed = agree(urls, revision).await?;
    let log = match tail {
        Some(tail) => {
            tail.reach(revision).await?;
            tail.written_until(revision)
        }
        None => written(&urls[0], agreed.compacted.max(0) + 1, revision).await?,
    };
    for url in urls {
        let known = written(url, agreed.compacted.max(0) + 1, revision).await?;
        let wanted = log.iter().filter(|(at, ..)| *at > agreed.compacted);
        if !known.iter().eq(wanted) {
            return Err(format!("{url} has written something else than others"));
        }
    }
    let history = History(std::mem::take(
        &mut *shared.history.lock().expect("no panic"),
    ));
    if let Some(file) = file {
        let lines: String = history
            .0
            .iter()
            .map(|operation| write_line(operation) + "\n")
            .collect();
        std::fs::write(file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    check_log(&history.0, &log)?;
    let verdict = judge_history(&history)?;
    Ok(format!(
        "{verdict}; {} members agree at revision {revision}, HashKV {:08x}",
        urls.len(),
        agreed.hash
    ))
}

fn judge_history(history: &History) -> Result<String, String> {
    let began = Instant::now();
    let Compared {
        writes,
        reads,
        unknown,
        unknown_seen,
        ..
    } = history.judge().map_err(|fault| match fault {
        Fault::Violation { operation, .. } => format!("{fault}\n  {:?}", history.0[operation]),
        fault => fault.to_string(),
    })?;
    if writes == 0 || reads == 0 {
        return Err("nothing was compared".into());
    }
    Ok(format!(
        "linearizable: {} operations ({writes} writes and {reads} reads answered, {unknown} writes unknown of which \
         {unknown_seen} were seen), judged in {:.1?}",
        history.0.len(),
        began.elapsed()
    ))
}

/// What members agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) hash: u32,
    /// Revisions up to here are gone.
    pub(crate) compacted: i64,
}

/// Waits until all members have a revision, and have compacted alike; then their hashes must be equal.
pub(crate) async fn agree(urls: &[String], revision: i64) -> Result<Agreed, String> {
    let what = format!("HashKV of all members at revision {revision}");
    let all = until(&what, async || {
        let mut all = Vec::new();
        for url in urls {
            let at = hash(url, revision).await;
            all.push(at.map_err(|error| format!("{url}: {error}"))?);
        }
        let compacted = all[0].compacted;
        if all.iter().any(|one| one.compacted != compacted) {
            return Err(format!("compacted to different revisions: {all:?}"));
        }
        Ok(all)
    })
    .await?;
    if all.iter().any(|one| one.hash != all[0].hash) {
        return Err(format!(
            "HashKV at revision {revision} differs: {:?}",
            urls.iter().zip(&all).collect::<Vec<_>>()
        ));
    }
    Ok(all[0])
}

/// What the judge cannot know, since it sees no log: each value was written once at most, and an answered put where it was said.
fn check_log(history: &[Operation], log: &Written) -> Result<(), String> {
    let puts = log.iter().filter(|(_, _, value)| !value.is_empty());
    let mut at: BTreeMap<&str, i64> = BTreeMap::new();
    for (revision, _, value) in puts {
        if let Some(first) = at.insert(value, *revision) {
            return Err(format!(
                "{value} was written at revision {first} and again at {revision}"
            ));
        }
    }
    for operation in history {
        let (Step::Put { value, .. }, Some(answer)) = (&operation.success[0], &operation.answer)
        else {
            continue;
        };
        let wanted = answer.succeeded.then_some(answer.revision);
        let found = at.get(value.as_str()).copied();
        if found != wanted {
            return Err(format!("the log has it at {found:?}:\n  {operation:?}"));
        }
    }
    Ok(())
}

/// What a member's watch shows between two revisions, both included; something was written at the last one.
async fn written(url: &str, from: i64, until: i64) -> Result<Written, String> {
    let mut client: WatchClient<Channel> = WatchClient::connect(url.to_string())
        .await
        .map_err(|error| error.to_string())?;
    let requests = tokio_stream::StreamExt::chain(
        tokio_stream::once(watch_from(from)),
        tokio_stream::pending(),
    );
    let fail = |status: tonic::Status| format!("{url}: {status}");
    let mut stream = client.watch(requests).await.map_err(fail)?.into_inner();
    let mut written = Written::new();
    while written.last().is_none_or(|(last, ..)| *last < until) {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await;
        let response = next
            .map_err(|_| format!("{url}: no events up to revision {until}"))?
            .map_err(fail)?;
        let response = response.ok_or("the watch ended")?;
        if response.canceled {
            return Err(format!("{url}: {}", response.cancel_reason));
        }
        written.extend(rows(response.events));
    }
    written.retain(|(at, ..)| *at <= until);
    Ok(written)
}

async fn hash(url: &str, revision: i64) -> Result<Agreed, String> {
    let mut client = MaintenanceClient::connect(url.to_string())
        .await
        .map_err(|error| error.to_string())?;
    let response = client
        .hash_kv(pb::HashKvRequest { revision })
        .await
        .map_err(|status| status.to_string())?
        .into_inner();
    Ok(Agreed {
        hash: response.hash,
        compacted: response.compact_revision,
    })
}

#[cfg(test)]
mod tests {
    use quorate_sim::history::Found;

    use super::*;

    fn put(value: &str, revision: i64) -> Operation {
        Operation::put(0, 0, "k", value).answered(1, revision, vec![Found::Put])
    }

    fn log(values: &[(i64, &str)]) -> Written {
        let row = |(revision, value): &(i64, &str)| (*revision, "k".into(), (*value).into());
        values.iter().map(row).collect()
    }

    #[test]
    fn lost_doubled_and_refused_writes_are_found_in_the_log() {
        let sound = log(&[(2, "a"), (3, ""), (4, "")]);
        check_log(&[put("a", 2)], &sound).unwrap();
        assert!(check_log(&[put("b", 3)], &sound).is_err());
        assert!(check_log(&[put("a", 3)], &sound).is_err());
        assert!(check_log(&[], &log(&[(2, "a"), (3, "a")])).is_err());
        let mut refused = put("a", 2);
        refused.answer.as_mut().unwrap().succeeded = false;
        assert!(check_log(&[refused], &sound).is_err());
    }
}
