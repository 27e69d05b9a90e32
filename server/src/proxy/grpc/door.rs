//! Where clients come in: the listeners, TLS, and which call goes where.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use quorate_net::grpc::etcdserverpb::kv_server::KvServer;
use quorate_net::grpc::etcdserverpb::lease_server::LeaseServer;
use quorate_net::grpc::etcdserverpb::watch_server::WatchServer;
use quorate_net::tls::ServerTls;
use quorate_proto::etcdserverpb as pb;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use tracing::{debug, warn};

use super::cluster::Members;
use super::kv::KvProxy;
use super::lease::LeaseProxy;
use super::order::Order;
use super::pages::Pages;
use super::upstream::Upstream;
use super::watch::WatchProxy;

/// After an accept that failed, most likely since there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A gRPC frame's flag and length.
const FRAME_HEADER_BYTES: usize = 5;

/// Everything that is served.
#[derive(Debug)]
pub(super) struct House {
    pub(super) kv: KvServer<KvProxy>,
    pub(super) watch: WatchServer<WatchProxy>,
    pub(super) lease: LeaseServer<LeaseProxy>,
    pub(super) members: Members,
    pub(super) upstream: Upstream,
    pub(super) order: Option<Arc<Order>>,
    pub(super) pages: Pages,
    pub(super) streams_max: u32,
    pub(super) keepalive_interval: Option<Duration>,
    pub(super) keepalive_timeout: Duration,
}

/// Serves all who come, for ever.
pub(super) async fn serve(
    house: Arc<House>,
    listener: TcpListener,
    tls: Option<ServerTls>,
    with_grpc: bool,
) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let (house, tls) = (Arc::clone(&house), tls.clone());
                tokio::spawn(welcome(house, stream, remote, tls, with_grpc));
            }
            Err(error) => {
                warn!(%error, "cannot accept a client connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn welcome(
    house: Arc<House>,
    stream: TcpStream,
    remote: SocketAddr,
    tls: Option<ServerTls>,
    with_grpc: bool,
) {
    let _ = stream.set_nodelay(true);
    let served = match tls {
        None => serve_connection(house, stream, with_grpc).await,
        Some(tls) => match tls.accept(stream, Some(remote.ip())).await {
            Ok(accepted) => serve_connection(house, accepted.stream, with_grpc).await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = served {
        debug!(%remote, error, "client connection ended");
    }
}

async fn serve_connection<S>(
    house: Arc<House>,
    stream: S,
    with_grpc: bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(house.streams_max)
        .keep_alive_interval(house.keepalive_interval)
        .keep_alive_timeout(house.keepalive_timeout);
    let service = service_fn(move |request| {
        let house = Arc::clone(&house);
        async move { Ok::<_, Infallible>(house.answer(request, with_grpc).await) }
    });
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl House {
    async fn answer(&self, request: Request<Incoming>, with_grpc: bool) -> Response<Body> {
        let content = request.headers().get(http::header::CONTENT_TYPE);
        let is_grpc =
            content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
        if !is_grpc || !with_grpc {
            if with_grpc && let Some(profile) = self.pages.profile(&request).await {
                return profile;
            }
            return self.pages.answer(&request).await;
        }
        let path = request.uri().path();
        let service = path.get(1..).and_then(|path| path.split_once('/'));
        let answered = match service {
            Some(("etcdserverpb.KV", _)) => self.kv.clone().call(request).await,
            Some(("etcdserverpb.Watch", _)) => self.watch.clone().call(request).await,
            Some(("etcdserverpb.Lease", _)) => self.lease.clone().call(request).await,
            Some(("etcdserverpb.Cluster", "MemberList")) => match self.members.list().await {
                Some(Ok(list)) => return unary(&list.into_inner()),
                Some(Err(status)) => return status.into_http(),
                None => return self.upstream.forward(request).await,
            },
            Some((
                "etcdserverpb.Cluster"
                | "etcdserverpb.Maintenance"
                | "etcdserverpb.Auth"
                | "v3lockpb.Lock"
                | "v3electionpb.Election",
                _,
            )) => return self.upstream.forward(request).await,
            unknown => {
                let name = unknown.map_or("", |(service, _)| service);
                return Status::unimplemented(format!("unknown service {name}")).into_http();
            }
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// An answer that did not come from a service.
fn unary(message: &pb::MemberListResponse) -> Response<Body> {
    use bytes::{BufMut as _, BytesMut};
    use http_body::Frame;
    use prost::Message as _;
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("a list of members is small"));
    message.encode_raw(&mut frame);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [
        Ok::<_, Infallible>(Frame::data(frame.freeze())),
        Ok(Frame::trailers(trailers)),
    ];
    let body = http_body_util::StreamBody::new(tokio_stream::iter(frames));
    let mut response = Response::new(Body::new(body));
    let kind = http::HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

/// A listener on an address.
pub(super) async fn listen(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
