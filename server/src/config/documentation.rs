//! Keeps the tables of `docs/compatibility.md` equal to the tables of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::flags::{FLAGS, Support};
use super::gates::GATES;

fn state(support: Support) -> (&'static str, &'static str) {
    match support {
        Support::Works => ("works", ""),
        Support::NoEffect(reason) => ("no effect", reason),
        Support::NotYet => ("refused", ""),
        Support::Obsolete => ("ignored", ""),
    }
}

fn flags_table() -> String {
    let mut table = "| flag | state | why |\n|--|--|--|\n".to_owned();
    for flag in FLAGS {
        let (state, reason) = state(flag.support);
        writeln!(table, "| `--{}` | {state} | {reason} |", flag.name).unwrap();
    }
    table
}

fn gates_table() -> String {
    let mut table = "| gate | default | state | why |\n|--|--|--|--|\n".to_owned();
    for gate in &GATES {
        let (state, reason) = state(gate.support);
        writeln!(
            table,
            "| `{}` | {} | {state} | {reason} |",
            gate.name, gate.default
        )
        .unwrap();
    }
    table
}

/// The page with `table` between the markers of `name`.
fn with_table(page: &str, name: &str, table: &str) -> String {
    let start = format!("<!-- {name} -->\n");
    let (before, rest) = page
        .split_once(&start)
        .expect("the page marks where the table starts");
    let (_, after) = rest
        .split_once("<!-- end -->")
        .expect("the page marks where the table ends");
    format!("{before}{start}{table}<!-- end -->{after}")
}

/// Set the variable `REWRITE` to write the tables anew, and read the difference.
#[test]
fn the_tables_of_the_documentation_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let expected = with_table(
        &with_table(&page, "flags", &flags_table()),
        "gates",
        &gates_table(),
    );
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert!(
        page == expected || std::env::var_os("REWRITE").is_some(),
        "docs/compatibility.md: run with REWRITE=1"
    );
}

fn documented(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/systemd")
        .join(name)
}

#[test]
fn the_example_is_a_configuration_without_remarks_that_fits_its_unit() {
    let example = documented("quorate.yml");
    let argument = format!("--config-file={}", example.display());
    let super::Outcome::Run(config) = super::parse(&[argument], &[]) else {
        panic!("the example is refused");
    };
    let remarks: Vec<_> = config
        .notices
        .iter()
        .skip(1) // That there is a file.
        .map(|notice| &notice.message)
        .collect();
    assert_eq!(
        remarks,
        ["Running http and grpc server on single port. This is not recommended for production."]
    );
    assert!(config.memory_mlock && config.gates.enabled("CompactHashCheck"));
    let unit = std::fs::read_to_string(documented("quorate.service")).unwrap();
    for line in [
        "Type=notify",
        "LimitMEMLOCK=infinity",
        "StateDirectory=quorate",
        "ExecStart=/usr/bin/quorate --config-file /etc/quorate/quorate.yml",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    assert!(config.data_dir.starts_with("/var/lib/quorate"));
}

/// What etcd's help names and its parser refuses.
const ONLY_IN_ITS_HELP: [&str; 2] = ["discovery", "discovery-proxy"];

/// What our help lists among the flags, and etcd's names above them.
const NAMED_ELSEWHERE: [&str; 2] = ["config-file", "version"];

/// Defaults that etcd's help writes otherwise than they are: what it says, and what holds.
const SAID_OTHERWISE: [(&str, &str, &str); 6] = [
    ("backend-bbolt-freelist-type", "map", ""),
    ("backend-batch-interval", "", "0s"),
    ("compaction-batch-limit", "1000", "0"),
    ("max-concurrent-streams", "math.MaxUint32", "4294967295"),
    ("v2-deprecation", "write-only", ""),
    ("watch-progress-notify-interval", "10m", "0s"),
];

/// Flags that etcd's help has in another group than their meaning.
const ELSEWHERE: [(&str, &str); 1] = [("peer-skip-client-san-verification", "Features")];

/// Name, group and, if the help says it, default of every flag.
fn listed(help: &str) -> BTreeMap<String, (String, Option<String>)> {
    let (mut group, mut flags) = (String::new(), BTreeMap::new());
    for line in help.lines() {
        if let Some(title) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            group = title.to_owned();
        } else if let Some(flag) = line.strip_prefix("  --").filter(|_| !group.is_empty()) {
            let (name, default) = flag.split_once(' ').unwrap_or((flag, "''"));
            let default = default.trim_matches('\'').to_owned();
            flags.insert(name.to_owned(), (group.clone(), Some(default)));
        }
    }
    flags
}

fn etcds() -> BTreeMap<String, (String, Option<String>)> {
    let (mut group, mut flags) = (String::new(), BTreeMap::new());
    for line in include_str!("etcd-3.7.1.txt").lines() {
        match line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            Some(title) => group = title.to_owned(),
            None if line.starts_with('#') => {}
            None => {
                let (name, default) = match line.split_once('\t') {
                    Some((name, default)) => (name, Some(default.to_owned())),
                    None => (line, None),
                };
                flags.insert(name.to_owned(), (group.clone(), default));
            }
        }
    }
    flags
}

#[test]
fn help_has_etcds_flags_in_etcds_groups_with_etcds_defaults() {
    let (ours, mut theirs) = (listed(&super::help::flags_text()), etcds());
    for name in ONLY_IN_ITS_HELP {
        assert!(theirs.remove(name).is_some(), "{name}");
        let outcome = super::parse(&[format!("--{name}=a")], &[]);
        assert!(matches!(outcome, super::Outcome::Misused(_)), "{name}");
    }
    let names = |flags: &BTreeMap<_, _>| flags.keys().cloned().collect::<BTreeSet<String>>();
    let missing: Vec<_> = names(&theirs).difference(&names(&ours)).cloned().collect();
    assert_eq!(missing, [""; 0], "etcd has them");
    let added: Vec<_> = names(&ours).difference(&names(&theirs)).cloned().collect();
    assert_eq!(added, NAMED_ELSEWHERE, "etcd has them not");
    for (name, (group, default)) in &theirs {
        let (our_group, our_default) = &ours[name];
        let differs = ELSEWHERE
            .iter()
            .any(|(flag, there)| flag == name && there == group);
        assert!(
            our_group == group || differs,
            "{name}: {our_group:?}, etcd {group:?}"
        );
        let Some(default) = default else { continue };
        let holds = SAID_OTHERWISE
            .iter()
            .find(|(flag, said, _)| flag == name && said == default)
            .map_or(default.as_str(), |(_, _, holds)| holds);
        assert_eq!(our_default.as_deref(), Some(holds), "{name}");
    }
}
