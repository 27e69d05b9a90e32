//! Which number goes out under which name.

mod work;

use std::sync::{Arc, PoisonError};

use super::exposition::{Exposition, Type};
use super::grpc::{CODES, METHODS};
use super::process::Process;
use super::{Gauges, HealthCheck, Metrics, PeerMetrics, REQUEST_TYPES};
use crate::config::{ETCD_VERSION, GATES};

impl Metrics {
    /// The text of `/metrics`.
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut out = Exposition::default();
        self.write_server(gauges, &mut out);
        self.write_consensus(gauges, &mut out);
        self.write_requests(&mut out);
        self.write_health(&mut out);
        self.write_disk(&mut out);
        self.write_store(gauges, &mut out);
        self.write_work(gauges, &mut out);
        self.write_peers(gauges, &mut out);
        self.write_grpc(&mut out);
        write_process(&mut out);
        out.text()
    }

    fn write_server(&self, gauges: &Gauges, out: &mut Exposition) {
        let flag = |value: bool| f64::from(u8::from(value));
        let own = hex(self.identity.member.0);
        out.gauge(
            "etcd_server_has_leader",
            "1 when the member knows a leader.",
            flag(gauges.has_leader),
        );
        out.gauge(
            "etcd_server_is_leader",
            "1 when the member is the leader.",
            flag(gauges.is_leader),
        );
        out.gauge(
            "etcd_server_is_learner",
            "1 when the member is a learner.",
            flag(gauges.is_learner),
        );
        let help = "1 for the id of this member, in hexadecimal.";
        out.number(
            "etcd_server_id",
            Type::Gauge,
            help,
            &[("server_id", &own)],
            1.0,
        );
        let help = "1 for the version of etcd that the member is to its clients.";
        out.number(
            "etcd_server_version",
            Type::Gauge,
            help,
            &[("server_version", ETCD_VERSION)],
            1.0,
        );
        if let Some(version) = &gauges.cluster_version {
            let help = "1 for the version of the cluster.";
            let version = version
                .rsplit_once('.')
                .map_or(version.as_str(), |(minor, _)| minor);
            out.number(
                "etcd_cluster_version",
                Type::Gauge,
                help,
                &[("cluster_version", version)],
                1.0,
            );
        }
        for gate in &GATES {
            let labels = [("name", gate.name), ("stage", gate.stage.label())];
            let help = "1 for features that are on.";
            out.number(
                "etcd_server_feature_enabled",
                Type::Gauge,
                help,
                &labels,
                flag(self.identity.gates.enabled(gate.name)),
            );
        }
        let help = "The size at which writes are refused, in bytes.";
        out.gauge(
            "etcd_server_quota_backend_bytes",
            help,
            gauges.quota_bytes.max(0) as f64,
        );
        for (member, alarm) in &gauges.alarms {
            let labels = [("alarm_type", *alarm), ("server_id", &hex(member.0))];
            out.number(
                "etcd_debugging_server_alarms",
                Type::Gauge,
                "1 for alarms that are raised.",
                &labels,
                1.0,
            );
        }
    }

    fn write_consensus(&self, gauges: &Gauges, out: &mut Exposition) {
        if let Some(changes) = gauges.leader_changes {
            out.counter(
                "etcd_server_leader_changes_seen_total",
                "Changes of the leader.",
                changes,
            );
        }
        out.gauge(
            "etcd_server_proposals_committed_total",
            "The commit index.",
            gauges.committed as f64,
        );
        out.gauge(
            "etcd_server_proposals_applied_total",
            "The applied index.",
            gauges.applied as f64,
        );
        out.gauge(
            "etcd_server_proposals_pending",
            "Proposals that wait.",
            gauges.proposals_pending as f64,
        );
        let failed = self.proposals_failed.value();
        out.counter(
            "etcd_server_proposals_failed_total",
            "Proposals that failed.",
            failed,
        );
        let help = "Linearizable reads that failed.";
        out.counter(
            "etcd_server_read_indexes_failed_total",
            help,
            self.read_indexes_failed.value(),
        );
        let help = "Linearizable reads that took too long.";
        out.counter(
            "etcd_server_slow_read_indexes_total",
            help,
            self.read_indexes_slow.value(),
        );
    }

    fn write_requests(&self, out: &mut Exposition) {
        for (index, request_type) in REQUEST_TYPES.iter().enumerate() {
            for (succeeded, success) in [(false, "false"), (true, "true")] {
                let durations = self.cores.request_duration(index, succeeded);
                if durations.count() > 0 {
                    let labels = [("success", success), ("type", *request_type)];
                    let help = "How long requests took, in seconds.";
                    out.histogram(
                        "etcd_server_request_duration_seconds",
                        help,
                        &labels,
                        &durations,
                    );
                }
            }
        }
        for (succeeded, success) in [(false, "false"), (true, "true")] {
            let durations = self.cores.range_duration(succeeded);
            if durations.count() > 0 {
                let help = "How long reads of the store took, in seconds.";
                out.histogram(
                    "etcd_server_range_duration_seconds",
                    help,
                    &[("success", success)],
                    &durations,
                );
            }
        }
        for ((version, kind), count) in self.cores.client_requests() {
            let labels = [("client_api_version", version.as_str()), ("type", kind)];
            let help = "Requests by the API version of the client.";
            out.number(
                "etcd_server_client_requests_total",
                Type::Counter,
                help,
                &labels,
                count as f64,
            );
        }
        let sent = self.cores.sum(|core| &core.client_sent_bytes);
        out.counter(
            "etcd_network_client_grpc_sent_bytes_total",
            "Bytes sent to gRPC clients.",
            sent,
        );
        let received = self.cores.sum(|core| &core.client_received_bytes);
        out.counter(
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes received from gRPC clients.",
            received,
        );
    }

    fn write_health(&self, out: &mut Exposition) {
        out.counter(
            "etcd_server_health_success",
            "Good answers of /health.",
            self.health_success.value(),
        );
        out.counter(
            "etcd_server_health_failures",
            "Bad answers of /health.",
            self.health_failures.value(),
        );
        let checks = self
            .health_checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (
            (kind, name),
            HealthCheck {
                succeeded,
                failed,
                last_succeeded,
            },
        ) in checks
        {
            let labels = [("name", name), ("type", kind)];
            let last = f64::from(u8::from(last_succeeded));
            out.number(
                "etcd_server_healthcheck",
                Type::Gauge,
                "1 for checks that went well last.",
                &labels,
                last,
            );
            for (status, count) in [("success", succeeded), ("error", failed)] {
                if count > 0 {
                    let labels = [("name", name), ("status", status), ("type", kind)];
                    let help = "Health checks by their result.";
                    out.number(
                        "etcd_server_healthchecks_total",
                        Type::Counter,
                        help,
                        &labels,
                        count as f64,
                    );
                }
            }
        }
    }

    fn write_disk(&self, out: &mut Exposition) {
        let histograms = [
            (
                "etcd_disk_wal_fsync_duration_seconds",
                "How long syncs of the log took, in seconds.",
                &self.wal_fsync,
            ),
            (
                "etcd_disk_wal_write_duration_seconds",
                "How long writes to the log took, in seconds.",
                &self.wal_write,
            ),
            (
                "etcd_disk_backend_commit_duration_seconds",
                "How long checkpoints of the data took, in seconds.",
                &self.checkpoint,
            ),
        ];
        for (name, help, histogram) in histograms {
            out.histogram(name, help, &[], &histogram.snapshot());
        }
    }

    fn write_store(&self, gauges: &Gauges, out: &mut Exposition) {
        let help = "Bytes of the data, as counted against the quota.";
        out.gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            help,
            gauges.db_bytes as f64,
        );
        let help = "Bytes of the data that are in use.";
        out.gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            help,
            gauges.db_bytes_in_use as f64,
        );
        out.gauge(
            "etcd_debugging_mvcc_current_revision",
            "The current revision.",
            gauges.revision as f64,
        );
        out.gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction, -1 before the first.",
            gauges.compact_revision as f64,
        );
        out.gauge(
            "etcd_debugging_auth_revision",
            "The revision of users and roles.",
            gauges.auth_revision as f64,
        );
        let counts = [
            (
                "etcd_debugging_mvcc_keys_total",
                "Keys.",
                gauges.keys.map(|count| count as f64),
            ),
            (
                "etcd_debugging_mvcc_watch_stream_total",
                "Watch streams.",
                gauges.watch_streams.map(|count| count as f64),
            ),
            (
                "etcd_debugging_mvcc_watcher_total",
                "Watchers.",
                gauges.watchers.map(|count| count as f64),
            ),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watchers that lag.",
                gauges.slow_watchers.map(|count| count as f64),
            ),
        ];
        for (name, help, value) in counts {
            if let Some(value) = value {
                out.gauge(name, help, value);
            }
        }
        out.histogram(
            "etcd_mvcc_hash_duration_seconds",
            "How long hashes of all data took, in seconds.",
            &[],
            &self.hash.snapshot(),
        );
        let help = "How long hashes of a revision took, in seconds.";
        out.histogram(
            "etcd_mvcc_hash_rev_duration_seconds",
            help,
            &[],
            &self.hash_revision.snapshot(),
        );
    }

    fn write_peers(&self, gauges: &Gauges, out: &mut Exposition) {
        let own = hex(self.identity.member.0);
        for member in &gauges.members {
            let labels = [("Local", own.as_str()), ("Remote", &hex(member.0))];
            out.number(
                "etcd_network_known_peers",
                Type::Gauge,
                "1 for each member.",
                &labels,
                1.0,
            );
        }
        let peers = self
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for (member, peer) in peers {
            let remote = hex(member.0);
            write_peer(&own, &remote, &peer, out);
            work::write_snapshots(&remote, &peer, out);
        }
    }

    fn write_grpc(&self, out: &mut Exposition) {
        for (index, method) in METHODS.iter().enumerate() {
            let labels = [
                ("grpc_method", method.name),
                ("grpc_service", method.service),
                ("grpc_type", method.kind.as_str()),
            ];
            let mut count = |name, help, labels: &[(&str, &str)], count: u64| {
                out.number(name, Type::Counter, help, labels, count as f64);
            };
            let started = self.cores.sum(|core| &core.method(index).started);
            count(
                "grpc_server_started_total",
                "Calls that began.",
                &labels,
                started,
            );
            let received = self.cores.sum(|core| &core.method(index).received);
            count(
                "grpc_server_msg_received_total",
                "Messages from clients.",
                &labels,
                received,
            );
            let sent = self.cores.sum(|core| &core.method(index).sent);
            count(
                "grpc_server_msg_sent_total",
                "Messages to clients.",
                &labels,
                sent,
            );
            for (code, name) in CODES.iter().enumerate() {
                let handled = self.cores.sum(|core| &core.method(index).handled[code]);
                let labels = [labels[0], labels[1], labels[2], ("grpc_code", *name)];
                count(
                    "grpc_server_handled_total",
                    "Calls that ended, by their code.",
                    &labels,
                    handled,
                );
            }
            if let Some(handling) = self.cores.handling(index) {
                out.histogram(
                    "grpc_server_handling_seconds",
                    "How long calls took, in seconds.",
                    &labels,
                    &handling,
                );
            }
        }
    }
}

