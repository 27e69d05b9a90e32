//! The flags of `quorate grpc-proxy start`, and which of them do not go together.

use crate::proxy::discovery;
use crate::proxy::flags::{Flag, Kind, Values, flag};

pub(in crate::proxy) const FLAGS: &[Flag] = &[
    flag(
        "advertise-client-url",
        Kind::Text,
        "127.0.0.1:23790",
        "advertise address to register (must be reachable by client)",
    ),
    flag(
        "auto-tls",
        Kind::Bool,
        "false",
        "proxy TLS using generated certificates",
    ),
    flag(
        "cacert",
        Kind::Text,
        "",
        "verify certificates of TLS-enabled secure etcd servers using this CA bundle",
    ),
    flag(
        "cert",
        Kind::Text,
        "",
        "identify secure connections with etcd servers using this TLS certificate file",
    ),
    flag(
        "cert-file",
        Kind::Text,
        "",
        "identify secure connections to the proxy using this TLS certificate file",
    ),
    flag(
        "client-crl-file",
        Kind::Text,
        "",
        "proxy client certificate revocation list file.",
    ),
    flag(
        "data-dir",
        Kind::Text,
        "default.proxy",
        "Data directory for persistent data",
    ),
    flag(
        "debug",
        Kind::Bool,
        "false",
        "Enable debug-level logging for grpc-proxy.",
    ),
    flag(
        "dial-keepalive-time",
        Kind::Duration,
        "0s",
        "keepalive time for client(grpc-proxy) connections (default 0, disable).",
    ),
    flag(
        "dial-keepalive-timeout",
        Kind::Duration,
        "20s",
        "keepalive timeout for client(grpc-proxy) connections (default 20s).",
    ),
    flag(
        "discovery-srv",
        Kind::Text,
        "",
        "domain name to query for SRV records describing cluster endpoints",
    ),
    discovery::SERVICE_NAME,
    flag(
        "enable-pprof",
        Kind::Bool,
        "false",
        "Enable runtime profiling data via HTTP server. Address is at client URL + \"/debug/pprof/\"",
    ),
    discovery::ENDPOINTS,
    flag(
        "endpoints-auto-sync-interval",
        Kind::Duration,
        "0s",
        "etcd endpoints auto sync interval (disabled by default)",
    ),
    flag(
        "experimental-enable-grpc-logging",
        Kind::Bool,
        "false",
        "logging all grpc requests and responses",
    ),
    flag(
        "experimental-leasing-prefix",
        Kind::Text,
        "",
        "leasing metadata prefix for disconnected linearized reads.",
    ),
    flag(
        "experimental-serializable-ordering",
        Kind::Bool,
        "false",
        "Ensure serializable reads have monotonically increasing store revisions across endpoints.",
    ),
    flag(
        "grpc-keepalive-interval",
        Kind::Duration,
        "2h0m0s",
        "Frequency duration of server-to-client ping to check if a connection is alive (0 to disable).",
    ),
    flag(
        "grpc-keepalive-min-time",
        Kind::Duration,
        "5s",
        "Minimum interval duration that a client should wait before pinging proxy.",
    ),
    flag(
        "grpc-keepalive-timeout",
        Kind::Duration,
        "20s",
        "Additional duration of wait before closing a non-responsive connection (0 to disable).",
    ),
    discovery::INSECURE,
    flag(
        "insecure-skip-tls-verify",
        Kind::Bool,
        "false",
        "skip authentication of etcd server TLS certificates (CAUTION: this option should be enabled only for testing \
         purposes)",
    ),
    flag(
        "key",
        Kind::Text,
        "",
        "identify secure connections with etcd servers using this TLS key file",
    ),
    flag(
        "key-file",
        Kind::Text,
        "",
        "identify secure connections to the proxy using this TLS key file",
    ),
    flag(
        "listen-addr",
        Kind::Text,
        "127.0.0.1:23790",
        "listen address",
    ),
    flag(
        "listen-cipher-suites",
        Kind::List,
        "",
        "Comma-separated list of supported TLS cipher suites between client/proxy (empty will be auto-populated by Go).",
    ),
    flag(
        "max-concurrent-streams",
        Kind::Unsigned32,
        "4294967295",
        "Maximum concurrent streams that each client can open at a time.",
    ),
    flag(
        "max-recv-bytes",
        Kind::Number,
        "2147483647",
        "message receive limits in bytes (default value is math.MaxInt32)",
    ),
    flag(
        "max-send-bytes",
        Kind::Number,
        "1572864",
        "message send limits in bytes (default value is 1.5 MiB)",
    ),
    flag(
        "metrics-addr",
        Kind::Text,
        "",
        "listen for endpoint /metrics requests on an additional interface",
    ),
    flag(
        "namespace",
        Kind::Text,
        "",
        "string to prefix to all keys for namespacing requests",
    ),
    flag(
        "permit-without-stream",
        Kind::Bool,
        "false",
        "Enable client(grpc-proxy) to send keepalive pings even with no active RPCs.",
    ),
    flag(
        "resolver-prefix",
        Kind::Text,
        "",
        "prefix to use for registering proxy (must be shared with other grpc-proxy members)",
    ),
    flag(
        "resolver-ttl",
        Kind::Number,
        "0",
        "specify TTL, in seconds, when registering proxy endpoints",
    ),
    flag(
        "self-signed-cert-validity",
        Kind::Unsigned,
        "1",
        "The validity period of the proxy certificates, unit is year",
    ),
    flag(
        "tls-max-version",
        Kind::Text,
        "",
        "Maximum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3 (empty defers to Go).",
    ),
    flag(
        "tls-min-version",
        Kind::Text,
        "TLS1.2",
        "Minimum TLS version supported by grpc proxy. Possible values: TLS1.2, TLS1.3.",
    ),
    flag(
        "trusted-ca-file",
        Kind::Text,
        "",
        "verify certificates of TLS-enabled secure proxy using this CA bundle",
    ),
];

