//! Listening sockets.
//!
//! One socket a URL, owned by one process: no `SO_REUSEPORT`, with which a second server of the same user
//! would silently share the port. `SO_REUSEADDR` lets a restarted server have its port at once.

use std::io;

use quorate_net::rt::TcpListener;

#[cfg(not(madsim))]
pub use self::system::bind;
#[cfg(madsim)]
pub use quorate_net::rt::TcpListener as Bound;
#[cfg(not(madsim))]
pub use std::net::TcpListener as Bound;

/// Gives a listener to this thread's runtime.
pub(crate) fn adopt(bound: Bound) -> io::Result<TcpListener> {
    #[cfg(not(madsim))]
    return TcpListener::from_std(bound);
    #[cfg(madsim)]
    return Ok(bound);
}

/// Binds `host:port` in the simulated network.
#[cfg(madsim)]
pub async fn bind(host_port: &str) -> io::Result<Bound> {
    Bound::bind(host_port).await
}

#[cfg(not(madsim))]
mod system {
    use std::io;
    use std::net::{SocketAddr, ToSocketAddrs as _};

    use socket2::{Domain, Protocol, Socket, Type};

    /// Connections that may wait to be accepted; the kernel cuts it to `somaxconn`.
    const BACKLOG: i32 = 4096;

    /// Binds `host:port`. Of a name with several addresses it takes one, an IPv4 address if there is one, as Go does.
    pub fn bind(host_port: &str) -> io::Result<std::net::TcpListener> {
        let address = host_port
            .to_socket_addrs()?
            .min_by_key(SocketAddr::is_ipv6)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // As Go does: an address of one family listens on that family, `[::]` on both.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_and_free_again_at_once() {
        let first = bind("127.0.0.1:0").expect("some port is free");
        let address = first.local_addr().expect("it is bound");
        let error = bind(&address.to_string()).expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&address.to_string()).expect("the port is free again");
    }
}
