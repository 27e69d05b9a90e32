//! Where a server is: `host:port`, `http://host:port`, `https://host:port`, `unix:///path`, `unixs:///path`.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use http::uri::InvalidUri;
use hyper_util::rt::TokioIo;
use tonic::transport::Channel;

use super::security::{Security, Wish};
use crate::rt::{Executor, Stream, TcpStream};

/// One server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As the user gave it; shown in output.
    text: String,
    target: Target,
    wish: Wish,
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
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => match text.split_once(':') {
                Some((scheme @ ("unix" | "unixs"), path)) => (Some(scheme), path),
                _ => (None, text),
            },
        };
        let wish = match scheme {
            None => Wish::Any,
            Some("http" | "unix") => Wish::Plain,
            Some("https" | "unixs") => Wish::Secure,
            Some(_) => return Err(malformed("expected the scheme http, https, unix or unixs")),
        };
        let target = match scheme {
            Some("unix" | "unixs") => Target::Unix(rest.to_owned()),
            _ => {
                let address = rest.trim_end_matches('/');
                let port = address
                    .rsplit_once(':')
                    .and_then(|(_, port)| port.parse::<u16>().ok());
                if port.is_none() {
                    return Err(malformed(
                        "expected host:port, http://host:port, https://host:port or unix:///path",
                    ));
                }
                Target::Tcp(address.to_string())
            }
        };
        Ok(Self {
            text: text.to_string(),
            target,
            wish,
        })
    }
}

impl Endpoint {
    /// Makes a connection; one in use is tested as `keep_alive` says: how often, and how long an answer may take.
    pub(super) async fn connect(
        &self,
        timeout: Duration,
        keep_alive: Option<(Duration, Duration)>,
        security: &Security,
    ) -> Result<Channel, EndpointError> {
        let place = match &self.target {
            Target::Tcp(address) => address.as_str(),
            Target::Unix(_) => "localhost",
        };
        let unreachable = |reason: String| EndpointError::Unreachable {
            endpoint: self.text.clone(),
            reason,
        };
        // The scheme of the channel is that of tonic's own TLS; what requests say is the origin's.
        let scheme = if security.is_tls(self.wish) {
            "https"
        } else {
            "http"
        };
        let malformed = |error: &dyn fmt::Display| unreachable(error.to_string());
        let origin = format!("{scheme}://{place}").parse();
        let endpoint = Channel::from_shared(format!("http://{place}"))
            .map_err(|error| malformed(&error))?
            .origin(origin.map_err(|error: InvalidUri| malformed(&error))?)
            .executor(Executor::new());
        let endpoint = match keep_alive {
            Some((interval, patience)) => endpoint
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(patience),
            None => endpoint,
        };
        // Not tonic's own connector and time limit, which know tokio only.
        let (target, wish, security) = (self.target.clone(), self.wish, security.clone());
        let connector = tower::service_fn(move |_| {
            let (target, security) = (target.clone(), security.clone());
            async move {
                let opened = async {
                    let stream = target.open().await?;
                    let carrier = security.secure(wish, target.host(), stream).await?;
                    Ok::<_, io::Error>(TokioIo::new(carrier))
                };
                let opened = tokio::time::timeout(timeout, opened).await;
                opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            }
        });
        let connected = endpoint.connect_with_connector(connector).await;
        connected.map_err(|error| unreachable(root_cause(&error)))
    }
}

impl Target {
    /// The one place that opens a client's connection.
    async fn open(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }
            #[cfg(not(madsim))]
            Self::Unix(path) => Ok(Stream::Unix(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(madsim)]
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whose certificate is expected there.
    fn host(&self) -> &str {
        let place = match self {
            Self::Tcp(address) => address,
            // As in etcd, what follows the last slash.
            Self::Unix(path) => path.rsplit('/').next().unwrap_or_default(),
        };
        place.rsplit_once(':').map_or(place, |(host, _)| host)
    }
}

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
            "https://[::1]:2379",
            "unixs:///tmp/s",
        ] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("localhost", "host:port"),
            ("https://a", "host:port"),
            ("ftp://a:1", "scheme"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(expected), "{error}");
        }
    }
}
