//! Progress: of the stream when asked, of single watches by the clock.

use expect_test::expect;

use super::*;

#[test]
fn progress_of_the_stream_needs_all_its_watches_to_be_synced() {
    let mut world = World::new();
    world.ask_progress();
    world.check(expect![""]);
    world.create(watch("a", ""));
    world.ask_progress();
    world.put("a", "2");
    world.ask_progress();
    world.check(expect![[r#"
        0 rev 3 created
        -1 rev 3
        0 rev 4 | a=2 @4
        -1 rev 4"#]]);
    world.create(pb::WatchCreateRequest {
        start_revision: 2,
        ..watch("a", "")
    });
    world.ask_progress();
    world.check(expect![[r#"
        1 rev 4 created
        1 rev 4 | a=1 @2 | a=2 @4"#]]);
    world.ask_progress();
    world.create(pb::WatchCreateRequest {
        start_revision: 7,
        ..watch("a", "")
    });
    world.ask_progress();
    world.put("b", "2");
    world.put("b", "2");
    world.ask_progress();
    world.put("b", "2");
    world.ask_progress();
    world.check(expect![[r#"
        -1 rev 4
        2 rev 4 created
        -1 rev 7"#]]);
}

#[test]
fn progress_stays_between_the_events_before_and_after_it() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.create(watch("b", ""));
    world.put("a", "4");
    world.put("b", "5");
    world.advance();
    world.ask_progress();
    world.put("a", "6");
    world.put("b", "7");
    world.advance();
    world.ask_progress();
    world.check(expect![[r#"
        0 rev 3 created
        1 rev 3 created
        0 rev 4 | a=4 @4
        1 rev 5 | b=5 @5
        -1 rev 5
        0 rev 6 | a=6 @6
        1 rev 7 | b=7 @7
        -1 rev 7"#]]);
}

#[test]
fn progress_stays_in_its_place_when_a_watch_falls_behind_after_it() {
    let mut world = World::new();
    world.create(watch("a", ""));
    for value in ["4", "5"] {
        world.put("a", value);
    }
    world.advance();
    world.ask_progress();
    for value in ["6", "7", "8", "9", "10", "11"] {
        world.put("a", value);
    }
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 5 | a=4 @4 | a=5 @5
        -1 rev 5
        0 rev 8 | a=6 @6 | a=7 @7 | a=8 @8
        0 rev 11 | a=9 @9 | a=10 @10 | a=11 @11"#]]);
}

#[test]
fn quiet_watches_are_told_progress_at_each_tick() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest {
        progress_notify: true,
        ..watch("a", "")
    });
    world.create(watch("a", ""));
    world.create(pb::WatchCreateRequest {
        progress_notify: true,
        start_revision: 9,
        ..watch("b", "")
    });
    world.advance();
    world.pull_all();
    let tick = world.hub.deadline();
    assert!(
        (Time(600_000_000_000)..=Time(660_000_000_000)).contains(&tick),
        "{tick:?}"
    );
    world.now = Time(tick.0 - 1);
    world.check(expect![""]);
    world.now = tick;
    world.check(expect!["0 rev 3"]);
    assert_eq!(
        world.hub.deadline(),
        Time(tick.0 * 2),
        "the jitter is the stream's"
    );

    world.put("a", "2");
    world.check(expect![[r#"
        0 rev 4 | a=2 @4
        1 rev 4 | a=2 @4"#]]);
    world.now = world.hub.deadline();
    world.check(expect![""]);
    world.now = world.hub.deadline();
    world.check(expect!["0 rev 4"]);
    world.cancel(0);
    world.cancel(2);
    world.pull_all();
    world.now = world.hub.deadline();
    world.check(expect![""]);
    assert_eq!(
        world.hub.deadline(),
        Time::NEVER,
        "no watch wants progress any more"
    );
}

#[test]
fn unread_progress_does_not_pile_up() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest {
        progress_notify: true,
        ..watch("a", "")
    });
    world.advance();
    world.hub.ready();
    for _ in 0..1000 {
        world.now = world.hub.deadline();
        world.advance();
        world.hub.ready();
    }
    for _ in 0..1000 {
        world.ask_progress();
    }
    assert_eq!(world.pull_all().len(), ANSWERS_WAITING_MAX);
}
