//! The plain HTTP pages of a member: health, version, metrics.
//!
//! Owns which path answers what, who may ask, and the exact texts, codes and headers, which are etcd's. Never opens a
//! socket and never speaks to the node: connections are served elsewhere, and what the member knows or can do comes in
//! as a [`Member`].
//!
//! ```text
//! request ─► may this host ask? ─► CORS ─► OPTIONS? ─► page by path ─► response
//!            (421)                          (200)       (404, 405)
//! ```
//!
//! The metrics surface skips all but the last step, as in etcd.

#[cfg(not(madsim))]
pub(crate) mod debug;
pub mod gateway;
mod health;
mod query;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::body::Body;
use tracing::warn;

use crate::config::{Config, ETCD_VERSION};
use crate::metrics::{CONTENT_TYPE, Gauges, Metrics};
use crate::services::Services;

use self::gateway::Gateway;

/// What the pages ask of the member that they speak for.
pub trait Member {
    /// What the member knows now.
    fn gauges(&self) -> Gauges;

    /// Waits until a read would see everything committed before this call; fails with the text that a client sees.
    fn linearizable_read(&self) -> impl Future<Output = Result<(), String>>;
}

/// Through which listener a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `--listen-client-urls` or `--listen-client-http-urls`.
    Client,
    /// The same by TLS, where any host may be named.
    SecureClient,
    /// `--listen-metrics-urls`.
    Metrics,
}

/// The pages of one member; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Origins or `*`; empty is `*`.
    cors: Vec<String>,
    /// Host names or `*`; empty is `*`.
    host_whitelist: Vec<String>,
    /// JSON calls, if they are offered.
    gateway: Option<Gateway>,
    metrics: Arc<Metrics>,
    /// How the process was called, for `/debug/vars`.
    arguments: Vec<String>,
    /// Whether `/debug/pprof/` is there.
    #[cfg(not(madsim))]
    profiles: bool,
}

/// What goes back.
pub(crate) type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const ALL: &str = "*";

impl Pages {
    /// The pages of the member with this configuration and these numbers.
    pub fn new(config: &Config, metrics: Arc<Metrics>, arguments: Vec<String>) -> Self {
        let (cors, host_whitelist) = (config.cors.clone(), config.host_whitelist.clone());
        Self {
            shared: Arc::new(Shared {
                cors,
                host_whitelist,
                gateway: config.gateway.then(Gateway::new),
                metrics,
                arguments,
                #[cfg(not(madsim))]
                profiles: config.profiles,
            }),
        }
    }

    /// Answers one request; its body is not looked at.
    pub async fn answer<B>(
        &self,
        surface: Surface,
        request: &Request<B>,
        member: &impl Member,
    ) -> Answer {
        if surface == Surface::Metrics {
            return self.page(surface, request, member).await;
        }
        if let Some(refused) = self.refuse_host(surface, request) {
            return refused;
        }
        let mut answer = match request.method() {
            &Method::OPTIONS => Response::new(Full::default()),
            _ => self.page(surface, request, member).await,
        };
        self.add_cors(request.headers(), answer.headers_mut());
        answer
    }

    /// Answers a request for [`Pages::takes_call`].
    pub(crate) async fn answer_call(
        &self,
        surface: Surface,
        request: Request<Incoming>,
        services: &Arc<Services>,
        body_bytes_max: usize,
    ) -> Response<Body> {
        if let Some(refused) = self.refuse_host(surface, &request) {
            return refused.map(Body::new);
        }
        let asked = request.headers().clone();
        let mut answer = match &self.shared.gateway {
            _ if request.method() == Method::OPTIONS => Response::new(Body::default()),
            #[cfg(not(madsim))]
            Some(gateway) if gateway::websocket::is_asked(&request) => {
                return self.begin_talk(gateway, request, services, body_bytes_max);
            }
            Some(gateway) => {
                let request = request.map(Body::new);
                gateway.answer(services, request, body_bytes_max).await
            }
            None => error(StatusCode::NOT_FOUND, "404 page not found").map(Body::new),
        };
        self.add_cors(&asked, answer.headers_mut());
        answer
    }

