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
