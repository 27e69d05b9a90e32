//! The checkpoint thread: writes images while everything else goes on.

use std::sync::Arc;
use std::time::Instant;

use quorate_core::boundary::Input;
use quorate_core::checkpoint::Job;
use tracing::{error, info};

use super::queue::Queue;
use crate::host::{SharedDisk, Worker};
use crate::state::{ImageFacts, ServerState};

/// One image to write.
#[derive(Debug)]
pub(crate) struct Work(pub(crate) Box<Job>);

/// The state of the checkpoint thread.
#[derive(Debug)]
pub(crate) struct Checkpointer<D> {
    /// Where images go.
    pub(crate) disk: D,
    /// Told of each image.
    pub(crate) inbox: Arc<Queue<Input>>,
    /// Shows the newest one.
    pub(crate) state: Arc<ServerState>,
}

impl<D: SharedDisk> Worker for Checkpointer<D> {
    type Item = Work;

    fn work(&mut self, batch: &mut Vec<Work>) {
        for Work(job) in batch.drain(..) {
            let index = job.index();
            let done = self.write(*job);
            self.inbox.push(Input::Checkpointed { index, done });
        }
    }

    fn end(self) {}
}

impl<D: SharedDisk> Checkpointer<D> {
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
