//! One of the two servers: carries out operations and makes its answers comparable.
//!
//! What may differ is taken out here and nowhere else: cluster, member and term in headers, the seconds that a lease
//! has left, and the order of what etcd leaves unordered.

use prost::Message as _;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::lease_client::LeaseClient;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb as pb;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::generate::Operation;
use super::watches::Watches;

/// An answer without what may differ.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    LeaseLeases(pb::LeaseLeasesResponse),
    HashKv(pb::HashKvResponse),
    Alarm(pb::AlarmResponse),
    /// Watches answer on their stream.
    Watch,
    Refused(Code, String),
}

impl Answer {
    /// The header's revision, if there is one.
    pub(super) fn revision(&self) -> Option<i64> {
        let header = match self {
            Self::Range(response) => &response.header,
            Self::Put(response) => &response.header,
            Self::DeleteRange(response) => &response.header,
            Self::Txn(response) => &response.header,
            Self::Compact(response) => &response.header,
            Self::LeaseRevoke(response) => &response.header,
            _ => &None,
        };
        header.as_ref().map(|header| header.revision)
    }
}

/// One server under test.
pub(super) struct Server {
    pub(super) name: &'static str,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    pub(super) watches: Watches,
}

impl Server {
    pub(super) async fn connect(name: &'static str, endpoint: &str) -> Result<Self, String> {
        let url = if endpoint.contains("://") {
            endpoint.to_string()
        } else {
            format!("http://{endpoint}")
        };
        let fail = |error: &dyn std::fmt::Display| format!("{name} at {url}: {error}");
        let endpoint = Channel::from_shared(url.clone()).map_err(|error| fail(&error))?;
        let channel = endpoint.connect().await.map_err(|error| fail(&error))?;
        let watch = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        Ok(Self {
            name,
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watches: Watches::open(watch).await.map_err(|error| fail(&error))?,
        })
    }

    pub(super) async fn carry_out(&mut self, operation: &Operation) -> Answer {
        self.try_carry_out(operation)
            .await
            .unwrap_or_else(|status| Answer::Refused(status.code(), status.message().to_string()))
    }

