//! Watch: filtered, ordered, unique, atomic and complete, judged against the history of the model.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::event::EventType;
use quorate_proto::mvccpb::{Event, KeyValue};

use super::ledger::Ledger;
use super::{Facts, Violation};
use crate::model::{Change, in_range};

/// One watch as its client follows it, over all connections.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The first key.
    pub key: Bytes,
    /// The end of the range, in etcd's way.
    pub range_end: Bytes,
    /// Whether the keys as they were before are wanted.
    pub prev_kv: bool,
    /// Whether deletions are filtered out.
    pub no_delete: bool,
    /// Everything before this revision was delivered or is not wanted; 0 until the server has said where it begins.
    pub next: i64,
}

/// What a response means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The watch goes on.
    Going,
    /// It was cancelled: go on from this compact revision.
    Compacted(i64),
    /// It was refused or cancelled for another reason.
    Cancelled,
}

impl Follow {
    fn wants(&self, change: &Change) -> bool {
        in_range(&self.key, &self.range_end, &change.kv.key) && !(self.no_delete && change.deleted)
    }

    /// What has happened from [`Follow::next`] on.
    pub fn outstanding<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = &'a Change> {
        let changes = ledger.model().changes_from(self.next.max(1));
        changes.iter().filter(|change| self.wants(change))
    }

    /// Takes a response.
    pub fn hear(
        &mut self,
        facts: &mut Facts,
        ledger: &Ledger,
        response: &pb::WatchResponse,
    ) -> Result<Heard, Violation> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            return self.on_cancel(facts, ledger, response.compact_revision);
        }
        if response.created {
            if self.next == 0 {
                self.next = revision + 1;
            }
            return Ok(Heard::Going);
        }
        if response.events.is_empty() {
            self.on_progress(facts, ledger, revision)?;
        } else {
            self.on_events(facts, ledger, &response.events, revision)?;
        }
        Ok(Heard::Going)
    }

    fn on_cancel(
        &self,
        facts: &mut Facts,
        ledger: &Ledger,
        compacted: i64,
    ) -> Result<Heard, Violation> {
        if compacted == 0 {
            return Ok(Heard::Cancelled);
        }
        let known = ledger.model().compacted();
        let fits = self.next < compacted && compacted <= known;
        facts.expect("watch.compacted", fits, || {
            format!("{self:?} is cancelled with {compacted}, the log says {known}")
        })?;
        Ok(Heard::Compacted(compacted))
    }

    fn on_events(
        &mut self,
        facts: &mut Facts,
        ledger: &Ledger,
        events: &[Event],
        header: i64,
    ) -> Result<(), Violation> {
        let mut expected = self.outstanding(ledger).peekable();
        let mut last = 0;
        for (number, event) in events.iter().enumerate() {
            let fits = |change: &&Change| self.shows(ledger, event, change);
            while expected
                .peek()
                .is_some_and(|change| self.is_left_out(ledger, change, &events[number..]))
            {
                expected.next();
            }
            let change = expected.next();
            facts.expect("watch.delivery", change.as_ref().is_some_and(fits), || {
                format!("{self:?} gets {event:?}, expected {change:?}")
            })?;
            last = change.map_or(0, |change| change.kv.mod_revision);
        }
        let next = expected.next().map(|change| change.kv.mod_revision);
        drop(expected);
        facts.expect(
            "watch.delivery",
            next != Some(last) && header >= last,
            || {
                format!(
                    "{self:?} gets revision {last} in parts, or with the header revision {header}"
                )
            },
        )?;
        self.next = last + 1;
        Ok(())
    }

    /// Whether a change that need not be shown any more is not among these events. Two deletions of a key in one revision
    /// look alike, so that it is told by the number of events for that key and revision.
    fn is_left_out(&self, ledger: &Ledger, change: &Change, events: &[Event]) -> bool {
        if !is_gone(ledger, change) {
            return false;
        }
        let is_same =
            |kv: &KeyValue| kv.key == change.kv.key && kv.mod_revision == change.kv.mod_revision;
        let shown = events.iter().filter_map(|event| event.kv.as_ref());
        let shown = shown.filter(|kv| is_same(kv)).count();
        let wanted = self
            .outstanding(ledger)
            .skip_while(|other| *other != change);
        let wanted = wanted.take_while(|other| other.kv.mod_revision == change.kv.mod_revision);
        let wanted = wanted.filter(|other| is_same(&other.kv)).count();
        wanted > shown
    }

    /// Whether an event is what a change looks like to this watch.
    fn shows(&self, ledger: &Ledger, event: &Event, change: &Change) -> bool {
        let kind = if change.deleted {
            EventType::Delete
        } else {
            EventType::Put
        };
        let before = change.kv.mod_revision - 1;
        // As in etcd, a key that is created has no previous one, even if it was deleted in the same revision.
        let is_created = change.kv.create_revision == change.kv.mod_revision;
        let previous = ledger
            .model()
            .get(&change.kv.key, before)
            .filter(|_| !is_created);
        // What a compaction has taken away cannot be shown any more.
        let may_be_gone = before < ledger.model().compacted();
        let shows_previous = match &event.prev_kv {
            Some(shown) => self.prev_kv && previous == Some(shown),
            None => !self.prev_kv || previous.is_none() || may_be_gone,
        };
        event.r#type == kind as i32 && event.kv.as_ref() == Some(&change.kv) && shows_previous
    }

    fn on_progress(
        &mut self,
        facts: &mut Facts,
        ledger: &Ledger,
        revision: i64,
    ) -> Result<(), Violation> {
        let missed = self.outstanding(ledger).next();
        let missed = missed.filter(|change| change.kv.mod_revision <= revision);
        let fits = missed.is_none() && revision + 1 >= self.next;
        facts.expect("watch.progress", fits, || {
            format!("{self:?} is told of progress to {revision}, missed is {missed:?}")
        })?;
        self.next = self.next.max(revision + 1);
        Ok(())
    }
}

