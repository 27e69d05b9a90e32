//! Pages against what real etcd 3.7.1 answered to the same requests.

use std::cell::Cell;

use http_body_util::BodyExt as _;
use quorate_core::types::MemberId;

use super::*;
use crate::config::{FeatureGates, Outcome, parse};
use crate::metrics::Identity;

/// A member that says what the test wants.
struct Fake {
    gauges: Gauges,
    read: Result<(), String>,
    reads: Cell<u32>,
}

impl Member for Fake {
    fn gauges(&self) -> Gauges {
        self.gauges.clone()
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        self.reads.set(self.reads.get() + 1);
        self.read.clone()
    }
}

/// A healthy leader.
fn well() -> Fake {
    let gauges = Gauges {
        has_leader: true,
        cluster_version: Some("3.7.0".to_owned()),
        ..Gauges::default()
    };
    Fake {
        gauges,
        read: Ok(()),
        reads: Cell::new(0),
    }
}

fn without_leader() -> Fake {
    let mut member = well();
    member.gauges.has_leader = false;
    member.read = Err("etcdserver: request timed out".to_owned());
    member
}

fn with_alarm(alarm: &'static str) -> Fake {
    let mut member = well();
    member.gauges.alarms.push((MemberId(1), alarm));
    member
}

fn pages_of(flags: &str) -> Pages {
    let arguments: Vec<_> = flags.split_whitespace().map(str::to_owned).collect();
    let Outcome::Run(config) = parse(&arguments, &[]) else {
        panic!("{flags}")
    };
    let identity = Identity {
        member: MemberId(1),
        gates: FeatureGates::default(),
        extensive: false,
    };
    Pages::new(
        &config,
        Arc::new(Metrics::new(identity)),
        vec!["quorate".to_owned(), "--name".to_owned()],
    )
}

/// The answer as curl shows it, without the date: code, headers by name, an empty line, the body.
fn ask_with(pages: &Pages, surface: Surface, request: Request<()>, member: &Fake) -> String {
    let answer = futures_util::FutureExt::now_or_never(pages.answer(surface, &request, member))
        .expect("nothing waits");
    let mut headers: Vec<_> = answer
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let code = answer.status().as_u16();
    let body = futures_util::FutureExt::now_or_never(answer.into_body().collect())
        .unwrap()
        .unwrap()
        .to_bytes();
    format!(
        "{code}\n{}\n{}",
        headers.concat(),
        std::str::from_utf8(&body).unwrap()
    )
}

fn ask(path: &str, member: &Fake) -> String {
    let request = Request::get(path)
        .header("host", "localhost:2379")
        .body(())
        .unwrap();
    ask_with(&pages_of(""), Surface::Client, request, member)
}

const CORS: &str = "access-control-allow-headers: accept, content-type, authorization\n\
                    access-control-allow-methods: POST, GET, OPTIONS, PUT, DELETE\n\
                    access-control-allow-origin: *\n";
const PLAIN: &str = "content-type: text/plain; charset=utf-8\n";
const NOSNIFF: &str = "x-content-type-options: nosniff\n";

#[test]
fn health_answers_as_etcd() {
    let good = format!("200\n{CORS}{PLAIN}\n{{\"health\":\"true\",\"reason\":\"\"}}");
    let bad = |reason: &str| {
        format!("503\n{CORS}{PLAIN}{NOSNIFF}\n{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n")
    };
    assert_eq!(ask("/health", &well()), good);
    assert_eq!(ask("/health?serializable=true", &without_leader()), good);
    assert_eq!(
        ask(
            "/health?serializable=true&serializable=false",
            &without_leader()
        ),
        good
    );
    assert_eq!(ask("/health?exclude=NOSPACE", &with_alarm("NOSPACE")), good);
    assert_eq!(ask("/health", &without_leader()), bad("RAFT NO LEADER"));
    assert_eq!(
        ask("/health?serializable=1", &without_leader()),
        bad("RAFT NO LEADER")
    );
    assert_eq!(ask("/health", &with_alarm("NOSPACE")), bad("ALARM NOSPACE"));
    assert_eq!(
        ask("/health?exclude=NOSPACE", &with_alarm("CORRUPT")),
        bad("ALARM CORRUPT")
    );
    assert_eq!(
        ask("/health?serializable=true", &with_alarm("?")),
        bad("ALARM UNKNOWN")
    );
    let mut slow = well();
    slow.read = Err("etcdserver: request timed out".to_owned());
    assert_eq!(
        ask("/health", &slow),
        bad("RANGE ERROR:etcdserver: request timed out")
    );
}

#[test]
fn a_serializable_health_check_asks_nobody() {
    let member = well();
    ask("/health?serializable=true", &member);
    ask("/livez", &member);
    assert_eq!(member.reads.get(), 0);
    ask("/health", &member);
    assert_eq!(member.reads.get(), 1);
}

