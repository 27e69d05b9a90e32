//! The machines: where members run, and what can be done to them.
//!
//! ```text
//!   10.0.0.1 .. 10.0.0.n   members, clients on port 2379, peers on 2380        10.0.1.1 ..   clients
//! ```
//!
//! A machine is a madsim node with a `SimDisk`. Whenever its process starts it gets a new handle of the disk, so that
//! no destructor of the old one writes anything.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId;
use quorate_net::rt::simulated as network;
use quorate_server::config::{self, Config, Outcome};
use quorate_server::simulated::{self, EXITED};
use quorate_sim::check::Violation;

use crate::options::Options;
use crate::world;

thread_local! {
    /// Which madsim node is which machine.
    static NODES: RefCell<Vec<NodeId>> = const { RefCell::new(Vec::new()) };
}

/// The machine whose process runs now, if it is one.
pub fn current_machine() -> Option<usize> {
    let node = madsim::plugin::node();
    NODES.with_borrow(|nodes| nodes.iter().position(|known| *known == node))
}

/// The address of a member for its clients.
pub fn client_url(machine: usize) -> String {
    format!("http://{}:2379", member_ip(machine))
}

/// The machines of the members and of the clients.
pub struct Cluster {
    members: Vec<Machine>,
    clients: Vec<NodeHandle>,
}

struct Machine {
    node: NodeHandle,
    ip: IpAddr,
    state: State,
    /// How often it had been started when it was asked to stop.
    starts: u64,
}

/// What a member's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Paused,
    /// Being asked to stop.
    Stopping,
    Down,
}

fn member_ip(machine: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, machine as u8 + 1).into()
}

fn client_ip(client: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, client as u8 + 1).into()
}

/// The configuration of a member, from the flags that a user would give.
fn configuration(machine: usize, options: &Options) -> Config {
    let peer = |machine: usize| format!("http://{}:2380", member_ip(machine));
    let cluster: Vec<_> = (0..options.members)
        .map(|machine| format!("m{machine}={}", peer(machine)))
        .collect();
    let flags = [
        ("name", format!("m{machine}")),
        ("data-dir", format!("/m{machine}")),
        ("listen-client-urls", client_url(machine)),
        ("advertise-client-urls", client_url(machine)),
        ("listen-peer-urls", peer(machine)),
        ("initial-advertise-peer-urls", peer(machine)),
        ("initial-cluster", cluster.join(",")),
        (
            "heartbeat-interval",
            options.heartbeat.as_millis().to_string(),
        ),
        (
            "election-timeout",
            options.election().as_millis().to_string(),
        ),
        ("watch-progress-notify-interval", "2s".to_owned()),
    ];
    let arguments: Vec<_> = flags
        .into_iter()
        .flat_map(|(flag, value)| [format!("--{flag}"), value])
        .collect();
    match config::parse(&arguments, &[]) {
        Outcome::Run(config) => *config,
        Outcome::Print(text) | Outcome::Misused(text) => panic!("{text}"),
        Outcome::Refused(refusal) => panic!("{refusal:?}"),
    }
}

