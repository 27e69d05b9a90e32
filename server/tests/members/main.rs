//! Real processes, alone and as a cluster, through their gRPC API and their signals.

mod auth;
mod auth_matrix;
mod auth_table;
mod authority;
mod backup;
mod changes;
mod client_security;
mod concurrency;
mod corruption;
mod discovery;
mod downgrade;
mod forced;
mod logs;
mod one_member;
mod operating_system;
mod pages;
mod peer_security;
mod ports;
mod profiles;
mod snapshots;
mod sockets;
mod space;
mod start;
mod support;
mod three_members;
mod traces;
