//! `migrate`: another storage version in a data directory's image, for an etcd that is newer or older.
//!
//! Between 3.5 and 3.7 the storage differs by nothing but what it says of its version: 3.5 says none.

use quorate_core::disk::Disk as _;
use quorate_core::offline::{self, Form};
use quorate_core::wal;
use quorate_proto::etcdserverpb::InternalRaftRequest;
use quorate_proto::raftpb::EntryType;

use crate::command_line::{Arguments, Flag, Kind};
use crate::{Failure, files, log};

const fn flag(name: &'static str, kind: Kind, usage: &'static str, required: bool) -> Flag {
    Flag {
        name,
        short: None,
        kind,
        default: "",
        usage,
        required,
    }
}

pub(crate) const FLAGS: &[Flag] = &[
    flag("data-dir", Kind::Text, "Path to the etcd data dir", true),
    flag(
        "force",
        Kind::Bool,
        "Ignore migration failure and forcefully override storage version. Not recommended.",
        false,
    ),
    flag(
        "target-version",
        Kind::Text,
        "Target etcd version to migrate contents of data dir. Minimal value 3.5. Format \"X.Y\" for example 3.6.",
        true,
    ),
];

/// Major and minor version of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64);

/// The first storage that says its version.
const FIRST_TO_SAY: Version = Version(3, 6);
const OLDEST: Version = Version(3, 5);
const NEWEST: Version = Version(3, 7);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.0", self.0, self.1)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let target = parse_target(arguments.text("target-version"))?;
    let directory = arguments.text("data-dir");
    let mut disk = files::take_directory(directory, arguments.timeout())?;
    let form = offline::form(&mut disk).map_err(Failure::general)?;
    let current = detect(&form)?;
    if current == target {
        let version = log::text(format!("{}.{}", target.0, target.1));
        log::line(
            "info",
            "storage version up-to-date",
            &[("storage-version", version)],
        );
        return Ok(());
    }
    let log_needs = newest_in_log(&disk)?;
    let plan = plan(current, target, log_needs);
    match plan {
        Ok(()) => {}
        Err(reason) if arguments.is_set("force") => {
            let error = log::text(&reason);
            log::line(
                "info",
                "normal migrate failed, trying with force",
                &[("error", error)],
            );
        }
        Err(reason) => return Err(Failure::general(reason)),
    }
    let text = target.to_string();
    let stored = (target >= FIRST_TO_SAY).then_some(text.as_str());
    offline::set_storage_version(&mut disk, stored).map_err(Failure::general)?;
    let version = [("new-storage-version", log::text(&text))];
    log::line("info", "updated storage version", &version);
    Ok(())
}

fn parse_target(text: &str) -> Result<Version, Failure> {
    let mut parts = text.split('.');
    let (Some(major), Some(minor), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Failure::arguments(format!(
            "wrong target version format, expected \"X.Y\", got {text:?}"
        )));
    };
    let number = |part: &str| {
        part.parse::<u64>().map_err(|_| {
            Failure::arguments(format!(
                "failed to parse target version: strconv.ParseInt: parsing {part:?}: invalid syntax"
            ))
        })
    };
    let target = Version(number(major)?, number(minor)?);
    if target < OLDEST {
        return Err(Failure::arguments(format!(
            "target version \"{}.{}\" not supported. Minimal \"3.5\"",
            target.0, target.1
        )));
    }
    Ok(target)
}

fn detect(form: &Form) -> Result<Version, Failure> {
    let Some(text) = &form.storage_version else {
        if form.has_term {
            return Ok(OLDEST);
        }
        log::line(
            "error",
            "failed to detect storage version. Please make sure you are using data dir from etcd v3.5 and older",
            &[],
        );
        return Err(Failure::general("missing term information"));
    };
    let mut parts = text.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(Version(major, minor)),
        _ => Err(Failure::general(format!(
            "storage version {text:?} is not a version such as {NEWEST}"
        ))),
    }
}

/// Whether one can go from the one to the other, in etcd's words if not.
fn plan(current: Version, target: Version, log_needs: Option<Version>) -> Result<(), String> {
    let refused = |reason: String| Err(format!("cannot create migration plan: {reason}"));
    if current.0 != target.0 {
        return refused("changing major storage version is not supported".to_owned());
    }
    let highest = current.max(target);
    if highest > NEWEST {
        // Steps are looked at one by one, from where it is.
        let unknown = if current > NEWEST {
            current
        } else {
            Version(NEWEST.0, NEWEST.1 + 1)
        };
        return refused(format!("version \"{unknown}\" is not supported"));
    }
    match log_needs {
        Some(needed) if target < current && target < needed => Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is lower than the \
             version ({needed}) detected from WAL logs"
        )),
        _ => Ok(()),
    }
}

/// The version of etcd that the log's entries need, as far as it is 3.6 or newer: no request that is in use needs
/// more than 3.5; the one that is there to try this out says itself what it needs.
fn newest_in_log(disk: &quorate_server::disk::MmapDisk) -> Result<Option<Version>, Failure> {
    let failed = |error: wal::WalError| Failure::general(format!("failed to read wal: {error}"));
    let options = wal::Options::default();
    if disk
        .list(&options.directory)
        .is_ok_and(|names| names.is_empty())
    {
        return Err(Failure::general(
            "failed to get the lastest snapshot: member/wal holds no log",
        ));
    }
    let recovered = wal::recover(disk.clone(), options).map_err(failed)?;
    let mut newest = None;
    for entry in &recovered.entries {
        if entry.kind() != Ok(EntryType::EntryNormal) {
            continue;
        }
        let content = entry.data.clone().unwrap_or_default();
        let request: InternalRaftRequest = prost::Message::decode(content)
            .map_err(|error| Failure::general(format!("failed to read wal: {error}")))?;
        let test = request.downgrade_version_test;
        let needed = test.and_then(|test| {
            let mut parts = test.ver.split('.').map(|part| part.parse().ok());
            Some(Version(parts.next()??, parts.next()??))
        });
        newest = newest.max(needed);
    }
    Ok(newest)
}
