//! The thread that stores snapshots from other members, so that no slow disk keeps heartbeats waiting.
//!
//! ```text
//!   peer port ──parts──► this thread: tmp file ─ sync ─ read the image ──► Input::SnapshotReceived
//!       ◄── taken ───────────┘ one part at a time
//! ```
//!
//! Each part is acknowledged before the next one is read from the connection: no more than one part of an image is in
//! memory. What becomes of a stored image, the node decides.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Body;
use quorate_core::boundary::Input;
use quorate_core::checkpoint::{Arrival, remove_arrived};
use quorate_core::lease;
use quorate_core::node::ReceivedImage;
use quorate_core::types::{Index, MemberId};
use quorate_net::peer::IncomingSnapshot;
use quorate_proto::raftpb::Message;
use tokio::sync::{Semaphore, oneshot};

use super::queue::Queue;
use crate::host::{SharedDisk, Worker};
use crate::metrics::Metrics;

/// Told when a step is done, or why it cannot be.
type Taken = oneshot::Sender<Result<(), String>>;

/// A step of an arrival; `number` tells arrivals apart.
#[derive(Debug)]
pub(crate) enum Work {
    Begin {
        number: u64,
        index: Index,
    },
    Part {
        number: u64,
        bytes: Bytes,
        taken: Taken,
    },
    /// All of it is there.
    Finish {
        number: u64,
        message: Box<Message>,
        taken: Taken,
    },
    Abandon {
        number: u64,
    },
}

/// The peer port's side.
#[derive(Debug)]
pub(crate) struct Intake {
    work: Arc<Queue<Work>>,
    numbers: AtomicU64,
    /// One at a time: a leader sends no second one, and two would cost the disk twice.
    place: Semaphore,
}

/// Ends an arrival that did not come to its end, even when the connection is gone and with it who waited.
struct Ongoing<'a> {
    intake: &'a Intake,
    number: u64,
    is_over: bool,
}

impl Intake {
    pub(crate) fn new(work: Arc<Queue<Work>>) -> Self {
        Self {
            work,
            numbers: AtomicU64::new(0),
            place: Semaphore::new(1),
        }
    }

    /// Stores a snapshot; how many bytes it had.
    pub(crate) async fn store<B>(
        &self,
        message: Message,
        mut image: IncomingSnapshot<B>,
    ) -> Result<u64, String>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: Display,
    {
        let place = self.place.try_acquire();
        let _place = place.map_err(|_| "another one is being received".to_owned())?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let snapshot = message.snapshot.as_ref().ok_or("it names no snapshot")?;
        let index = Index(snapshot.metadata.index);
        let mut ongoing = Ongoing {
            intake: self,
            number,
            is_over: false,
        };
        self.work.push(Work::Begin { number, index });
        let mut length = 0;
        while let Some(bytes) = image.next().await? {
            length += bytes.len() as u64;
            let (taken, done) = oneshot::channel();
            self.work.push(Work::Part {
                number,
                bytes,
                taken,
            });
            answered(done).await?;
        }
        let (taken, done) = oneshot::channel();
        let message = Box::new(message);
        self.work.push(Work::Finish {
            number,
            message,
            taken,
        });
        ongoing.is_over = true;
        answered(done).await?;
        Ok(length)
    }
}

async fn answered(done: oneshot::Receiver<Result<(), String>>) -> Result<(), String> {
    done.await
        .unwrap_or_else(|_| Err("the member stops".to_owned()))
}

impl Drop for Ongoing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let number = self.number;
            self.intake.work.push(Work::Abandon { number });
        }
    }
}

/// The state of the thread.
pub(crate) struct Store<D: SharedDisk> {
    disk: D,
    inbox: Arc<Queue<Input>>,
    lease: lease::Config,
    metrics: Arc<Metrics>,
    /// Arrivals under way, or why they failed.
    arrivals: BTreeMap<u64, Result<Begun<D>, String>>,
}

/// An arrival, and when it began.
struct Begun<D: SharedDisk> {
    arrival: Arrival<D>,
    began: Instant,
}

impl<D: SharedDisk> Worker for Store<D> {
    type Item = Work;

    fn work(&mut self, batch: &mut Vec<Work>) {
        for work in batch.drain(..) {
            match work {
                Work::Begin { number, index } => {
                    let begun = Arrival::begin(self.disk.clone(), index, number);
                    let began = Instant::now();
                    let begun = begun
                        .map(|arrival| Begun { arrival, began })
                        .map_err(|error| error.to_string());
                    self.arrivals.insert(number, begun);
                }
                Work::Part {
                    number,
                    bytes,
                    taken,
                } => {
                    let written = match self.arrivals.get_mut(&number) {
                        Some(Ok(begun)) => begun.arrival.write(&bytes).map_err(|e| e.to_string()),
                        Some(Err(error)) => Err(error.clone()),
                        None => Err("it was abandoned".to_owned()),
                    };
                    // Who waited may be gone.
                    let _ = taken.send(written);
                }
                Work::Finish {
                    number,
                    message,
                    taken,
                } => {
                    let _ = taken.send(self.finish(number, *message));
                }
                Work::Abandon { number } => {
                    if let Some(Ok(Begun { arrival, .. })) = self.arrivals.remove(&number) {
                        // What stays is removed at the next start.
                        let _ = arrival.abandon();
                    }
                }
            }
        }
    }

    fn end(self) {}
}

impl<D: SharedDisk> Store<D> {
    pub(crate) fn new(
        disk: D,
        inbox: Arc<Queue<Input>>,
        lease: lease::Config,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            disk,
            inbox,
            lease,
            metrics,
            arrivals: BTreeMap::new(),
        }
    }

    /// Makes the image durable, reads it, and gives both to the node.
    fn finish(&mut self, number: u64, message: Message) -> Result<(), String> {
        let arrival = self.arrivals.remove(&number).ok_or("it was abandoned")??;
        let work = &self.metrics.work;
        let synced = Instant::now();
        let finished = arrival.arrival.finish();
        let (path, content) = finished.map_err(|error| error.to_string())?;
        work.image_synced.observe(synced.elapsed());
        work.image_saved.observe(arrival.began.elapsed());
        work.installing.add(1);
        let loaded = ReceivedImage::load(path.clone(), content, self.lease);
        work.installing.add(-1);
        match loaded {
            Ok(image) => {
                self.inbox.push(Input::SnapshotReceived {
                    from: MemberId(message.from),
                    message,
                    image: Box::new(image),
                });
                Ok(())
            }
            Err(error) => {
                let _ = remove_arrived(&mut self.disk, &path);
                Err(error.to_string())
            }
        }
    }
}
