//! Each property that only this tier judges, against a history that breaks it.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn put(value: &'static str) -> pb::PutRequest {
    pb::PutRequest {
        key: "k".into(),
        value: value.into(),
        ..pb::PutRequest::default()
    }
}

fn entry_of(index: u64, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Entry {
    let mut request = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader {
            id: index,
            ..pb::RequestHeader::default()
        }),
        ..pb::InternalRaftRequest::default()
    };
    fill(&mut request);
    Entry::normal(1, index, request.encode_to_vec().into())
}

/// A judge of a log whose entries were appended a second apart, the first at one second.
fn judge(entries: Vec<Entry>) -> Judge {
    let times = entries
        .iter()
        .map(|it| ((it.term, it.index), it.index * SECOND));
    let times = times.collect();
    Judge::new(entries, &times, 1)
}

fn call(request: Request, outcome: Outcome, invoked: u64) -> Call {
    Call {
        invoked,
        returned: invoked + 1,
        request,
        outcome,
    }
}

fn judged(entries: Vec<Entry>, calls: Vec<Call>) -> Result<(), &'static str> {
    let history = History {
        calls,
        ..History::default()
    };
    let mut judge = judge(entries);
    judge
        .judge(&history)
        .map_err(|violation| violation.property)
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..pb::ResponseHeader::default()
    })
}

fn answered_put(value: &'static str, revision: i64) -> Call {
    let answer = Answer::Put(pb::PutResponse {
        header: header(revision),
        prev_kv: None,
    });
    call(Request::Put(put(value)), Outcome::Answered(answer), 10)
}

#[test]
fn a_write_that_stands_in_the_log_twice_is_seen() {
    let entry = |index| entry_of(index, |it| it.put = Some(put("a")));
    let calls = || vec![answered_put("a", 2)];
    assert_eq!(judged(vec![entry(1)], calls()), Ok(()));
    assert_eq!(judged(vec![entry(1), entry(2)], calls()), Err("write.once"));
}

#[test]
fn a_write_that_was_never_sent_and_stands_in_the_log_is_seen() {
    let calls = || vec![call(Request::Put(put("a")), Outcome::NotSent, 10)];
    assert_eq!(judged(Vec::new(), calls()), Ok(()));
    let entry = entry_of(1, |it| it.put = Some(put("a")));
    assert_eq!(judged(vec![entry], calls()), Err("write.not-sent"));
}

#[test]
fn an_answered_write_that_is_not_in_the_log_or_says_something_else_is_seen() {
    assert_eq!(
        judged(Vec::new(), vec![answered_put("a", 2)]),
        Err("durable.ack")
    );
    let entry = entry_of(1, |it| it.put = Some(put("a")));
    let wrong = judged(vec![entry], vec![answered_put("a", 3)]);
    assert_eq!(wrong, Err("linearizable.write"));
}

#[test]
fn a_read_that_is_older_than_what_was_answered_before_it_is_seen() {
    let read = |revision| {
        let request = pb::RangeRequest {
            key: "k".into(),
            ..pb::RangeRequest::default()
        };
        let answer = Answer::Range(pb::RangeResponse {
            header: header(revision),
            ..pb::RangeResponse::default()
        });
        call(Request::Range(request), Outcome::Answered(answer), 20)
    };
    let entry = || entry_of(1, |it| it.put = Some(put("a")));
    let stale = judged(vec![entry()], vec![answered_put("a", 2), read(1)]);
    assert_eq!(stale, Err("linearizable.read"));
    assert_eq!(
        judged(vec![entry()], vec![read(1)]),
        Ok(()),
        "nothing was answered"
    );
}

#[test]
fn a_watch_that_misses_a_change_is_seen() {
    let request = pb::WatchCreateRequest {
        key: "k".into(),
        start_revision: 1,
        ..pb::WatchCreateRequest::default()
    };
    let history = History {
        watches: vec![Watched {
            request,
            responses: Vec::new(),
            reached: 2,
        }],
        ..History::default()
    };
    let mut judge = judge(vec![entry_of(1, |it| it.put = Some(put("a")))]);
    let missed = judge.judge(&history).unwrap_err();
    assert_eq!(missed.property, "watch.delivery");
}

#[test]
fn a_lease_that_ends_before_its_time_is_seen() {
    let grant = pb::LeaseGrantRequest { ttl: 5, id: 7 };
    let entries = |ends_at: u64| {
        let fill = |index| match index {
            1 => entry_of(1, |it| it.lease_grant = Some(grant)),
            _ if index == ends_at => entry_of(index, |it| {
                it.lease_revoke = Some(pb::LeaseRevokeRequest { id: 7 })
            }),
            _ => entry_of(index, |it| it.put = Some(put("a"))),
        };
        (1..=ends_at).map(fill).collect::<Vec<_>>()
    };
    let granted = || {
        let answer = Answer::Grant(pb::LeaseGrantResponse {
            header: header(1),
            id: 7,
            ttl: 5,
            error: String::new(),
        });
        call(Request::Grant(grant), Outcome::Answered(answer), SECOND / 2)
    };
    let renewed = |at| {
        call(
            Request::KeepAlive(7),
            Outcome::Answered(Answer::KeepAlive(5)),
            at,
        )
    };
    assert_eq!(judged(entries(6), vec![granted()]), Ok(()));
    assert_eq!(judged(entries(5), vec![granted()]), Err("lease.not-early"));
    let late = judged(entries(6), vec![granted(), renewed(2 * SECOND)]);
    assert_eq!(late, Err("lease.not-early"), "it was renewed");
    assert_eq!(
        judged(entries(7), vec![granted(), renewed(2 * SECOND)]),
        Ok(())
    );
}
