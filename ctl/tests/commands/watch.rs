//! `watch`: what it prints, what it runs, and what it refuses.

use expect_test::expect;

use super::{check, run_with};

#[test]
fn watch_prints_events_until_the_server_ends_it() {
    check(
        "watch a --prev-kv",
        expect![[r#"
        PUT
        a
        va"l
        DELETE
        a
        va"l
        a

        2> watch was canceled (etcdserver: no more)
        2> Error: watch is canceled by the server
        exit 5
    "#]],
    );
    check(
        "watch a --rev 1 -w json",
        expect![[r#"
        {"Header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"raft_term":2},"Events":null,"CompactRevision":4,"Canceled":true,"Created":false,"CancelReason":""}
        2> watch was canceled (etcdserver: mvcc: required revision has been compacted)
        2> Error: watch is canceled by the server
        exit 5
    "#]],
    );
}

#[test]
fn watch_runs_a_command_for_each_event() {
    let script =
        "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $0";
    let (text, _) = run_with(&["watch", "a", "--", "sh", "-c", script, "x"], b"", &[]);
    let commands: Vec<&str> = text.lines().filter(|line| line.ends_with(" x")).collect();
    assert_eq!(
        commands,
        [r#"5 "PUT" "a" "va\"l" x"#, r#"5 "DELETE" "a" "" x"#]
    );

    let (text, _) = run_with(&["watch", "a", "--", "false"], b"", &[]);
    assert!(
        text.ends_with("2> command [\"false\"] error (exit status 1)\nexit 1\n"),
        "{text}"
    );
}

#[test]
fn watch_takes_its_key_from_one_place() {
    check(
        "watch",
        expect![[r#"
        2> Error: bad number of arguments
        exit 128
    "#]],
    );
    check(
        "watch a --",
        expect![[r#"
        2> Error: bad number of arguments (found separator --, but no commands)
        exit 128
    "#]],
    );
    check(
        "watch a b --prefix",
        expect![[r#"
        2> Error: `range_end` and `--prefix` are mutually exclusive
        exit 128
    "#]],
    );
    expect![[r#"
        2> Error: bad number of arguments (found conflicting environment key)
        exit 128
    "#]]
    .assert_eq(&run_with(&["watch", "x"], b"", &[("ETCDCTL_WATCH_KEY", "w")]).0);
    expect![[r#"
        2> Error: ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END="w/"
        exit 128
    "#]]
    .assert_eq(&run_with(&["watch", "x"], b"", &[("ETCDCTL_WATCH_RANGE_END", "w/")]).0);
}

#[test]
fn interactive_watch_reads_lines_until_there_are_none() {
    expect![[r#"
        2> Invalid command foo (only support watch)
        2> Invalid command:  (watch and progress supported)
        2> Invalid command watch (command type or key is not provided)
        2> Invalid command watch a b --prefix (`range_end` and `--prefix` are mutually exclusive)
        2> Error: error reading watch request line: EOF
        exit 3
    "#]]
    .assert_eq(&run_with(&["watch", "-i"], b"foo\n\nwatch\nwatch a b --prefix\n", &[]).0);
}
