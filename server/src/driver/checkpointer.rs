//! The checkpoint thread: writes images while everything else goes on.

use std::sync::Arc;
use std::time::Instant;

use quorate_core::boundary::Input;
use quorate_core::checkpoint::Job;
use quorate_core::disk::Disk;
use tracing::{error, info};

use super::queue::Queue;
use crate::state::{ImageFacts, ServerState};

/// One image to write.
#[derive(Debug)]
pub(crate) struct Work(pub(crate) Box<Job>);

/// Runs until the queue is closed.
pub(crate) fn run<D: Disk>(
    mut disk: D,
    work: &Queue<Work>,
    inbox: &Queue<Input>,
    state: &Arc<ServerState>,
) {
    let mut taken = Vec::new();
    while work.take(&mut taken, None) {
        for Work(job) in taken.drain(..) {
            let index = job.index();
            let begun = Instant::now();
            let done = match job.write(&mut disk) {
                Ok(done) => {
                    state.metrics.checkpoint.observe(begun.elapsed());
                    info!(
                        index = index.0,
                        bytes = done.bytes,
                        hash = done.hash,
                        "wrote a checkpoint"
                    );
                    state.set_image(ImageFacts {
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
            };
            inbox.push(Input::Checkpointed { index, done });
        }
    }
}
