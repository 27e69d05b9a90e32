//! Who a member says it is in the headers of a peer request, and what it demands of the other side.
//!
//! ```text
//! X-Server-From           8e9e05c52164694d     member, hex without leading zeros
//! X-Server-Version        3.7.1
//! X-Min-Cluster-Version   3.0.0
//! X-Etcd-Cluster-ID       cdf818194e3a8c32     hex likewise
//! X-PeerURLs              http://10.0.0.1:2380,http://..
//! X-Raft-To               the receiver, on streams only
//! ```

use http::{HeaderMap, HeaderName, HeaderValue};
use quorate_core::{ClusterId, MemberId};

/// The version of etcd whose place this member takes; peers refuse what is too old for them.
pub const SERVER_VERSION: &str = "3.7.1";

/// The oldest cluster version that this member can be part of.
pub const MIN_CLUSTER_VERSION: &str = "3.0.0";

/// etcd before 2.1 sent no version.
const VERSION_WHEN_ABSENT: &str = "2.0.0";

pub(crate) static X_SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(crate) static X_SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(crate) static X_MIN_CLUSTER_VERSION: HeaderName =
    HeaderName::from_static("x-min-cluster-version");
pub(crate) static X_CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(crate) static X_PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
/// Our own; etcd passes over it.
pub(crate) static X_PROCESS: HeaderName = HeaderName::from_static("x-quorate-process");
pub(crate) static X_RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");

/// This member, as its peers see it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The URLs under which peers reach it (`--initial-advertise-peer-urls`).
    pub peer_urls: Vec<String>,
    /// Drawn when the process starts: two of it may have one member's data.
    pub process: u64,
}

/// Why a peer's request is refused before anybody looks at it; the text is etcd's, and peers compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One side is too old for the other.
    #[error("incompatible version")]
    IncompatibleVersion,
    /// The peer belongs to another cluster.
    #[error("cluster ID mismatch")]
    ClusterIdMismatch,
}

impl Identity {
    /// The headers of a request to a peer.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(&X_SERVER_FROM, hex(self.member.0));
        headers.insert(&X_SERVER_VERSION, HeaderValue::from_static(SERVER_VERSION));
        headers.insert(
            &X_MIN_CLUSTER_VERSION,
            HeaderValue::from_static(MIN_CLUSTER_VERSION),
        );
        headers.insert(&X_CLUSTER_ID, self.cluster_header());
        headers.insert(&X_PROCESS, hex(self.process));
        if let Ok(urls) = HeaderValue::from_str(&self.peer_urls.join(",")) {
            headers.insert(&X_PEER_URLS, urls);
        }
        headers
    }

    pub(crate) fn cluster_header(&self) -> HeaderValue {
        hex(self.cluster.0)
    }

    /// Whether the sender of these headers may talk to this member.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let theirs = version_of(headers, &X_SERVER_VERSION).ok_or(Refusal::IncompatibleVersion)?;
        let their_min =
            version_of(headers, &X_MIN_CLUSTER_VERSION).ok_or(Refusal::IncompatibleVersion)?;
        let ours = major_minor(SERVER_VERSION).expect("own version parses");
        let our_min = major_minor(MIN_CLUSTER_VERSION).expect("own version parses");
        if theirs < our_min || their_min > ours {
            return Err(Refusal::IncompatibleVersion);
        }
        if headers.get(&X_CLUSTER_ID) != Some(&self.cluster_header()) {
            return Err(Refusal::ClusterIdMismatch);
        }
        Ok(())
    }
}

/// An id as etcd writes it in headers and paths.
pub(crate) fn hex(id: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:x}")).expect("hex digits are legal in a header")
}

/// An id as etcd reads it from headers and paths.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    // `from_str_radix` would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// The version in a header, absent ones read as etcd reads them; `None` when it cannot be understood.
fn version_of(headers: &HeaderMap, name: &HeaderName) -> Option<(u64, u64)> {
    match headers.get(name) {
        None => major_minor(VERSION_WHEN_ABSENT),
        Some(value) => major_minor(value.to_str().ok()?),
    }
}

/// The first two numbers of `3.7.1`, `v3.7` or `3.8.0-alpha.0`: all that compatibility depends on.
fn major_minor(version: &str) -> Option<(u64, u64)> {
    let numbers = version
        .strip_prefix('v')
        .unwrap_or(version)
        .split(['-', '+'])
        .next()?;
    let mut parts = numbers.split('.').map(|part| part.parse::<u64>().ok());
    let major = parts.next()??;
    let minor = parts.next().unwrap_or(Some(0))?;
    parts.all(|part| part.is_some()).then_some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            member: MemberId(0xabc),
            cluster: ClusterId(0xdef),
            peer_urls: vec!["http://a:2380".into()],
            process: 0x123,
        }
    }

    fn checked(change: impl FnOnce(&mut HeaderMap)) -> Result<(), Refusal> {
        let mut headers = identity().headers();
        change(&mut headers);
        identity().check(&headers)
    }

    fn set(name: &'static HeaderName, value: &'static str) -> impl FnOnce(&mut HeaderMap) {
        move |headers| {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }

    #[test]
    fn own_headers_pass_and_read_as_etcds() {
        assert_eq!(checked(|_| ()), Ok(()));
        let headers = identity().headers();
        assert_eq!(headers["x-server-from"], "abc");
        assert_eq!(headers["x-etcd-cluster-id"], "def");
        assert_eq!(headers["x-peerurls"], "http://a:2380");
        assert_eq!(headers["x-quorate-process"], "123");
    }

    #[test]
    fn versions_are_compared_by_major_and_minor() {
        for good in ["3.0.0", "3.0.9", "3.7.1", "3.8.0-alpha.0", "4.1.0", "v3.4"] {
            assert_eq!(checked(set(&X_SERVER_VERSION, good)), Ok(()), "{good}");
        }
        for bad in ["2.3.8", "", "three", "3.x.1", "3.7.z"] {
            assert_eq!(
                checked(set(&X_SERVER_VERSION, bad)),
                Err(Refusal::IncompatibleVersion),
                "{bad}"
            );
        }
        assert_eq!(checked(set(&X_MIN_CLUSTER_VERSION, "3.7.9")), Ok(()));
        assert_eq!(
            checked(set(&X_MIN_CLUSTER_VERSION, "3.8.0")),
            Err(Refusal::IncompatibleVersion)
        );
    }

    #[test]
    fn a_missing_version_counts_as_too_old() {
        let refused = checked(|headers| {
            headers.remove(&X_SERVER_VERSION);
        });
        assert_eq!(refused, Err(Refusal::IncompatibleVersion));
    }

    #[test]
    fn a_foreign_or_missing_cluster_is_refused() {
        assert_eq!(
            checked(set(&X_CLUSTER_ID, "dee")),
            Err(Refusal::ClusterIdMismatch)
        );
        let refused = checked(|headers| {
            headers.remove(&X_CLUSTER_ID);
        });
        assert_eq!(refused, Err(Refusal::ClusterIdMismatch));
    }

    #[test]
    fn ids_are_unsigned_hex() {
        assert_eq!(parse_hex("8e9e05c52164694d"), Some(0x8e9e_05c5_2164_694d));
        for bad in ["", "+1", "-1", "0x1", "g", "11111111111111111"] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }
}
