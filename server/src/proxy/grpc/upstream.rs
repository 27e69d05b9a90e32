//! The members behind the proxy: one connection in use, another one when it fails, and calls that are handed on as
//! they are.
//!
//! The rule of the client library holds here, too: what may have changed something is never sent twice.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request as HttpRequest, Response as HttpResponse, Uri};
use hyper::body::Incoming;
use quorate_net::client::{Client, ClientError, Endpoint};
use quorate_net::grpc::etcdserverpb::cluster_client::ClusterClient;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb as pb;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tower::{Service as _, ServiceExt as _};
use tracing::{info, warn};

/// What members look at in a call's metadata.
const HANDED_ON: [&str; 4] = ["token", "authorization", "hasleader", "client-api-version"];

/// How long members may take to say where they are.
const SYNC_MAX: Duration = Duration::from_secs(5);

/// The members; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// Another one when the members are elsewhere.
    client: Arc<RwLock<Arc<Client>>>,
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
            client: Arc::new(RwLock::new(Arc::new(client))),
            send_bytes_max,
            receive_bytes_max,
        }
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the members are.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.client().endpoints().to_vec()
    }

    /// The next call goes to the next member.
    pub(super) fn go_on(&self) {
        self.client().go_on();
    }

    /// Asks the members where they are each time the interval has passed, and goes there.
    pub(super) async fn follow(self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            let followed = tokio::time::timeout(SYNC_MAX, self.sync()).await;
            let late = || Err(Status::deadline_exceeded("context deadline exceeded"));
            if let Err(status) = followed.unwrap_or_else(|_| late()) {
                warn!(error = status.message(), "Auto sync endpoints failed.");
            }
        }
    }

    async fn sync(&self) -> Result<(), Status> {
        let answered = self.ask(true, |channel| async move {
            let list = pb::MemberListRequest { linearizable: true };
            ClusterClient::new(channel).member_list(list).await
        });
        let endpoints = listed(&answered.await?.into_inner().members);
        let client = self.client();
        if endpoints.is_empty() || client.endpoints() == endpoints {
            return Ok(());
        }
        let texts: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        info!(endpoints = ?texts, "the members are elsewhere");
        let client = client.with_endpoints(endpoints).map_err(unavailable)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        Ok(())
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
        let client = self.client();
        let mut attempts = client.endpoints().len();
        loop {
            let (number, channel) = client.channel().await.map_err(unavailable)?;
            attempts -= 1;
            match call(channel).await {
                Err(status) if status.code() == Code::Unavailable => {
                    client.give_up(number).await;
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
        let client = self.client();
        let (number, mut channel) = client.channel().await.map_err(unavailable)?;
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
                client.give_up(number).await;
                Err(Status::unavailable(error.to_string()))
            }
        }
    }
}

/// Where members take calls; those that have not started yet and learners do not.
fn listed(members: &[pb::Member]) -> Vec<Endpoint> {
    let members = members.iter();
    let serving = members.filter(|member| !member.name.is_empty() && !member.is_learner);
    let urls = serving.flat_map(|member| &member.client_urls);
    urls.filter_map(|url| url.parse().ok()).collect()
}

/// Nobody could be reached.
fn unavailable(error: ClientError) -> Status {
    Status::new(error.code(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_take_no_calls_are_no_endpoints() {
        let member = |name: &str, is_learner, url: &str| pb::Member {
            name: name.to_owned(),
            is_learner,
            client_urls: vec![url.to_owned()],
            ..pb::Member::default()
        };
        let members = [
            member("a", false, "http://a:1"),
            member("", false, "http://b:2"),
            member("c", true, "http://c:3"),
            member("d", false, "nowhere"),
        ];
        let endpoints = listed(&members);
        assert_eq!(endpoints, ["http://a:1".parse().expect("it is one")]);
    }
}
