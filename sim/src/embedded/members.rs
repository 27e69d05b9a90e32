//! Clusters whose members change: machines for new members, and the changes that a client asks for.

use quorate_core::boundary::{MembersChange, Request, Response};
use quorate_core::checkpoint::MemberRecord;
use quorate_core::error::RequestError;
use quorate_core::member::member_id;
use quorate_core::types::MemberId;

use super::client::{Client, Error};
use super::member::Member;
use super::{Ask, Cluster, Outcome, State};

impl Cluster {
    /// A machine for one more member, switched off. [`Client::add_member`] adds it to the cluster, and then
    /// [`Cluster::restart`] turns it on.
    pub fn add_machine(&mut self) -> usize {
        self.state.borrow_mut().add_machine()
    }

    /// Takes a machine away for ever, with its disk: that of a member which was removed, or will be.
    pub fn retire(&mut self, member: usize) {
        let mut state = self.state.borrow_mut();
        state.end_process(member, true);
        state.members[member].is_gone = true;
    }

    /// Whether a member runs.
    pub fn is_up(&self, member: usize) -> bool {
        self.state.borrow().members[member].is_up()
    }

    /// How many snapshots members have installed so far.
    pub fn snapshots_installed(&self) -> u64 {
        self.state.borrow().snapshots_installed
    }

    /// What a member says of itself, for people; `None` if there is no such machine.
    pub fn describe(&self, member: usize) -> Option<String> {
        let state = self.state.borrow();
        let Some(process) = &state.members.get(member)?.process else {
            return Some(format!("m{} does not run", member + 1));
        };
        let status = process.node.status();
        let members = status.members.iter();
        let members = members.map(|it| format!("{:x} {} {}", it.id, it.name, it.is_learner));
        Some(format!(
            "m{} ({:x}): term {}, leader {:x?}, committed {}, applied {}, members {:?}",
            member + 1,
            state.members[member].id.0,
            status.term.0,
            status.leader.map(|leader| leader.0),
            status.committed.0,
            status.applied.0,
            members.collect::<Vec<_>>()
        ))
    }

    /// A hash over everything that a member has, with the revision that it is at; `None` while it does not run.
    pub fn content(&self, member: usize) -> Option<(i64, u32)> {
        let state = self.state.borrow();
        let view = state.members[member].process.as_ref()?.node.view();
        let hashed = view.hash_kv(quorate_core::types::Revision(0)).ok()?;
        Some((view.revision().0, hashed.hash))
    }
}

impl State {
    fn add_machine(&mut self) -> usize {
        let place = self.members.len();
        let peer_urls = vec![format!("http://10.0.0.{}:2380", place + 1)];
        let seconds = (self.now_ns / 1_000_000_000) as i64;
        let id = member_id(&peer_urls, "", Some(seconds));
        self.members.push(Member::new(self.seed, place, id));
        place
    }
}

impl Client {
    /// Adds a member as a voter, or as a learner that hears everything and has no vote.
    pub async fn add_member(&self, member: usize, is_learner: bool) -> Result<(), Error> {
        let record = MemberRecord {
            id: self.id_of(member),
            peer_urls: vec![format!("http://10.0.0.{}:2380", member + 1)],
            is_learner,
            ..MemberRecord::default()
        };
        self.change_members(MembersChange::Add(record)).await
    }

    /// Makes a learner a voter. It must have most of the log.
    pub async fn promote_member(&self, member: usize) -> Result<(), Error> {
        let id = self.id_of(member);
        self.change_members(MembersChange::Promote(id)).await
    }

    /// Removes a member for ever.
    pub async fn remove_member(&self, member: usize) -> Result<(), Error> {
        let id = self.id_of(member);
        self.change_members(MembersChange::Remove(id)).await
    }

    fn id_of(&self, member: usize) -> MemberId {
        self.state.borrow().members[member].id
    }

    async fn change_members(&self, change: MembersChange) -> Result<(), Error> {
        let ask = Ask::Other(Request::ChangeMembers(change));
        match self.call(ask, false).await? {
            Outcome::Response(Response::Members(_)) => Ok(()),
            _ => Err(Error::Unknown),
        }
    }
}

/// Whether a change of the members was refused, so that nothing was done.
pub(super) fn is_refusal(error: &RequestError) -> bool {
    use RequestError::{
        LearnerNotReady, MemberExist, MemberNotEnoughStarted, MemberNotFound, MemberNotLearner,
        PeerURLExist, TooManyLearners, Unhealthy,
    };
    matches!(
        error,
        LearnerNotReady
            | MemberExist
            | MemberNotEnoughStarted
            | MemberNotFound
            | MemberNotLearner
            | PeerURLExist
            | TooManyLearners
            | Unhealthy
    )
}
