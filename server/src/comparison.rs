//! Asks members for the hashes of their data: for the node, which compares them now and then, and before the start.
//!
//! Owns the asking alone. When to ask and what the answers mean is decided in the core.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use quorate_core::boundary::{Gathered, Input};
use quorate_core::corruption::{
    Finding, FindingKind, HashRefusal, Hashed, PeerHash, compare_at_start,
};
use quorate_core::error::RequestError;
use quorate_core::mvcc::View;
use quorate_core::node::Recovered;
use quorate_core::types::{ClusterId, MemberId, Revision};
use quorate_core::wal::Metadata;
use quorate_net::peer::{CallError, Endpoint, PeerClient, Transport, Wire};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::driver::queue::Queue;
use crate::state::ServerState;

/// What the node wants to know.
#[derive(Debug)]
pub(crate) struct Question {
    /// Names the answer.
    pub(crate) number: u64,
    /// At which revision; `None` is that of the own hash.
    pub(crate) revision: Option<Revision>,
    /// Whom to ask.
    pub(crate) peers: Vec<MemberId>,
}

/// Answers the node's questions for as long as it asks.
pub(crate) async fn answer_forever(
    mut questions: mpsc::UnboundedReceiver<Question>,
    transport: Arc<Transport>,
    state: Arc<ServerState>,
    inbox: Arc<Queue<Input>>,
) {
    while let Some(Question {
        number,
        revision,
        peers,
    }) = questions.recv().await
    {
        let own = match revision {
            Some(_) => None,
            None => Some(hash_own(&state, Revision(0)).await),
        };
        let at = match &own {
            Some(Ok(own)) => Some(own.hash.hash_revision),
            Some(Err(_)) => None,
            None => revision,
        };
        let asked = peers.into_iter().map(|member| {
            let (transport, state) = (&transport, &state);
            async move {
                let nobody = HashRefusal::NoAnswer("there is nothing to compare".to_owned());
                let answer = match at {
                    Some(revision) => {
                        let endpoints = transport.endpoints(member);
                        let patience = state.limits.request_timeout;
                        let client = transport.client();
                        ask(client, &endpoints, state.cluster, revision, patience).await
                    }
                    None => Err(nobody),
                };
                PeerHash { member, answer }
            }
        });
        let peers = join_all(asked).await;
        let gathered = Gathered { number, own, peers };
        inbox.push(Input::HashesGathered(gathered));
    }
}

/// Hashes this member's data, beside everything else that goes on.
pub(crate) async fn hash_own(
    state: &ServerState,
    revision: Revision,
) -> Result<Hashed, RequestError> {
    let view = state.view.clone();
    let begun = std::time::Instant::now();
    let hashed = tokio::task::spawn_blocking(move || hash(&view, revision)).await;
    let hashed = hashed.map_err(|_| RequestError::Stopped)??;
    state.metrics.hash_revision.observe(begun.elapsed());
    Ok(hashed)
}

fn hash(view: &View, revision: Revision) -> Result<Hashed, RequestError> {
    let newest = view.revision();
    let hash = view.hash_kv(revision)?;
    let newest = newest.max(hash.hash_revision);
    Ok(Hashed { hash, newest })
}

/// Asks a member at one of its URLs after the other.
async fn ask(
    client: &PeerClient,
    endpoints: &[Endpoint],
    cluster: ClusterId,
    revision: Revision,
    patience: Duration,
) -> Result<Hashed, HashRefusal> {
    let mut refusal = HashRefusal::NoAnswer("no URL of it is known".to_owned());
    for endpoint in endpoints {
        refusal = match timeout(patience, client.hash_kv(endpoint, cluster, revision)).await {
            Ok(Ok(answer)) => {
                let newest = answer.header.map_or(0, |header| header.revision);
                let hash = quorate_core::mvcc::HashKv {
                    hash: answer.hash,
                    compact_revision: Revision(answer.compact_revision),
                    hash_revision: Revision(answer.hash_revision),
                };
                let newest = Revision(newest);
                return Ok(Hashed { hash, newest });
            }
            Ok(Err(error)) => refusal_of(error),
            Err(_) => HashRefusal::NoAnswer("context deadline exceeded".to_owned()),
        };
    }
    Err(refusal)
}

