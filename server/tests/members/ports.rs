//! Ports for real processes.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports below those that systems give to outgoing connections and to port 0: nobody gets one of them by chance.
const PORTS: Range<u32> = 10_000..32_000;

/// A port that is free, and that no other member of these tests gets. Members of a cluster must know each other's ports
/// before they start, so port 0 will not do.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two runs at a time begin at different places.
    let first = std::process::id().wrapping_mul(211);
    let mut ports = (0..PORTS.len()).map(|_| {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        (PORTS.start + number % PORTS.len() as u32) as u16
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(is_free).expect("some port is free")
}
