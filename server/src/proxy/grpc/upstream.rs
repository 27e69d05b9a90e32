//! The members behind the proxy: one connection in use, another one when it fails, and calls that are handed on as
//! they are.
//!
//! The rule of the client library holds here, too: what may have changed something is never sent twice.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request as HttpRequest, Response as HttpResponse, Uri};
use hyper::body::Incoming;
use quorate_net::client::{Client, ClientError};
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::lease_client::LeaseClient;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tower::{Service as _, ServiceExt as _};

/// What members look at in a call's metadata.
const HANDED_ON: [&str; 4] = ["token", "authorization", "hasleader", "client-api-version"];

/// The members; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    client: Arc<Client>,
    /// The largest message that is sent to a member.
    send_bytes_max: usize,
    /// The largest one that is taken from a member.
    receive_bytes_max: usize,
}

/// What a caller shows of itself, for calls that are made in its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller(Vec<(&'static str, Vec<u8>)>);

impl Caller {
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let named = HANDED_ON.iter().filter_map(|name| {
            let value = metadata.get(*name)?;
            Some((*name, value.as_bytes().to_vec()))
        });
        Self(named.collect())
    }

    /// A request in this caller's name.
    pub(super) fn asks<T>(&self, message: T) -> Request<T> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.0 {
            if let Ok(value) = http::HeaderValue::from_bytes(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        request
    }
}

impl Upstream {
    pub(super) fn new(client: Client, send_bytes_max: usize, receive_bytes_max: usize) -> Self {
        Self {
            client: Arc::new(client),
            send_bytes_max,
            receive_bytes_max,
        }
    }

    pub(super) fn kv(&self, channel: Channel) -> KvClient<Channel> {
        KvClient::new(channel)
            .max_decoding_message_size(self.receive_bytes_max)
            .max_encoding_message_size(self.send_bytes_max)
    }

    pub(super) fn lease(&self, channel: Channel) -> LeaseClient<Channel> {
        LeaseClient::new(channel)
            .max_decoding_message_size(self.receive_bytes_max)
            .max_encoding_message_size(self.send_bytes_max)
    }

    /// Makes a call on the connection in use. What only reads goes on to other members while they are unavailable.
    pub(super) async fn ask<T, F>(
        &self,
        only_reads: bool,
        call: impl Fn(Channel) -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut attempts = self.client.endpoints().len();
        loop {
            let (number, channel) = self.client.channel().await.map_err(unavailable)?;
            attempts -= 1;
            match call(channel).await {
                Err(status) if status.code() == Code::Unavailable => {
                    self.client.give_up(number).await;
                    if !only_reads || attempts == 0 {
                        return Err(status);
                    }
                }
                answered => return answered,
            }
        }
    }

    /// Hands a call on without looking into it, streams included.
    pub(super) async fn forward(&self, request: HttpRequest<Incoming>) -> HttpResponse<Body> {
        match self.try_forward(request).await {
            Ok(response) => response,
            Err(status) => status.into_http(),
        }
    }

    async fn try_forward(
        &self,
        request: HttpRequest<Incoming>,
    ) -> Result<HttpResponse<Body>, Status> {
        let (number, mut channel) = self.client.channel().await.map_err(unavailable)?;
        let (head, body) = request.into_parts();
        let mut call = HttpRequest::new(Body::new(body));
        *call.method_mut() = head.method;
        *call.version_mut() = http::Version::HTTP_2;
        let path = head.uri.path().to_owned();
        *call.uri_mut() = Uri::try_from(path).map_err(|_| Status::internal("not a path"))?;
        *call.headers_mut() = head.headers;
        call.headers_mut().remove(http::header::HOST);
        let answered = match channel.ready().await {
            Ok(channel) => channel.call(call).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(response) => Ok(response),
            Err(error) => {
                self.client.give_up(number).await;
                Err(Status::unavailable(error.to_string()))
            }
        }
    }
}

/// Nobody could be reached.
fn unavailable(error: ClientError) -> Status {
    Status::new(error.code(), error.to_string())
}
