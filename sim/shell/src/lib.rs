//! The simulator's tier for the shell: whole members, with their own async code, under madsim.
//!
//! ```text
//!   client library ─► gRPC over simulated TCP ─► io cores ─► consensus, log, checkpoints ─► SimDisk
//!                                                   └─► peer transport over simulated TCP
//! ```
//!
//! What runs is the server and the client library as they ship; faked are only sockets, time, entropy and the disk.
//! Everything here needs `--cfg madsim` (`cargo sim-shell`); without it this crate is empty.
#![cfg(madsim)]
#![forbid(unsafe_code)]

pub mod appended;
pub mod cli;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod judge;
pub mod options;
pub mod planned;
pub mod run;
pub mod scenario;
mod subjects;
pub mod world;
