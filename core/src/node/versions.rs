//! The cluster's version: settled by the leader, taken down when an operator wants to go back to an earlier version.
//!
//! What follows from which versions is decided in [`crate::member::version`].

use quorate_proto::etcdserverpb as pb;
use quorate_proto::membershippb;

use super::{ETCD_VERSION, Node};
use crate::apply::ApplyError;
use crate::member::version::{MajorMinor, major_minor, next_cluster_version};
use crate::node::upkeep::PROPOSAL_RETRY;

/// How long a leader waits to learn the versions of all members before it settles for the lowest.
const VERSIONS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
/// The cluster version as long as not every member is known.
const CLUSTER_VERSION_MIN: MajorMinor = (3, 0);

impl Node {
    /// The leader proposes another cluster version when one is due.
    pub(super) fn settle_cluster_version(&mut self) {
        if self.now < self.upkeep.version_due || !self.consensus.has_committed_in_term() {
            return;
        }
        let Some((major, minor)) = self.cluster_version_wanted() else {
            return;
        };
        self.upkeep.version_due = self.now.after(PROPOSAL_RETRY);
        let ver = format!("{major}.{minor}.0");
        let set = membershippb::ClusterVersionSetRequest { ver };
        self.propose_own(pb::InternalRaftRequest {
            cluster_version_set: Some(set),
            ..Default::default()
        });
    }

    fn cluster_version_wanted(&self) -> Option<MajorMinor> {
        let present = self.state.cluster_version.as_deref().and_then(major_minor);
        let lowest = self.lowest_version();
        match (present, lowest) {
            (None, Some(lowest)) => Some(lowest),
            (None, None) => {
                let has_waited = self.now.since(self.leadership.elected) >= VERSIONS_PATIENCE;
                has_waited.then_some(CLUSTER_VERSION_MIN)
            }
            (Some(present), Some(lowest)) => {
                next_cluster_version(present, lowest, self.state.downgrade.as_ref())
            }
            (Some(_), None) => None,
        }
    }

    /// The lowest version of all members; `None` as long as one is not known.
    fn lowest_version(&self) -> Option<MajorMinor> {
        let own = major_minor(ETCD_VERSION).expect("it is a version");
        let others = self
            .state
            .membership
            .members()
            .filter(|member| member.id != self.config.member);
        let mut lowest = own;
        for member in others {
            let known = self.peer_versions.get(&member.id.0)?;
            lowest = lowest.min(known.as_deref().and_then(major_minor)?);
        }
        Some(lowest)
    }

    /// Whether the cluster has the version that a downgrade goes to, durably on this member.
    pub(super) fn is_ready_for_downgrade(&self) -> bool {
        let target = self.state.downgrade.as_ref().filter(|it| it.enabled);
        let Some(target) = target.and_then(|it| major_minor(&it.target_version)) else {
            return false;
        };
        let checkpoints = &self.checkpoints;
        let present = self.state.cluster_version.as_deref().and_then(major_minor);
        present == Some(target) && checkpoints.lowered.is_none_or(|at| at <= checkpoints.last)
    }

    /// Looks at a new cluster version before it is applied. One that is lower than before wants a checkpoint, so that
    /// what is read at the next start, perhaps by an earlier version, holds nothing of the higher one.
    pub(super) fn on_cluster_version(&mut self, version: &str) -> Result<(), ApplyError> {
        let present = self.state.cluster_version.as_deref().and_then(major_minor);
        let next = major_minor(version);
        if next > major_minor(ETCD_VERSION) {
            return Err(ApplyError {
                index: self.state.index.0,
                reason: format!(
                    "invalid downgrade; server version {ETCD_VERSION} is lower than determined cluster version {version}"
                ),
            });
        }
        if next < present {
            self.checkpoints.lowered = Some(self.state.index);
        }
        Ok(())
    }
}
