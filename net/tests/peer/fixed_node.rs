//! A node behind a peer port, with fixed answers.

use std::sync::Mutex;

use bytes::Bytes;
use hyper::body::Body;
use quorate_core::{LeaseId, MemberId, RequestError, Revision};
use quorate_net::peer::{IncomingSnapshot, LocalNode, Versions};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::raftpb::Message;

/// A member that was removed.
pub(crate) const REMOVED: MemberId = MemberId(0xdead);
/// A lease that can be renewed.
pub(crate) const LEASE: LeaseId = LeaseId(77);
/// A lease whose renewal never ends.
pub(crate) const LEASE_STUCK: LeaseId = LeaseId(78);

#[derive(Default)]
pub(crate) struct FixedNode {
    /// Snapshots that came: (index, image).
    pub(crate) snapshots: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl LocalNode for FixedNode {
    async fn receive_snapshot<B>(
        &self,
        message: Message,
        mut image: IncomingSnapshot<B>,
    ) -> Result<u64, String>
    where
        B: Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut whole = Vec::new();
        while let Some(part) = image.next().await? {
            whole.extend_from_slice(&part);
        }
        let bytes = whole.len() as u64;
        let index = message.snapshot.expect("a snapshot").metadata.index;
        self.snapshots
            .lock()
            .expect("no panic")
            .push((index, whole));
        Ok(bytes)
    }

    async fn promote(
        &self,
        _: MemberId,
        _: Option<http::HeaderValue>,
    ) -> Result<Vec<pb::Member>, RequestError> {
        Err(RequestError::NotLeader)
    }

    fn is_removed(&self, member: MemberId) -> bool {
        member == REMOVED
    }

    fn members(&self) -> Vec<pb::Member> {
        vec![pb::Member {
            id: 9,
            peer_urls: vec!["http://nine:1".to_owned()],
            ..pb::Member::default()
        }]
    }

    fn versions(&self) -> Versions {
        let (server, cluster) = ("3.7.1".to_owned(), "3.7.0".to_owned());
        Versions {
            server,
            storage: cluster.clone(),
            cluster,
        }
    }

    async fn lease_renew(&self, id: LeaseId) -> Result<i64, RequestError> {
        match id {
            LEASE => Ok(60),
            LEASE_STUCK => std::future::pending().await,
            _ => Err(RequestError::LeaseNotFound),
        }
    }

    async fn lease_time_to_live(
        &self,
        id: LeaseId,
        keys: bool,
    ) -> Result<pb::LeaseTimeToLiveResponse, RequestError> {
        if id != LEASE {
            return Err(RequestError::LeaseNotFound);
        }
        let keys = if keys { vec!["k".into()] } else { Vec::new() };
        Ok(pb::LeaseTimeToLiveResponse {
            header: None,
            id: id.0,
            ttl: 5,
            granted_ttl: 60,
            keys,
        })
    }

    async fn hash_kv(&self, revision: Revision) -> Result<pb::HashKvResponse, RequestError> {
        if revision.0 > 10 {
            return Err(RequestError::FutureRev);
        }
        let header = Some(pb::ResponseHeader {
            revision: 10,
            ..Default::default()
        });
        Ok(pb::HashKvResponse {
            header,
            hash: 4,
            compact_revision: -1,
            hash_revision: 10,
        })
    }

    async fn downgrade_enabled(&self) -> Result<bool, RequestError> {
        Ok(false)
    }
}
