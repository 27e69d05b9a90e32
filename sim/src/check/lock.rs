//! Locks and elections: by revision, at most one is in, and who comes in is there.
//!
//! A client's belief that it is inside may outlive its lease; that is in the nature of leases. What must hold is about
//! revisions: at the revision at which somebody came in, its own key existed and nothing older stood beside it, and the
//! one who was in before had gone.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ledger::Ledger;
use super::{Facts, Violation};
use crate::model::in_range;

/// Somebody came in, or was found to be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered {
    /// What it is, for the counts.
    pub kind: &'static str,
    /// The lock or office: what its keys begin with. Its last byte is not the largest.
    pub prefix: Bytes,
    /// The key of the one who is in.
    pub key: Bytes,
    /// That key's create revision.
    pub created: i64,
    /// The revision of the answer that let it in.
    pub revision: i64,
}

/// Who came in last, by prefix.
#[derive(Debug, Default)]
pub struct Locks(BTreeMap<Bytes, (u64, Entered)>);

impl Locks {
    /// A client comes in.
    pub fn on_entered(
        &mut self,
        facts: &mut Facts,
        ledger: &Ledger,
        client: u64,
        entered: &Entered,
    ) -> Result<(), Violation> {
        let model = ledger.model();
        let own = model.get(&entered.key, entered.revision);
        let exists = own.is_some_and(|own| own.create_revision == entered.created);
        facts.expect("lock.own-key", exists, || {
            format!("client {client} is in by {entered:?}, its key is {own:?}")
        })?;
        let mut end = entered.prefix.to_vec();
        *end.last_mut().expect("a prefix is not empty") += 1;
        let first = model
            .keys_at(entered.revision)
            .filter(|kv| in_range(&entered.prefix, &end, &kv.key))
            .min_by_key(|kv| (kv.create_revision, kv.key.clone()));
        let is_first = first.is_some_and(|first| first.key == entered.key);
        facts.expect("lock.exclusive", is_first, || {
            format!("client {client} is in by {entered:?}, {first:?} was there before")
        })?;
        if let Some((before, earlier)) = self.0.get(&entered.prefix)
            && (&earlier.key, earlier.created) != (&entered.key, entered.created)
        {
            // Answers are not heard in the order of their revisions: who was in first must be gone.
            let (first, second) = if earlier.revision <= entered.revision {
                (earlier, entered)
            } else {
                (entered, earlier)
            };
            let still = model.get(&first.key, second.revision);
            let is_gone = still.is_none_or(|kv| kv.create_revision != first.created);
            facts.expect("lock.exclusive", is_gone, || {
                format!("client {client} is in by {entered:?}, and {before} by {earlier:?}")
            })?;
        }
        self.0
            .insert(entered.prefix.clone(), (client, entered.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_proto::etcdserverpb as pb;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::model::Model;

    /// Revision 2: lock/a, 3: lock/b, 4: lock/a is gone.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Model::new(1));
        let put = |key: &'static str| pb::InternalRaftRequest {
            put: Some(pb::PutRequest {
                key: key.into(),
                ..pb::PutRequest::default()
            }),
            ..pb::InternalRaftRequest::default()
        };
        let delete = pb::InternalRaftRequest {
            delete_range: Some(pb::DeleteRangeRequest {
                key: "lock/a".into(),
                ..pb::DeleteRangeRequest::default()
            }),
            ..pb::InternalRaftRequest::default()
        };
        for (index, mut request) in (1..).zip([put("lock/a"), put("lock/b"), delete]) {
            request.id = index;
            let payload = Bytes::from(request.encode_to_vec());
            ledger.push(Entry::normal(1, index, payload));
        }
        ledger
    }

    fn entered(key: &'static str, created: i64, revision: i64) -> Entered {
        Entered {
            kind: "lock taken",
            prefix: "lock/".into(),
            key: key.into(),
            created,
            revision,
        }
    }

    fn check(steps: &[Entered]) -> Result<(), &'static str> {
        let (mut locks, mut facts, ledger) = (Locks::default(), Facts::new(), ledger());
        let mut steps = (0..).zip(steps);
        steps
            .try_for_each(|(client, step)| locks.on_entered(&mut facts, &ledger, client, step))
            .map_err(|violation| violation.property)
    }

    #[test]
    fn one_after_the_other_is_accepted() {
        assert_eq!(
            check(&[entered("lock/a", 2, 3), entered("lock/b", 3, 4)]),
            Ok(())
        );
    }

    #[test]
    fn answers_may_be_heard_in_another_order() {
        let late = [entered("lock/b", 3, 4), entered("lock/a", 2, 3)];
        assert_eq!(check(&late), Ok(()));
    }

    #[test]
    fn two_inside_and_one_without_a_key_are_seen() {
        let early = [entered("lock/a", 2, 2), entered("lock/b", 3, 3)];
        assert_eq!(check(&early), Err("lock.exclusive"));
        assert_eq!(check(&[entered("lock/a", 2, 4)]), Err("lock.own-key"));
        assert_eq!(check(&[entered("lock/b", 2, 4)]), Err("lock.own-key"));
    }
}
