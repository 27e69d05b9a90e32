//! Random histories, watches and readers against a plain model: what is delivered is the history, filtered.
//!
//! The model keeps every event ever made. Each response is checked when it is pulled, for the properties that the
//! simulator's watch checker has: filtered, ordered, unique, atomic, reliable, bookmarkable, previous values correct,
//! created before any event, cancelled only where a compaction allows it; and in the end everything has arrived.

mod checks;
mod world;

use proptest::prelude::*;

use self::world::{Client, World};
use super::*;

/// One write: the number of a key, and its value or nothing for a deletion.
type Write = (u8, Option<u8>);

/// What a replicated entry does.
#[derive(Clone, Debug)]
enum Entry {
    Txn(Vec<Write>),
    /// Compacts so many hundredths of the revisions.
    Compact(u8),
}

#[derive(Clone, Debug)]
struct Create {
    stream: u8,
    key: u8,
    /// 0 is a single key, otherwise the length of the range; from 6 on it has no end.
    keys: u8,
    /// Relative to the current revision; `None` is "from now on".
    start: Option<i8>,
    /// Bits: prev_kv, fragment, progress_notify, no puts, no deletions.
    options: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Entry),
    /// A snapshot with these entries replaces the store.
    Snapshot(Vec<Entry>),
    Sweep(u8),
    Create(Create),
    Cancel(u8),
    AskProgress(u8),
    Advance,
    Pull {
        stream: u8,
        responses: u8,
    },
    Pass,
    Reopen(u8),
}

fn entry() -> impl Strategy<Value = Entry> {
    let write = || (0..5u8, prop::option::weighted(0.7, any::<u8>()));
    prop_oneof![
        6 => write().prop_map(|write| Entry::Txn(vec![write])),
        2 => prop::collection::vec(write(), 1..8).prop_map(Entry::Txn),
        1 => (0..=100u8).prop_map(Entry::Compact),
    ]
}

fn create() -> impl Strategy<Value = Create> {
    (
        0..2u8,
        0..5u8,
        0..8u8,
        prop::option::weighted(0.6, -30..8i8),
        0..32u8,
    )
        .prop_map(|(stream, key, keys, start, options)| Create {
            stream,
            key,
            keys,
            start,
            options,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => entry().prop_map(Step::Apply),
        1 => prop::collection::vec(entry(), 0..12).prop_map(Step::Snapshot),
        2 => any::<u8>().prop_map(Step::Sweep),
        4 => create().prop_map(Step::Create),
        1 => any::<u8>().prop_map(Step::Cancel),
        2 => (0..2u8).prop_map(Step::AskProgress),
        6 => Just(Step::Advance),
        6 => (0..2u8, 1..12u8).prop_map(|(stream, responses)| Step::Pull { stream, responses }),
        1 => Just(Step::Pass),
        1 => (0..2u8).prop_map(Step::Reopen),
    ]
}

fn run(steps: Vec<Vec<Step>>) {
    let mut world = World::new();
    for part in steps {
        for step in part {
            world.step(step);
        }
        world.drain();
        for stream in world.streams {
            world.ask(
                stream,
                RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
            );
            let of = |((id, _), _): &(&(StreamId, i64), &Client)| *id == stream;
            let future = |client: &Client| client.request.start_revision > world.revision();
            let clients: Vec<_> = world
                .clients
                .iter()
                .filter(of)
                .map(|(_, client)| client)
                .collect();
            let expected = !clients.is_empty()
                && clients
                    .iter()
                    .all(|client| !client.canceled && !future(client));
            assert_eq!(
                world.pull(stream),
                expected,
                "progress of a synced stream, and only of such a one"
            );
        }
    }
    world.now = Time(u64::MAX / 2);
    world.drain();
}

proptest! {
    #[test]
    fn delivered_is_the_history_filtered(
        steps in prop::collection::vec(prop::collection::vec(step(), 1..80), 1..4),
    ) {
        run(steps);
    }
}
