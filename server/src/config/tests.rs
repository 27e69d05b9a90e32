//! What users give and what comes of it, rule by rule.

use super::*;

fn arguments(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn outcome(line: &str) -> Outcome {
    parse(&arguments(line), &[])
}

fn config(line: &str) -> Config {
    match outcome(line) {
        Outcome::Run(config) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    match outcome(line) {
        Outcome::Refused(refusal) => refusal.error.0,
        other => panic!("{line}: {other:?}"),
    }
}

fn warnings(config: &Config) -> Vec<&str> {
    let warnings = config
        .notices
        .iter()
        .filter(|notice| notice.level == NoticeLevel::Warn);
    warnings.map(|notice| notice.message.as_str()).collect()
}

#[test]
fn no_flags_give_etcds_defaults() {
    let config = config("");
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.wal_dir(), PathBuf::from("default.etcd/member/wal"));
    assert_eq!(config.snap_dir(), PathBuf::from("default.etcd/member/snap"));
    assert_eq!(texts(&config.listen_client_urls), ["http://localhost:2379"]);
    assert_eq!(
        texts(&config.advertise_client_urls),
        ["http://localhost:2379"]
    );
    assert_eq!(texts(&config.listen_peer_urls), ["http://localhost:2380"]);
    assert_eq!(config.initial_cluster, "default=http://localhost:2380");
    assert_eq!(
        (
            config.joins_existing_cluster,
            config.initial_cluster_token.as_str()
        ),
        (false, "etcd-cluster")
    );
    assert_eq!(config.quota_bytes, 2 << 30);
    assert_eq!(
        (config.max_txn_ops, config.max_request_bytes),
        (128, 1_572_864)
    );
    assert_eq!(config.max_concurrent_streams, u32::MAX);
    assert_eq!(
        config.watch_progress_notify_interval,
        Duration::from_secs(600)
    );
    assert_eq!(
        (
            config.pre_vote,
            config.max_learners,
            config.metrics_extensive
        ),
        (true, 1, false)
    );
    assert_eq!(
        (config.cors.as_slice(), config.host_whitelist.as_slice()),
        (&["*".to_owned()][..], &["*".to_owned()][..])
    );
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(
        warnings(&config),
        [
            "Running http and grpc server on single port. This is not recommended for production.",
            "it isn't recommended to use default name, please set a value for --name. Note that etcd might run into \
             issue when multiple members have the same default name",
            "'data-dir' was empty; using default",
        ]
    );
}

#[test]
fn times_follow_from_heartbeat_and_election() {
    let config = config("");
    assert_eq!(config.election_ticks, 10);
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    let seconds = [config.raft_read_timeout, config.raft_write_timeout];
    assert_eq!(seconds.map(|timeout| timeout.as_secs()), [5, 5]);
    let config = self::config("--raft-read-timeout=1s --raft-write-timeout=7s");
    let seconds = [config.raft_read_timeout, config.raft_write_timeout];
    assert_eq!(
        seconds.map(|timeout| timeout.as_secs()),
        [5, 7],
        "too short is raised"
    );
    assert_eq!(config.leader_loss_timeout(), Duration::from_secs(3));
    assert_eq!(config.min_lease_ttl(), 2);
    let slow = self::config("--heartbeat-interval=300 --election-timeout=2000");
    assert_eq!(slow.election_ticks, 6);
    assert_eq!(slow.election_timeout(), Duration::from_millis(1800));
    assert_eq!(slow.min_lease_ttl(), 3);
}

#[test]
fn settings_that_do_not_fit_together_are_refused_in_etcds_words() {
    let table = [
        ("foo", "\"foo\" is not a valid flag"),
        ("--name=a foo", "\"foo\" is not a valid flag"),
        (
            "--listen-client-urls=http://foo:1",
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            "--listen-peer-urls=http://foo:1",
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            "--listen-client-http-urls=http://foo:1",
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            "--listen-metrics-urls=http://foo:1",
            "expected IP in URL for binding (http://foo:1)",
        ),
        (
            "--initial-advertise-peer-urls=http://:2380",
            "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host (http://:2380))",
        ),
        (
            "--advertise-client-urls=http://:2379",
            "--advertise-client-urls \"http://:2379\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (unexpected empty host (http://:2379))",
        ),
        (
            "--listen-client-urls=http://0.0.0.0:2379",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--initial-cluster=a=http://a:1 --discovery-srv=example.com",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            "--discovery-endpoints=a --discovery-token=t --discovery-srv=example.com",
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            "--discovery-token=t",
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            "--discovery-endpoints=e",
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            "--discovery-token=t --discovery-endpoints=a,,b",
            "--discovery-endpoints must not contain empty endpoints",
        ),
        (
            "--heartbeat-interval=0",
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            "--election-timeout=0",
            "--election-timeout must be >0 (set to 0ms)",
        ),
        (
            "--election-timeout=499",
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (
            "--election-timeout=50001",
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        ("--auto-compaction-mode=", "undefined auto-compaction-mode"),
        (
            "--auto-compaction-mode=x",
            "unknown auto-compaction-mode \"x\"",
        ),
        (
            "--auto-compaction-retention=x",
            "error parsing CompactionRetention: time: invalid duration \"x\"",
        ),
        (
            "--corrupt-check-time=-1s",
            "--corrupt-check-time must be >=0 (set to -1s)",
        ),
        (
            "--compact-hash-check-time=0",
            "--compact-hash-check-time must be >0 (set to 0s)",
        ),
        (
            "--compact-hash-check-time=-1m",
            "--compact-hash-check-time must be >0 (set to -1m0s)",
        ),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=x",
            "unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=a",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://a:1",
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme",
        ),
        (
            "--listen-metrics-urls=https://127.0.0.1:1",
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            "--listen-client-http-urls=http://localhost:2379",
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url http://localhost:2379",
        ),
        (
            "--discovery-fallback=proxy",
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        ("--logger=capnslog", "--logger=capnslog is removed in v3.5"),
        ("--logger=x", "unknown logger option \"x\""),
        (
            "--log-outputs=default,/tmp/a",
            "multi logoutput for \"default\" is not supported yet",
        ),
        ("--log-level=x", "unrecognized level: \"x\""),
        (
            "--log-format=x",
            "unknown log format: x, supported values json, console",
        ),
        (
            "--enable-log-rotation",
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--enable-log-rotation --log-outputs=/tmp/a,/tmp/b",
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--log-outputs=systemd/journal,stderr",
            "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \"systemd/journal\"]) are \
             configured with 'default'; override 'default' value with something else",
        ),
        (
            "--enable-log-rotation --log-outputs=systemd/journal,/tmp/a",
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=-1",
            "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001",
            "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
        ),
    ];
    for (line, want) in table {
        assert_eq!(error(line), want, "{line}");
    }
}

#[test]
fn every_flag_is_there() {
    for flag in flags::FLAGS {
        assert_ne!(flag.support, Support::NotYet, "--{}", flag.name);
    }
    config("--listen-client-urls=unix:/run/q.sock --advertise-client-urls=http://a:1");
    config("--advertise-client-urls=https://behind.a.proxy:2379");
    config("--feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=true");
}

#[test]
fn flags_without_effect_are_accepted_and_logged() {
    let config =
        config("--name=a --data-dir=d --backend-batch-limit=5 --snapshot-count=10000 --v=9 --vv");
    let flags: Vec<_> = config
        .notices
        .iter()
        .filter(|notice| notice.message != "Running http and grpc server on single port. This is not recommended for production.")
        .map(|notice| (notice.message.as_str(), notice.fields[0].1.as_str()))
        .collect();
    assert_eq!(
        flags,
        [
            ("flag has no effect", "--backend-batch-limit"),
            ("flag is no longer supported - ignoring", "v"),
            ("flag is no longer supported - ignoring", "vv"),
        ]
    );
}

#[test]
fn what_etcd_says_of_flags_whose_end_is_near_is_said() {
    let config = config(
        "--name=a --data-dir=d --max-snapshots=10 --v2-deprecation=gone \
         --bootstrap-defrag-threshold-megabytes=1000",
    );
    let said: Vec<_> = config
        .notices
        .iter()
        .map(|notice| notice.message.as_str())
        .collect();
    for message in [
        "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user \
         input.",
        "Skipping defragmentation",
    ] {
        assert!(said.contains(&message), "{message}: {said:?}");
    }
}

#[test]
fn large_requests_and_quotas_are_warned_about() {
    let config = config(
        "--name=a --data-dir=d --max-request-bytes=10485761 --quota-backend-bytes=8589934593",
    );
    assert_eq!(
        warnings(&config)[1..],
        [
            "exceeded recommended request limit",
            "quota exceeds the maximum value"
        ]
    );
    assert_eq!(self::config("--quota-backend-bytes=-1").quota_bytes, -1);
}

#[test]
fn misuse_prints_the_reason_and_the_usage_and_help_and_version_end_well() {
    let Outcome::Misused(text) = outcome("--nosuch") else {
        panic!()
    };
    assert!(
        text.starts_with("flag provided but not defined: -nosuch\nUsage:\n"),
        "{text}"
    );
    let Outcome::Print(help) = outcome("--help") else {
        panic!()
    };
    for flag in flags::FLAGS
        .iter()
        .filter(|flag| flag.support != Support::Obsolete)
    {
        assert!(
            help.contains(&format!("\n  --{} '", flag.name)),
            "{}",
            flag.name
        );
    }
    let Outcome::Print(version) = outcome("--version") else {
        panic!()
    };
    assert!(
        version.starts_with("quorate Version: ") && version.contains("\netcd Version: 3.7.1\n"),
        "{version}"
    );
}

#[test]
fn the_version_variable_of_containers_is_dropped_with_a_warning() {
    let environment = [
        ("ETCD_VERSION".to_owned(), "3.5.0".to_owned()),
        ("ETCD_NAME".to_owned(), "a".to_owned()),
    ];
    let Outcome::Run(config) = parse(&[], &environment) else {
        panic!()
    };
    assert_eq!(config.name, "a");
    assert_eq!(
        warnings(&config)[0],
        "cannot set special environment variable"
    );
}

#[test]
fn a_shadowed_variable_is_told_apart_from_other_errors() {
    let environment = [("ETCD_NAME".to_owned(), "a".to_owned())];
    let Outcome::Refused(refusal) = parse(&arguments("--name=b"), &environment) else {
        panic!()
    };
    assert_eq!(refusal.shadowed_variable.as_deref(), Some("ETCD_NAME"));
}

#[test]
fn a_named_member_without_a_cluster_is_its_own() {
    let config = config("--name=a --initial-advertise-peer-urls=http://h:1,http://b:2");
    assert_eq!(config.initial_cluster, "a=http://b:2,a=http://h:1");
    assert_eq!(
        self::config("--name=a --initial-cluster=b=http://b:1").initial_cluster,
        "b=http://b:1"
    );
}

#[test]
fn a_member_that_listens_everywhere_is_advertised_at_the_machines_address() {
    let line = "--name=a --listen-peer-urls=http://0.0.0.0:9 --listen-client-urls=http://0.0.0.0:8 \
                --advertise-client-urls=http://localhost:2379";
    let CommandLine::Flags(settings) = command_line::parse(&arguments(line)).unwrap() else {
        panic!()
    };
    let config = Config::new(&settings, Origin::CommandLine, || {
        Some("10.1.2.3".to_owned())
    })
    .unwrap();
    assert_eq!(
        texts(&config.initial_advertise_peer_urls),
        ["http://10.1.2.3:9"]
    );
    assert_eq!(texts(&config.advertise_client_urls), ["http://10.1.2.3:8"]);
    assert_eq!(config.initial_cluster, "a=http://10.1.2.3:9");
    let config = Config::new(&settings, Origin::CommandLine, || None).unwrap();
    assert_eq!(
        texts(&config.initial_advertise_peer_urls),
        ["http://localhost:2380"]
    );
}

#[test]
fn a_new_cluster_must_hold_this_member_where_it_is_advertised() {
    let refused = |line: &str| {
        config(line)
            .check_bootstrap(|_| Err("no such host".to_owned()))
            .unwrap_err()
            .0
    };
    assert_eq!(
        refused("--name=x --initial-cluster=a=http://a:1"),
        "couldn't find local name \"x\" in the initial cluster configuration"
    );
    assert_eq!(
        refused("--name=a --initial-cluster=a=http://a:1 --initial-advertise-peer-urls=http://b:1"),
        "--initial-cluster has a=http://a:1 but missing from --initial-advertise-peer-urls=http://b:1 (no such host)"
    );
    assert_eq!(
        refused(
            "--name=a --initial-cluster=a=http://a:1 --initial-advertise-peer-urls=http://a:1,http://b:1"
        ),
        "--initial-advertise-peer-urls has http://b:1 but missing from --initial-cluster=a=http://a:1,a=http://b:1"
    );
    assert_eq!(
        refused(
            "--name=a --initial-cluster=a=http://a:1,b=http://a:1 --initial-advertise-peer-urls=http://a:1"
        ),
        "initial cluster a=http://a:1,b=http://a:1 has duplicate url"
    );
    assert_eq!(
        refused("--name=a --initial-cluster=a=nonsense --initial-advertise-peer-urls=http://a:1"),
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: nonsense"
    );
    let cluster = config("--name=a --initial-cluster=b=http://b:1,a=http://a:1 --initial-advertise-peer-urls=http://a:1")
        .check_bootstrap(|_| panic!("equal texts need no look-up"))
        .unwrap();
    assert_eq!(cluster.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn two_names_of_one_address_are_the_same_place() {
    let config = config(
        "--name=a --initial-cluster=a=http://127.0.0.1:1 --initial-advertise-peer-urls=http://localhost:1",
    );
    config.check_bootstrap(resolve).unwrap();
    let refused = config.check_bootstrap(|url| {
        Ok(vec![
            format!("10.0.0.{}:1", url.host.as_bytes()[0])
                .parse()
                .unwrap(),
        ])
    });
    assert!(refused.unwrap_err().0.contains("resolved urls"));
}

#[test]
fn too_few_file_descriptors_are_refused() {
    assert!(
        checks::check_file_descriptors(Some(150))
            .unwrap_err()
            .0
            .contains("(limit 150,")
    );
    assert_eq!(checks::check_file_descriptors(Some(151)), Ok(()));
    assert_eq!(checks::check_file_descriptors(None), Ok(()));
}

#[test]
fn a_joining_member_must_be_listed() {
    let joins = config(
        "--name=b --initial-cluster=a=http://a:1,b=http://b:1 --initial-cluster-state=existing",
    );
    assert!(joins.joins_existing_cluster);
    assert_eq!(joins.check_join().unwrap().len(), 2);
    let absent = config("--name=c --initial-cluster=a=http://a:1 --initial-cluster-state=existing");
    assert!(
        absent
            .check_join()
            .unwrap_err()
            .0
            .contains("couldn't find local name \"c\"")
    );
}

#[test]
fn log_outputs_name_each_place_once() {
    let log =
        config("--log-outputs=stderr,/tmp/b,stdout,stderr --log-level=warn --log-format=console")
            .log;
    assert_eq!(
        log.outputs,
        [
            LogOutput::File("/tmp/b".into()),
            LogOutput::Stderr,
            LogOutput::Stdout
        ]
    );
    assert_eq!((log.level, log.console), (LogLevel::Warn, true));
}

#[test]
fn log_outputs_of_all_kinds_are_understood() {
    let outputs = |line: &str| config(line).log.outputs;
    assert_eq!(outputs("--log-outputs="), [LogOutput::Stderr]);
    assert_eq!(
        outputs("--log-outputs=systemd/journal"),
        [LogOutput::Journal]
    );
    assert_eq!(
        outputs("--log-outputs=stderr,/tmp/a,/dev/null"),
        [LogOutput::File("/dev/null".into())],
        "it discards all"
    );
    assert_eq!(config("--log-outputs=/tmp/a").log.rotation, None);
    for line in ["/tmp/a", "stderr,/tmp/a", "stderr,stdout"] {
        let line = format!("--enable-log-rotation --log-outputs={line}");
        assert_eq!(config(&line).log.rotation.unwrap().bytes_max, 100 << 20);
    }
}

#[test]
fn peers_are_reached_from_the_first_advertised_address_that_others_can_reach_if_that_is_asked_for()
{
    let from = |urls: &str, gate: &str| {
        let line = format!(
            "--feature-gates=SetMemberLocalAddr={gate} --initial-advertise-peer-urls={urls} --name=a"
        );
        config(&line)
            .member_local_address()
            .map(|ip| ip.to_string())
    };
    let all = "http://127.0.0.1:1,http://192.168.100.110:1,http://[2001:db8::1]:1,http://b:1";
    assert_eq!(from(all, "false"), None);
    assert_eq!(from(all, "true").as_deref(), Some("192.168.100.110"));
    assert_eq!(
        from("http://[2001:db8::1]:1,http://b:1", "true").as_deref(),
        Some("2001:db8::1")
    );
    for unfit in [
        "http://b:1",
        "http://0.0.0.0:1",
        "http://[::]:1",
        "http://[::1]:1",
        "http://127.0.0.1:1",
    ] {
        assert_eq!(from(unfit, "true"), None, "{unfit}");
    }
}
