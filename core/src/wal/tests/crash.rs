//! Crashes at every step, with everything that a power loss may do.

use proptest::prelude::*;

use super::*;

/// What recovery shows of a log.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    hard_state: HardState,
    begin: u64,
    /// Index, term and payload of the entries after `begin`.
    entries: Vec<(u64, u64, Vec<u8>)>,
}

impl Shown {
    fn of<D: crate::disk::Disk>(recovered: &Recovered<D>) -> Self {
        Self {
            hard_state: recovered.hard_state,
            begin: recovered.snapshots.last().unwrap().index.0,
            entries: recovered
                .entries
                .iter()
                .map(|e| (e.index, e.term, e.payload().to_vec()))
                .collect(),
        }
    }
}

/// The plain model: what the log means after each record, and how far it was synced.
#[derive(Clone, Debug, Default)]
struct Model {
    hard_state: HardState,
    snapshots: Vec<u64>,
    entries: std::collections::BTreeMap<u64, (u64, Vec<u8>)>,
    /// What was to be seen after each record.
    history: Vec<Shown>,
    /// How much of the history is safe.
    synced: usize,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            snapshots: vec![0],
            ..Self::default()
        };
        model.note();
        model.synced = 1;
        model
    }

    fn shown(&self) -> Shown {
        let commit = self.hard_state.commit;
        let begin = *self
            .snapshots
            .iter()
            .rfind(|&&index| index <= commit)
            .unwrap();
        let entries = self.entries.range(begin + 1..);
        Shown {
            hard_state: self.hard_state,
            begin,
            entries: entries
                .map(|(&index, (term, payload))| (index, *term, payload.clone()))
                .collect(),
        }
    }

    fn note(&mut self) {
        self.history.push(self.shown());
    }

    fn last(&self) -> u64 {
        let begin = *self.snapshots.last().unwrap();
        self.entries
            .keys()
            .next_back()
            .map_or(begin, |&last| last.max(begin))
    }

    fn apply(&mut self, write: &Write) {
        if let Some(snapshot) = &write.snapshot {
            let restarts = snapshot.index.0 > self.last();
            self.snapshots.push(snapshot.index.0);
            if restarts {
                self.note_unfinished();
                self.entries.clear();
                let state = write.hard_state.unwrap_or(self.hard_state);
                self.hard_state = HardState {
                    commit: snapshot.index.0,
                    ..state
                };
            }
            self.note();
        }
        for entry in &write.entries {
            self.entries.split_off(&entry.index);
            self.entries
                .insert(entry.index, (entry.term, entry.payload().to_vec()));
            self.note();
        }
        if let Some(state) = write.hard_state {
            self.hard_state = state;
            self.note();
        }
    }

    /// A snapshot record alone shows nothing new.
    fn note_unfinished(&mut self) {
        let before = self.history.last().unwrap().clone();
        self.history.push(before);
    }

    /// Checks what a crash left against what was promised, and goes on from there.
    fn survive(&mut self, shown: &Shown) {
        let found = self.history.iter().rposition(|past| past == shown);
        let found = found.unwrap_or_else(|| panic!("never was: {shown:?}\nof {:#?}", self.history));
        assert!(
            found + 1 >= self.synced || self.history[self.synced - 1] == *shown,
            "synced records are lost: {} of {}",
            found + 1,
            self.synced
        );
        self.history = vec![shown.clone()];
        self.synced = 1;
        self.hard_state = shown.hard_state;
        self.snapshots = vec![shown.begin];
        let entries = shown.entries.iter();
        self.entries = entries
            .map(|(index, term, payload)| (*index, (*term, payload.clone())))
            .collect();
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Entries that begin `back` before the end, with payloads of these sizes; then perhaps a commit.
    Append {
        back: u64,
        sizes: Vec<usize>,
        zeros: bool,
        commit: bool,
    },
    /// A snapshot record at the commit index.
    Checkpoint,
    /// A snapshot from a leader, this far ahead.
    Install {
        ahead: u64,
        entries: bool,
    },
    Flush,
    Sync,
    /// The sync fails, and so the process ends; nothing else is wrong with the disk.
    FailSync(u64),
    Purge,
    /// The process ends.
    Kill,
    PowerLoss(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (
        0..4_u64,
        prop::collection::vec(prop_oneof![0..40_usize, 0..1500_usize], 1..5),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(back, sizes, zeros, commit)| Step::Append {
            back: back.saturating_sub(1),
            sizes,
            zeros,
            commit,
        });
    let install =
        (1..5_u64, any::<bool>()).prop_map(|(ahead, entries)| Step::Install { ahead, entries });
    let step = prop_oneof![
        8 => append,
        1 => Just(Step::Checkpoint),
        1 => install,
        1 => Just(Step::Flush),
        4 => Just(Step::Sync),
        1 => any::<u64>().prop_map(Step::FailSync),
        1 => Just(Step::Purge),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::PowerLoss),
    ];
    prop::collection::vec(step, 1..40)
}

