//! One member from its start to its end: the log lines that tools wait for, and exact answers over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

#[path = "members/ports.rs"]
mod ports;

use ports::free_port;

/// A member alone in a directory of its own.
struct Running {
    process: Child,
    log: BufReader<ChildStderr>,
    lines: Vec<serde_json::Value>,
    client: u16,
    http: u16,
    metrics: u16,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let (client, http, metrics, peer) = (free_port(), free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut process = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["--name", "m1", "--data-dir"])
            .arg(directory.path().join("data"))
            .args([
                "--listen-client-urls",
                &url(client),
                "--advertise-client-urls",
                &url(client),
            ])
            .args([
                "--listen-client-http-urls",
                &url(http),
                "--listen-metrics-urls",
                &url(metrics),
            ])
            .args([
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
            ])
            .env_clear()
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut running = Self {
            process,
            log,
            lines: Vec::new(),
            client,
            http,
            metrics,
            _directory: directory,
        };
        running.wait_for("now serving peer/client/metrics");
        running
    }

    /// Reads the log until a line with this message.
    fn wait_for(&mut self, message: &str) {
        while self.lines.last().is_none_or(|line| line["msg"] != message) {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("the log can be read");
            assert_ne!(
                read, 0,
                "the log ended before {message:?}: {:#?}",
                self.lines
            );
            self.lines
                .push(serde_json::from_str(&line).expect("log lines are JSON"));
        }
    }

    /// Asks the member to end, and waits until it has.
    fn stop(&mut self) -> Option<i32> {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .expect("there is kill")
                .success()
        );
        self.wait_for("closed etcd server");
        self.process.wait().expect("it is our child").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The whole answer but for the date.
fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the member listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let head = head
        .lines()
        .filter(|line| !line.starts_with("date: ") && !line.starts_with("connection: "));
    format!("{}\n\n{body}", head.collect::<Vec<_>>().join("\n"))
}

fn body(port: u16, path: &str) -> String {
    get(port, path)
        .split_once("\n\n")
        .expect("a head and a body")
        .1
        .to_owned()
}

#[test]
fn a_member_serves_its_pages_on_the_ports_they_belong_to() {
    let mut member = Running::start();
    let health = "HTTP/1.1 200 OK\ncontent-type: text/plain; charset=utf-8\n";
    let cors = "access-control-allow-methods: POST, GET, OPTIONS, PUT, DELETE\naccess-control-allow-origin: *\n\
                access-control-allow-headers: accept, content-type, authorization\n";
    let good = "content-length: 29\n\n{\"health\":\"true\",\"reason\":\"\"}";
    assert_eq!(get(member.http, "/health"), format!("{health}{cors}{good}"));
    assert_eq!(get(member.metrics, "/health"), format!("{health}{good}"));
    assert_eq!(
        body(member.http, "/readyz?verbose"),
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"
    );
    assert!(
        body(member.http, "/version").starts_with("{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"")
    );
    assert_eq!(body(member.metrics, "/version"), "404 page not found\n");
    assert_eq!(
        body(member.client, "/health"),
        "404 page not found\n",
        "gRPC alone, since HTTP has a port"
    );

    let metrics = body(member.metrics, "/metrics");
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_health_success 2",
    ] {
        assert!(
            metrics.lines().any(|shown| shown == line),
            "{line}\n{metrics}"
        );
    }

    assert_eq!(member.stop(), Some(0));
    let messages: Vec<_> = member
        .lines
        .iter()
        .filter_map(|line| line["msg"].as_str())
        .collect();
    let order = [
        "Running: ",
        "starting an etcd server",
        "published local member to cluster through raft",
        "ready to serve client requests",
        "serving client traffic insecurely; this is strongly discouraged!",
        "serving metrics",
        "now serving peer/client/metrics",
        "received signal; shutting down",
        "closing etcd server",
        "closed etcd server",
    ];
    let mut rest = messages.iter();
    for wanted in order {
        assert!(
            rest.any(|message| *message == wanted),
            "{wanted:?} is missing or out of order: {messages:#?}"
        );
    }
}
