//! Where a member's log goes.

use std::path::{Path, PathBuf};

use crate::support::Member;

/// The files in `directory` but `current`.
fn others(directory: &Path, current: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it is there");
    entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path != current)
        .collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("log lines are text")
}

#[test]
fn a_full_log_file_makes_way_and_no_line_is_lost() {
    const MEGABYTE: usize = 1 << 20;
    let directory = tempfile::tempdir().expect("there is room");
    let current = directory.path().join("etcd.log");
    // Nearly full by what a process before has written: a few lines fit.
    let before = format!("{}\n", "x".repeat(MEGABYTE - 2001));
    std::fs::write(&current, &before).expect("there is room");
    let mut member = Member::cluster(1).remove(0).with(&[
        "--enable-log-rotation",
        &format!("--log-outputs=stderr,{}", current.display()),
        r#"--log-rotation-config-json={"maxsize": 1, "maxbackups": 3}"#,
    ]);
    member.start();
    assert!(member.terminate().success());

    let kept = others(directory.path(), &current);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let name = kept[0].file_name().expect("a name").to_string_lossy();
    assert!(
        name.starts_with("etcd-2") && name.ends_with(".log"),
        "{name}"
    );
    let kept = text(&kept[0]);
    assert!(kept.len() <= MEGABYTE && kept.len() > before.len());
    let all = kept + &text(&current);
    let lines = all.strip_prefix(&before).expect("it is only appended to");
    let messages: Vec<String> = lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a whole line");
            line["msg"].as_str().expect("each has a text").to_owned()
        })
        .collect();
    assert_eq!(
        (messages.first(), messages.last()),
        (
            Some(&"Running: ".to_owned()),
            Some(&"closed etcd server".to_owned())
        )
    );
    assert!(
        messages
            .iter()
            .any(|message| message == "ready to serve client requests")
    );
}

#[test]
fn a_log_for_people_and_a_level_reach_every_output() {
    let directory = tempfile::tempdir().expect("there is room");
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let outputs = format!("--log-outputs=stderr,{},{}", one.display(), two.display());
    let level = ["--log-format=console", "--log-level=debug", "--logger=zap"];
    let mut member = Member::cluster(1).remove(0).with(&level).with(&[&outputs]);
    member.start();
    assert!(member.terminate().success());
    let lines = text(&one);
    assert_eq!(lines, text(&two));
    let ready = lines
        .lines()
        .find(|line| line.ends_with("\tready to serve client requests"))
        .expect("it was ready");
    assert_eq!(ready.split('\t').nth(1), Some("info"), "{ready}");
}
