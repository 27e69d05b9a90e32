//! What the program under test holds: a client of all members.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::boundary::{Request, Response};
use quorate_core::error::RequestError;
use quorate_core::types::{LeaseId, Time};
use quorate_core::watch::StreamId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request as Operation;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::{Event, KeyValue};

use super::{Answer, Ask, Outcome, State};

/// After every member was asked in vain.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody took it: nothing was done.
    NotSent,
    /// Nobody knows whether it was done.
    Unknown,
    /// The cluster refused it; nothing was done.
    Refused(RequestError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent => f.write_str("no member is there"),
            Self::Unknown => f.write_str("no answer came: it may have been done"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// A client. A call goes to the member in use; one that is not there is left for the next. A change that may have
/// been sent is never sent again.
pub struct Client {
    pub(super) state: Rc<RefCell<State>>,
    member: Cell<usize>,
}

/// The future of one call.
struct Call {
    state: Rc<RefCell<State>>,
    slot: u64,
}

impl Future for Call {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.state.borrow_mut();
        let slot = state.calls.get_mut(&self.slot).expect("it is open");
        match slot.answer.clone() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.state.borrow_mut().calls.remove(&self.slot);
    }
}

impl Client {
    pub(super) fn new(state: Rc<RefCell<State>>) -> Self {
        let member = {
            let mut state = state.borrow_mut();
            state.clients_made += 1;
            Cell::new(state.clients_made as usize % state.members.len())
        };
        Self { state, member }
    }

    fn ask(&self, ask: Ask) -> Call {
        let state = Rc::clone(&self.state);
        let slot = state.borrow_mut().ask(self.member.get(), ask);
        Call { state, slot }
    }

    fn use_next(&self) {
        let members = self.state.borrow().members.len();
        self.member.set((self.member.get() + 1) % members);
    }

    /// Asks member after member. What changes nothing may be asked again after no answer came.
    pub(super) async fn call(&self, ask: Ask, is_safe: bool) -> Answer {
        let members = self.state.borrow().members.len();
        let mut last = Error::NotSent;
        for attempt in 0..4 * members {
            match self.ask(ask.clone()).await {
                Err(Error::NotSent) => {}
                Err(Error::Unknown) if is_safe => last = Error::Unknown,
                // One that was removed and has not heard of it would never answer: the next call goes elsewhere.
                Err(Error::Unknown) => {
                    self.use_next();
                    return Err(Error::Unknown);
                }
                answer => return answer,
            }
            self.use_next();
            if (attempt + 1) % members == 0 {
                self.sleep(RETRY_PAUSE).await;
            }
        }
        Err(last)
    }

    async fn propose(&self, request: pb::InternalRaftRequest) -> Result<Response, Error> {
        match self.call(Ask::Propose(Box::new(request)), false).await? {
            Outcome::Response(response) => Ok(response),
            _ => Err(Error::Unknown),
        }
    }

    /// Waits in virtual time.
    pub async fn sleep(&self, time: Duration) {
        let state = Rc::clone(&self.state);
        let slot = state.borrow_mut().wake_after(time);
        // It only ever comes.
        let _ = Call { state, slot }.await;
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.state.borrow().now_ns)
    }

    /// Reads a key; linearizable.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let range = pb::RangeRequest {
            key: key.into(),
            ..pb::RangeRequest::default()
        };
        Ok(self.range(range).await?.kvs.pop())
    }

    /// Reads a range; linearizable.
    pub async fn range(&self, range: pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        match self.call(Ask::Read(range), true).await? {
            Outcome::Range(response) => Ok(response),
            _ => Err(Error::Unknown),
        }
    }

    /// Writes a key; gives the revision.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<i64, Error> {
        self.put_on_lease(key, value, 0).await
    }

    /// Writes a key that goes with a lease.
    pub async fn put_on_lease(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        lease: i64,
    ) -> Result<i64, Error> {
        let put = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            ..pb::PutRequest::default()
        };
        let request = pb::InternalRaftRequest {
            put: Some(put),
            ..pb::InternalRaftRequest::default()
        };
        match self.propose(request).await? {
            Response::Put(response) => Ok(response.header.map_or(0, |header| header.revision)),
            _ => Err(Error::Unknown),
        }
    }

    /// Writes a key if its mod revision is still this one, 0 for a key that does not exist. Says whether it did.
    pub async fn put_if_unchanged(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        mod_revision: i64,
    ) -> Result<bool, Error> {
        let put = pb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..pb::PutRequest::default()
        };
        let compare = pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: put.key.clone(),
            target_union: Some(TargetUnion::ModRevision(mod_revision)),
            ..pb::Compare::default()
        };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp {
                request: Some(Operation::RequestPut(put)),
            }],
            failure: Vec::new(),
        };
        Ok(self.txn(txn).await?.succeeded)
    }

    /// Carries out a transaction.
    pub async fn txn(&self, txn: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        let request = pb::InternalRaftRequest {
            txn: Some(txn),
            ..pb::InternalRaftRequest::default()
        };
        match self.propose(request).await? {
            Response::Txn(response) => Ok(response),
            _ => Err(Error::Unknown),
        }
    }

    /// Deletes a key.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<(), Error> {
        let delete = pb::DeleteRangeRequest {
            key: key.into(),
            ..pb::DeleteRangeRequest::default()
        };
        let request = pb::InternalRaftRequest {
            delete_range: Some(delete),
            ..pb::InternalRaftRequest::default()
        };
        self.propose(request).await.map(drop)
    }

    /// Grants a lease under an id of the caller's.
    pub async fn grant(&self, id: i64, ttl_seconds: i64) -> Result<(), Error> {
        let request = pb::InternalRaftRequest {
            lease_grant: Some(pb::LeaseGrantRequest {
                ttl: ttl_seconds,
                id,
            }),
            ..pb::InternalRaftRequest::default()
        };
        self.propose(request).await.map(drop)
    }

    /// Ends a lease, and deletes its keys.
    pub async fn revoke(&self, id: i64) -> Result<(), Error> {
        let request = pb::InternalRaftRequest {
            lease_revoke: Some(pb::LeaseRevokeRequest { id }),
            ..pb::InternalRaftRequest::default()
        };
        self.propose(request).await.map(drop)
    }

    /// Renews a lease. Only the leader can: members are asked in turn.
    pub async fn keep_alive(&self, id: i64) -> Result<(), Error> {
        let ask = Ask::Other(Request::LeaseRenew(LeaseId(id)));
        match self.call(ask, true).await? {
            Outcome::Response(Response::LeaseRenewed { ttl }) if ttl > 0 => Ok(()),
            _ => Err(Error::Refused(RequestError::LeaseNotFound)),
        }
    }

    /// Follows a range of keys from a revision on, over all crashes of members.
    pub fn watch(
        &self,
        key: impl Into<Bytes>,
        range_end: impl Into<Bytes>,
        start_revision: i64,
    ) -> Watch {
        Watch {
            state: Rc::clone(&self.state),
            request: pb::WatchCreateRequest {
                key: key.into(),
                range_end: range_end.into(),
                start_revision: start_revision.max(1),
                ..pb::WatchCreateRequest::default()
            },
            at: None,
            events: VecDeque::new(),
        }
    }
}

