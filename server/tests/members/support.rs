//! Real `quorate` processes on real ports and directories, for tests.
//!
//! Everything waits on a condition that the process itself brings about (a log line, its exit); the time bounds only
//! end a test that would otherwise hang.

use std::io::BufReader;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use quorate_net::grpc::etcdserverpb::cluster_client::ClusterClient;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::lease_client::LeaseClient;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use tempfile::TempDir;
use tonic::transport::Channel;

pub(crate) use crate::ports::free_port;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The line that a member logs when clients can come.
const READY: &str = "ready to serve client requests";

/// A `quorate` process and its directory.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) peer_url: String,
    client_port: u16,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    directory: TempDir,
    process: Option<Process>,
}

struct Process {
    child: Child,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Member {
    /// A cluster of one, ready to serve.
    pub(crate) fn alone() -> Self {
        let mut members = Self::cluster(1);
        let mut member = members.remove(0);
        member.start();
        member
    }

    /// The members of a new cluster, not started yet.
    pub(crate) fn cluster(size: usize) -> Vec<Self> {
        let peer_urls: Vec<_> = (0..size)
            .map(|_| format!("http://127.0.0.1:{}", free_port()))
            .collect();
        let all: Vec<_> = peer_urls
            .iter()
            .enumerate()
            .map(|(number, url)| format!("m{number}={url}"))
            .collect();
        let initial_cluster = all.join(",");
        let members = peer_urls.into_iter().enumerate();
        members
            .map(|(number, peer_url)| Self::made(number, peer_url, &initial_cluster, "new"))
            .collect()
    }

    /// A further member of a cluster that runs with these; it must have been added with its peer URL before it starts.
    pub(crate) fn joining(running: &[Self], number: usize) -> Self {
        let peer_url = format!("http://127.0.0.1:{}", free_port());
        let mut all: Vec<_> = running
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url))
            .collect();
        all.push(format!("m{number}={peer_url}"));
        Self::made(number, peer_url, &all.join(","), "existing")
    }

    /// A member of a new cluster whose members find each other by this token, with the help of a cluster that runs.
    pub(crate) fn discovering(service: &Self, number: usize, token: &str) -> Self {
        let peer_url = format!("http://127.0.0.1:{}", free_port());
        let endpoint = service.client_address();
        Self::made(number, peer_url, "", "new").with(&[
            "--discovery-token",
            token,
            "--discovery-endpoints",
            &endpoint,
        ])
    }

    fn made(number: usize, peer_url: String, initial_cluster: &str, state: &str) -> Self {
        let client_port = free_port();
        let client_url = format!("http://127.0.0.1:{client_port}");
        let name = format!("m{number}");
        let arguments = [
            ("--name", name.as_str()),
            ("--listen-client-urls", &client_url),
            ("--advertise-client-urls", &client_url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
            ("--initial-cluster", initial_cluster),
            ("--initial-cluster-state", state),
        ];
        let arguments = arguments
            .iter()
            .flat_map(|(flag, value)| [flag.to_string(), value.to_string()])
            .collect();
        let directory = TempDir::new().expect("the system has a temporary directory");
        Self {
            name,
            peer_url,
            client_port,
            arguments,
            variables: Vec::new(),
            directory,
            process: None,
        }
    }

    /// Adds flags to the next start.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Adds a variable to the environment of the next start.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a flag back for the next start.
    pub(crate) fn drop_argument(&mut self, argument: &str) {
        self.arguments.retain(|known| known != argument);
    }

    /// Where the member keeps its data.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the process without waiting for it to serve.
    pub(crate) fn launch(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let mut arguments = vec!["--data-dir".to_owned()];
        arguments.push(self.data_dir().to_str().expect("it is text").to_owned());
        // After it: a test may name another directory.
        arguments.extend_from_slice(&self.arguments);
        self.process = Some(Process::spawn(&arguments, &self.variables));
    }

    /// Starts the process and waits until it serves.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Waits until the process serves.
    pub(crate) fn wait_ready(&self) {
        self.wait_for_log(READY);
    }

    /// Waits until a log line holds `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let process = self.process.as_ref().expect("the member was started");
        assert!(
            process.log.wait_for(text),
            "{}: no line with {text:?} in\n{}",
            self.name,
            process.log.text()
        );
    }

    /// Whether a line with `text` has been logged so far.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        let process = self.process.as_ref().expect("the member was started");
        process.log.text().contains(text)
    }

    /// Kills the process, as a power cut would end it but for the disk's cache.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("the member was started");
        process.child.kill().expect("it is our child");
        process.child.wait().expect("it is our child");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let process = self.process.as_ref().expect("the member was started");
        let id = process.child.id().to_string();
        let status = Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .expect("kill exists");
        assert!(status.success(), "the process {id} is gone already");
        self.wait_exit().0
    }

    /// Waits for the end; also gives all that was logged.
    pub(crate) fn wait_exit(&mut self) -> (ExitStatus, String) {
        let mut process = self.process.take().expect("the member was started");
        let over = process.log.wait_for_end();
        assert!(over, "{} does not end:\n{}", self.name, process.log.text());
        (
            process.child.wait().expect("it is our child"),
            process.log.text(),
        )
    }

    /// The number of the process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process
            .as_ref()
            .expect("the member was started")
            .child
            .id()
    }

    /// `host:port` for clients.
    pub(crate) fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.client_address());
        Channel::from_shared(url)
            .expect("it is a URL")
            .connect()
            .await
            .expect("the member serves")
    }

    /// A client of the KV service.
    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    /// A client of the Watch service.
    pub(crate) async fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel().await)
    }

    /// A client of the Lease service.
    pub(crate) async fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel().await)
    }

    /// A client of the Cluster service.
    pub(crate) async fn membership(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    /// A client of the Maintenance service.
    pub(crate) async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.child.kill();
            let _ = process.child.wait();
            if std::thread::panicking() {
                eprintln!("---- log of {} ----\n{}", self.name, process.log.text());
            }
        }
    }
}

