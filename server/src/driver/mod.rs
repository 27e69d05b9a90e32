//! The threads around the node: who owns it, what it is fed from.

pub mod clock;
pub mod queue;
pub mod tickets;
