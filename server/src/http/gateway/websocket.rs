//! Websockets on the paths of the gateway: each message is a line of JSON, and each line of the answer is a message.
//!
//! Owns the handshake, where the token comes from, and the translation between messages and bodies, all as etcd's
//! gateway has them. The call itself goes through the gateway like one whose body is sent and read bit by bit.
//!
//! ```text
//!   GET /v3/watch, Upgrade: websocket ─► 101 ─► Talk, held by the connection until one side ends it
//!   message ─► line of the body ─► Gateway ─► line of the answer ─► message
//! ```

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::future::select;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tonic::body::Body;
use tracing::debug;

use super::Gateway;
use crate::services::Services;

/// The version of the protocol that everybody speaks.
const VERSION: &str = "13";
/// What a client that cannot set headers names as its protocol, before a comma and its token.
const BEARER: &str = "Bearer";
/// The cookie that may carry a token.
const COOKIE: &str = "token=";
/// Messages that wait for the service to take them; then the client waits.
const MESSAGES_WAITING_MAX: usize = 1;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Where a request leaves the conversation that it begins: only connections that can be turned into one have a seat.
#[derive(Clone, Default)]
pub(crate) struct Seat(Arc<Mutex<Option<Talk>>>);

/// A conversation that begins once the client has been told that it may.
pub(crate) struct Talk {
    upgrade: OnUpgrade,
    gateway: Gateway,
    services: Arc<Services>,
    /// Without its body.
    call: Request<()>,
    bytes_max: usize,
}

impl Seat {
    /// The conversation, if one was begun.
    pub(crate) fn take(&self) -> Option<Talk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a request is for a websocket.
pub(in crate::http) fn is_asked<B>(request: &Request<B>) -> bool {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        words.any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    request.extensions().get::<Seat>().is_some()
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
}

/// Shakes hands, and leaves the conversation in the request's seat.
pub(in crate::http) fn accept(
    gateway: &Gateway,
    services: &Arc<Services>,
    request: Request<Incoming>,
    bytes_max: usize,
) -> Response<Body> {
    let asked = request.headers();
    let version = asked.get(header::SEC_WEBSOCKET_VERSION);
    let key = asked.get(header::SEC_WEBSOCKET_KEY).cloned();
    if request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let Some(key) = key.filter(|_| version.is_some_and(|version| version == VERSION)) else {
        return refuse(StatusCode::BAD_REQUEST, "Bad Request\n");
    };
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted.expect("it is ASCII"));
    let protocol = asked.get(header::SEC_WEBSOCKET_PROTOCOL);
    if protocol.is_some_and(|protocol| protocol.as_bytes().starts_with(BEARER.as_bytes())) {
        let name = HeaderValue::from_static(BEARER);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    let mut call = Request::new(());
    *call.method_mut() = Method::POST;
    *call.uri_mut() = request.uri().clone();
    if let Some(authorization) = authorization(asked) {
        call.headers_mut()
            .insert(header::AUTHORIZATION, authorization);
    }
    let seat = request.extensions().get::<Seat>().cloned();
    let talk = Talk {
        upgrade: hyper::upgrade::on(request),
        gateway: gateway.clone(),
        services: Arc::clone(services),
        call,
        bytes_max,
    };
    let seat = seat.expect("there was one when it was asked for");
    *seat.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(talk);
    answer
}

/// The token of a client that could set no header of its own choice: etcd takes nothing else from the request.
fn authorization(asked: &HeaderMap) -> Option<HeaderValue> {
    let text = |name: HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
    let mut cookies = text(header::COOKIE).unwrap_or("").split(';');
    if let Some(token) = cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE)) {
        return HeaderValue::try_from(format!("{BEARER} {token}")).ok();
    }
    let protocol = text(header::SEC_WEBSOCKET_PROTOCOL)?;
    let token = protocol
        .split_once("Bearer,")
        .map(|(_, token)| token.trim());
    // Another protocol's name is a token that nobody has.
    let value = token.map_or(String::new(), |token| format!("{BEARER} {token}"));
    HeaderValue::try_from(value).ok()
}

fn refuse(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::new(Full::from(text)));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    let version = HeaderValue::from_static(VERSION);
    headers.insert(header::SEC_WEBSOCKET_VERSION, version);
    let sniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, sniff);
    answer
}

impl Talk {
    /// Carries messages both ways until the client leaves or the call is over.
    pub(crate) async fn hold(self) {
        let upgraded = match self.upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                debug!(error = %error, "websocket did not begin");
                return;
            }
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.bytes_max))
            .max_frame_size(Some(self.bytes_max));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let (mut speaker, listener) = socket.split();
        let (lines, body) = mpsc::channel(MESSAGES_WAITING_MAX);
        let goes_on = self.gateway.streams_requests(self.call.uri().path());
        let body = ReceiverStream::new(body).map(|line| Ok::<_, Infallible>(Frame::data(line)));
        let call = self.call.map(|()| Body::new(StreamBody::new(body)));
        let speaking = async {
            let answer = self.gateway.answer(&self.services, call, self.bytes_max);
            speak(&mut speaker, answer.await.into_body()).await;
        };
        select(pin!(listen(listener, lines, goes_on)), pin!(speaking)).await;
    }
}

/// Gives the client's messages to the call. One that takes a single request gets no more than that.
async fn listen(mut listener: SplitStream<Socket>, lines: mpsc::Sender<Bytes>, goes_on: bool) {
    let mut lines = Some(lines);
    while let Some(Ok(message)) = listener.next().await {
        let payload = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // Pings are answered, and so is the end.
            _ => continue,
        };
        let Some(open) = &lines else { continue };
        let mut line = BytesMut::from(payload);
        line.extend_from_slice(b"\n");
        if open.send(line.freeze()).await.is_err() || !goes_on {
            lines = None;
        }
    }
}

/// Sends each line of the answer as a message, and says goodbye after the last one.
async fn speak(speaker: &mut SplitSink<Socket, Message>, mut body: Body) {
    let mut waiting = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(piece) = frame.into_data() else { break };
        waiting.extend_from_slice(&piece);
        while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
            let mut line = waiting.split_to(end + 1);
            line.truncate(end);
            if say(speaker, line).await.is_err() {
                return;
            }
        }
    }
    if waiting.is_empty() || say(speaker, waiting).await.is_ok() {
        let _ = speaker.close().await;
    }
}

async fn say(speaker: &mut SplitSink<Socket, Message>, line: BytesMut) -> Result<(), ()> {
    let text = Utf8Bytes::try_from(line.freeze()).map_err(drop)?;
    speaker.send(Message::Text(text)).await.map_err(drop)
}
