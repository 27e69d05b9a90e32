//! The way of a request into the log and of a read past it.

use bytes::Bytes;
use prost::Message as _;
use quorate_core::auth::Identity;
use quorate_core::boundary::{Request, Response};
use quorate_core::error::RequestError;
use quorate_core::types::Ticket;
use quorate_proto::etcdserverpb as pb;
use tonic::Status;

use super::caller::Caller;
use super::{mismatch, status};
use crate::io::core;

/// Puts a request through the log in the name of its caller. `fill` sets the one request in it.
pub(super) async fn propose(
    caller: &Caller,
    fill: impl FnOnce(&mut pb::InternalRaftRequest),
) -> Result<Response, Status> {
    let ticket = core::take_ticket();
    propose_as(ticket, caller, fill).await
}

/// The same under a ticket drawn before.
pub(super) async fn propose_as(
    ticket: Ticket,
    caller: &Caller,
    fill: impl FnOnce(&mut pb::InternalRaftRequest),
) -> Result<Response, Status> {
    let who = caller.identity().await.map_err(|error| status(&error))?;
    let entry = encode(ticket, who.unwrap_or_default(), fill)?;
    core::request_as(ticket, Request::Propose(entry))
        .await
        .map_err(|error| {
            if error == RequestError::Timeout {
                core::with(|core| core.state().metrics.proposals_failed.increment());
            }
            status(&error)
        })
}

/// Puts a request through the log without waiting for what becomes of it.
pub(super) fn propose_unheard(who: Identity, fill: impl FnOnce(&mut pb::InternalRaftRequest)) {
    let ticket = core::take_ticket();
    if let Ok(entry) = encode(ticket, who, fill) {
        drop(core::request_as(ticket, Request::Propose(entry)));
    }
}

/// The log entry of a request. Not part of the future, which would hold the large message for its whole life.
fn encode(
    ticket: Ticket,
    who: Identity,
    fill: impl FnOnce(&mut pb::InternalRaftRequest),
) -> Result<Bytes, Status> {
    let mut internal = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader {
            id: ticket.0,
            username: who.user,
            auth_revision: who.revision,
        }),
        ..pb::InternalRaftRequest::default()
    };
    fill(&mut internal);
    let entry = Bytes::from(internal.encode_to_vec());
    if entry.len() > core::with(|core| core.state().limits.request_bytes_max) {
        return Err(status(&RequestError::RequestTooLarge));
    }
    Ok(entry)
}

/// Waits until a read of the view sees everything that was committed when this was called.
pub(super) async fn read_index() -> Result<(), Status> {
    match core::request(Request::ReadIndex).await {
        Ok(Response::ReadReady) => Ok(()),
        Ok(_) => Err(mismatch()),
        Err(error) => {
            core::with(|core| {
                let metrics = &core.state().metrics;
                let counter = match error {
                    RequestError::Timeout => &metrics.read_indexes_slow,
                    _ => &metrics.read_indexes_failed,
                };
                counter.increment();
            });
            Err(status(&error))
        }
    }
}
