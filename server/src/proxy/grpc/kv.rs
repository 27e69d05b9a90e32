//! Keys and values through the proxy: below the namespace, with serializable ranges out of the cache.

use std::sync::Arc;

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::kv_server::Kv;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Asked;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::cache::Cache;
use super::metrics::Metrics;
use super::namespace::Namespace;
use super::order::Order;
use super::upstream::{Caller, Upstream};

/// The KV service.
#[derive(Clone, Debug)]
pub(super) struct KvProxy {
    pub(super) upstream: Upstream,
    pub(super) namespace: Namespace,
    pub(super) cache: Arc<Cache>,
    pub(super) metrics: Arc<Metrics>,
    /// Reads do not go back, if that is wanted.
    pub(super) order: Option<Arc<Order>>,
}

/// Throws away what a write changes, however the call ends: one that was given up may have been carried out.
struct Invalidation {
    cache: Arc<Cache>,
    ranges: Vec<(Bytes, Bytes)>,
}

impl Drop for Invalidation {
    fn drop(&mut self) {
        for (key, range_end) in &self.ranges {
            self.cache.invalidate(key, range_end);
        }
    }
}

impl KvProxy {
    fn invalidating(&self, ranges: Vec<(Bytes, Bytes)>) -> Invalidation {
        Invalidation {
            cache: Arc::clone(&self.cache),
            ranges,
        }
    }

    /// Below a prefix a missing key would be the prefix itself.
    fn check(&self, key: &[u8]) -> Result<(), Status> {
        if key.is_empty() && !self.namespace.is_everything() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        Ok(())
    }
}

/// All ranges that a transaction may write.
fn written(txn: &pb::TxnRequest, ranges: &mut Vec<(Bytes, Bytes)>) {
    for operation in txn.success.iter().chain(&txn.failure) {
        match &operation.request {
            Some(Asked::RequestPut(put)) => ranges.push((put.key.clone(), Bytes::new())),
            Some(Asked::RequestDeleteRange(delete)) => {
                ranges.push((delete.key.clone(), delete.range_end.clone()));
            }
            Some(Asked::RequestTxn(txn)) => written(txn, ranges),
            Some(Asked::RequestRange(_)) | None => {}
        }
    }
}

/// Whether a transaction can be sent again.
fn only_reads(txn: &pb::TxnRequest) -> bool {
    let mut ranges = Vec::new();
    written(txn, &mut ranges);
    ranges.is_empty()
}

#[tonic::async_trait]
impl Kv for KvProxy {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let mut range = request.into_inner();
        self.check(&range.key)?;
        self.namespace.range(&mut range.key, &mut range.range_end);
        let (known, asked) = self.cache.look_up(&caller, &range);
        if range.serializable {
            if let Some(answer) = known {
                self.metrics.cache_hits.increment();
                return Ok(Response::new(answer));
            }
            self.metrics.cache_misses.increment();
        }
        let ask = || {
            self.upstream.ask(true, |channel| {
                let (mut kv, range) = (self.upstream.kv(channel), caller.asks(range.clone()));
                async move { kv.range(range).await }
            })
        };
        let mut response = match &self.order {
            Some(order) => order.keep(|range| range.header.as_ref(), ask).await?,
            None => ask().await?,
        };
        self.namespace.strip_all(&mut response.get_mut().kvs);
        // What a fresh read has seen, the next stale one sees, too.
        self.cache.keep(&caller, &range, asked, response.get_ref());
        Ok(response)
    }

    type RangeStreamStream = Empty<Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let words = "RangeStream is not supported by the gRPC proxy";
        Err(Status::unimplemented(words))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let mut put = request.into_inner();
        self.check(&put.key)?;
        self.namespace.put(&mut put);
        let _invalidation = self.invalidating(vec![(put.key.clone(), Bytes::new())]);
        let answered = self.upstream.ask(false, |channel| {
            let (mut kv, put) = (self.upstream.kv(channel), caller.asks(put.clone()));
            async move { kv.put(put).await }
        });
        let mut response = answered.await?;
        self.namespace.strip_all(&mut response.get_mut().prev_kv);
        Ok(response)
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let mut delete = request.into_inner();
        self.check(&delete.key)?;
        self.namespace.range(&mut delete.key, &mut delete.range_end);
        let range = (delete.key.clone(), delete.range_end.clone());
        let _invalidation = self.invalidating(vec![range]);
        let answered = self.upstream.ask(false, |channel| {
            let (mut kv, delete) = (self.upstream.kv(channel), caller.asks(delete.clone()));
            async move { kv.delete_range(delete).await }
        });
        let mut response = answered.await?;
        self.namespace.strip_all(&mut response.get_mut().prev_kvs);
        Ok(response)
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let mut txn = request.into_inner();
        self.namespace.txn(&mut txn);
        let mut ranges = Vec::new();
        written(&txn, &mut ranges);
        let _invalidation = self.invalidating(ranges);
        let only_reads = only_reads(&txn);
        let ask = || {
            self.upstream.ask(only_reads, |channel| {
                let (mut kv, txn) = (self.upstream.kv(channel), caller.asks(txn.clone()));
                async move { kv.txn(txn).await }
            })
        };
        let mut response = match &self.order {
            // What writes is as far as it gets, and is not sent twice.
            Some(order) if only_reads => order.keep(|txn| txn.header.as_ref(), ask).await?,
            _ => ask().await?,
        };
        self.namespace.strip_txn(response.get_mut());
        Ok(response)
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let caller = Caller::of(request.metadata());
        let compaction = request.into_inner();
        let answered = self.upstream.ask(false, |channel| {
            let (mut kv, compaction) = (self.upstream.kv(channel), caller.asks(compaction));
            async move { kv.compact(compaction).await }
        });
        let response = answered.await?;
        self.cache.compact(compaction.revision);
        Ok(response)
    }
}