fn refusal_of(error: CallError) -> HashRefusal {
    let CallError::Refused { status, text } = &error else {
        return HashRefusal::NoAnswer(error.to_string());
    };
    let says = |words| text.contains(words);
    match *status {
        StatusCode::BAD_REQUEST if says("mvcc: required revision has been compacted") => {
            HashRefusal::Compacted
        }
        StatusCode::BAD_REQUEST if says("mvcc: required revision is a future revision") => {
            HashRefusal::FutureRevision
        }
        StatusCode::PRECONDITION_FAILED if says("cluster ID mismatch") => HashRefusal::OtherCluster,
        _ => HashRefusal::NoAnswer(format!("unknown error: {text}")),
    }
}

/// Feature gate InitialCorruptCheck: compares what the disk held with what the others have, before this member takes part.
///
/// # Errors
/// In etcd's words, if the data differ.
pub(crate) async fn at_start(
    config: &Config,
    wire: &Wire,
    metadata: Metadata,
    recovered: &Recovered,
) -> Result<(), String> {
    let own = format!("{:x}", metadata.member.0);
    let patience = config.request_timeout();
    info!(
        "local-member-id" = own,
        ?patience,
        "starting initial corruption check"
    );
    let view = recovered.view();
    let hashed = hash(&view, Revision(0))
        .map_err(|error| format!("{own} failed to fetch hash ({error})"))?;
    if !view.is_telling_at(hashed.hash.hash_revision) {
        info!(
            "local-member-id" = own,
            "initial corruption checking passed; there is no key to compare"
        );
        return Ok(());
    }
    let client = PeerClient::new(wire);
    let others = recovered.members().into_iter();
    let asked = others
        .filter(|member| member.id != metadata.member)
        .map(|member| {
            let urls = member.peer_urls.iter();
            let endpoints: Vec<_> = urls.filter_map(|url| Endpoint::parse(url).ok()).collect();
            let (client, revision) = (&client, hashed.hash.hash_revision);
            async move {
                let answer = ask(client, &endpoints, metadata.cluster, revision, patience).await;
                PeerHash {
                    member: member.id,
                    answer,
                }
            }
        });
    let peers = join_all(asked).await;
    let findings = compare_at_start(hashed.hash, &peers);
    log_findings(metadata.member, &findings);
    if findings.iter().any(|finding| finding.kind.is_damage()) {
        let reason = format!("{own} found data inconsistency with peers");
        error!(error = reason, "checkInitialHashKV failed");
        return Err(reason);
    }
    info!(
        "local-member-id" = own,
        "initial corruption checking passed; no corruption"
    );
    Ok(())
}

/// Tells what a comparison has found.
pub(crate) fn log_findings(own: MemberId, findings: &[Finding]) {
    for Finding { member, kind } in findings {
        let local = format!("{:x}", own.0);
        let remote = format!("{:x}", member.0);
        let detail = detail_of(kind);
        if matches!(kind, FindingKind::NoMajority) {
            error!("local-member-id" = local, "{kind}");
        } else {
            warn!(
                "local-member-id" = local,
                "remote-peer-id" = remote,
                detail,
                "{kind}"
            );
        }
    }
}

fn detail_of(kind: &FindingKind) -> String {
    match kind {
        FindingKind::OtherHash { own, other, .. } | FindingKind::OtherCompaction { own, other } => {
            format!(
                "hash {} at revision {}, compacted to {}; the other's {} at {}, compacted to {}",
                own.hash,
                own.hash_revision.0,
                own.compact_revision.0,
                other.hash,
                other.hash_revision.0,
                other.compact_revision.0
            )
        }
        FindingKind::OwnHashChanged { first, second } => format!(
            "hash {} and then {} at revision {}",
            first.hash, second.hash, first.hash_revision.0
        ),
        FindingKind::AheadOfLeader { newest, leader } => {
            format!("revision {}, the leader's is {}", newest.0, leader.0)
        }
        FindingKind::CompactedBeyondLeader { compacted, leader } => {
            format!("compacted to {}, the leader to {}", compacted.0, leader.0)
        }
        FindingKind::Refused(refusal) => refusal.to_string(),
        FindingKind::NoMajority => String::new(),
    }
}
