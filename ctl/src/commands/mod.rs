//! The commands, one file each: flags, what is asked, and how the answer ends.

mod alarm;
mod auth;
mod compaction;
mod defrag;
pub(crate) mod del;
mod downgrade;
mod endpoint;
pub(crate) mod get;
mod lease;
mod member;
mod move_leader;
pub(crate) mod put;
mod role;
mod snapshot;
mod txn;
mod user;
mod version;
mod watch;

use std::ffi::OsStr;

use clap::Subcommand;

use crate::failure::{Exit, Failure};
use crate::globals::Context;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Gets the key or a range of keys
    Get(get::Get),
    /// Puts the given key into the store
    Put(put::Put),
    /// Removes the specified key or range of keys [key, range_end)
    Del(del::Del),
    /// Txn processes all the requests in one transaction
    Txn(txn::Txn),
    /// Compacts the event history in etcd
    Compaction(compaction::Compaction),
    /// Watches events stream on keys or prefixes
    Watch(watch::Watch),
    /// Lease related commands
    #[command(infer_subcommands = true)]
    Lease(lease::Lease),
    /// Membership related commands
    #[command(infer_subcommands = true)]
    Member(member::Member),
    /// Endpoint related commands
    #[command(infer_subcommands = true)]
    Endpoint(endpoint::Endpoint),
    /// Alarm related commands
    #[command(infer_subcommands = true)]
    Alarm(alarm::Alarm),
    /// Defragments the storage of the etcd members with given endpoints
    Defrag(defrag::Defrag),
    /// Downgrade related commands
    #[command(infer_subcommands = true)]
    Downgrade(downgrade::Downgrade),
    /// Enable, disable, or check authentication
    #[command(infer_subcommands = true)]
    Auth(auth::Auth),
    /// User related commands
    #[command(infer_subcommands = true)]
    User(user::User),
    /// Role related commands
    #[command(infer_subcommands = true)]
    Role(role::Role),
    /// Transfers leadership to another etcd cluster member
    MoveLeader(move_leader::MoveLeader),
    /// Manages etcd node snapshots
    #[command(infer_subcommands = true)]
    Snapshot(snapshot::Snapshot),
    /// Prints the version of etcdctl
    Version,
}

impl Command {
    /// Carries it out.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Get(get) => get.run(context).await,
            Self::Put(put) => put.run(context).await,
            Self::Del(del) => del.run(context).await,
            Self::Txn(txn) => txn.run(context).await,
            Self::Compaction(compaction) => compaction.run(context).await,
            Self::Watch(watch) => watch.run(context).await,
            Self::Lease(lease) => lease.run(context).await,
            Self::Member(member) => member.run(context).await,
            Self::Endpoint(endpoint) => endpoint.run(context).await,
            Self::Alarm(alarm) => alarm.run(context).await,
            Self::Defrag(defrag) => defrag.run(context).await,
            Self::Downgrade(downgrade) => downgrade.run(context).await,
            Self::Auth(auth) => auth.run(context).await,
            Self::User(user) => user.run(context).await,
            Self::Role(role) => role.run(context).await,
            Self::MoveLeader(move_leader) => move_leader.run(context).await,
            Self::Snapshot(snapshot) => snapshot.run(context).await,
            Self::Version => version::run(),
        }
    }
}

/// A name from the command line: protobuf takes no other text than UTF-8.
fn text(argument: &OsStr) -> String {
    argument.to_string_lossy().into_owned()
}

/// The range end that means "all keys from the first one on".
pub(crate) const NO_END: &[u8] = b"\0";

/// The end of the range of all keys with a prefix.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff);
    match last {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => NO_END.to_vec(),
    }
}

/// Key and end of all keys with a prefix; no prefix means all keys.
fn prefix_range(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() {
        return from_key_range(prefix);
    }
    let end = prefix_end(&prefix);
    (prefix, end)
}

/// Key and end of all keys from one on.
fn from_key_range(key: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let key = if key.is_empty() { vec![0] } else { key };
    (key, NO_END.to_vec())
}

/// Key and end as `--prefix`, `--from-key` or a second argument say; without any of them, the key alone.
fn key_range(
    key: Vec<u8>,
    range_end: Option<Vec<u8>>,
    is_prefix: bool,
    is_first: bool,
) -> (Vec<u8>, Vec<u8>) {
    if is_prefix {
        prefix_range(key)
    } else if is_first {
        from_key_range(key)
    } else {
        (key, range_end.unwrap_or_default())
    }
}

/// `--consistency`.
fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let other = crate::go::quote::quote(other.as_bytes());
            let message = format!("unknown consistency flag {other}");
            Err(Failure::new(Exit::Feature, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_without_it() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), NO_END);
        assert_eq!(prefix_range(vec![]), (vec![0], vec![0]));
    }
}
