//! Judges a run when it has ended: the committed log is known by then, and everything that clients saw must follow
//! from it.
//!
//! ```text
//!   write    its entry is in the log once, with the answer that was given, after all that was answered before it came
//!   read     the model's answer at the revision of its header, not older than anything answered before it came
//!   watch    the history, each event once, in order, without gaps (the checker of quorate-sim)
//!   lease    not ended by expiry before its last renewal and its TTL have passed; its keys went with it
//! ```
//!
//! The log is what members were seen to append, up to what all have applied: `ledger` of quorate-sim gives each entry
//! its result by the model. Nothing a client was told may be missing from it, however often the power went.

use std::collections::BTreeMap;

use prost::Message as _;
use quorate_core::boundary::Response;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::{Entry, EntryType};
use quorate_sim::check::ledger::Ledger;
use quorate_sim::check::linearizability::{self, Read};
use quorate_sim::check::watch::{Follow, Heard};
use quorate_sim::check::{Facts, Violation};
use quorate_sim::model::Model;

use crate::clients::revision_of;
use crate::history::{Answer, Call, History, Outcome, Request, Watched};

/// Facts that only this tier compares, by property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own(pub BTreeMap<&'static str, u64>);

impl Own {
    fn expect(
        &mut self,
        property: &'static str,
        holds: bool,
        detail: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        *self.0.entry(property).or_default() += 1;
        if holds {
            Ok(())
        } else {
            Err(Violation::new(property, detail()))
        }
    }
}

/// What a run is judged by.
pub struct Judge {
    /// The committed log.
    pub ledger: Ledger,
    /// When each entry was first appended.
    appended: Vec<u64>,
    /// Entries by what was asked: requests are told apart by their values.
    by_request: BTreeMap<Vec<u8>, Vec<u64>>,
    /// Facts of the checkers of quorate-sim.
    pub facts: Facts,
    /// Facts of this tier's own.
    pub own: Own,
}

impl Judge {
    /// Lets the model apply the log.
    pub fn new(
        entries: Vec<Entry>,
        first_written: &BTreeMap<(u64, u64), u64>,
        ttl_min: i64,
    ) -> Self {
        let mut ledger = Ledger::new(Model::new(ttl_min));
        let mut by_request: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let mut appended = Vec::new();
        for entry in entries {
            let written = first_written.get(&(entry.term, entry.index));
            appended.push(written.copied().unwrap_or_default());
            if entry.kind() == Ok(EntryType::EntryNormal)
                && let Ok(mut request) = pb::InternalRaftRequest::decode(entry.payload())
            {
                (request.header, request.id) = (None, 0);
                let key = request.encode_to_vec();
                by_request.entry(key).or_default().push(entry.index);
            }
            ledger.push(entry);
        }
        Self {
            ledger,
            appended,
            by_request,
            facts: Facts::new(),
            own: Own::default(),
        }
    }

    /// Judges everything that clients saw.
    pub fn judge(&mut self, history: &History) -> Result<(), Violation> {
        self.judge_calls(&history.calls)?;
        for watched in &history.watches {
            self.judge_watch(watched)?;
        }
        self.judge_leases(&history.calls)
    }

    /// The entries that carry a request.
    fn entries_of(&self, request: &Request) -> &[u64] {
        let mut entry = pb::InternalRaftRequest::default();
        match request.clone() {
            Request::Put(put) => entry.put = Some(put),
            Request::Delete(delete) => entry.delete_range = Some(delete),
            Request::Txn(txn) => entry.txn = Some(txn),
            Request::Compact(compact) => entry.compaction = Some(compact),
            Request::Grant(grant) => entry.lease_grant = Some(grant),
            Request::Revoke(revoke) => entry.lease_revoke = Some(revoke),
            Request::Range(_) | Request::KeepAlive(_) => return &[],
        }
        let found = self.by_request.get(&entry.encode_to_vec());
        found.map_or(&[], Vec::as_slice)
    }

