//! Between etcd's raft messages and those of raft-rs: the one place where the two meet.
//!
//! The numbers are the same except for one enum: etcd's `ConfChangeType` has 2 = update and 3 = add learner,
//! raft-rs has 2 = add learner. Bytes from a network or disk are parsed by `quorate-proto` only; `eraftpb` values
//! are built from the result, never parsed.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;
use raft::eraftpb;

use super::disguise;

/// Why a message from a peer cannot be given to raft-rs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The number of a message or entry type that does not exist.
    #[error("unknown {what} {number}")]
    UnknownType {
        /// Which enum.
        what: &'static str,
        /// The number found.
        number: i32,
    },
    /// The message is of a type that only ever travels inside one member.
    #[error("message type {0} is local and cannot come from a peer")]
    LocalMessage(i32),
}

/// An entry for raft-rs; shares the payload, unless it is a change of the members.
pub(super) fn entry_in(entry: raftpb::Entry) -> Result<eraftpb::Entry, ConvertError> {
    let entry_type = match entry.r#type.unwrap_or_default() {
        0 => eraftpb::EntryType::EntryNormal,
        1 => eraftpb::EntryType::EntryConfChange,
        number => {
            return Err(ConvertError::UnknownType {
                what: "entry type",
                number,
            });
        }
    };
    let mut converted = eraftpb::Entry {
        term: entry.term,
        index: entry.index,
        ..eraftpb::Entry::default()
    };
    converted.set_entry_type(entry_type);
    let data = entry.data.unwrap_or_default();
    converted.data = match entry_type {
        eraftpb::EntryType::EntryConfChange => disguise::put_on(&data),
        _ => data,
    };
    Ok(converted)
}

/// An entry from raft-rs; likewise.
pub(super) fn entry_out(entry: &eraftpb::Entry) -> raftpb::Entry {
    let number = entry.get_entry_type() as i32;
    raftpb::Entry {
        r#type: (number != 0).then_some(number),
        term: entry.term,
        index: entry.index,
        data: (!entry.data.is_empty()).then(|| payload(entry)),
    }
}

/// What is in an entry from raft-rs.
pub(super) fn payload(entry: &eraftpb::Entry) -> Bytes {
    match entry.get_entry_type() {
        eraftpb::EntryType::EntryConfChange => disguise::take_off(&entry.data),
        _ => entry.data.clone(),
    }
}

/// The hard state as it is logged.
pub(super) fn hard_state_out(state: &eraftpb::HardState) -> raftpb::HardState {
    raftpb::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}

/// The hard state as raft-rs wants it.
pub(super) fn hard_state_in(state: &raftpb::HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..Default::default()
    }
}

/// The configuration as raft-rs wants it.
pub(super) fn conf_state_in(state: &raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        ..Default::default()
    }
}

/// The configuration in etcd's form, sorted.
pub(super) fn conf_state_out(state: &eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState::simple(sorted(&state.voters), sorted(&state.learners))
}

/// A snapshot's place in the log, for raft-rs; its content never goes there.
pub(super) fn snapshot_in(snapshot: &raftpb::Snapshot) -> eraftpb::Snapshot {
    let raftpb::SnapshotMetadata {
        conf_state,
        index,
        term,
    } = &snapshot.metadata;
    snapshot_at(*index, *term, conf_state_in(conf_state))
}

/// A snapshot without content.
pub(super) fn snapshot_at(
    index: u64,
    term: u64,
    conf_state: eraftpb::ConfState,
) -> eraftpb::Snapshot {
    let mut metadata = eraftpb::SnapshotMetadata {
        index,
        term,
        ..Default::default()
    };
    metadata.set_conf_state(conf_state);
    let mut converted = eraftpb::Snapshot::default();
    converted.set_metadata(metadata);
    converted
}

/// A snapshot's place in the log, for a peer.
fn snapshot_out(snapshot: &eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.get_metadata();
    let conf_state = conf_state_out(metadata.get_conf_state());
    raftpb::Snapshot::new(metadata.index, metadata.term, conf_state, Bytes::new())
}

/// The payload of a conf change that raft-rs may parse: exactly what our own parser understood of it.
fn checked_conf_change(data: &Bytes) -> Result<Bytes, ConvertError> {
    let change =
        raftpb::ConfChange::decode(data.clone()).map_err(|_| ConvertError::UnknownType {
            what: "conf change",
            number: 0,
        })?;
    let encoded = change.encode_to_vec();
    Ok(if encoded == *data {
        data.clone()
    } else {
        encoded.into()
    })
}

/// A membership change as raft-rs wants it; `None` for one that does not concern Raft (an update of addresses).
pub(super) fn conf_change_in(
    change: &raftpb::ConfChange,
) -> Result<Option<eraftpb::ConfChange>, ConvertError> {
    use raftpb::ConfChangeType as Etcd;
    let kind = change.kind().map_err(|_| ConvertError::UnknownType {
        what: "conf change type",
        number: change.r#type,
    })?;
    let change_type = match kind {
        Etcd::ConfChangeAddNode => eraftpb::ConfChangeType::AddNode,
        Etcd::ConfChangeRemoveNode => eraftpb::ConfChangeType::RemoveNode,
        Etcd::ConfChangeAddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        Etcd::ConfChangeUpdateNode => return Ok(None),
    };
    let mut converted = eraftpb::ConfChange {
        node_id: change.node_id,
        ..Default::default()
    };
    converted.set_change_type(change_type);
    Ok(Some(converted))
}

