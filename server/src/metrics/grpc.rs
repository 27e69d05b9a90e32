//! What etcd counts for each gRPC method: calls started, calls handled by code, messages either way.
//!
//! Every method is there from the start with zeros, as dashboards rely on it.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::value::{Buckets, Counter, Histogram};

/// How messages flow; the label `grpc_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodType {
    /// One message each way.
    Unary,
    /// One in, many out.
    ServerStream,
    /// Many both ways.
    BidiStream,
}

impl MethodType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// One counted method.
#[derive(Debug)]
pub struct Method {
    /// With its package.
    pub service: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How messages flow.
    pub kind: MethodType,
}

const KV: &str = "etcdserverpb.KV";
const WATCH: &str = "etcdserverpb.Watch";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const AUTH: &str = "etcdserverpb.Auth";
const HEALTH: &str = "grpc.health.v1.Health";

const fn unary(service: &'static str, name: &'static str) -> Method {
    Method {
        service,
        name,
        kind: MethodType::Unary,
    }
}

/// The methods that etcd presets.
pub const METHODS: [Method; 45] = [
    unary(KV, "Range"),
    Method {
        service: KV,
        name: "RangeStream",
        kind: MethodType::ServerStream,
    },
    unary(KV, "Put"),
    unary(KV, "DeleteRange"),
    unary(KV, "Txn"),
    unary(KV, "Compact"),
    Method {
        service: WATCH,
        name: "Watch",
        kind: MethodType::BidiStream,
    },
    unary(LEASE, "LeaseGrant"),
    unary(LEASE, "LeaseRevoke"),
    Method {
        service: LEASE,
        name: "LeaseKeepAlive",
        kind: MethodType::BidiStream,
    },
    unary(LEASE, "LeaseTimeToLive"),
    unary(LEASE, "LeaseLeases"),
    unary(CLUSTER, "MemberAdd"),
    unary(CLUSTER, "MemberRemove"),
    unary(CLUSTER, "MemberUpdate"),
    unary(CLUSTER, "MemberList"),
    unary(CLUSTER, "MemberPromote"),
    unary(MAINTENANCE, "Alarm"),
    unary(MAINTENANCE, "Status"),
    unary(MAINTENANCE, "Defragment"),
    unary(MAINTENANCE, "Hash"),
    unary(MAINTENANCE, "HashKV"),
    Method {
        service: MAINTENANCE,
        name: "Snapshot",
        kind: MethodType::ServerStream,
    },
    unary(MAINTENANCE, "MoveLeader"),
    unary(MAINTENANCE, "Downgrade"),
    unary(AUTH, "AuthEnable"),
    unary(AUTH, "AuthDisable"),
    unary(AUTH, "AuthStatus"),
    unary(AUTH, "Authenticate"),
    unary(AUTH, "UserAdd"),
    unary(AUTH, "UserGet"),
    unary(AUTH, "UserList"),
    unary(AUTH, "UserDelete"),
    unary(AUTH, "UserChangePassword"),
    unary(AUTH, "UserGrantRole"),
    unary(AUTH, "UserRevokeRole"),
    unary(AUTH, "RoleAdd"),
    unary(AUTH, "RoleGet"),
    unary(AUTH, "RoleList"),
    unary(AUTH, "RoleDelete"),
    unary(AUTH, "RoleGrantPermission"),
    unary(AUTH, "RoleRevokePermission"),
    unary(HEALTH, "Check"),
    unary(HEALTH, "List"),
    Method {
        service: HEALTH,
        name: "Watch",
        kind: MethodType::ServerStream,
    },
];

/// The names of gRPC's codes, by number.
pub const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Where in [`METHODS`] a path such as `/etcdserverpb.KV/Put` is; none for methods that are not counted.
pub fn method_index(path: &str) -> Option<usize> {
    static INDEX: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
        let paths = METHODS
            .iter()
            .map(|method| format!("/{}/{}", method.service, method.name));
        paths
            .enumerate()
            .map(|(index, path)| (path, index))
            .collect()
    });
    INDEX.get(path).copied()
}

/// The bounds of `grpc_server_handling_seconds`.
const HANDLING: Buckets = Buckets {
    bounds: &[
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ],
    unit: 1e-9,
};

/// The numbers of one method.
#[derive(Debug)]
pub struct MethodMetrics {
    /// Calls that began.
    pub started: Counter,
    /// Calls that ended, by the number of their code.
    pub handled: [Counter; CODES.len()],
    /// Messages from clients.
    pub received: Counter,
    /// Messages to clients.
    pub sent: Counter,
    /// How long calls took; only with `--metrics=extensive`.
    pub handling: Option<Histogram>,
}

impl MethodMetrics {
    pub(super) fn new(extensive: bool) -> Self {
        Self {
            started: Counter::default(),
            handled: Default::default(),
            received: Counter::default(),
            sent: Counter::default(),
            handling: extensive.then(|| Histogram::new(HANDLING)),
        }
    }

    /// Notes the end of a call with the code of this number; what is no code counts as unknown.
    pub fn end(&self, code: i32, took: std::time::Duration) {
        const UNKNOWN: usize = 2;
        let code = usize::try_from(code)
            .ok()
            .filter(|code| *code < CODES.len())
            .unwrap_or(UNKNOWN);
        self.handled[code].increment();
        if let Some(handling) = &self.handling {
            handling.observe(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for (index, method) in METHODS.iter().enumerate() {
            assert_eq!(
                method_index(&format!("/{}/{}", method.service, method.name)),
                Some(index)
            );
        }
        assert_eq!(method_index("/v3lockpb.Lock/Lock"), None);
    }

    #[test]
    fn calls_end_with_their_code() {
        let method = MethodMetrics::new(true);
        for code in [0, 16, 17, -1] {
            method.end(code, std::time::Duration::from_millis(3));
        }
        let handled =
            |name| method.handled[CODES.iter().position(|code| *code == name).unwrap()].value();
        assert_eq!(
            (
                handled("OK"),
                handled("Unauthenticated"),
                handled("Unknown")
            ),
            (1, 1, 2)
        );
        assert_eq!(method.handling.unwrap().snapshot().count(), 4);
    }
}
