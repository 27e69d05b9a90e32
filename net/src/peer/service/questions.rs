//! What another member may ask: members, versions, hashes, whether a downgrade runs; and the promotion of a learner.

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Body;
use quorate_core::{MemberId, RequestError, Revision};
use tracing::warn;

use super::answers::{only, text, whole};
use super::{LocalNode, PeerBody, Service};
use crate::peer::client::{JSON, PROMOTE_PATH, collect};
use crate::peer::identity::X_CLUSTER_ID;
use crate::peer::json;
use crate::peer::limits::LEASE_REQUEST_BYTES_MAX;

impl<N: LocalNode> Service<N> {
    pub(super) fn members(&self) -> Response<PeerBody> {
        whole(
            StatusCode::OK,
            JSON,
            json::write_members(self.node.members()),
        )
    }

    pub(super) fn version(&self) -> Response<PeerBody> {
        whole(
            StatusCode::OK,
            JSON,
            serde_json::to_vec(&self.node.versions()).expect("strings"),
        )
    }

    pub(super) async fn downgrade_enabled(&self, parts: &Parts) -> Response<PeerBody> {
        if let Some(refusal) = only(&Method::GET, parts) {
            return refusal;
        }
        self.named(match self.node.downgrade_enabled().await {
            Ok(enabled) => whole(
                StatusCode::OK,
                "text/plain",
                enabled.to_string().into_bytes(),
            ),
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed linearized read: {error}"),
            ),
        })
    }

    pub(super) async fn hash_kv<B>(&self, parts: &Parts, body: B) -> Response<PeerBody>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        if let Some(refusal) = only(&Method::GET, parts) {
            return refusal;
        }
        let cluster = parts.headers.get(&X_CLUSTER_ID);
        if cluster
            .is_some_and(|id| !id.is_empty() && id != self.transport.identity().cluster_header())
        {
            return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
        }
        let Ok(body) = collect(body, LEASE_REQUEST_BYTES_MAX).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body");
        };
        let Ok(revision) = json::read_hash_request(&body) else {
            return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.node.hash_kv(Revision(revision)).await {
            Ok(answer) => self.named(whole(
                StatusCode::OK,
                JSON,
                json::write_hash_answer(&answer),
            )),
            Err(error) => {
                let message = error.message();
                text(
                    StatusCode::BAD_REQUEST,
                    message.strip_prefix("etcdserver: ").unwrap_or(message),
                )
            }
        }
    }

    pub(super) async fn promote(&self, parts: &Parts) -> Response<PeerBody> {
        if let Some(refusal) = only(&Method::POST, parts) {
            return refusal;
        }
        let id = parts.uri.path().trim_start_matches(PROMOTE_PATH);
        let Ok(id) = id.parse() else {
            let error = format!("member {id} not found in cluster");
            return self.named(text(StatusCode::NOT_FOUND, &error));
        };
        let token = parts.headers.get(AUTHORIZATION).cloned();
        let promoted = self.node.promote(MemberId(id), token).await;
        self.named(match promoted {
            Ok(members) => whole(StatusCode::OK, JSON, json::write_members(members)),
            Err(RequestError::MemberNotFound) => {
                text(StatusCode::NOT_FOUND, "membership: ID not found")
            }
            Err(error @ RequestError::LearnerNotReady) => {
                text(StatusCode::PRECONDITION_FAILED, error.message())
            }
            Err(RequestError::MemberNotLearner) => text(
                StatusCode::PRECONDITION_FAILED,
                "membership: can only promote a learner member",
            ),
            Err(error) => {
                warn!(error = error.message(), "failed to promote a member");
                whole(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    JSON,
                    br#"{"message":"Internal Server Error"}"#.to_vec(),
                )
            }
        })
    }
}
