//! Members talk to each other here, on etcd's peer protocol (rafthttp): HTTP/1.1, two long streams for each direction.
//!
//! ```text
//!   member A                                   member B
//!   Transport ── GET /raft/stream/msgapp/A ──► Service       the receiver dials;
//!       events ◄══ appends from B ════════════ lane msgapp   the answer has no end
//!   Transport ── GET /raft/stream/message/A ─► Service
//!       events ◄══ everything else from B ════ lane message
//!   (and the same from B to A)
//! ```
//!
//! [`Transport`] owns the links and sends, [`Service`] answers the peer port, [`PeerClient`] makes single calls. They
//! move messages and never look into them further than type, sender and receiver. All limits are in [`limits`].

pub mod limits;

mod claims;
mod client;
mod codec;
mod endpoint;
mod identity;
mod json;
mod lane;
mod link;
mod picker;
mod pipeline;
mod probe;
mod reader;
mod security;
mod service;
mod snapshot;
mod status;
mod transport;
mod wire;

pub use client::{CallError, PeerClient};
pub use codec::{DecodeError, Decoder, Stream};
pub use endpoint::{Connection, Endpoint, EndpointError};
pub use identity::{Identity, MIN_CLUSTER_VERSION, Refusal, SERVER_VERSION};
pub use json::Versions;
pub use lane::LaneBody;
pub use security::PeerTls;
pub use service::{LocalNode, PeerBody, Service};
pub use snapshot::IncomingSnapshot;
pub use status::PeerStatus;
pub use transport::{PeerEvent, Transport};
pub use wire::Wire;
