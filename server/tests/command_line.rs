//! The binary as scripts call it: exit codes, and what goes to which stream.

use std::process::{Command, Output};

/// Runs the binary without any variable but those given.
fn quorate(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("only text is printed")
}

#[test]
fn help_and_version_go_to_standard_output_and_end_well() {
    for help in ["-h", "--help", "-help"] {
        let output = quorate(&[help], &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(
            text(&output.stdout).contains("\n  --listen-client-urls 'http://localhost:2379'\n")
        );
        assert_eq!(text(&output.stderr), "");
    }
    let output = quorate(&["--version"], &[("ETCD_NAME", "ignored")]);
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(
        (output.status.code(), lines[1]),
        (Some(0), "etcd Version: 3.7.1")
    );
    assert!(
        lines[0].starts_with("quorate Version: ") && lines[2].starts_with("Git SHA: "),
        "{lines:?}"
    );
}

#[test]
fn a_misused_flag_prints_the_usage_and_exits_with_2() {
    let output = quorate(&["--nosuch"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("flag provided but not defined: -nosuch\nUsage:\n"));
    assert_eq!(text(&output.stdout), "");
}

/// The last log line, which is JSON.
fn last_line(output: &Output) -> serde_json::Value {
    let line = text(&output.stderr)
        .lines()
        .last()
        .expect("something is logged");
    serde_json::from_str(line).expect("log lines are JSON")
}

#[test]
fn a_refused_configuration_is_logged_and_exits_with_1() {
    for (arguments, error) in [
        (["foo", "bar"], "\"foo\" is not a valid flag"),
        (
            ["--discovery-token", "a"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            ["--heartbeat-interval", "0"],
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
    ] {
        let output = quorate(&arguments, &[]);
        assert_eq!(output.status.code(), Some(1));
        let line = last_line(&output);
        assert_eq!(
            (&line["level"], &line["msg"]),
            (&"warn".into(), &"failed to verify flags".into())
        );
        assert_eq!(line["error"], error);
    }
}

#[test]
fn a_log_that_cannot_be_opened_ends_the_start_and_says_so_on_standard_error() {
    for rotation in ["--enable-log-rotation=false", "--enable-log-rotation"] {
        let output = quorate(&[rotation, "--log-outputs", "/dev/null/log"], &[]);
        assert_eq!(output.status.code(), Some(1));
        let line = last_line(&output);
        assert_eq!(line["msg"], "failed to verify flags");
        let error = line["error"].as_str().expect("it is a text");
        assert!(
            error.starts_with("open sink \"/dev/null/log\": open /dev/null/log: "),
            "{error}"
        );
    }
}

#[test]
fn a_flag_and_its_variable_together_are_fatal() {
    let output = quorate(&["--name", "a"], &[("ETCD_NAME", "a")]);
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert_eq!(
        (&line["level"], &line["environment-variable"]),
        (&"fatal".into(), &"ETCD_NAME".into())
    );
}
