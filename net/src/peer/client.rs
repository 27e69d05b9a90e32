//! Calls to the peer port of another member: one request, one answer.
//!
//! They need no link and no identity, so that a member that is about to join can use them before it has either.

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use prost::Message as _;
use quorate_core::{ClusterId, LeaseId, MemberId, Revision};
use quorate_proto::{etcdserverpb as pb, leasepb};
use thiserror::Error;
use tokio::time::timeout;

use super::endpoint::{Endpoint, HttpClient, http_client};
use super::identity::{X_CLUSTER_ID, hex, parse_hex};
use super::json::{self, Versions};
use super::limits::{ANSWER_BYTES_MAX, IO_TIMEOUT, LEASE_ANSWER_BYTES_MAX};
use super::wire::Wire;

pub(crate) const PROTOBUF: &str = "application/protobuf";
pub(crate) const JSON: &str = "application/json";

/// In front of a learner's id, decimal.
pub(crate) const PROMOTE_PATH: &str = "/members/promote/";

/// Why a call to a peer gave nothing.
#[derive(Debug, Error)]
pub enum CallError {
    /// No such peer, or none of its URLs can be dialled.
    #[error("the member is not a known peer")]
    UnknownMember,
    /// No connection, or it broke, or no answer came.
    #[error("{0}")]
    Unreachable(String),
    /// The peer knows no such thing (404).
    #[error("not found: {0}")]
    NotFound(String),
    /// The peer did not manage in time (408).
    #[error("the peer timed out: {0}")]
    Timeout(String),
    /// Any other status.
    #[error("refused with status {status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What the peer says.
        text: String,
    },
    /// The answer is not what it should be.
    #[error("the answer cannot be understood: {0}")]
    Malformed(String),
}

impl CallError {
    pub(crate) fn timed_out() -> Self {
        Self::Unreachable("no answer in time".to_owned())
    }

    /// The innermost reason is the one that says something.
    pub(crate) fn unreachable(error: impl std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text = format!("{text}: {inner}");
            source = inner.source();
        }
        Self::Unreachable(text)
    }

    fn malformed(error: impl ToString) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Calls other members.
#[derive(Clone, Debug)]
pub struct PeerClient {
    http: HttpClient,
}

impl PeerClient {
    /// A client that makes its connections like this.
    pub fn new(wire: &Wire) -> Self {
        Self {
            http: http_client(wire),
        }
    }

    pub(crate) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// The members as that member knows them, and their cluster.
    pub async fn members(&self, at: &Endpoint) -> Result<(ClusterId, Vec<pb::Member>), CallError> {
        let answer = self
            .get(at, "/members", Bytes::new(), HeaderMap::new())
            .await?;
        let cluster = answer
            .headers
            .get(&X_CLUSTER_ID)
            .and_then(|value| parse_hex(value.to_str().ok()?));
        let cluster = cluster.ok_or_else(|| CallError::malformed("no cluster id"))?;
        let members = json::read_members(&answer.body).map_err(CallError::malformed)?;
        Ok((ClusterId(cluster), members))
    }

    /// What that member runs.
    pub async fn versions(&self, at: &Endpoint) -> Result<Versions, CallError> {
        let answer = self
            .get(at, "/version", Bytes::new(), HeaderMap::new())
            .await?;
        serde_json::from_slice(&answer.body).map_err(CallError::malformed)
    }

    /// Whether the cluster is in a downgrade.
    pub async fn downgrade_enabled(&self, at: &Endpoint) -> Result<bool, CallError> {
        let answer = self
            .get(at, "/downgrade/enabled", Bytes::new(), HeaderMap::new())
            .await?;
        match answer.body.as_ref() {
            b"true" => Ok(true),
            b"false" => Ok(false),
            other => Err(CallError::malformed(String::from_utf8_lossy(other))),
        }
    }

