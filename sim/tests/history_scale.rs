//! How long and how much it takes to judge a large history (docs/simulation.md): 100,000 operations, 5 % unknown.

use std::time::{Duration, Instant};

use quorate_sim::history::{Compare, Found, History, Is, KeyValue, Keys, Operation, Step};
use quorate_sim::random::{Purpose, Stream};

const OPERATIONS: usize = 100_000;
const CLIENTS: u64 = 20;

/// What a sound store would have answered to clients that overlap, some of whose answers are lost.
fn history(seed: u64, keys: u64) -> History {
    let mut stream = Stream::new(seed, Purpose::Client, 0);
    let mut store: Vec<Option<(String, i64)>> = vec![None; keys as usize];
    let mut seen = vec![0; keys as usize];
    let (mut revision, mut operations) = (1, Vec::new());
    for number in 0..OPERATIONS as u64 {
        // It takes effect here, between its beginning and its end.
        let at_ns = number * 1000;
        let began_ns = at_ns.saturating_sub(stream.below(CLIENTS * 1000));
        let ended_ns = at_ns + stream.below(CLIENTS * 1000);
        let place = stream.below(keys) as usize;
        let key = format!("key{place}");
        let is_lost = stream.chance(50_000);
        let happens = !is_lost || stream.chance(500_000);
        let (client, value) = (number % CLIENTS, number.to_string());
        let kind = stream.below(10);
        let mut operation = match kind {
            0..=2 => Operation::put(client, began_ns, &key, &value),
            3..=4 => Operation {
                compares: vec![Compare {
                    key: key.clone(),
                    is: Is::ModRevision(seen[place]),
                }],
                failure: vec![Step::Get(Keys::one(&key))],
                ..Operation::put(client, began_ns, &key, &value)
            },
            5 => Operation::delete(client, began_ns, &key),
            _ => Operation::get(client, began_ns, &key),
        };
        let present = store[place].clone();
        let present_revision = present.as_ref().map_or(0, |(_, at)| *at);
        let succeeded = !matches!(kind, 3..=4) || present_revision == seen[place];
        let got = || {
            let kvs = present.iter().map(|(value, at)| KeyValue {
                key: key.clone(),
                value: value.clone(),
                mod_revision: *at,
            });
            Found::Got(kvs.collect())
        };
        let found = match kind {
            0..=4 if succeeded => {
                if happens {
                    revision += 1;
                    store[place] = Some((value, revision));
                }
                Found::Put
            }
            5 => {
                let deleted = i64::from(present.is_some());
                if happens && deleted > 0 {
                    revision += 1;
                    store[place] = None;
                }
                Found::Deleted(deleted)
            }
            _ => got(),
        };
        if !is_lost {
            seen[place] = store[place].as_ref().map_or(0, |(_, at)| *at);
            operation = operation.answered(ended_ns, revision, vec![found]);
            operation.answer.as_mut().unwrap().succeeded = succeeded;
        }
        operations.push(operation);
    }
    History(operations)
}

/// The most memory that this process ever had, in KiB.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// Times are of a release build; a debug build only has to end.
#[test]
fn a_hundred_thousand_operations_are_judged_in_a_second() {
    for keys in [1, 10, 100, 1000] {
        let mut history = history(keys, keys);
        let begun = Instant::now();
        let compared = history.judge().unwrap();
        let took = begun.elapsed();
        println!(
            "{keys} keys: {took:?}, {} KiB at most, {compared:?}",
            memory_kib()
        );
        assert!(compared.unknown > OPERATIONS / 40 && compared.unknown_seen > 500);
        if !cfg!(debug_assertions) {
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
        // A single read that is wrong is found, at the end as at the beginning.
        let is_read = |operation: &&mut Operation| {
            let answer = operation.answer.as_ref();
            answer.is_some_and(
                |answer| matches!(&answer.results[..], [Found::Got(kvs)] if kvs.len() == 1),
            )
        };
        let last = history.0.iter_mut().rev().find(is_read).unwrap();
        let Found::Got(kvs) = &mut last.answer.as_mut().unwrap().results[0] else {
            unreachable!("just looked at")
        };
        kvs[0].value.push('!');
        let begun = Instant::now();
        assert!(history.judge().is_err());
        println!("{keys} keys, one read wrong: {:?}", begun.elapsed());
    }
}
