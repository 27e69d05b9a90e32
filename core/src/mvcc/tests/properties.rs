//! Random histories, told to the store and to the model.

use std::convert::Infallible;

use proptest::prelude::*;
use quorate_proto::etcdserverpb as pb;

use super::model::Model;
use crate::mvcc::{Pin, Row, Store};
use crate::types::{LeaseId, Revision};

#[derive(Clone, Debug)]
enum Change {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        lease: i64,
    },
    Delete {
        key: Vec<u8>,
        range_end: Vec<u8>,
    },
}

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<Change>),
    /// So far back from the current revision.
    Compact(i64),
    RemoveCompacted(usize),
    /// Forget the store and build it anew from its rows.
    Restore,
    Range(pb::RangeRequest, i64),
    Hash(i64),
    /// Hold a pin from here to the next such step.
    Pin,
}

/// Few keys with long common beginnings, in no order.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("a"),
        Just("registry/pods/"),
        Just("registry/nodes/"),
        Just("z")
    ];
    (word, 0..24u8).prop_map(|(word, number)| format!("{word}{:02}", number * 7 % 24).into_bytes())
}

fn range_end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => Just(vec![]), 1 => Just(vec![0]), 3 => key()]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::collection::vec(b'a'..b'e', 0..20),
        1 => proptest::collection::vec(any::<u8>(), 200..700),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (key(), value(), 0..3i64).prop_map(|(key, value, lease)| Change::Put { key, value, lease }),
        1 => (key(), range_end()).prop_map(|(key, range_end)| Change::Delete { key, range_end }),
    ]
}

