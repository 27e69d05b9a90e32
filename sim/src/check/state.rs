//! State-machine safety: what a member's store holds is a function of its applied index.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::mvcc::{HashKv, View};
use quorate_core::types::{MemberId, Revision};
use quorate_proto::etcdserverpb as pb;

use super::ledger::Ledger;
use super::{Facts, Violation};

/// The `HashKV` that was first seen at each (revision, compact revision).
#[derive(Debug, Default)]
pub struct Hashes(BTreeMap<(i64, i64), u32>);

/// Everything in the store.
pub fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..pb::RangeRequest::default()
    }
}

/// After a turn: the revisions that the applied index implies.
pub fn check_revisions(
    facts: &mut Facts,
    ledger: &Ledger,
    member: MemberId,
    applied: u64,
    view: &View,
) -> Result<(), Violation> {
    let found = (view.revision().0, view.compact_revision().0);
    let expected = ledger.revisions_at(applied);
    facts.expect("state.revision", expected == Some(found), || {
        format!("{member:?} is at {found:?} with index {applied} applied, expected {expected:?}")
    })
}

/// All keys, against the model.
pub fn check_content(
    facts: &mut Facts,
    ledger: &Ledger,
    member: MemberId,
    view: &View,
) -> Result<(), Violation> {
    let (revision, compacted) = (view.revision().0, view.compact_revision().0);
    let found = view.range(&everything());
    let expected = ledger.model().range(&everything(), revision, compacted);
    facts.expect("state.content", found == expected, || {
        format!("{member:?} holds {found:?} at revision {revision}, expected {expected:?}")
    })
}

impl Hashes {
    /// The hash of a member's history, against those of the others. `None` if it is compacted.
    pub fn check(
        &mut self,
        facts: &mut Facts,
        member: MemberId,
        view: &View,
        revision: i64,
    ) -> Result<Option<HashKv>, Violation> {
        let Ok(found) = view.hash_kv(Revision(revision)) else {
            return Ok(None);
        };
        self.note(facts, member, found)?;
        Ok(Some(found))
    }

    /// A member has hashed its history.
    pub fn note(
        &mut self,
        facts: &mut Facts,
        member: MemberId,
        found: HashKv,
    ) -> Result<(), Violation> {
        let at = (found.hash_revision.0, found.compact_revision.0);
        let hash = found.hash;
        let known = *self.0.entry(at).or_insert(hash);
        facts.expect("state.content", known == hash, || {
            format!(
                "{member:?} has hash {hash:08x} at (revision, compact) {at:?}, others {known:08x}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::mvcc::Store;
    use quorate_core::types::LeaseId;

    use super::*;
    use crate::model::Model;

    #[test]
    fn a_store_that_differs_from_the_log_is_seen() {
        let ledger = Ledger::new(Model::new(1));
        let (mut store, mut facts) = (Store::new(), Facts::new());
        let view = store.view();
        check_revisions(&mut facts, &ledger, MemberId(1), 0, &view).unwrap();
        check_content(&mut facts, &ledger, MemberId(1), &view).unwrap();
        let mut write = store.begin();
        write.put(b"k", b"v", LeaseId(0));
        write.end();
        let checked = check_revisions(&mut facts, &ledger, MemberId(1), 0, &view);
        assert_eq!(checked.unwrap_err().property, "state.revision");
        let checked = check_content(&mut facts, &ledger, MemberId(1), &view);
        assert_eq!(checked.unwrap_err().property, "state.content");
    }

    #[test]
    fn hashes_that_differ_are_seen() {
        let (mut hashes, mut facts) = (Hashes::default(), Facts::new());
        let hashed = |compacted, hash| HashKv {
            hash,
            compact_revision: Revision(compacted),
            hash_revision: Revision(5),
        };
        hashes.note(&mut facts, MemberId(1), hashed(-1, 7)).unwrap();
        hashes.note(&mut facts, MemberId(2), hashed(3, 8)).unwrap();
        hashes.note(&mut facts, MemberId(2), hashed(-1, 7)).unwrap();
        let differs = hashes.note(&mut facts, MemberId(3), hashed(-1, 8));
        assert_eq!(differs.unwrap_err().property, "state.content");
    }
}
