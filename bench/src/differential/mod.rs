//! The differential test: the same operations to Quorate and to a real etcd, every answer compared.

mod generate;
mod server;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use quorate_proto::etcdserverpb as pb;

use generate::{Generator, Known, Operation};
use server::{Answer, Server, shown};
use watches::{SENTINEL_KEY, Told};

/// What to compare.
#[derive(Args)]
pub(crate) struct Options {
    /// The client endpoint of an empty Quorate member.
    #[arg(long, default_value = "127.0.0.1:2379")]
    ours: String,
    /// The client endpoint of an empty etcd member.
    #[arg(long, default_value = "127.0.0.1:12379")]
    etcd: String,
    /// How many operations.
    #[arg(long, default_value_t = 200_000)]
    operations: u64,
    /// The seed of the operations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Watches are compared each time after this many operations.
    #[arg(long, default_value_t = 250)]
    round: u64,
    /// Give up after this many differences.
    #[arg(long, default_value_t = 10)]
    differences_max: usize,
}

/// etcd lets watchers that catch up take a step each 100 ms; whether a compaction overtakes one is then a matter of
/// luck. A watcher is given this long before the next compaction.
const CATCH_UP: Duration = Duration::from_millis(350);
/// How long both may take until all watchers have been told the same.
const WATCH_PATIENCE: Duration = Duration::from_secs(20);
/// How long both may take until a compaction has ended, and how often that is looked at.
const COMPACTION_PATIENCE: Duration = Duration::from_secs(5);
const COMPACTION_PAUSE: Duration = Duration::from_millis(20);

struct Run {
    ours: Server,
    etcd: Server,
    known: Known,
    counts: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<String, u64>,
    differences: Vec<String>,
    events: u64,
    answer_bytes: usize,
    /// When a watch on the past was last created.
    past_watch: Option<Instant>,
    /// Watchers that etcd cancelled since a compaction overtook them while they caught up, and ours did not.
    overtaken: BTreeSet<i64>,
    overtaken_count: u64,
}

/// Runs the test; `true` if there was no difference.
pub(crate) async fn run(options: Options) -> Result<bool, String> {
    let mut run = Run {
        ours: Server::connect("ours", &options.ours).await?,
        etcd: Server::connect("etcd", &options.etcd).await?,
        known: Known {
            revision: 1,
            compacted: 0,
        },
        counts: BTreeMap::new(),
        refusals: BTreeMap::new(),
        differences: Vec::new(),
        events: 0,
        answer_bytes: 0,
        past_watch: None,
        overtaken: BTreeSet::new(),
        overtaken_count: 0,
    };
    let mut generator = Generator::new(options.seed);
    let started = Instant::now();
    for number in 1..=options.operations {
        let operation = generator.next(run.known);
        match &operation {
            Operation::Compact(_) => {
                run.let_watchers_catch_up().await;
                run.compare_watches(number).await;
            }
            // etcd may drop what it has not sent yet when a watcher is cancelled.
            Operation::WatchCancel(_) => run.compare_watches(number).await,
            Operation::WatchCreate(create) if run.overtaken.contains(&create.watch_id) => continue,
            Operation::WatchCreate(create) if create.start_revision > 0 => {
                run.past_watch = Some(Instant::now())
            }
            _ => {}
        }
        run.compare_operation(number, &operation).await;
        if number % options.round == 0 || number == options.operations {
            run.compare_watches(number).await;
        }
        if number % 10_000 == 0 {
            eprintln!(
                "{number} operations, revision {}, {:.0?}",
                run.known.revision,
                started.elapsed()
            );
        }
        if run.differences.len() >= options.differences_max {
            break;
        }
    }
    run.report(started.elapsed());
    Ok(run.differences.is_empty())
}

impl Run {
    async fn compare_operation(&mut self, number: u64, operation: &Operation) {
        let (ours, etcd) = self.ask_both(operation).await;
        *self.counts.entry(operation.name()).or_default() += 1;
        self.answer_bytes += server::encoded_bytes(&etcd);
        if let Answer::Refused(_, text) = &etcd {
            *self.refusals.entry(text.clone()).or_default() += 1;
        }
        if let Some(revision) = etcd.revision() {
            self.known.revision = self.known.revision.max(revision);
        }
        if let (Operation::Compact(request), Answer::Compact(_)) = (operation, &etcd) {
            self.known.compacted = request.revision;
        }
        if ours != etcd {
            let request = shown(operation);
            self.difference(format!(
                "operation {number}: {request}\n  ours: {}\n  etcd: {}",
                shown(&ours),
                shown(&etcd)
            ));
        }
    }

    /// Both answers. The hash at a revision that is just being compacted is computed by its rows before the compaction
    /// has ended, and remembered from it afterwards; the two differ, and who is faster is luck. It is asked for again until
    /// both have ended.
    async fn ask_both(&mut self, operation: &Operation) -> (Answer, Answer) {
        let deadline = Instant::now() + COMPACTION_PATIENCE;
        loop {
            let both = tokio::join!(
                self.ours.carry_out(operation),
                self.etcd.carry_out(operation)
            );
            let is_compacting = match &both {
                (Answer::HashKv(ours), Answer::HashKv(etcd)) => {
                    ours.hash_revision == self.known.compacted
                        && ours.compact_revision != etcd.compact_revision
                }
                _ => false,
            };
            if !is_compacting || Instant::now() > deadline {
                return both;
            }
            tokio::time::sleep(COMPACTION_PAUSE).await;
        }
    }

