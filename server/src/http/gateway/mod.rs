//! The JSON gateway: etcd's gRPC calls as HTTP requests with JSON bodies below `/v3/`.
//!
//! Owns the table of paths, the translation between JSON and gRPC and the shape of errors, which are those of etcd's
//! gateway (grpc-gateway v2). Never answers a call itself: each one goes through the gRPC services like any other.
//! Messages are translated by their descriptors, so that no message is named here.
//!
//! ```text
//! POST /v3/kv/range {"key":"Zm9v"} ─► Transcoder ─► gRPC frames ─► Services
//!           {"kvs":[...]}  ◄───────── one object, or a line {"result":...} for each message of a stream
//! ```

mod requests;
mod responses;
mod routes;
#[cfg(not(madsim))]
pub(crate) mod websocket;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic::body::Body;
use tonic::{Code, Status};

use self::requests::Requests;
use self::responses::Lines;
use self::routes::ROUTES;
use crate::services::Services;

/// Headers with this prefix become metadata without it.
const METADATA_PREFIX: &str = "grpc-metadata-";
/// Says that a call came through the gateway: its certificate does not name a user.
const ACCEPT: HeaderName = HeaderName::from_static("grpcgateway-accept");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// A flag and the length of the message.
const FRAME_HEADER_BYTES: usize = 5;

/// The paths below `/v3/` and how each is translated; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    calls: Arc<Vec<(&'static str, Transcoder)>>,
}

/// How the messages of one call are translated.
#[derive(Clone, Debug)]
struct Transcoder {
    /// The path of the gRPC call.
    method: Uri,
    request: MessageDescriptor,
    response: MessageDescriptor,
    /// Whether a client may send several requests.
    streams_requests: bool,
    /// Whether the server may send several responses.
    streams_responses: bool,
}

impl Gateway {
    /// The gateway to all services.
    pub fn new() -> Self {
        let pool = DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET)
            .expect("the embedded descriptors fit together");
        let calls = ROUTES
            .iter()
            .map(|&(path, service, method)| (path, Transcoder::new(&pool, service, method)));
        Self {
            calls: Arc::new(calls.collect()),
        }
    }

    /// Whether a path belongs to the gateway, known to it or not.
    pub fn owns(path: &str) -> bool {
        path.starts_with("/v3/") || path.starts_with("/v3beta/")
    }

    /// Answers a request whose path the gateway owns.
    pub(crate) async fn answer(
        &self,
        services: &Arc<Services>,
        request: Request<Body>,
        body_bytes_max: usize,
    ) -> Response<Body> {
        let Some(transcoder) = self.find(request.uri().path()) else {
            return failure(&Status::not_found("Not Found"), false);
        };
        if request.method() != Method::POST {
            return failure(&Status::unimplemented("Method Not Allowed"), false);
        }
        let (head, body) = request.into_parts();
        let requests = if transcoder.streams_requests {
            Requests::streaming(transcoder.request.clone(), body, body_bytes_max)
        } else {
            match Requests::read(transcoder.request.clone(), body, body_bytes_max).await {
                Ok(requests) => requests,
                Err(refused) => return failure(&refused, transcoder.streams_responses),
            }
        };
        let mut call = Request::new(Body::new(requests));
        *call.method_mut() = Method::POST;
        *call.uri_mut() = transcoder.method.clone();
        *call.headers_mut() = metadata(&head.headers);
        let answered = match services.call(call).await {
            Ok(answered) => answered,
            Err(never) => match never {},
        };
        translate(transcoder, answered).await
    }

    /// Whether a path takes more than one request.
    #[cfg(not(madsim))]
    fn streams_requests(&self, path: &str) -> bool {
        self.find(path)
            .is_some_and(|transcoder| transcoder.streams_requests)
    }

    fn find(&self, path: &str) -> Option<&Transcoder> {
        let (_, path) = path.get(1..)?.split_once('/')?;
        let found = self.calls.iter().find(|(known, _)| *known == path)?;
        Some(&found.1)
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self::new()
    }
}

impl Transcoder {
    fn new(pool: &DescriptorPool, service: &str, method: &str) -> Self {
        let descriptor = pool
            .get_service_by_name(service)
            .and_then(|service| service.methods().find(|known| known.name() == method))
            .expect("each route names a method that there is");
        Self {
            method: Uri::try_from(format!("/{service}/{method}")).expect("a path"),
            request: descriptor.input(),
            response: descriptor.output(),
            streams_requests: descriptor.is_client_streaming(),
            streams_responses: descriptor.is_server_streaming(),
        }
    }
}

/// The metadata of the gRPC call.
fn metadata(asked: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in asked {
        if let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX)
            && let Ok(name) = HeaderName::try_from(name)
        {
            metadata.append(name, value.clone());
        }
    }
    if let Some(authorization) = asked.get(header::AUTHORIZATION) {
        metadata.insert(header::AUTHORIZATION, authorization.clone());
    }
    let accept = asked.get(header::ACCEPT).cloned();
    metadata.insert(ACCEPT, accept.unwrap_or(HeaderValue::from_static("*/*")));
    metadata.insert(header::CONTENT_TYPE, GRPC);
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

/// The HTTP answer for the answer of a service.
async fn translate(transcoder: &Transcoder, answered: Response<Body>) -> Response<Body> {
    if let Some(refused) = Status::from_header_map(answered.headers())
        && refused.code() != Code::Ok
    {
        return failure(&refused, transcoder.streams_responses);
    }
    let lines = Lines::new(transcoder.response.clone(), answered.into_body());
    let body = if transcoder.streams_responses {
        Body::new(lines)
    } else {
        match lines.only().await {
            Ok(text) => Body::new(Full::from(text)),
            Err(refused) => return failure(&refused, false),
        }
    };
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(HeaderName::from_static("grpc-metadata-content-type"), GRPC);
    answer
}

/// The answer to a call that failed before its first message.
fn failure(refused: &Status, is_stream: bool) -> Response<Body> {
    let text = if is_stream {
        error_line(refused)
    } else {
        error_object(refused).to_string().into()
    };
    let mut answer = Response::new(Body::new(Full::from(text)));
    *answer.status_mut() = http_code(refused.code());
    answer.headers_mut().insert(header::CONTENT_TYPE, JSON);
    answer
}

/// `google.rpc.Status` without details; zero values are left out, as everywhere.
fn error_object(refused: &Status) -> serde_json::Value {
    serde_json::json!({"code": refused.code() as i32, "message": refused.message()})
}

/// An error as the last line of a stream.
fn error_line(refused: &Status) -> Bytes {
    format!("{}\n", serde_json::json!({"error": error_object(refused)})).into()
}

fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).expect("three digits"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
