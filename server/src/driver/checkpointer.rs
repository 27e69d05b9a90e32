//! The checkpoint thread: writes images while everything else goes on, and sends the newest one to followers.

use std::sync::Arc;
use std::time::Instant;

use quorate_core::boundary::Input;
use quorate_core::checkpoint::{self, Job};
use quorate_core::types::{Index, MemberId, Term};
use quorate_net::peer::Transport;
use quorate_proto::raftpb::Message;
use tracing::{error, info};

use super::queue::Queue;
use crate::host::{SharedDisk, Worker};
use crate::state::{ImageFacts, ServerState};

/// What the thread is asked for, in order: what is sent is the image that was written last.
#[derive(Debug)]
pub(crate) enum Work {
    /// Write an image.
    Write(Box<Job>),
    /// Send the image that is there; then `Input::SnapshotSent`.
    Send {
        /// The receiver.
        to: MemberId,
        /// What raft says with it.
        message: Box<Message>,
    },
}

/// The state of the checkpoint thread.
#[derive(Debug)]
pub(crate) struct Checkpointer<D> {
    /// Where images go.
    pub(crate) disk: D,
    /// Told of each image.
    pub(crate) inbox: Arc<Queue<Input>>,
    /// Shows the newest one.
    pub(crate) state: Arc<ServerState>,
    /// Sends it.
    pub(crate) transport: Arc<Transport>,
}

impl<D: SharedDisk> Worker for Checkpointer<D> {
    type Item = Work;

    const IN_BACKGROUND: bool = true;

    fn work(&mut self, batch: &mut Vec<Work>) {
        for work in batch.drain(..) {
            match work {
                Work::Write(job) => {
                    let index = job.index();
                    let done = self.write(*job);
                    self.inbox.push(Input::Checkpointed { index, done });
                }
                Work::Send { to, message } => self.send(to, *message),
            }
        }
    }

    fn end(self) {}
}

impl<D: SharedDisk> Checkpointer<D> {
    /// Opens the image and lets the peer thread send it: a later checkpoint takes its name, not its content.
    fn send(&mut self, to: MemberId, mut message: Message) {
        let snapshot = message.snapshot.get_or_insert_default();
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        let (inbox, state) = (Arc::clone(&self.inbox), Arc::clone(&self.state));
        let link = self.state.metrics.peer(to);
        let began = link.snapshots_sent.begin();
        let sent = move |done| {
            link.snapshots_sent.end(began, done);
            if done {
                state.metrics.work.image_sent.observe(began.elapsed());
            }
            inbox.push(Input::SnapshotSent { to, done });
        };
        match checkpoint::to_send(&mut self.disk, Index(index), Term(term)) {
            Ok((image, membership)) => {
                snapshot.data = Some(membership);
                self.transport.send_snapshot(to, message, image, sent);
            }
            Err(error) => {
                error!(index, error = %error, "cannot read the checkpoint that a follower needs");
                sent(false);
            }
        }
    }

    fn write(&mut self, job: Job) -> bool {
        let index = job.index();
        let begun = Instant::now();
        match job.write(&mut self.disk) {
            Ok(done) => {
                self.state.metrics.checkpoint.observe(begun.elapsed());
                info!(
                    index = index.0,
                    bytes = done.bytes,
                    hash = done.hash,
                    "wrote a checkpoint"
                );
                self.state.set_image(ImageFacts {
                    bytes: done.bytes,
                    hash: done.hash,
                });
                true
            }
            // The log still holds everything: the member goes on, and tries again later.
            Err(error) => {
                error!(index = index.0, error = %error, "cannot write a checkpoint");
                false
            }
        }
    }
}
