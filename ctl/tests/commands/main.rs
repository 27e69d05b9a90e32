//! The binary against a server with canned answers. Expected outputs are etcdctl 3.7.1's: captured literally where the
//! canned answer is the captured one; elsewhere (some leases, watch) the form is captured and the values are the canned
//! ones. Where words are our own, the test says so.

mod auth;
#[path = "../../../server/tests/members/authority.rs"]
#[expect(dead_code, reason = "the server's tests want more of it")]
mod authority;
#[path = "../../../server/tests/members/name_server.rs"]
mod name_server;
mod security;
mod server;
mod srv;
mod watch;

use std::io::Write;
use std::process::{Command, Stdio};

use expect_test::{Expect, expect};

/// Runs a command line with stdin and variables; gives output, errors and exit code as one text.
fn run_with(arguments: &[&str], input: &[u8], variables: &[(&str, &str)]) -> (String, Vec<String>) {
    let (address, asked) = server::start();
    let text = run_at(&address.to_string(), arguments, input, variables);
    let asked = asked.lock().expect("no panic").clone();
    (text, asked)
}

/// The same with a server of the test's own.
fn run_at(endpoint: &str, arguments: &[&str], input: &[u8], variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quoratectl"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCDCTL_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(["--endpoints", endpoint])
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    let mut text = String::from_utf8(output.stdout).expect("UTF-8");
    for line in String::from_utf8(output.stderr).expect("UTF-8").lines() {
        // Times differ from run to run.
        let line = match line.split_once("\"ts\":\"") {
            Some((head, tail)) => format!("{head}\"ts\":\"T{}", &tail[27..]),
            None => line.to_string(),
        };
        text += &format!("2> {line}\n");
    }
    text += &format!("exit {}\n", output.status.code().expect("no signal"));
    text
}

fn check(command_line: &str, expected: Expect) {
    let arguments: Vec<&str> = command_line.split_whitespace().collect();
    expected.assert_eq(&run_with(&arguments, b"", &[]).0);
}

