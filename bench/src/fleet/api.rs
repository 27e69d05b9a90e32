//! What an operator asks a cluster: of any of its members, again until it is done.
//!
//! An answer that is lost on its way leaves open whether the change was made, so each of these looks first, or takes the
//! refusal that says that it has been made for success.

use std::time::Duration;

use quorate_net::grpc::etcdserverpb::cluster_client::ClusterClient;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::patience::{until, until_by_attempts};

/// How long one member may take to answer before the next one is asked.
const ANSWER: Duration = Duration::from_secs(2);

/// A connection that is made when it is needed.
pub(crate) fn channel(url: &str) -> Result<Channel, String> {
    let endpoint =
        Endpoint::from_shared(url.to_string()).map_err(|error| format!("{url}: {error}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(10))
        .connect_lazy())
}

fn text(url: &str) -> impl Fn(Status) -> String {
    move |status| format!("{url}: {}", status.message())
}

/// Asks one member after the other, round and round.
async fn ask_any<T>(
    what: &str,
    urls: &[String],
    ask: impl AsyncFn(&str) -> Result<T, String>,
) -> Result<T, String> {
    let round = ANSWER * (u32::try_from(urls.len()).expect("a few members") + 1);
    until_by_attempts(what, round, async || {
        let mut last = "there is no member to ask".to_string();
        for url in urls {
            match tokio::time::timeout(ANSWER, ask(url)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => last = error,
                Err(_) => last = format!("{url}: no answer within {ANSWER:?}"),
            }
        }
        Err(last)
    })
    .await
}

pub(crate) async fn list(url: &str) -> Result<Vec<pb::Member>, String> {
    let mut client = ClusterClient::new(channel(url)?);
    let request = pb::MemberListRequest { linearizable: true };
    let response = client.member_list(request).await.map_err(text(url))?;
    Ok(response.into_inner().members)
}

/// Adds a learner; returns its id and all members.
pub(crate) async fn add_learner(
    urls: &[String],
    peer_url: &str,
) -> Result<(u64, Vec<pb::Member>), String> {
    let own = |members: &[pb::Member]| {
        let mut members = members.iter();
        let found = members.find(|member| member.peer_urls.iter().any(|url| url == peer_url));
        found.map(|member| member.id)
    };
    ask_any("a learner is added", urls, async |url| {
        let members = list(url).await?;
        if let Some(id) = own(&members) {
            return Ok((id, members));
        }
        let mut client = ClusterClient::new(channel(url)?);
        let request = pb::MemberAddRequest {
            peer_urls: vec![peer_url.to_string()],
            is_learner: true,
        };
        let response = client.member_add(request).await.map_err(text(url))?;
        let members = response.into_inner().members;
        let id = own(&members).ok_or("the new member is not listed")?;
        Ok((id, members))
    })
    .await
}

/// Makes a learner a voter, as soon as it is in sync.
pub(crate) async fn promote(urls: &[String], id: u64) -> Result<(), String> {
    ask_any("a learner is promoted", urls, async |url| {
        let mut client = ClusterClient::new(channel(url)?);
        match client.member_promote(pb::MemberPromoteRequest { id }).await {
            Err(status) if !status.message().ends_with("only promote a learner member") => {
                Err(text(url)(status))
            }
            _ => Ok(()),
        }
    })
    .await
}

/// Removes a member.
pub(crate) async fn remove(urls: &[String], id: u64) -> Result<(), String> {
    ask_any("a member is removed", urls, async |url| {
        let mut client = ClusterClient::new(channel(url)?);
        match client.member_remove(pb::MemberRemoveRequest { id }).await {
            Err(status) if !status.message().ends_with("member not found") => {
                Err(text(url)(status))
            }
            _ => Ok(()),
        }
    })
    .await
}

pub(crate) async fn status(url: &str) -> Result<pb::StatusResponse, String> {
    let mut client = MaintenanceClient::new(channel(url)?);
    let response = client.status(pb::StatusRequest {}).await;
    Ok(response.map_err(text(url))?.into_inner())
}

/// The id of the member that leads, by its own word.
pub(crate) async fn leader(urls: &[String]) -> Result<u64, String> {
    ask_any("a member leads", urls, async |url| {
        let status = status(url).await?;
        let own = status.header.map_or(0, |header| header.member_id);
        if own != 0 && own == status.leader {
            return Ok(own);
        }
        Err(format!("{url} does not lead"))
    })
    .await
}

/// Gives the leadership to a member.
pub(crate) async fn move_leader(urls: &[String], target_id: u64) -> Result<(), String> {
    ask_any("the leadership is moved", urls, async |url| {
        let status = status(url).await?;
        if status.leader == target_id {
            return Ok(());
        }
        let mut client = MaintenanceClient::new(channel(url)?);
        let request = pb::MoveLeaderRequest { target_id };
        client.move_leader(request).await.map_err(text(url))?;
        Ok(())
    })
    .await
}

/// The revision of the newest write.
pub(crate) async fn revision(urls: &[String]) -> Result<i64, String> {
    ask_any("a linearizable read", urls, read).await
}

/// A linearizable read by one member; the revision that it was answered from.
pub(crate) async fn read(url: &str) -> Result<i64, String> {
    let mut client = KvClient::new(channel(url)?);
    let get = pb::RangeRequest {
        key: "probe".into(),
        ..Default::default()
    };
    let response = client.range(get).await.map_err(text(url))?;
    let header = response.into_inner().header;
    Ok(header.map_or(0, |header| header.revision))
}

/// One write of a key that is not judged. Perhaps it was made though it was refused.
pub(crate) async fn put(url: &str, key: &str, value: &[u8]) -> Result<i64, String> {
    let mut client = KvClient::new(channel(url)?);
    let put = pb::PutRequest {
        key: key.to_string().into(),
        value: value.to_vec().into(),
        ..Default::default()
    };
    let response = client.put(put).await.map_err(text(url))?;
    let header = response.into_inner().header;
    Ok(header.map_or(0, |header| header.revision))
}

/// Forgets what was before a revision, everywhere.
pub(crate) async fn compact(urls: &[String], revision: i64) -> Result<(), String> {
    ask_any("old revisions are compacted", urls, async |url| {
        let mut client = KvClient::new(channel(url)?);
        let request = pb::CompactionRequest {
            revision,
            physical: true,
        };
        match client.compact(request).await {
            Err(status) if !status.message().ends_with("has been compacted") => {
                Err(text(url)(status))
            }
            _ => Ok(()),
        }
    })
    .await
}

pub(crate) async fn defragment(url: &str) -> Result<(), String> {
    until("a member is defragmented", async || {
        let mut client = MaintenanceClient::new(channel(url)?);
        let done = client.defragment(pb::DefragmentRequest {}).await;
        done.map(|_| ()).map_err(text(url))
    })
    .await
}

/// The alarms that are raised.
pub(crate) async fn alarms(urls: &[String]) -> Result<Vec<pb::AlarmMember>, String> {
    ask_any("alarms are listed", urls, async |url| {
        alarm(url, AlarmAction::Get, pb::AlarmMember::default()).await
    })
    .await
}

/// Ends one alarm.
pub(crate) async fn disarm(urls: &[String], which: pb::AlarmMember) -> Result<(), String> {
    ask_any("an alarm is ended", urls, async |url| {
        alarm(url, AlarmAction::Deactivate, which).await.map(|_| ())
    })
    .await
}

async fn alarm(
    url: &str,
    action: AlarmAction,
    which: pb::AlarmMember,
) -> Result<Vec<pb::AlarmMember>, String> {
    let mut client = MaintenanceClient::new(channel(url)?);
    let request = pb::AlarmRequest {
        action: action as i32,
        member_id: which.member_id,
        alarm: which.alarm,
    };
    let response = client.alarm(request).await.map_err(text(url))?;
    Ok(response.into_inner().alarms)
}
