//! The sans-IO core of Quorate: everything that decides, and nothing that touches the world.
//!
//! One deterministic state machine per member, [`node::Node`], eats [`boundary::Input`]s and emits
//! [`boundary::Output`]s. It never reads a clock, opens a file or socket, spawns a thread or draws entropy: time
//! and seeds are arguments. The server drives it with real disks and sockets, the simulator with hostile ones.
#![forbid(unsafe_code)]

pub mod apply;
pub mod auth;
pub mod boundary;
pub mod checkpoint;
pub mod consensus;
pub mod corruption;
pub mod disk;
pub mod error;
pub mod lease;
pub mod member;
pub mod mvcc;
pub mod node;
pub mod offline;
pub mod request;
mod request_ids;
pub mod types;
pub mod wal;
pub mod watch;

pub use error::RequestError;
pub use types::{ClusterId, Index, LeaseId, MemberId, Revision, Term, Ticket, Time, WriteNumber};
