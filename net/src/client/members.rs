//! Calls that change the members of the cluster. None is repeated: a server may have carried it out.

use quorate_proto::etcdserverpb as pb;

use super::{Client, ClientError, Repeat};
use crate::grpc::etcdserverpb::cluster_client::ClusterClient;

impl Client {
    /// Adds a voter or a learner that will have these peer URLs.
    pub async fn member_add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<pb::MemberAddResponse, ClientError> {
        let request = pb::MemberAddRequest {
            peer_urls,
            is_learner,
        };
        self.call(Repeat::Never, |channel| {
            let request = self.request(request.clone());
            async move { ClusterClient::new(channel).member_add(request).await }
        })
        .await
    }

    /// Removes a member for ever.
    pub async fn member_remove(&self, id: u64) -> Result<pb::MemberRemoveResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(pb::MemberRemoveRequest { id });
            async move { ClusterClient::new(channel).member_remove(request).await }
        })
        .await
    }

    /// Gives a member other peer URLs.
    pub async fn member_update(
        &self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<pb::MemberUpdateResponse, ClientError> {
        let request = pb::MemberUpdateRequest { id, peer_urls };
        self.call(Repeat::Never, |channel| {
            let request = self.request(request.clone());
            async move { ClusterClient::new(channel).member_update(request).await }
        })
        .await
    }

    /// Makes a learner a voter.
    pub async fn member_promote(&self, id: u64) -> Result<pb::MemberPromoteResponse, ClientError> {
        self.call(Repeat::Never, |channel| {
            let request = self.request(pb::MemberPromoteRequest { id });
            async move { ClusterClient::new(channel).member_promote(request).await }
        })
        .await
    }
}
