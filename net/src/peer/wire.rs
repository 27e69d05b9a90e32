//! How the connections between members are made and watched.

use std::net::IpAddr;
use std::time::Duration;

use super::limits::IO_TIMEOUT;
use super::security::PeerTls;

/// What holds for every connection to another member.
#[derive(Clone, Debug)]
pub struct Wire {
    /// A connection must stand within this time.
    pub dial_timeout: Duration,
    /// A stream on which nothing arrives for this long is dead, heartbeats included.
    pub read_timeout: Duration,
    /// A connection whose other end takes nothing for this long is dead.
    pub write_timeout: Duration,
    /// The address of this machine that connections come from; the system's choice if there is none.
    pub local_address: Option<IpAddr>,
    /// For `https` and `unixs`, in both directions.
    pub tls: Option<PeerTls>,
}

impl Wire {
    /// With etcd's timeouts, in plain text.
    pub fn new(dial_timeout: Duration) -> Self {
        Self {
            dial_timeout,
            read_timeout: IO_TIMEOUT,
            write_timeout: IO_TIMEOUT,
            local_address: None,
            tls: None,
        }
    }
}
