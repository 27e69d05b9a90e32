//! Clients that write and read a few keys and record what they saw.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
pub(crate) struct Shared {
    started: Instant,
    pub(crate) history: Mutex<Vec<Operation>>,
    pub(crate) pulse: Mutex<Pulse>,
    /// Requests that the server refused.
    pub(crate) failed: AtomicU64,
    /// Requests of which nobody can tell what became of them.
    pub(crate) unknown: AtomicU64,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        let started = Instant::now();
        Arc::new(Self {
            started,
            history: Mutex::default(),
            pulse: Mutex::new(Pulse::new(started)),
            failed: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a short run")
    }

    /// Counts a request without an answer.
    fn count(&self, refusal: Option<&Status>) {
        let is_refused = refusal.is_some_and(|status| {
            status.message().starts_with("etcdserver: ") && !status.message().contains("timed out")
        });
        let counter = if is_refused {
            &self.failed
        } else {
            &self.unknown
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The longest time in which nobody had a value written.
pub(crate) struct Pulse {
    beats: u64,
    last: Instant,
    longest: Duration,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self {
            beats: 0,
            last: now,
            longest: Duration::ZERO,
        }
    }

    /// A write was acknowledged.
    fn beat(&mut self, now: Instant) {
        self.beats += 1;
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
        self.last = self.last.max(now);
    }

    /// How many writes were acknowledged so far.
    pub(crate) fn beats(&self) -> u64 {
        self.beats
    }

    /// The longest time without a write since this was asked last. What is under way counts as far as it has come, and
    /// goes on counting from its beginning.
    pub(crate) fn take_longest(&mut self, now: Instant) -> Duration {
        let under_way = now.saturating_duration_since(self.last);
        std::mem::take(&mut self.longest).max(under_way)
    }
}

/// How a client works.
pub(crate) struct Manner {
    /// Makes its values its own.
    pub(crate) number: usize,
    pub(crate) seed: u64,
    /// It rests this long after each operation.
    pub(crate) rest: Duration,
    /// It ends when this is set.
    pub(crate) is_over: Arc<AtomicBool>,
}

/// Connections that come and go with the members.
pub(crate) fn connect(url: &str) -> Result<KvClient<Channel>, String> {
    let endpoint =
        Endpoint::from_shared(url.to_string()).map_err(|error| format!("{url}: {error}"))?;
    Ok(KvClient::new(
        endpoint
            .connect_timeout(Duration::from_secs(1))
            .connect_lazy(),
    ))
}

/// One client: one operation at a time, until told to end.
pub(crate) async fn client(
    shared: Arc<Shared>,
    manner: Manner,
    mut members: Vec<KvClient<Channel>>,
) {
    let number = manner.number;
    let mut random = SmallRng::seed_from_u64(manner.seed ^ (number as u64) << 32);
    let mut count = 0u64;
    let mut seen = [0i64; KEYS];
    while !manner.is_over.load(Ordering::Relaxed) {
        count += 1;
        let place = random.random_range(0..KEYS);
        let value = format!("{number}-{count}");
        let mut operation = draw(&mut random, number as u64, place, value, seen[place]);
        let index = random.random_range(0..members.len());
        let member = &mut members[index];
        operation.began_ns = shared.now_ns();
        let answer = tokio::time::timeout(PATIENCE, carry_out(member, &operation)).await;
        let ended_ns = shared.now_ns();
        let is_unknown = match answer {
            Ok(Ok(answer)) => {
                let answer = Answer { ended_ns, ..answer };
                if matches!(answer.results[..], [Found::Put]) {
                    let mut pulse = shared.pulse.lock().expect("no panic");
                    pulse.beat(Instant::now());
                }
                seen[place] = learned(&operation, &answer, place).unwrap_or(seen[place]);
                operation.answer = Some(answer);
                false
            }
            Ok(Err(status)) => {
                shared.count(Some(&status));
                true
            }
            Err(_) => {
                shared.count(None);
                true
            }
        };
        shared.history.lock().expect("no panic").push(operation);
        if is_unknown {
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else if !manner.rest.is_zero() {
            tokio::time::sleep(manner.rest).await;
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

/// All keys that are judged.
pub(super) fn all_keys() -> Keys {
    Keys {
        key: name(0),
        range_end: Some(name(KEYS)),
    }
}

/// Everything, as one member has it.
pub(crate) async fn read_all(
    shared: &Shared,
    member: &mut KvClient<Channel>,
) -> Result<Operation, Status> {
    let mut operation = Operation::of(u64::MAX, shared.now_ns(), Step::Get(all_keys()));
    let answer = carry_out(member, &operation).await?;
    let ended_ns = shared.now_ns();
    operation.answer = Some(Answer { ended_ns, ..answer });
    Ok(operation)
}

/// The last write of all.
pub(super) async fn write_end(
    shared: &Shared,
    member: &mut KvClient<Channel>,
) -> Result<Operation, Status> {
    let mut operation = Operation::put(u64::MAX, shared.now_ns(), &name(0), "end");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_two_steps_share_counts_in_both() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pulse = Pulse::new(start);
        pulse.beat(at(10));
        pulse.beat(at(40));
        assert_eq!(pulse.take_longest(at(60)), Duration::from_millis(30));
        pulse.beat(at(100));
        assert_eq!(pulse.take_longest(at(101)), Duration::from_millis(60));
        assert_eq!(pulse.take_longest(at(300)), Duration::from_millis(200));
    }

    #[test]
    fn refusals_are_told_from_what_nobody_knows() {
        let shared = Shared::new();
        shared.count(Some(&Status::resource_exhausted(
            "etcdserver: mvcc: database space exceeded",
        )));
        shared.count(Some(&Status::unavailable("etcdserver: request timed out")));
        shared.count(Some(&Status::unavailable("connection closed")));
        shared.count(None);
        assert_eq!(shared.failed.load(Ordering::Relaxed), 1);
        assert_eq!(shared.unknown.load(Ordering::Relaxed), 3);
    }
}
