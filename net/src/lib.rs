//! What Quorate says over the network: gRPC stubs of the client API and the transport between members.
//!
//! The wire is etcd's on both sides. Nothing here decides anything about the store or about consensus: messages come in
//! as bytes and leave as types, or the other way round.
#![forbid(unsafe_code)]

pub mod client;
pub mod grpc;
pub mod peer;
pub mod rt;
#[cfg(not(madsim))]
pub mod srv;
#[cfg(not(madsim))]
pub mod tls;
