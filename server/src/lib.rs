//! The Quorate server: the thin shell around the core.
//!
//! ```text
//!   clients ─► io (cores, connections) ─► services ─► driver (consensus thread: Node) ─► log writer, checkpointer
//!                                                        └─► peers
//! ```
//!
//! Nothing here decides anything about the store, the log or the cluster: the core does, and this crate gives it
//! threads, sockets, files and a clock.
#![deny(unsafe_code)]
#![cfg_attr(
    madsim,
    expect(
        deprecated,
        reason = "what runs beside a core runs at once in simulated time"
    )
)]

pub mod auth;
mod bootstrap;
#[cfg(not(madsim))]
mod client_security;
pub mod compactor;
mod comparison;
pub mod config;
#[cfg(not(madsim))]
#[expect(
    unsafe_code,
    reason = "memory maps, and locks that the standard library does not offer"
)]
pub mod disk;
pub mod driver;
mod gauges;
mod host;
pub mod http;
pub mod io;
pub mod log;
mod member;
#[cfg(not(madsim))]
pub mod memory;
pub mod metrics;
#[cfg(all(test, not(madsim)))]
#[path = "../tests/members/name_server.rs"]
#[expect(dead_code, reason = "tests with real processes want more of it")]
mod name_server;
#[cfg(not(madsim))]
mod notify;
mod peer;
mod peer_security;
#[cfg(not(madsim))]
mod profile;
#[cfg(not(madsim))]
pub mod proxy;
pub mod run;
mod services;
mod shutdown;
#[cfg(madsim)]
pub mod simulated;
pub mod spans;
pub mod state;
