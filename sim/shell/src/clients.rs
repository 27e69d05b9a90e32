//! The clients: they use the client library as any program would, and write down what they see.
//!
//! ```text
//!   caller    puts, deletions, transactions, reads, compactions, one after the other
//!   tenant    grants a lease, puts keys on it, keeps it alive through a stream, lets it go or revokes it
//!   watcher   follows a range over all reconnections, from revision 1 or from where it is compacted to
//! ```

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use quorate_net::client::{Client, ClientError, Config};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request as Operation;
use quorate_sim::random::{Purpose, Stream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::cluster::client_url;
use crate::history::{Answer, Call, Outcome, Request, Watched};
use crate::options::Mix;
use crate::world;

/// After a call that nobody took.
const PAUSE: Duration = Duration::from_millis(50);

/// A client of all members, in an order of its own.
pub fn connect(order: &mut Stream, members: usize, call_timeout: Duration) -> Client {
    let mut endpoints: Vec<usize> = (0..members).collect();
    for place in (1..endpoints.len()).rev() {
        endpoints.swap(place, order.below(place as u64 + 1) as usize);
    }
    client_of(&endpoints, call_timeout)
}

/// A client of some members.
pub fn client_of(members: &[usize], call_timeout: Duration) -> Client {
    let endpoints = members.iter().map(|machine| client_url(*machine));
    let endpoints = endpoints.map(|url| url.parse().expect("a legal endpoint"));
    let config = Config {
        endpoints: endpoints.collect(),
        dial_timeout: Duration::from_millis(500),
        call_timeout: Some(call_timeout),
        ..Config::default()
    };
    Client::new(config).expect("there are endpoints")
}

/// Makes a call and writes it down.
async fn record(
    request: Request,
    call: impl Future<Output = Result<Answer, ClientError>>,
) -> Outcome {
    let invoked = world::with(|world| world.now_ns());
    let outcome = match call.await {
        Ok(answer) => Outcome::Answered(answer),
        Err(ClientError::Connect(_)) => Outcome::NotSent,
        Err(ClientError::Status(status)) if is_refusal(status.message()) => {
            Outcome::Refused(status.message().to_owned())
        }
        Err(error) => Outcome::Unknown(error.to_string()),
    };
    world::with(|world| {
        let returned = world.now_ns();
        world.history.calls.push(Call {
            invoked,
            returned,
            request,
            outcome: outcome.clone(),
        });
    });
    outcome
}

/// Whether a server says that it did nothing, and never will.
fn is_refusal(message: &str) -> bool {
    [
        "etcdserver: mvcc: required revision has been compacted",
        "etcdserver: mvcc: required revision is a future revision",
        "etcdserver: requested lease not found",
        "etcdserver: lease already exists",
    ]
    .contains(&message)
}

struct Caller {
    number: u64,
    calls: u64,
    stream: Stream,
    client: Client,
    mix: Mix,
    keys: u64,
    value_bytes_max: u64,
    /// The newest revision that it has seen.
    revision: i64,
}

fn goes_on() -> bool {
    world::with(|world| world.load_goes_on)
}

/// Reads and writes until the load ends.
pub async fn call(number: u64, mix: Mix) {
    let (options, seed) = world::with(|world| (world.options.clone(), world.seed));
    let mut stream = Stream::new(seed, Purpose::Client, number);
    let client = connect(&mut stream, options.members, options.call_timeout);
    let mut caller = Caller {
        number,
        calls: 0,
        stream,
        client,
        mix,
        keys: options.keys,
        value_bytes_max: options.value_bytes_max,
        revision: 1,
    };
    while goes_on() {
        let think = mix.think.as_nanos() as u64;
        sleep(Duration::from_nanos(caller.stream.with_tail(think))).await;
        let outcome = caller.step().await;
        match outcome {
            Outcome::Answered(_) => {}
            _ => sleep(PAUSE).await,
        }
    }
}

impl Caller {
    async fn step(&mut self) -> Outcome {
        self.calls += 1;
        let Mix {
            put,
            delete,
            txn,
            range,
            think: _,
        } = self.mix;
        let request = match self.stream.below(100) {
            below if below < put => Request::Put(self.draw_put()),
            below if below < put + delete => Request::Delete(self.draw_delete()),
            below if below < put + delete + txn => Request::Txn(self.draw_txn()),
            below if below < put + delete + txn + range => Request::Range(self.draw_range()),
            _ => Request::Compact(pb::CompactionRequest {
                revision: (self.revision - self.stream.below(20) as i64).max(1),
                physical: self.stream.chance(300_000),
            }),
        };
        let client = &self.client;
        let outcome = match request.clone() {
            Request::Put(put) => {
                record(request, async { client.put(put).await.map(Answer::Put) }).await
            }
            Request::Delete(delete) => {
                let deletion = async { client.delete_range(delete).await.map(Answer::Delete) };
                record(request, deletion).await
            }
            Request::Txn(txn) => {
                record(request, async { client.txn(txn).await.map(Answer::Txn) }).await
            }
            Request::Range(range) => {
                record(request, async {
                    client.range(range).await.map(Answer::Range)
                })
                .await
            }
            Request::Compact(compact) => {
                let compaction = async { client.compact(compact).await.map(Answer::Compact) };
                record(request, compaction).await
            }
            Request::Grant(_) | Request::Revoke(_) | Request::KeepAlive(_) => {
                unreachable!("callers have no leases")
            }
        };
        if let Outcome::Answered(answer) = &outcome {
            self.revision = self.revision.max(revision_of(answer));
        }
        outcome
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{:02}", self.stream.below(self.keys)))
    }

    /// A value that nobody else ever writes.
    fn value(&mut self) -> Bytes {
        let mut value = format!("c{}-{}", self.number, self.calls).into_bytes();
        let padding = self.stream.below(self.value_bytes_max) as usize;
        value.resize(value.len() + padding, b'.');
        Bytes::from(value)
    }

    fn draw_put(&mut self) -> pb::PutRequest {
        pb::PutRequest {
            key: self.key(),
            value: self.value(),
            prev_kv: self.stream.chance(300_000),
            ..pb::PutRequest::default()
        }
    }

    fn draw_delete(&mut self) -> pb::DeleteRangeRequest {
        let range_end = if self.stream.chance(200_000) {
            "k05"
        } else {
            ""
        };
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end: Bytes::from(range_end),
            prev_kv: self.stream.chance(300_000),
        }
    }

    /// A compare-and-swap: on the revision it has seen last, or on existence.
    fn draw_txn(&mut self) -> pb::TxnRequest {
        let put = self.draw_put();
        let (target, target_union) = if self.stream.chance(500_000) {
            let known = TargetUnion::ModRevision(self.revision);
            (CompareTarget::Mod, known)
        } else {
            (CompareTarget::Create, TargetUnion::CreateRevision(0))
        };
        let result = *self.stream.pick(&[
            CompareResult::Equal,
            CompareResult::Less,
            CompareResult::NotEqual,
        ]);
        let compare = pb::Compare {
            result: result.into(),
            target: target.into(),
            key: put.key.clone(),
            target_union: Some(target_union),
            ..pb::Compare::default()
        };
        let read = pb::RangeRequest {
            key: put.key.clone(),
            ..pb::RangeRequest::default()
        };
        let operation = |request| pb::RequestOp {
            request: Some(request),
        };
        pb::TxnRequest {
            compare: vec![compare],
            success: vec![
                operation(Operation::RequestPut(put.clone())),
                operation(Operation::RequestRange(read.clone())),
            ],
            failure: vec![
                operation(Operation::RequestRange(read)),
                operation(Operation::RequestPut(pb::PutRequest {
                    key: Bytes::from(format!("{}-else", self.number)),
                    ..put
                })),
            ],
        }
    }

    fn draw_range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = match self.stream.below(3) {
            0 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            _ => (self.key(), Bytes::new()),
        };
        let revision = if self.stream.chance(100_000) {
            (self.revision - self.stream.below(30) as i64).max(1)
        } else {
            0
        };
        pb::RangeRequest {
            key,
            range_end,
            revision,
            serializable: self.stream.chance(250_000),
            limit: if self.stream.chance(200_000) { 3 } else { 0 },
            ..pb::RangeRequest::default()
        }
    }
}