#[test]
fn put_prints_the_previous_key_in_every_format() {
    check(
        "put a 2",
        expect![[r#"
        OK
        exit 0
    "#]],
    );
    check(
        "put a 2 --prev-kv",
        expect![[r#"
        OK
        a
        2
        exit 0
    "#]],
    );
    check(
        "put a 2 --prev-kv -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":4,"raft_term":2},"prev_kv":{"key":"YQ==","create_revision":2,"mod_revision":3,"version":2,"value":"Mg=="}}
        exit 0
    "#]],
    );
    check(
        "put a 2 --prev-kv -w fields",
        expect![[r#"
        "ClusterID" : 10144879847569953045
        "MemberID" : 12428976124636271536
        "Revision" : 4
        "RaftTerm" : 2
        "PrevKey" : "a"
        "PrevCreateRevision" : 2
        "PrevModRevision" : 3
        "PrevVersion" : 2
        "PrevValue" : "2"
        "PrevLease" : 0
        exit 0
    "#]],
    );
    check(
        "put a 3 -w table",
        expect![[r#"
        2> Error: table not supported as output format
        exit 4
    "#]],
    );
}

#[test]
fn get_prints_every_format() {
    check(
        "get a",
        expect![[r#"
        a
        3
        exit 0
    "#]],
    );
    check(
        "get a --hex",
        expect![[r#"
        \x61
        \x33
        exit 0
    "#]],
    );
    check(
        "get a --print-value-only",
        expect![[r#"
        3
        exit 0
    "#]],
    );
    check(
        "get a -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":6,"raft_term":2},"kvs":[{"key":"YQ==","create_revision":2,"mod_revision":6,"version":5,"value":"Mw=="}],"count":1}
        exit 0
    "#]],
    );
    check(
        "get zz -w json",
        expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":6,"raft_term":2}}
        exit 0
    "#]],
    );
    check(
        "get a -w fields --hex",
        expect![[r#"
        "ClusterID" : 8cc9da78b36d1115
        "MemberID" : ac7c97ef0ec193b0
        "Revision" : 6
        "RaftTerm" : 2
        "Key" : "a"
        "CreateRevision" : 2
        "ModRevision" : 6
        "Version" : 5
        "Value" : "3"
        "Lease" : 0000000000000000
        "More" : false
        "Count" : 1
        exit 0
    "#]],
    );
}

#[test]
fn wrong_arguments_have_etcdctls_words_and_exit_codes() {
    check(
        "get",
        expect![[r#"
        2> Error: get command needs one argument as key and an optional argument as range_end
        exit 128
    "#]],
    );
    check(
        "get a b --prefix",
        expect![[r#"
        2> Error: too many arguments, only accept one argument when `--prefix` or `--from-key` is set
        exit 128
    "#]],
    );
    check(
        "get a --count-only",
        expect![[r#"
        2> Error: --count-only is only for `--write-out=fields`
        exit 128
    "#]],
    );
    check(
        "get a --order foo",
        expect![[r#"
        2> Error: bad sort order foo
        exit 4
    "#]],
    );
    check(
        "get a -w foo",
        expect![[r#"
        2> Error: unsupported output format
        exit 4
    "#]],
    );
    check(
        "get a --min-mod-rev 4 --max-mod-rev 3",
        expect![[r#"
        2> Error: getMinModRev(=4) > getMaxModRev(=3)
        exit 4
    "#]],
    );
    check(
        "get --rev 1000 a",
        expect![[r#"
        2> Error: etcdserver: mvcc: required revision is a future revision
        exit 1
    "#]],
    );
    check(
        "put a 1 --lease zz",
        expect![[r#"
        2> Error: bad lease ID (strconv.ParseInt: parsing "zz": invalid syntax), expecting ID in Hex
        exit 128
    "#]],
    );
    check(
        "put x",
        expect![[r#"
        2> Error: put command needs 1 argument and input from stdin or 2 arguments
        exit 128
    "#]],
    );
    check(
        "foo",
        expect![[r#"
        2> Error: unknown command "foo" for "quoratectl"
        2> Run 'quoratectl --help' for usage.
        exit 1
    "#]],
    );
    check(
        "get a --foo",
        expect![[r#"
        2> Error: unknown flag: --foo
        exit 1
    "#]],
    );
}

#[test]
fn an_empty_file_name_is_refused() {
    check(
        "--cert= get a",
        expect![[r#"
        2> Error: empty string is passed to --cert option
        exit 128
    "#]],
    );
}

#[test]
fn arguments_become_the_request_that_etcdctl_makes() {
    let asked = |arguments: &[&str]| run_with(arguments, b"", &[]).1.join("");
    let range = asked(&["get", "", "--prefix", "--order=ascend", "--limit", "0x2"]);
    assert!(
        range.contains(r#"key: b"\0", range_end: b"\0", limit: 2"#),
        "{range}"
    );
    assert!(range.contains("sort_order: None"), "{range}");
    let range = asked(&[
        "ge",
        "a",
        "--from-key",
        "--consistency=s",
        "--sort-by",
        "Version",
    ]);
    assert!(range.contains(r#"key: b"a", range_end: b"\0""#), "{range}");
    assert!(
        range.contains("sort_target: Version, serializable: true"),
        "{range}"
    );
    let put = asked(&["put", "--lease", "ff", "--", "k", "-5"]);
    assert!(
        put.contains(r#"key: b"k", value: b"-5", lease: 255"#),
        "{put}"
    );
    let put = run_with(&["put", "k"], b"line\n", &[]).1.join("");
    assert!(put.contains(r#"value: b"line\n""#), "{put}");
    let delete = asked(&["del", "a", "b", "--range"]);
    assert!(delete.contains(r#"key: b"a", range_end: b"b""#), "{delete}");
}

#[test]
fn variables_stand_for_flags_and_never_beside_them() {
    let run = |arguments: &[&str], name, value| run_with(arguments, b"", &[(name, value)]).0;
    expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":6,"raft_term":2}}
        exit 0
    "#]]
    .assert_eq(&run(&["get", "zz"], "ETCDCTL_WRITE_OUT", "json"));
    expect![[r#"
        exit 0
    "#]]
    .assert_eq(&run(&["get", "zz"], "ETCDCTL_DIAL_TIMEOUT", "foo"));
    // The line is ours; etcdctl's has caller and stack trace, too.
    expect![[r#"
        2> {"level":"fatal","ts":"T","msg":"conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))","environment-variable":"ETCDCTL_WRITE_OUT"}
        exit 1
    "#]]
    .assert_eq(&run(&["get", "zz", "-w", "json"], "ETCDCTL_WRITE_OUT", "json"));
    expect![[r#"
        2> {"level":"warn","ts":"T","msg":"unrecognized environment variable","environment-variable":"ETCDCTL_API=3"}
        exit 0
    "#]]
    .assert_eq(&run(&["get", "zz"], "ETCDCTL_API", "3"));
}

#[test]
fn txn_reads_three_blocks() {
    let input = b"mod(\"a\") > \"0\"\n\nget a\nput a \"x y\"\n\nput b 1\n\n";
    let (text, asked) = run_with(&["txn", "-w", "json"], input, &[]);
    expect![[r#"
        {"header":{"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":12,"raft_term":2},"responses":[{"Response":{"response_put":{"header":{"revision":12}}}}]}
        exit 0
    "#]]
    .assert_eq(&text);
    assert!(asked[0].contains(r#"value: b"x y""#), "{asked:?}");
    expect![[r#"
        compares:
        success requests (get, put, del):
        failure requests (get, put, del):
        FAILURE

        OK
        exit 0
    "#]]
    .assert_eq(&run_with(&["txn", "-i"], b"\n\n\n", &[]).0);
    expect![[r#"
        2> Error: EOF
        exit 3
    "#]]
    .assert_eq(&run_with(&["txn"], b"\n", &[]).0);
    expect![[r#"
        2> Error: malformed comparison: mod("a") > 0; got mod("a") > ""
        exit 3
    "#]]
    .assert_eq(&run_with(&["txn"], b"mod(\"a\") > 0\n\n\n\n", &[]).0);
}

#[test]
fn compaction_prints_the_same_in_every_format() {
    check(
        "compaction 2 -w json",
        expect![[r#"
        compacted revision 2
        exit 0
    "#]],
    );
    check(
        "compaction x",
        expect![[r#"
        2> Error: strconv.ParseInt: parsing "x": invalid syntax
        exit 1
    "#]],
    );
}

#[test]
fn leases_are_printed_in_every_format() {
    check(
        "lease grant 100",
        expect![[r#"
        lease 13b0a20747dbb337 granted with TTL(100s)
        exit 0
    "#]],
    );
    check(
        "lease grant 100 -w json",
        expect![[r#"
        {"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":11,"raft_term":2,"ID":1418812034775757623,"TTL":100,"Error":""}
        exit 0
    "#]],
    );
    check(
        "lease list",
        expect![[r#"
        found 2 leases
        13b0a20747dbb31f
        13b0a20747dbb32b
        exit 0
    "#]],
    );
    check(
        "lease list -w json",
        expect![[r#"
        {"cluster_id":10144879847569953045,"member_id":12428976124636271536,"revision":10,"raft_term":2,"leases":[{"id":1418812034775757599},{"id":1418812034775757611}]}
        exit 0
    "#]],
    );
    check(
        "lease timetolive --keys 13b0a20747dbb35b",
        expect![[r#"
        lease 13b0a20747dbb35b granted with TTL(100s), remaining(99s), attached keys([ll ll2])
        exit 0
    "#]],
    );
    check(
        "lease timetolive 99",
        expect![[r#"
        lease 0000000000000099 already expired
        exit 0
    "#]],
    );
    check(
        "lease timetolive --keys 13b0a20747dbb35b -w fields",
        expect![[r#"
        "ClusterID" : 10144879847569953045
        "MemberID" : 12428976124636271536
        "Revision" : 16
        "RaftTerm" : 2
        "ID" : 1418812034775757659
        "TTL" : 99
        "GrantedTTL" : 100
        "Key" : "ll"
        "Key" : "ll2"
        exit 0
    "#]],
    );
}

#[test]
fn leases_that_are_gone_end_each_command_its_own_way() {
    check(
        "lease revoke 99",
        expect![[r#"
        2> Error: failed to revoke lease (etcdserver: requested lease not found)
        exit 1
    "#]],
    );
    check(
        "lease keep-alive --once 99",
        expect![[r#"
        2> Error: etcdserver: requested lease not found
        exit 2
    "#]],
    );
    check(
        "lease keep-alive 13b0a20747dbb35b",
        expect![[r#"
        lease 13b0a20747dbb35b expired or revoked.
        exit 0
    "#]],
    );
    check(
        "lease grant 99999999999999999999",
        expect![[r#"
        2> Error: bad TTL (strconv.ParseInt: parsing "99999999999999999999": value out of range)
        exit 128
    "#]],
    );
}

#[test]
fn members_are_listed_in_every_format() {
    check(
        "member list",
        expect![[r#"
        ac7c97ef0ec193b0, started, m1, http://127.0.0.1:23791, http://127.0.0.1:23790, false
        exit 0
    "#]],
    );
    check(
        "mem li --hex -w json",
        expect![[r#"
        {"header":{"cluster_id":"8cc9da78b36d1115","member_id":"ac7c97ef0ec193b0","raft_term":2},"members":[{"ID":"ac7c97ef0ec193b0","name":"m1","peerURLs":["http://127.0.0.1:23791"],"clientURLs":["http://127.0.0.1:23790"]}]}
        exit 0
    "#]],
    );
    check(
        "member list -w table",
        expect![[r#"
        ┌──────────────────┬─────────┬──────┬────────────────────────┬────────────────────────┬────────────┐
        │        ID        │ STATUS  │ NAME │       PEER ADDRS       │      CLIENT ADDRS      │ IS LEARNER │
        ├──────────────────┼─────────┼──────┼────────────────────────┼────────────────────────┼────────────┤
        │ ac7c97ef0ec193b0 │ started │   m1 │ http://127.0.0.1:23791 │ http://127.0.0.1:23790 │      false │
        └──────────────────┴─────────┴──────┴────────────────────────┴────────────────────────┴────────────┘
        exit 0
    "#]],
    );
}

#[test]
fn version_names_the_etcdctl_that_it_equals() {
    check(
        "version -w json",
        expect![[r#"
        etcdctl version: 3.7.1
        API version: 3.7
        exit 0
    "#]],
    );
}
