//! The Watch service: one stream of the core's hub for each call.
//!
//! Responses are pulled from the hub only while the connection takes them, and requests are read only while the hub
//! has room for their answers. So a client that does not read costs nothing but its watches. While auth is on, each
//! creation is checked before the hub sees it, and those behind it wait.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use quorate_core::auth::permit_watch;
use quorate_core::error::RequestError;
use quorate_core::watch::StreamId;
use quorate_net::grpc::etcdserverpb::watch_server;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

use super::admission;
use super::caller::Caller;
use super::leader_watch::{ResponseStream, until_leaderless};
use crate::io::core;

/// The service; all its state is the core's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch;

#[async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = ResponseStream<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request);
        let requires_leader = admission::requires_leader(request.metadata().as_ref());
        let watches = Watches {
            id: core::with(|core| core.watches(|watches| watches.open())),
            requests: Some(request.into_inner()),
            caller,
            checking: None,
        };
        Ok(Response::new(until_leaderless(requires_leader, watches)))
    }
}

/// The watches of one call.
struct Watches {
    id: StreamId,
    /// None once the client has said everything; the server goes on until it leaves.
    requests: Option<Streaming<pb::WatchRequest>>,
    caller: Caller,
    /// A creation of which is not known yet whether it is allowed.
    checking: Option<Checking>,
}

type Checking =
    Pin<Box<dyn Future<Output = (pb::WatchCreateRequest, Result<(), RequestError>)> + Send>>;

/// Whether a watch may be made. etcd shows four errors only.
async fn check(
    caller: Caller,
    create: pb::WatchCreateRequest,
) -> (pb::WatchCreateRequest, Result<(), RequestError>) {
    let permitted = caller.identity().await.and_then(|who| {
        let rules = core::state().guard.rules.rules();
        permit_watch(&rules, &who.unwrap_or_default(), &create)
    });
    let shown = permitted.map_err(|error| match error {
        RequestError::InvalidAuthToken
        | RequestError::AuthOldRevision
        | RequestError::UserEmpty => error,
        _ => RequestError::PermissionDenied,
    });
    (create, shown)
}

impl Watches {
    /// Hands over requests until there are none or the hub must be pulled first.
    fn take_requests(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        loop {
            if let Some(checking) = &mut self.checking {
                let Poll::Ready((create, permitted)) = checking.as_mut().poll(context) else {
                    break;
                };
                self.checking = None;
                core::with(|core| {
                    core.watches(|watches| match permitted {
                        Ok(()) => watches.handle(self.id, creation(create)),
                        Err(error) => watches.refuse(self.id, &create, &error),
                    })
                });
            }
            let Some(requests) = &mut self.requests else {
                break;
            };
            if !core::with(|core| core.watches(|watches| watches.accepts(self.id))) {
                break;
            }
            match Pin::new(requests).poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Some(request)) => {
                    let request = request.inspect_err(|broken| {
                        if broken.code() != Code::Cancelled {
                            core::with(|core| core.state().metrics.core().watch_broken.increment());
                        }
                    })?;
                    self.take(request);
                }
                Poll::Ready(None) => self.requests = None,
            }
        }
        Ok(())
    }
}

impl Watches {
    fn take(&mut self, request: pb::WatchRequest) {
        let is_enabled = core::with(|core| core.state().guard.rules.is_enabled());
        match request.request_union {
            // A revision that never was is refused first, whoever asks.
            Some(RequestUnion::CreateRequest(create))
                if is_enabled && create.start_revision >= 0 =>
            {
                self.checking = Some(Box::pin(check(self.caller.clone(), create)));
            }
            _ => core::with(|core| core.watches(|watches| watches.handle(self.id, request))),
        }
    }
}

fn creation(create: pb::WatchCreateRequest) -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    }
}

impl Stream for Watches {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(broken) = self.take_requests(context) {
            return Poll::Ready(Some(Err(broken)));
        }
        let next = core::with(|core| {
            let began = Instant::now();
            let mut response = core.watches(|watches| watches.next(self.id, context.waker()))?;
            let (events, is_control) =
                (response.events.len(), response.created || response.canceled);
            let metrics = core.state().metrics.core();
            metrics.watch_answered(events, is_control, began.elapsed());
            if let Some(header) = &mut response.header {
                let filled = core.state().header_without_revision();
                *header = pb::ResponseHeader {
                    revision: header.revision,
                    ..filled
                };
            }
            Some(response)
        });
        match next {
            Some(response) => Poll::Ready(Some(Ok(response))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        core::if_alive(|core| core.watches(|watches| watches.close(self.id)));
    }
}
