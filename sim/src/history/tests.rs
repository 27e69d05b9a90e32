use super::*;

fn read(key: &str, value: &str, mod_revision: i64) -> Vec<Found> {
    let (key, value) = (key.to_owned(), value.to_owned());
    vec![Found::Got(vec![KeyValue {
        key,
        value,
        mod_revision,
    }])]
}

fn nothing() -> Vec<Found> {
    vec![Found::Got(Vec::new())]
}

fn swap(began_ns: u64, key: &str, expected: i64, value: &str) -> Operation {
    Operation {
        compares: vec![Compare {
            key: key.to_owned(),
            is: Is::ModRevision(expected),
        }],
        failure: vec![Step::Get(Keys::one(key))],
        ..Operation::put(0, began_ns, key, value)
    }
}

fn refused(mut operation: Operation, ended_ns: u64, revision: i64, found: Vec<Found>) -> Operation {
    operation = operation.answered(ended_ns, revision, found);
    operation.answer.as_mut().unwrap().succeeded = false;
    operation
}

fn put(began_ns: u64, key: &str, value: &str, revision: i64) -> Operation {
    Operation::put(0, began_ns, key, value).answered(began_ns + 5, revision, vec![Found::Put])
}

fn get(began_ns: u64, key: &str, found: Vec<Found>, revision: i64) -> Operation {
    Operation::get(1, began_ns, key).answered(began_ns + 5, revision, found)
}

fn judge(operations: &[Operation]) -> Result<Compared, Fault> {
    let history = History(operations.to_vec());
    // What is written can be read.
    let text: String = operations
        .iter()
        .map(|operation| write_line(operation) + "\n\n")
        .collect();
    let (again, lines) = read_lines(text.as_bytes()).unwrap();
    assert_eq!(again, history);
    assert_eq!(lines.last().copied(), Some(operations.len() * 2 - 1));
    history.judge()
}

fn violation(operations: &[Operation]) -> (usize, String) {
    match judge(operations).unwrap_err() {
        Fault::Violation {
            operation, reason, ..
        } => (operation, reason),
        other => panic!("{other}"),
    }
}

#[test]
fn a_sound_history_is_accepted() {
    let compared = judge(&[
        put(0, "k", "a", 2),
        get(10, "k", read("k", "a", 2), 2),
        Operation::put(0, 11, "k", "lost"),
        Operation::put(0, 12, "k", "b"),
        get(20, "k", read("k", "b", 3), 3),
        swap(30, "k", 3, "c").answered(35, 4, vec![Found::Put]),
        refused(swap(40, "k", 3, "d"), 45, 4, read("k", "c", 4)),
        Operation::delete(0, 50, "k").answered(55, 5, vec![Found::Deleted(1)]),
        Operation::delete(0, 60, "k").answered(65, 5, vec![Found::Deleted(0)]),
        get(70, "k", nothing(), 5),
    ]);
    let compared = compared.unwrap();
    assert_eq!((compared.writes, compared.reads), (3, 5));
    assert_eq!((compared.unknown, compared.unknown_seen), (2, 1));
}

#[test]
fn a_put_is_supposed_where_a_swap_began_too_late() {
    let compared = judge(&[
        Operation::put(0, 10, "k", "lost"),
        put(20, "other", "a", 3),
        // It would be done, but no revision is left for it.
        swap(30, "k", 0, "late"),
        Operation::delete(0, 40, "k").answered(45, 4, vec![Found::Deleted(1)]),
    ]);
    assert_eq!(compared.unwrap().unknown_seen, 1);
}

#[test]
fn a_stale_read_is_seen() {
    let stale = [
        put(0, "k", "a", 2),
        put(10, "k", "b", 3),
        get(20, "k", read("k", "a", 2), 2),
    ];
    assert_eq!(violation(&stale).0, 2);
    // And so is one that lies about its revision.
    let lying = [
        put(0, "k", "a", 2),
        put(10, "k", "b", 3),
        get(20, "k", read("k", "a", 2), 3),
    ];
    assert_eq!(violation(&lying).0, 2);
}

#[test]
fn a_lost_write_is_seen() {
    let lost = [
        put(0, "k", "a", 2),
        put(10, "k", "b", 3),
        put(20, "j", "c", 4),
        get(30, "k", read("k", "a", 2), 4),
    ];
    let (operation, reason) = violation(&lost);
    assert_eq!(operation, 3);
    assert!(reason.contains("\"b\" of revision 3"), "{reason}");
    let gone = [put(0, "k", "a", 2), get(10, "k", nothing(), 2)];
    assert_eq!(violation(&gone).0, 1);
}

