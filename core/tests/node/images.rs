//! What a node gives for backups.

use bytes::Bytes;
use quorate_core::boundary::{Request, Response};
use quorate_core::checkpoint::{self, DATABASE, SharedJob};
use quorate_core::disk::{Disk as _, DiskFile as _};

use super::cluster::Cluster;

fn image(cluster: &mut Cluster, ticket: u64) -> SharedJob {
    match cluster.answer(ticket) {
        Ok(Response::Image(job)) => job,
        other => panic!("no image: {other:?}"),
    }
}

/// All of it in the order in which it is sent.
fn streamed(job: &SharedJob) -> Bytes {
    let outline = job.outline().expect("the rows are pinned");
    let mut image = Vec::new();
    let sent = job.stream(&outline, |bytes| {
        image.extend_from_slice(bytes);
        Ok(())
    });
    sent.expect("the rows are pinned");
    assert_eq!(image.len() as u64, outline.bytes);
    image.into()
}

fn rows(image: Bytes) -> usize {
    checkpoint::load(image).expect("whole").rows.count()
}

#[test]
fn a_backup_is_what_a_checkpoint_would_be_whatever_is_written_meanwhile() {
    let mut cluster = Cluster::new(1);
    for number in 0..3000 {
        let ticket = cluster.put(1, &format!("key{number}"), "before");
        cluster.answer(ticket).unwrap();
    }
    let ticket = cluster.request(1, |_| Request::Checkpoint);
    cluster.answer(ticket).unwrap();
    let ticket = cluster.request(1, |_| Request::Image);
    let job = image(&mut cluster, ticket);
    let ticket = cluster.put(1, "key", "after");
    cluster.answer(ticket).unwrap();
    let mut files = cluster.disks[&1].files.clone();
    let written = files.open(DATABASE).unwrap().read().unwrap();
    assert!(streamed(&job) == written);
}

#[test]
fn a_backup_waits_for_a_compaction_and_holds_off_the_next() {
    let mut cluster = Cluster::new(1);
    for number in 0..5000 {
        let ticket = cluster.put(1, "key", &number.to_string());
        cluster.answer(ticket).unwrap();
    }
    let ticket = cluster.compact(1, 4500, false);
    cluster.answer(ticket).unwrap();
    let ticket = cluster.request(1, |_| Request::Image);
    let job = image(&mut cluster, ticket);
    let kept = rows(streamed(&job));
    assert!(kept < 600, "{kept} rows: none that is compacted");
    let ticket = cluster.compact(1, 5000, false);
    cluster.answer(ticket).unwrap();
    let next = cluster.request(1, |_| Request::Image);
    for _ in 0..20 {
        cluster.step();
    }
    assert_eq!(rows(streamed(&job)), kept, "they are held");
    assert!(!cluster.answers.contains_key(&next));
    drop(job);
    let job = image(&mut cluster, next);
    assert!(rows(streamed(&job)) < 10);
}
