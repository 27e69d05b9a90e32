//! Snapshots between members: sending the checkpoint to a follower that is too far behind for the log, and taking the
//! leader's in the place of everything this member has.
//!
//! ```text
//!   SnapshotReceived ─► wait for a checkpoint under way ─► raft takes it ─► the state is the image's
//!                                          └ or not: Discard           └─► Write{install, record} ─► Written
//! ```
//!
//! The state changes at once, since what it shows is committed in the cluster; what this member says of its disk
//! waits for the write. Views stay valid: watchers go on in the new history where they were in the old one.

use bytes::Bytes;
use quorate_proto::raftpb;

use super::recover::{self, RecoverError};
use super::upkeep::record_of;
use super::{Node, nanos};
use crate::apply::State;
use crate::auth::TokenChange;
use crate::boundary::{Output, SnapshotRecord};
use crate::checkpoint::{self, Install};
use crate::lease;
use crate::types::{Index, MemberId, Term, Time};

/// Entries behind a snapshot are kept for this long after it was sent, for its receiver to go on with; etcd's value.
const KEPT_AFTER_SENDING: std::time::Duration = std::time::Duration::from_secs(30);

/// An image that came from the leader: durable under a name of its own, and read.
#[derive(Debug)]
pub struct ReceivedImage {
    state: State,
    install: Install,
}

impl ReceivedImage {
    /// Reads the image that lies at `path`. Takes a while for a large one: not for the thread that drives the node.
    pub fn load(path: String, image: Bytes, lease: lease::Config) -> Result<Self, RecoverError> {
        let loaded = checkpoint::load(image)?;
        let install = Install::new(path, &loaded.contents);
        let state = recover::restore(loaded, lease)?;
        Ok(Self { state, install })
    }

    /// The applied index of the image.
    pub fn index(&self) -> Index {
        self.state.index
    }

    /// What the log says of the image.
    fn record(&self) -> SnapshotRecord {
        record_of(&self.state)
    }
}

/// A snapshot that raft has not seen yet.
#[derive(Debug)]
pub(super) struct Incoming {
    message: raftpb::Message,
    image: Box<ReceivedImage>,
}

/// A snapshot that was sent, or is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// The receiver goes on after this.
    index: Index,
    /// When all of it was there.
    done: Option<Time>,
}

impl Node {
    /// An image is there. One at a time: a newer one takes the place of one that still waits.
    pub(super) fn on_snapshot(
        &mut self,
        from: MemberId,
        message: raftpb::Message,
        image: Box<ReceivedImage>,
    ) {
        let from_member = message.from == from.0 && !self.state.membership.is_removed(from);
        if !from_member || !fits(&message, &image) {
            return self.out.push(Output::Discard(image.install));
        }
        let waiting = self.incoming.replace(Incoming { message, image });
        if let Some(Incoming { image, .. }) = waiting {
            self.out.push(Output::Discard(image.install));
        }
    }

    /// Lets raft decide on the snapshot that waits. A checkpoint under way would later replace what it installs.
    pub(super) fn take_incoming(&mut self) {
        if self.checkpoints.in_flight.is_some() || self.consensus.is_restoring() {
            return;
        }
        let Some(Incoming { message, image }) = self.incoming.take() else {
            return;
        };
        let record = image.record();
        let ReceivedImage { state, install } = *image;
        // An installation that a crash has cut leaves an image, and so a state, that is ahead of the log. What is older
        // is of no use then; the same is taken, for the log's sake.
        if state.index < self.state.index {
            return self.out.push(Output::Discard(install));
        }
        match self.consensus.receive_snapshot(message, record, install) {
            Ok(()) => self.accepted = Some(Box::new(state)),
            Err(install) => self.out.push(Output::Discard(install)),
        }
    }

    /// The log begins anew after the snapshot, and so does the state.
    pub(super) fn restore(&mut self) {
        let mut state = *self
            .accepted
            .take()
            .expect("raft restores what it was given");
        assert!(
            state.index >= self.state.index,
            "a snapshot never takes the state back"
        );
        // Views belong to the store and to the auth store, which stay; only their content is another.
        self.state.store.replace(std::mem::take(&mut state.store));
        std::mem::swap(&mut self.state.store, &mut state.store);
        self.replace_auth(&mut state);
        self.state = state;
        let data_bytes = self.state.store.size_bytes();
        self.checkpoints
            .on_installed(record_of(&self.state), data_bytes);
        // It is on the disk before this member can lead and send it.
        self.consensus
            .offer_checkpoint(self.checkpoints.record.as_ref());
        // They were compactions of a store that is gone; logically they have happened.
        for (ticket, response) in std::mem::take(&mut self.compactions) {
            if self.proposals.close(ticket) {
                self.reply(ticket, Ok(response));
            }
        }
        self.refresh_alarms();
        self.announce_peers();
    }

    /// Users, roles and what the views of them see become the image's. Which logins were revoked in between is not
    /// known, so that all are.
    fn replace_auth(&mut self, state: &mut State) {
        if state.auth.rules() != self.state.auth.rules() {
            self.state.auth.replace(state.auth.export());
            self.out.push(Output::Token(TokenChange::AllVoid));
        }
        std::mem::swap(&mut self.state.auth, &mut state.auth);
    }

    /// Remembers what leaves, so that the log is kept for its receiver.
    pub(super) fn note_snapshots_sent(&mut self) {
        for output in &self.out {
            if let Output::SendSnapshot { to, message } = output {
                let index = message
                    .snapshot
                    .as_ref()
                    .map_or(0, |snapshot| snapshot.metadata.index);
                let sending = Sending {
                    index: Index(index),
                    done: None,
                };
                self.sending.insert(*to, sending);
            }
        }
    }

    /// A snapshot has reached its receiver, or has not.
    pub(super) fn on_snapshot_sent(&mut self, to: MemberId, done: bool) {
        if let Some(sending) = self.sending.get_mut(&to) {
            sending.done = Some(self.now);
            if !done {
                self.sending.remove(&to);
            }
        }
        self.consensus.report_snapshot(to, done);
    }

    /// The first entry that must stay when there is a checkpoint at `index`.
    pub(super) fn purge_before(&mut self, index: Index) -> Index {
        let kept = nanos(KEPT_AFTER_SENDING);
        let (now, leads) = (self.now, self.consensus.is_leader());
        self.sending
            .retain(|_, sending| leads && sending.done.is_none_or(|done| done.0 + kept > now.0));
        let needed = self.sending.values().map(|sending| sending.index);
        needed.fold(index, Index::min).next()
    }
}

/// Whether message and image are of one and the same snapshot.
fn fits(message: &raftpb::Message, image: &ReceivedImage) -> bool {
    let Some(snapshot) = &message.snapshot else {
        return false;
    };
    let SnapshotRecord {
        index,
        term,
        conf_state,
    } = image.record();
    let metadata = &snapshot.metadata;
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    message.kind() == Ok(raftpb::MessageType::MsgSnap)
        && (Index(metadata.index), Term(metadata.term)) == (index, term)
        && sorted(&metadata.conf_state.voters) == conf_state.voters
        && sorted(&metadata.conf_state.learners) == conf_state.learners
}
