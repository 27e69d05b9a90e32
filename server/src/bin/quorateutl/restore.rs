//! `snapshot restore`: a backup becomes the first data directory of a member of a new cluster.
//!
//! The backup is read once to be copied and, beside that, once for its digest, and is not kept in memory. The directory
//! becomes one that a member starts on when both have come to their end; what was made of a bad backup, or before a disk
//! failed, is removed again.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::{Scope, ScopedJoinHandle};

use quorate_core::checkpoint::MemberRecord;
use quorate_core::offline::{Backup, OfflineError, Overseer, Plan};
use quorate_core::types::Revision;
use quorate_core::wal::{self, Metadata};
use quorate_server::config::{self, ConfigError, Outcome, Url};
use quorate_server::disk::{Mapped, MmapDisk};
use sha2::{Digest as _, Sha256};

use crate::command_line::{Arguments, Flag, Kind};
use crate::status::damaged;
use crate::{Failure, files, log};

const DIGEST_BYTES: usize = 32;

/// An image ends with a sector, so that a rest says that a digest follows.
const SECTOR_BYTES: usize = 512;

/// How much is read at a time for the digest.
const PIECE_BYTES: usize = 256 << 10;

/// How much of the backup may be in memory.
const RELEASE_BYTES: usize = 16 << 20;

/// A restored log begins with a few records. A member that starts on it makes the file as long as it wants it.
const SEGMENT_BYTES: u64 = 64 << 10;

const fn flag(name: &'static str, kind: Kind, default: &'static str, usage: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        kind,
        default,
        usage,
        required: false,
    }
}

pub(crate) const FLAGS: &[Flag] = &[
    flag(
        "bump-revision",
        Kind::Uint,
        "0",
        "How much to increase the latest revision after restore",
    ),
    flag(
        "data-dir",
        Kind::Text,
        "",
        "Path to the output data directory",
    ),
    flag(
        "initial-advertise-peer-urls",
        Kind::Text,
        "http://localhost:2380",
        "List of this member's peer URLs to advertise to the rest of the cluster",
    ),
    flag(
        "initial-cluster",
        Kind::Text,
        "default=http://localhost:2380",
        "Initial cluster configuration for restore bootstrap",
    ),
    flag(
        "initial-cluster-token",
        Kind::Text,
        "etcd-cluster",
        "Initial cluster token for the etcd cluster during restore bootstrap",
    ),
    flag(
        "initial-memory-map-size",
        Kind::Uint,
        "10737418240",
        "Initial memory map size of the database in bytes. It uses the default value if not defined or defined to 0",
    ),
    flag(
        "mark-compacted",
        Kind::Bool,
        "",
        "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)",
    ),
    flag(
        "name",
        Kind::Text,
        "default",
        "Human-readable name for this member",
    ),
    flag(
        "skip-hash-check",
        Kind::Bool,
        "",
        "Ignore snapshot integrity hash value (required if copied from data directory)",
    ),
    flag(
        "wal-dir",
        Kind::Text,
        "",
        "Path to the WAL directory (use --data-dir if none given)",
    ),
];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let [file] = arguments.positional.as_slice() else {
        return Err(Failure::arguments(
            "snapshot restore requires exactly one argument",
        ));
    };
    let bump = arguments.uint("bump-revision");
    if (bump > 0) != arguments.is_set("mark-compacted") {
        return Err(Failure::arguments(
            "--mark-compacted required if --revision-bump > 0",
        ));
    }
    let (members, own) = cluster(arguments).map_err(Failure::general)?;
    let place = Place::free(arguments)?;
    let mut fields = place.fields(file);
    // Go's bbolt reserves that much; a map needs no more than the file here.
    let map_size = arguments.uint("initial-memory-map-size").to_string();
    fields.push(("initial-memory-map-size", map_size));
    log::line("info", "restoring snapshot", &fields);

    let source = Source::open(file, arguments)?;
    std::thread::scope(|threads| {
        let mut reading = source.read(threads);
        let restored = restore(&source, &mut reading, arguments, &place, members, own);
        // A bad digest says more than what it has led to.
        let restored = reading.check_digest().and(restored);
        if restored.is_err() {
            place.clear();
        }
        restored
    })?;
    log::line("info", "restored snapshot", &fields);
    Ok(())
}

