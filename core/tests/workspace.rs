//! What holds for the whole workspace: the arrows between crates, the paths that documents name, the length of files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in the workspace")
        .to_path_buf()
}

/// `server -> net -> core -> proto`, `sim -> core`, `ctl -> net`, `bench -> net`, `bench -> sim` (which
/// judges histories); a lower crate may be used directly. Only the simulator's shell tier sees the server.
#[test]
fn dependencies_point_down() {
    let allowed: &[(&str, &[&str])] = &[
        ("quorate-proto", &[]),
        ("quorate-core", &["quorate-proto"]),
        ("quorate-net", &["quorate-core", "quorate-proto"]),
        (
            "quorate-server",
            &["quorate-net", "quorate-core", "quorate-proto"],
        ),
        ("quorate-ctl", &["quorate-net", "quorate-proto"]),
        ("quorate-sim", &["quorate-core", "quorate-proto"]),
        (
            "quorate-sim-shell",
            &[
                "quorate-sim",
                "quorate-server",
                "quorate-net",
                "quorate-core",
                "quorate-proto",
            ],
        ),
        (
            "quorate-bench",
            &[
                "quorate-net",
                "quorate-sim",
                "quorate-core",
                "quorate-proto",
            ],
        ),
    ];
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .expect("cargo metadata");
    let members: BTreeSet<_> = metadata
        .packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    assert_eq!(
        members,
        allowed
            .iter()
            .map(|(name, _)| (*name).to_string())
            .collect(),
        "each crate has a place"
    );
    for package in &metadata.packages {
        let (_, may_use) = allowed
            .iter()
            .find(|(name, _)| package.name == *name)
            .expect("just compared");
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| members.contains(&dependency.name))
        {
            let is_for_tests = dependency.kind == cargo_metadata::DependencyKind::Development;
            assert!(
                is_for_tests || may_use.contains(&dependency.name.as_str()),
                "{} must not depend on {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn every_path_in_the_architecture_exists() {
    let text =
        std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    assert!(
        text.lines().count() < 300,
        "the architecture can be walked in one go"
    );
    let mut checked = 0;
    for quoted in text.split('`').skip(1).step_by(2) {
        let is_path = quoted.contains('/')
            && quoted
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let top = quoted.split('/').next().unwrap_or_default();
        if is_path
            && [
                "proto",
                "core",
                "net",
                "server",
                "ctl",
                "sim",
                "bench",
                "ci",
                "docs",
                "scenarios",
            ]
            .contains(&top)
        {
            assert!(
                root().join(quoted).exists(),
                "docs/architecture.md names {quoted}, which does not exist"
            );
            checked += 1;
        }
    }
    assert!(
        checked > 20,
        "only {checked} paths found: is the pattern still right?"
    );
}

/// Lines a source file may have. It only ever goes down.
const LINES_MAX: usize = 900;

#[test]
fn no_file_outgrows_its_reader() {
    let mut pending = vec![root()];
    let mut checked = 0;
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)
            .expect("a readable directory")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with("target") && !name.starts_with('.') {
                    pending.push(path);
                }
            } else if name.ends_with(".rs") {
                let lines = std::fs::read_to_string(&path)
                    .expect("readable")
                    .lines()
                    .count();
                assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 50);
}

/// What an ordinary build links holds nothing of the simulated runtime: it comes in with `--cfg madsim` alone.
#[test]
fn the_simulated_runtime_is_in_no_ordinary_build() {
    let tree = |arguments: &[&str]| {
        let cargo = std::process::Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["tree", "--prefix", "none", "--edges", "normal,build"])
            .args(arguments)
            .output()
            .expect("cargo tree");
        assert!(cargo.status.success(), "{cargo:?}");
        String::from_utf8(cargo.stdout).expect("names of crates")
    };
    let ordinary = tree(&["--workspace"]);
    assert!(ordinary.contains("tokio v"), "{ordinary}");
    assert!(!ordinary.contains("madsim"), "{ordinary}");
    let simulated = tree(&[
        "--package",
        "quorate-sim-shell",
        "--config",
        "build.rustflags=['--cfg','madsim']",
    ]);
    assert!(simulated.contains("madsim-tokio v"), "{simulated}");
}