#[test]
fn a_write_that_happens_twice_is_seen() {
    let twice = [
        Operation::put(0, 0, "k", "a"),
        get(10, "k", read("k", "a", 2), 2),
        put(20, "k", "b", 3),
        get(30, "k", read("k", "a", 4), 4),
    ];
    assert_eq!(violation(&twice).0, 3);
    let known = [
        put(0, "k", "a", 2),
        put(10, "k", "b", 3),
        get(20, "k", read("k", "a", 4), 4),
    ];
    assert_eq!(violation(&known).0, 2);
}

#[test]
fn a_value_that_nobody_wrote_is_seen() {
    let ghost = [put(0, "k", "a", 2), get(10, "k", read("k", "ghost", 3), 3)];
    assert_eq!(violation(&ghost).0, 1);
    let refused_but_done = [
        put(0, "k", "a", 2),
        refused(swap(10, "k", 1, "b"), 15, 2, read("k", "a", 2)),
        get(20, "k", read("k", "b", 3), 3),
    ];
    assert_eq!(violation(&refused_but_done).0, 2);
}

#[test]
fn what_is_in_another_order_than_real_time_is_seen() {
    let reordered = [put(0, "k", "a", 3), put(10, "j", "b", 2)];
    assert_eq!(violation(&reordered).0, 1);
    let one_revision = [put(0, "k", "a", 2), put(1, "j", "b", 2)];
    violation(&one_revision);
    // A write that began after a read of revision 3 had ended cannot have been at 2 or 3.
    let early = [
        put(0, "j", "x", 4),
        get(0, "j", nothing(), 3),
        Operation::put(0, 10, "k", "a"),
        get(20, "k", read("k", "a", 3), 4),
    ];
    violation(&early);
}

#[test]
fn a_swap_of_what_was_not_there_is_seen() {
    let wrong = [
        put(0, "k", "a", 2),
        put(10, "k", "b", 3),
        swap(20, "k", 2, "c").answered(25, 4, vec![Found::Put]),
    ];
    assert_eq!(violation(&wrong).0, 2);
    let refused_for_nothing = [
        put(0, "k", "a", 2),
        refused(swap(10, "k", 2, "c"), 15, 2, read("k", "a", 2)),
    ];
    assert_eq!(violation(&refused_for_nothing).0, 1);
}

#[test]
fn unknown_writes_explain_each_other() {
    // The swap needs the put, which nobody has read: both must be supposed at once.
    let chain = [
        put(0, "k", "a", 2),
        Operation::put(0, 10, "k", "b"),
        swap(11, "k", 3, "c"),
        get(20, "k", read("k", "c", 4), 4),
    ];
    assert_eq!(judge(&chain).unwrap().unknown_seen, 2);
    // And there must be room for it.
    let no_room = [
        put(0, "k", "a", 2),
        put(0, "j", "x", 3),
        Operation::put(0, 10, "k", "b"),
        swap(11, "k", 3, "c"),
        get(20, "k", read("k", "c", 4), 4),
    ];
    assert_eq!(violation(&no_room).0, 4);
}

#[test]
fn a_refusal_alone_tells_that_an_unknown_write_happened() {
    let mut history = vec![
        put(0, "k", "a", 2),
        Operation::put(0, 10, "k", "b"),
        Operation::put(0, 10, "k", "c"),
        Operation {
            failure: Vec::new(),
            ..swap(20, "k", 2, "d")
        },
    ];
    history[3] = refused(history[3].clone(), 25, 3, Vec::new());
    judge(&history).unwrap();
    history.push(get(30, "k", read("k", "b", 3), 3));
    judge(&history).unwrap();
    history[4] = get(30, "k", read("k", "a", 2), 3);
    assert_eq!(violation(&history).0, 4);
    // A later read may tell that it happened after a refusal that had another reason.
    let later = [
        put(0, "k", "a", 2),
        Operation::put(0, 1, "k", "b"),
        refused(
            Operation {
                failure: Vec::new(),
                ..swap(20, "k", 7, "d")
            },
            25,
            4,
            Vec::new(),
        ),
        get(30, "k", read("k", "b", 3), 4),
    ];
    judge(&later).unwrap();
}