fn restore(
    source: &Source,
    reading: &mut Reading<'_, '_>,
    arguments: &Arguments,
    place: &Place,
    members: Vec<MemberRecord>,
    own: Metadata,
) -> Result<(), Failure> {
    let image = source.mapped.bytes().slice(..source.image_bytes);
    let backup = Backup::open(image, reading).map_err(|error| damaged(&error))?;
    let bumped = match arguments.uint("bump-revision") {
        0 => None,
        bump => Some(bumped(&backup, bump)?),
    };
    let plan = Plan {
        members,
        own,
        log: place.log()?,
        bumped,
    };
    let disk = MmapDisk::open(&place.data).map_err(Failure::general)?;
    let restored = backup.restore(disk, &plan, reading);
    restored.map_err(|error| match error {
        OfflineError::Image(error) => damaged(&error),
        error => Failure::general(error),
    })
}

/// Where the new cluster begins that is `bump` revisions ahead of the backup.
fn bumped(backup: &Backup, bump: u64) -> Result<Revision, Failure> {
    let latest = backup.revision().map_err(|error| damaged(&error))?.0;
    let bumped = i64::try_from(bump).map(|bump| latest.checked_add(bump));
    let Ok(Some(revision)) = bumped else {
        return Err(Failure::general(format!(
            "--bump-revision {bump}: there is no revision that large"
        )));
    };
    log::line(
        "info",
        "bumping latest revision",
        &[
            ("latest-revision", latest.to_string()),
            ("bump-amount", bump.to_string()),
            ("new-latest-revision", revision.to_string()),
        ],
    );
    let fields = [("revision", revision.to_string())];
    log::line("info", "marking revision compacted", &fields);
    Ok(Revision(revision))
}

/// The members of the new cluster, and the one that the directory is for; checked as a starting member checks them.
fn cluster(arguments: &Arguments) -> Result<(Vec<MemberRecord>, Metadata), String> {
    let Outcome::Run(mut config) = config::parse(&[], &[]) else {
        unreachable!("a member starts without any flag");
    };
    arguments.text("name").clone_into(&mut config.name);
    config.initial_advertise_peer_urls =
        Url::parse_list(arguments.text("initial-advertise-peer-urls"))?;
    arguments
        .text("initial-cluster")
        .clone_into(&mut config.initial_cluster);
    arguments
        .text("initial-cluster-token")
        .clone_into(&mut config.initial_cluster_token);
    config.founders().map_err(|ConfigError(reason)| {
        let bare = reason.strip_prefix("error setting up initial cluster: ");
        bare.unwrap_or(&reason).to_owned()
    })
}

/// Where the directory goes.
struct Place {
    data: PathBuf,
    /// Whether it was there, and empty.
    was_there: bool,
    log: PathBuf,
}

impl Place {
    /// Refuses what would be overwritten.
    fn free(arguments: &Arguments) -> Result<Self, Failure> {
        let data = match arguments.text("data-dir") {
            "" => format!("{}.etcd", arguments.text("name")),
            given => given.to_owned(),
        };
        let was_there = std::fs::symlink_metadata(&data).is_ok();
        let is_empty = std::fs::read_dir(&data).is_ok_and(|mut names| names.next().is_none());
        if was_there && !is_empty {
            return Err(Failure::general(format!(
                "data-dir {data:?} not empty or could not be read"
            )));
        }
        let data = PathBuf::from(data);
        let log = match arguments.text("wal-dir") {
            "" => data.join("member/wal"),
            given if std::fs::symlink_metadata(given).is_ok() => {
                return Err(Failure::general(format!("wal-dir {given:?} exists")));
            }
            given => PathBuf::from(given),
        };
        Ok(Self {
            data,
            was_there,
            log,
        })
    }

    fn log(&self) -> Result<wal::Options, Failure> {
        if self.log.starts_with(&self.data) && self.log.ends_with("member/wal") {
            return Ok(wal::Options {
                segment_bytes: SEGMENT_BYTES,
                ..wal::Options::default()
            });
        }
        let absolute = std::path::absolute(&self.log).map_err(Failure::general)?;
        let directory = absolute.to_str().ok_or_else(|| {
            Failure::general(format!("wal-dir {absolute:?}: the name is not UTF-8"))
        })?;
        Ok(wal::Options {
            directory: directory.to_owned(),
            segment_bytes: SEGMENT_BYTES,
        })
    }