/// Flags that are not there: a value other than the default ends the start.
const REFUSED: [&str; 2] = [
    "experimental-enable-grpc-logging",
    "experimental-leasing-prefix",
];

/// Refuses what etcd refuses, and what is not there.
pub(super) fn check(values: &Values) -> Result<(), String> {
    let is_default = |name: &str| {
        let known = FLAGS.iter().find(|flag| flag.name == name);
        known.is_some_and(|flag| flag.default == values.text(name))
    };
    if let Some(name) = REFUSED.iter().find(|name| !is_default(name)) {
        return Err(format!("--{name} is not supported yet by this version"));
    }
    let (prefix, ttl) = (
        values.text("resolver-prefix"),
        values.number("resolver-ttl"),
    );
    if !prefix.is_empty() && ttl < 1 {
        return Err(format!("invalid resolver-ttl {ttl}"));
    }
    if prefix.is_empty() && ttl > 0 {
        return Err(format!("invalid resolver-prefix {prefix:?}"));
    }
    if !prefix.is_empty() && values.text("advertise-client-url").is_empty() {
        return Err("invalid advertise-client-url \"\"".to_owned());
    }
    if values.is_set("auto-tls") && values.number("self-signed-cert-validity") == 0 {
        return Err("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::flags::{self, Parsed};

    fn refusal(line: &str) -> Option<String> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        match flags::parse("grpc-proxy start", FLAGS, &words) {
            Parsed::Values(values) => check(&values).err(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_etcds_words() {
        assert_eq!(refusal(""), None);
        assert_eq!(refusal("--resolver-prefix p --resolver-ttl 60"), None);
        for (line, expected) in [
            ("--resolver-prefix p", "invalid resolver-ttl 0"),
            ("--resolver-ttl 1", "invalid resolver-prefix \"\""),
            (
                "--resolver-prefix p --resolver-ttl 1 --advertise-client-url=",
                "invalid advertise-client-url \"\"",
            ),
            (
                "--auto-tls --self-signed-cert-validity 0",
                "selfSignedCertValidity is invalid,it should be greater than 0",
            ),
            (
                "--experimental-leasing-prefix p",
                "--experimental-leasing-prefix is not supported yet by this version",
            ),
        ] {
            assert_eq!(refusal(line).as_deref(), Some(expected), "{line}");
        }
    }
}
