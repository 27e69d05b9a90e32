//! A network of this process alone: a bridge, and on it one namespace for each member.
//!
//! The process begins again in namespaces of its own (`unshare`), as root or as a user who may have them; all of it is
//! gone when the process ends. A way from one member to another is cut by a wrong hardware address for the other one:
//! frames leave, and nobody takes them. So each direction of each pair is cut by itself, without firewall or scheduler.
//!
//! ```text
//!   this process, 10.77.0.254 ── bridge ─┬─ veth ── member, 10.77.0.1
//!                                        └─ veth ── member, 10.77.0.2
//! ```

use std::cell::Cell;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set for the process that is in namespaces of its own.
const INSIDE: &str = "QUORATE_BENCH_NAMESPACES";
/// Nobody has it.
const NOBODY: &str = "02:00:00:00:00:01";
/// What must be permitted: everything that is done later.
const PROBE: &str = "mount -t tmpfs tmpfs /run && ip link set lo up && ip link add probe0 type bridge && ip netns add inner \
                     && ip link add probe1 type veth peer name probe2 && ip link set probe2 netns inner \
                     && ip netns exec inner true";

/// The bridge, and the addresses that have been given.
pub(crate) struct Network {
    hosts: Cell<u8>,
}

/// A namespace on the bridge.
#[derive(Clone)]
pub(crate) struct Host {
    name: String,
    pub(crate) address: String,
}

/// Lets this process begin again where it may make networks. Returns if it is there already, or why it cannot be.
pub(crate) fn enter() -> Result<(), String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let plain: &[&str] = &["--net", "--mount"];
    let as_user: &[&str] = &["--map-root-user", "--net", "--mount"];
    let mut refusal = String::new();
    for flags in [plain, as_user] {
        let probe = Command::new("unshare")
            .args(flags)
            .args(["sh", "-c", PROBE])
            .output()
            .map_err(|error| format!("unshare: {error}"))?;
        if !probe.status.success() {
            refusal = String::from_utf8_lossy(&probe.stderr).trim().to_string();
            continue;
        }
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let error = Command::new("unshare")
            .args(flags)
            .arg("--")
            .arg(own)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        return Err(format!("unshare: {error}"));
    }
    Err(refusal.replace('\n', "; "))
}

impl Network {
    /// The bridge; [`enter`] has succeeded.
    pub(crate) fn new() -> Result<Self, String> {
        run("mount -t tmpfs tmpfs /run")?;
        run("ip link set lo up")?;
        run("ip link add members type bridge")?;
        run("ip address add 10.77.0.254/24 dev members")?;
        run("ip link set members up")?;
        Ok(Self {
            hosts: Cell::new(0),
        })
    }

    /// A new host that reaches all others.
    pub(crate) fn add_host(&self) -> Result<Host, String> {
        let number = self.hosts.get() + 1;
        assert!(number < 254, "one network has room for a few members");
        self.hosts.set(number);
        let (name, address) = (format!("host{number}"), format!("10.77.0.{number}"));
        run(&format!("ip netns add {name}"))?;
        run(&format!(
            "ip link add port{number} type veth peer name eth0 netns {name}"
        ))?;
        run(&format!("ip link set port{number} master members up"))?;
        run(&format!("ip -n {name} address add {address}/24 dev eth0"))?;
        run(&format!("ip -n {name} link set eth0 up"))?;
        run(&format!("ip -n {name} link set lo up"))?;
        Ok(Host { name, address })
    }
}

impl Host {
    /// What runs a program there.
    pub(crate) fn command(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name]
            .map(String::from)
            .to_vec()
    }

    /// Nothing that this host sends reaches the other one any more.
    pub(crate) fn cut_way_to(&self, other: &Self) -> Result<(), String> {
        run(&format!(
            "ip -n {} neigh replace {} lladdr {NOBODY} dev eth0 nud permanent",
            self.name, other.address
        ))
    }

    /// The way is there again.
    pub(crate) fn mend_way_to(&self, other: &Self) -> Result<(), String> {
        run(&format!(
            "ip -n {} neigh del {} dev eth0",
            self.name, other.address
        ))
    }
}

fn run(line: &str) -> Result<(), String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{line}: {}", error.trim()))
}
