//! A cluster whose members come and go while clients use it: real processes, each with an own data directory, in one
//! network or each in an own namespace.
//!
//! A fleet carries out what an operator does, with all the waiting that belongs to it; [`trial`] puts such steps in a row
//! and measures them. It never looks into a server, except that it reads the names of log files and counts lines of logs.

pub(crate) mod api;
pub(crate) mod crew;
pub(crate) mod filler;
pub(crate) mod network;
pub(crate) mod trial;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use quorate_proto::etcdserverpb as pb;

use crate::cluster::free_ports;
use crate::patience::until;
use crate::process::Process;
use crew::Crew;
use network::{Host, Network};

/// A server program.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As it is called in reports.
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    /// Flags for every member.
    pub(crate) flags: Vec<String>,
}

/// One member, from its addition to its removal.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) id: u64,
    pub(crate) client_url: String,
    peer_url: String,
    pub(crate) data: PathBuf,
    server: Server,
    process: Process,
    host: Option<Host>,
    is_voter: bool,
    /// Stopped or cut off on purpose.
    is_away: bool,
}

/// The cluster.
pub(crate) struct Fleet {
    directory: PathBuf,
    network: Option<Rc<Network>>,
    members: Vec<Member>,
    pub(crate) crew: Crew,
    /// Names are never given twice.
    made: usize,
}

impl Fleet {
    pub(crate) fn new(directory: &Path, network: Option<Rc<Network>>, crew: Crew) -> Self {
        Self {
            directory: directory.to_path_buf(),
            network,
            members: Vec::new(),
            crew,
            made: 0,
        }
    }

    /// Starts a new cluster of some voters, with their clients.
    pub(crate) async fn found(&mut self, server: &Server, size: usize) -> Result<(), String> {
        assert!(self.members.is_empty(), "a cluster is founded once");
        for _ in 0..size {
            let member = self.make(server)?;
            self.members.push(member);
        }
        let initial = self.members.iter().map(Member::pair).collect::<Vec<_>>();
        for member in &mut self.members {
            member.launch(&initial.join(","), "new")?;
        }
        for place in 0..size {
            self.wait_until_served(place).await?;
        }
        let listed = api::list(&self.members[0].client_url).await?;
        for place in 0..size {
            let member = &mut self.members[place];
            let found = listed.iter().find(|one| one.name == member.name);
            member.id = found.ok_or("a member is not listed")?.id;
            self.admit(place)?;
        }
        Ok(())
    }

    /// Adds a learner with an empty disk, starts it and promotes it as soon as it is in sync.
    pub(crate) async fn join(&mut self, server: &Server) -> Result<(), String> {
        let mut member = self.make(server)?;
        let (id, listed) = api::add_learner(&self.urls(), &member.peer_url).await?;
        member.id = id;
        let name = member.name.clone();
        member.launch(&initial_cluster(&listed, id, &name), "existing")?;
        self.members.push(member);
        let place = self.members.len() - 1;
        api::promote(&self.urls(), id).await?;
        self.wait_until_served(place).await?;
        self.admit(place)
    }

    /// Removes a member and waits until it has stopped by itself, if it runs.
    pub(crate) async fn remove(&mut self, name: &str) -> Result<(), String> {
        let place = self.place(name);
        let mut member = self.members.remove(place);
        self.crew.detach(&member.client_url);
        self.publish();
        // The last member removes itself from no cluster: somebody is left.
        api::remove(&self.urls(), member.id).await?;
        if member.process.id().is_some() {
            until("a removed member stops by itself", async || {
                let ended = member.process.ended();
                ended.map(|_| ()).ok_or_else(|| name.to_string())
            })
            .await?;
            member.process.kill();
        }
        wipe(&member.data)
    }

    /// SIGTERM, and waits until the process is gone.
    pub(crate) async fn stop(&mut self, name: &str) -> Result<(), String> {
        let place = self.place(name);
        self.leave(place, true);
        let process = &mut self.members[place].process;
        process.signal("-TERM");
        until("a member stops", async || {
            let ended = process.ended();
            ended.map(|_| ()).ok_or_else(|| name.to_string())
        })
        .await?;
        process.kill();
        Ok(())
    }

