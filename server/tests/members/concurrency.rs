//! The Lock and Election services.

use std::time::Duration;

use bytes::Bytes;
use quorate_net::grpc::v3electionpb::election_client::ElectionClient;
use quorate_net::grpc::v3lockpb::lock_client::LockClient;
use quorate_proto::{etcdserverpb as pb, v3electionpb as epb, v3lockpb};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::support::Member;

/// Nothing here takes this long unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

async fn locks(member: &Member) -> LockClient<Channel> {
    LockClient::new(member.channel().await)
}

async fn elections(member: &Member) -> ElectionClient<Channel> {
    ElectionClient::new(member.channel().await)
}

async fn grant(member: &Member, id: i64) {
    let grant = pb::LeaseGrantRequest { ttl: 600, id };
    let granted = member.lease().await.lease_grant(grant).await;
    granted.expect("it is legal");
}

fn lock(lease: i64) -> v3lockpb::LockRequest {
    v3lockpb::LockRequest {
        name: "L".into(),
        lease,
    }
}

fn unlock(key: &'static str) -> v3lockpb::UnlockRequest {
    v3lockpb::UnlockRequest { key: key.into() }
}

/// Asks for the lock in the background, and returns when the call has its place in the queue.
async fn wait_in_queue(
    member: &Member,
    lease: i64,
) -> JoinHandle<Result<Response<v3lockpb::LockResponse>, Status>> {
    let mut client = locks(member).await;
    let waiting = tokio::spawn(async move { client.lock(lock(lease)).await });
    until_exists(member, &format!("L/{lease:x}"), true).await;
    waiting
}

/// Waits until a key exists, or does not.
async fn until_exists(member: &Member, key: &str, wanted: bool) {
    let mut kv = member.kv().await;
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let range = pb::RangeRequest {
                key: Bytes::from(key.to_owned()),
                ..Default::default()
            };
            let found = kv.range(range).await.expect("it is legal").into_inner();
            if (found.count == 1) == wanted {
                return;
            }
            looks.tick().await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{key} exists: not {wanted}"));
}

/// The text of a refusal; its code is always the same.
fn text<T: std::fmt::Debug>(refused: Result<T, Status>) -> String {
    let refused = refused.expect_err("it is refused");
    assert_eq!(refused.code(), Code::Unknown, "{refused:?}");
    refused.message().to_owned()
}

#[tokio::test]
async fn a_lock_goes_to_who_has_waited_longest() {
    let member = Member::alone();
    for lease in [10, 11, 12] {
        grant(&member, lease).await;
    }
    let held = locks(&member).await.lock(lock(10)).await;
    let held = held.expect("nobody else wants it").into_inner();
    assert_eq!(held.key, "L/a");
    let again = locks(&member).await.lock(lock(10)).await;
    let again = again.expect("it is held").into_inner();
    assert_eq!(
        (again.key, again.header.map(|header| header.revision)),
        (held.key, Some(2))
    );

    let second = wait_in_queue(&member, 11).await;
    let third = wait_in_queue(&member, 12).await;
    let unlocked = locks(&member).await.unlock(unlock("L/a")).await;
    unlocked.expect("it is legal");
    let held = second.await.unwrap().expect("it is its turn").into_inner();
    assert_eq!(held.key, "L/b");
    assert!(!third.is_finished(), "one holder at a time");

    // A lease that ends gives the lock up.
    let revoke = pb::LeaseRevokeRequest { id: 11 };
    let revoked = member.lease().await.lease_revoke(revoke).await;
    revoked.expect("it is legal");
    let held = third.await.unwrap().expect("it is its turn").into_inner();
    assert_eq!(held.key, "L/c");
}

#[tokio::test]
async fn a_lock_call_that_is_given_up_leaves_the_queue() {
    let member = Member::alone();
    for lease in [10, 11, 12] {
        grant(&member, lease).await;
    }
    let held = locks(&member).await.lock(lock(10)).await;
    held.expect("nobody else wants it");
    let impatient = wait_in_queue(&member, 11).await;
    let patient = wait_in_queue(&member, 12).await;
    impatient.abort();
    until_exists(&member, "L/b", false).await;
    let unlocked = locks(&member).await.unlock(unlock("L/a")).await;
    unlocked.expect("it is legal");
    patient.await.unwrap().expect("nobody is before it");
}

