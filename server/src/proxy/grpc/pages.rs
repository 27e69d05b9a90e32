//! What the proxy answers to plain HTTP: its health and numbers, and the metrics of a member behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quorate_net::tls::ClientTls;
use quorate_proto::etcdserverpb as pb;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::{Code, Status};

use super::cache::Cache;
use super::hub::{Hub, Refusal, Topic};
use super::metrics::Metrics;
use super::upstream::{Caller, Upstream};
use crate::http::debug;

/// How long a read may take for the proxy to be healthy.
const READ_MAX: Duration = Duration::from_secs(1);
/// How long a watch may take to begin.
const WATCH_MAX: Duration = Duration::from_secs(3);
/// How long a member may take for its metrics.
const METRICS_MAX: Duration = Duration::from_secs(5);
/// What is read to see whether anything can be.
const KEY: &[u8] = b"a";

/// All pages.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) upstream: Upstream,
    pub(super) hub: Hub,
    pub(super) cache: Arc<Cache>,
    pub(super) metrics: Arc<Metrics>,
    /// `--enable-pprof`: the command line, for `/debug/pprof/`.
    pub(super) profiled: Option<Vec<String>>,
    /// For members that are spoken to by TLS.
    pub(super) tls: Option<ClientTls>,
    /// Counts the members that were asked.
    pub(super) asked: AtomicUsize,
}

impl Pages {
    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => self.metrics_of_a_member().await,
            (&Method::GET, "/proxy/metrics") => {
                text(StatusCode::OK, self.metrics.render(&self.cache))
            }
            (&Method::GET, "/health") => health(self.read().await),
            (&Method::GET, "/proxy/health") => health(self.read_and_watch().await),
            (_, "/metrics" | "/proxy/metrics" | "/health" | "/proxy/health") => {
                let words = "Method Not Allowed\n".to_owned();
                text(StatusCode::METHOD_NOT_ALLOWED, words)
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }

    /// What the proxy spends its time on, if that is shown.
    pub(super) async fn profile<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let arguments = self.profiled.as_ref()?;
        if !debug::owns(request.uri().path()) {
            return None;
        }
        let answer = debug::answer(request, arguments).await;
        Some(answer.map(Body::new))
    }

    /// Whether a member answers a linearizable read. Who may not read has been answered, too.
    async fn read(&self) -> Result<(), String> {
        let range = pb::RangeRequest {
            key: KEY.into(),
            ..pb::RangeRequest::default()
        };
        let read = self.upstream.ask(true, |channel| {
            let (mut kv, range) = (self.upstream.kv(channel), range.clone());
            async move { kv.range(range).await }
        });
        let read = tokio::time::timeout(READ_MAX, read).await;
        match read.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded"))) {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::PermissionDenied => Ok(()),
            Err(status) => Err(format!("GET ERROR:{}", status.message())),
        }
    }

    async fn read_and_watch(&self) -> Result<(), String> {
        self.read().await?;
        let topic = Topic {
            caller: Caller::default(),
            key: KEY.into(),
            range_end: Bytes::new(),
        };
        let watched = tokio::time::timeout(WATCH_MAX, self.hub.subscribe(&topic, 0)).await;
        match watched {
            // A refusal is an answer.
            Ok(Ok(_) | Err(Refusal::Answer(_))) => Ok(()),
            Ok(Err(Refusal::Failed(_))) | Err(_) => Err("WATCH TIMEOUT".to_owned()),
        }
    }

    /// One member after the other is asked for its metrics.
    async fn metrics_of_a_member(&self) -> Response<Body> {
        let endpoints = self.upstream.endpoints();
        let number = self.asked.fetch_add(1, Ordering::Relaxed) % endpoints.len();
        let endpoint = endpoints[number].to_string();
        let fetched = tokio::time::timeout(METRICS_MAX, self.fetch(&endpoint)).await;
        let words = match fetched {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("{words}\n"))
    }

    async fn fetch(
        &self,
        endpoint: &str,
    ) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let address = rest.trim_end_matches('/');
        let stream = TcpStream::connect(address).await?;
        match &self.tls {
            Some(tls) if scheme != "http" => {
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
                get(tls.connect(host, stream).await?, address).await
            }
            _ => get(stream, address).await,
        }
    }
}

async fn get<S>(
    stream: S,
    host: &str,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .uri(Uri::from_static("/metrics"))
        .header(header::HOST, host)
        .body(Full::<Bytes>::default())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut answer = Response::new(Body::new(Full::from(body)));
    *answer.status_mut() = head.status;
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok(answer)
}

fn health(checked: Result<(), String>) -> Response<Body> {
    let (code, health, reason) = match checked {
        Ok(()) => (StatusCode::OK, "true", String::new()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, "false", reason),
    };
    let reason = serde_json::Value::from(reason);
    text(
        code,
        format!("{{\"health\":\"{health}\",\"reason\":{reason}}}"),
    )
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::new(Full::from(text)));
    *answer.status_mut() = code;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
