//! Applying committed entries: decode, decide what each one is, answer the one who waits for it.

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb;
use raft::eraftpb;

use super::{Node, measure};
use crate::apply::kv::Answer;
use crate::apply::{Applied, ApplyError, WAY_OUT};
use crate::boundary::{Output, Response};
use crate::consensus;
use crate::error::RequestError;
use crate::types::{Index, MemberId, Term, Ticket};

impl Node {
    pub(super) fn apply_committed(&mut self, entries: Vec<eraftpb::Entry>) {
        let Some(last) = entries.last().map(|entry| Index(entry.index)) else {
            return;
        };
        for entry in entries {
            // A checkpoint may be ahead of the log's snapshot record: these are in the state already.
            if entry.index <= self.state.index.0 {
                continue;
            }
            assert_eq!(
                entry.index,
                self.state.index.0 + 1,
                "entries are applied in order, without gaps"
            );
            self.state.index = Index(entry.index);
            self.state.term = Term(entry.term);
            self.checkpoints.bytes_since += entry.data.len() as u64 + 64;
            if let Err(error) = self.apply_entry(&entry) {
                return self.stop(error.to_string());
            }
        }
        // Without others nobody asks for entries: one that joins is served from the disk at first.
        let is_alone = self.state.membership.members().count() <= 1;
        let window_bytes_max = if is_alone {
            0
        } else {
            self.config.log_bytes_in_memory_max
        };
        self.consensus.on_applied(last, window_bytes_max);
    }

    fn apply_entry(&mut self, entry: &eraftpb::Entry) -> Result<(), ApplyError> {
        let fail = |reason: String| ApplyError {
            index: entry.index,
            reason,
        };
        match entry.get_entry_type() {
            eraftpb::EntryType::EntryNormal if entry.data.is_empty() => {
                self.on_empty_entry(Term(entry.term));
                Ok(())
            }
            eraftpb::EntryType::EntryNormal => {
                let request = pb::InternalRaftRequest::decode(entry.data.clone())
                    .map_err(|error| fail(format!("it is not a request ({error}); {WAY_OUT}")))?;
                self.apply_request(request)
            }
            eraftpb::EntryType::EntryConfChange => {
                let change = raftpb::ConfChange::decode(consensus::change_in(entry))
                    .map_err(|error| fail(format!("it is not a conf change: {error}")))?;
                self.apply_conf_change(change).map_err(fail)
            }
            eraftpb::EntryType::EntryConfChangeV2 => {
                Err(fail("joint configurations are not part of etcd".into()))
            }
        }
    }

    /// An entry without content. The first one of a term is what its leader begins with: everything of earlier terms is
    /// applied now. Later ones stand where raft-rs refused a change of the members, and mean nothing: to begin the
    /// leases' time once more would take back what was promised to end.
    fn on_empty_entry(&mut self, term: Term) {
        let leads = self.consensus.is_leader() && self.consensus.term() == term;
        if leads && self.leadership.promoted != Some(term) {
            self.leadership.promoted = Some(term);
            let extend = self.config.tick * self.config.election_ticks;
            self.state.lessor.promote(self.now, extend);
        }
    }

    fn apply_request(&mut self, request: pb::InternalRaftRequest) -> Result<(), ApplyError> {
        let ticket = Ticket(
            request
                .header
                .as_ref()
                .map_or(request.id, |header| header.id),
        );
        let had_no_space = self.state.has_alarm(pb::AlarmType::Nospace);
        let answer = if self.proposals.is_open(ticket) {
            Answer::Wanted
        } else {
            Answer::Unwanted
        };
        if let Some(set) = &request.cluster_version_set {
            self.on_cluster_version(&set.ver)?;
        }
        let began = self.measured.began();
        let applied = self.state.apply(self.now, &self.config, &request, answer)?;
        self.measured
            .applied(began, measure::operation(&request), &applied);
        if applied == Err(RequestError::NoSpace) && !had_no_space {
            self.upkeep.wants_no_space_alarm = true;
        }
        if request.alarm.is_some() {
            self.refresh_alarms();
            // The alarm is there: it speaks for all that was refused before it. What of that were still to be said
            // after an operator has made room and ended it would raise it again for nothing.
            if self.state.has_alarm(pb::AlarmType::Nospace) {
                self.upkeep.wants_no_space_alarm = false;
            }
        }
        self.announce_tokens();
        if let Some(set) = &request.cluster_member_attr_set {
            self.announce_peers();
            self.upkeep.is_published |= MemberId(set.member_id) == self.config.member;
        }
        let physical = request
            .compaction
            .is_some_and(|compaction| compaction.physical);
        self.answer_proposal(ticket, applied, physical);
        Ok(())
    }

    /// Logins that were in the log before this process began are over: its restart would make them last longer.
    fn announce_tokens(&mut self) {
        let changes = self.state.auth.take_token_changes();
        if self.state.index > self.logins_after {
            self.out.extend(changes.into_iter().map(Output::Token));
        }
    }

    fn answer_proposal(&mut self, ticket: Ticket, applied: Applied, physical: bool) {
        match applied {
            Ok(response) if physical && self.state.store.is_compacting() => {
                self.compactions.push((ticket, response))
            }
            applied => {
                if self.proposals.close(ticket) {
                    self.reply(ticket, applied);
                }
            }
        }
    }

    fn apply_conf_change(&mut self, mut change: raftpb::ConfChange) -> Result<(), String> {
        let ticket = Ticket(change.id.unwrap_or_default());
        let removes_me = change.kind() == Ok(raftpb::ConfChangeType::ConfChangeRemoveNode)
            && change.node_id == self.config.member.0;
        let fits = self
            .state
            .membership
            .apply(&change, self.config.learners_max);
        if fits.is_err() {
            // Raft must know that the change is over; a change of nobody changes nothing.
            change = raftpb::ConfChange::new(
                0,
                raftpb::ConfChangeType::ConfChangeAddNode,
                0,
                bytes::Bytes::new(),
            );
        }
        let conf_state = self
            .consensus
            .apply_conf_change(&change)
            .map_err(|error| error.to_string())?;
        assert_eq!(
            conf_state,
            self.state.membership.conf_state(),
            "raft and membership agree on who votes"
        );
        self.announce_peers();
        self.active_since
            .retain(|member, _| self.state.membership.member(*member).is_some());
        if self.proposals.close(ticket) {
            let members = fits
                .clone()
                .map(|()| Response::Members(self.members.to_vec()));
            self.reply(ticket, members);
        }
        if removes_me && fits.is_ok() {
            self.say_farewell();
        }
        Ok(())
    }
}
