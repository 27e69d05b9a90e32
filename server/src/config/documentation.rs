//! Keeps the tables of `docs/compatibility.md` equal to the tables of the code.

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
