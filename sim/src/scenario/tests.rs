//! Bad files are refused with what was found, what was expected, and where; good ones mean the same every time.

use expect_test::{Expect, expect};

use super::Scenario;
use crate::load::{Target as LoadTarget, WatchStart, Work};
use crate::plan::{Kind, Shape, Target, Trigger, Way};

const GOOD: &str = r#"format = 1
name = "x"
[[load]]
kind = "put"
"#;

fn refused(text: &str, expected: Expect) {
    let error = Scenario::parse("x.toml", text).expect_err("a bad file");
    expected.assert_eq(&error.to_string());
}

/// A good file with a line more.
fn refused_with(line: &str, expected: Expect) {
    refused(&format!("{GOOD}{line}"), expected);
}

/// The same, for messages that list what others add to.
fn begins_with(line: &str, expected: &str) {
    let error = Scenario::parse("x.toml", &format!("{GOOD}{line}")).expect_err("a bad file");
    let text = error.to_string();
    assert!(text.starts_with(expected), "{text}");
}

fn parse(text: &str) -> Scenario {
    match Scenario::parse("x.toml", text) {
        Ok(scenario) => scenario,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_not_toml_is_refused_where_it_stops_being_so() {
    refused(
        "format = 1\nname = x\n",
        expect![[r#"
        x.toml:2:8: string values must be quoted, expected literal string
         2 | name = x
           |        ^"#]],
    );
    refused(
        "format = 1\nformat = 1\n",
        expect![[r#"
        x.toml:2:1: duplicate key
         2 | format = 1
           | ^^^^^^"#]],
    );
}

#[test]
fn format_and_name_must_be_there_and_known() {
    refused(
        "",
        expect![[r#"
        x.toml:1:1: a scenario has no `format`, expected `format = 1`
         1 | 
           | ^"#]],
    );
    refused(
        "format = 2\n",
        expect![[r#"
        x.toml:1:10: found 2, expected 1, the only version of the format that is known here
         1 | format = 2
           |          ^"#]],
    );
    refused(
        "format = \"1\"\n",
        expect![[r#"
        x.toml:1:10: found "1", expected 1, the only version of the format that is known here
         1 | format = "1"
           |          ^^^"#]],
    );
    refused(
        "format = 1\n",
        expect![[r#"
        x.toml:1:1: a scenario has no `name`, expected the name of the scenario
         1 | format = 1
           | ^"#]],
    );
    refused(
        "format = 1\nname = 7\n",
        expect![[r#"
        x.toml:2:8: found 7, expected the name of the scenario
         2 | name = 7
           |        ^"#]],
    );
    refused(
        "format = 1\nname = \"x\"\n",
        expect![[r#"
        x.toml:1:1: found no [[load]], expected at least one
         1 | format = 1
           | ^"#]],
    );
}

#[test]
fn unknown_keys_are_refused() {
    refused_with(
        "rte = 7\n",
        expect![[r#"
        x.toml:5:1: found the key `rte`, expected of [[load]] are `kind`, `clients`, `keys`, `value_bytes`, `target`, `pause`, `rate`
         5 | rte = 7
           | ^^^"#]],
    );
    refused(
        "format = 1\nname = \"x\"\ncolour = \"red\"\n",
        expect![[r#"
            x.toml:3:1: found the key `colour`, expected of a scenario are `format`, `name`, `base`, `cluster`, `storage`, `disk`, `network`, `comparisons`, `clocks`, `time`, `load`, `fault`, `swarm`, `expect`, `skip`
             3 | colour = "red"
               | ^^^^^^"#]],
    );
    refused_with(
        "[network]\ndelay = \"1ms\"\nlos = 0.5\n",
        expect![[r#"
        x.toml:7:1: found the key `los`, expected of [network] are `delay`, `loss`, `repeat`, `overtake`, `bytes_per_second`, `queue`, `hold`
         7 | los = 0.5
           | ^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\nfrom = \"1s\"\nshape = \"halves\"\n",
        expect![[r#"
        x.toml:8:1: found the key `shape`, expected of [[fault]] are `do`, `id`, `node`, `from`, `for`, `until`, `p`, `repeat`, `every`
         8 | shape = "halves"
           | ^^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"reset\"\nfrom = \"1s\"\nfor = \"1s\"\n",
        expect![[r#"
        x.toml:8:1: found the key `for`, expected of [[fault]] are `do`, `id`, `node`, `from`, `p`, `repeat`, `every`
         8 | for = "1s"
           | ^^^"#]],
    );
}

#[test]
fn values_of_the_wrong_type_or_unit_are_refused() {
    refused_with(
        "[network]\nloss = \"much\"\n",
        expect![[r#"
        x.toml:6:8: found "much", expected a share from 0 to 1 such as 0.05
         6 | loss = "much"
           |        ^^^^^^"#]],
    );
    refused_with(
        "[network]\nloss = 1.5\n",
        expect![[r#"
        x.toml:6:8: found 1.5, expected a share from 0 to 1 such as 0.05
         6 | loss = 1.5
           |        ^^^"#]],
    );
    refused_with(
        "[network]\ndelay = 5\n",
        expect![[r#"
        x.toml:6:9: found 5, expected a duration such as "250ms" or "5s", which is not zero
         6 | delay = 5
           |         ^"#]],
    );
    refused_with(
        "[network]\ndelay = \"5 ms\"\n",
        expect![[r#"
        x.toml:6:9: found "5 ms", expected a duration such as "250ms" or "5s", which is not zero
         6 | delay = "5 ms"
           |         ^^^^^^"#]],
    );
    refused_with(
        "[network]\nhold = 1\n",
        expect![[r#"
        x.toml:6:8: found 1, expected true or false
         6 | hold = 1
           |        ^"#]],
    );
    refused_with(
        "[cluster]\nmembers = 9\n",
        expect![[r#"
        x.toml:6:11: found 9, expected a whole number from 1 to 5
         6 | members = 9
           |           ^"#]],
    );
    refused_with(
        "[cluster]\nmembers = [3, 4, 5]\n",
        expect![[r#"
        x.toml:6:11: found an array of 3, expected [first, last], between which is drawn
         6 | members = [3, 4, 5]
           |           ^^^^^^^^^"#]],
    );
    refused_with(
        "[cluster]\nmembers = [5, 3]\n",
        expect![[r#"
        x.toml:6:11: found 5 before 3, expected the smaller one first
         6 | members = [5, 3]
           |           ^^^^^^"#]],
    );
    refused_with(
        "[cluster]\nmembers = { one_of = [] }\n",
        expect![[r#"
        x.toml:6:22: found nothing to choose from, expected at least one value
         6 | members = { one_of = [] }
           |                      ^^"#]],
    );
    refused_with(
        "[cluster]\nmembers = { any_of = [1] }\n",
        expect![[r#"
        x.toml:6:11: a choice has no `one_of`, expected an array of values
         6 | members = { any_of = [1] }
           |           ^^^^^^^^^^^^^^^^"#]],
    );
    refused(
        "cluster = 3\nformat = 1\nname = \"x\"\n",
        expect![[r#"
        x.toml:1:11: found 3, expected the table [cluster]
         1 | cluster = 3
           |           ^"#]],
    );
}

#[test]
fn unknown_names_are_refused_with_those_that_are_known() {
    refused(
        "format = 1\nname = \"x\"\n[[load]]\nkind = \"putt\"\n",
        expect![[r#"
        x.toml:4:8: found "putt", expected one of "mixed", "put", "get", "get-serializable", "range", "range-serializable", "delete", "txn", "cas-chain", "register", "lease", "lock", "election", "watch", "compaction", "checkpoint", "auth"
         4 | kind = "putt"
           |        ^^^^^^"#]],
    );
    refused_with(
        "target = \"everybody\"\n",
        expect![[r#"
        x.toml:5:10: found "everybody", expected one of "any", "each-member", "leader", "follower"
         5 | target = "everybody"
           |          ^^^^^^^^^^^"#]],
    );
    begins_with(
        "[[fault]]\ndo = \"explode\"\nfrom = \"1s\"\n",
        "x.toml:6:6: found \"explode\", expected one of \"crash\", ",
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\nnode = \"m4\"\nfrom = \"1s\"\n",
        expect![[r#"
        x.toml:7:8: found "m4", expected "any", "leader", "follower", "m1" to "m3", "ID.target" or "not ID.target" of a fault above
         7 | node = "m4"
           |        ^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\nnode = \"cut.target\"\nfrom = \"1s\"\n",
        expect![[r#"
        x.toml:7:8: found "cut.target", expected "any", "leader", "follower", "m1" to "m3", "ID.target" or "not ID.target" of a fault above
         7 | node = "cut.target"
           |        ^^^^^^^^^^^^"#]],
    );
    begins_with(
        "[expect]\npass = [\"raft.*\", \"raff.*\"]\n",
        "x.toml:6:19: found \"raff.*\", which names no checker, expected some of ",
    );
    begins_with(
        "[expect]\nsometimes = [\"leader.lost\"]\n",
        "x.toml:6:14: found \"leader.lost\", expected one of \"leader.elected\", ",
    );
}

#[test]
fn what_cannot_be_is_refused() {
    refused_with(
        "rate = 5\npause = \"1s\"\n",
        expect![[r#"
        x.toml:3:1: found both `rate` and `pause`, expected one of them
         3 | [[load]]
           | ^^^^^^^^"#]],
    );
    refused_with(
        "[time]\nsafety = \"5s\"\n[[fault]]\ndo = \"pause\"\nfrom = \"6s\"\n",
        expect![[r#"
        x.toml:9:8: found a time after the safety phase, which ends at 5 s at the latest: it would never begin
         9 | from = "6s"
           |        ^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\nfrom = \"3s\"\nuntil = \"2s\"\n",
        expect![[r#"
        x.toml:8:9: found an end that is not after the beginning
         8 | until = "2s"
           |         ^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\nfrom = \"3s\"\nuntil = \"4s\"\nfor = \"1s\"\n",
        expect![[r#"
        x.toml:5:1: found more than one end, expected one of `for`, `until` and `restart_after`
         5 | [[fault]]
           | ^^^^^^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\nfrom = \"1s\"\nevery = \"1s\"\n",
        expect![[r#"
        x.toml:5:1: found `every`, expected it only next to `repeat` and a `from` that is a time
         5 | [[fault]]
           | ^^^^^^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"pause\"\n",
        expect![[r#"
        x.toml:5:1: [[fault]] has no `from`, expected a time such as "5s", or { when = "leader.last > 20" }
         5 | [[fault]]
           | ^^^^^^^^^"#]],
    );
    refused_with(
        "[[fault]]\ndo = \"partition\"\nshape = \"split\"\nsize = 3\nfrom = \"1s\"\n",
        expect![[r#"
        x.toml:8:8: found a part of 3, expected fewer than the 3 members of every run
         8 | size = 3
           |        ^"#]],
    );
    refused_with(
        "[cluster]\nmembers = [1, 5]\n[[fault]]\ndo = \"partition\"\nshape = \"bridge\"\nfrom = \"1s\"\n",
        expect![[r#"
            x.toml:9:9: found "bridge", which needs 3 members in every run
             9 | shape = "bridge"
               |         ^^^^^^^^"#]],
    );
    refused_with(
        "[[fault]]\nid = \"m1\"\ndo = \"pause\"\nfrom = \"1s\"\n",
        expect![[r#"
        x.toml:6:6: found the id "m1", which already means something
         6 | id = "m1"
           |      ^^^^"#]],
    );
    refused_with(
        "[[fault]]\nid = \"Cut it\"\ndo = \"pause\"\nfrom = \"1s\"\n",
        expect![[r#"
        x.toml:6:6: found "Cut it", expected an id of lower-case letters, digits and hyphens such as "cut"
         6 | id = "Cut it"
           |      ^^^^^^^^"#]],
    );
    let pause = "[[fault]]\nid = \"a\"\ndo = \"pause\"\nfrom = \"1s\"\n";
    refused_with(
        &format!("{pause}{pause}"),
        expect![[r#"
        x.toml:10:6: found the id "a" a second time
         10 | id = "a"
            |      ^^^"#]],
    );
}

#[test]
fn conditions_are_refused_at_the_word_that_is_wrong() {
    let refused_when = |condition: &str, expected: Expect| {
        let line =
            "[[fault]]\nid = \"a\"\ndo = \"pause\"\nfrom = \"1s\"\n[[fault]]\ndo = \"pause\"\n";
        refused_with(
            &format!("{line}from = {{ when = \"{condition}\" }}\n"),
            expected,
        );
    };
    refused_when(
        "",
        expect![[r#"
        x.toml:11:18: found the end of the condition, expected a number, or what somebody shows such as `leader.last`
         11 | from = { when = "" }
            |                  ^"#]],
    );
    refused_when(
        "leader.last >",
        expect![[r#"
        x.toml:11:30: found the end of the condition, expected a number, or what somebody shows such as `leader.last`
         11 | from = { when = "leader.last >" }
            |                              ^"#]],
    );
    refused_when(
        "leader.last > much",
        expect![[r#"
        x.toml:11:32: found `much`, expected a number, or what somebody shows such as `leader.last`
         11 | from = { when = "leader.last > much" }
            |                                ^^^^"#]],
    );
    refused_when(
        "leader.lst > 5",
        expect![[r#"
        x.toml:11:25: found `lst` of leader, expected one of term, committed, applied, last, durable, revision, compacted, leads, runs, checkpoints, snapshots
         11 | from = { when = "leader.lst > 5" }
            |                         ^^^"#]],
    );
    refused_when(
        "b.target.last > 5",
        expect![[r#"
        x.toml:11:18: found `b.target`, expected one of cluster, leader, m1, m2, m3, a, a.target (faults may speak of those before them)
         11 | from = { when = "b.target.last > 5" }
            |                  ^^^^^^^^"#]],
    );
    refused_when(
        "a.last > 5",
        expect![[r#"
        x.toml:11:20: found `last` of a, expected one of begun, over
         11 | from = { when = "a.last > 5" }
            |                    ^^^^"#]],
    );
    refused_when(
        "m4.last > 5",
        expect![[r#"
        x.toml:11:18: found `m4`, expected one of cluster, leader, m1, m2, m3, a, a.target (faults may speak of those before them)
         11 | from = { when = "m4.last > 5" }
            |                  ^^"#]],
    );
    refused_when(
        "leader.last > 5 or leader.term > 2",
        expect![[r#"
        x.toml:11:34: found `or`, expected `and` or the end of the condition
         11 | from = { when = "leader.last > 5 or leader.term > 2" }
            |                                  ^^"#]],
    );
    refused_when(
        "5",
        expect![[r#"
        x.toml:11:18: found the end of the condition, expected one of <, <=, ==, !=, >=, >
         11 | from = { when = "5" }
            |                  ^"#]],
    );
}

#[test]
fn a_scenario_means_what_it_says() {
    let text = r#"format = 1
name = "x"
[cluster]
members = 5
[network]
loss = 0.25
[[load]]
kind = "watch"
clients = 2
target = "each-member"
start = "head + 5..9"
[[fault]]
id = "cut"
do = "partition"
shape = "split"
size = 2
way = "out"
node = "leader"
from = "2s"
until = "5s"
[[fault]]
do = "power-loss"
node = "not cut.target"
from = { when = "cut.begun and leader.last >= cut.target.last + 3", at_most = "4s" }
restart_after = "100ms"
"#;
    let options = parse(text).options(7);
    assert_eq!(options.members, 5);
    assert_eq!(options.network.loss_ppm, 250_000);
    let group = &options.load.groups[0];
    assert_eq!((group.clients, group.target), (2, LoadTarget::Each));
    let Work::Watch(watch) = group.work else {
        panic!("{group:?}")
    };
    let future = WatchStart::Future {
        ahead_min: 5,
        ahead_max: 9,
    };
    assert_eq!(watch.start, Some(future));
    let [cut, loss] = &options.plan[..] else {
        panic!("{:?}", options.plan)
    };
    assert_eq!(cut.kind, Kind::Partition(Shape::Split(2), Way::Out));
    assert_eq!(cut.target, Target::Leader);
    assert_eq!(cut.from, Trigger::At(2_000_000_000));
    assert_eq!(cut.until, Trigger::At(3_000_000_000));
    assert_eq!(loss.target, Target::NotSameAs(0));
    assert_eq!(loss.until, Trigger::At(100_000_000));
    let Trigger::When {
        predicate,
        at_most_ns,
    } = &loss.from
    else {
        panic!("{loss:?}")
    };
    assert_eq!(
        (predicate.comparisons.len(), *at_most_ns),
        (2, 4_000_000_000)
    );
}

#[test]
fn faults_that_a_seed_does_without_take_those_that_speak_of_them_along() {
    let text = format!(
        "{GOOD}[[fault]]\nid = \"a\"\ndo = \"pause\"\nfrom = \"1s\"\np = 0.5\n\
         [[fault]]\nid = \"b\"\ndo = \"pause\"\nnode = \"a.target\"\nfrom = \"2s\"\n\
         [[fault]]\nid = \"c\"\ndo = \"crash\"\nfrom = \"3s\"\nrepeat = 2\nevery = \"1s\"\n"
    );
    let scenario = parse(&text);
    let names = |seed| {
        let plan = scenario.options(seed).plan;
        let names = plan.iter().map(|fault| fault.name.as_str());
        names.collect::<Vec<_>>().join(" ")
    };
    let all: std::collections::BTreeSet<_> = (0..50).map(names).collect();
    assert_eq!(all, ["a b c c.2", "c c.2"].map(String::from).into());
    assert_eq!(names(3), names(3));
}

#[test]
fn a_change_in_one_line_leaves_the_other_draws_alone() {
    let with = |loss: &str| {
        let text = format!(
            "{GOOD}[network]\nloss = {loss}\ndelay = [\"1ms\", \"50ms\"]\n\
             [[fault]]\ndo = \"pause\"\nfrom = [\"1s\", \"9s\"]\n"
        );
        let options = parse(&text).options(5);
        (options.network.delay_ns, options.plan)
    };
    assert_eq!(with("0.1"), with("[0, 0.5]"));
}
