//! `snapshot restore`: a backup becomes the first data directory of a member of a new cluster.
//!
//! The backup is read to its end before anything is made, so that a bad one leaves nothing behind; what was made before
//! a disk failed is removed again.

use std::path::{Path, PathBuf};

use quorate_core::checkpoint::MemberRecord;
use quorate_core::offline::{Backup, Plan};
use quorate_core::wal::{self, Metadata};
use quorate_server::config::{self, ConfigError, Outcome, Url};
use quorate_server::disk::MmapDisk;
use sha2::{Digest as _, Sha256};

use crate::command_line::{Arguments, Flag, Kind};
use crate::status::damaged;
use crate::{Failure, files, log};

const DIGEST_BYTES: usize = 32;

/// An image ends with a sector, so that a rest says that a digest follows.
const SECTOR_BYTES: usize = 512;

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

    let backup = open(file, arguments)?;
    let bump = match i64::try_from(bump) {
        Ok(0) => None,
        Ok(bump) if backup.revision().0.checked_add(bump).is_some() => Some(bump),
        _ => {
            return Err(Failure::general(format!(
                "--bump-revision {bump}: there is no revision that large"
            )));
        }
    };
    if let Some(bump) = bump {
        let latest = backup.revision().0;
        log::line(
            "info",
            "bumping latest revision",
            &[
                ("latest-revision", latest.to_string()),
                ("bump-amount", bump.to_string()),
                ("new-latest-revision", (latest + bump).to_string()),
            ],
        );
        let revision = [("revision", (latest + bump).to_string())];
        log::line("info", "marking revision compacted", &revision);
    }
    let plan = Plan {
        members,
        own,
        log: place.log()?,
        bump,
    };
    let restored = MmapDisk::open(&place.data)
        .map_err(Failure::general)
        .and_then(|disk| backup.restore(disk, &plan).map_err(Failure::general));
    if restored.is_err() {
        place.clear();
    }
    restored?;
    log::line("info", "restored snapshot", &fields);
    Ok(())
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
            return Ok(wal::Options::default());
        }
        let absolute = std::path::absolute(&self.log).map_err(Failure::general)?;
        let directory = absolute.to_str().ok_or_else(|| {
            Failure::general(format!("wal-dir {absolute:?}: the name is not UTF-8"))
        })?;
        Ok(wal::Options {
            directory: directory.to_owned(),
            ..wal::Options::default()
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

/// The backup, if it is sound, and if the digest behind it says so. Each is a pass over all of it, and they go side by
/// side.
fn open(file: &str, arguments: &Arguments) -> Result<Backup, Failure> {
    let whole = files::read_image(file, arguments.timeout())?;
    if whole.len() < DIGEST_BYTES {
        return Err(Failure::general(format!("seek {file}: invalid argument")));
    }
    let has_digest = whole.len() % SECTOR_BYTES == DIGEST_BYTES;
    let end = if has_digest {
        whole.len() - DIGEST_BYTES
    } else {
        whole.len()
    };
    let image = whole.slice(..end);
    let open = |image| Backup::open(image).map_err(|error| damaged(&error));
    if arguments.is_set("skip-hash-check") {
        return open(image);
    }
    if !has_digest {
        return Err(Failure::general(
            "snapshot missing hash but --skip-hash-check=false",
        ));
    }
    std::thread::scope(|threads| {
        let digest = threads.spawn(|| check_digest(&whole[..end], &whole[end..]));
        let backup = open(image);
        // A bad digest says more than what it has led to.
        digest.join().expect("to compute a digest cannot fail")?;
        backup
    })
}

fn check_digest(image: &[u8], expected: &[u8]) -> Result<(), Failure> {
    let found = Sha256::digest(image);
    if expected != &found[..] {
        return Err(Failure::general(format!(
            "expected sha256 {}, got {}",
            numbers(expected),
            numbers(&found)
        )));
    }
    Ok(())
}

/// Bytes as Go prints a slice of them.
fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}
