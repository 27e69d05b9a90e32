//! Where a server is: `host:port`, `http://host:port`, `unix:///path`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::Channel;

use crate::rt::{Executor, TcpStream};

/// One server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As the user gave it; shown in output.
    text: String,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// `host:port`.
    Tcp(String),
    /// A socket's path.
    Unix(String),
}

/// Why an endpoint is not one, or cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The text is not an endpoint.
    #[error("endpoint {text:?}: {expected}")]
    Malformed {
        /// What was given.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// Nobody answers there.
    #[error("failed to connect to {endpoint}: {reason}")]
    Unreachable {
        /// Whom.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
}

impl Default for Endpoint {
    fn default() -> Self {
        "127.0.0.1:2379".parse().expect("a legal endpoint")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = |expected| EndpointError::Malformed {
            text: text.to_string(),
            expected,
        };
        let target = match text.split_once("://") {
            None if text.starts_with("unix:") => Target::Unix(text["unix:".len()..].to_string()),
            None | Some(("http", _)) => {
                let address = text
                    .strip_prefix("http://")
                    .unwrap_or(text)
                    .trim_end_matches('/');
                let port = address
                    .rsplit_once(':')
                    .and_then(|(_, port)| port.parse::<u16>().ok());
                if port.is_none() {
                    return Err(malformed(
                        "expected host:port, http://host:port or unix:///path",
                    ));
                }
                Target::Tcp(address.to_string())
            }
            Some(("unix", path)) => Target::Unix(path.to_string()),
            Some(("https" | "unixs", _)) => {
                return Err(malformed("TLS is not supported yet by this version"));
            }
            Some(_) => return Err(malformed("expected the scheme http or unix")),
        };
        Ok(Self {
            text: text.to_string(),
            target,
        })
    }
}

impl Endpoint {
    /// Makes a connection; one in use is tested as `keep_alive` says: how often, and how long an answer may take.
    pub(super) async fn connect(
        &self,
        timeout: Duration,
        keep_alive: Option<(Duration, Duration)>,
    ) -> Result<Channel, EndpointError> {
        let uri = match &self.target {
            Target::Tcp(address) => format!("http://{address}"),
            Target::Unix(_) => "http://localhost".to_owned(),
        };
        let unreachable = |reason: String| EndpointError::Unreachable {
            endpoint: self.text.clone(),
            reason,
        };
        let endpoint = Channel::from_shared(uri).map_err(|error| unreachable(error.to_string()))?;
        let endpoint = endpoint.executor(Executor::new());
        let endpoint = match keep_alive {
            Some((interval, patience)) => endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(patience),
            None => endpoint,
        };
        // Not tonic's own connector and time limit, which know tokio only.
        let target = self.target.clone();
        let connector = tower::service_fn(move |_| {
            let target = target.clone();
            async move {
                let opened = tokio::time::timeout(timeout, target.open()).await;
                opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| unreachable(root_cause(&error)))
    }
}

impl Target {
    /// The one place that opens a client's connection.
    async fn open(&self) -> io::Result<TokioIo<Pin<Box<dyn Bytes>>>> {
        let bytes: Pin<Box<dyn Bytes>> = match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
            Self::Unix(path) => Box::pin(UnixStream::connect(path).await?),
        };
        Ok(TokioIo::new(bytes))
    }
}

/// What carries the bytes of a connection.
trait Bytes: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Bytes for T {}

/// tonic wraps the operating system's words several times.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcdctl_takes_is_taken() {
        for text in [
            "127.0.0.1:2379",
            "http://localhost:2379",
            "http://[::1]:2379",
            "unix:///tmp/s",
            "unix:/tmp/s",
        ] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("localhost", "host:port"),
            ("https://a:1", "TLS"),
            ("ftp://a:1", "scheme"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(expected), "{error}");
        }
    }
}
