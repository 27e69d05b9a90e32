//! Which events come, and how they are put into responses.

use expect_test::expect;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;

use super::*;

#[test]
fn event_of_a_synced_watch_carries_its_own_revision() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.put("a", "2");
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 4 | a=2 @4"#]]);
    world.put("b", "2");
    world.check(expect![""]);
}

#[test]
fn delete_event_holds_key_and_revision_only() {
    let mut world = World::new();
    world.create(watch("a", ""));
    world.delete("a");
    world.advance();
    let event = world.pull_all().pop().unwrap().events.pop().unwrap();
    assert_eq!(event.r#type, 1);
    let kv = quorate_proto::mvccpb::KeyValue {
        key: "a".into(),
        mod_revision: 4,
        ..Default::default()
    };
    assert_eq!(event.kv, Some(kv));
}

#[test]
fn filtered_events_are_not_sent_at_all() {
    for behind in [false, true] {
        let mut world = World::new();
        let start_revision = if behind { 2 } else { 0 };
        let filters = |filter: FilterType| pb::WatchCreateRequest {
            filters: vec![filter as i32],
            start_revision,
            ..watch("a", "")
        };
        let create = |world: &mut World| {
            world.create(filters(FilterType::Noput));
            world.create(filters(FilterType::Nodelete));
            world.create(pb::WatchCreateRequest {
                filters: vec![0, 1],
                ..filters(FilterType::Noput)
            });
        };
        if !behind {
            create(&mut world);
        }
        world.put("a", "2");
        world.delete("a");
        if behind {
            create(&mut world);
        }
        world.advance();
        let lines: Vec<_> = world
            .pull_all()
            .iter()
            .filter(|answer| !answer.created)
            .map(show)
            .collect();
        if behind {
            assert_eq!(lines, ["1 rev 4 | a=1 @2 | a=2 @4", "0 rev 5 | -a @5"]);
        } else {
            assert_eq!(lines, ["1 rev 4 | a=2 @4", "0 rev 5 | -a @5"]);
        }
    }
}

#[test]
fn events_of_one_revision_come_in_one_response_in_their_order() {
    for behind in [false, true] {
        let mut world = World::new();
        let start_revision = if behind { 4 } else { 0 };
        if !behind {
            world.create(watch("", "\0"));
        }
        let keys: Vec<_> = (0..50)
            .map(|number| format!("k{:02}", (number * 7) % 50))
            .collect();
        let writes: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("v"))).collect();
        world.txn(&writes);
        if behind {
            world.create(pb::WatchCreateRequest {
                start_revision,
                ..watch("", "\0")
            });
        }
        world.advance();
        let responses = world.pull_all();
        assert_eq!(responses.len(), 2, "created, and all fifty");
        let seen: Vec<_> = responses[1]
            .events
            .iter()
            .map(|event| event.kv.clone().unwrap().key)
            .collect();
        assert_eq!(seen, keys);
    }
}

#[test]
fn catching_up_goes_in_batches_of_a_thousand_revisions() {
    let mut world = World::new();
    world.hub.config.response_bytes_max = 1 << 30;
    for _ in 0..2500 {
        world.put("a", "x");
    }
    world.hub.config.response_bytes_max = usize::MAX;
    let view = world.store.view();
    let (rows, next) = events::revisions(&view, 4, 2503, 1 << 20);
    assert_eq!((rows.len(), next), (2500, 2504));
    let mut batch = deliver::Batch::new(usize::MAX);
    let taken = rows.iter().take_while(|row| {
        let fits = batch.accepts(row.main);
        if fits {
            batch.add(row.main, events::event_of(row));
        }
        fits
    });
    assert_eq!(taken.count(), RESPONSE_REVISIONS_MAX);
}

#[test]
fn large_responses_are_split_between_events_for_those_who_ask() {
    let large = "x".repeat(400);
    let huge = "y".repeat(3000);
    let mut world = World::new();
    world.create(pb::WatchCreateRequest {
        fragment: true,
        ..watch("", "\0")
    });
    world.create(watch("", "\0"));
    world.txn(&[
        ("a", Some(&large)),
        ("b", Some(&large)),
        ("c", Some(&large)),
        ("d", Some(&huge)),
        ("e", Some("s")),
    ]);
    world.put("a", &huge);
    world.check(expect![[r#"
        0 rev 3 created
        1 rev 3 created
        0 rev 4 fragment | a=400bytes @4 | b=400bytes @4
        0 rev 4 fragment | c=400bytes @4
        0 rev 4 fragment | d=3000bytes @4
        0 rev 4 | e=s @4
        1 rev 4 | a=400bytes @4 | b=400bytes @4 | c=400bytes @4 | d=3000bytes @4 | e=s @4
        0 rev 5 | a=3000bytes @5
        1 rev 5 | a=3000bytes @5"#]]);
}

#[test]
fn fragments_are_smaller_than_the_limit_and_nothing_else_comes_between() {
    let mut response = pb::WatchResponse {
        watch_id: 3,
        ..with_revision(9)
    };
    for size in [10, 200, 300, 90, 700, 1, 1, 1, 900] {
        let kv = quorate_proto::mvccpb::KeyValue {
            key: vec![b'k'; size].into(),
            ..Default::default()
        };
        response.events.push(quorate_proto::mvccpb::Event {
            kv: Some(kv),
            ..Default::default()
        });
    }
    for bytes_max in [1, 100, 500, 1000, 2000, 5000] {
        let parts = stream::fragments(response.clone(), bytes_max);
        let joined: Vec<_> = parts.iter().flat_map(|part| part.events.clone()).collect();
        assert_eq!(joined, response.events);
        for (number, part) in parts.iter().enumerate() {
            assert_eq!(part.fragment, number + 1 < parts.len());
            assert!(part.events.len() == 1 || prost::Message::encoded_len(part) < bytes_max);
            assert_eq!((part.watch_id, &part.header), (3, &response.header));
        }
    }
    assert_eq!(stream::fragments(response, 1 << 20).len(), 1);
}

#[test]
fn previous_value_is_absent_for_creations_and_where_it_is_compacted() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest {
        prev_kv: true,
        ..watch("a", "c")
    });
    world.put("a", "2"); // 4
    world.delete("a"); // 5
    world.put("a", "3"); // 6
    world.put("a", "4"); // 7
    world.check(expect![[r#"
        0 rev 3 created
        0 rev 7 | a=2 @4 (was 1 @2) | -a @5 (was 2 @4) | a=3 @6 | a=4 @7 (was 3 @6)"#]]);

    world.compact(5);
    world.create(pb::WatchCreateRequest {
        prev_kv: true,
        start_revision: 5,
        ..watch("a", "c")
    });
    world.create(pb::WatchCreateRequest {
        start_revision: 5,
        ..watch("a", "c")
    });
    world.check(expect![[r#"
        1 rev 7 created
        1 rev 7 | -a @5 | a=3 @6 | a=4 @7 (was 3 @6)
        2 rev 7 created
        2 rev 7 | -a @5 | a=3 @6 | a=4 @7"#]]);
}
