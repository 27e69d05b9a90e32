//! The plain model: what the store and the leases must be after each entry of the log.
//!
//! It is written from etcd's documented behaviour, as simply as possible and with nothing of the core's store: every
//! version of every key is kept for ever, and a read looks through them. The oracles ask it for the result of each
//! entry, for any range at any revision, and for the events of a watch.

mod alarm;
mod auth;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use quorate_core::boundary::Response;
use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::raftpb::{Entry, EntryType};

pub use auth::{Auth, Who};

/// What an entry did.
pub type Applied = Result<Response, RequestError>;

/// One change of one key. A deletion's `kv` holds the key and the revision only.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key after the change.
    pub kv: KeyValue,
    /// Whether it was deleted.
    pub deleted: bool,
    /// The key before, if it existed.
    pub before: Option<KeyValue>,
}

/// The state that the log builds.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    compacted: i64,
    /// Granted TTLs are at least this many seconds.
    ttl_min: i64,
    /// All versions of all keys, oldest first.
    keys: BTreeMap<Bytes, Vec<Change>>,
    /// Every change in order; `changes_of[revision]` is where a revision's changes begin.
    changes: Vec<Change>,
    changes_of: Vec<usize>,
    /// Leases with their keys.
    leases: BTreeMap<i64, BTreeSet<Bytes>>,
    /// The rules after each entry that changed them.
    auth: BTreeMap<u64, Auth>,
    /// The alarms that are raised: (member, type).
    alarms: BTreeSet<(u64, i32)>,
}

impl Model {
    /// An empty store at revision 1.
    pub fn new(ttl_min: i64) -> Self {
        Self {
            revision: 1,
            compacted: -1,
            ttl_min,
            keys: BTreeMap::new(),
            changes: Vec::new(),
            changes_of: vec![0, 0],
            leases: BTreeMap::new(),
            auth: BTreeMap::from([(0, Auth::default())]),
            alarms: BTreeSet::new(),
        }
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compact revision; -1 when never compacted.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The leases that exist.
    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.leases.keys().copied()
    }

    /// Everything that changed from a revision on, in order.
    pub fn changes_from(&self, revision: i64) -> &[Change] {
        let revision = usize::try_from(revision.max(0)).expect("not negative");
        let start = self.changes_of.get(revision).copied();
        &self.changes[start.unwrap_or(self.changes.len())..]
    }

    /// Applies an entry: the id of its request and its result. `None` for an entry that is no request.
    pub fn apply(&mut self, entry: &Entry) -> Option<(u64, Applied)> {
        if entry.kind() != Ok(EntryType::EntryNormal) || entry.payload().is_empty() {
            return None;
        }
        let request =
            pb::InternalRaftRequest::decode(entry.payload()).expect("entries are requests");
        let id = request
            .header
            .as_ref()
            .map_or(request.id, |header| header.id);
        Some((id, self.apply_request(entry.index, &request)))
    }

    /// The rules after an entry.
    pub fn auth_at(&self, index: u64) -> &Auth {
        let found = self.auth.range(..=index).next_back();
        found.expect("the first rules").1
    }

    fn auth(&self) -> &Auth {
        self.auth_at(u64::MAX)
    }

    fn apply_auth(&mut self, index: u64, request: &pb::InternalRaftRequest) -> Option<Applied> {
        if !Auth::concerns(request) {
            return None;
        }
        let mut auth = self.auth().clone();
        let applied = auth.apply(request, self.revision)?;
        if auth != *self.auth() {
            self.auth.insert(index, auth);
        }
        Some(applied)
    }

    fn apply_request(&mut self, index: u64, request: &pb::InternalRaftRequest) -> Applied {
        // What only an administrator may ask for is refused by no alarm.
        self.refuse_by_alarm(request)?;
        self.auth().check(request, &self.leases)?;
        if let Some(applied) = self.apply_auth(index, request) {
            return applied;
        }
        if let Some(put) = &request.put {
            self.check_put(put)?;
            return Ok(Response::Put(self.write(|write| write.put(put))));
        }
        if let Some(delete) = &request.delete_range {
            return Ok(Response::DeleteRange(
                self.write(|write| write.delete(delete)),
            ));
        }
        if let Some(txn) = &request.txn {
            let path = self.choose(txn);
            self.check_path(&path)?;
            let mut response = self.write(|write| write.txn(&path));
            response.header = Some(header(self.revision));
            return Ok(Response::Txn(response));
        }
        if let Some(compaction) = &request.compaction {
            return self.compact(compaction.revision);
        }
        if let Some(grant) = &request.lease_grant {
            return self.grant(grant);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.revoke(revoke.id);
        }
        if let Some(alarm) = &request.alarm {
            return Ok(Response::Alarm(self.switch_alarm(alarm)));
        }
        Ok(Response::Done)
    }

    fn compact(&mut self, revision: i64) -> Applied {
        if revision <= self.compacted {
            return Err(RequestError::Compacted);
        }
        if revision > self.revision {
            return Err(RequestError::FutureRev);
        }
        self.compacted = revision;
        let header = Some(header(self.revision));
        Ok(Response::Compact(pb::CompactionResponse { header }))
    }

    fn grant(&mut self, grant: &pb::LeaseGrantRequest) -> Applied {
        if self.leases.contains_key(&grant.id) {
            return Err(RequestError::LeaseExist);
        }
        self.leases.insert(grant.id, BTreeSet::new());
        Ok(Response::LeaseGrant(pb::LeaseGrantResponse {
            header: Some(header(self.revision)),
            id: grant.id,
            ttl: grant.ttl.max(self.ttl_min),
            error: String::new(),
        }))
    }

    fn revoke(&mut self, id: i64) -> Applied {
        let keys = self.leases.remove(&id).ok_or(RequestError::LeaseNotFound)?;
        self.write(|write| keys.iter().for_each(|key| write.delete_key(key)));
        let header = Some(header(self.revision));
        Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse { header }))
    }
}

/// A header of which only the revision is known.
pub(crate) fn header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision,
        ..pb::ResponseHeader::default()
    }
}

/// Whether `key` lies in the range that `first` and `end` name, in etcd's way: no end is the key alone, an end of one
/// zero byte is everything from the key on.
pub fn in_range(first: &[u8], end: &[u8], key: &[u8]) -> bool {
    match end {
        [] => key == first,
        [0] => key >= first,
        _ => key >= first && key < end,
    }
}
