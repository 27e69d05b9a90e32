//! Clients that write and read a few keys through all members and record what they saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::{request_op, response_op};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::check::{Call, Operation, Outcome};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many keys there are.
const KEYS: usize = 8;

/// What all clients share.
pub(super) struct Shared {
    pub(super) started: Instant,
    pub(super) is_over: AtomicBool,
    pub(super) history: Mutex<Vec<Operation>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            is_over: AtomicBool::new(false),
            history: Mutex::default(),
        })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a short run")
    }
}

/// Connections that come and go with the members.
pub(super) fn connect(url: &str) -> Result<KvClient<Channel>, String> {
    let endpoint =
        Endpoint::from_shared(url.to_string()).map_err(|error| format!("{url}: {error}"))?;
    Ok(KvClient::new(
        endpoint
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy(),
    ))
}

/// One client: one operation at a time, until told to end.
pub(super) async fn client(
    shared: Arc<Shared>,
    number: usize,
    mut members: Vec<KvClient<Channel>>,
    seed: u64,
) {
    let mut random = SmallRng::seed_from_u64(seed ^ (number as u64) << 32);
    let mut count = 0u64;
    let mut seen = [0i64; KEYS];
    while !shared.is_over.load(Ordering::Relaxed) {
        count += 1;
        let key = random.random_range(0..KEYS);
        let value = format!("{number}-{count}");
        let name = format!("key{key}");
        let call = match random.random_range(0..10) {
            0..4 => Call::Put { key: name, value },
            4..6 => Call::Swap {
                key: name,
                value,
                expected: seen[key],
            },
            _ => Call::Get { key: name },
        };
        let index = random.random_range(0..members.len());
        let member = &mut members[index];
        let began_ns = shared.now_ns();
        let answer = tokio::time::timeout(PATIENCE, carry_out(member, &call)).await;
        let ended_ns = shared.now_ns();
        let outcome = match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        match &outcome {
            Outcome::Written(revision) => seen[key] = *revision,
            Outcome::Read { found, .. } => seen[key] = found.as_ref().map_or(0, |(_, at)| *at),
            Outcome::NotSwapped(_) | Outcome::Unknown => {}
        }
        let is_unknown = outcome == Outcome::Unknown;
        let ended_ns = if is_unknown { u64::MAX } else { ended_ns };
        shared.history.lock().expect("no panic").push(Operation {
            call,
            began_ns,
            ended_ns,
            outcome,
        });
        if is_unknown {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn carry_out(member: &mut KvClient<Channel>, call: &Call) -> Result<Outcome, Status> {
    let revision = |header: Option<pb::ResponseHeader>| header.map_or(0, |header| header.revision);
    Ok(match call {
        Call::Put { key, value } => {
            let put = pb::PutRequest {
                key: bytes(key),
                value: bytes(value),
                ..Default::default()
            };
            Outcome::Written(revision(member.put(put).await?.into_inner().header))
        }
        Call::Get { key } => {
            let get = pb::RangeRequest {
                key: bytes(key),
                ..Default::default()
            };
            let response = member.range(get).await?.into_inner();
            let found = response.kvs.first().map(|kv| {
                (
                    String::from_utf8_lossy(&kv.value).into_owned(),
                    kv.mod_revision,
                )
            });
            Outcome::Read {
                found,
                revision: revision(response.header),
            }
        }
        Call::Swap {
            key,
            value,
            expected,
        } => {
            let put = pb::PutRequest {
                key: bytes(key),
                value: bytes(value),
                ..Default::default()
            };
            let compare = pb::Compare {
                result: pb::compare::CompareResult::Equal as i32,
                target: pb::compare::CompareTarget::Mod as i32,
                key: bytes(key),
                target_union: Some(TargetUnion::ModRevision(*expected)),
                ..Default::default()
            };
            let success = vec![pb::RequestOp {
                request: Some(request_op::Request::RequestPut(put)),
            }];
            let txn = pb::TxnRequest {
                compare: vec![compare],
                success,
                failure: Vec::new(),
            };
            let response = member.txn(txn).await?.into_inner();
            let has_put = response.responses.iter().any(|response| {
                matches!(
                    response.response,
                    Some(response_op::Response::ResponsePut(_))
                )
            });
            let revision = revision(response.header);
            if response.succeeded && has_put {
                Outcome::Written(revision)
            } else {
                Outcome::NotSwapped(revision)
            }
        }
    })
}
