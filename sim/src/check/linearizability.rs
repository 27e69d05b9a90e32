//! Linearizability with revisions, white-box: the committed log is the order, so nothing has to be searched.

use quorate_core::boundary::Response;
use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;

use super::ledger::Ledger;
use super::{Facts, Violation, auth};

/// Whether an error is what an entry did, rather than the news that nothing is known of it.
pub fn is_result(error: &RequestError) -> bool {
    auth::is_decision(error)
        || matches!(
            error,
            RequestError::Compacted
                | RequestError::FutureRev
                | RequestError::LeaseNotFound
                | RequestError::LeaseExist
                | RequestError::KeyNotFound
                | RequestError::NoSpace
                | RequestError::Corrupt
        )
}

/// A proposal is answered. `floor` is the last committed index when it came.
pub fn on_write(
    facts: &mut Facts,
    ledger: &Ledger,
    id: u64,
    floor: u64,
    result: &Result<Response, RequestError>,
) -> Result<(), Violation> {
    if result.as_ref().is_err_and(|error| !is_result(error)) {
        return Ok(());
    }
    let indexes = ledger.indexes_of(id);
    let applied = |index: &u64| {
        let committed = ledger.get(*index).expect("an index of the ledger");
        committed.applied.as_ref().map(|(_, applied)| applied)
    };
    // An id that came back after a clock was set back names older entries, too.
    let fits = |index: &u64| *index > floor && applied(index) == Some(result);
    facts.expect("linearizable.write", indexes.iter().any(fits), || {
        let expected: Vec<_> = indexes.iter().map(applied).collect();
        format!(
            "request {id:x} at {indexes:?} is answered {result:?}, expected {expected:?} after {floor}, which was \
             committed before it came"
        )
    })
}

/// What a read saw.
#[derive(Debug)]
pub struct Read<'a> {
    /// What was asked.
    pub request: &'a pb::RangeRequest,
    /// What was answered.
    pub result: &'a Result<pb::RangeResponse, RequestError>,
    /// The store's revision when it was answered.
    pub revision: i64,
    /// Its compact revision then.
    pub compacted: i64,
}

/// A read is answered that must see everything up to `floor_revision`.
pub fn on_read(
    facts: &mut Facts,
    property: &'static str,
    ledger: &Ledger,
    read: &Read<'_>,
    floor_revision: i64,
) -> Result<(), Violation> {
    facts.expect(property, read.revision >= floor_revision, || {
        format!(
            "a read sees revision {}, it must see {floor_revision}",
            read.revision
        )
    })?;
    let newest = ledger.model().revision();
    facts.expect(property, read.revision <= newest, || {
        format!(
            "a read sees revision {}, committed is {newest}",
            read.revision
        )
    })?;
    let expected = ledger
        .model()
        .range(read.request, read.revision, read.compacted);
    facts.expect(property, *read.result == expected, || {
        let (request, result) = (read.request, read.result);
        format!("{request:?} is answered {result:?}, expected {expected:?}")
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::check::state::everything;
    use crate::model::Model;

    /// A ledger with one put, of request 9 at index 1.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Model::new(1));
        let put = pb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            ..pb::PutRequest::default()
        };
        let request = pb::InternalRaftRequest {
            id: 9,
            put: Some(put),
            ..pb::InternalRaftRequest::default()
        };
        ledger.push(Entry::normal(1, 1, Bytes::from(request.encode_to_vec())));
        ledger
    }

    fn answer(revision: i64) -> Result<Response, RequestError> {
        let header = pb::ResponseHeader {
            revision,
            ..pb::ResponseHeader::default()
        };
        Ok(Response::Put(pb::PutResponse {
            header: Some(header),
            prev_kv: None,
        }))
    }

    #[test]
    fn an_answer_that_is_not_its_entrys_is_seen() {
        let (ledger, mut facts) = (ledger(), Facts::new());
        on_write(&mut facts, &ledger, 9, 0, &answer(2)).unwrap();
        on_write(&mut facts, &ledger, 5, 0, &Err(RequestError::Timeout)).unwrap();
        for (id, floor, result) in [
            (9, 0, answer(3)),
            (9, 1, answer(2)),
            (5, 0, answer(2)),
            (9, 0, Err(RequestError::LeaseNotFound)),
        ] {
            let checked = on_write(&mut facts, &ledger, id, floor, &result);
            assert_eq!(checked.unwrap_err().property, "linearizable.write");
        }
    }

    #[test]
    fn a_stale_an_early_and_a_wrong_read_are_seen() {
        let (ledger, mut facts) = (ledger(), Facts::new());
        let request = everything();
        let old = ledger.model().range(&request, 1, -1);
        let new = ledger.model().range(&request, 2, -1);
        let mut check = |result, revision, floor| {
            let read = Read {
                request: &request,
                result,
                revision,
                compacted: -1,
            };
            on_read(&mut facts, "linearizable.read", &ledger, &read, floor).is_ok()
        };
        assert!(check(&new, 2, 2));
        assert!(check(&old, 1, 1));
        assert!(!check(&old, 1, 2), "stale");
        assert!(!check(&new, 3, 2), "from the future");
        assert!(!check(&old, 2, 2), "not what was there");
    }
}