    async fn let_watchers_catch_up(&mut self) {
        if let Some(created) = self.past_watch.take() {
            tokio::time::sleep(CATCH_UP.saturating_sub(created.elapsed())).await;
        }
    }

    /// Lets both streams come to rest and compares what each watcher was told.
    async fn compare_watches(&mut self, number: u64) {
        let put = pb::PutRequest {
            key: Bytes::from_static(SENTINEL_KEY),
            ..Default::default()
        };
        self.compare_operation(number, &Operation::Put(put)).await;
        let target = self.known.revision;
        let deadline = Instant::now() + WATCH_PATIENCE;
        loop {
            let (ours, etcd) = (&self.ours.watches, &self.etcd.watches);
            let has_come = |server: &Server| server.watches.sentinel_revision() >= target;
            if has_come(&self.ours) && has_come(&self.etcd) && self.counts_agree() {
                break;
            }
            let is_hopeless = !ours.trouble().is_empty()
                || !etcd.trouble().is_empty()
                || Instant::now() > deadline;
            if is_hopeless {
                break;
            }
            let news = async {
                tokio::select! { () = ours.changed() => {}, () = etcd.changed() => {} }
            };
            let _ = tokio::time::timeout(Duration::from_millis(200), news).await;
        }
        for server in [&self.ours, &self.etcd] {
            let (name, trouble) = (server.name, server.watches.trouble());
            if !trouble.is_empty() {
                self.differences
                    .push(format!("{name}: {}", trouble.join("; ")));
                return;
            }
        }
        self.compare_told(number);
    }

    /// Whether both servers have told each watcher equally much.
    fn counts_agree(&self) -> bool {
        let of = |server: &Server| {
            let mut counts = server.watches.counts();
            counts.retain(|id, count| *count > 0 && !self.overtaken.contains(id));
            counts
        };
        of(&self.ours) == of(&self.etcd)
    }

    fn compare_told(&mut self, number: u64) {
        let ((ours, ours_refused), (etcd, etcd_refused)) =
            (self.ours.watches.take(), self.etcd.watches.take());
        if ours_refused != etcd_refused {
            self.difference(format!(
                "refused watches by {number}:\n  ours: {ours_refused:?}\n  etcd: {etcd_refused:?}"
            ));
        }
        for (id, expected) in &etcd {
            self.events += expected.len() as u64;
            let told = ours.get(id).map_or(&[][..], Vec::as_slice);
            if self.overtaken.contains(id) || self.is_overtaken(*id, told, expected) {
                continue;
            }
            if told != expected {
                let at = told
                    .iter()
                    .zip(expected)
                    .take_while(|(ours, etcd)| ours == etcd)
                    .count();
                let (ours, etcd) = (shown(&told.get(at)), shown(&expected.get(at)));
                let lengths = format!("{} and {}", told.len(), expected.len());
                self.difference(format!(
                    "watch {id} by operation {number}, message {at} of {lengths}:\n  ours: {ours}\n  etcd: {etcd}"
                ));
            }
        }
        for id in ours
            .keys()
            .filter(|id| !etcd.contains_key(id) && !self.overtaken.contains(id))
            .copied()
            .collect::<Vec<_>>()
        {
            self.difference(format!(
                "watch {id} by operation {number}: only ours was told {:?}",
                ours[&id].first()
            ));
        }
    }

    /// etcd lets watchers catch up on a timer of its own, so a compaction may overtake one there although it was told
    /// nothing else than ours. Which of the two happens is luck; the watcher is left alone from then on, and counted.
    fn is_overtaken(&mut self, id: i64, ours: &[Told], etcd: &[Told]) -> bool {
        let Some((
            Told::Canceled {
                compact_revision, ..
            },
            before,
        )) = etcd.split_last()
        else {
            return false;
        };
        let is = *compact_revision > 0
            && ours.len() >= before.len()
            && ours[..before.len()] == *before
            && ours != etcd;
        if is {
            self.overtaken.insert(id);
            self.overtaken_count += 1;
        }
        is
    }

    fn difference(&mut self, text: String) {
        eprintln!("DIFFERENCE {text}");
        self.differences.push(text);
    }

    fn report(&self, elapsed: Duration) {
        let total: u64 = self.counts.values().sum();
        println!(
            "{total} operations in {elapsed:.1?}, revision {}, {} watch messages",
            self.known.revision, self.events
        );
        println!(
            "{} bytes of ranges and transactions compared",
            self.answer_bytes
        );
        for (name, count) in &self.counts {
            println!("  {name:<20} {count:>8}");
        }
        println!("refused by etcd:");
        for (text, count) in &self.refusals {
            println!("  {count:>8}  {text}");
        }
        println!(
            "{} watchers that a compaction overtook in etcd only",
            self.overtaken_count
        );
        println!("{} differences", self.differences.len());
    }
}