/// The revision in the header of an answer.
pub fn revision_of(answer: &Answer) -> i64 {
    let header = match answer {
        Answer::Put(response) => &response.header,
        Answer::Delete(response) => &response.header,
        Answer::Txn(response) => &response.header,
        Answer::Range(response) => &response.header,
        Answer::Compact(response) => &response.header,
        Answer::Grant(response) => &response.header,
        Answer::Revoke(response) => &response.header,
        Answer::KeepAlive(_) => &None,
    };
    header.as_ref().map_or(0, |header| header.revision)
}

/// Holds leases until the load ends.
pub async fn hold_leases(number: u64) {
    let (options, seed) = world::with(|world| (world.options.clone(), world.seed));
    let mut stream = Stream::new(seed, Purpose::Client, number);
    let client = connect(&mut stream, options.members, options.call_timeout);
    let mut count = 0;
    while goes_on() {
        count += 1;
        let id = number as i64 * 10_000 + count;
        let ttl = stream.between(1, options.lease_ttl_max) as i64;
        let grant = pb::LeaseGrantRequest { ttl, id };
        let granted = async { client.lease_grant(grant).await.map(Answer::Grant) };
        let Outcome::Answered(_) = record(Request::Grant(grant), granted).await else {
            sleep(PAUSE).await;
            continue;
        };
        let put = pb::PutRequest {
            key: Bytes::from(format!("lease-{}", id % 4)),
            value: Bytes::from(format!("l{number}-{count}")),
            lease: id,
            ..pb::PutRequest::default()
        };
        let written = async { client.put(put.clone()).await.map(Answer::Put) };
        record(Request::Put(put.clone()), written).await;
        keep_alive(&client, id, ttl, &mut stream).await;
        if stream.chance(400_000) {
            let revoke = pb::LeaseRevokeRequest { id };
            let revoked = async { client.lease_revoke(revoke).await.map(Answer::Revoke) };
            record(Request::Revoke(revoke), revoked).await;
        }
    }
}