fn request() -> impl Strategy<Value = pb::RangeRequest> {
    let options = (
        0..6i64,
        0..3i32,
        0..5i32,
        any::<bool>(),
        prop::bool::weighted(0.2),
    );
    let bounds = prop::array::uniform4(prop_oneof![4 => Just(0i64), 1 => 0..30i64]);
    (key(), range_end(), options, bounds).prop_map(|(key, range_end, options, bounds)| {
        pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit: options.0,
            sort_order: options.1,
            sort_target: options.2,
            keys_only: options.3,
            count_only: options.4,
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
            ..pb::RangeRequest::default()
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(change(), 1..4).prop_map(Step::Txn),
        2 => (0..12i64).prop_map(Step::Compact),
        6 => (1..30usize).prop_map(Step::RemoveCompacted),
        1 => Just(Step::Restore),
        8 => (request(), -1..20i64).prop_map(|(request, back)| Step::Range(request, back)),
        3 => (0..15i64).prop_map(Step::Hash),
        1 => Just(Step::Pin),
    ]
}

struct Pair {
    store: Store,
    model: Model,
    pin: Option<(Pin, Vec<Row>)>,
}

impl Pair {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Txn(changes) => self.write(changes),
            Step::Compact(back) => {
                let revision = self.model.revision - back;
                let finished = !self.store.is_compacting();
                let outcome = self.store.compact(Revision(revision));
                assert_eq!(outcome, self.model.compact(revision));
                if !finished && outcome.is_ok() {
                    // Made while another one was under way: etcd does not keep its hash either.
                    self.model.hashes.pop();
                }
            }
            Step::RemoveCompacted(rows) => {
                self.store.compact_step(*rows);
            }
            Step::Restore => self.restore(),
            Step::Range(request, back) => {
                let request = pb::RangeRequest {
                    revision: self.model.revision - back,
                    ..request.clone()
                };
                // Both sort stably, so that even ties compare.
                let (got, wanted) = (
                    self.store.view().range(&request),
                    self.model.range(&request),
                );
                assert_eq!(got, wanted, "{request:?}");
            }
            Step::Hash(back) => {
                let revision = self.model.revision - back;
                let pending = self.store.is_compacting();
                let wanted = self.model.hash_kv(revision);
                // A compaction's own hash is there only when it is done.
                if !pending {
                    assert_eq!(
                        self.store.view().hash_kv(Revision(revision)),
                        wanted,
                        "hash at {revision}"
                    );
                } else if let Ok(wanted) = wanted
                    && wanted.compact_revision == self.store.compact_revision()
                {
                    assert_eq!(
                        self.store.view().hash_kv(Revision(revision)),
                        Ok(wanted),
                        "hash at {revision}"
                    );
                }
            }
            Step::Pin => {
                self.check_pin();
                let pin = self.store.view().pin();
                let rows = all_rows(&pin);
                self.pin = Some((pin, rows));
            }
        }
        self.check();
    }

    fn write(&mut self, changes: &[Change]) {
        let main = self.model.revision + 1;
        let mut sub = 0;
        let mut txn = self.store.begin();
        for change in changes {
            match change {
                Change::Put { key, value, lease } => {
                    let before = self.model.at(main).get(key).map_or(0, |kv| kv.lease);
                    assert_eq!(txn.put(key, value, LeaseId(*lease)), LeaseId(before));
                    self.model.put(main, &mut sub, key, value, *lease);
                }
                Change::Delete { key, range_end } => {
                    let before = self.model.at(main);
                    let mut deleted = Vec::new();
                    let count = txn.delete_range(key, range_end, |key, lease| {
                        deleted.push((key.to_vec(), lease.0))
                    });
                    assert_eq!(
                        count,
                        self.model.delete_range(main, &mut sub, key, range_end)
                    );
                    assert_eq!(deleted.len() as i64, count);
                    assert!(
                        deleted
                            .iter()
                            .all(|(key, lease)| before[key].lease == *lease)
                    );
                    assert!(deleted.is_sorted());
                }
            }
            let seen = txn
                .range(&super::range(b"\0", b"\0"))
                .expect("the current revision is readable")
                .kvs;
            assert_eq!(
                seen,
                self.model.at(main).into_values().collect::<Vec<_>>(),
                "a transaction sees its writes"
            );
        }
        self.model.revision += i64::from(sub > 0);
        assert_eq!(txn.end().0, self.model.revision);
    }

    fn restore(&mut self) {
        self.pin = None;
        let pin = self.store.view().pin();
        let rows = all_rows(&pin);
        let (scheduled, finished) = (pin.scheduled, pin.finished);
        drop(pin);
        let (store, attached) = Store::restore(
            rows.into_iter().map(Ok::<_, Infallible>),
            scheduled,
            finished,
        )
        .expect("rows of a store");
        self.store.replace(store);
        self.model.hashes.clear();
        let wanted = self
            .model
            .at(self.model.revision)
            .into_iter()
            .filter(|(_, kv)| kv.lease != 0);
        let wanted: Vec<_> = wanted.map(|(key, kv)| (LeaseId(kv.lease), key)).collect();
        let attached: Vec<_> = attached
            .into_iter()
            .map(|(lease, key)| (lease, key.to_vec()))
            .collect();
        assert_eq!(attached, wanted);
    }

    fn check_pin(&self) {
        if let Some((pin, rows)) = &self.pin {
            assert_eq!(&all_rows(pin), rows, "a pinned history stays as it is");
        }
    }

    fn check(&self) {
        self.store.check();
        self.check_pin();
        assert_eq!(self.store.revision().0, self.model.revision);
        assert_eq!(self.store.compact_revision().0, self.model.compacted);
        let rows: Vec<Row> = self
            .model
            .rows
            .iter()
            .map(super::model::ModelRow::to_row)
            .collect();
        if !self.store.is_compacting() {
            assert_eq!(self.store.view().history((0, 0), usize::MAX), rows);
            assert_eq!(
                self.store.scheduled_compaction(),
                self.store.finished_compaction()
            );
        }
        let above = self
            .store
            .view()
            .history((self.model.compacted + 1, 0), usize::MAX);
        let wanted = rows
            .into_iter()
            .filter(|row| row.main > self.model.compacted)
            .collect::<Vec<_>>();
        assert_eq!(above, wanted, "rows above the compaction are all there");
    }
}

fn all_rows(pin: &Pin) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let from = rows.last().map_or((0, 0), |row| (row.main, row.sub + 1));
        let more = pin.history(from, 7).expect("the store was not replaced");
        if more.is_empty() {
            return rows;
        }
        rows.extend(more);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn store_equals_the_model(steps in proptest::collection::vec(step(), 1..80)) {
        let mut pair = Pair { store: Store::new(), model: Model::new(), pin: None };
        for step in &steps {
            pair.take(step);
        }
        pair.pin = None;
        while !pair.store.compact_step(3) {}
        pair.check();
        for revision in 1..=pair.model.revision {
            let request = pb::RangeRequest { revision, ..super::range(b"\0", b"\0") };
            prop_assert_eq!(pair.store.view().range(&request), pair.model.range(&request));
        }
    }
}