/// Whether a change need not be shown any more: a compaction at its revision has left only what came after it in the same
/// transaction.
fn is_gone(ledger: &Ledger, change: &Change) -> bool {
    let revision = change.kv.mod_revision;
    let same = ledger.model().changes_from(revision).iter();
    let mut later = same
        .take_while(|other| other.kv.mod_revision == revision)
        .skip_while(|other| *other != change)
        .skip(1);
    revision <= ledger.model().compacted() && later.any(|other| other.kv.key == change.kv.key)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_proto::etcdserverpb::request_op::Request as Operation;
    use quorate_proto::raftpb::Entry;

    use super::*;
    use crate::model::{Model, header};

    /// Revisions 2, 3 and 4 put a, b and a.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Model::new(1));
        for (index, key) in [(1, "a"), (2, "b"), (3, "a")] {
            let put = pb::PutRequest {
                key: key.into(),
                ..pb::PutRequest::default()
            };
            let request = pb::InternalRaftRequest {
                id: index,
                put: Some(put),
                ..pb::InternalRaftRequest::default()
            };
            ledger.push(Entry::normal(
                1,
                index,
                Bytes::from(request.encode_to_vec()),
            ));
        }
        ledger
    }

    /// Revision 2 puts a; revision 3 deletes, puts and deletes it again, and everything is compacted to there.
    fn compacted_ledger() -> Ledger {
        let put = || {
            Operation::RequestPut(pb::PutRequest {
                key: "a".into(),
                ..pb::PutRequest::default()
            })
        };
        let delete = || {
            Operation::RequestDeleteRange(pb::DeleteRangeRequest {
                key: "a".into(),
                // Up to a key that lies before: of no effect on the other operations' check, as in etcd.
                range_end: vec![0].into(),
                prev_kv: false,
            })
        };
        let txn = |operations: Vec<Operation>| {
            let success = operations.into_iter().map(|operation| pb::RequestOp {
                request: Some(operation),
            });
            pb::InternalRaftRequest {
                txn: Some(pb::TxnRequest {
                    success: success.collect(),
                    ..pb::TxnRequest::default()
                }),
                ..pb::InternalRaftRequest::default()
            }
        };
        let compaction = pb::CompactionRequest {
            revision: 3,
            physical: true,
        };
        let compact = pb::InternalRaftRequest {
            compaction: Some(compaction),
            ..pb::InternalRaftRequest::default()
        };
        let mut ledger = Ledger::new(Model::new(1));
        let requests = [
            txn(vec![put()]),
            txn(vec![delete(), put(), delete()]),
            compact,
        ];
        for (index, request) in (1..).zip(requests) {
            let request = pb::InternalRaftRequest {
                id: index,
                ..request
            };
            let entry = Entry::normal(1, index, Bytes::from(request.encode_to_vec()));
            ledger.push(entry);
        }
        ledger
    }

    fn follow(key: &'static str, range_end: &'static str, next: i64) -> Follow {
        Follow {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: false,
            no_delete: false,
            next,
        }
    }

    fn event(key: &'static str, create: i64, revision: i64, version: i64) -> Event {
        let kv = KeyValue {
            key: key.into(),
            create_revision: create,
            mod_revision: revision,
            version,
            ..KeyValue::default()
        };
        Event {
            r#type: EventType::Put as i32,
            kv: Some(kv),
            prev_kv: None,
        }
    }

    fn hear(follow: &mut Follow, revision: i64, events: &[Event]) -> Result<Heard, Violation> {
        let response = pb::WatchResponse {
            header: Some(header(revision)),
            events: events.to_vec(),
            ..pb::WatchResponse::default()
        };
        follow.hear(&mut Facts::new(), &ledger(), &response)
    }

    #[test]
    fn the_history_in_order_is_accepted() {
        let mut all = follow("a", "z", 2);
        hear(&mut all, 3, &[event("a", 2, 2, 1), event("b", 3, 3, 1)]).unwrap();
        assert_eq!(all.next, 4);
        hear(&mut all, 4, &[event("a", 2, 4, 2)]).unwrap();
        assert_eq!(all.outstanding(&ledger()).count(), 0);
        hear(&mut follow("a", "", 3), 4, &[event("a", 2, 4, 2)]).unwrap();
    }

    #[test]
    fn of_the_compact_revision_all_of_a_transaction_is_shown_or_its_end() {
        let deletion = || Event {
            r#type: EventType::Delete as i32,
            ..event("a", 0, 3, 0)
        };
        let heard = |events: &[Event]| {
            let response = pb::WatchResponse {
                header: Some(header(3)),
                events: events.to_vec(),
                ..pb::WatchResponse::default()
            };
            follow("a", "", 3).hear(&mut Facts::new(), &compacted_ledger(), &response)
        };
        heard(&[deletion(), event("a", 3, 3, 1), deletion()]).unwrap();
        heard(&[deletion()]).unwrap();
        assert!(heard(&[event("a", 3, 3, 1)]).is_err(), "not its end");
        assert!(heard(&[deletion(), deletion(), deletion()]).is_err());
    }

    #[test]
    fn gaps_repeats_strangers_and_old_events_are_seen() {
        for events in [
            vec![event("b", 3, 3, 1)],
            vec![event("a", 2, 2, 1), event("a", 2, 2, 1)],
            vec![event("a", 2, 2, 1), event("a", 2, 4, 2)],
            vec![event("a", 2, 2, 7)],
            vec![event("c", 2, 2, 1)],
        ] {
            let heard = hear(&mut follow("a", "z", 2), 4, &events);
            assert_eq!(heard.unwrap_err().property, "watch.delivery");
        }
        let old = hear(&mut follow("a", "z", 4), 4, &[event("b", 3, 3, 1)]);
        assert_eq!(old.unwrap_err().property, "watch.delivery");
    }

    #[test]
    fn progress_ahead_of_an_event_is_seen() {
        hear(&mut follow("c", "", 2), 4, &[]).unwrap();
        let early = hear(&mut follow("a", "", 2), 2, &[]);
        assert_eq!(early.unwrap_err().property, "watch.progress");
        let below_start = hear(&mut follow("c", "", 9), 4, &[]);
        assert_eq!(below_start.unwrap_err().property, "watch.progress");
    }

    #[test]
    fn a_cancellation_without_a_compaction_is_seen() {
        let response = pb::WatchResponse {
            canceled: true,
            compact_revision: 3,
            ..pb::WatchResponse::default()
        };
        let heard = follow("a", "", 2).hear(&mut Facts::new(), &ledger(), &response);
        assert_eq!(heard.unwrap_err().property, "watch.compacted");
    }
}