#[test]
fn livez_and_readyz_answer_as_etcd() {
    let good = |body: &str| format!("200\n{CORS}{PLAIN}{NOSNIFF}\n{body}");
    let bad = |body: &str| format!("503\n{CORS}{PLAIN}{NOSNIFF}\n{body}");
    let member = well();
    for path in [
        "/livez",
        "/readyz",
        "/readyz/linearizable_read",
        "/livez/serializable_read",
        "/readyz?exclude=foo",
    ] {
        assert_eq!(ask(path, &member), good("ok\n"), "{path}");
    }
    assert_eq!(
        ask("/livez?verbose", &member),
        good("[+]serializable_read ok\nok\n")
    );
    assert_eq!(
        ask("/livez/serializable_read?verbose=0", &member),
        good("[+]serializable_read ok\nok\n")
    );
    assert_eq!(
        ask("/readyz?verbose", &member),
        good(
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"
        )
    );
    assert_eq!(
        ask(
            "/readyz?exclude=data_corruption&verbose&exclude=foo",
            &member
        ),
        good("[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n")
    );

    let lonely = without_leader();
    assert_eq!(ask("/livez", &lonely), good("ok\n"));
    assert_eq!(
        ask("/readyz?exclude=linearizable_read", &lonely),
        good("ok\n")
    );
    assert_eq!(ask("/readyz/serializable_read", &lonely), good("ok\n"));
    assert_eq!(
        ask("/readyz", &lonely),
        bad("[+]data_corruption ok\n[+]serializable_read ok\n\
             [-]linearizable_read failed: etcdserver: request timed out\n[+]non_learner ok\n\n")
    );
    assert_eq!(
        ask("/readyz/linearizable_read", &lonely),
        bad("[-]linearizable_read failed: etcdserver: request timed out\n\n")
    );
    let mut learner = with_alarm("CORRUPT");
    learner.gauges.is_learner = true;
    assert_eq!(
        ask("/readyz", &learner),
        bad(
            "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n\
             [+]linearizable_read ok\n[-]non_learner failed: not supported for learner\n\n"
        )
    );
    assert_eq!(ask("/readyz", &with_alarm("NOSPACE")), good("ok\n"));
}

#[test]
fn version_tells_what_is_decided() {
    let json = "content-type: application/json\n";
    let body = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    assert_eq!(
        ask("/version", &well()),
        format!("200\n{CORS}{json}\n{body}")
    );
    let mut young = well();
    young.gauges.cluster_version = None;
    let body = r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#;
    assert_eq!(
        ask("/version", &young),
        format!("200\n{CORS}{json}\n{body}")
    );
}

#[test]
fn unknown_paths_are_not_found() {
    let expected = format!("404\n{CORS}{PLAIN}{NOSNIFF}\n404 page not found\n");
    for path in [
        "/",
        "/nosuch",
        "/version/",
        "/health/",
        "/readyz/nosuch",
        "/readyz/",
        "/livez/non_learner",
        "/v3/kv/range",
    ] {
        assert_eq!(ask(path, &well()), expected, "{path}");
    }
}

#[test]
fn pages_are_read_only_and_options_always_answer() {
    let (pages, member) = (pages_of(""), well());
    let ask = |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "a")
            .body(())
            .unwrap();
        ask_with(&pages, Surface::Client, request, &member)
    };
    for path in [
        "/health",
        "/version",
        "/livez",
        "/readyz/non_learner",
        "/debug/vars",
    ] {
        for method in ["POST", "PUT", "HEAD", "DELETE"] {
            let cors = CORS;
            assert_eq!(
                ask(method, path),
                format!("405\n{cors}allow: GET\n{PLAIN}{NOSNIFF}\nMethod Not Allowed\n"),
                "{method} {path}"
            );
        }
    }
    for path in ["/health", "/nosuch", "/metrics"] {
        assert_eq!(ask("OPTIONS", path), format!("200\n{CORS}\n"));
    }
    assert!(ask("POST", "/metrics").starts_with("200\n"));
}

#[test]
fn hosts_outside_the_whitelist_are_misdirected() {
    let (pages, member) = (pages_of("--host-whitelist=a.example,localhost"), well());
    let ask = |host: &str| {
        let request = Request::get("/version")
            .header("host", host)
            .body(())
            .unwrap();
        ask_with(&pages, Surface::Client, request, &member)
    };
    for host in ["a.example", "a.example:99", "localhost:1"] {
        assert!(ask(host).starts_with("200\n"), "{host}");
    }
    for (host, name) in [
        ("127.0.0.1:23790", "127.0.0.1"),
        ("b.example", "b.example"),
        ("[::1]:3", "::1"),
        ("[::1]", "::1"),
    ] {
        let body = format!(
            "\netcd received your request, but the Host header was unrecognized.\n\nTo fix this, choose one of the \
             following options:\n- Enable TLS, then any HTTPS request will be allowed.\n- Add the hostname you want to \
             use to the whitelist in settings.\n  - e.g. etcd --host-whitelist \"{name}\"\n\nThis requirement has been \
             added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"
        );
        assert_eq!(ask(host), format!("421\n{PLAIN}{NOSNIFF}\n{body}"));
    }
}

