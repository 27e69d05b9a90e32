//! Members as processes, with etcd's classic flags, and everything that may happen to a process.

use std::net::TcpListener;
use std::path::Path;

use rand::RngExt;

use crate::process::Process;

/// A cluster of real processes on this machine.
pub(crate) struct Cluster {
    members: Vec<Member>,
}

struct Member {
    name: String,
    peer_url: String,
    client_url: String,
    process: Process,
}

/// What makes a member's command line.
struct Place<'a> {
    binary: &'a Path,
    directory: &'a Path,
    extra: &'a [String],
    /// `new` or `existing`.
    state: &'a str,
}

impl Member {
    fn new(
        place: &Place<'_>,
        name: String,
        peer_url: String,
        client_url: String,
        initial_cluster: &str,
    ) -> Self {
        let data = place.directory.join(&name);
        let mut arguments: Vec<String> = [
            ("--name", name.as_str()),
            ("--data-dir", &data.to_string_lossy()),
            ("--initial-advertise-peer-urls", &peer_url),
            ("--listen-peer-urls", &peer_url),
            ("--listen-client-urls", &client_url),
            ("--advertise-client-urls", &client_url),
            ("--initial-cluster-token", "kill-test"),
            ("--initial-cluster", initial_cluster),
            ("--initial-cluster-state", place.state),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_string(), value.to_string()])
        .collect();
        arguments.extend_from_slice(place.extra);
        let log = place.directory.join(format!("{name}.log"));
        let command = vec![place.binary.to_string_lossy().into_owned()];
        Self {
            name,
            peer_url,
            client_url,
            process: Process::new(command, arguments, log),
        }
    }
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
        let place = Place {
            binary,
            directory,
            extra,
            state: "new",
        };
        let members = names.into_iter().zip(ports.chunks(2));
        let members = members.map(|(name, ports)| {
            let (peer, client) = (url(ports[0]), url(ports[1]));
            Member::new(&place, name, peer, client, &initial.join(","))
        });
        Ok(Self {
            members: members.collect(),
        })
    }

    /// One more place, of a member that has been added under this peer URL. Not yet started.
    pub(crate) fn join(
        &mut self,
        binary: &Path,
        directory: &Path,
        peer_url: &str,
        extra: &[String],
    ) -> Result<usize, String> {
        let number = self.members.len();
        let name = format!("m{number}");
        let known = self.members.iter();
        let mut initial: Vec<_> = known
            .map(|member| format!("{}={}", member.name, member.peer_url))
            .collect();
        initial.push(format!("{name}={peer_url}"));
        let place = Place {
            binary,
            directory,
            extra,
            state: "existing",
        };
        let client_url = format!("http://127.0.0.1:{}", free_ports(1)?[0]);
        let initial = initial.join(",");
        let member = Member::new(&place, name, peer_url.to_owned(), client_url, &initial);
        self.members.push(member);
        Ok(number)
    }

    /// The last place is given up, its process killed.
    pub(crate) fn leave(&mut self) {
        self.members.pop();
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
