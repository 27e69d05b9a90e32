//! The embedded cluster: what a test of a user relies on.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use quorate_core::RequestError;
use quorate_sim::embedded::{Client, Cluster, Error, Options};

const SECOND: Duration = Duration::from_secs(1);

fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, Options::default());
    assert!(cluster.run_until(30 * SECOND, |cluster| cluster.leader().is_some()));
    cluster
}

#[test]
fn what_was_acknowledged_survives_the_power_loss_of_all() {
    for seed in 0..10 {
        let mut cluster = cluster(seed);
        let client = cluster.client();
        let put = cluster.block_on(async move {
            for number in 0..50 {
                client.put(format!("k{number}"), vec![b'v'; 4000]).await?;
            }
            Ok::<_, Error>(())
        });
        put.expect("a healthy cluster");
        for member in 0..3 {
            cluster.lose_power(member);
        }
        for member in 0..3 {
            cluster.restart(member);
        }
        let client = cluster.client();
        let kept = cluster.block_on(async move {
            for number in 0..50 {
                if client.get(format!("k{number}")).await?.is_none() {
                    return Ok(false);
                }
            }
            Ok::<_, Error>(true)
        });
        assert_eq!(kept, Ok(true), "seed {seed}");
    }
}

#[test]
fn a_minority_serves_nothing_and_a_majority_everything() {
    let mut cluster = cluster(1);
    let leader = cluster.leader().expect("there is one");
    cluster.partition(&[leader]);
    let moved = cluster.run_until(60 * SECOND, |cluster| {
        cluster.leader().is_some_and(|other| other != leader)
    });
    assert!(moved, "the others elect one of their own");
    let client = cluster.client();
    let written = cluster.block_on(async move {
        // Whichever member it asks first, one of the majority takes it in the end.
        let mut written = client.put("k", "v").await;
        while written.is_err() {
            written = client.put("k", "v").await;
        }
        written
    });
    assert!(written.is_ok());
    cluster.heal();
    let client = cluster.client();
    assert!(
        cluster
            .block_on(async move { client.get("k").await })
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_watch_tells_everything_once_over_crashes() {
    for seed in 0..10 {
        let mut cluster = cluster(seed);
        let (writer, reader) = (cluster.client(), cluster.client());
        let heard = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&heard);
        cluster.spawn(async move {
            let mut watch = reader.watch("k", "l", 1);
            loop {
                let event = watch.next().await;
                told.borrow_mut()
                    .push(event.kv.expect("a put").mod_revision);
            }
        });
        cluster.crash_now_and_then(SECOND);
        let last = cluster.block_on(async move {
            let mut last = 0;
            for number in 0..60 {
                if let Ok(revision) = writer.put(format!("k{number}"), "v").await {
                    last = revision;
                }
                writer.sleep(Duration::from_millis(50)).await;
            }
            last
        });
        let end = cluster.now() + 60 * SECOND;
        let all = cluster.run_until(end, |_| heard.borrow().last() >= Some(&last));
        assert!(all, "seed {seed}: heard {:?}, last {last}", heard.borrow());
        let heard = heard.borrow();
        assert!(
            heard.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "seed {seed}: {heard:?}"
        );
    }
}

#[test]
fn a_lease_that_nobody_renews_ends() {
    let mut cluster = cluster(3);
    let client = cluster.client();
    let (there, gone) = cluster.block_on(async move {
        client.grant(7, 3).await.expect("a healthy cluster");
        client
            .put_on_lease("k", "v", 7)
            .await
            .expect("a healthy cluster");
        client.sleep(2 * SECOND).await;
        let there = client.get("k").await.expect("a healthy cluster");
        client.sleep(10 * SECOND).await;
        (there, client.get("k").await.expect("a healthy cluster"))
    });
    assert!(there.is_some() && gone.is_none());
}

#[test]
fn a_seed_always_takes_the_same_way() {
    let way = |seed| {
        let mut cluster = cluster(seed);
        cluster.crash_now_and_then(SECOND);
        let client = cluster.client();
        cluster.block_on(async move {
            let mut way = Vec::new();
            for number in 0..40 {
                let written = client.put("k", number.to_string()).await;
                way.push((written, client.now()));
            }
            way
        })
    };
    assert_eq!(way(5), way(5));
    assert_ne!(way(5), way(6));
}

/// Tries a change of the members until it has happened. One of which nothing is known is tried again, and then found
/// to have happened.
async fn insist<F>(client: &Client, happened: &[RequestError], change: impl Fn() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    loop {
        match change().await {
            Ok(()) => return,
            Err(Error::Refused(refusal)) if happened.contains(&refusal) => return,
            Err(_) => client.sleep(SECOND / 5).await,
        }
    }
}

/// Counts up without losing an addition, until it is told to stop.
async fn count(client: Client, counted: Rc<Cell<(u64, u64)>>, stop: Rc<Cell<bool>>) {
    while !stop.get() {
        let known = client.get("count").await;
        let Ok(known) = known else { continue };
        let text = known
            .as_ref()
            .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap());
        let number: u64 = text.map_or(0, |text| text.parse().unwrap());
        let revision = known.map_or(0, |kv| kv.mod_revision);
        // The padding fills the log, so that it is purged and newcomers need snapshots.
        let next = (number + 1).to_string();
        let added = client.put_if_unchanged("count", next, revision).await;
        let padded = client.put("padding", vec![b'p'; 20_000]).await;
        let (sure, maybe) = counted.get();
        match added {
            Ok(true) => counted.set((sure + 1, maybe)),
            Err(Error::Unknown) => counted.set((sure, maybe + 1)),
            _ => {}
        }
        drop(padded);
        client.sleep(SECOND / 50).await;
    }
}