/// A log, its model, and the disk that they stand for.
struct Harness {
    disk: TestDisk,
    wal: Wal<TestDisk>,
    model: Model,
    segment_bytes: u64,
    term: u64,
    fill: u8,
}

impl Harness {
    fn new(segment_bytes: u64) -> Self {
        let disk = TestDisk::default();
        let wal = create(&disk, segment_bytes);
        crate::disk::Disk::sync_directory(&mut disk.clone(), "").unwrap();
        Self {
            disk,
            wal,
            model: Model::new(),
            segment_bytes,
            term: 1,
            fill: 0,
        }
    }

    fn entries(&mut self, first: u64, sizes: &[usize], zeros: bool) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (index, &size) in (first..).zip(sizes) {
            self.fill = self.fill % 255 + 1;
            let mut payload = vec![self.fill; size];
            if zeros {
                payload[size / 3..].fill(0);
            }
            entries.push(Entry {
                data: Some(payload.into()),
                ..entry(self.term, index, b"")
            });
        }
        entries
    }

    fn append(&mut self, write: &Write) -> Result<(), WalError> {
        self.wal.append(write)?;
        self.model.apply(write);
        Ok(())
    }

    fn run(&mut self, step: &Step) -> Result<(), WalError> {
        let commit = self.model.hard_state.commit;
        match step {
            Step::Append {
                back,
                sizes,
                zeros,
                commit: commits,
            } => {
                let first = self.model.last().saturating_sub(*back).max(commit) + 1;
                self.term += u64::from(first <= self.model.last());
                let entries = self.entries(first, sizes, *zeros);
                let last = first + sizes.len() as u64 - 1;
                self.append(&write(
                    entries,
                    commits.then_some(state(self.term, last - 1).max_commit(commit)),
                ))?;
            }
            Step::Checkpoint if commit > self.model.snapshots.last().copied().unwrap_or(0) => {
                let term = self
                    .model
                    .entries
                    .get(&commit)
                    .map_or(self.term, |(term, _)| *term);
                self.append(&Write {
                    snapshot: Some(snapshot(commit, term)),
                    ..write(vec![], None)
                })?;
            }
            Step::Checkpoint => {}
            Step::Install { ahead, entries } => {
                self.term += 1;
                let index = self.model.last() + ahead;
                let entries = if *entries {
                    self.entries(index + 1, &[10, 600], false)
                } else {
                    vec![]
                };
                let install = write(entries, Some(state(self.term, index)));
                self.append(&Write {
                    snapshot: Some(snapshot(index, self.term)),
                    ..install
                })?;
            }
            Step::Flush => self.wal.flush()?,
            Step::Sync => {
                self.wal.sync()?;
                self.model.synced = self.model.history.len();
            }
            Step::FailSync(seed) => {
                self.disk.fail_sync(Random(*seed));
                if self.wal.sync().is_ok() {
                    self.model.synced = self.model.history.len(); // There was nothing to sync.
                }
                self.crash(None);
            }
            Step::Purge => {
                self.wal.purge_before(Index(commit), 2)?;
            }
            Step::Kill => self.crash(None),
            Step::PowerLoss(seed) => self.crash(Some(Random(*seed))),
        }
        Ok(())
    }

    fn crash(&mut self, power_loss: Option<Random>) {
        self.disk.fail_from(None);
        self.disk = match power_loss {
            None => self.disk.copy(),
            Some(mut random) => self.disk.power_loss(&mut random),
        };
        let recovered = reopen(&self.disk, self.segment_bytes).unwrap();
        self.model.survive(&Shown::of(&recovered));
        // What was recovered is safe: a second power loss at once takes nothing away.
        let again = reopen(&self.disk.power_loss(&mut Random(7)), self.segment_bytes).unwrap();
        assert_eq!(Shown::of(&again), Shown::of(&recovered));
        assert_eq!(again.repair, None);
        self.wal = recovered.wal;
        self.term = self.term.max(self.model.hard_state.term) + 1;
    }
}

