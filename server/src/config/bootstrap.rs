//! What a member says about its cluster before there is any data: who is in it, and that it is one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

use quorate_core::checkpoint::MemberRecord;
use quorate_core::member::{cluster_id, member_id};
use quorate_core::wal::Metadata;

use super::url::{parse_cluster, sort, texts};
use super::{Config, ConfigError, Notice, Scheme, Url};

/// The defaults that give way to the machine's own address, and to the name.
const PEER_URL_DEFAULT: &str = "http://localhost:2380";
const CLIENT_URL_DEFAULT: &str = "http://localhost:2379";
const CLUSTER_DEFAULT: &str = "default=http://localhost:2380";

/// This machine's address on the way to the world, if there is such a way; nothing is sent.
pub fn default_host() -> Option<String> {
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .iter()
        .find_map(|(local, remote)| {
            let socket = UdpSocket::bind(local).ok()?;
            socket.connect(remote).ok()?;
            Some(socket.local_addr().ok()?.ip().to_string())
        })
}

impl Config {
    /// Where connections to peers come from, with the gate `SetMemberLocalAddr`: the first address at which others are
    /// told to reach this member, and can.
    pub fn member_local_address(&self) -> Option<IpAddr> {
        let urls = self.initial_advertise_peer_urls.iter();
        let mut addresses = urls.filter_map(Url::ip);
        let suits = |address: &IpAddr| !address.is_loopback() && !address.is_unspecified();
        addresses
            .find(suits)
            .filter(|_| self.gates.enabled("SetMemberLocalAddr"))
    }

    /// A member that listens everywhere and advertises only the default is advertised at this machine's address; one
    /// that has a name but no cluster is a cluster of its own.
    pub(super) fn advertise_default_host(&mut self, default_host: impl FnOnce() -> Option<String>) {
        let everywhere = |listen: &[Url]| {
            listen
                .first()
                .filter(|url| url.host == "0.0.0.0")
                .map(|url| url.port)
        };
        let is_default =
            |urls: &[Url], default: &str| urls.len() == 1 && urls[0].to_string() == default;
        let peer_port = everywhere(&self.listen_peer_urls)
            .filter(|_| is_default(&self.initial_advertise_peer_urls, PEER_URL_DEFAULT));
        let client_port = everywhere(&self.listen_client_urls)
            .filter(|_| is_default(&self.advertise_client_urls, CLIENT_URL_DEFAULT));
        if (peer_port.is_some() || client_port.is_some())
            && let Some(host) = default_host()
        {
            if let Some(port) = peer_port {
                self.initial_advertise_peer_urls[0].host.clone_from(&host);
                self.initial_advertise_peer_urls[0].port = port;
            }
            if let Some(port) = client_port {
                self.advertise_client_urls[0].host.clone_from(&host);
                self.advertise_client_urls[0].port = port;
            }
            self.notices.push(Notice::info(
                "detected default host for advertise",
                vec![("host", host)],
            ));
        }
        if self.name != "default" && self.initial_cluster == CLUSTER_DEFAULT {
            self.initial_cluster = self.own_entry();
        }
    }

    /// This member as `--initial-cluster` names it.
    pub(crate) fn own_entry(&self) -> String {
        let name = if self.name.is_empty() {
            "default"
        } else {
            &self.name
        };
        let entries = self
            .initial_advertise_peer_urls
            .iter()
            .map(|url| format!("{name}={url}"));
        entries.collect::<Vec<_>>().join(",")
    }

    /// The members of the initial cluster by name, each with its sorted URLs; only for a member without data.
    ///
    /// # Errors
    /// With etcd's message when `--initial-cluster` cannot be read.
    pub fn initial_peer_urls(&self) -> Result<BTreeMap<String, Vec<Url>>, ConfigError> {
        parse_cluster(&self.initial_cluster)
            .map_err(|reason| ConfigError(format!("error setting up initial cluster: {reason}")))
    }

    /// The first members of the cluster that the flags name, and which of them this is; checked as
    /// [`Config::check_bootstrap`] checks them. Looks hosts up, which may block.
    ///
    /// # Errors
    /// With etcd's message.
    ///
    /// # Panics
    /// Never: the check has found this member.
    pub fn founders(&self) -> Result<(Vec<MemberRecord>, Metadata), ConfigError> {
        let cluster = self.check_bootstrap(resolve)?;
        let members: Vec<_> = cluster
            .into_iter()
            .map(|(name, urls)| {
                let peer_urls = texts(&urls);
                MemberRecord {
                    id: member_id(&peer_urls, &self.initial_cluster_token, None),
                    peer_urls,
                    name,
                    client_urls: Vec::new(),
                    is_learner: false,
                }
            })
            .collect();
        let ids: Vec<_> = members.iter().map(|member| member.id).collect();
        let own = members.iter().find(|member| member.name == self.name);
        let metadata = Metadata {
            member: own.expect("the check found this member").id,
            cluster: cluster_id(&ids),
        };
        Ok((members, metadata))
    }

