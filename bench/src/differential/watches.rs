//! All watches of one server, on one stream: what each watcher was told, in order.
//!
//! How events are cut into messages is the server's business (live or catching up), except that a revision is never
//! split unless fragments were asked for; that is checked here, and only the flat sequence is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::Event;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// The watcher that tells how far a stream is; its key is outside what the generator makes.
const SENTINEL: i64 = 1 << 40;
/// The sentinel's key.
pub(super) const SENTINEL_KEY: &[u8] = b"~sentinel";

/// Something that a watcher was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    Created,
    Event(Event),
    Canceled {
        compact_revision: i64,
        reason: String,
    },
}

#[derive(Default)]
struct Record {
    told: BTreeMap<i64, Vec<Told>>,
    /// Answers to creates that were refused (id -1), in order.
    refused: Vec<String>,
    sentinel_revision: i64,
    /// Set when a response breaks a promise of the API.
    broken: Vec<String>,
    fragments: BTreeMap<i64, bool>,
    last_revision: BTreeMap<i64, i64>,
    ended: Option<String>,
    /// Answers to creates and cancels so far.
    answers: u64,
    /// Ids that were created and that the client has not cancelled.
    known: BTreeSet<i64>,
}

/// The watches of one server.
pub(super) struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    record: Arc<Mutex<Record>>,
    news: Arc<Notify>,
}

impl Watches {
    pub(super) async fn open(mut client: WatchClient<Channel>) -> Result<Self, tonic::Status> {
        let (requests, receiver) = mpsc::channel(1024);
        let record = Arc::new(Mutex::new(Record::default()));
        let news = Arc::new(Notify::new());
        let watches = Self {
            requests,
            record: Arc::clone(&record),
            news: Arc::clone(&news),
        };
        let sentinel = pb::WatchCreateRequest {
            key: Bytes::from_static(SENTINEL_KEY),
            watch_id: SENTINEL,
            ..Default::default()
        };
        watches.send(RequestUnion::CreateRequest(sentinel)).await;
        let mut stream = client
            .watch(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        tokio::spawn(async move {
            loop {
                let ended = match stream.message().await {
                    Ok(Some(response)) => {
                        record.lock().expect("no panic").take(response);
                        None
                    }
                    Ok(None) => Some("the stream ended".to_string()),
                    Err(status) => Some(status.to_string()),
                };
                let is_over = ended.is_some();
                record.lock().expect("no panic").ended = ended;
                news.notify_waiters();
                news.notify_one();
                if is_over {
                    break;
                }
            }
        });
        Ok(watches)
    }

    async fn send(&self, request: RequestUnion) {
        // An ended stream shows in the record.
        let _ = self
            .requests
            .send(pb::WatchRequest {
                request_union: Some(request),
            })
            .await;
    }

    /// Creates a watcher and waits for the answer, so that what is written next is after it on both servers.
    pub(super) async fn create(&self, request: pb::WatchCreateRequest) {
        let answers = {
            let mut record = self.record.lock().expect("no panic");
            record.fragments.insert(request.watch_id, request.fragment);
            record.answers
        };
        self.send(RequestUnion::CreateRequest(request)).await;
        self.answered(answers).await;
    }

    /// Cancels a watcher and waits for the answer; an unknown id gets none.
    pub(super) async fn cancel(&self, watch_id: i64) {
        let (answers, is_known) = {
            let mut record = self.record.lock().expect("no panic");
            (record.answers, record.known.remove(&watch_id))
        };
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest {
            watch_id,
        }))
        .await;
        if is_known {
            self.answered(answers).await;
        }
    }

    /// Waits until there are more answers than before. One that does not come shows when the rounds are compared.
    async fn answered(&self, before: u64) {
        let wait = async {
            loop {
                let news = self.news.notified();
                let is_answered = {
                    let record = self.record.lock().expect("no panic");
                    record.answers > before || record.ended.is_some()
                };
                if is_answered {
                    return;
                }
                news.await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), wait).await;
    }

    /// How much each watcher was told.
    pub(super) fn counts(&self) -> BTreeMap<i64, usize> {
        let record = self.record.lock().expect("no panic");
        let mut counts: BTreeMap<_, _> = record
            .told
            .iter()
            .map(|(id, told)| (*id, told.len()))
            .collect();
        counts.insert(-1, record.refused.len());
        counts
    }

    pub(super) fn sentinel_revision(&self) -> i64 {
        self.record.lock().expect("no panic").sentinel_revision
    }

    pub(super) fn trouble(&self) -> Vec<String> {
        let record = self.record.lock().expect("no panic");
        record
            .broken
            .iter()
            .cloned()
            .chain(record.ended.clone())
            .collect()
    }

    pub(super) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Takes what was told since the last time.
    pub(super) fn take(&self) -> (BTreeMap<i64, Vec<Told>>, Vec<String>) {
        let mut record = self.record.lock().expect("no panic");
        (
            std::mem::take(&mut record.told),
            std::mem::take(&mut record.refused),
        )
    }
}

impl Record {
    fn take(&mut self, response: pb::WatchResponse) {
        let id = response.watch_id;
        if id == SENTINEL {
            if let Some(event) = response.events.last() {
                self.sentinel_revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            }
            return;
        }
        self.answers += u64::from(response.created || response.canceled);
        if id == -1 {
            self.refused.push(response.cancel_reason);
            return;
        }
        self.check_atomic(&response);
        let told = self.told.entry(id).or_default();
        if response.created {
            self.known.insert(id);
            told.push(Told::Created);
        }
        told.extend(response.events.into_iter().map(Told::Event));
        if response.canceled {
            let compact_revision = response.compact_revision;
            told.push(Told::Canceled {
                compact_revision,
                reason: response.cancel_reason,
            });
        }
    }

    /// A revision is never split over two responses, and never comes again.
    fn check_atomic(&mut self, response: &pb::WatchResponse) {
        let id = response.watch_id;
        if response.created {
            self.last_revision.insert(id, 0);
        }
        let revisions: Vec<_> = response
            .events
            .iter()
            .filter_map(|event| event.kv.as_ref())
            .map(|kv| kv.mod_revision)
            .collect();
        let (Some(first), Some(last)) = (revisions.first(), revisions.last()) else {
            return;
        };
        let previous = self.last_revision.insert(id, *last).unwrap_or(0);
        let may_continue = self.fragments.get(&id).copied().unwrap_or(false);
        if *first < previous || (*first == previous && !may_continue) || !revisions.is_sorted() {
            self.broken.push(format!(
                "watch {id}: revisions {first}..{last} after {previous}"
            ));
        }
    }
}