    /// The hash of that member's store at a revision; zero is the current one.
    pub async fn hash_kv(
        &self,
        at: &Endpoint,
        cluster: ClusterId,
        revision: Revision,
    ) -> Result<pb::HashKvResponse, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(&X_CLUSTER_ID, hex(cluster.0));
        let answer = self
            .get(
                at,
                "/members/hashkv",
                json::write_hash_request(revision.0).into(),
                headers,
            )
            .await?;
        json::read_hash_answer(&answer.body).map_err(CallError::malformed)
    }

    /// Renews a lease; the TTL in seconds.
    pub async fn lease_renew(&self, at: &Endpoint, id: LeaseId) -> Result<i64, CallError> {
        let request = pb::LeaseKeepAliveRequest { id: id.0 };
        let body = self
            .post_lease(at, "/leases", request.encode_to_vec())
            .await?;
        let answer = pb::LeaseKeepAliveResponse::decode(body).map_err(CallError::malformed)?;
        if answer.id != id.0 {
            return Err(CallError::malformed("lease: renew id mismatch"));
        }
        Ok(answer.ttl)
    }

    /// The remaining time of a lease and, if `keys`, its keys.
    pub async fn lease_time_to_live(
        &self,
        at: &Endpoint,
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, CallError> {
        let question = pb::LeaseTimeToLiveRequest { id: id.0, keys };
        let request = leasepb::LeaseInternalRequest {
            lease_time_to_live_request: Some(question),
        };
        let body = self
            .post_lease(at, "/leases/internal", request.encode_to_vec())
            .await?;
        let answer = leasepb::LeaseInternalResponse::decode(body).map_err(CallError::malformed)?;
        let answer = answer.lease_time_to_live_response.unwrap_or_default();
        if answer.id != id.0 {
            return Err(CallError::malformed("lease: TTL id mismatch"));
        }
        Ok(answer)
    }

    /// Has that member, which leads, promote a learner; the members after it.
    pub async fn promote(
        &self,
        at: &Endpoint,
        learner: MemberId,
        token: Option<HeaderValue>,
    ) -> Result<Vec<pb::Member>, CallError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token);
        }
        let uri = at.uri(&format!("{PROMOTE_PATH}{}", learner.0));
        let none = Bytes::new();
        let answer = call(
            &self.http,
            Method::POST,
            uri,
            headers,
            none,
            ANSWER_BYTES_MAX,
        )
        .await?;
        json::read_members(&answer.ok()?.body).map_err(CallError::malformed)
    }

    async fn get(
        &self,
        at: &Endpoint,
        path: &str,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<Answer, CallError> {
        call(
            &self.http,
            Method::GET,
            at.uri(path),
            headers,
            body,
            ANSWER_BYTES_MAX,
        )
        .await?
        .ok()
    }

    async fn post_lease(
        &self,
        at: &Endpoint,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        let answer = call(
            &self.http,
            Method::POST,
            at.uri(path),
            headers,
            body.into(),
            LEASE_ANSWER_BYTES_MAX,
        )
        .await?;
        Ok(answer.ok()?.body)
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    fn ok(self) -> Result<Self, CallError> {
        if self.status == StatusCode::OK {
            Ok(self)
        } else {
            Err(self.into_error())
        }
    }

    pub(crate) fn into_error(self) -> CallError {
        let text = String::from_utf8_lossy(&self.body).trim_end().to_owned();
        match self.status {
            StatusCode::NOT_FOUND => CallError::NotFound(text),
            StatusCode::REQUEST_TIMEOUT => CallError::Timeout(text),
            status => CallError::Refused { status, text },
        }
    }
}

/// Sends one request and reads the whole answer.
pub(crate) async fn call(
    http: &HttpClient,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    answer_bytes_max: usize,
) -> Result<Answer, CallError> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    // The dial has a limit of its own, below this one for all but the slowest clusters.
    let answer = timeout(2 * IO_TIMEOUT, http.request(request))
        .await
        .map_err(|_| CallError::timed_out())?;
    let (parts, body) = answer.map_err(CallError::unreachable)?.into_parts();
    let body = collect(body, answer_bytes_max)
        .await
        .map_err(|error| match error {
            CollectError::TooLarge => CallError::malformed("it is too large"),
            CollectError::Stalled => CallError::timed_out(),
            CollectError::Broken(text) => CallError::Unreachable(text),
        })?;
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

/// Why a body could not be read whole.
#[derive(Debug)]
pub(crate) enum CollectError {
    TooLarge,
    /// Nothing came for [`IO_TIMEOUT`].
    Stalled,
    Broken(String),
}

/// Reads a body of at most `bytes_max`, which must not stall.
pub(crate) async fn collect<B>(mut body: B, bytes_max: usize) -> Result<Bytes, CollectError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut collected = BytesMut::new();
    while let Some(frame) = timeout(IO_TIMEOUT, body.frame())
        .await
        .map_err(|_| CollectError::Stalled)?
    {
        let frame = frame.map_err(|error| CollectError::Broken(error.to_string()))?;
        if let Ok(bytes) = frame.into_data() {
            if collected.len() + bytes.len() > bytes_max {
                return Err(CollectError::TooLarge);
            }
            collected.extend_from_slice(&bytes);
        }
    }
    Ok(collected.freeze())
}
