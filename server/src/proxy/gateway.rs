//! `quorate gateway start`: carries the bytes of connections to members that take them.
//!
//! Owns which member a connection goes to: one after the other, without those that took none lately. Never looks at
//! what is carried, so TLS passes through.
//!
//! ```text
//!   client ─► accept ─► the next active endpoint ──refuses──► inactive, until a trial after --retry-delay succeeds
//! ```

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use super::flags::{Flag, Kind, Values, flag};
use super::{discovery, log_to_stderr};
use crate::config::{LogLevel, duration_text};
use crate::notify;

pub(super) const FLAGS: &[Flag] = &[
    flag(
        "discovery-srv",
        Kind::Text,
        "",
        "DNS domain used to bootstrap initial cluster",
    ),
    discovery::SERVICE_NAME,
    discovery::ENDPOINTS,
    discovery::INSECURE,
    flag(
        "listen-addr",
        Kind::Text,
        "127.0.0.1:23790",
        "listen address",
    ),
    flag(
        "retry-delay",
        Kind::Duration,
        "1m0s",
        "duration of delay before retrying failed endpoints",
    ),
    flag(
        "trusted-ca-file",
        Kind::Text,
        "",
        "path to the client server TLS CA file for verifying the discovered endpoints when discovery-srv is provided.",
    ),
];

/// The port of an endpoint that names none.
const PORT: u16 = 2379;
/// What `--retry-delay=0` means.
const RETRY_DELAY_DEFAULT: Duration = Duration::from_secs(300);
/// After an accept that failed, most likely since there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections may go.
#[derive(Debug)]
struct Remote {
    address: String,
    is_inactive: AtomicBool,
}

/// All endpoints.
#[derive(Debug)]
struct Remotes {
    all: Vec<Remote>,
    /// The number of the next one; held while somebody looks for one that is active, so that nobody is skipped.
    picked: Mutex<usize>,
    retry_delay: Duration,
}

/// Runs until the process is ended.
pub(super) fn run(values: &Values, arguments: &[String]) -> Result<(), String> {
    log_to_stderr(LogLevel::Info, arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let listen = values.text("listen-addr");
    let found = runtime.block_on(discovery::endpoints(values))?;
    let endpoints: Vec<_> = found.iter().map(|endpoint| address(endpoint)).collect();
    check(listen, &endpoints)?;
    let remotes = Arc::new(Remotes {
        all: endpoints.into_iter().map(Remote::new).collect(),
        picked: Mutex::new(0),
        retry_delay: match values.duration("retry-delay") {
            Duration::ZERO => RETRY_DELAY_DEFAULT,
            delay => delay,
        },
    });
    let served = runtime.block_on(serve(listen, remotes));
    served.map_err(|error| format!("listen tcp {listen}: {error}"))
}

/// `host:port` of an endpoint, which may be a URL.
fn address(endpoint: &str) -> String {
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, rest)| {
        rest.split(['/', '?', '#']).next().unwrap_or(rest)
    });
    let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
    });
    if has_port {
        bare.to_owned()
    } else {
        format!("{bare}:{PORT}")
    }
}

/// Refuses a gateway that would be its own endpoint, and what cannot be resolved.
fn check(listen: &str, endpoints: &[String]) -> Result<(), String> {
    let (host, _) = listen
        .rsplit_once(':')
        .ok_or_else(|| format!("failed to validate listen address: {listen}"))?;
    let own = resolve(listen).map_err(|_| format!("failed to resolve listen host: {host}"))?;
    if endpoints.is_empty() {
        return Err("no endpoints found".to_owned());
    }
    for endpoint in endpoints {
        let host = endpoint.rsplit_once(':').map_or("", |(host, _)| host);
        let found =
            resolve(endpoint).map_err(|_| format!("failed to resolve endpoint host: {host}"))?;
        if let Some(address) = found.iter().find(|address| own.contains(address)) {
            return Err(format!(
                "SRV or endpoint ({endpoint}->{address}) should not resolve to the gateway listen addr ({listen})"
            ));
        }
    }
    Ok(())
}

fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(address.to_socket_addrs()?.collect())
}

