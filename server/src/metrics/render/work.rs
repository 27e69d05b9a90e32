//! The numbers of the threads behind the services, of watch streams and of images.

use super::super::exposition::{Exposition, Type};
use super::super::work::{OPERATIONS, lease_ttls};
use super::super::{Gauges, Metrics, PeerMetrics, SnapshotMetrics};

impl Metrics {
    pub(super) fn write_work(&self, gauges: &Gauges, out: &mut Exposition) {
        self.write_applied(out);
        self.write_transactions(out);
        self.write_leases(out);
        self.write_compactions(out);
        self.write_watches(gauges, out);
        self.write_images(out);
        self.write_learners(out);
        self.write_own(gauges, out);
    }

    fn write_applied(&self, out: &mut Exposition) {
        for (index, operation) in OPERATIONS.iter().enumerate() {
            for (succeeded, success) in [(false, "false"), (true, "true")] {
                let durations = self.work.apply_duration(index, succeeded);
                if durations.count() > 0 {
                    let labels = [("op", *operation), ("success", success), ("version", "v3")];
                    let help = "How long requests took to be applied, in seconds.";
                    out.histogram(
                        "etcd_server_apply_duration_seconds",
                        help,
                        &labels,
                        &durations,
                    );
                }
            }
        }
        out.counter(
            "etcd_server_slow_apply_total",
            "Requests that took long to be applied.",
            self.work.slow_applies.value(),
        );
        out.counter(
            "etcd_server_heartbeat_send_failures_total",
            "Heartbeats of this leader that left late.",
            self.work.counts().heartbeats_late,
        );
        out.gauge(
            "etcd_disk_wal_write_bytes_total",
            "Bytes written to the log.",
            self.work.wal_bytes.value() as f64,
        );
    }

    fn write_transactions(&self, out: &mut Exposition) {
        let store = self.work.counts().store;
        out.counter(
            "etcd_mvcc_range_total",
            "Ranges that were read.",
            self.cores.sum(|core| &core.ranges) + store.ranges,
        );
        out.counter("etcd_mvcc_put_total", "Keys put.", store.puts);
        out.counter("etcd_mvcc_delete_total", "Ranges deleted.", store.deletes);
        out.counter(
            "etcd_mvcc_txn_total",
            "Transactions of more than one operation.",
            store.txns,
        );
        out.gauge(
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "Bytes of keys and values that were put.",
            store.put_bytes as f64,
        );
    }

    fn write_leases(&self, out: &mut Exposition) {
        let counts = self.work.counts();
        for (name, help, count) in [
            (
                "etcd_debugging_lease_granted_total",
                "Leases granted.",
                counts.leases_granted,
            ),
            (
                "etcd_debugging_lease_revoked_total",
                "Leases revoked.",
                counts.leases_revoked,
            ),
            (
                "etcd_debugging_lease_renewed_total",
                "Leases renewed by this leader.",
                counts.leases_renewed,
            ),
            (
                "etcd_debugging_server_lease_expired_total",
                "Leases that this leader let end.",
                counts.leases_expired,
            ),
        ] {
            out.counter(name, help, count);
        }
        out.histogram(
            "etcd_debugging_lease_ttl_total",
            "The TTLs of granted leases, in seconds.",
            &[],
            &lease_ttls(&counts),
        );
    }

    fn write_compactions(&self, out: &mut Exposition) {
        out.counter(
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "Rows that compactions removed.",
            self.work.counts().store.rows_compacted,
        );
        out.gauge(
            "etcd_debugging_mvcc_db_compaction_last",
            "When the last compaction ended, in seconds since 1970.",
            self.work.compaction_ended.value() as f64,
        );
        out.histogram(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "How long compactions took, in milliseconds.",
            &[],
            &self.work.compaction.snapshot(),
        );
    }

    fn write_watches(&self, gauges: &Gauges, out: &mut Exposition) {
        out.gauge(
            "etcd_debugging_mvcc_pending_events_total",
            "Events that wait for their watch streams.",
            gauges.events_pending as f64,
        );
        out.counter(
            "etcd_debugging_mvcc_events_total",
            "Events handed to watch streams.",
            self.cores.sum(|core| &core.events),
        );
        for (name, help, durations) in [
            (
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
                "How long responses with events took to be made, in seconds.",
                self.cores.histogram(|core| &core.watch_response),
            ),
            (
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
                "How long that took for each event, in seconds.",
                self.cores.histogram(|core| &core.watch_event),
            ),
            (
                "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
                "How long answers to creations and cancellations took to be made, in seconds.",
                self.cores.histogram(|core| &core.watch_control),
            ),
            (
                "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
                "How long progress notifications took to be made, in seconds.",
                self.cores.histogram(|core| &core.watch_progress),
            ),
        ] {
            out.histogram(name, help, &[], &durations);
        }
        for (api, broken) in [
            ("watch", self.cores.sum(|core| &core.watch_broken)),
            (
                "lease-keepalive",
                self.cores.sum(|core| &core.keep_alive_broken),
            ),
        ] {
            if broken > 0 {
                let labels = [("API", api), ("Type", "receive")];
                let help = "Streams of clients that broke.";
                out.number(
                    "etcd_network_server_stream_failures_total",
                    Type::Counter,
                    help,
                    &labels,
                    broken as f64,
                );
            }
        }
    }