    fn judge_calls(&mut self, calls: &[Call]) -> Result<(), Violation> {
        // What was known to be done by when: calls come in the order of their ends.
        let mut known: Vec<(u64, u64, i64)> = Vec::new();
        let (mut index_max, mut revision_max) = (0, 0);
        for call in calls {
            let before = known.partition_point(|(returned, _, _)| *returned < call.invoked);
            let (floor_index, floor_revision) = match before.checked_sub(1) {
                Some(place) => (known[place].1, known[place].2),
                None => (0, 0),
            };
            if let Some(index) = self.judge_call(call, floor_index, floor_revision)? {
                index_max = index_max.max(index);
            }
            if let Outcome::Answered(answer) = &call.outcome
                && !is_serializable(&call.request)
            {
                revision_max = revision_max.max(revision_of(answer));
            }
            known.push((call.returned, index_max, revision_max));
        }
        Ok(())
    }

    /// Judges a call; gives its entry's index if it is known to have one.
    fn judge_call(
        &mut self,
        call: &Call,
        floor_index: u64,
        floor_revision: i64,
    ) -> Result<Option<u64>, Violation> {
        let entries = self.entries_of(&call.request).to_vec();
        let is_unique = matches!(call.request, Request::Put(_) | Request::Txn(_));
        if is_unique {
            self.own.expect("write.once", entries.len() <= 1, || {
                format!("{call:?} stands at {entries:?}")
            })?;
        }
        match &call.outcome {
            Outcome::NotSent if is_unique => {
                self.own.expect("write.not-sent", entries.is_empty(), || {
                    format!("{call:?} was never sent and stands at {entries:?}")
                })?;
                Ok(None)
            }
            Outcome::Answered(Answer::Range(response)) => {
                self.judge_read(call, response, floor_revision)?;
                Ok(None)
            }
            Outcome::Answered(Answer::KeepAlive(_)) => Ok(None),
            Outcome::Answered(answer) => self
                .judge_write(call, answer, &entries, floor_index)
                .map(Some),
            _ => Ok(None),
        }
    }

    fn judge_write(
        &mut self,
        call: &Call,
        answer: &Answer,
        entries: &[u64],
        floor_index: u64,
    ) -> Result<u64, Violation> {
        let answered = plain(answer);
        let ledger = &self.ledger;
        let fits = |index: &&u64| {
            let committed = ledger.get(**index).expect("an index of the ledger");
            let applied = committed.applied.as_ref().map(|(_, applied)| applied);
            **index > floor_index
                && applied.is_some_and(|applied| applied.as_ref() == Ok(&answered))
        };
        let found = entries.iter().find(fits).copied();
        self.facts.expect("durable.ack", !entries.is_empty(), || {
            format!("{call:?} is answered and not in the log")
        })?;
        self.facts
            .expect("linearizable.write", found.is_some(), || {
                let expected: Vec<_> = entries
                    .iter()
                    .map(|index| ledger.get(*index).map(|entry| &entry.applied))
                    .collect();
                format!("{call:?} stands at {entries:?}, must be after {floor_index}, expected {expected:?}")
            })?;
        Ok(found.unwrap_or_default())
    }

    fn judge_read(
        &mut self,
        call: &Call,
        response: &pb::RangeResponse,
        floor_revision: i64,
    ) -> Result<(), Violation> {
        let Request::Range(request) = &call.request else {
            let detail = format!("{call:?} is answered with a range");
            return Err(Violation::new("contract.answer", detail));
        };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let mut plain = response.clone();
        plain.header = plain.header.map(|header| only_revision(&header));
        let read = Read {
            request,
            result: &Ok(plain),
            revision,
            // Whether it was compacted when it was read, nobody knows; that it was answered says that it was not.
            compacted: -1,
        };
        let (property, floor) = if request.serializable {
            ("serializable.read", 0)
        } else {
            ("linearizable.read", floor_revision)
        };
        linearizability::on_read(&mut self.facts, property, &self.ledger, &read, floor)
    }