#[test]
fn origins_are_echoed_only_when_listed() {
    let (pages, member) = (
        pages_of("--cors=http://o.example:80,http://p.example:1"),
        well(),
    );
    let ask = |origin: &str| {
        let request = Request::get("/version")
            .header("host", "a")
            .header("origin", origin)
            .body(())
            .unwrap();
        ask_with(&pages, Surface::Client, request, &member)
    };
    assert!(
        ask("http://o.example:80").contains("access-control-allow-origin: http://o.example:80\n")
    );
    assert!(!ask("http://q.example:1").contains("access-control"));
}

#[test]
fn the_metrics_surface_has_metrics_and_health_alone() {
    let (pages, member) = (pages_of("--host-whitelist=a.example"), well());
    let ask = |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "b")
            .body(())
            .unwrap();
        ask_with(&pages, Surface::Metrics, request, &member)
    };
    let not_found = format!("404\n{PLAIN}{NOSNIFF}\n404 page not found\n");
    for path in ["/", "/version", "/debug/vars"] {
        assert_eq!(ask("GET", path), not_found, "{path}");
    }
    assert_eq!(
        ask("GET", "/health"),
        format!("200\n{PLAIN}\n{{\"health\":\"true\",\"reason\":\"\"}}")
    );
    assert_eq!(
        ask("OPTIONS", "/health"),
        format!("405\nallow: GET\n{PLAIN}{NOSNIFF}\nMethod Not Allowed\n")
    );
    assert!(ask("GET", "/readyz").ends_with("\nok\n"));
    assert!(ask("GET", "/metrics").starts_with("200\ncontent-type: text/plain; version=0.0.4; charset=utf-8; escaping=underscores\n\n# HELP etcd_cluster_version "));
}

#[test]
fn health_is_counted() {
    let pages = pages_of("");
    let ask = |path: &str, member: &Fake| {
        let request = Request::get(path).header("host", "a").body(()).unwrap();
        ask_with(&pages, Surface::Client, request, member)
    };
    ask("/health", &well());
    ask("/health", &without_leader());
    ask("/readyz", &without_leader());
    let text = ask("/metrics", &well());
    for line in [
        "etcd_server_health_success 1",
        "etcd_server_health_failures 1",
        "etcd_server_healthcheck{name=\"linearizable_read\",type=\"readyz\"} 0",
        "etcd_server_healthchecks_total{name=\"linearizable_read\",status=\"error\",type=\"readyz\"} 1",
        "etcd_server_healthchecks_total{name=\"non_learner\",status=\"success\",type=\"readyz\"} 1",
        "etcd_cluster_version{cluster_version=\"3.7\"} 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn debug_variables_are_json() {
    let answer = ask("/debug/vars", &well());
    let (head, body) = answer.split_once("\n\n").unwrap();
    assert!(head.contains("content-type: application/json; charset=utf-8"));
    assert!(
        body.starts_with("{\n\"cmdline\": [\"quorate\",\"--name\"],\n\"file_descriptor_limit\": "),
        "{body}"
    );
    serde_json::from_str::<serde_json::Value>(body).unwrap();
}

#[test]
fn profiles_are_at_gos_paths_and_those_of_gos_runtime_say_why_they_are_not_here() {
    for flags in ["--enable-pprof", "--log-level=debug"] {
        let pages = pages_of(flags);
        let ask = |path: &str| {
            let request = Request::get(path).body(()).unwrap();
            ask_with(&pages, Surface::Client, request, &well())
        };
        let index = ask("/debug/pprof/");
        assert!(index.contains("<a href='profile'>profile</a>"), "{index}");
        assert!(ask("/debug/pprof").contains("location: /debug/pprof/\n"));
        assert!(ask("/debug/pprof/cmdline").ends_with("\n\nquorate\0--name"));
        let unknown = ask("/debug/pprof/nosuch");
        assert!(
            unknown.starts_with("404") && unknown.ends_with("x-go-pprof: 1\n\nUnknown profile\n"),
            "{unknown}"
        );
        for name in [
            "heap",
            "allocs",
            "goroutine",
            "block",
            "mutex",
            "threadcreate",
            "trace",
        ] {
            let answer = ask(&format!("/debug/pprof/{name}"));
            assert!(
                answer.starts_with("501") && answer.contains("There is no profile"),
                "{answer}"
            );
        }
        let request = Request::get("/debug/pprof/").body(()).unwrap();
        let answer = ask_with(&pages, Surface::Metrics, request, &well());
        assert!(answer.starts_with("404"), "{answer}");
    }
    let request = Request::get("/debug/pprof/").body(()).unwrap();
    let answer = ask_with(&pages_of(""), Surface::Client, request, &well());
    assert!(answer.starts_with("404"), "{answer}");
}