    fn write_images(&self, out: &mut Exposition) {
        let (defragmentations, under_way) = self.work.defragmentations();
        out.histogram(
            "etcd_disk_backend_defrag_duration_seconds",
            "How long calls for a defragmentation took, in seconds.",
            &[],
            &defragmentations,
        );
        out.gauge(
            "etcd_disk_defrag_inflight",
            "Defragmentations that are under way.",
            under_way as f64,
        );
        for (name, help, durations) in [
            (
                "etcd_disk_backend_snapshot_duration_seconds",
                "How long images took to be made and read by who asked for them, in seconds.",
                &self.work.image_sent,
            ),
            (
                "etcd_snap_db_save_total_duration_seconds",
                "How long it took to store received images, in seconds.",
                &self.work.image_saved,
            ),
            (
                "etcd_snap_db_fsync_duration_seconds",
                "How long syncs of received images took, in seconds.",
                &self.work.image_synced,
            ),
        ] {
            out.histogram(name, help, &[], &durations.snapshot());
        }
        out.gauge(
            "etcd_server_snapshot_apply_in_progress_total",
            "1 while a received image is taken in.",
            self.work.installing.value() as f64,
        );
    }

    fn write_learners(&self, out: &mut Exposition) {
        out.counter(
            "etcd_server_learner_promote_successes",
            "Learners that were promoted here.",
            self.work.promotions.value(),
        );
        for (reason, count) in self.work.promotions_refused() {
            out.number(
                "etcd_server_learner_promote_failures",
                Type::Counter,
                "Promotions that were refused here.",
                &[("Reason", &reason)],
                count as f64,
            );
        }
    }

    /// What etcd has nothing like.
    fn write_own(&self, gauges: &Gauges, out: &mut Exposition) {
        out.counter(
            "quorate_backup_spilled_bytes_total",
            "Bytes of backups that clients did not take in time, so that they went through a file.",
            self.work.backup_spilled.value(),
        );
        out.histogram(
            "quorate_consensus_batch_inputs",
            "Inputs that the node took in one go.",
            &[],
            &self.work.consensus_batch.snapshot(),
        );
        out.gauge(
            "quorate_consensus_inputs_waiting",
            "Inputs that wait for the node.",
            gauges.consensus_waiting as f64,
        );
        out.histogram(
            "quorate_wal_batch_writes",
            "Writes that one sync of the log covered.",
            &[],
            &self.work.wal_batch.snapshot(),
        );
        out.gauge(
            "quorate_watch_lag_revisions",
            "Revisions that the watcher which is most behind has yet to see.",
            gauges.watch_lag as f64,
        );
    }
}

/// Images to and from one member; as with etcd, nothing is shown before the first.
pub(super) fn write_snapshots(remote: &str, peer: &PeerMetrics, out: &mut Exposition) {
    let names = [
        "etcd_network_snapshot_send_success",
        "etcd_network_snapshot_send_failures",
        "etcd_network_snapshot_send_inflights_total",
        "etcd_network_snapshot_send_total_duration_seconds",
    ];
    write_direction(&names, ("To", remote), &peer.snapshots_sent, out);
    let names = [
        "etcd_network_snapshot_receive_success",
        "etcd_network_snapshot_receive_failures",
        "etcd_network_snapshot_receive_inflights_total",
        "etcd_network_snapshot_receive_total_duration_seconds",
    ];
    write_direction(&names, ("From", remote), &peer.snapshots_received, out);
}

fn write_direction(
    [success, failures, inflights, duration]: &[&'static str; 4],
    label: (&str, &str),
    snapshots: &SnapshotMetrics,
    out: &mut Exposition,
) {
    if !snapshots.is_used() {
        return;
    }
    let labels = [label];
    let succeeded = snapshots.succeeded.value() as f64;
    let help = "Images that arrived.";
    out.number(success, Type::Counter, help, &labels, succeeded);
    let failed = snapshots.failed.value() as f64;
    let help = "Images that did not arrive.";
    out.number(failures, Type::Counter, help, &labels, failed);
    let in_flight = snapshots.in_flight.value() as f64;
    let help = "Images on their way.";
    out.number(inflights, Type::Gauge, help, &labels, in_flight);
    let help = "How long images took on their way, in seconds.";
    out.histogram(duration, help, &labels, &snapshots.duration.snapshot());
}