    fn judge_watch(&mut self, watched: &Watched) -> Result<(), Violation> {
        let mut follow = Follow {
            key: watched.request.key.clone(),
            range_end: watched.request.range_end.clone(),
            prev_kv: watched.request.prev_kv,
            no_delete: false,
            next: watched.request.start_revision,
        };
        for response in &watched.responses {
            match follow.hear(&mut self.facts, &self.ledger, response)? {
                Heard::Going => {}
                Heard::Compacted(revision) => follow.next = revision,
                Heard::Cancelled => {
                    let detail = format!("{:?} is cancelled: {response:?}", watched.request);
                    return Err(Violation::new("watch.delivery", detail));
                }
            }
        }
        let missed = follow.outstanding(&self.ledger).next().cloned();
        self.facts.expect("watch.delivery", missed.is_none(), || {
            format!("{:?} was never told of {missed:?}", watched.request)
        })
    }

    /// A lease that ended by expiry was appended for it no earlier than its TTL after its last renewal began.
    fn judge_leases(&mut self, calls: &[Call]) -> Result<(), Violation> {
        for grant in calls {
            let (Request::Grant(asked), Outcome::Answered(Answer::Grant(granted))) =
                (&grant.request, &grant.outcome)
            else {
                continue;
            };
            let revoke = pb::LeaseRevokeRequest { id: asked.id };
            let revoked = Request::Revoke(revoke);
            // A client that ended it itself may do so at any time.
            if calls.iter().any(|call| call.request == revoked) {
                continue;
            }
            let Some(index) = self.entries_of(&revoked).first().copied() else {
                continue;
            };
            let ended = self.appended[index as usize - 1];
            let renewals = calls.iter().filter(|call| {
                call.request == Request::KeepAlive(asked.id)
                    && matches!(call.outcome, Outcome::Answered(Answer::KeepAlive(ttl)) if ttl > 0)
                    && call.returned < ended
            });
            let last = renewals.map(|call| call.invoked).max();
            let last = last.unwrap_or_default().max(grant.invoked);
            let due = last + u64::try_from(granted.ttl).unwrap_or_default() * 1_000_000_000;
            self.own.expect("lease.not-early", ended >= due, || {
                format!(
                    "lease {} is revoked by entry {index} at {ended} ns, its TTL of {} s ends at {due} ns",
                    asked.id, granted.ttl
                )
            })?;
        }
        Ok(())
    }
}

fn is_serializable(request: &Request) -> bool {
    matches!(request, Request::Range(range) if range.serializable)
}

fn only_revision(header: &pb::ResponseHeader) -> pb::ResponseHeader {
    pb::ResponseHeader {
        revision: header.revision,
        ..pb::ResponseHeader::default()
    }
}

/// The answer as the model gives it: a header knows only its revision.
fn plain(answer: &Answer) -> Response {
    let mut answer = answer.clone();
    let header = match &mut answer {
        Answer::Put(response) => &mut response.header,
        Answer::Delete(response) => &mut response.header,
        Answer::Txn(response) => &mut response.header,
        Answer::Range(response) => &mut response.header,
        Answer::Compact(response) => &mut response.header,
        Answer::Grant(response) => &mut response.header,
        Answer::Revoke(response) => &mut response.header,
        Answer::KeepAlive(_) => &mut None,
    };
    *header = header.as_ref().map(only_revision);
    match answer {
        Answer::Put(response) => Response::Put(response),
        Answer::Delete(response) => Response::DeleteRange(response),
        Answer::Txn(response) => Response::Txn(response),
        Answer::Compact(response) => Response::Compact(response),
        Answer::Grant(response) => Response::LeaseGrant(response),
        Answer::Revoke(response) => Response::LeaseRevoke(response),
        Answer::Range(_) | Answer::KeepAlive(_) => Response::Done,
    }
}

#[cfg(test)]
mod tests;