#[test]
fn unknown_deletions_are_found_and_used_once() {
    let history = |times: u64| {
        let mut history = vec![Operation::delete(0, 0, "k"); 2];
        for time in 0..times {
            let at = time as i64 * 2;
            history.push(put(100 * time, "k", &format!("{time}"), 2 + at));
            history.push(get(100 * time + 50, "k", nothing(), 3 + at));
        }
        history
    };
    assert_eq!(judge(&history(2)).unwrap().unknown_seen, 2);
    assert_eq!(violation(&history(3)).0, 7);
}

#[test]
fn ranges_show_all_keys_at_once() {
    let range = |began_ns, found: &[(&str, &str, i64)], revision| {
        let found = found.iter().map(|(key, value, mod_revision)| KeyValue {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            mod_revision: *mod_revision,
        });
        let keys = Keys {
            key: "a".to_owned(),
            range_end: Some("c".to_owned()),
        };
        Operation::of(0, began_ns, Step::Get(keys)).answered(
            began_ns + 5,
            revision,
            vec![Found::Got(found.collect())],
        )
    };
    let both = [
        put(0, "a", "1", 2),
        Operation::put(0, 1, "b", "2"),
        put(2, "c", "3", 4),
        range(10, &[("a", "1", 2), ("b", "2", 3)], 4),
    ];
    assert_eq!(judge(&both).unwrap().groups, 2);
    let torn = [
        put(0, "a", "1", 2),
        put(0, "b", "2", 3),
        range(0, &[("b", "2", 3)], 3),
    ];
    assert_eq!(violation(&torn).0, 2);
}

#[test]
fn one_unknown_transaction_has_one_revision() {
    let both = |began_ns| Operation {
        success: vec![
            Step::Put {
                key: "a".to_owned(),
                value: "1".to_owned(),
            },
            Step::Put {
                key: "b".to_owned(),
                value: "1".to_owned(),
            },
        ],
        ..Operation::put(0, began_ns, "", "")
    };
    let sound = [
        both(0),
        get(10, "a", read("a", "1", 2), 2),
        get(20, "b", read("b", "1", 2), 2),
    ];
    judge(&sound).unwrap();
    let torn = [
        both(0),
        get(10, "a", read("a", "1", 2), 2),
        get(20, "b", nothing(), 2),
    ];
    assert_eq!(violation(&torn).0, 2);
}

#[test]
fn a_search_that_is_too_long_says_so() {
    let mut history = vec![put(0, "k", "a", 2)];
    history.extend((0..50).map(|it| Operation::put(0, 1, "k", &format!("b{it}"))));
    history.push(get(10, "k", read("k", "b49", 3), 3));
    let judged = History(history).judge_within(1);
    assert!(matches!(judged, Err(Fault::GaveUp { .. })), "{judged:?}");
}

#[test]
fn answers_that_fit_no_question_are_refused() {
    let malformed = [
        put(5, "k", "a", 2).answered(1, 2, vec![Found::Put]),
        put(5, "k", "a", 2).answered(9, 2, Vec::new()),
        put(5, "k", "a", 2).answered(9, 2, nothing()),
        get(5, "k", read("j", "a", 2), 2),
    ];
    for operation in malformed {
        let judged = History(vec![operation]).judge();
        assert!(matches!(judged, Err(Fault::Malformed { .. })), "{judged:?}");
    }
}

#[test]
fn lines_that_make_no_sense_are_named() {
    let good = r#"{"began_ns": 1, "put": {"key": "k", "value": "v"}}"#;
    for (line, reason) in [
        ("{", "EOF"),
        ("[]", "the line must be an object"),
        (r#"{"began_ns": 1}"#, "one of put, get, delete and txn"),
        (
            r#"{"put": {"key": "k", "value": "v"}}"#,
            "has no \"began_ns\"",
        ),
        (
            r#"{"began_ns": -1, "get": {"key": "k"}}"#,
            "must be a number of nanoseconds",
        ),
        (
            r#"{"began_ns": 1, "get": {"key": "k"}, "extra": 1}"#,
            "unknown field \"extra\"",
        ),
        (
            r#"{"began_ns": 1, "get": {"key": "k"}, "ended_ns": 2, "revision": 2}"#,
            "has no \"kvs\"",
        ),
        (
            r#"{"began_ns": 1, "get": {"key": "k"}, "put": {"key": "k", "value": "v"}}"#,
            "one of put, get and delete",
        ),
    ] {
        let text = format!("{good}\n{line}\n");
        let error = read_lines(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.to_string().contains(reason), "{error}");
    }
}
