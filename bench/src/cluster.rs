//! Three members as processes, with etcd's classic flags, and everything that may happen to a process.

use std::net::TcpListener;
use std::path::Path;

use rand::RngExt;

use crate::process::Process;

/// A cluster of real processes on this machine.
pub(crate) struct Cluster {
    members: Vec<Member>,
}

struct Member {
    client_url: String,
    process: Process,
}

impl Cluster {
    /// A new cluster in `directory`, not yet started. `extra` goes to every member's command line.
    pub(crate) fn new(
        binary: &Path,
        directory: &Path,
        size: usize,
        extra: &[String],
    ) -> Result<Self, String> {
        let ports = free_ports(size * 2)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let names: Vec<_> = (0..size).map(|number| format!("m{number}")).collect();
        let initial: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| format!("{name}={}", url(ports[2 * number])))
            .collect();
        let members = names.iter().enumerate().map(|(number, name)| {
            let (peer, client) = (url(ports[2 * number]), url(ports[2 * number + 1]));
            let mut arguments: Vec<String> = [
                ("--name", name.as_str()),
                ("--data-dir", &directory.join(name).to_string_lossy()),
                ("--initial-advertise-peer-urls", &peer),
                ("--listen-peer-urls", &peer),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--initial-cluster-token", "kill-test"),
                ("--initial-cluster", &initial.join(",")),
                ("--initial-cluster-state", "new"),
            ]
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_string(), value.to_string()])
            .collect();
            arguments.extend_from_slice(extra);
            let log = directory.join(format!("{name}.log"));
            let command = vec![binary.to_string_lossy().into_owned()];
            Member {
                client_url: client,
                process: Process::new(command, arguments, log),
            }
        });
        Ok(Self {
            members: members.collect(),
        })
    }

    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn client_urls(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.client_url.clone())
            .collect()
    }

    pub(crate) fn start(&mut self, number: usize) -> Result<(), String> {
        self.members[number].process.start()
    }

    /// The process of a member, if it runs.
    pub(crate) fn process_id(&self, number: usize) -> Option<u32> {
        self.members[number].process.id()
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self, number: usize) {
        self.members[number].process.kill();
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn pause(&mut self, number: usize, pause: bool) {
        let signal = if pause { "-STOP" } else { "-CONT" };
        self.members[number].process.signal(signal);
    }

    /// A member that ended although nobody killed it: its number and the end of its log.
    pub(crate) fn died(&mut self) -> Option<(usize, String)> {
        let mut members = self.members.iter_mut().enumerate();
        members.find_map(|(number, member)| {
            member.process.ended()?;
            Some((number, member.process.last_lines()))
        })
    }
}

/// Ports that nobody uses now, below those that the system gives to outgoing connections: a member that is away keeps its
/// port. They are all held until the last is found, so they differ.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let mut random = rand::rng();
    let mut listeners = Vec::new();
    for _ in 0..10_000 {
        if listeners.len() == count {
            break;
        }
        let port = random.random_range(10_000..32_000u16);
        listeners.extend(TcpListener::bind(("127.0.0.1", port)));
    }
    if listeners.len() < count {
        return Err("no free port".into());
    }
    listeners
        .iter()
        .map(|listener| {
            listener
                .local_addr()
                .map(|address| address.port())
                .map_err(|error| error.to_string())
        })
        .collect()
}