impl Exposition {
    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.number(name, Type::Counter, help, &[], value as f64);
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.number(name, Type::Gauge, help, &[], value);
    }
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

fn write_peer(own: &str, remote: &str, peer: &Arc<PeerMetrics>, out: &mut Exposition) {
    let (to, from, link) = (
        [("To", remote)],
        [("From", remote)],
        [("Local", own), ("Remote", remote)],
    );
    let counters = [
        (
            "etcd_network_peer_sent_bytes_total",
            "Bytes sent to a peer.",
            &to[..],
            &peer.sent_bytes,
        ),
        (
            "etcd_network_peer_sent_failures_total",
            "Messages that could not be sent.",
            &to[..],
            &peer.sent_failures,
        ),
        (
            "etcd_network_peer_received_bytes_total",
            "Bytes received from a peer.",
            &from[..],
            &peer.received_bytes,
        ),
        (
            "etcd_network_peer_received_failures_total",
            "Messages that could not be received.",
            &from[..],
            &peer.received_failures,
        ),
        (
            "etcd_network_disconnected_peers_total",
            "Losses of the link to a peer.",
            &link[..],
            &peer.disconnected,
        ),
    ];
    for (name, help, labels, counter) in counters {
        out.number(name, Type::Counter, help, labels, counter.value() as f64);
    }
    let active = peer.active.value() as f64;
    out.number(
        "etcd_network_active_peers",
        Type::Gauge,
        "1 for links to peers that work.",
        &link,
        active,
    );
    let help = "Round-trip times to a peer, in seconds.";
    out.histogram(
        "etcd_network_peer_round_trip_time_seconds",
        help,
        &to,
        &peer.round_trip.snapshot(),
    );
}