    /// Kills a member and destroys its data.
    pub(crate) fn lose_disk(&mut self, name: &str) -> Result<(), String> {
        let place = self.place(name);
        self.leave(place, true);
        let member = &mut self.members[place];
        member.process.kill();
        wipe(&member.data)
    }

    /// Starts a member that was stopped, and waits until it serves.
    pub(crate) async fn start(&mut self, name: &str) -> Result<(), String> {
        let place = self.place(name);
        self.members[place].process.start()?;
        self.wait_until_served(place).await?;
        self.leave(place, false);
        Ok(())
    }

    /// Marks a member as one that is not asked for now, or as one that is back.
    pub(crate) fn leave(&mut self, place: usize, is_away: bool) {
        self.members[place].is_away = is_away;
        self.publish();
    }

    /// Where a member stands among the others.
    pub(crate) fn place(&self, name: &str) -> usize {
        let found = self.members.iter().position(|member| member.name == name);
        found.expect("a member is named while it is there")
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn member(&self, name: &str) -> &Member {
        &self.members[self.place(name)]
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.members.iter().map(|member| member.name.clone());
        names.collect()
    }

    /// The client URLs of the voters that are not away.
    pub(crate) fn urls(&self) -> Vec<String> {
        let present = self.members.iter().filter(|member| member.is_present());
        present.map(|member| member.client_url.clone()).collect()
    }

    /// The name of the member that leads those that are not away.
    pub(crate) async fn leader(&self) -> Result<String, String> {
        let id = api::leader(&self.urls()).await?;
        let found = self.members.iter().find(|member| member.id == id);
        Ok(found.ok_or("a stranger leads")?.name.clone())
    }

    /// Hands the leadership to a member.
    pub(crate) async fn make_leader(&self, name: &str) -> Result<(), String> {
        api::move_leader(&self.urls(), self.member(name).id).await
    }

    /// The name of a member that does not lead.
    pub(crate) async fn follower(&self) -> Result<String, String> {
        let leader = self.leader().await?;
        let found = self
            .members
            .iter()
            .rev()
            .find(|member| member.name != leader);
        Ok(found.ok_or("there is no follower")?.name.clone())
    }

    /// Waits until every voter that is not away serves linearizable reads; none may have ended by itself.
    pub(crate) async fn wait_until_all_serve(&mut self) -> Result<(), String> {
        for place in 0..self.members.len() {
            if self.members[place].is_present() {
                self.wait_until_served(place).await?;
            }
        }
        Ok(())
    }

    async fn wait_until_served(&mut self, place: usize) -> Result<(), String> {
        let member = &mut self.members[place];
        let what = format!("{} serves", member.name);
        let mut end = None;
        let served = until(&what, async || {
            if let Some(status) = member.process.ended() {
                end = Some(status);
                return Ok(());
            }
            api::read(&member.client_url).await.map(|_| ())
        })
        .await;
        let ended = end.map(|status| format!("{} has ended by itself ({status})", member.name));
        served
            .and_then(|()| ended.map_or(Ok(()), Err))
            .map_err(|error| format!("{error}\n{}", member.process.last_lines()))
    }

    /// A member that has ended by itself.
    pub(crate) fn died(&mut self) -> Result<(), String> {
        for member in &mut self.members {
            if member.process.ended().is_some() {
                let lines = member.process.last_lines();
                return Err(format!("{} has ended by itself:\n{lines}", member.name));
            }
        }
        Ok(())
    }

    /// A member becomes a voter that clients ask.
    fn admit(&mut self, place: usize) -> Result<(), String> {
        self.members[place].is_voter = true;
        self.publish();
        self.crew.attach(&self.members[place].client_url)
    }

    fn publish(&self) {
        *self.crew.present.lock().expect("no panic") = self.urls();
    }

    /// The name of the member that joins next.
    pub(crate) fn next_name(&self) -> String {
        format!("m{}", self.made + 1)
    }

    fn make(&mut self, server: &Server) -> Result<Member, String> {
        let name = self.next_name();
        self.made += 1;
        let host = match &self.network {
            Some(network) => Some(network.add_host()?),
            None => None,
        };
        let (address, ports) = match &host {
            Some(host) => (host.address.clone(), vec![2379, 2380]),
            None => ("127.0.0.1".to_string(), free_ports(2)?),
        };
        let url = |port: u16| format!("http://{address}:{port}");
        let mut command = host.as_ref().map(Host::command).unwrap_or_default();
        command.push(server.binary.to_string_lossy().into_owned());
        let data = self.directory.join(&name);
        let log = self.directory.join(format!("{name}.log"));
        Ok(Member {
            id: 0,
            client_url: url(ports[0]),
            peer_url: url(ports[1]),
            data,
            server: server.clone(),
            process: Process::new(command, Vec::new(), log),
            host,
            is_voter: false,
            is_away: false,
            name,
        })
    }
}

impl Member {
    fn is_present(&self) -> bool {
        self.is_voter && !self.is_away
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// How often a member has received a snapshot, by its own log.
    pub(crate) fn snapshots_received(&self) -> usize {
        self.count_in_log("received and saved database snapshot")
    }

    /// How often a member has lost another one, by its own log.
    pub(crate) fn peers_lost(&self) -> usize {
        self.count_in_log("peer became inactive")
    }

    fn count_in_log(&self, text: &str) -> usize {
        let log = std::fs::read(self.process.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(text).count()
    }

    /// The first index that its log files may still hold; etcd and Quorate name the files alike.
    pub(crate) fn log_begins(&self) -> Result<u64, String> {
        let directory = self.data.join("member/wal");
        let names = std::fs::read_dir(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        first_index(names).ok_or_else(|| format!("{}: no log files", directory.display()))
    }

    fn pair(&self) -> String {
        format!("{}={}", self.name, self.peer_url)
    }

    fn launch(&mut self, initial_cluster: &str, state: &str) -> Result<(), String> {
        let mut arguments: Vec<String> = [
            ("--name", self.name.as_str()),
            ("--data-dir", &self.data.to_string_lossy()),
            ("--initial-advertise-peer-urls", &self.peer_url),
            ("--listen-peer-urls", &self.peer_url),
            ("--listen-client-urls", &self.client_url),
            ("--advertise-client-urls", &self.client_url),
            ("--initial-cluster-token", "lifecycle"),
            ("--initial-cluster", initial_cluster),
            ("--initial-cluster-state", state),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_string(), value.to_string()])
        .collect();
        arguments.extend_from_slice(&self.server.flags);
        self.process.set_arguments(arguments);
        self.process.start()
    }
}

/// Removes a data directory, if it is there.
fn wipe(data: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", data.display()))
        }
        _ => Ok(()),
    }
}

/// All members as a new one is to be told of them: it has no name yet.
fn initial_cluster(listed: &[pb::Member], own_id: u64, own_name: &str) -> String {
    let pairs = listed.iter().flat_map(|member| {
        let name = if member.id == own_id {
            own_name
        } else {
            &member.name
        };
        let urls = member.peer_urls.iter();
        urls.map(move |url| format!("{name}={url}"))
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// The lowest index in names such as `0000000000000003-000000000000a1b2.wal`.
fn first_index(names: impl Iterator<Item = String>) -> Option<u64> {
    let indexes = names.filter_map(|name| {
        let (_, index) = name.strip_suffix(".wal")?.split_once('-')?;
        u64::from_str_radix(index, 16).ok()
    });
    indexes.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_index_is_read_from_names_of_log_files() {
        let names = [
            "0000000000000003-000000000000a1b2.wal",
            "0000000000000002-0000000000000010.wal",
            "0.tmp",
        ];
        assert_eq!(first_index(names.map(String::from).into_iter()), Some(16));
        assert_eq!(first_index(std::iter::once("0.tmp".to_string())), None);
    }

    #[test]
    fn a_new_member_is_told_its_own_name_and_those_of_the_others() {
        let member = |id, name: &str, url: &str| pb::Member {
            id,
            name: name.into(),
            peer_urls: vec![url.into()],
            ..Default::default()
        };
        let listed = [member(1, "a", "http://a"), member(2, "", "http://b")];
        assert_eq!(initial_cluster(&listed, 2, "b"), "a=http://a,b=http://b");
    }
}
