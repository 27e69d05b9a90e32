//! Compactions, snapshots, and clients that do not read.

use expect_test::expect;

use super::*;

#[test]
fn watch_below_the_compaction_is_created_then_cancelled_and_keeps_its_id() {
    let mut world = World::new();
    world.put("a", "2"); // 4
    world.put("a", "3"); // 5
    world.compact(4);
    for start_revision in [3, 4] {
        world.create(pb::WatchCreateRequest {
            start_revision,
            ..watch("a", "")
        });
    }
    world.check(expect![[r#"
        0 rev 5 created
        0 rev 0 canceled compacted 4
        1 rev 5 created
        1 rev 5 | a=2 @4 | a=3 @5"#]]);

    world.ask_progress();
    world.create(pb::WatchCreateRequest {
        watch_id: 0,
        ..watch("a", "")
    });
    world.check(expect!["2 rev 5 created"]);
    world.cancel(0);
    world.cancel(0);
    world.ask_progress();
    world.check(expect![[r#"
        0 rev 5 canceled
        -1 rev 5"#]]);
}

#[test]
fn slow_watch_is_cancelled_when_a_compaction_overtakes_it() {
    let mut world = World::new();
    world.create(watch("a", ""));
    for _ in 0..20 {
        world.put("a", "x");
        world.advance();
    }
    world.compact(20);
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 0 canceled compacted 20"#]]);
}

#[test]
fn live_watch_misses_nothing_when_all_is_compacted_before_the_hub_looks() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.put("a", "2");
    world.advance();
    world.pull_all();
    world.put("a", "3");
    world.delete("a");
    world.put("b", "2");
    world.compact(7);
    world.check(expect!["0 rev 6 | a=3 @5 | -a @6"]);
    assert!(
        world.store.compact_step(usize::MAX),
        "the hub holds nothing off any more"
    );
}

#[test]
fn tombstone_at_the_boundary_is_still_seen() {
    let mut world = World::new();
    world.delete("a"); // 4
    world.compact(4);
    world.create(pb::WatchCreateRequest {
        start_revision: 4,
        ..watch("a", "")
    });
    world.check(expect![[r#"
        0 rev 4 created
        0 rev 4 | -a @4"#]]);
}

/// A store in which key `a` was written until this revision, and which is compacted there.
fn snapshot(revision: i64, compacted: i64) -> Store {
    let mut store = Store::new();
    for _ in 1..revision {
        let mut txn = store.begin();
        txn.put(b"a", b"snap", LeaseId(0));
        txn.end();
    }
    store.compact(Revision(compacted)).unwrap();
    store.compact_step(usize::MAX);
    store
}

#[test]
fn snapshot_that_has_forgotten_cancels_present_watches_and_keeps_future_ones() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.create(watch("a", ""));
    world.create(pb::WatchCreateRequest {
        start_revision: 30,
        ..watch("a", "")
    });
    world.create(pb::WatchCreateRequest {
        start_revision: 8,
        ..watch("a", "")
    });
    world.advance();
    world.pull_all();
    world.store.replace(snapshot(10, 9));
    world.check(expect![[r#"
        0 rev 0 canceled compacted 9
        1 rev 0 canceled compacted 9
        3 rev 0 canceled compacted 9"#]]);
    world.ask_progress();
    world.check(expect![""]);
    for _ in 0..20 {
        world.put("a", "later");
    }
    world.check(expect!["2 rev 30 | a=later @30"]);
}

#[test]
fn snapshot_that_remembers_lets_watches_go_on_without_a_repetition() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.advance();
    world.pull_all();
    world.store.replace(snapshot(6, 4));
    world.check(expect!["0 rev 6 | a=snap @4 | a=snap @5 | a=snap @6"]);
    world.put("a", "after");
    world.check(expect!["0 rev 7 | a=after @7"]);
}

#[test]
fn stream_that_does_not_read_its_answers_is_not_read() {
    let mut world = World::new();
    for _ in 0..ANSWERS_WAITING_MAX {
        assert!(world.hub.accepts(world.stream));
        world.create(watch("a", ""));
    }
    assert!(!world.hub.accepts(world.stream));
    world.pull();
    assert!(world.hub.accepts(world.stream));
}

#[test]
fn stream_is_named_once_until_it_is_looked_at() {
    let mut world = World::new();
    world.create(watch("a", ""));
    let other = world.hub.open(Time(0));
    assert_eq!(world.hub.ready(), [world.stream]);
    assert_eq!(world.hub.ready(), []);
    world.put("a", "2");
    assert_eq!(world.hub.deadline(), Time::NEVER);
    world.advance();
    assert_eq!(world.hub.deadline(), Time(0));
    assert_eq!(world.hub.ready(), [world.stream]);
    world.hub.close(other);
    world.hub.close(world.stream);
    assert_eq!(world.hub.ready(), []);
    assert_eq!(world.pull(), None);
    assert_eq!(world.hub.watchers(), (0, 0));
    world.put("a", "3");
    world.compact(5);
    world.advance();
    assert!(
        world.store.compact_step(usize::MAX),
        "a hub without watches holds nothing off"
    );
}

#[test]
fn watch_that_is_not_read_costs_no_memory() {
    let mut world = World::new();
    world.create(watch("a", ""));
    for _ in 0..1000 {
        world.put("a", "x");
        world.advance();
    }
    assert_eq!((world.hub.watchers(), world.hub.pending), ((1, 1), 0));
    let mut next = 4;
    for response in world.pull_all().into_iter().skip(1) {
        for event in response.events {
            assert_eq!(event.kv.unwrap().mod_revision, next);
            next += 1;
        }
    }
    assert_eq!(next, 1004);
    world.put("a", "x");
    world.check(expect!["0 rev 1004 | a=x @1004"]);
    assert_eq!(world.hub.watchers(), (1, 0), "and it is live again");
}

#[test]
fn hub_may_move_between_threads() {
    fn moves<T: Send>() {}
    moves::<Hub>();
}