/// The life of a member's process.
async fn live(machine: usize) {
    // A fuse may blow while it starts: then the power comes back, and it starts again.
    while !start(machine).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Starts a process and waits for its end; false when it did not start for want of power.
async fn start(machine: usize) -> bool {
    // Of a process that ended by itself the sockets are still there.
    NetSim::current().reset_node(madsim::plugin::node());
    let (config, tuning, disk) = world::with(|world| {
        let disk = &world.disks[machine];
        let disk = if disk.is_dark() {
            disk.lose_power()
        } else {
            disk.crash()
        };
        world.disks[machine] = disk.clone();
        world.starts[machine] += 1;
        let config = configuration(machine, &world.options);
        (config, world.options.tuning, disk)
    });
    world::note(|| format!("m{machine} starts"));
    match simulated::run(config, tuning, disk).await {
        Ok(()) => {
            world::note(|| format!("m{machine} has stopped"));
            true
        }
        // The fault is ours: whoever looks after the process starts it again.
        Err(_) if world::with(|world| world.disks[machine].is_dark()) => false,
        Err(error) if error.to_string().ends_with("input/output error") => false,
        // A sector that is half written is damage: it is refused, and somebody repairs it.
        Err(error) if world::with(|world| world.disks[machine].is_spoilt()) => {
            world::note(|| format!("m{machine} refuses what its disk holds: {error}"));
            world::with(|world| {
                world.disks[machine].repair();
                *world.faults.entry("damage-refused").or_default() += 1;
            });
            false
        }
        Err(error) => {
            let detail = format!("m{machine} does not start: {error}");
            world::violated(Violation::new("converge.live", detail));
            true
        }
    }
}

impl Cluster {
    /// Starts all members.
    pub fn start() -> Self {
        // The one that looks on has an address, too: it asks members when all is over.
        NetSim::current().set_ip(madsim::plugin::node(), Ipv4Addr::new(10, 0, 2, 1).into());
        let (members, cores) = world::with(|world| (world.options.members, world.options.cores));
        let members = (0..members)
            .map(|machine| {
                let ip = member_ip(machine);
                let node = Handle::current()
                    .create_node()
                    .name(format!("m{machine}"))
                    .ip(ip)
                    .cores(cores)
                    .restart_on_panic_matching(EXITED)
                    .init(move || live(machine))
                    .build();
                NODES.with_borrow_mut(|nodes| nodes.push(node.id()));
                let state = State::Up;
                Machine {
                    node,
                    ip,
                    state,
                    starts: 0,
                }
            })
            .collect();
        Self {
            members,
            clients: Vec::new(),
        }
    }

    /// Starts a client on a machine of its own.
    pub fn add_client<F: Future<Output = ()> + 'static>(
        &mut self,
        life: impl Fn() -> F + Send + Sync + 'static,
    ) {
        let number = self.clients.len();
        let node = Handle::current()
            .create_node()
            .name(format!("c{number}"))
            .ip(client_ip(number))
            .init(life)
            .build();
        self.clients.push(node);
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Whether a member's process runs and is not about to stop.
    pub fn is_up(&self, machine: usize) -> bool {
        self.members[machine].state == State::Up
    }

    fn id(&self, machine: usize) -> NodeId {
        self.members[machine].node.id()
    }

    /// Kills a process. The system closes its connections.
    pub fn kill(&mut self, machine: usize) {
        world::note(|| format!("m{machine} is killed"));
        self.go_down(machine);
    }

    /// Takes a machine's power: its peers hear nothing of it.
    pub fn lose_power(&mut self, machine: usize) {
        world::note(|| format!("m{machine} loses power"));
        let ip = self.members[machine].ip;
        network::silence(|one, other| one.ip() == ip || other.ip() == ip);
        self.go_down(machine);
        world::with(|world| world.disks[machine] = world.disks[machine].lose_power());
    }

    fn go_down(&mut self, machine: usize) {
        Handle::current().kill(self.id(machine));
        self.members[machine].state = State::Down;
    }

    /// Starts a member's process again.
    pub fn restart(&mut self, machine: usize) {
        // The other ends of old connections find out when they send.
        let ip = self.members[machine].ip;
        network::reset(|one, other| one.ip() == ip || other.ip() == ip);
        Handle::current().restart(self.id(machine));
        self.members[machine].state = State::Up;
    }

    /// Asks a process to stop.
    pub fn stop(&mut self, machine: usize) {
        world::note(|| format!("m{machine} is asked to stop"));
        Handle::current().send_ctrl_c(self.id(machine));
        self.members[machine].state = State::Stopping;
        self.members[machine].starts = world::with(|world| world.starts[machine]);
    }

    /// Whether a process runs no more.
    pub fn has_ended(&self, machine: usize) -> bool {
        Handle::current().is_exit(self.id(machine))
    }

    /// Whether a process that was asked to stop has done so. One that had exited by itself just before, and was started
    /// again since, counts.
    pub fn has_stopped(&self, machine: usize) -> bool {
        let starts = world::with(|world| world.starts[machine]);
        self.has_ended(machine) || starts != self.members[machine].starts
    }

    /// Lets a process stand still.
    pub fn pause(&mut self, machine: usize) {
        world::note(|| format!("m{machine} stands still"));
        Handle::current().pause(self.id(machine));
        self.members[machine].state = State::Paused;
    }

    /// Lets it go on.
    pub fn resume(&mut self, machine: usize) {
        world::note(|| format!("m{machine} goes on"));
        Handle::current().resume(self.id(machine));
        self.members[machine].state = State::Up;
    }

    /// The nodes of all machines, members first.
    fn nodes(&self) -> Vec<NodeId> {
        let members = self.members.iter().map(|member| member.node.id());
        members
            .chain(self.clients.iter().map(NodeHandle::id))
            .collect()
    }

    /// How many machines there are, those of clients included.
    pub fn machines(&self) -> usize {
        self.members.len() + self.clients.len()
    }

    /// Cuts each link from a machine to another for which `is_cut` says so; members come first.
    pub fn cut(&self, is_cut: impl Fn(usize, usize) -> bool) {
        let nodes = self.nodes();
        let net = NetSim::current();
        for (from, from_node) in nodes.iter().enumerate() {
            for (to, to_node) in nodes.iter().enumerate() {
                if from != to && is_cut(from, to) {
                    net.clog_link(*from_node, *to_node);
                }
            }
        }
    }

    /// Joins all links again.
    pub fn join(&self) {
        let nodes = self.nodes();
        let net = NetSim::current();
        for from in &nodes {
            for to in &nodes {
                net.unclog_link(*from, *to);
            }
        }
    }

    /// The address of a machine, members first.
    fn ip_of(&self, machine: usize) -> IpAddr {
        match machine.checked_sub(self.members.len()) {
            None => member_ip(machine),
            Some(client) => client_ip(client),
        }
    }

    /// Resets or silences the connections between two machines.
    pub fn break_links(&self, one: usize, other: usize, silently: bool) -> usize {
        let (one, other) = (self.ip_of(one), self.ip_of(other));
        let chosen = |from: SocketAddr, to: SocketAddr| {
            (from.ip() == one && to.ip() == other) || (from.ip() == other && to.ip() == one)
        };
        if silently {
            network::silence(chosen)
        } else {
            network::reset(chosen)
        }
    }
}
