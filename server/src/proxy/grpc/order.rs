//! `--experimental-serializable-ordering`: no read is answered from an older revision than a read before it, though
//! members are not equally far.
//!
//! What comes out of the cache is not looked at, as in etcd.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use tonic::{Response, Status};
use tracing::{info, warn};

use super::upstream::Upstream;

/// How often each member may answer too old before nobody is expected to be further.
const ROUNDS_MAX: usize = 5;
/// Between two attempts to learn how far the cluster is.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How far answers have been.
#[derive(Debug)]
pub(super) struct Order {
    upstream: Upstream,
    /// The largest revision of an answer; never goes down.
    revision: AtomicI64,
}

impl Order {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            revision: AtomicI64::new(0),
        }
    }

    /// Learns how far the cluster is, however long that takes.
    pub(super) async fn begin(&self) {
        info!("waiting for linearized read from cluster to recover ordering");
        let range = pb::RangeRequest {
            key: "_".into(),
            keys_only: true,
            ..pb::RangeRequest::default()
        };
        loop {
            let answered = self.upstream.ask(true, |channel| {
                let (mut kv, range) = (self.upstream.kv(channel), range.clone());
                async move { kv.range(range).await }
            });
            match answered.await {
                Ok(response) => {
                    let revision = revision(response.get_ref().header.as_ref());
                    self.revision.fetch_max(revision, Ordering::Relaxed);
                    return;
                }
                Err(status) => warn!(
                    error = status.message(),
                    "ordering recovery failed, retrying in 1s"
                ),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Asks one member after the other until an answer is as far as any was when the question came.
    pub(super) async fn keep<T, F>(
        &self,
        header: impl Fn(&T) -> Option<&pb::ResponseHeader>,
        ask: impl Fn() -> F,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let before = self.revision.load(Ordering::Relaxed);
        for _ in 0..=ROUNDS_MAX * self.upstream.endpoints().len() {
            let response = ask().await?;
            let revision = revision(header(response.get_ref()));
            if revision >= before {
                self.revision.fetch_max(revision, Ordering::Relaxed);
                return Ok(response);
            }
            self.upstream.go_on();
        }
        Err(Status::unknown(
            "etcdclient: no cluster members have a revision higher than the previously received revision",
        ))
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
