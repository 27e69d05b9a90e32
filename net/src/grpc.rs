//! gRPC stubs, server and client, for all services of etcd's client API.
//!
//! Generated at build time from `quorate-proto`'s descriptors. The messages are that crate's; this module holds no
//! message type of its own, no behaviour and no limits. Servers take theirs from
//! [`max_decoding_message_size`](etcdserverpb::kv_server::KvServer::max_decoding_message_size) and
//! [`max_encoding_message_size`](etcdserverpb::kv_server::KvServer::max_encoding_message_size) where they are built.

/// KV, Watch, Lease, Cluster, Maintenance and Auth.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The lock service.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The standard health service, `grpc.health.v1`.
pub mod health {
    pub use tonic_health::ServingStatus;
    pub use tonic_health::pb::health_check_response::ServingStatus as HealthStatus;
    pub use tonic_health::pb::health_client::HealthClient;
    pub use tonic_health::pb::health_server;
    pub use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
    pub use tonic_health::server::{HealthReporter, health_reporter};
}
