//! Creating, refusing and cancelling watches.

use expect_test::expect;

use super::*;

#[test]
fn watch_sees_what_comes_after_its_creation() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.put("a", "2");
    world.put("b", "2");
    world.delete("a");
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 6 | a=2 @4 | -a @6"#]]);
}

#[test]
fn write_before_the_creation_is_not_seen_even_if_the_hub_did_not_know_it() {
    let mut world = World::new();
    world.create(watch("b", ""));
    world.advance();
    world.put("a", "2");
    world.create(watch("a", ""));
    world.put("a", "3");
    world.check(expect![[r#"
        0 rev 3 created
        1 rev 4 created
        1 rev 5 | a=3 @5"#]]);
}

#[test]
fn ids_are_given_out_from_zero_and_skip_those_in_use() {
    let mut world = World::new();
    for watch_id in [0, 1, 0, 5, 5, 0, -7] {
        world.create(pb::WatchCreateRequest {
            watch_id,
            ..watch("a", "")
        });
    }
    world.cancel(0);
    for watch_id in [0, 0, 0] {
        world.create(pb::WatchCreateRequest {
            watch_id,
            ..watch("a", "")
        });
    }
    world.check(expect![[r#"
        0 rev 3 created
        1 rev 3 created
        2 rev 3 created
        5 rev 3 created
        -1 rev 3 created canceled (mvcc: duplicate watch ID provided on the WatchStream)
        3 rev 3 created
        -7 rev 3 created
        0 rev 3 canceled
        4 rev 3 created
        6 rev 3 created
        7 rev 3 created"#]]);
}

#[test]
fn watch_from_the_past_replays_it() {
    let mut world = World::new();
    world.put("a", "2");
    world.put("c", "1");
    for start_revision in [1, 2, 3, 4, 5, 6] {
        world.create(pb::WatchCreateRequest {
            start_revision,
            ..watch("a", "")
        });
    }
    world.check(expect![[r#"
        0 rev 5 created
        0 rev 4 | a=1 @2 | a=2 @4
        1 rev 5 created
        1 rev 4 | a=1 @2 | a=2 @4
        2 rev 5 created
        2 rev 5 | a=2 @4
        3 rev 5 created
        3 rev 5 | a=2 @4
        4 rev 5 created
        5 rev 5 created"#]]);
}

#[test]
fn watch_from_the_future_waits_for_its_revision() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest {
        start_revision: 6,
        ..watch("a", "")
    });
    world.put("a", "too early"); // 4
    world.put("a", "too early"); // 5
    world.put("a", "seen"); // 6
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 6 | a=seen @6"#]]);
}

#[test]
fn creation_that_cannot_be_is_answered_and_the_stream_lives_on() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest {
        start_revision: -1,
        ..watch("b", "a")
    });
    world.create(watch("b", "a"));
    world.create(watch("a", "a"));
    world.ask_progress();
    world.hub.handle(
        world.now,
        world.stream,
        pb::WatchRequest::default(),
        &world.store.view(),
    );
    world.create(watch("a", "b"));
    world.check(expect![[r#"
        -1 rev 3 created canceled (etcdserver: mvcc: required revision has been compacted)
        -1 rev 3 created canceled (mvcc: watcher range is empty)
        -1 rev 3 created canceled (mvcc: watcher range is empty)
        0 rev 3 created"#]]);
}

#[test]
fn refusal_shows_the_whole_status() {
    let mut world = World::new();
    let view = world.store.view();
    for error in [
        RequestError::PermissionDenied,
        RequestError::InvalidAuthToken,
        RequestError::AuthOldRevision,
        RequestError::UserEmpty,
    ] {
        world
            .hub
            .refuse(world.stream, &watch("a", ""), &error, &view);
    }
    let negative = pb::WatchCreateRequest {
        start_revision: -1,
        ..watch("a", "")
    };
    world.hub.refuse(
        world.stream,
        &negative,
        &RequestError::PermissionDenied,
        &view,
    );
    world.check(expect![[r#"
        -1 rev 3 created canceled (rpc error: code = PermissionDenied desc = etcdserver: permission denied)
        -1 rev 3 created canceled (rpc error: code = Unauthenticated desc = etcdserver: invalid auth token)
        -1 rev 3 created canceled (rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old)
        -1 rev 3 created canceled (rpc error: code = InvalidArgument desc = etcdserver: user name is empty)
        -1 rev 3 created canceled (etcdserver: mvcc: required revision has been compacted)"#]]);
}

#[test]
fn ranges_are_half_open_and_zero_means_no_end() {
    let mut world = World::new();
    world.create(watch("a", "c"));
    world.create(watch("b", "\0"));
    world.create(watch("", "\0"));
    world.create(watch("", ""));
    world.txn(&[
        ("a", Some("2")),
        ("b", Some("2")),
        ("c", Some("2")),
        ("\0", Some("2")),
    ]);
    world.check(expect![[r#"
        0 rev 3 created
        1 rev 3 created
        2 rev 3 created
        3 rev 3 created
        2 rev 4 | a=2 @4 | b=2 @4 | c=2 @4 | NUL=2 @4
        0 rev 4 | a=2 @4 | b=2 @4
        1 rev 4 | b=2 @4 | c=2 @4
        3 rev 4 | NUL=2 @4"#]]);
}

#[test]
fn cancel_is_answered_once_and_nothing_follows_it() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.advance();
    world.put("a", "2");
    world.advance();
    world.cancel(0);
    world.cancel(0);
    world.cancel(42);
    world.put("a", "3");
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 4 canceled"#]]);
    assert_eq!(world.hub.watchers(), (0, 0));
}
