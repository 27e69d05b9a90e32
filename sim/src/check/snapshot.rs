//! Snapshots: an image holds what the log up to its index makes, everything of it and nothing else, whoever has written it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::boundary::Response;
use quorate_core::checkpoint::{self, Contents, Loaded};
use quorate_core::mvcc::Store;
use quorate_core::types::{Index, MemberId, Term};

use super::ledger::Ledger;
use super::members::{History, Members};
use super::state::{check_content, check_revisions};
use super::{Facts, Violation, auth, configuration};

/// What the first image at each index held, beside the keys.
#[derive(Debug, Default)]
pub struct Images(BTreeMap<u64, Contents>);

impl Images {
    /// A member has written this image at an index, or was sent it.
    pub fn check(
        &mut self,
        facts: &mut Facts,
        (ledger, history): (&Ledger, &History),
        member: MemberId,
        index: u64,
        image: Bytes,
    ) -> Result<(), Violation> {
        let wrong = |what: String| {
            let detail = format!("the image of {member:?} at {index}: {what}");
            Violation::new("snapshot.content", detail)
        };
        let Loaded { contents, rows } =
            checkpoint::load(image).map_err(|error| wrong(error.to_string()))?;
        let (scheduled, finished) = (contents.scheduled_compact, contents.finished_compact);
        let restored = Store::restore(rows, scheduled, finished);
        let (store, _) = restored.map_err(|error| wrong(error.to_string()))?;
        let view = store.view();
        check_revisions(facts, ledger, member, index, &view)?;
        check_content(facts, ledger, member, &view)?;
        check_members(facts, history, member, index, &contents)?;
        let term = ledger
            .get(index)
            .map_or(0, |committed| committed.entry.term);
        let place = (contents.consistent_index, contents.term);
        facts.expect(
            "snapshot.content",
            place == (Index(index), Term(term)),
            || format!("the image of {member:?} at {index} of term {term} is at {place:?}"),
        )?;
        let rules = ledger.model().auth_at(index);
        auth::check_stored(facts, member, index, &contents.auth, rules)?;
        let leases: BTreeMap<_, _> = contents.leases.iter().map(|it| (it.id, it.ttl)).collect();
        let expected = leases_at(ledger, index);
        facts.expect("snapshot.content", leases == expected, || {
            format!("the image of {member:?} at {index} has {leases:?}, expected {expected:?}")
        })?;
        self.check_alike(facts, member, index, contents)
    }

    /// What no model knows (versions, alarms, users, what members say of themselves) is the same on all members.
    fn check_alike(
        &mut self,
        facts: &mut Facts,
        member: MemberId,
        index: u64,
        contents: Contents,
    ) -> Result<(), Violation> {
        let contents = Contents {
            finished_compact: None, // Each member compacts at its own pace.
            ..contents
        };
        let first = self.0.entry(index).or_insert_with(|| contents.clone());
        facts.expect("snapshot.content", *first == contents, || {
            format!("the image of {member:?} at {index} has {contents:?}, another one {first:?}")
        })
    }
}

fn check_members(
    facts: &mut Facts,
    history: &History,
    member: MemberId,
    index: u64,
    contents: &Contents,
) -> Result<(), Violation> {
    let of = |is_learner: bool| {
        let members = contents.members.iter();
        let chosen = members.filter(|it| it.is_learner == is_learner);
        chosen.map(|it| it.id).collect::<BTreeSet<_>>()
    };
    let listed = Members::new(of(false), of(true));
    history.check(facts, member, index, &listed)?;
    configuration::check(
        facts,
        member,
        index,
        &contents.conf_state,
        &history.known_at(index),
    )
}

/// The leases after an entry, with their TTLs.
fn leases_at(ledger: &Ledger, index: u64) -> BTreeMap<i64, i64> {
    let mut leases = BTreeMap::new();
    for committed in (1..=index).map_while(|index| ledger.get(index)) {
        match &committed.applied {
            Some((_, Ok(Response::LeaseGrant(granted)))) => {
                leases.insert(granted.id, granted.ttl);
            }
            Some((_, Ok(Response::LeaseRevoke(_)))) => {
                leases.remove(&committed.revoked().expect("the entry of its result"));
            }
            _ => {}
        }
    }
    leases
}

#[cfg(test)]
mod tests;