fn write_process(out: &mut Exposition) {
    let process = Process::read();
    let numbers = [
        (
            "process_cpu_seconds_total",
            Type::Counter,
            "Processor time, in seconds.",
            process.cpu_seconds,
        ),
        (
            "process_resident_memory_bytes",
            Type::Gauge,
            "Memory in use, in bytes.",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            Type::Gauge,
            "Address space in use, in bytes.",
            process.virtual_bytes,
        ),
        (
            "process_virtual_memory_max_bytes",
            Type::Gauge,
            "Limit of the address space.",
            process.virtual_bytes_max,
        ),
        (
            "process_start_time_seconds",
            Type::Gauge,
            "When the process started.",
            process.start_unix_seconds,
        ),
        (
            "process_open_fds",
            Type::Gauge,
            "Open file descriptors.",
            process.open_fds,
        ),
        (
            "process_max_fds",
            Type::Gauge,
            "Limit of open file descriptors.",
            process.fds_max,
        ),
        (
            "os_fd_used",
            Type::Gauge,
            "Open file descriptors.",
            process.open_fds,
        ),
        (
            "os_fd_limit",
            Type::Gauge,
            "Limit of open file descriptors.",
            process.fds_max,
        ),
        (
            "process_network_receive_bytes_total",
            Type::Counter,
            "Bytes that this machine received.",
            process.network_received_bytes,
        ),
        (
            "process_network_transmit_bytes_total",
            Type::Counter,
            "Bytes that this machine sent.",
            process.network_sent_bytes,
        ),
    ];
    for (name, kind, help, value) in numbers {
        if let Some(value) = value {
            out.number(name, kind, help, &[], value);
        }
    }
}
