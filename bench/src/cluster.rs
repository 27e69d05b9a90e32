//! Three members as processes, with etcd's classic flags, and everything that may happen to a process.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A cluster of real processes on this machine.
pub(crate) struct Cluster {
    members: Vec<Member>,
}

struct Member {
    arguments: Vec<String>,
    binary: PathBuf,
    log: PathBuf,
    client_url: String,
    process: Option<Child>,
    is_paused: bool,
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
            Member {
                arguments,
                binary: binary.to_path_buf(),
                log,
                client_url: client,
                process: None,
                is_paused: false,
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
        let member = &mut self.members[number];
        let fail = |error: std::io::Error| format!("{}: {error}", member.binary.display());
        let log = File::options()
            .create(true)
            .append(true)
            .open(&member.log)
            .map_err(fail)?;
        let errors = log.try_clone().map_err(fail)?;
        let mut command = Command::new(&member.binary);
        command
            .args(&member.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        member.process = Some(command.spawn().map_err(fail)?);
        Ok(())
    }

    /// The process of a member, if it runs.
    pub(crate) fn process_id(&self, number: usize) -> Option<u32> {
        self.members[number].process.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.members[number].process.take() {
            let _ = process.kill();
            let _ = process.wait();
            self.members[number].is_paused = false;
        }
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn pause(&mut self, number: usize, pause: bool) {
        if let Some(process) = &self.members[number].process {
            let signal = if pause { "-STOP" } else { "-CONT" };
            let _ = Command::new("kill")
                .args([signal, &process.id().to_string()])
                .status();
            self.members[number].is_paused = pause;
        }
    }

    /// A member that ended although nobody killed it: its number and the end of its log.
    pub(crate) fn died(&mut self) -> Option<(usize, String)> {
        for (number, member) in self.members.iter_mut().enumerate() {
            let has_ended = member
                .process
                .as_mut()
                .is_some_and(|process| !matches!(process.try_wait(), Ok(None)));
            if has_ended {
                let text = std::fs::read_to_string(&member.log).unwrap_or_default();
                let lines: Vec<_> = text.lines().rev().take(12).collect();
                return Some((
                    number,
                    lines.into_iter().rev().collect::<Vec<_>>().join("\n"),
                ));
            }
        }
        None
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            self.kill(number);
        }
    }
}

/// Ports that nobody uses now. They are all held until the last is found, so they differ.
fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let listeners = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>();
    let listeners = listeners.map_err(|error| format!("no free port: {error}"))?;
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