async fn serve(listen: &str, remotes: Arc<Remotes>) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let endpoints: Vec<_> = remotes.all.iter().map(|remote| &remote.address).collect();
    info!(endpoints = ?endpoints, "ready to proxy client requests");
    notify::ready();
    tokio::spawn(Arc::clone(&remotes).monitor());
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(carry(client, Arc::clone(&remotes)));
            }
            Err(error) => {
                warn!(%error, "cannot accept a client connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Carries bytes both ways until both sides have ended. A client for whom there is no endpoint is let go.
async fn carry(mut client: TcpStream, remotes: Arc<Remotes>) {
    let Some(mut member) = remotes.connect().await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = member.set_nodelay(true);
    // One that breaks off ends both.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut member).await;
}

impl Remote {
    fn new(address: String) -> Self {
        Self {
            address,
            is_inactive: AtomicBool::new(false),
        }
    }

    fn is_active(&self) -> bool {
        !self.is_inactive.load(Ordering::Relaxed)
    }
}

impl Remotes {
    /// A connection to the next endpoint that takes one.
    async fn connect(&self) -> Option<TcpStream> {
        while let Some(remote) = self.pick() {
            match TcpStream::connect(&remote.address).await {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    remote.is_inactive.store(true, Ordering::Relaxed);
                    let interval = duration_text(self.retry_delay);
                    warn!(address = remote.address, interval, %error, "deactivated endpoint");
                }
            }
        }
        None
    }

    /// The next active one in turn.
    fn pick(&self) -> Option<&Remote> {
        let mut picked = self.picked.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.all.len())
            .map(|_| {
                let number = *picked % self.all.len();
                *picked = number + 1;
                &self.all[number]
            })
            .find(|remote| remote.is_active())
    }

    /// Tries the inactive ones each time the delay has passed.
    async fn monitor(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.retry_delay).await;
            for number in 0..self.all.len() {
                if !self.all[number].is_active() {
                    tokio::spawn(Arc::clone(&self).retry(number));
                }
            }
        }
    }

    async fn retry(self: Arc<Self>, number: usize) {
        let remote = &self.all[number];
        let interval = duration_text(self.retry_delay);
        match TcpStream::connect(&remote.address).await {
            Ok(_) => {
                remote.is_inactive.store(false, Ordering::Relaxed);
                info!(address = remote.address, "activated");
            }
            Err(error) => warn!(
                address = remote.address,
                interval,
                %error,
                "failed to activate endpoint (stay inactive for another interval)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_or_addresses_and_have_a_port() {
        for (endpoint, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("localhost", "localhost:2379"),
            ("https://a:7/path", "a:7"),
            ("http://a", "a:2379"),
        ] {
            assert_eq!(address(endpoint), expected);
        }
    }

    #[test]
    fn connections_go_to_one_after_the_other_without_the_inactive() {
        let remotes = Remotes {
            all: ["a", "b", "c"]
                .into_iter()
                .map(|name| Remote::new(name.to_owned()))
                .collect(),
            picked: Mutex::new(0),
            retry_delay: RETRY_DELAY_DEFAULT,
        };
        let pick = || remotes.pick().map(|remote| remote.address.clone());
        let picked: Vec<_> = (0..4).filter_map(|_| pick()).collect();
        assert_eq!(picked, ["a", "b", "c", "a"]);
        remotes.all[1].is_inactive.store(true, Ordering::Relaxed);
        let picked: Vec<_> = (0..3).filter_map(|_| pick()).collect();
        assert_eq!(picked, ["c", "a", "c"]);
        for remote in &remotes.all {
            remote.is_inactive.store(true, Ordering::Relaxed);
        }
        assert_eq!(pick(), None);
    }

    #[test]
    fn a_gateway_is_not_its_own_endpoint() {
        let own = ["127.0.0.1:23791".to_owned()];
        assert!(check("127.0.0.1:23791", &own).is_err());
        assert!(check("127.0.0.1:23790", &own).is_ok());
        assert!(check("127.0.0.1:23790", &[]).is_err());
        assert!(check("nothing", &own).is_err());
    }
}
