//! The threads around the node: the consensus thread that owns it, the log thread, the checkpoint thread, and what
//! joins them.

pub(crate) mod checkpointer;
pub mod clock;
pub(crate) mod consensus;
pub(crate) mod log_writer;
pub mod queue;
mod segments;
pub(crate) mod snapshots;
pub(crate) mod stepwise;
pub mod tickets;