/// A peer's message for raft-rs.
pub(super) fn message_in(message: raftpb::Message) -> Result<eraftpb::Message, ConvertError> {
    let msg_type = message_type_in(message.r#type)?;
    let mut converted = eraftpb::Message {
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        reject: message.reject,
        reject_hint: message.reject_hint,
        ..eraftpb::Message::default()
    };
    converted.set_msg_type(msg_type);
    converted.context = message.context;
    let mut entries = message
        .entries
        .into_iter()
        .map(entry_in)
        .collect::<Result<Vec<_>, _>>()?;
    if msg_type == eraftpb::MessageType::MsgPropose {
        // These are the only ones that raft-rs looks into.
        for entry in &mut entries {
            if entry.get_entry_type() == eraftpb::EntryType::EntryConfChange {
                let change = checked_conf_change(&payload(entry))?;
                entry.data = disguise::put_on(&change);
            }
        }
    }
    converted.entries = entries.into();
    if let Some(snapshot) = &message.snapshot {
        converted.set_snapshot(snapshot_in(snapshot));
    }
    Ok(converted)
}

/// A message of raft-rs for a peer.
pub(super) fn message_out(message: eraftpb::Message) -> raftpb::Message {
    raftpb::Message {
        r#type: message.get_msg_type() as i32,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry_out).collect(),
        commit: message.commit,
        snapshot: (message.get_msg_type() == eraftpb::MessageType::MsgSnapshot)
            .then(|| snapshot_out(message.get_snapshot())),
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context,
    }
}

fn message_type_in(number: i32) -> Result<eraftpb::MessageType, ConvertError> {
    use eraftpb::MessageType as Raft;
    use raftpb::MessageType as Etcd;
    let kind = Etcd::try_from(number).map_err(|_| ConvertError::UnknownType {
        what: "message type",
        number,
    })?;
    Ok(match kind {
        Etcd::MsgProp => Raft::MsgPropose,
        Etcd::MsgApp => Raft::MsgAppend,
        Etcd::MsgAppResp => Raft::MsgAppendResponse,
        Etcd::MsgVote => Raft::MsgRequestVote,
        Etcd::MsgVoteResp => Raft::MsgRequestVoteResponse,
        Etcd::MsgSnap => Raft::MsgSnapshot,
        Etcd::MsgHeartbeat => Raft::MsgHeartbeat,
        Etcd::MsgHeartbeatResp => Raft::MsgHeartbeatResponse,
        Etcd::MsgTransferLeader => Raft::MsgTransferLeader,
        Etcd::MsgTimeoutNow => Raft::MsgTimeoutNow,
        Etcd::MsgReadIndex => Raft::MsgReadIndex,
        Etcd::MsgReadIndexResp => Raft::MsgReadIndexResp,
        Etcd::MsgPreVote => Raft::MsgRequestPreVote,
        Etcd::MsgPreVoteResp => Raft::MsgRequestPreVoteResponse,
        _ => return Err(ConvertError::LocalMessage(number)),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn message_types_keep_their_numbers() {
        for number in 0..=18 {
            if let Ok(converted) = message_type_in(number) {
                assert_eq!(converted as i32, number);
            }
        }
        assert_eq!(message_type_in(0), Err(ConvertError::LocalMessage(0)));
        assert!(message_type_in(99).is_err());
    }

    #[test]
    fn conf_change_types_two_and_three_are_not_mixed_up() {
        let change = |number| raftpb::ConfChange {
            r#type: number,
            node_id: 7,
            ..Default::default()
        };
        let kinds: Vec<_> = (0..4)
            .map(|number| {
                conf_change_in(&change(number))
                    .unwrap()
                    .map(|change| change.get_change_type())
            })
            .collect();
        use eraftpb::ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        assert_eq!(
            kinds,
            [Some(AddNode), Some(RemoveNode), None, Some(AddLearnerNode)]
        );
        assert!(conf_change_in(&change(4)).is_err());
    }

    #[test]
    fn entries_survive_the_round_trip() {
        let entries = [
            raftpb::Entry::normal(2, 5, Bytes::from_static(b"put")),
            raftpb::Entry::normal(3, 6, Bytes::new()),
            raftpb::Entry {
                r#type: Some(1),
                term: 1,
                index: 1,
                data: Some(Bytes::from_static(b"cc")),
            },
        ];
        for entry in entries {
            assert_eq!(entry_out(&entry_in(entry.clone()).unwrap()), entry);
        }
        assert!(
            entry_in(raftpb::Entry {
                r#type: Some(2),
                term: 1,
                index: 1,
                data: None
            })
            .is_err()
        );
    }
}
