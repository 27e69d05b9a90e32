//! The embedded cluster: what a test of a user relies on.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use quorate_sim::embedded::{Cluster, Error, Options};

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
