//! The URLs that etcd's flags take: `http` or `https` with host and port, `unix` or `unixs` with a path.
//!
//! Owns reading and printing them. Never resolves a name and never opens anything.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// How one speaks to a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// TCP in plain text.
    Http,
    /// TCP with TLS.
    Https,
    /// A Unix socket.
    Unix,
    /// A Unix socket with TLS.
    Unixs,
}

impl Scheme {
    /// As written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }

    /// Whether the traffic is encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }
}

/// One address of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// How one speaks to it.
    pub scheme: Scheme,
    /// Name or IP address, an IPv6 address without its brackets; for Unix sockets the path of the socket.
    pub host: String,
    /// 0 for Unix sockets.
    pub port: u16,
}

impl Url {
    /// Reads one URL.
    ///
    /// # Errors
    /// With etcd's message when it is not one that a member can have.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let no_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
        let (scheme, rest) = text.split_once(':').ok_or_else(no_scheme)?;
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!(
                "parse {text:?}: first path segment in URL cannot contain colon"
            ));
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(no_scheme()),
        };
        let authority = rest
            .strip_prefix("//")
            .unwrap_or(if scheme.is_unix() { rest } else { "" });
        if scheme.is_unix() {
            return Ok(Self {
                scheme,
                host: authority.to_owned(),
                port: 0,
            });
        }
        let (authority, path) =
            authority.split_at(authority.find(['/', '?', '#']).unwrap_or(authority.len()));
        let (host, port) = split_host_port(authority)
            .ok_or_else(|| format!("URL address does not have the form \"host:port\": {text}"))?;
        let port = port.parse().map_err(|_| {
            format!(
                "parse {text:?}: invalid port {:?} after host",
                format!(":{port}")
            )
        })?;
        if !path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }

    /// Reads comma-separated URLs; the result is sorted and holds each once.
    ///
    /// # Errors
    /// With etcd's message for the first bad one.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let mut urls = text
            .split(',')
            .map(Self::parse)
            .collect::<Result<Vec<_>, _>>()?;
        sort(&mut urls);
        urls.dedup();
        Ok(urls)
    }

    /// `host:port` as one dials or binds it, or the path of the Unix socket.
    pub fn address(&self) -> String {
        match (self.scheme.is_unix(), self.host.contains(':')) {
            (true, _) => self.host.clone(),
            (false, true) => format!("[{}]:{}", self.host, self.port),
            (false, false) => format!("{}:{}", self.host, self.port),
        }
    }

    /// The host as an IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.address())
    }
}

/// The URLs as texts, for messages and for the wire.
pub fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// Orders URLs by their text, as etcd does.
pub(super) fn sort(urls: &mut [Url]) {
    urls.sort_by_cached_key(Url::to_string);
}

/// Reads `name=url,name=url`, where a name may repeat and collects its URLs.
///
/// # Errors
/// With etcd's message for the first bad URL.
pub(crate) fn parse_cluster(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut cluster = BTreeMap::<String, Vec<Url>>::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        cluster
            .entry(name.to_owned())
            .or_default()
            .push(Url::parse(url)?);
    }
    for urls in cluster.values_mut() {
        sort(urls);
    }
    Ok(cluster)
}

/// Host and port of `host:port` or `[ipv6]:port`; both may be empty here.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return Some((host, port.strip_prefix(':')?));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains([':', '@', ' '])).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_as_it_was_written() {
        for text in [
            "http://localhost:2379",
            "https://10.0.0.1:1",
            "http://[::1]:2380",
            "http://:2380",
            "unix://a/b.sock:12",
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Url::parse("unix:/run/etcd.sock").unwrap().address(),
            "/run/etcd.sock"
        );
        assert_eq!(Url::parse("HTTP://[::1]:2380").unwrap().host, "::1");
    }

    #[test]
    fn bad_urls_are_refused_in_etcds_words() {
        for (text, want) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            (
                "ftp://a:1",
                "URL scheme must be http, https, unix, or unixs: ftp://a:1",
            ),
            (
                "localhost:2379",
                "URL scheme must be http, https, unix, or unixs: localhost:2379",
            ),
            (
                "127.0.0.1:2379",
                "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
            ),
            (
                "http://a",
                "URL address does not have the form \"host:port\": http://a",
            ),
            (
                "http://::1:2379",
                "URL address does not have the form \"host:port\": http://::1:2379",
            ),
            ("http://a:1/", "URL must not contain a path: http://a:1/"),
            (
                "http://a:b",
                "parse \"http://a:b\": invalid port \":b\" after host",
            ),
            (
                "http://a:70000",
                "parse \"http://a:70000\": invalid port \":70000\" after host",
            ),
            ("", "URL scheme must be http, https, unix, or unixs: "),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), want);
        }
    }

    #[test]
    fn lists_are_sorted_and_hold_each_url_once() {
        let urls = Url::parse_list("http://b:1, http://a:2,http://b:1").unwrap();
        assert_eq!(texts(&urls), ["http://a:2", "http://b:1"]);
    }

    #[test]
    fn a_member_of_the_initial_cluster_may_have_several_urls() {
        let cluster = parse_cluster("b=http://b:1,a=http://z:1,a=http://a:1,").unwrap();
        assert_eq!(texts(&cluster["a"]), ["http://a:1", "http://z:1"]);
        assert_eq!(cluster.len(), 2);
        assert!(parse_cluster("a").is_err());
    }
}