/// A watch, over all the members that it has been at.
pub struct Watch {
    state: Rc<RefCell<State>>,
    /// With the revision to go on from.
    request: pb::WatchCreateRequest,
    /// The member, the life of its process, and the stream.
    at: Option<(usize, u64, StreamId)>,
    events: VecDeque<Event>,
}

impl Watch {
    /// The next event.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let state = Rc::clone(&self.state);
            let moved = poll_fn(|context| self.poll(context)).await;
            if !moved {
                // No member is there to watch at.
                let slot = state.borrow_mut().wake_after(RETRY_PAUSE);
                let _ = Call { state, slot }.await;
            }
        }
    }

    /// Ready with whether there is something new to look at.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.borrow_mut();
        let now = Time(state.now_ns);
        let is_there = |state: &State, (member, life, _): (usize, u64, StreamId)| {
            state.members[member].is_up() && state.members[member].life() == life
        };
        if !self.at.is_some_and(|at| is_there(&state, at)) {
            let Some(member) = state.members.iter().position(|member| member.is_up()) else {
                return Poll::Ready(false);
            };
            let life = state.members[member].life();
            let process = state.members[member].process.as_mut().expect("it is up");
            let stream = process.hub.open(now);
            let create = pb::WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(self.request.clone())),
            };
            process
                .hub
                .handle(now, stream, create, &process.node.view());
            self.at = Some((member, life, stream));
        }
        let (member, _, stream) = self.at.expect("it was just set");
        let process = state.members[member].process.as_mut().expect("it is up");
        let Some(response) = process.hub.next(stream, &process.node.view()) else {
            process.watchers.push(context.waker().clone());
            let now_ns = state.now_ns;
            state.turn_at(member, now_ns + 1_000_000);
            return Poll::Pending;
        };
        if response.canceled {
            self.request.start_revision =
                self.request.start_revision.max(response.compact_revision);
            self.at = None;
            return Poll::Ready(true);
        }
        if let Some(kv) = response.events.last().and_then(|event| event.kv.as_ref()) {
            self.request.start_revision = kv.mod_revision + 1;
        }
        self.events.extend(response.events);
        Poll::Ready(true)
    }
}
