//! The image of a backup on its way: made on a thread of its own, taken by a stream.
//!
//! ```text
//!   rows, pinned ─► pages ─► SHA-256 ─┬─► a few pieces of a mebibyte ─────► stream
//!                                     └─► a file without a name, once ────►
//!                                         the stream was waited for too long
//! ```
//!
//! No disk is written for a client that keeps up. While an image is made no compaction removes rows; a client that is
//! slow must not hold that up, so that what it does not take in [`PATIENCE`] goes to a file. One image is made at a time:
//! the next backup waits for its turn, and a compaction comes in between.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::checkpoint::{CheckpointError, SharedJob};
use quorate_core::disk::{DiskError, DiskErrorKind};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// How long a maker waits for its client, all in all. In simulated time threads cannot wait for each other.
pub(super) const PATIENCE: Duration = Duration::from_secs(if cfg!(madsim) { 0 } else { 10 });

/// Pieces, of about a mebibyte each, that a client may be behind before it is waited for.
const PIECES_MAX: usize = 4;

/// What the stream is given: the length; pages; then perhaps the rest of them; the digest. Nothing comes after a failure.
#[derive(Debug)]
pub(super) enum Piece {
    /// Of the whole image.
    Length(u64),
    /// The next bytes.
    Pages(Bytes),
    /// All that is left, in a file that is read from its beginning.
    Rest(File),
    /// SHA-256 of the image.
    Digest([u8; 32]),
    /// Why there is no more.
    Failed(String),
}

/// How far the stream is behind.
#[derive(Debug, Default)]
struct Room {
    behind: Mutex<Behind>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Behind {
    /// Pages that were given and not taken.
    pieces: usize,
    /// Nobody takes anything any more.
    is_gone: bool,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one image.
#[derive(Debug)]
pub(super) struct Maker {
    job: SharedJob,
    pieces: mpsc::UnboundedSender<Piece>,
    room: Arc<Room>,
    /// What is left of [`PATIENCE`].
    patience: Duration,
    /// Where the rest goes that is not taken in time.
    spill: Spill,
    metrics: Arc<Metrics>,
}

/// The stream's end.
#[derive(Debug)]
pub(super) struct Taker {
    pieces: mpsc::UnboundedReceiver<Piece>,
    room: Arc<Room>,
}

/// A maker for an image of `job`, and who takes it. `spill` is a path that nothing else has.
pub(super) fn image(
    job: SharedJob,
    spill: PathBuf,
    patience: Duration,
    metrics: Arc<Metrics>,
) -> (Maker, Taker) {
    let (giving, pieces) = mpsc::unbounded_channel();
    let room = Arc::new(Room::default());
    let maker = Maker {
        job,
        pieces: giving,
        room: Arc::clone(&room),
        patience,
        spill: Spill {
            path: spill,
            file: None,
        },
        metrics,
    };
    (maker, Taker { pieces, room })
}

impl Maker {
    /// Makes all of it. Blocks; ends early when nobody takes it any more.
    pub(super) fn run(mut self) {
        let made = self.make();
        // The rows are free before the client hears of the end.
        drop(self.job);
        let given = match made {
            Ok(digest) => {
                let rest = self.spill.file.take().map(Piece::Rest);
                rest.into_iter()
                    .chain([Piece::Digest(digest)])
                    .try_for_each(|piece| self.pieces.send(piece))
            }
            Err(error) => self.pieces.send(Piece::Failed(error.to_string())),
        };
        // Who has gone does not mind.
        drop(given);
    }

    fn make(&mut self) -> Result<[u8; 32], CheckpointError> {
        let Self {
            job,
            pieces,
            room,
            patience,
            spill,
            metrics,
        } = self;
        let outline = job.outline()?;
        pieces
            .send(Piece::Length(outline.bytes))
            .map_err(|_| gone())?;
        let mut digest = Sha256::new();
        job.stream(&outline, |bytes| {
            digest.update(bytes);
            if spill.file.is_none() && room.wait(patience)? {
                let pages = Piece::Pages(Bytes::copy_from_slice(bytes));
                return pieces.send(pages).map_err(|_| gone());
            }
            if pieces.is_closed() {
                return Err(gone());
            }
            metrics.work.backup_spilled.add(bytes.len() as u64);
            spill.append(bytes)
        })?;
        spill.rewind()?;
        Ok(digest.finalize().into())
    }
}

impl Room {
    /// Waits until there is room for a piece, and takes it; false when patience ends before.
    fn wait(&self, patience: &mut Duration) -> Result<bool, DiskError> {
        let began = Instant::now();
        let is_full = |behind: &mut Behind| behind.pieces >= PIECES_MAX && !behind.is_gone;
        let (mut behind, timed_out) = self
            .changed
            .wait_timeout_while(self.lock(), *patience, is_full)
            .unwrap_or_else(PoisonError::into_inner);
        *patience = patience.saturating_sub(began.elapsed());
        if behind.is_gone {
            return Err(gone());
        }
        if timed_out.timed_out() {
            return Ok(false);
        }
        behind.pieces += 1;
        Ok(true)
    }
}

impl Taker {
    /// The next piece; `None` if the maker has ended before its time.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await;
        if matches!(piece, Some(Piece::Pages(_))) {
            self.room.lock().pieces -= 1;
            self.room.changed.notify_one();
        }
        piece
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.pieces.close();
        self.room.lock().is_gone = true;
        self.room.changed.notify_one();
    }
}

/// The part of an image that was not taken in time: a file that is gone when it is closed.
#[derive(Debug)]
struct Spill {
    path: PathBuf,
    /// There is none before the first byte.
    file: Option<File>,
}

impl Spill {
    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        let failed = |error: &io::Error| self.failed(error);
        if self.file.is_none() {
            let file = self.create().map_err(|error| failed(&error))?;
            self.file = Some(file);
        }
        let file = self.file.as_mut().expect("it was just made");
        // Not for the sake of durability: hundreds of mebibytes that reach the device at once hold up the log's syncs.
        let written = file.write_all(bytes).and_then(|()| file.sync_data());
        written.map_err(|error| self.failed(&error))
    }