    /// Checks that this member may start a new cluster: call it when there is no data and the cluster is new.
    ///
    /// `resolve` looks a host up; [`resolve`] asks the system and may block.
    ///
    /// # Errors
    /// With etcd's message.
    pub fn check_bootstrap(
        &self,
        resolve: impl Fn(&Url) -> Result<Vec<SocketAddr>, String>,
    ) -> Result<BTreeMap<String, Vec<Url>>, ConfigError> {
        let cluster = self.initial_peer_urls()?;
        let listed = self.own_urls(&cluster)?;
        self.check_advertised_as_listed(listed, resolve)?;
        check_unique(&cluster)?;
        Ok(cluster)
    }

    /// Checks that this member may join: call it when there is no data and the cluster exists.
    ///
    /// # Errors
    /// With etcd's message.
    pub fn check_join(&self) -> Result<BTreeMap<String, Vec<Url>>, ConfigError> {
        let cluster = self.initial_peer_urls()?;
        self.own_urls(&cluster)?;
        check_unique(&cluster)?;
        Ok(cluster)
    }

    fn own_urls<'a>(
        &self,
        cluster: &'a BTreeMap<String, Vec<Url>>,
    ) -> Result<&'a [Url], ConfigError> {
        cluster.get(&self.name).map(Vec::as_slice).ok_or_else(|| {
            ConfigError(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            ))
        })
    }

    /// The cluster must reach this member where it says it is, by text or at least by address.
    fn check_advertised_as_listed(
        &self,
        listed: &[Url],
        resolve: impl Fn(&Url) -> Result<Vec<SocketAddr>, String>,
    ) -> Result<(), ConfigError> {
        let mut advertised = self.initial_advertise_peer_urls.clone();
        sort(&mut advertised);
        let (listed_texts, advertised_texts) = (texts(listed), texts(&advertised));
        let Err(reason) = same_places(&advertised, listed, resolve) else {
            return Ok(());
        };
        let missing = |from: &[String], in_: &[String]| -> Vec<String> {
            from.iter()
                .filter(|url| !in_.contains(url))
                .cloned()
                .collect()
        };
        let not_advertised = missing(&listed_texts, &advertised_texts);
        if !not_advertised.is_empty() {
            let entries: Vec<_> = not_advertised
                .iter()
                .map(|url| format!("{}={url}", self.name))
                .collect();
            return Err(ConfigError(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={} ({reason})",
                entries.join(","),
                advertised_texts.join(","),
            )));
        }
        let not_listed = missing(&advertised_texts, &listed_texts);
        Err(ConfigError(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            not_listed.join(","),
            self.own_entry(),
        )))
    }
}

/// Asks the system for the addresses of a URL; may block.
///
/// # Errors
/// With the system's words.
pub fn resolve(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let addresses = (url.host.as_str(), url.port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    Ok(addresses.collect())
}

/// Whether two sorted lists of URLs lead to the same places; a reason if not.
fn same_places(
    left: &[Url],
    right: &[Url],
    resolve: impl Fn(&Url) -> Result<Vec<SocketAddr>, String>,
) -> Result<(), String> {
    if left.len() != right.len() {
        return Err(format!("len({:?}) != len({:?})", texts(left), texts(right)));
    }
    if left == right {
        return Ok(());
    }
    let resolved = |urls: &[Url]| -> Result<Vec<(Scheme, BTreeSet<SocketAddr>)>, String> {
        urls.iter()
            .map(|url| Ok((url.scheme, resolve(url)?.into_iter().collect())))
            .collect()
    };
    let (left_places, mut right_places) = (resolved(left)?, resolved(right)?);
    for (scheme, places) in left_places {
        let found = right_places
            .iter()
            .position(|(other, addresses)| *other == scheme && !addresses.is_disjoint(&places));
        match found {
            Some(found) => right_places.remove(found),
            None => {
                return Err(format!(
                    "resolved urls: {:?} != {:?}",
                    texts(left),
                    texts(right)
                ));
            }
        };
    }
    Ok(())
}

fn check_unique(cluster: &BTreeMap<String, Vec<Url>>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    let mut all = cluster.values().flatten().map(Url::to_string);
    if all.all(|url| seen.insert(url)) {
        return Ok(());
    }
    let mut entries: Vec<_> = cluster
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    entries.sort();
    Err(ConfigError(format!(
        "initial cluster {} has duplicate url",
        entries.join(",")
    )))
}
