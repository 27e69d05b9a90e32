//! Lease calls that a follower forwards to the leader.

use std::future::Future;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Body;
use prost::Message as _;
use quorate_core::{LeaseId, RequestError};
use quorate_proto::{etcdserverpb as pb, leasepb};
use tokio::time::timeout;

use super::answers::{text, whole};
use super::{LocalNode, PeerBody, Service};
use crate::peer::client::{CollectError, PROTOBUF, collect};
use crate::peer::limits::{LEASE_APPLY_TIMEOUT, LEASE_REQUEST_BYTES_MAX};

impl<N: LocalNode> Service<N> {
    pub(super) async fn lease<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if parts.method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        }
        let body = match collect(body, LEASE_REQUEST_BYTES_MAX).await {
            Ok(body) => body,
            Err(CollectError::TooLarge) => {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
            }
            Err(CollectError::Stalled | CollectError::Broken(_)) => {
                return text(StatusCode::BAD_REQUEST, "error reading body");
            }
        };
        let is_renewal = parts.uri.path() == "/leases";
        let answered = if is_renewal {
            self.lease_renew(body).await
        } else {
            self.lease_time_to_live(body).await
        };
        match answered {
            Ok(answer) => whole(StatusCode::OK, PROTOBUF, answer),
            Err(LeaseRefusal::Malformed) => {
                text(StatusCode::BAD_REQUEST, "error unmarshalling request")
            }
            Err(LeaseRefusal::Late) => {
                let late = "waiting for node to catch up its applied index has timed out";
                text(StatusCode::REQUEST_TIMEOUT, late)
            }
            Err(LeaseRefusal::Failed(RequestError::LeaseNotFound)) => {
                text(StatusCode::NOT_FOUND, "lease not found")
            }
            Err(LeaseRefusal::Failed(error)) if is_renewal => {
                text(StatusCode::BAD_REQUEST, error.message())
            }
            Err(LeaseRefusal::Failed(error)) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, error.message())
            }
        }
    }

    async fn lease_renew(&self, body: Bytes) -> Result<Vec<u8>, LeaseRefusal> {
        let request =
            pb::LeaseKeepAliveRequest::decode(body).map_err(|_| LeaseRefusal::Malformed)?;
        let ttl = within_apply_timeout(self.node.lease_renew(LeaseId(request.id))).await?;
        Ok(pb::LeaseKeepAliveResponse {
            header: None,
            id: request.id,
            ttl,
        }
        .encode_to_vec())
    }

    async fn lease_time_to_live(&self, body: Bytes) -> Result<Vec<u8>, LeaseRefusal> {
        let request =
            leasepb::LeaseInternalRequest::decode(body).map_err(|_| LeaseRefusal::Malformed)?;
        let request = request
            .lease_time_to_live_request
            .ok_or(LeaseRefusal::Malformed)?;
        let asked = self
            .node
            .lease_time_to_live(LeaseId(request.id), request.keys);
        let mut answer = within_apply_timeout(asked).await?;
        // Whoever forwarded the question fills in its own; an etcd expects the message to be there.
        answer.header = Some(pb::ResponseHeader::default());
        Ok(leasepb::LeaseInternalResponse {
            lease_time_to_live_response: Some(answer),
        }
        .encode_to_vec())
    }
}

/// Why a lease call gets no answer.
enum LeaseRefusal {
    Malformed,
    Late,
    Failed(RequestError),
}

async fn within_apply_timeout<T>(
    asked: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, LeaseRefusal> {
    match timeout(LEASE_APPLY_TIMEOUT, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Err(_) | Ok(Err(RequestError::TimeoutWaitAppliedIndex | RequestError::Timeout)) => {
            Err(LeaseRefusal::Late)
        }
        Ok(Err(error)) => Err(LeaseRefusal::Failed(error)),
    }
}