    async fn try_carry_out(&mut self, operation: &Operation) -> Result<Answer, Status> {
        Ok(match operation.clone() {
            Operation::Range(request) => {
                let mut response = self.kv.range(request.clone()).await?.into_inner();
                normalize_header(&mut response.header);
                normalize_range(&request, &mut response);
                Answer::Range(response)
            }
            Operation::Put(request) => {
                let mut response = self.kv.put(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::Put(response)
            }
            Operation::DeleteRange(request) => {
                let mut response = self.kv.delete_range(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::DeleteRange(response)
            }
            Operation::Txn(request) => {
                let mut response = self.kv.txn(request.clone()).await?.into_inner();
                normalize_header(&mut response.header);
                normalize_txn(&request, &mut response);
                Answer::Txn(response)
            }
            Operation::Compact(request) => {
                let mut response = self.kv.compact(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::Compact(response)
            }
            Operation::HashKv(request) => {
                let mut response = self.maintenance.hash_kv(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::HashKv(response)
            }
            Operation::Alarm(request) => {
                let mut response = self.maintenance.alarm(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::Alarm(response)
            }
            Operation::WatchCreate(request) => {
                self.watches.create(request).await;
                Answer::Watch
            }
            Operation::WatchCancel(id) => {
                self.watches.cancel(id).await;
                Answer::Watch
            }
            lease => self.carry_out_lease(lease).await?,
        })
    }

    async fn carry_out_lease(&mut self, operation: Operation) -> Result<Answer, Status> {
        Ok(match operation {
            Operation::LeaseGrant(request) => {
                let mut response = self.lease.lease_grant(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::LeaseGrant(response)
            }
            Operation::LeaseRevoke(request) => {
                let mut response = self.lease.lease_revoke(request).await?.into_inner();
                normalize_header(&mut response.header);
                Answer::LeaseRevoke(response)
            }
            Operation::LeaseKeepAlive(request) => {
                let requests = tokio_stream::once(request);
                let mut stream = self.lease.lease_keep_alive(requests).await?.into_inner();
                let mut response = stream
                    .message()
                    .await?
                    .ok_or_else(|| Status::unknown("the stream ended"))?;
                normalize_header(&mut response.header);
                Answer::LeaseKeepAlive(response)
            }
            Operation::LeaseTimeToLive(request) => {
                let mut response = self.lease.lease_time_to_live(request).await?.into_inner();
                normalize_header(&mut response.header);
                // Seconds pass at both; a run is much shorter than this.
                response.ttl = if response.ttl > 0 { 1 } else { response.ttl };
                response.keys.sort_unstable();
                Answer::LeaseTimeToLive(response)
            }
            Operation::LeaseLeases => {
                let mut response = self
                    .lease
                    .lease_leases(pb::LeaseLeasesRequest {})
                    .await?
                    .into_inner();
                normalize_header(&mut response.header);
                // Ordered by what is left: keep-alives arrive at slightly different times.
                response.leases.sort_unstable_by_key(|lease| lease.id);
                Answer::LeaseLeases(response)
            }
            other => unreachable!("{} is not about leases", other.name()),
        })
    }
}

/// Keeps the revision.
pub(super) fn normalize_header(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        *header = pb::ResponseHeader {
            revision: header.revision,
            ..Default::default()
        };
    }
}

/// Ties of a sort come in no defined order: each group of equals is put into key order. A group that the limit cuts
/// may hold any of the equals, so only its size counts.
fn normalize_range(request: &pb::RangeRequest, response: &mut pb::RangeResponse) {
    use pb::range_request::SortTarget;
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    if target == SortTarget::Key || response.kvs.len() < 2 {
        // One key of several equal ones may be another one, too.
        if target != SortTarget::Key && response.more {
            response.kvs.clear();
        }
        return;
    }
    if response.more || (request.keys_only && target == SortTarget::Value) {
        let order = |kv: &quorate_proto::mvccpb::KeyValue| match target {
            SortTarget::Version => kv.version,
            SortTarget::Create => kv.create_revision,
            SortTarget::Mod => kv.mod_revision,
            SortTarget::Key | SortTarget::Value => 0,
        };
        let cut = response.kvs.last().map(order);
        response.kvs.retain(|kv| Some(order(kv)) != cut);
    }
    let descends = request.sort_order == pb::range_request::SortOrder::Descend as i32;
    response.kvs.sort_by(|left, right| {
        let by_target = match target {
            SortTarget::Version => left.version.cmp(&right.version),
            SortTarget::Create => left.create_revision.cmp(&right.create_revision),
            SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
            SortTarget::Value | SortTarget::Key => left.value.cmp(&right.value),
        };
        let by_target = if descends {
            by_target.reverse()
        } else {
            by_target
        };
        by_target.then_with(|| left.key.cmp(&right.key))
    });
}

fn normalize_txn(request: &pb::TxnRequest, response: &mut pb::TxnResponse) {
    use pb::request_op::Request;
    use pb::response_op::Response;
    let operations = if response.succeeded {
        &request.success
    } else {
        &request.failure
    };
    for (operation, answer) in operations.iter().zip(&mut response.responses) {
        match (&operation.request, &mut answer.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(response))) => {
                normalize_range(request, response);
            }
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(response))) => {
                normalize_txn(request, response);
            }
            _ => {}
        }
    }
}

/// A request or response as a reader sees it, cut to a sensible length.
pub(super) fn shown(value: &dyn std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if text.len() > 600 {
        text.truncate(600);
        text.push_str(" ...");
    }
    text
}

/// The encoded size, for statistics.
pub(super) fn encoded_bytes(answer: &Answer) -> usize {
    match answer {
        Answer::Range(response) => response.encoded_len(),
        Answer::Txn(response) => response.encoded_len(),
        _ => 0,
    }
}
