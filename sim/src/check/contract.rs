//! The contract with clients: a request is carried out once at most, and an error is one that the situation allows.
//!
//! Errors that an entry has caused are compared with the model elsewhere; here it is the kind of request, and whether
//! patience has really ended.

use std::ops::Range;
use std::time::Duration;

use quorate_core::error::RequestError;
use quorate_core::types::MemberId;

use super::ledger::Ledger;
use super::{Facts, Violation, auth};

/// Clocks are off by a tenth at most.
const CLOCK_TENTHS: u32 = 10;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Something through the log.
    Proposal {
        /// It puts keys, itself or in a transaction.
        puts: bool,
        /// It reads or compacts at some revision, itself or in a transaction.
        has_revision: bool,
        /// It grants a lease.
        grants: bool,
        /// It ends a lease.
        revokes: bool,
    },
    /// A linearizable read.
    Read,
    /// Something that only a leader answers.
    OfLeader,
    /// Something else.
    Other,
}

/// The log has grown to these entries: no request stands in it twice. An id may, if nothing on the member's disk shows that
/// an earlier life has used it; and what a member asks at the beginning of each life may then be the same, too.
/// `shown_from` tells where the log began that the member had when it gave out an id.
pub fn check_once(
    facts: &mut Facts,
    ledger: &Ledger,
    from: u64,
    shown_from: impl Fn(u64) -> u64,
) -> Result<(), Violation> {
    for index in from..=ledger.last() {
        let committed = ledger.get(index).expect("within the ledger");
        let Some((id, _)) = &committed.applied else {
            continue;
        };
        let payload = committed.entry.payload();
        let first = shown_from(*id);
        let is_same = |index: &&u64| {
            let other = ledger.get(**index).expect("within the ledger");
            **index >= first && other.entry.payload() == payload
        };
        let indexes: Vec<_> = ledger.indexes_of(*id).iter().filter(is_same).collect();
        facts.expect("contract.once", indexes.len() <= 1, || {
            format!("request {id:x} stands in the log at {indexes:?}")
        })?;
    }
    Ok(())
}

/// A member gives a request this id: no entry has it that was in the member's log when it began.
pub fn check_id(
    facts: &mut Facts,
    ledger: &Ledger,
    member: MemberId,
    id: u64,
    log_had: &Range<u64>,
) -> Result<(), Violation> {
    let mut indexes = ledger.indexes_of(id).iter();
    let again = indexes.find(|index| log_had.contains(index));
    facts.expect("contract.id", again.is_none(), || {
        format!("{member:?} gives out {id:x} again, which its log has at {again:?}")
    })
}

/// A member refuses a request that it has had for some time.
pub fn check_error(
    facts: &mut Facts,
    asked: Asked,
    error: &RequestError,
    waited: Duration,
    patience: Duration,
) -> Result<(), Violation> {
    let has_waited = waited + patience / CLOCK_TENTHS >= patience;
    let is_allowed = match (error, asked) {
        (_, Asked::Other) => true,
        (RequestError::Timeout | RequestError::TimeoutDueToLeaderFail, _) => has_waited,
        (RequestError::NotLeader | RequestError::LeaderChanged, asked) => asked == Asked::OfLeader,
        (
            RequestError::Compacted | RequestError::FutureRev,
            Asked::Proposal { has_revision, .. },
        ) => has_revision,
        (RequestError::LeaseNotFound, Asked::Proposal { puts, revokes, .. }) => puts || revokes,
        (RequestError::LeaseExist, Asked::Proposal { grants, .. }) => grants,
        (RequestError::KeyNotFound, Asked::Proposal { puts, .. }) => puts,
        (RequestError::NoSpace, Asked::Proposal { puts, grants, .. }) => puts || grants,
        (RequestError::RequestTooManyRequests, _) => true,
        // Which one it must be is what the entry's result says.
        (RequestError::Corrupt, Asked::Proposal { .. }) => true,
        (error, Asked::Proposal { .. }) => auth::is_decision(error),
        _ => false,
    };
    facts.expect("contract.error", is_allowed, || {
        format!("{asked:?} is refused with {error:?} after {waited:?}, patience is {patience:?}")
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use quorate_proto::etcdserverpb as pb;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::model::Model;

    #[test]
    fn a_request_that_stands_in_the_log_twice_is_seen() {
        let mut ledger = Ledger::new(Model::new(1));
        let (mut facts, mut seen) = (Facts::new(), Vec::new());
        for (index, id, key) in [(1, 7, "a"), (2, 8, "a"), (3, 7, "b"), (4, 7, "a")] {
            let request = pb::InternalRaftRequest {
                id,
                put: Some(pb::PutRequest {
                    key: key.into(),
                    ..pb::PutRequest::default()
                }),
                ..pb::InternalRaftRequest::default()
            };
            let payload = Bytes::from(request.encode_to_vec());
            ledger.push(Entry::normal(1, index, payload));
            seen.push(check_once(&mut facts, &ledger, index, |_| 0).is_ok());
        }
        assert_eq!(seen, [true, true, true, false]);
        // The member's log began behind the first one when it gave out the id again.
        check_once(&mut facts, &ledger, 4, |_| 2).unwrap();
    }

    #[test]
    fn an_id_of_the_members_own_log_that_comes_again_is_seen() {
        let mut ledger = Ledger::new(Model::new(1));
        for (index, id) in [(1, 7), (2, 8), (3, 9)] {
            let request = pb::InternalRaftRequest {
                id,
                put: Some(pb::PutRequest::default()),
                ..pb::InternalRaftRequest::default()
            };
            let payload = Bytes::from(request.encode_to_vec());
            ledger.push(Entry::normal(1, index, payload));
        }
        let mut facts = Facts::new();
        let mut check = |id| check_id(&mut facts, &ledger, MemberId(1), id, &(2..3)).is_ok();
        assert_eq!([7, 8, 9, 10].map(&mut check), [true, false, true, true]);
    }

    #[test]
    fn errors_that_do_not_fit_are_seen() {
        let put = Asked::Proposal {
            puts: true,
            has_revision: false,
            grants: false,
            revokes: false,
        };
        let patience = Duration::from_secs(5);
        let check = |asked, error, seconds| {
            let waited = Duration::from_secs(seconds);
            check_error(&mut Facts::new(), asked, &error, waited, patience).is_ok()
        };
        assert!(check(put, RequestError::Timeout, 5));
        assert!(!check(put, RequestError::Timeout, 3), "too early");
        assert!(check(put, RequestError::LeaseNotFound, 0));
        assert!(!check(put, RequestError::Compacted, 0));
        assert!(!check(put, RequestError::LeaseExist, 0));
        assert!(check(Asked::OfLeader, RequestError::NotLeader, 0));
        assert!(!check(Asked::Read, RequestError::NotLeader, 0));
        assert!(!check(Asked::Read, RequestError::Corrupt, 0));
    }
}