trait MaxCommit {
    fn max_commit(self, commit: u64) -> Self;
}

impl MaxCommit for HardState {
    fn max_commit(self, commit: u64) -> Self {
        HardState {
            commit: self.commit.max(commit),
            ..self
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_leaves_a_prefix_that_holds_all_that_was_synced(
        steps in steps(),
        segment_bytes in prop_oneof![Just(1024_u64), Just(4096), Just(16_384)],
        last in any::<u64>(),
    ) {
        let mut harness = Harness::new(segment_bytes);
        for step in &steps {
            harness.run(step).unwrap();
        }
        harness.crash(Some(Random(last)));
    }
}

#[test]
fn a_crash_at_every_step_of_the_disk_is_survived() {
    let append = |sizes: &[usize]| Step::Append {
        back: 0,
        sizes: sizes.to_vec(),
        zeros: false,
        commit: true,
    };
    let steps = [
        append(&[100, 900]),
        Step::Sync,
        append(&[1200, 700]),
        append(&[20]),
        Step::Sync,
        Step::Checkpoint,
        append(&[1500]),
        Step::Sync,
        append(&[900, 900]),
        Step::Sync,
        Step::Checkpoint,
        Step::Sync,
        Step::Purge,
        Step::Install {
            ahead: 3,
            entries: true,
        },
        Step::Sync,
        append(&[1500, 1500]),
        append(&[800]),
        Step::Sync,
        Step::Checkpoint,
        Step::Sync,
        Step::Purge,
    ];
    let total = {
        let mut harness = Harness::new(4096);
        steps.iter().for_each(|step| harness.run(step).unwrap());
        harness.disk.operations()
    };
    assert!(total > 40, "{total} operations");
    for fail_from in 0..total {
        for seed in 0..12 {
            let mut harness = Harness::new(4096);
            let start = harness.disk.operations();
            harness.disk.fail_from(Some(start.max(fail_from)));
            let failed = steps.iter().any(|step| {
                let before = harness.model.clone();
                let result = harness.run(step);
                if result.is_err() && matches!(step, Step::Append { .. } | Step::Install { .. }) {
                    harness.model = before; // Nothing of it was encoded: the segment could not be cut.
                }
                result.is_err()
            });
            assert!(failed);
            harness.crash((seed > 0).then_some(Random(seed)));
        }
    }
}

#[test]
fn a_crash_while_the_log_is_created_leaves_none_or_all() {
    for fail_from in 0.. {
        let disk = TestDisk::default();
        crate::disk::Disk::make_directory(&mut disk.clone(), "member").unwrap();
        crate::disk::Disk::sync_directory(&mut disk.clone(), "").unwrap();
        disk.fail_from(Some(disk.operations() + fail_from));
        let done = Wal::create(disk.clone(), options(4096), METADATA).is_ok();
        disk.fail_from(None);
        for seed in 0..20 {
            let disk = disk.power_loss(&mut Random(seed));
            if super::super::exists(&disk, &options(4096)).unwrap() {
                assert_eq!(reopen(&disk, 4096).unwrap().metadata, METADATA);
            } else {
                assert!(!done);
                Wal::create(disk, options(4096), METADATA).unwrap();
            }
        }
        if done {
            assert!(fail_from > 5);
            return;
        }
    }
}