#[tokio::test]
async fn locks_refuse_in_etcds_words() {
    let member = Member::alone();
    let not_found = locks(&member).await.lock(lock(99)).await;
    assert_eq!(text(not_found), "etcdserver: requested lease not found");
    let nameless = locks(&member).await.unlock(unlock("")).await;
    assert_eq!(text(nameless), "etcdserver: key is not provided");

    for lease in [10, 11] {
        grant(&member, lease).await;
    }
    let held = locks(&member).await.lock(lock(10)).await;
    held.expect("nobody else wants it");
    let waiting = wait_in_queue(&member, 11).await;
    let revoke = pb::LeaseRevokeRequest { id: 11 };
    let revoked = member.lease().await.lease_revoke(revoke).await;
    revoked.expect("it is legal");
    let unlocked = locks(&member).await.unlock(unlock("L/a")).await;
    unlocked.expect("it is legal");
    assert_eq!(text(waiting.await.unwrap()), "mutex: session is expired");

    // Without a lease the caller gets one.
    let held = locks(&member).await.lock(lock(0)).await;
    let held = held.expect("nobody else wants it").into_inner();
    let range = pb::RangeRequest {
        key: held.key,
        ..Default::default()
    };
    let found = member.kv().await.range(range).await.expect("it is legal");
    assert_ne!(found.into_inner().kvs[0].lease, 0);
}

fn campaign(lease: i64, value: &'static str) -> epb::CampaignRequest {
    epb::CampaignRequest {
        name: "E".into(),
        lease,
        value: value.into(),
    }
}

fn election() -> epb::LeaderRequest {
    epb::LeaderRequest { name: "E".into() }
}

#[tokio::test]
async fn an_election_has_one_leader_whom_everybody_can_observe() {
    let member = Member::alone();
    for lease in [10, 11] {
        grant(&member, lease).await;
    }
    let mut client = elections(&member).await;
    assert_eq!(text(client.leader(election()).await), "election: no leader");
    let observed = elections(&member).await.observe(election()).await;
    let mut observed = observed.expect("it is legal").into_inner();

    let won = client.campaign(campaign(10, "one")).await;
    let leader = won.expect("nobody else is there").into_inner().leader;
    let leader = leader.expect("the place that leads");
    assert_eq!((&*leader.key, leader.lease), (&b"E/a"[..], 10));
    let said = async |observed: &mut tonic::Streaming<epb::LeaderResponse>| {
        let next = tokio::time::timeout(PATIENCE, observed.message());
        let response = next.await.expect("within patience").expect("it goes on");
        response
            .and_then(|response| response.kv)
            .expect("a leader")
            .value
    };
    assert_eq!(said(&mut observed).await, "one");

    let mut other = elections(&member).await;
    let candidate = tokio::spawn(async move { other.campaign(campaign(11, "two")).await });
    until_exists(&member, "E/b", true).await;
    let proclaim = epb::ProclaimRequest {
        leader: Some(leader.clone()),
        value: "one, still".into(),
    };
    client.proclaim(proclaim).await.expect("it leads");
    assert_eq!(said(&mut observed).await, "one, still");
    // Who campaigns again with what it has says something else.
    let again = client.campaign(campaign(10, "one, again")).await;
    assert_eq!(
        again
            .expect("it leads")
            .into_inner()
            .leader
            .map(|leader| leader.rev),
        Some(leader.rev)
    );
    assert_eq!(said(&mut observed).await, "one, again");

    let resign = epb::ResignRequest {
        leader: Some(leader.clone()),
    };
    client.resign(resign).await.expect("it is legal");
    let won = candidate.await.unwrap().expect("it is its turn");
    assert_eq!(won.into_inner().leader.map(|leader| leader.lease), Some(11));
    assert_eq!(said(&mut observed).await, "two");
    let now = client.leader(election()).await.expect("there is one");
    assert_eq!(now.into_inner().kv.map(|kv| kv.value), Some("two".into()));

    let proclaim = epb::ProclaimRequest {
        leader: Some(leader),
        value: "too late".into(),
    };
    assert_eq!(
        text(client.proclaim(proclaim).await),
        "election: not leader"
    );
    let nobody = epb::ProclaimRequest::default();
    assert_eq!(
        text(client.proclaim(nobody).await),
        "\"leader\" field must be provided"
    );
}
