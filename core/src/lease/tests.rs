//! Properties of leases, each by its name.

use super::*;

/// How much an election adds to each lease.
pub(super) const ELECTION: Duration = Duration::from_secs(1);

pub(super) fn at(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

pub(super) fn leader(checkpoint: bool) -> Lessor {
    let mut lessor = Lessor::new(Config {
        ttl_min: 2,
        checkpoint,
    });
    lessor.promote(at(0), ELECTION);
    lessor
}

fn ids(lessor: &mut Lessor, ms: u64) -> Vec<i64> {
    lessor
        .expired(at(ms), usize::MAX)
        .into_iter()
        .map(|id| id.0)
        .collect()
}

#[test]
fn ttl_min_is_one_and_a_half_elections_rounded_up() {
    assert_eq!(Config::default().ttl_min, 2);
    assert_eq!(
        Config::new(Duration::from_millis(100), 11, false).ttl_min,
        2
    );
    assert_eq!(
        Config::new(Duration::from_millis(500), 10, false).ttl_min,
        8
    );
    assert_eq!(Config::new(Duration::from_millis(10), 10, false).ttl_min, 1);
}

#[test]
fn grant_answers_what_etcd_answers() {
    let mut lessor = Lessor::default();
    assert_eq!(
        lessor.grant(at(0), LeaseId(0), 10),
        Err(RequestError::LeaseNotFound)
    );
    assert_eq!(
        lessor.grant(at(0), LeaseId(1), TTL_MAX + 1),
        Err(RequestError::LeaseTTLTooLarge)
    );
    assert_eq!(lessor.grant(at(0), LeaseId(1), TTL_MAX), Ok(TTL_MAX));
    assert_eq!(
        lessor.grant(at(0), LeaseId(1), 10),
        Err(RequestError::LeaseExist)
    );
    assert_eq!(
        lessor.grant(at(0), LeaseId(1), TTL_MAX + 1),
        Err(RequestError::LeaseTTLTooLarge)
    );
    assert_eq!(lessor.grant(at(0), LeaseId(-5), -7), Ok(2));
    assert_eq!(lessor.grant(at(0), LeaseId(i64::MAX), 0), Ok(2));
}

#[test]
fn revoke_answers_the_keys_in_byte_order_and_no_others() {
    let mut lessor = Lessor::default();
    for id in [i64::MIN, -1, 1, 2, i64::MAX] {
        lessor.grant(at(0), LeaseId(id), 10).unwrap();
        for key in ["b", "a", "ab", "\u{ff}", "c"] {
            assert!(lessor.attach(LeaseId(id), format!("{key}{id}")));
        }
        lessor.detach(LeaseId(id), format!("c{id}").as_bytes());
        lessor.detach(LeaseId(id), b"never attached");
    }
    for id in [1, i64::MAX, -1, i64::MIN, 2] {
        let expected: Vec<_> = ["a", "ab", "b", "\u{ff}"]
            .iter()
            .map(|key| format!("{key}{id}").into_bytes())
            .collect();
        assert_eq!(
            lessor
                .keys(LeaseId(id))
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>(),
            expected
        );
        assert_eq!(lessor.revoke(LeaseId(id)).unwrap(), expected);
        assert_eq!(lessor.revoke(LeaseId(id)), Err(RequestError::LeaseNotFound));
        lessor.check();
    }
    assert!(
        !lessor.attach(LeaseId(1), "a"),
        "a lease that is gone takes no key"
    );
    lessor.check();
}

#[test]
fn only_the_leader_lets_leases_expire() {
    let mut lessor = Lessor::default();
    lessor.grant(at(0), LeaseId(1), 5).unwrap();
    assert_eq!(lessor.deadline(), Time::NEVER);
    assert!(ids(&mut lessor, 1_000_000).is_empty());
    assert_eq!(lessor.renew(at(0), LeaseId(1)), Renewal::NotLeader);
    assert_eq!(
        lessor.time_to_live(at(0), LeaseId(1), false),
        Err(RequestError::LeaderChanged)
    );

    lessor.promote(at(1_000_000), ELECTION);
    assert_eq!(
        lessor.deadline(),
        at(1_006_000),
        "the whole TTL and an election timeout"
    );
    assert!(ids(&mut lessor, 1_005_999).is_empty());
    assert_eq!(ids(&mut lessor, 1_006_000), [1]);

    lessor.demote();
    assert_eq!(lessor.deadline(), Time::NEVER);
    assert!(ids(&mut lessor, 2_000_000).is_empty());
    lessor.promote(at(3_000_000), ELECTION);
    assert!(ids(&mut lessor, 3_005_999).is_empty());
    lessor.check();
}

#[test]
fn renewal_starts_the_ttl_anew() {
    let mut lessor = leader(false);
    lessor.grant(at(0), LeaseId(1), 5).unwrap();
    assert_eq!(lessor.renew(at(4_999), LeaseId(1)), Renewal::Renewed(5));
    assert_eq!(lessor.renew(at(0), LeaseId(2)), Renewal::Unknown);
    assert!(ids(&mut lessor, 9_998).is_empty());
    assert_eq!(ids(&mut lessor, 9_999), [1]);
    assert_eq!(lessor.renew(at(9_999), LeaseId(1)), Renewal::Expired);
    lessor.check();
    lessor.revoke(LeaseId(1)).unwrap();
    assert_eq!(lessor.renew(at(9_999), LeaseId(1)), Renewal::Unknown);
    lessor.check();
}

#[test]
fn expired_lease_cannot_be_renewed_even_before_it_is_handed_out() {
    let mut lessor = leader(false);
    lessor.grant(at(0), LeaseId(1), 5).unwrap();
    assert_eq!(lessor.renew(at(5_000), LeaseId(1)), Renewal::Expired);
}

#[test]
fn time_to_live_is_truncated_and_unknown_is_minus_one() {
    let mut lessor = leader(false);
    lessor.grant(at(0), LeaseId(7), 10).unwrap();
    lessor.attach(LeaseId(7), "k");
    let ask = |ms, keys| {
        let response = lessor.time_to_live(at(ms), LeaseId(7), keys).unwrap();
        (response.ttl, response.granted_ttl, response.keys)
    };
    assert_eq!(ask(0, false), (10, 10, vec![]));
    assert_eq!(ask(1, true), (9, 10, vec![Bytes::from_static(b"k")]));
    assert_eq!(ask(9_999, false).0, 0);
    assert_eq!(ask(10_999, false).0, 0);
    assert_eq!(ask(11_000, false).0, -1);
    let unknown = lessor.time_to_live(at(0), LeaseId(8), true).unwrap();
    assert_eq!(
        unknown,
        pb::LeaseTimeToLiveResponse {
            id: 8,
            ttl: -1,
            ..Default::default()
        }
    );
}

#[test]
fn leases_are_ordered_by_remaining_time_on_the_leader_and_by_id_elsewhere() {
    let mut lessor = leader(false);
    for (id, ttl) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
        lessor.grant(at(0), LeaseId(id), ttl).unwrap();
    }
    assert_eq!(lessor.leases(), [2, 4, 3, 1].map(LeaseId));
    lessor.renew(at(9_000), LeaseId(2));
    assert_eq!(
        ids(&mut lessor, 10_000),
        [4],
        "and one that is being revoked is still listed"
    );
    assert_eq!(lessor.leases(), [4, 2, 3, 1].map(LeaseId));
    lessor.demote();
    assert_eq!(lessor.leases(), [1, 2, 3, 4].map(LeaseId));
}