    fn create(&self) -> io::Result<File> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&self.path)?;
        std::fs::remove_file(&self.path)?;
        Ok(file)
    }

    fn rewind(&mut self) -> Result<(), DiskError> {
        let rewound = self.file.as_mut().map_or(Ok(()), io::Seek::rewind);
        rewound.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> DiskError {
        DiskError {
            operation: "write",
            path: self.path.display().to_string(),
            kind: DiskErrorKind::Failed,
            message: error.to_string(),
        }
    }
}

fn gone() -> DiskError {
    DiskError {
        operation: "send",
        path: "backup".to_owned(),
        kind: DiskErrorKind::Failed,
        message: "the client has gone".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use quorate_core::checkpoint::{Contents, Job};
    use quorate_core::mvcc::Store;
    use quorate_core::types::{LeaseId, MemberId};

    use super::*;
    use crate::config::FeatureGates;
    use crate::metrics;

    const NEVER: Duration = Duration::from_secs(3600);

    /// A store whose image is larger than what may be on its way.
    fn store() -> Store {
        let mut store = Store::new();
        for number in 0..12_000_u32 {
            let mut txn = store.begin();
            txn.put(&number.to_be_bytes(), &[7; 1000], LeaseId(0));
            txn.end();
        }
        store
    }

    fn job(store: &Store) -> SharedJob {
        SharedJob::new(Job::new(Contents::default(), &store.view()))
    }

    struct Begun {
        taker: Taker,
        maker: thread::JoinHandle<()>,
        metrics: Arc<Metrics>,
        directory: tempfile::TempDir,
    }

    fn begin(store: &Store, patience: Duration) -> Begun {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new(metrics::Identity {
            member: MemberId(1),
            gates: FeatureGates::default(),
            extensive: false,
        }));
        let spill = directory.path().join("spill");
        let (maker, taker) = image(job(store), spill, patience, Arc::clone(&metrics));
        Begun {
            taker,
            maker: thread::spawn(move || maker.run()),
            metrics,
            directory,
        }
    }

    /// All that is left, checked against its length and digest.
    fn take(taker: &mut Taker) -> Vec<u8> {
        use std::io::Read as _;
        let mut length = 0;
        let mut bytes = Vec::new();
        loop {
            match taker.pieces.blocking_recv().expect("a digest ends it") {
                Piece::Length(whole) => length = whole,
                Piece::Pages(pages) => {
                    bytes.extend_from_slice(&pages);
                    taker.room.lock().pieces -= 1;
                    taker.room.changed.notify_one();
                }
                Piece::Rest(mut file) => {
                    file.read_to_end(&mut bytes).unwrap();
                }
                Piece::Digest(digest) => {
                    assert_eq!(length, bytes.len() as u64);
                    assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&bytes)));
                    return bytes;
                }
                Piece::Failed(reason) => panic!("{reason}"),
            }
        }
    }

    fn is_image_of(store: &Store, bytes: Vec<u8>) {
        let loaded = quorate_core::checkpoint::load(bytes.into()).expect("an image, sealed");
        let rows: Result<Vec<_>, _> = loaded.rows.collect();
        assert_eq!(
            rows.expect("whole"),
            store.view().history((0, 0), usize::MAX)
        );
    }

    #[test]
    fn who_keeps_up_gets_the_image_and_no_disk_is_written() {
        let store = store();
        let mut begun = begin(&store, NEVER);
        let bytes = take(&mut begun.taker);
        begun.maker.join().unwrap();
        is_image_of(&store, bytes);
        assert_eq!(begun.metrics.work.backup_spilled.value(), 0);
    }

    #[test]
    fn who_is_slow_holds_neither_rows_nor_memory_and_still_gets_the_image() {
        let mut store = store();
        let mut begun = begin(&store, Duration::ZERO);
        // It ends although nothing is taken.
        begun.maker.join().unwrap();
        assert_eq!(begun.taker.room.lock().pieces, PIECES_MAX);
        assert!(begun.metrics.work.backup_spilled.value() > 8 << 20);
        let names = std::fs::read_dir(begun.directory.path()).unwrap();
        assert_eq!(names.count(), 0, "what was spilled has no name");
        let view = store.view();
        let before = view.history((0, 0), usize::MAX);
        store.compact(view.revision()).unwrap();
        let steps = (0..1000).position(|_| store.compact_step(10_000));
        assert!(steps.is_some(), "nothing holds the compaction off");
        let loaded = quorate_core::checkpoint::load(take(&mut begun.taker).into()).expect("sealed");
        let rows: Result<Vec<_>, _> = loaded.rows.collect();
        assert_eq!(rows.expect("whole"), before);
    }

    #[test]
    fn who_goes_away_frees_the_rows() {
        let store = store();
        let begun = begin(&store, NEVER);
        drop(begun.taker);
        // It would wait for ever.
        begun.maker.join().unwrap();
        assert_eq!(begun.metrics.work.backup_spilled.value(), 0);
    }
}
