//! Joining a running cluster: the member was added before, and now asks the others which one of them it is.
//!
//! It begins with an empty log. Its leader knows that, and sends entries or a snapshot.

use futures_util::future::join_all;
use quorate_core::disk::Disk;
use quorate_core::node::Recovered;
use quorate_core::types::{ClusterId, MemberId};
use quorate_core::wal::{self, Metadata, Wal};
use quorate_net::peer::{Endpoint, PeerClient, Wire};
use quorate_proto::etcdserverpb as pb;
use tracing::{info, warn};

use super::{Beginning, BootstrapError, lease_config};
use crate::config::{Config, ETCD_VERSION, Url, resolve};

/// The versions of clusters that this member can be part of: from this to its own.
const CLUSTER_VERSION_MIN: (u64, u64) = (3, 0);

/// Makes the member that the running cluster says this one is.
pub(super) async fn join<D: Disk + Clone>(
    config: &Config,
    wire: &Wire,
    disk: D,
    options: wal::Options,
) -> Result<Beginning<D>, BootstrapError> {
    let listed = config.check_join()?;
    let client = PeerClient::new(wire);
    let others = listed.iter().filter(|(name, _)| **name != config.name);
    let endpoints: Vec<_> = others
        .flat_map(|(_, urls)| urls)
        .filter_map(|url| Endpoint::parse(&url.to_string()).ok())
        .collect();
    let (cluster, running) = running_members(&client, &endpoints).await?;
    let listed: Vec<(&str, &[Url])> = listed
        .iter()
        .map(|(name, urls)| (name.as_str(), urls.as_slice()))
        .collect();
    let member = own_id(&listed, &config.name, &running)?;
    check_versions(&client, &running, member).await?;
    let metadata = Metadata { member, cluster };
    info!(
        member = %format_args!("{:x}", member.0),
        cluster = %format_args!("{:x}", cluster.0),
        "joining a running cluster"
    );
    let wal = Wal::create(disk, options, metadata)?;
    let recovered = Recovered::joining(lease_config(config));
    Ok(Beginning {
        metadata,
        recovered,
        wal,
    })
}

/// What the first of them says that answers.
async fn running_members(
    client: &PeerClient,
    endpoints: &[Endpoint],
) -> Result<(ClusterId, Vec<pb::Member>), BootstrapError> {
    for endpoint in endpoints {
        match client.members(endpoint).await {
            Ok((cluster, members)) if !members.is_empty() => return Ok((cluster, members)),
            Ok(_) => warn!(%endpoint, "it knows no members"),
            Err(error) => warn!(%endpoint, %error, "failed to get cluster response"),
        }
    }
    Err(BootstrapError::NobodyKnown)
}

/// Each listed member must be a running one, known by its peer URLs, and none may be left over.
fn own_id(
    listed: &[(&str, &[Url])],
    own: &str,
    running: &[pb::Member],
) -> Result<MemberId, BootstrapError> {
    let refuse = |reason: String| {
        let urls = running.iter().map(|member| member.peer_urls.join(","));
        let running = urls.collect::<Vec<_>>().join(" ");
        BootstrapError::OtherMembers { running, reason }
    };
    if listed.len() != running.len() {
        return Err(refuse("member count is unequal".to_owned()));
    }
    let mut left: Vec<&pb::Member> = running.iter().collect();
    let mut found = None;
    for (name, urls) in listed {
        let place = left.iter().position(|member| is_same(urls, member));
        let Some(place) = place else {
            let urls = urls.iter().map(ToString::to_string).collect::<Vec<_>>();
            let reason = format!(
                "unmatched member while checking PeerURLs ({})",
                urls.join(",")
            );
            return Err(refuse(reason));
        };
        let member = left.swap_remove(place);
        if *name == own {
            found = Some(MemberId(member.id));
        }
    }
    found.ok_or_else(|| refuse("this member is not listed".to_owned()))
}

/// Whether these are the member's peer URLs, by text or by address.
fn is_same(urls: &[Url], member: &pb::Member) -> bool {
    let theirs = member.peer_urls.iter().map(|url| Url::parse(url));
    let Ok(theirs) = theirs.collect::<Result<Vec<_>, _>>() else {
        return false;
    };
    let texts = |urls: &[Url]| {
        let mut texts: Vec<_> = urls.iter().map(ToString::to_string).collect();
        texts.sort_unstable();
        texts
    };
    if texts(urls) == texts(&theirs) {
        return true;
    }
    let places = |urls: &[Url]| {
        let places = urls.iter().map(|url| {
            let mut addresses = resolve(url).ok()?;
            addresses.sort_unstable();
            Some((url.scheme.as_str(), addresses))
        });
        let mut places = places.collect::<Option<Vec<_>>>()?;
        places.sort_unstable();
        Some(places)
    };
    let ours = places(urls);
    ours.is_some() && ours == places(&theirs)
}

/// At least one member must say what it runs, and every cluster version that is known must be one that we can be part of.
async fn check_versions(
    client: &PeerClient,
    running: &[pb::Member],
    own: MemberId,
) -> Result<(), BootstrapError> {
    let others = running.iter().filter(|member| member.id != own.0);
    let asked = others.map(|member| async move {
        for endpoint in member
            .peer_urls
            .iter()
            .filter_map(|url| Endpoint::parse(url).ok())
        {
            if let Ok(versions) = client.versions(&endpoint).await {
                return Some(versions);
            }
        }
        None
    });
    let known: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    let fits = |cluster: &str| {
        let version = major_minor(cluster);
        version.is_none_or(|version| {
            Some(version) <= major_minor(ETCD_VERSION) && version >= CLUSTER_VERSION_MIN
        })
    };
    if known.is_empty() || !known.iter().all(|versions| fits(&versions.cluster)) {
        return Err(BootstrapError::Incompatible);
    }
    Ok(())
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(ids_and_urls: &[(u64, &str)]) -> Vec<pb::Member> {
        let member = |&(id, url): &(u64, &str)| pb::Member {
            id,
            peer_urls: vec![url.to_owned()],
            ..pb::Member::default()
        };
        ids_and_urls.iter().map(member).collect()
    }

    #[test]
    fn a_joining_member_is_the_one_with_its_urls() {
        let a = Url::parse_list("http://127.0.0.1:1").unwrap();
        let b = Url::parse_list("http://127.0.0.1:2").unwrap();
        let listed: [(&str, &[Url]); 2] = [("a", &a), ("b", &b)];
        let known = running(&[(7, "http://127.0.0.1:2"), (8, "http://127.0.0.1:1")]);
        assert_eq!(own_id(&listed, "b", &known).unwrap(), MemberId(7));
        let error = own_id(&listed, "b", &known[..1]).unwrap_err().to_string();
        assert!(error.ends_with(": member count is unequal"), "{error}");
        let moved = running(&[(7, "http://127.0.0.1:3"), (8, "http://127.0.0.1:1")]);
        let error = own_id(&listed, "b", &moved).unwrap_err().to_string();
        let words = "unmatched member while checking PeerURLs (http://127.0.0.1:2)";
        assert!(error.ends_with(words), "{error}");
    }
}