#[test]
fn revocations_are_paced_and_tried_again() {
    let mut lessor = leader(false);
    for id in 1..=2000 {
        lessor.grant(at(0), LeaseId(id), 2).unwrap();
    }
    assert_eq!(ids(&mut lessor, 2_000).len(), REVOKES_IN_FLIGHT_MAX);
    assert_eq!(ids(&mut lessor, 2_000).len(), 0);
    assert_eq!(
        lessor.deadline(),
        at(5_000),
        "nothing but a retry while all revocations are in flight"
    );
    assert_eq!(
        ids(&mut lessor, 5_000),
        (1..=16).collect::<Vec<_>>(),
        "none was applied: tried again"
    );

    // Applied at once, the window is the limit.
    let mut handed_out = 16;
    for id in 1..=16 {
        lessor.revoke(LeaseId(id)).unwrap();
    }
    loop {
        let due = lessor.expired(at(5_001), usize::MAX);
        if due.is_empty() {
            break;
        }
        handed_out += due.len();
        for id in due {
            lessor.revoke(id).unwrap();
        }
        lessor.check();
    }
    assert_eq!(handed_out, REVOKES_PER_WINDOW);
    assert_eq!(lessor.deadline(), at(5_500));
    assert_eq!(
        lessor.expired(at(5_500), 7).len(),
        7,
        "the caller's limit holds, too"
    );
}

