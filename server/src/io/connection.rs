//! One client connection: told apart by its first bytes, then served by hyper.
//!
//! ```text
//!   24 bytes of the HTTP/2 preface ──► HTTP/2: gRPC to the services, anything else to the HTTP handler
//!   anything else                  ──► HTTP/1: the HTTP handler
//! ```
//!
//! Nothing that a client sends ends more than its own connection.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use quorate_net::rt::{Remote, Stream, Timer};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tonic::body::Body;
use tracing::debug;

use super::socket::Coalesced;
use super::streams::{Spawner, WithStreams};
use super::{Opening, Traffic, Visitor, core};
use crate::gauges::Seen;
#[cfg(not(madsim))]
use crate::http::gateway::websocket::Seat;
use crate::http::{Surface, refuse_name};
use crate::services::{Answering, CertificateName, Services};

/// What every HTTP/2 client sends first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client must say something within this time, as in etcd 3.7.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// JSON may be longer than the message that it stands for: base64, names, blanks.
const JSON_OVERHEAD: usize = 4;

/// A page that is being made.
type Page = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// As good as forever, and still a time that can be added to now.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves a client until it leaves or `closing` becomes true.
pub(super) async fn serve(
    stream: Stream,
    remote: Remote,
    kind: Traffic,
    opening: Opening,
    services: Arc<Services>,
    closing: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(remote = %remote, error = %error, "client connection is gone");
        return;
    }
    let Opening {
        read_ahead,
        session,
        visitor,
    } = opening;
    let mut io = Coalesced::new(stream, session);
    let sniffed = tokio::time::timeout(HEADER_TIMEOUT, sniff(&mut io, &read_ahead)).await;
    let (read_ahead, is_http2) = match sniffed {
        Ok(Ok(sniffed)) => sniffed,
        Ok(Err(error)) => {
            debug!(remote = %remote, error = %error, "client said nothing");
            return;
        }
        Err(_) => return,
    };
    let io = TokioIo::new(io.reread(read_ahead, is_http2));
    let result = if is_http2 {
        serve_http2(io, kind, visitor, services, closing).await
    } else {
        serve_http1(io, kind, visitor, services, closing).await
    };
    if let Err(error) = result {
        debug!(remote = %remote, error = %error, "client connection ended");
    }
}

/// Reads on from `read_ahead` until it is clear which protocol the client speaks.
async fn sniff(
    stream: &mut (impl AsyncRead + Unpin),
    read_ahead: &[u8],
) -> std::io::Result<(Bytes, bool)> {
    let mut first = BytesMut::with_capacity(16 * 1024);
    first.extend_from_slice(read_ahead);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let compared = first.len().min(HTTP2_PREFACE.len());
        if first[..compared] != HTTP2_PREFACE[..compared] {
            return Ok((first.freeze(), false));
        }
        if compared == HTTP2_PREFACE.len() {
            return Ok((first.freeze(), true));
        }
    }
}

async fn serve_http2(
    io: TokioIo<Coalesced>,
    kind: Traffic,
    visitor: Visitor,
    services: Arc<Services>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let state = core::state();
    let limits = &state.limits;
    let spawner = Spawner::default();
    let connection = http2::Builder::new(spawner.clone())
        .timer(Timer::new())
        .max_concurrent_streams(limits.streams_max())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout.unwrap_or(FOREVER))
        .serve_connection(
            io,
            service_fn(move |request| answer_http2(kind, &visitor, &services, request)),
        );
    let mut connection = WithStreams::new(connection, spawner);
    match select(&mut connection, pin!(closing.wait_for(|closing| *closing))).await {
        Either::Left((result, _)) => return result,
        Either::Right(_) => {}
    }
    connection.connection().graceful_shutdown();
    connection.await
}

/// gRPC goes to the services, anything else to the pages.
fn answer_http2(
    kind: Traffic,
    visitor: &Visitor,
    services: &Arc<Services>,
    mut request: http::Request<Incoming>,
) -> Either<Answering, Page> {
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
    match kind {
        Traffic::GrpcAndHttp | Traffic::Grpc if is_grpc => {
            if let Some(user) = &visitor.user {
                let name = CertificateName(Arc::clone(user));
                request.extensions_mut().insert(name);
            }
            Either::Left(services.call(request))
        }
        _ => {
            let (visitor, services) = (visitor.clone(), Arc::clone(services));
            Either::Right(Box::pin(async move {
                Ok(answer_http(kind, &visitor, &services, request).await)
            }))
        }
    }
}

async fn serve_http1(
    io: TokioIo<Coalesced>,
    kind: Traffic,
    visitor: Visitor,
    services: Arc<Services>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let (visitor, services) = (&visitor, &services);
    #[cfg(not(madsim))]
    let seat = Seat::default();
    let connection =
        http1::Builder::new()
            .timer(Timer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(
                io,
                service_fn(|request| {
                    #[cfg(not(madsim))]
                    let request = with_seat(request, &seat);
                    async move {
                        Ok::<_, Infallible>(answer_http(kind, visitor, services, request).await)
                    }
                }),
            );
    #[cfg(not(madsim))]
    let connection = connection.with_upgrades();
    let mut connection = pin!(connection);
    let served = {
        let closing = pin!(closing.wait_for(|closing| *closing));
        match select(connection.as_mut(), closing).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    };
    let Some(result) = served else {
        connection.as_mut().graceful_shutdown();
        return connection.await;
    };
    #[cfg(not(madsim))]
    if let Some(talk) = seat.take() {
        let closing = pin!(closing.wait_for(|closing| *closing));
        select(pin!(talk.hold()), closing).await;
    }
    result
}

/// A request on a connection that may become a websocket.
#[cfg(not(madsim))]
fn with_seat(mut request: http::Request<Incoming>, seat: &Seat) -> http::Request<Incoming> {
    request.extensions_mut().insert(seat.clone());
    request
}

async fn answer_http(
    kind: Traffic,
    visitor: &Visitor,
    services: &Arc<Services>,
    request: http::Request<Incoming>,
) -> http::Response<Body> {
    let surface = match kind {
        Traffic::GrpcAndHttp | Traffic::Http if visitor.is_secure => Surface::SecureClient,
        Traffic::GrpcAndHttp | Traffic::Http => Surface::Client,
        Traffic::Metrics => Surface::Metrics,
        Traffic::Grpc => return not_found(),
    };
    let state = core::state();
    if surface != Surface::Metrics && state.pages.takes_call(request.uri().path()) {
        if visitor.user.is_some() && state.guard.rules.is_enabled() {
            return refuse_name().map(Body::new);
        }
        let json_bytes_max = JSON_OVERHEAD * state.limits.receive_bytes_max();
        return state
            .pages
            .answer_call(surface, request, services, json_bytes_max)
            .await;
    }
    // The pages look at no body.
    let request = request.map(drop);
    let answer = state
        .pages
        .answer(surface, &request, &Seen(Arc::clone(&state)))
        .await;
    answer.map(Body::new)
}

fn not_found() -> http::Response<Body> {
    let text = Bytes::from_static(b"404 page not found\n");
    let mut response = http::Response::new(Body::new(http_body_util::Full::new(text)));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}