    /// Whoever begins a conversation is told nothing about origins; whoever cannot is.
    #[cfg(not(madsim))]
    fn begin_talk(
        &self,
        gateway: &Gateway,
        request: Request<Incoming>,
        services: &Arc<Services>,
        body_bytes_max: usize,
    ) -> Response<Body> {
        let asked = request.headers().clone();
        let mut answer = gateway::websocket::accept(gateway, services, request, body_bytes_max);
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.add_cors(&asked, answer.headers_mut());
        }
        answer
    }

    /// Whether a path is one of the JSON gateway.
    pub(crate) fn takes_call(&self, path: &str) -> bool {
        self.shared.gateway.is_some() && Gateway::owns(path)
    }

    /// The answer to a request for a host that the whitelist does not have.
    fn refuse_host<B>(&self, surface: Surface, request: &Request<B>) -> Option<Answer> {
        let host = host_name(request);
        if surface == Surface::SecureClient || allows(&self.shared.host_whitelist, host) {
            return None;
        }
        warn!(
            host,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        Some(error(StatusCode::MISDIRECTED_REQUEST, &misdirected(host)))
    }

    async fn page<B>(
        &self,
        surface: Surface,
        request: &Request<B>,
        member: &impl Member,
    ) -> Answer {
        let path = request.uri().path();
        let on_client = surface != Surface::Metrics;
        if path == "/metrics" {
            return self.metrics(member);
        }
        #[cfg(not(madsim))]
        if on_client && self.shared.profiles && debug::owns(path) {
            return debug::answer(request, &self.shared.arguments).await;
        }
        let checks = health::checks_at(path);
        let is_health = checks.is_some() || path == "/health";
        let is_there = is_health || (on_client && matches!(path, "/version" | "/debug/vars"));
        if !is_there {
            return error(StatusCode::NOT_FOUND, "404 page not found");
        }
        if let Some(refused) = refusal(request) {
            if is_health {
                health::log_refused(path);
            }
            return refused;
        }
        match (checks, path) {
            (Some(checks), _) => {
                health::check(&self.shared.metrics, checks, request.uri(), member).await
            }
            (None, "/health") => health::health(&self.shared.metrics, request.uri(), member).await,
            (None, "/version") => version(member),
            (None, _) => self.variables(),
        }
    }

    fn metrics(&self, member: &impl Member) -> Answer {
        let mut answer = Response::new(Full::from(self.shared.metrics.render(&member.gauges())));
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        answer
    }

    fn variables(&self) -> Answer {
        let arguments = serde_json::Value::from(self.shared.arguments.clone());
        let mut lines = vec![format!("\"cmdline\": {arguments}")];
        if let Some(limit) = crate::metrics::file_descriptor_limit() {
            lines.push(format!("\"file_descriptor_limit\": {limit}"));
        }
        let mut answer = Response::new(Full::from(format!("{{\n{}\n}}\n", lines.join(",\n"))));
        let kind = HeaderValue::from_static("application/json; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        answer
    }

    fn add_cors(&self, asked: &HeaderMap, answered: &mut HeaderMap) {
        let origin = if allows(&self.shared.cors, ALL) {
            HeaderValue::from_static(ALL)
        } else {
            match asked
                .get(header::ORIGIN)
                .filter(|origin| allows_value(&self.shared.cors, origin))
            {
                Some(origin) => origin.clone(),
                None => return,
            }
        };
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        answered.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        answered.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let headers = HeaderValue::from_static("accept, content-type, authorization");
        answered.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    }
}

/// The answer to a JSON call of a client whose certificate names a user: the gateway would not pass the name on.
pub(crate) fn refuse_name() -> Response<Full<Bytes>> {
    error(
        StatusCode::BAD_REQUEST,
        "CommonName of client sending a request against gateway will be ignored and not used as expected",
    )
}

fn version(member: &impl Member) -> Answer {
    // The format of the store follows the cluster version once that is decided.
    let decided = member.gauges().cluster_version;
    let cluster = decided.as_deref().unwrap_or("not_decided");
    let storage = decided.as_deref().unwrap_or("unknown");
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}"
    );
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    answer
}

/// The host that a request names, without its port.
fn host_name<B>(request: &Request<B>) -> &str {
    let named = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = named
        .or_else(|| request.uri().authority().map(http::uri::Authority::as_str))
        .unwrap_or("");
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match authority.split_once(':') {
        // More than one colon without brackets: an address without a port.
        Some((_, port)) if port.contains(':') => authority,
        Some((host, _)) => host,
        None => authority,
    }
}

/// Whether a list that means all when it is empty or holds `*` has `wanted`.
fn allows(list: &[String], wanted: &str) -> bool {
    list.is_empty()
        || list
            .iter()
            .any(|allowed| allowed == ALL || allowed == wanted)
}

fn allows_value(list: &[String], wanted: &HeaderValue) -> bool {
    wanted.to_str().is_ok_and(|wanted| allows(list, wanted))
}

/// All pages but the metrics are read only: what anything else than a GET is answered with.
fn refusal<B>(request: &Request<B>) -> Option<Answer> {
    if request.method() == Method::GET {
        return None;
    }
    let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    refused
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET"));
    Some(refused)
}

/// A plain text with a newline, as Go's library writes errors.
fn error(code: StatusCode, text: &str) -> Answer {
    let mut answer = plain(format!("{text}\n"));
    *answer.status_mut() = code;
    answer.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    answer
}

fn plain(text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    answer
}

fn misdirected(host: &str) -> String {
    format!(
        "
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host:?}

This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).
"
    )
}

#[cfg(test)]
mod tests;