#[test]
fn revoking_makes_room_for_the_next() {
    let mut lessor = leader(false);
    for id in 1..=17 {
        lessor.grant(at(0), LeaseId(id), 2).unwrap();
    }
    assert_eq!(ids(&mut lessor, 2_000).len(), 16);
    assert_eq!(lessor.deadline(), at(5_000));
    lessor.revoke(LeaseId(3)).unwrap();
    assert!(lessor.deadline() <= at(2_000));
    assert_eq!(ids(&mut lessor, 2_000), [17]);
}

#[test]
fn leases_of_one_ttl_are_spread_after_an_election_and_never_shortened() {
    let mut lessor = Lessor::default();
    for id in 1..=3000 {
        lessor.grant(at(0), LeaseId(id), 60).unwrap();
    }
    lessor.promote(at(0), ELECTION);
    lessor.check();
    let expiries: Vec<_> = lessor.leases.values().map(|lease| lease.expiry).collect();
    assert!(expiries.iter().all(|expiry| *expiry >= at(61_000)));
    for second in 61..=64 {
        let within = expiries
            .iter()
            .filter(|expiry| (at(second * 1000)..at(second * 1000 + 1000)).contains(expiry));
        assert_eq!(within.count(), EXPIRIES_PER_SECOND);
    }
    assert_eq!(lessor.renew(at(1_000), LeaseId(3000)), Renewal::Renewed(60));
    assert_eq!(
        lessor
            .time_to_live(at(1_000), LeaseId(3000), false)
            .unwrap()
            .ttl,
        60,
        "a renewal ends the delay"
    );
}

#[test]
fn checkpoints_note_what_is_left_of_long_leases() {
    let mut lessor = leader(true);
    lessor.grant(at(0), LeaseId(1), 300).unwrap();
    lessor.grant(at(0), LeaseId(2), 301).unwrap();
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    assert_eq!(lessor.renew(at(1_000), LeaseId(1)), Renewal::Renewed(300));
    assert_eq!(lessor.deadline(), at(300_000));
    assert_eq!(lessor.due_checkpoints(at(299_999)), []);
    let note = |id, remaining_ttl| pb::LeaseCheckpoint { id, remaining_ttl };
    assert_eq!(
        lessor.due_checkpoints(at(300_000)),
        [note(2, 1), note(3, 700)]
    );
    assert_eq!(lessor.due_checkpoints(at(300_000)), []);
    lessor.check();

    // Applied: what is left of lease 2 is too short to be noted again.
    lessor.checkpoint(at(300_001), LeaseId(2), 1);
    lessor.checkpoint(at(300_001), LeaseId(3), 700);
    lessor.checkpoint(at(300_001), LeaseId(99), 700);
    lessor.check();
    assert_eq!(
        lessor
            .export()
            .map(|lease| lease.remaining_ttl)
            .collect::<Vec<_>>(),
        [0, 1, 700]
    );
    assert_eq!(ids(&mut lessor, 301_000), [1, 2]);
    assert_eq!(lessor.due_checkpoints(at(600_001)), [note(3, 400)]);
}

#[test]
fn lease_just_renewed_is_noted_later() {
    let mut lessor = leader(true);
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    assert_eq!(
        lessor.renew(at(300_000), LeaseId(3)),
        Renewal::Renewed(1000)
    );
    assert_eq!(lessor.due_checkpoints(at(300_000)), []);
    assert_eq!(lessor.deadline(), at(600_000));
    assert_eq!(lessor.due_checkpoints(at(600_000)).len(), 1);
}

#[test]
fn renewal_of_a_noted_lease_takes_the_note_back_first() {
    let mut lessor = leader(true);
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    lessor.checkpoint(at(300_000), LeaseId(3), 700);
    assert_eq!(
        lessor
            .time_to_live(at(300_000), LeaseId(3), false)
            .unwrap()
            .ttl,
        700
    );
    let clear = pb::LeaseCheckpoint {
        id: 3,
        remaining_ttl: 0,
    };
    assert_eq!(
        lessor.renew(at(400_000), LeaseId(3)),
        Renewal::ClearFirst(clear)
    );
    assert_eq!(
        lessor
            .time_to_live(at(400_000), LeaseId(3), false)
            .unwrap()
            .ttl,
        600,
        "not renewed yet"
    );
    lessor.checkpoint(at(400_001), LeaseId(3), 0);
    assert_eq!(
        lessor.renew(at(400_001), LeaseId(3)),
        Renewal::Renewed(1000)
    );
    lessor.check();
}

