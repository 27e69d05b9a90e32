//! What the plain HTTP pages see of the member: the numbers of this moment, and a linearizable read.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::boundary::Request;
use quorate_core::types::MemberId;
use quorate_net::peer::PeerStatus;
use quorate_proto::etcdserverpb as pb;

use crate::http::Member;
use crate::io::core;
use crate::metrics::{Counter, Gauges, Metrics};
use crate::state::ServerState;

/// The member, asked from an IO core.
#[derive(Clone, Debug)]
pub(crate) struct Seen(pub(crate) Arc<ServerState>);

impl Member for Seen {
    fn gauges(&self) -> Gauges {
        let state = &self.0;
        for link in core::peers()
            .map(|peers| peers.statuses())
            .unwrap_or_default()
        {
            copy_link(&state.metrics, &link);
        }
        let status = state.status();
        let compact_revision = state.view.compact_revision().0;
        let watches = state.watch_counts();
        Gauges {
            has_leader: status.leader.is_some(),
            is_leader: status.leader == Some(state.member),
            is_learner: status.is_learner,
            leader_changes: Some(status.leader_changes),
            cluster_version: status.cluster_version.clone(),
            committed: status.committed.0,
            applied: status.applied.0,
            proposals_pending: status.proposals_pending as u64,
            quota_bytes: state.limits.quota_bytes.max(0),
            db_bytes: i64::try_from(status.size_bytes).unwrap_or(i64::MAX),
            db_bytes_in_use: i64::try_from(status.size_in_use_bytes).unwrap_or(i64::MAX),
            revision: state.view.revision().0,
            compact_revision,
            auth_revision: state.guard.rules.rules().revision(),
            keys: key_count(state),
            watch_streams: Some(watches.streams),
            watchers: Some(watches.watchers),
            slow_watchers: Some(watches.behind),
            events_pending: watches.pending,
            watch_lag: watches.lag,
            consensus_waiting: core::inputs_waiting(),
            members: status
                .members
                .iter()
                .map(|member| MemberId(member.id))
                .collect(),
            alarms: status
                .alarms
                .iter()
                .map(|alarm| (MemberId(alarm.member_id), alarm.alarm().as_str_name()))
                .collect(),
        }
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        match core::request(Request::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// All keys that exist; counting them costs a walk down the index, whatever their number.
fn key_count(state: &ServerState) -> Option<u64> {
    let everything = pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        count_only: true,
        ..pb::RangeRequest::default()
    };
    let counted = state.view.range(&everything).ok()?;
    u64::try_from(counted.count).ok()
}

/// Brings the metrics of a link up to what the transport counted.
fn copy_link(metrics: &Metrics, link: &PeerStatus) {
    let peer = metrics.peer(link.member);
    let catch_up =
        |counter: &Counter, total: u64| counter.add(total.saturating_sub(counter.value()));
    catch_up(&peer.sent_bytes, link.sent_bytes);
    catch_up(&peer.received_bytes, link.received_bytes);
    catch_up(&peer.sent_failures, link.sent_failures);
    catch_up(&peer.received_failures, link.received_failures);
    catch_up(&peer.disconnected, link.disconnects);
    peer.active.set(i64::from(link.active_since.is_some()));
    if let Some(round_trip) = link.round_trip
        && peer.round_trip.snapshot().count() < link.probes
    {
        // One observation a scrape: probes are as rare as scrapes.
        peer.round_trip.observe(round_trip);
    }
}
