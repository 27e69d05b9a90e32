//! Follows everything that is written to the judged keys while it happens, so that it is still known after compactions.
//!
//! The watch goes from member to member when one does not answer. It asks for its progress all the time, since a
//! compaction may only take what it has seen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_net::grpc::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use super::{Written, rows, watch_from};

/// How often it asks how far it is.
const ASKS: Duration = Duration::from_millis(50);
/// A member that says nothing for this long is left.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A watch over all judged keys that outlives members.
pub(crate) struct Tail {
    members: Arc<Mutex<Vec<String>>>,
    written: Arc<Mutex<Written>>,
    seen: watch::Receiver<i64>,
    task: tokio::task::JoinHandle<()>,
}

impl Tail {
    /// Follows from the first revision on, by the members of the list, which may change.
    pub(crate) fn start(members: Arc<Mutex<Vec<String>>>) -> Self {
        let written = Arc::new(Mutex::new(Written::new()));
        let (sender, seen) = watch::channel(0);
        let task = tokio::spawn(follow(Arc::clone(&members), Arc::clone(&written), sender));
        Self {
            members,
            written,
            seen,
            task,
        }
    }

    /// Waits until everything up to a revision is known.
    pub(crate) async fn reach(&mut self, revision: i64) -> Result<(), String> {
        let wait = self.seen.wait_for(|seen| *seen >= revision);
        match tokio::time::timeout(crate::patience::PATIENCE, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the watch over everything has ended".into()),
            Err(_) => Err(format!(
                "the watch over everything does not come to revision {revision} by {:?}",
                self.members.lock().expect("no panic")
            )),
        }
    }

    /// What was written up to a revision, which has been reached.
    pub(crate) fn written_until(&self, revision: i64) -> Written {
        let written = self.written.lock().expect("no panic");
        let until = written.iter().take_while(|(at, ..)| *at <= revision);
        until.cloned().collect()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    members: Arc<Mutex<Vec<String>>>,
    written: Arc<Mutex<Written>>,
    seen: watch::Sender<i64>,
) {
    for turn in 0.. {
        let url = {
            let members = members.lock().expect("no panic");
            (!members.is_empty()).then(|| members[turn % members.len()].clone())
        };
        if let Some(url) = url {
            // How it ended does not matter: the next member goes on from what was seen.
            let is_listed = || members.lock().expect("no panic").contains(&url);
            let _ = follow_one(&url, is_listed, &written, &seen).await;
        }
        tokio::time::sleep(ASKS).await;
    }
}

/// Follows one member as long as it speaks and is listed.
async fn follow_one(
    url: &str,
    is_listed: impl Fn() -> bool,
    written: &Mutex<Written>,
    seen: &watch::Sender<i64>,
) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| error.to_string();
    let endpoint = Endpoint::from_shared(url.to_string()).map_err(|error| fail(&error))?;
    let endpoint = endpoint.connect_timeout(SILENCE_MAX);
    let channel = endpoint.connect().await.map_err(|error| fail(&error))?;
    let (requests, stream) = tokio::sync::mpsc::channel(4);
    let begin = *seen.borrow() + 1;
    let _ = requests.send(watch_from(begin)).await;
    let mut client = WatchClient::new(channel);
    let opened = client.watch(ReceiverStream::new(stream));
    let opened = tokio::time::timeout(SILENCE_MAX, opened).await;
    let opened = opened.map_err(|error| fail(&error))?;
    let mut responses = opened.map_err(|error| fail(&error))?.into_inner();
    let mut asks = tokio::time::interval(ASKS);
    let mut silent_until = Instant::now() + SILENCE_MAX;
    while is_listed() {
        let next = tokio::select! {
            next = tokio::time::timeout_at(silent_until, responses.message()) => next,
            () = ask(&mut asks, &requests) => continue,
        };
        let next = next.map_err(|error| fail(&error))?;
        let Some(response) = next.map_err(|error| fail(&error))? else {
            return Ok(());
        };
        silent_until = Instant::now() + SILENCE_MAX;
        if response.canceled {
            return Err(response.cancel_reason);
        }
        if response.created {
            continue;
        }
        let revision = response.header.map_or(0, |header| header.revision);
        let is_progress = response.events.is_empty();
        let mut last = if is_progress { revision } else { 0 };
        {
            let mut written = written.lock().expect("no panic");
            for row in rows(response.events) {
                // A progress report before its events would be a broken promise; what it hid is found to be missing.
                if row.0 > *seen.borrow() {
                    last = last.max(row.0);
                    written.push(row);
                }
            }
        }
        seen.send_if_modified(|seen| std::mem::replace(seen, last.max(*seen)) < last);
    }
    Ok(())
}

/// Asks for the progress of the watch when it is time.
async fn ask(
    asks: &mut tokio::time::Interval,
    requests: &tokio::sync::mpsc::Sender<pb::WatchRequest>,
) {
    asks.tick().await;
    let progress = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    let request = pb::WatchRequest {
        request_union: Some(progress),
    };
    let _ = requests.try_send(request);
}