    fn fields(&self, file: &str) -> Vec<(&'static str, String)> {
        let path = |path: &Path| log::text(path.display().to_string());
        vec![
            ("path", log::text(file)),
            ("wal-dir", path(&self.log)),
            ("data-dir", path(&self.data)),
            ("snap-dir", path(&self.data.join("member/snap"))),
        ]
    }

    /// Removes what was made; nothing of it was there before. It matters little if this fails, too.
    fn clear(&self) {
        for log in [self.log.clone(), beside(&self.log)] {
            let _ = std::fs::remove_dir_all(log);
        }
        let _ = std::fs::remove_dir_all(self.data.join("member"));
        if !self.was_there {
            let _ = std::fs::remove_dir(&self.data);
        }
    }
}

/// Where the log is while it has no name yet.
fn beside(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".restoring");
    name.into()
}

/// A backup's file.
struct Source {
    file: File,
    mapped: Mapped,
    /// Without the digest behind it.
    image_bytes: usize,
    /// The digest, if it is to be checked.
    digest: Option<Vec<u8>>,
}

impl Source {
    fn open(path: &str, arguments: &Arguments) -> Result<Self, Failure> {
        let (file, mapped) = files::map_image(path, arguments.timeout())?;
        let whole = mapped.bytes();
        if whole.len() < DIGEST_BYTES {
            return Err(Failure::general(format!("seek {path}: invalid argument")));
        }
        let has_digest = whole.len() % SECTOR_BYTES == DIGEST_BYTES;
        let is_skipped = arguments.is_set("skip-hash-check");
        if !has_digest && !is_skipped {
            return Err(Failure::general(
                "snapshot missing hash but --skip-hash-check=false",
            ));
        }
        let image_bytes = if has_digest {
            whole.len() - DIGEST_BYTES
        } else {
            whole.len()
        };
        Ok(Self {
            file,
            mapped,
            image_bytes,
            digest: (!is_skipped).then(|| whole[image_bytes..].to_vec()),
        })
    }

    /// Begins to read it.
    fn read<'scope, 'env>(
        &'env self,
        threads: &'scope Scope<'scope, 'env>,
    ) -> Reading<'scope, 'env> {
        let digest = self.digest.as_ref();
        let check = |digest: &'env Vec<u8>| threads.spawn(move || self.check_digest(digest));
        Reading {
            mapped: &self.mapped,
            unreleased: 0,
            digest: digest.map(check),
            failure: None,
        }
    }

    /// Reads the file and not the map, so that what it has seen takes no memory.
    fn check_digest(&self, expected: &[u8]) -> Result<(), Failure> {
        let mut sum = Sha256::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < self.image_bytes {
            let length = (self.image_bytes - at).min(PIECE_BYTES);
            let read = self.file.read_exact_at(&mut piece[..length], at as u64);
            read.map_err(Failure::general)?;
            sum.update(&piece[..length]);
            at += length;
        }
        let found = sum.finalize();
        if expected != &found[..] {
            return Err(Failure::general(format!(
                "expected sha256 {}, got {}",
                numbers(expected),
                numbers(&found)
            )));
        }
        Ok(())
    }
}

/// A backup that is being read.
struct Reading<'scope, 'env> {
    mapped: &'env Mapped,
    /// Bytes read since memory was given back.
    unreleased: usize,
    /// Who computes the digest.
    digest: Option<ScopedJoinHandle<'scope, Result<(), Failure>>>,
    /// What that came to, if it is bad.
    failure: Option<Failure>,
}

impl Reading<'_, '_> {
    /// Waits for the digest; its failure is told once.
    fn check_digest(&mut self) -> Result<(), Failure> {
        self.may_end();
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Overseer for Reading<'_, '_> {
    fn on_read(&mut self, bytes: usize) {
        self.unreleased += bytes;
        if self.unreleased >= RELEASE_BYTES {
            self.unreleased = 0;
            self.mapped.release();
        }
    }

    fn may_end(&mut self) -> bool {
        if let Some(digest) = self.digest.take() {
            let checked = digest.join().expect("to compute a digest cannot fail");
            self.failure = checked.err();
        }
        self.failure.is_none()
    }
}

/// Bytes as Go prints a slice of them.
fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}
