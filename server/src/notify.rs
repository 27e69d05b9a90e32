//! Tells systemd that the member serves, by its protocol: one datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::{error, info};

/// The variable that a unit of `Type=notify` is started with.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The member is ready; nothing happens unless somebody waits for that.
pub(crate) fn ready() {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else {
        return;
    };
    info!("notifying init daemon");
    match send(&socket, "READY=1") {
        Ok(()) => info!("successfully notified init daemon"),
        Err(error) => error!(%error, "failed to notify systemd for readiness"),
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = address(socket)?;
    let sent = UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    if sent < state.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// A path, or behind an `@` a name that is in no directory.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@quorate-test-{}", std::process::id());
        for socket in [path.as_os_str(), OsStr::new(&name)] {
            let listening = UnixDatagram::bind_addr(&address(socket).unwrap()).unwrap();
            send(socket, "READY=1").unwrap();
            let mut buffer = [0; 100];
            let length = listening.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        assert!(
            send(path.as_os_str(), "READY=1").is_err(),
            "nobody listens any more"
        );
    }
}
