//! Clients that write and read a few keys through all members and record what they saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::TargetUnion;
use quorate_proto::etcdserverpb::{request_op, response_op};
use quorate_sim::history::{Answer, Compare, Found, Is, KeyValue, Keys, Operation, Step};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

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

    pub(super) fn now_ns(&self) -> u64 {
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
        let place = random.random_range(0..KEYS);
        let value = format!("{number}-{count}");
        let mut operation = draw(&mut random, number as u64, place, value, seen[place]);
        let index = random.random_range(0..members.len());
        let member = &mut members[index];
        operation.began_ns = shared.now_ns();
        let answer = tokio::time::timeout(PATIENCE, carry_out(member, &operation)).await;
        let ended_ns = shared.now_ns();
        if let Ok(Ok(answer)) = answer {
            let answer = Answer { ended_ns, ..answer };
            seen[place] = learned(&operation, &answer, place).unwrap_or(seen[place]);
            operation.answer = Some(answer);
        }
        let is_unknown = operation.answer.is_none();
        shared.history.lock().expect("no panic").push(operation);
        if is_unknown {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn name(place: usize) -> String {
    format!("key{place}")
}

/// Puts, swaps, deletions and reads, of one key or of all.
fn draw(
    random: &mut SmallRng,
    client: u64,
    place: usize,
    value: String,
    expected: i64,
) -> Operation {
    let key = name(place);
    match random.random_range(0..20) {
        0..7 => Operation::put(client, 0, &key, &value),
        7..11 => Operation {
            compares: vec![Compare {
                key: key.clone(),
                is: Is::ModRevision(expected),
            }],
            ..Operation::put(client, 0, &key, &value)
        },
        11 => Operation::delete(client, 0, &key),
        12 => Operation::of(client, 0, Step::Get(all_keys())),
        _ => Operation::get(client, 0, &key),
    }
}

fn all_keys() -> Keys {
    Keys {
        key: name(0),
        range_end: Some(name(KEYS)),
    }
}

/// Everything, as one member has it.
pub(super) async fn read_all(
    shared: &Shared,
    member: &mut KvClient<Channel>,
) -> Result<Operation, Status> {
    let mut operation = Operation::of(u64::MAX, shared.now_ns(), Step::Get(all_keys()));
    let answer = carry_out(member, &operation).await?;
    let ended_ns = shared.now_ns();
    operation.answer = Some(Answer { ended_ns, ..answer });
    Ok(operation)
}

/// The mod revision that an answer tells of a key.
fn learned(operation: &Operation, answer: &Answer, place: usize) -> Option<i64> {
    match (&operation.success[..], &answer.results[..]) {
        (_, [Found::Put]) => Some(answer.revision),
        (_, [Found::Deleted(_)]) => Some(0),
        (_, [Found::Got(found)]) => {
            let key = name(place);
            let found = found.iter().find(|kv| kv.key == key);
            Some(found.map_or(0, |kv| kv.mod_revision))
        }
        _ => None,
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Sends an operation; the time of the answer is the caller's.
async fn carry_out(
    member: &mut KvClient<Channel>,
    operation: &Operation,
) -> Result<Answer, Status> {
    let revision = |header: Option<pb::ResponseHeader>| header.map_or(0, |header| header.revision);
    let answer = |revision, found| Answer {
        ended_ns: 0,
        revision,
        succeeded: true,
        results: vec![found],
    };
    let step = &operation.success[0];
    if !operation.compares.is_empty() {
        return swap(member, operation).await;
    }
    Ok(match step {
        Step::Put { key, value } => {
            let response = member.put(put(key, value)).await?.into_inner();
            answer(revision(response.header), Found::Put)
        }
        Step::Get(keys) => {
            let get = pb::RangeRequest {
                key: bytes(&keys.key),
                range_end: keys.range_end.as_deref().map_or_else(Bytes::new, bytes),
                ..Default::default()
            };
            let response = member.range(get).await?.into_inner();
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let found = response.kvs.iter().map(|kv| KeyValue {
                key: text(&kv.key),
                value: text(&kv.value),
                mod_revision: kv.mod_revision,
            });
            answer(revision(response.header), Found::Got(found.collect()))
        }
        Step::Delete(keys) => {
            let delete = pb::DeleteRangeRequest {
                key: bytes(&keys.key),
                ..Default::default()
            };
            let response = member.delete_range(delete).await?.into_inner();
            let deleted = Found::Deleted(response.deleted);
            answer(revision(response.header), deleted)
        }
    })
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..Default::default()
    }
}

async fn swap(member: &mut KvClient<Channel>, operation: &Operation) -> Result<Answer, Status> {
    let compares = operation.compares.iter().map(|compare| {
        let Is::ModRevision(expected) = compare.is else {
            unreachable!("revisions are compared here")
        };
        pb::Compare {
            result: pb::compare::CompareResult::Equal as i32,
            target: pb::compare::CompareTarget::Mod as i32,
            key: bytes(&compare.key),
            target_union: Some(TargetUnion::ModRevision(expected)),
            ..Default::default()
        }
    });
    let puts = operation.success.iter().filter_map(|step| match step {
        Step::Put { key, value } => Some(pb::RequestOp {
            request: Some(request_op::Request::RequestPut(put(key, value))),
        }),
        _ => None,
    });
    let txn = pb::TxnRequest {
        compare: compares.collect(),
        success: puts.collect(),
        failure: Vec::new(),
    };
    let response = member.txn(txn).await?.into_inner();
    let results = response.responses.iter().map(|part| match part.response {
        Some(response_op::Response::ResponsePut(_)) => Found::Put,
        // Nothing else was asked for: an answer that fits no question.
        _ => Found::Deleted(-1),
    });
    Ok(Answer {
        ended_ns: 0,
        revision: response.header.map_or(0, |header| header.revision),
        succeeded: response.succeeded,
        results: results.collect(),
    })
}
