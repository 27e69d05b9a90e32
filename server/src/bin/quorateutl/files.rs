//! Files as commands find them: Go's words for what the system refuses, waiting for locks, a backup and its digest.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_core::checkpoint::DATABASE;
use quorate_core::disk::{DiskError, DiskErrorKind};
use quorate_server::disk::{Mapped, MmapDisk};

use crate::Failure;

/// How often a lock is tried, as bbolt does.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// What the system said, as Go says it.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Fails as Go's `os.Stat` does if there is nothing of that name.
pub(crate) fn stat(path: &str) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::general(format!("stat {path}: {}", words(&error)))),
    }
}

/// All of a file, once nobody is changing it.
pub(crate) fn read_image(path: &str, timeout: Option<Duration>) -> Result<Bytes, Failure> {
    map_image(path, timeout).map(|(_, mapped)| mapped.bytes())
}

/// The same, for who reads it in pieces.
pub(crate) fn map_image(path: &str, timeout: Option<Duration>) -> Result<(File, Mapped), Failure> {
    let failed = |error: io::Error| Failure::general(format!("open {path}: {}", words(&error)));
    let file = File::open(path).map_err(failed)?;
    wait(timeout, || match file.try_lock_shared() {
        Ok(()) => Some(Ok(())),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => Some(Err(failed(error))),
    })
    .unwrap_or_else(|| Err(timed_out(path)))?;
    // The lock goes with the file, as the map does: a backup has no writer, and a member replaces its file.
    let mapped = Mapped::new(&file).map_err(failed)?;
    Ok((file, mapped))
}

/// Takes a data directory that has an image, once nobody works on it.
pub(crate) fn take_directory(
    directory: &str,
    timeout: Option<Duration>,
) -> Result<MmapDisk, Failure> {
    stat(&database(directory))?;
    let root = if directory.is_empty() { "." } else { directory };
    wait(timeout, || match MmapDisk::open(root) {
        Err(DiskError {
            kind: DiskErrorKind::Locked,
            ..
        }) => None,
        opened => Some(opened.map_err(Failure::general)),
    })
    .unwrap_or_else(|| Err(timed_out(directory)))
}

/// Where the image of a data directory is, as etcdutl names it.
pub(crate) fn database(directory: &str) -> String {
    Path::new(directory).join(DATABASE).display().to_string()
}

fn timed_out(path: &str) -> Failure {
    Failure::general(format!(
        "failed to open database: timeout: another process holds {path:?}; is an etcd or a quorate running on it?"
    ))
}

/// Asks until there is an answer, or time is up.
fn wait<T>(timeout: Option<Duration>, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if timeout.is_some_and(|timeout| begin.elapsed() >= timeout) {
            return None;
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
}