#[test]
fn new_leader_believes_the_checkpoint() {
    let mut lessor = Lessor::new(Config {
        ttl_min: 2,
        checkpoint: true,
    });
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    lessor.checkpoint(at(0), LeaseId(3), 400);
    lessor.promote(at(0), ELECTION);
    assert_eq!(
        lessor.time_to_live(at(0), LeaseId(3), false).unwrap().ttl,
        401
    );
    assert_eq!(lessor.deadline(), at(300_000), "its next note");
    lessor.check();
}

#[test]
fn restored_lessor_equals_the_exported_one() {
    let mut lessor = Lessor::default();
    for id in [5, -3, 1] {
        lessor.grant(at(0), LeaseId(id), id * 10).unwrap();
    }
    lessor.checkpoint(at(0), LeaseId(5), 20);
    lessor.attach(LeaseId(5), "k");
    let rows: Vec<_> = lessor.export().collect();
    assert_eq!(
        rows.iter()
            .map(|row| (row.id, row.ttl, row.remaining_ttl))
            .collect::<Vec<_>>(),
        [(-3, 2, 0), (1, 10, 0), (5, 50, 20)]
    );
    let keys = [
        (LeaseId(5), Bytes::from_static(b"k")),
        (LeaseId(9), Bytes::from_static(b"orphan")),
    ];
    let restored = Lessor::restore(Config::default(), rows.clone(), keys);
    restored.check();
    assert!(!restored.is_leader());
    assert_eq!(restored.export().collect::<Vec<_>>(), rows);
    assert_eq!(restored.keys(LeaseId(5)).collect::<Vec<_>>(), [b"k"]);
}

#[test]
fn renewal_waits_for_a_note_that_is_still_in_the_log() {
    let mut lessor = leader(true);
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    assert_eq!(lessor.due_checkpoints(at(300_000)).len(), 1);
    // Were this renewal answered, the note that comes after it would shorten the lease at the next election.
    assert!(matches!(
        lessor.renew(at(300_001), LeaseId(3)),
        Renewal::ClearFirst(_)
    ));
    lessor.checkpoint(at(300_002), LeaseId(3), 700);
    assert!(matches!(
        lessor.renew(at(300_003), LeaseId(3)),
        Renewal::ClearFirst(_)
    ));
    lessor.checkpoint(at(300_004), LeaseId(3), 0);
    assert_eq!(
        lessor.renew(at(300_005), LeaseId(3)),
        Renewal::Renewed(1000)
    );
}

/// Found by `lease_never_ends_early`: the clearing that an earlier renewal asked for was taken for one that comes after
/// the note.
#[test]
fn renewal_waits_for_a_note_that_comes_after_a_clearing() {
    let mut lessor = leader(true);
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    assert_eq!(lessor.due_checkpoints(at(300_000)).len(), 1);
    lessor.checkpoint(at(300_001), LeaseId(3), 700);
    let clearing = Renewal::ClearFirst(pb::LeaseCheckpoint {
        id: 3,
        remaining_ttl: 0,
    });
    assert_eq!(lessor.renew(at(599_999), LeaseId(3)), clearing);
    assert_eq!(lessor.due_checkpoints(at(600_001)).len(), 1);
    lessor.checkpoint(at(600_002), LeaseId(3), 0);
    assert_eq!(lessor.renew(at(600_003), LeaseId(3)), clearing);
    lessor.checkpoint(at(600_004), LeaseId(3), 400);
    lessor.checkpoint(at(600_005), LeaseId(3), 0);
    assert_eq!(
        lessor.renew(at(600_006), LeaseId(3)),
        Renewal::Renewed(1000)
    );
}

#[test]
fn lost_checkpoints_do_not_hold_up_renewals() {
    let mut lessor = leader(true);
    lessor.grant(at(0), LeaseId(3), 1000).unwrap();
    assert_eq!(lessor.due_checkpoints(at(300_000)).len(), 1);
    // Neither this note nor the first clearing gets into the log; another note is handed out between them.
    assert!(matches!(
        lessor.renew(at(300_001), LeaseId(3)),
        Renewal::ClearFirst(_)
    ));
    assert_eq!(lessor.due_checkpoints(at(600_000)).len(), 1);
    let mut clearings = 0;
    while let Renewal::ClearFirst(note) = lessor.renew(at(600_001), LeaseId(3)) {
        lessor.checkpoint(at(600_001), LeaseId(3), note.remaining_ttl);
        clearings += 1;
    }
    assert_eq!(clearings, 2);
}