/// A `quorate` process between clients and members.
pub(crate) struct Proxy {
    port: u16,
    process: Process,
}

impl Proxy {
    /// `quorate COMMAND start` on a port of its own, with these flags; waits for a log line with `ready`.
    pub(crate) fn start(command: &str, flags: &[&str], ready: &str) -> Self {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut arguments = [command, "start", "--listen-addr", &address].to_vec();
        arguments.extend_from_slice(flags);
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let proxy = Self {
            port,
            process: Process::spawn(&arguments, &[]),
        };
        proxy.wait_for_log(ready);
        proxy
    }

    /// Waits until a log line holds `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let log = &self.process.log;
        assert!(
            log.wait_for(text),
            "no line with {text:?} in\n{}",
            log.text()
        );
    }

    /// `host:port` for clients.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new connection.
    pub(crate) async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.address());
        let endpoint = Channel::from_shared(url).expect("it is a URL");
        endpoint.connect().await.expect("the proxy serves")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the proxy ----\n{}", self.process.log.text());
        }
    }
}

impl Process {
    fn spawn(arguments: &[String], variables: &[(String, String)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(arguments)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::new(Log::default());
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || log.read(BufReader::new(stderr))
        });
        Self { child, log }
    }
}

impl Log {
    fn read(&self, stderr: impl std::io::BufRead) {
        for line in stderr.lines().map_while(Result::ok) {
            self.lines.lock().expect("no holder panics").0.push(line);
            self.grown.notify_all();
        }
        self.lines.lock().expect("no holder panics").1 = true;
        self.grown.notify_all();
    }

    /// Whether a line with `text` came before the process ended.
    fn wait_for(&self, text: &str) -> bool {
        self.wait_until(|lines, ended| {
            if lines.iter().any(|line| line.contains(text)) {
                Some(true)
            } else {
                ended.then_some(false)
            }
        })
    }

    fn wait_for_end(&self) -> bool {
        self.wait_until(|_, ended| ended.then_some(true))
    }

    fn wait_until(&self, decided: impl Fn(&[String], bool) -> Option<bool>) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().expect("no holder panics");
        loop {
            if let Some(decided) = decided(&lines.0, lines.1) {
                return decided;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            lines = self
                .grown
                .wait_timeout(lines, left)
                .expect("no holder panics")
                .0;
        }
    }

    fn text(&self) -> String {
        self.lines.lock().expect("no holder panics").0.join("\n")
    }
}