/// Runs a task to its end, which must come soon.
fn within_minutes(cluster: &mut Cluster, seed: u64, task: impl Future<Output = ()> + 'static) {
    let done = Rc::new(Cell::new(false));
    let flag = Rc::clone(&done);
    cluster.spawn(async move {
        task.await;
        flag.set(true);
    });
    let end = cluster.now() + 300 * SECOND;
    if !cluster.run_until(end, |_| done.get()) {
        let members: Vec<_> = (0..6).map_while(|it| cluster.describe(it)).collect();
        panic!("seed {seed} stands still:\n{}", members.join("\n"));
    }
}

/// A few, or as the environment says, for a longer hunt: `MEMBER_SEEDS=100..400`.
fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var("MEMBER_SEEDS").unwrap_or("0..6".to_owned());
    let (first, end) = text.split_once("..").expect("a range");
    first.parse().expect("a number")..end.parse().expect("a number")
}

#[test]
fn every_machine_is_replaced_under_load_and_crashes_and_nothing_is_lost() {
    let mut snapshots = 0;
    for seed in seeds() {
        let mut cluster = cluster(seed);
        let counted = Rc::new(Cell::new((0, 0)));
        let stop = Rc::new(Cell::new(false));
        let load = cluster.client();
        cluster.spawn(count(load, Rc::clone(&counted), Rc::clone(&stop)));
        cluster.crash_now_and_then(3 * SECOND);
        for old in 0..3 {
            let new = cluster.add_machine();
            let is_learner = (seed + old as u64).is_multiple_of(2);
            // Of every third one the disk is lost first.
            if (seed + old as u64).is_multiple_of(3) {
                cluster.retire(old);
            }
            let client = cluster.client();
            within_minutes(&mut cluster, seed, async move {
                let gone = [RequestError::MemberNotFound];
                insist(&client, &gone, || client.remove_member(old)).await;
                let there = [RequestError::MemberExist];
                insist(&client, &there, || client.add_member(new, is_learner)).await;
            });
            cluster.retire(old);
            cluster.restart(new);
            let client = cluster.client();
            within_minutes(&mut cluster, seed, async move {
                if is_learner {
                    let votes = [RequestError::MemberNotLearner];
                    insist(&client, &votes, || client.promote_member(new)).await;
                }
                client.sleep(3 * SECOND).await;
            });
        }
        stop.set(true);
        assert!(cluster.run_until_idle(60 * SECOND), "seed {seed}: no end");
        let settled = cluster.run_until(cluster.now() + 120 * SECOND, |cluster| {
            let contents = [3, 4, 5].map(|member| cluster.content(member));
            contents[0].is_some() && contents.iter().all(|content| *content == contents[0])
        });
        assert!(
            settled,
            "seed {seed}: {:?}",
            [3, 4, 5].map(|it| cluster.content(it))
        );
        let client = cluster.client();
        let value = cluster.block_on(async move {
            loop {
                if let Ok(kv) = client.get("count").await {
                    return kv.expect("it was counted").value;
                }
            }
        });
        let value: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
        let (sure, maybe) = counted.get();
        assert!(sure > 50, "seed {seed}: {sure} additions");
        assert!(
            (sure..=sure + maybe).contains(&value),
            "seed {seed}: {value}, acknowledged {sure}, unknown {maybe}"
        );
        snapshots += cluster.snapshots_installed();
    }
    assert!(snapshots > 2, "{snapshots} snapshots");
}
