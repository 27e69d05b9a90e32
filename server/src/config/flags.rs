//! The table of etcd's flags: name, form, default, and what Quorate does with it.
//!
//! Everything else is derived from it: the parser, the environment variables, the help text, the keys of the
//! configuration file and the table in `docs/compatibility.md`. It never reads anything.

/// Which part of the help text shows the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Member,
    Clustering,
    Security,
    Auth,
    Profiling,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Meta,
    /// etcd's old flags, which it takes and ignores: the help text does not name them.
    Obsolete,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Bool,
    /// A whole number from 0 to this.
    Unsigned(u64),
    Signed,
    Duration,
    /// Comma-separated URLs, kept sorted and unique.
    Urls,
    /// Comma-separated texts, kept sorted and unique.
    Set,
    /// Comma-separated texts in order.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
    Gates,
    /// Anything, even nothing.
    Obsolete,
}

/// What Quorate does with a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// What etcd does.
    Works,
    /// Accepted at any value, since there is nothing that it could change; the reason. A changed value is logged.
    NoEffect(&'static str),
    /// Any value but the default is refused, since what it asks for is not there yet.
    NotYet,
    /// etcd itself takes and ignores it.
    Obsolete,
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) name: &'static str,
    pub(crate) section: Section,
    pub(crate) kind: Kind,
    /// As one would write it; empty lists and texts are empty.
    pub(crate) default: &'static str,
    pub(crate) support: Support,
    pub(crate) help: &'static str,
}

/// The flag called `name`.
pub(crate) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const U32: Kind = Kind::Unsigned(u32::MAX as u64);
const U64: Kind = Kind::Unsigned(u64::MAX);
use Kind::{Bool, Choice, Duration, List, Set, Signed, Text, Urls};
use Support::{NoEffect, Obsolete, Works};

const fn flag(
    section: Section,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        section,
        kind,
        default,
        support,
        help,
    }
}

const fn member(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    flag(Section::Member, name, kind, default, support, help)
}

const fn cluster(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    flag(Section::Clustering, name, kind, default, support, help)
}

const fn security(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    flag(Section::Security, name, kind, default, support, help)
}

const fn feature(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    flag(Section::Features, name, kind, default, support, help)
}

const fn logging(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    flag(Section::Logging, name, kind, default, support, help)
}

const fn tracing(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    flag(Section::Tracing, name, kind, default, Works, help)
}

const fn obsolete(name: &'static str) -> Flag {
    flag(Section::Obsolete, name, Kind::Obsolete, "", Obsolete, "")
}

/// What `--log-rotation-config-json` is unless set.
const ROTATION: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

const NO_BOLT: &str = "there is no live database file: data is in memory, images are written whole";
/// See `--downgrade-check-time`.
const NEVER_DOWN: &str =
    "a leader of this version finds a member of this version at every look: itself";
const BY_VOLUME: &str = "checkpoints follow the volume of the log, not the number of entries";
const IN_SLICES: &str = "compaction runs in small slices by itself";