/// Renews a lease a few times through one stream; one that breaks ends it.
async fn keep_alive(client: &Client, id: i64, ttl: i64, stream: &mut Stream) {
    let (requests, receiver) = mpsc::channel(4);
    let opening = timeout(Duration::from_secs(2), client.lease_keep_alive(receiver));
    let Ok(Ok(mut answers)) = opening.await else {
        return;
    };
    for _ in 0..stream.below(6) {
        let pause = stream.between(50, ttl as u64 * 700);
        sleep(Duration::from_millis(pause)).await;
        let renewal = async {
            // A stream that has ended says so in its answers.
            let _ = requests.send(pb::LeaseKeepAliveRequest { id }).await;
            let answered = timeout(Duration::from_secs(3), answers.message()).await;
            let answer = answered.map_err(|_| ClientError::Deadline)??;
            let answer = answer.ok_or(ClientError::Deadline)?;
            Ok(Answer::KeepAlive(answer.ttl))
        };
        match record(Request::KeepAlive(id), renewal).await {
            Outcome::Answered(Answer::KeepAlive(ttl)) if ttl > 0 => {}
            _ => return,
        }
    }
}

/// Follows a range until the run ends.
pub async fn watch(number: u64) {
    let (options, seed) = world::with(|world| (world.options.clone(), world.seed));
    let mut stream = Stream::new(seed, Purpose::Client, number);
    let client = connect(&mut stream, options.members, options.call_timeout);
    let everything = stream.chance(500_000);
    let mut request = pb::WatchCreateRequest {
        key: Bytes::from(if everything { "\0" } else { "k03" }),
        range_end: Bytes::from(if everything { "\0" } else { "k08" }),
        start_revision: 1,
        prev_kv: stream.chance(300_000),
        progress_notify: stream.chance(500_000),
        ..pb::WatchCreateRequest::default()
    };
    let place = world::with(|world| {
        world.history.watches.push(Watched {
            request: request.clone(),
            responses: Vec::new(),
            reached: 0,
        });
        world.history.watches.len() - 1
    });
    loop {
        let mut watches = client.watches();
        watches.add(request.clone()).await;
        while watches.has_watchers() {
            if goes_on() && stream.chance(50_000) {
                // A slow reader.
                sleep(Duration::from_millis(stream.between(1, 1_500))).await;
            }
            let heard = match timeout(Duration::from_secs(3), watches.next()).await {
                Err(_) => {
                    world::note(|| format!("watcher {number} hears nothing"));
                    watches.request_progress().await;
                    continue;
                }
                Ok(Err(error)) => {
                    world::note(|| format!("watcher {number}: {error}"));
                    sleep(PAUSE).await;
                    continue;
                }
                Ok(Ok((_, heard))) => heard,
            };
            request.start_revision = hear(place, heard, request.start_revision);
        }
    }
}

/// Writes down what a watcher heard. Gives the revision that a new one would begin at.
fn hear(place: usize, response: pb::WatchResponse, next: i64) -> i64 {
    world::with(|world| {
        let watched = &mut world.history.watches[place];
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let next = if response.canceled {
            next.max(response.compact_revision)
        } else {
            next.max(last.map_or(header, |kv| kv.mod_revision) + 1)
        };
        watched.reached = next - 1;
        watched.responses.push(response);
        next
    })
}
