//! Listening sockets.
//!
//! One socket a URL, owned by one process unless `--socket-reuse-port` is given: with `SO_REUSEPORT` a second server of
//! the same user silently shares the port. `SO_REUSEADDR` lets a restarted server have its port at once.

#[cfg(madsim)]
use std::io;

pub use quorate_net::rt::Bound;

#[cfg(not(madsim))]
pub use self::system::bind;

/// Binds `host:port` in the simulated network.
#[cfg(madsim)]
pub async fn bind(host_port: &str) -> io::Result<Bound> {
    let listener = quorate_net::rt::TcpListener::bind(host_port).await?;
    Ok(listener.into())
}

#[cfg(not(madsim))]
mod system {
    use std::io;
    use std::net::{SocketAddr, ToSocketAddrs as _};

    use quorate_net::rt::Bound;
    use socket2::{Domain, Protocol, Socket, Type};

    /// Connections that may wait to be accepted; the kernel cuts it to `somaxconn`.
    const BACKLOG: i32 = 4096;

    /// Binds `host:port`. Of a name with several addresses it takes one, an IPv4 address if there is one, as Go does.
    /// With `reuse_port` other sockets that are bound so may have the same port.
    pub fn bind(host_port: &str, reuse_port: bool) -> io::Result<Bound> {
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
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            // As Go does: an address of one family listens on that family, `[::]` on both.
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Bound::Tcp(socket.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_port_in_use_is_refused_and_free_again_at_once() {
        let first = bind("127.0.0.1:0", false).expect("some port is free");
        let address = first.local_address().expect("it is bound");
        let error = bind(&address, false).expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let error = bind(&address, true).expect_err("its owner does not share it");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind(&address, false).expect("the port is free again");
    }

    #[test]
    fn a_port_is_shared_by_those_who_ask_for_it() {
        let first = bind("127.0.0.1:0", true).expect("some port is free");
        let address = first.local_address().expect("it is bound");
        bind(&address, true).expect("both share it");
        bind(&address, false).expect_err("this one does not");
    }

    #[test]
    fn a_unix_socket_replaces_a_dead_one_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("nobody has it"));
        assert!(path.exists(), "the dead one is left behind");
        let bound = Bound::unix(&path).expect("the dead one gives way");
        assert!(path.exists());
        drop(bound);
        assert!(!path.exists());
        std::fs::write(&path, "not a socket").expect("it is writable");
        Bound::unix(&path).expect_err("a file is not removed");
        assert!(path.exists());
    }
}