/// Every flag of etcd 3.7, in the order of its help text.
#[rustfmt::skip]
pub(crate) const FLAGS: &[Flag] = &[
    member("name", Text, "default", Works, "The name of this member."),
    member("data-dir", Text, "", Works, "Where the data lives; '${name}.etcd' when empty."),
    member("wal-dir", Text, "", Works, "Where the log lives, if not in the data directory."),
    member("snapshot-count", U64, "10000", NoEffect(BY_VOLUME), "Entries between two snapshots."),
    member("heartbeat-interval", U64, "100", Works, "Milliseconds between two heartbeats."),
    member("election-timeout", U64, "1000", Works, "Milliseconds without a heartbeat until an election."),
    member("initial-election-tick-advance", Bool, "true", NoEffect("a member always waits a whole election timeout when it starts"), "Shorten the first election timeout after a start."),
    member("listen-peer-urls", Urls, "http://localhost:2380", Works, "Where to listen for peers."),
    member("listen-client-urls", Urls, "http://localhost:2379", Works, "Where to listen for clients: gRPC, and HTTP unless --listen-client-http-urls is given."),
    member("listen-client-http-urls", Urls, "", Works, "Where to listen for HTTP alone; takes HTTP away from --listen-client-urls."),
    member("max-snapshots", U64, "5", NoEffect("one image is kept: the newest"), "Snapshot files to keep; deprecated."),
    member("max-wals", U64, "5", NoEffect("log files are kept since the last checkpoint"), "Log files to keep; 0 keeps all."),
    member("memory-mlock", Bool, "false", Works, "Keep all memory from being swapped out."),
    member("quota-backend-bytes", Signed, "0", Works, "Size at which writes are refused; 0 is 2 GiB, below 0 is never."),
    member("backend-bbolt-freelist-type", Text, "", NoEffect(NO_BOLT), "How free pages are tracked: map or array."),
    member("backend-batch-interval", Duration, "0s", NoEffect(NO_BOLT), "Longest time between two commits of the database."),
    member("backend-batch-limit", Signed, "0", NoEffect(NO_BOLT), "Most operations between two commits of the database."),
    member("max-txn-ops", U64, "128", Works, "Most operations in one transaction."),
    member("max-request-bytes", U64, "1572864", Works, "Largest request."),
    member("max-concurrent-streams", U32, "4294967295", Works, "Most streams that one connection may have open."),
    member("grpc-keepalive-min-time", Duration, "5s", NoEffect("pings of clients are never refused"), "Shortest time between two pings of a client."),
    member("grpc-keepalive-interval", Duration, "2h", Works, "Time between two pings to a client; 0 is never."),
    member("grpc-keepalive-timeout", Duration, "20s", Works, "Time for a client to answer a ping; 0 is forever."),
    member("socket-reuse-port", Bool, "false", Works, "Set SO_REUSEPORT on listeners."),
    member("socket-reuse-address", Bool, "false", NoEffect("listeners always set it"), "Set SO_REUSEADDR on listeners."),
    member("enable-grpc-gateway", Bool, "true", Works, "Serve JSON over HTTP below /v3/."),
    member("raft-read-timeout", Duration, "5s", Works, "Longest silence of a peer connection that is read; at least 5s."),
    member("raft-write-timeout", Duration, "5s", Works, "Longest wait to write to a peer connection; at least 5s."),
    member("feature-gates", Kind::Gates, "", Works, "Features to switch, as NAME=true|false."),

    cluster("initial-advertise-peer-urls", Urls, "http://localhost:2380", Works, "Where the other members reach this one."),
    cluster("initial-cluster", Text, "default=http://localhost:2380", Works, "The members of a new cluster, as name=url,name=url; this member alone unless set."),
    cluster("initial-cluster-state", Choice(&["new", "existing"]), "new", Works, "'new' for a new cluster, 'existing' to join one; ignored once there is data."),
    cluster("initial-cluster-token", Text, "etcd-cluster", Works, "Keeps clusters made with different tokens apart."),
    cluster("advertise-client-urls", Urls, "http://localhost:2379", Works, "Where clients reach this member."),
    cluster("discovery-token", Text, "", Works, "The token of this cluster at the discovery service."),
    cluster("discovery-endpoints", Set, "", Works, "The discovery service."),
    cluster("discovery-dial-timeout", Duration, "2s", Works, "Time to connect to the discovery service."),
    cluster("discovery-request-timeout", Duration, "5s", Works, "Time for one request to the discovery service."),
    cluster("discovery-keepalive-time", Duration, "2s", Works, "Time between two pings to the discovery service."),
    cluster("discovery-keepalive-timeout", Duration, "6s", Works, "Time for the discovery service to answer a ping."),
    cluster("discovery-insecure-transport", Bool, "true", Works, "Speak to the discovery service in plain text."),
    cluster("discovery-insecure-skip-tls-verify", Bool, "false", Works, "Trust any certificate of the discovery service."),
    cluster("discovery-cert", Text, "", Works, "Client certificate for the discovery service."),
    cluster("discovery-key", Text, "", Works, "Its key."),
    cluster("discovery-cacert", Text, "", Works, "Authority for certificates of the discovery service."),
    cluster("discovery-user", Text, "", Works, "User at the discovery service."),
    cluster("discovery-password", Text, "", Works, "Password at the discovery service."),
    cluster("discovery-fallback", Choice(&["exit", "proxy"]), "exit", Works, "What to do when discovery fails: exit."),
    cluster("discovery-srv", Text, "", Works, "DNS domain that lists the members."),
    cluster("discovery-srv-name", Text, "", Works, "Suffix of the DNS service name."),
    cluster("strict-reconfig-check", Bool, "true", Works, "Refuse membership changes that would lose the quorum."),
    cluster("pre-vote", Bool, "true", Works, "Ask before an election, so that a returning member does not disturb."),
    cluster("auto-compaction-retention", Text, "0", Works, "How much history to keep; 0 compacts nothing."),
    cluster("auto-compaction-mode", Text, "periodic", Works, "Whether the retention is a time ('periodic') or a number of revisions ('revision')."),
    cluster("v2-deprecation", Choice(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "", NoEffect("there is no v2 store"), "Stage of the removal of the v2 store; deprecated."),

    security("cert-file", Text, "", Works, "Certificate for clients."),
    security("key-file", Text, "", Works, "Its key."),
    security("client-cert-auth", Bool, "false", Works, "Require certificates of clients."),
    security("client-cert-file", Text, "", Works, "Certificate that the member shows as a client."),
    security("client-key-file", Text, "", Works, "Its key."),
    security("client-crl-file", Text, "", Works, "Revoked certificates of clients."),
    security("client-cert-allowed-hostname", List, "", Works, "Names that a client's certificate may carry."),
    security("trusted-ca-file", Text, "", Works, "Authority for certificates of clients."),
    security("auto-tls", Bool, "false", Works, "Make a certificate for clients."),
    security("peer-cert-file", Text, "", Works, "Certificate for peers."),
    security("peer-key-file", Text, "", Works, "Its key."),
    security("peer-client-cert-auth", Bool, "false", Works, "Require certificates of peers."),
    security("peer-client-cert-file", Text, "", Works, "Certificate shown to peers."),
    security("peer-client-key-file", Text, "", Works, "Its key."),
    security("peer-trusted-ca-file", Text, "", Works, "Authority for certificates of peers."),
    security("peer-cert-allowed-cn", List, "", Works, "Common names that a peer's certificate may carry."),
    security("peer-cert-allowed-hostname", List, "", Works, "Names that a peer's certificate may carry."),
    security("peer-auto-tls", Bool, "false", Works, "Make a certificate for peers."),
    security("self-signed-cert-validity", U64, "1", Works, "Years for which a certificate made here is valid."),
    security("peer-crl-file", Text, "", Works, "Revoked certificates of peers."),
    security("cipher-suites", List, "", Works, "TLS cipher suites to take."),
    flag(Section::Security, "cors", Urls, "*", Works, "Origins that a browser may come from; '*' for all."),
    flag(Section::Security, "host-whitelist", Set, "*", Works, "Host names that plain HTTP requests may name; '*' for all."),
    security("tls-min-version", Text, "TLS1.2", Works, "Oldest TLS version: TLS1.2 or TLS1.3."),
    security("tls-max-version", Text, "", Works, "Newest TLS version: TLS1.2 or TLS1.3."),
    security("peer-skip-client-san-verification", Bool, "false", Works, "Do not look at the names in a peer's certificate."),

    flag(Section::Auth, "auth-token", Text, "simple", Works, "Kind of authentication token and its options."),
    flag(Section::Auth, "bcrypt-cost", U64, "10", Works, "Cost of a password hash: 4 to 31."),
    flag(Section::Auth, "auth-token-ttl", U64, "300", Works, "Seconds that a simple token lives."),

    flag(Section::Profiling, "enable-pprof", Bool, "false", Works, "Serve profiles below /debug/pprof/ of the client URLs."),
    flag(Section::Profiling, "metrics", Text, "basic", Works, "'basic', or 'extensive' to measure each gRPC method's duration."),
    flag(Section::Profiling, "listen-metrics-urls", Urls, "", Works, "Where to serve /metrics and the health checks as well."),

    logging("logger", Text, "zap", Works, "The shape of log lines: zap."),
    logging("log-outputs", Set, "default", Works, "Where log lines go: default, stderr, stdout, systemd/journal or files."),
    logging("log-level", Text, "info", Works, "debug, info, warn, error, panic or fatal."),
    logging("log-format", Text, "json", Works, "json or console."),
    logging("enable-log-rotation", Bool, "false", Works, "Begin a new log file when one is full."),
    logging("log-rotation-config-json", Text, ROTATION, Works, "When a log file is full (MB), how long (days) and how many are kept, and how."),
    logging("warning-unary-request-duration", Duration, "300ms", Works, "A request that takes longer is logged."),

    tracing("enable-distributed-tracing", Bool, "false", "Send traces to a collector."),
    tracing("distributed-tracing-address", Text, "localhost:4317", "Its address."),
    tracing("distributed-tracing-service-name", Text, "etcd", "Name of the service there."),
    tracing("distributed-tracing-instance-id", Text, "", "Name of this member there."),
    tracing("distributed-tracing-sampling-rate", Signed, "0", "Of a million requests whose callers do not say it, so many are traced."),

    feature("corrupt-check-time", Duration, "0s", Works, "Time between two comparisons of the members' data; 0 is never."),
    feature("compact-hash-check-time", Duration, "1m", Works, "Time between two comparisons of compaction hashes."),
    feature("compaction-batch-limit", Signed, "0", NoEffect(IN_SLICES), "Revisions in one slice of a compaction; 0 is 1000."),
    feature("compaction-sleep-interval", Duration, "0s", NoEffect(IN_SLICES), "Pause between two slices of a compaction; 0 is 10ms."),
    feature("watch-progress-notify-interval", Duration, "0s", Works, "Time between two progress notifications; 0 is 10m."),
    feature("downgrade-check-time", Duration, "5s", NoEffect(NEVER_DOWN), "Time between two looks at a downgrade."),
    feature("warning-apply-duration", Duration, "100ms", Works, "An entry that takes longer to apply is logged."),
    feature("bootstrap-defrag-threshold-megabytes", U64, "0", NoEffect(NO_BOLT), "Defragment at the start if that frees as much."),
    feature("max-learners", Signed, "1", Works, "Most learners in the cluster."),
    feature("snapshot-catchup-entries", U64, "5000", NoEffect("entries for slow followers are read from the log files"), "Entries kept for slow followers."),

    flag(Section::Unsafe, "unsafe-no-fsync", Bool, "false", Works, "Never sync: a power cut loses data."),
    flag(Section::Unsafe, "force-new-cluster", Bool, "false", Works, "Make a cluster of this member alone out of its data."),

    flag(Section::Meta, "config-file", Text, "", Works, "Read all settings from this file."),
    flag(Section::Meta, "version", Bool, "false", Works, "Print the version."),

    obsolete("cluster-active-size"),
    obsolete("cluster-remove-delay"),
    obsolete("cluster-sync-interval"),
    obsolete("config"),
    obsolete("force"),
    obsolete("max-result-buffer"),
    obsolete("max-retry-attempts"),
    obsolete("peer-heartbeat-interval"),
    obsolete("peer-election-timeout"),
    obsolete("retry-interval"),
    obsolete("snapshot"),
    obsolete("v"),
    obsolete("vv"),
    obsolete("test.coverprofile"),
    obsolete("test.outputdir"),
];
