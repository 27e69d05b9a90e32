//! `snapshot save`: a member's state as one file, with a digest behind it.
//!
//! ```text
//!   FILE.part (0600) ◄── blobs of the stream, the digest last ──► size looked at, fsync ──► FILE
//! ```
//!
//! The file has its name when it is whole and on the disk, and never before; what was left of an attempt is removed.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use quorate_net::client::Client;

use crate::failure::{Exit, Failure, describe, log_fields, log_line};
use crate::globals::{Context, Patience};
use crate::output::{size, write};

/// An image ends with a sector, so that this rest says that the digest is there.
const SECTOR_BYTES: u64 = 512;
const DIGEST_BYTES: u64 = 32;

/// How often a long transfer says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// `snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Stores an etcd node backend snapshot to a given file
    Save {
        /// <filename>
        args: Vec<OsString>,
    },
}

impl Snapshot {
    /// Fetches, stores and says so.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let SnapshotCommand::Save { args } = &self.command;
        let [file] = args.as_slice() else {
            return Err(Failure::arguments(
                "snapshot save expects one argument <filename>",
            ));
        };
        let session = context.open(Patience::Endless).await?;
        let path = Path::new(file);
        let part = Part::create(path)?;
        let fetched = fetch(&session.client, part);
        let fetched = match context.command_timeout_given() {
            None => fetched.await,
            Some(timeout) => tokio::time::timeout(timeout, fetched)
                .await
                .unwrap_or_else(|_| Err(interrupted("context deadline exceeded"))),
        };
        let (part, version) = fetched?;
        part.give_name(path)?;
        let mut words = format!("Snapshot saved at {}\n", path.display());
        if !version.is_empty() {
            words += &format!("Server version {version}\n");
        }
        write(words.as_bytes())
    }
}

/// Writes the stream into the file; answers the storage version that came with it.
async fn fetch(client: &Client, mut part: Part) -> Result<(Part, String), Failure> {
    let begin = Instant::now();
    let endpoint = match client.endpoints() {
        [endpoint] => endpoint.to_string(),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            return Err(interrupted(format!(
                "snapshot must be requested to one selected node, not multiple [{}]",
                names.join(" ")
            )));
        }
    };
    let failed = |error: &_| interrupted(describe(error));
    let mut blobs = client.snapshot().await.map_err(|error| failed(&error))?;
    log_line("info", "fetching snapshot", "endpoint", &endpoint);
    let mut version = String::new();
    let mut said = begin;
    while let Some(message) = blobs
        .message()
        .await
        .map_err(|status| failed(&status.into()))?
    {
        part.write(&message.blob)?;
        version = message.version;
        if said.elapsed() >= PROGRESS_INTERVAL {
            said = Instant::now();
            let fields = [
                ("received", size(part.bytes.cast_signed())),
                ("remaining", size(message.remaining_bytes.cast_signed())),
            ];
            log_fields("info", "downloading snapshot", &fields);
        }
    }
    part.finish()?;
    let fields = [
        ("endpoint", endpoint),
        ("size", size(part.bytes.cast_signed())),
        ("took", crate::go::duration::format(begin.elapsed())),
        ("etcd-version", version.clone()),
    ];
    log_fields("info", "fetched snapshot", &fields);
    Ok((part, version))
}

/// A failure behind the arguments, all of which have one exit code.
fn interrupted(words: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Interrupted, words)
}

/// The file while it is not whole; it goes when this goes.
struct Part {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Part {
    fn create(path: &Path) -> Result<Self, Failure> {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        let part = PathBuf::from(name);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part);
        let shown = part.display().to_string();
        let file = file.map_err(|error| {
            let reason = words(&error);
            interrupted(format!("could not open {shown} (open {shown}: {reason})"))
        })?;
        log_line("info", "created temporary db file", "path", &shown);
        Ok(Self {
            path: part,
            file,
            bytes: 0,
        })
    }

    fn write(&mut self, blob: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(blob);
        written.map_err(|error| self.failed("write", &error))?;
        self.bytes += blob.len() as u64;
        Ok(())
    }

    /// Makes sure that the digest is there, and that all of it is on the disk.
    fn finish(&mut self) -> Result<(), Failure> {
        if self.bytes % SECTOR_BYTES != DIGEST_BYTES {
            return Err(interrupted(format!(
                "sha256 checksum not found [bytes: {}]",
                self.bytes
            )));
        }
        let synced = self.file.sync_all();
        synced.map_err(|error| self.failed("fsync", &error))
    }

    fn give_name(self, path: &Path) -> Result<(), Failure> {
        let (part, name) = (self.path.display(), path.display());
        std::fs::rename(&self.path, path).map_err(|error| {
            let reason = words(&error);
            interrupted(format!(
                "could not rename {part} to {name} (rename {part} {name}: {reason})"
            ))
        })?;
        // The name must survive a power loss as the content does.
        let whole = std::path::absolute(path)?;
        let directory = whole.parent().unwrap_or(&whole);
        File::open(directory)?.sync_all()?;
        log_line("info", "saved", "path", &name.to_string());
        Ok(())
    }

    fn failed(&self, operation: &str, error: &std::io::Error) -> Failure {
        let (path, reason) = (self.path.display(), words(error));
        interrupted(format!("{operation} {path}: {reason}"))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It has its name by now, or nobody wants it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the system said, as Go says it.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
