//! Answers in the forms that Go's HTTP server and etcd's handlers write.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{Either, Full};

use super::PeerBody;
use crate::peer::client::JSON;

/// The refusal of every method but one.
pub(super) fn only(method: &Method, parts: &Parts) -> Option<Response<PeerBody>> {
    if parts.method == method {
        return None;
    }
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    refusal.headers_mut().insert(
        ALLOW,
        HeaderValue::from_str(method.as_str()).expect("a method is a token"),
    );
    Some(refusal)
}

/// An error as Go's `http.Error` writes it.
pub(super) fn text(status: StatusCode, message: &str) -> Response<PeerBody> {
    let mut response = whole(
        status,
        "text/plain; charset=utf-8",
        format!("{message}\n").into_bytes(),
    );
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A refusal as etcd's HTTP errors are written: the message in JSON.
pub(super) fn forbidden(message: &str) -> Response<PeerBody> {
    whole(
        StatusCode::FORBIDDEN,
        JSON,
        serde_json::json!({ "message": message })
            .to_string()
            .into_bytes(),
    )
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<PeerBody> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// An answer with this body.
pub(super) fn whole(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<PeerBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
