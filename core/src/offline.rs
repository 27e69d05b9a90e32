//! What is done with an image and a data directory while no member works on them: a backup looked at, a member's first
//! directory made from one, an image written anew without its holes, another storage version.
//!
//! Nothing here changes an image in place. An image is checked while it is copied, once: one that is no good leaves a
//! directory that nobody starts on, and whoever called removes it. It never asks what is in the directory already:
//! whoever calls decides that.
//!
//! ```text
//! restore   member/snap/db, .snap       the backup's state at the index where the new log begins
//!           <log>.restoring -> <log>    origin | one conf change per member, term 1 | snapshot record behind them
//! ```
//!
//! The log gets its name last: a directory that was restored by half has an image and no log, which nobody starts on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::raftpb::{ConfState, HardState};

use crate::apply;
use crate::boundary::{SnapshotRecord, Write};
use crate::checkpoint::bolt::{Bucket, Image, Item, Writer};
use crate::checkpoint::{self, DATABASE, DIRECTORY, ImageError, Loaded, MemberRecord};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::member::bootstrap_change;
use crate::mvcc::{self, Row};
use crate::types::{Index, Revision, Term, WriteNumber};
use crate::wal::{self, Metadata, Wal, WalError};

const KEY: &[u8] = b"key";
const META: &[u8] = b"meta";
const STORAGE_VERSION: &[u8] = b"storageVersion";
const TERM: &[u8] = b"term";

/// The term of everything that a restored log begins with.
const FIRST_TERM: u64 = 1;

/// Why a backup or a directory is refused, or left half done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The image is damaged or holds what it must not.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The new log cannot be written.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The [`Overseer`] did not let it end.
    #[error("the backup is not what it should be")]
    Refused,
}

/// What is in an image, at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C of the buckets' names, keys and values, in order.
    pub hash: u32,
    /// The last revision that has a row.
    pub revision: i64,
    /// Keys that exist at that revision.
    pub keys: usize,
    /// The bytes in use.
    pub bytes: u64,
    /// The storage version; empty for an image of etcd 3.5 or older.
    pub version: String,
}

/// Looks at all of an image: first at its structure, then at what is in it.
pub fn status(image: Bytes) -> Result<Status, ImageError> {
    let image = Image::open(image)?;
    image.check_seal()?;
    image.check()?;
    let mut status = Status {
        hash: 0,
        revision: 0,
        keys: 0,
        bytes: image.length(),
        version: text(meta(&image)?.remove(STORAGE_VERSION)),
    };
    let mut live = BTreeSet::new();
    for bucket in buckets(&image)? {
        let bucket = bucket?;
        status.hash = crc32c::crc32c_append(status.hash, bucket.name());
        let is_key = bucket.name() == KEY;
        for pair in pairs(&bucket)? {
            let (key, value) = pair?;
            status.hash = crc32c::crc32c_append(status.hash, &key);
            status.hash = crc32c::crc32c_append(status.hash, &value);
            if is_key {
                let row = checkpoint::row(&key, value)?;
                status.revision = row.main;
                let name = name_of(&row)?;
                if row.tombstone {
                    live.remove(&name);
                } else {
                    live.insert(name);
                }
            }
        }
    }
    status.keys = live.len();
    Ok(status)
}

/// A backup whose rows are still to be read.
#[derive(Debug)]
pub struct Backup {
    image: Bytes,
    loaded: Loaded,
}

/// What a restored directory is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The members of the new cluster.
    pub members: Vec<MemberRecord>,
    /// The one whose directory it is, and the cluster.
    pub own: Metadata,
    /// Where the log goes.
    pub log: wal::Options,
    /// Where the new cluster begins, behind the backup's last revision. All before counts as compacted then, so that
    /// no client goes on from what it knows of revisions that the backup never had.
    pub bumped: Option<Revision>,
}

/// Who looks after a restore while it goes on.
pub trait Overseer {
    /// About so many more bytes of the backup were read.
    fn on_read(&mut self, bytes: usize);

    /// Whether the directory may become one that a member starts on; asked when all of the backup has been read.
    fn may_end(&mut self) -> bool;
}

impl Backup {
    /// Reads everything but the rows; an image of ours must be as it was written.
    pub fn open(image: Bytes, overseer: &mut impl Overseer) -> Result<Self, ImageError> {
        let loaded = checkpoint::load_noting(image.clone(), |bytes| overseer.on_read(bytes))?;
        Ok(Self { image, loaded })
    }

    /// The last revision that has a row. It takes a walk over all of them.
    pub fn revision(&self) -> Result<Revision, ImageError> {
        let mut revision = 0;
        for row in checkpoint::load(self.image.clone())?.rows {
            revision = row?.main;
        }
        Ok(Revision(revision))
    }

    /// Writes the data directory: the state is the backup's, the members are the plan's, and the log knows nothing but
    /// them.
    ///
    /// # Panics
    ///
    /// If the plan has no members.
    pub fn restore<D: Disk + Clone>(
        self,
        mut disk: D,
        plan: &Plan,
        overseer: &mut impl Overseer,
    ) -> Result<(), OfflineError> {
        assert!(!plan.members.is_empty(), "a cluster has members");
        let mut members = plan.members.clone();
        members.sort_unstable_by_key(|member| member.id);
        let Loaded { mut contents, rows } = self.loaded;
        let index = members.len() as u64;
        contents.consistent_index = Index(index);
        contents.term = Term(FIRST_TERM);
        contents.conf_state = ConfState {
            voters: members.iter().map(|member| member.id.0).collect(),
            ..ConfState::default()
        };
        contents.members.clone_from(&members);
        contents.members_removed.clear();
        if plan.bumped.is_some() {
            contents.scheduled_compact = plan.bumped;
        }
        // A row without a key: it does nothing but carry the revision.
        let mark = plan.bumped.map(|Revision(main)| {
            Ok(Row {
                main,
                sub: 0,
                tombstone: false,
                key_value: Bytes::new(),
            })
        });
        let check = |row: Result<Row, ImageError>| -> Result<Row, OfflineError> {
            let row = row?;
            overseer.on_read(row.key_value.len());
            if !mvcc::is_key_value(&row.key_value) {
                return Err(no_message(&row).into());
            }
            Ok(row)
        };
        let rows = rows.map(check).chain(mark);
        checkpoint::write_checkpoint(&mut disk, &contents, rows)?;
        if !overseer.may_end() {
            return Err(OfflineError::Refused);
        }
        begin_log(disk, plan, &members, contents.conf_state)
    }
}

/// The log of a cluster that begins behind the conf changes that add its members.
fn begin_log<D: Disk + Clone>(
    mut disk: D,
    plan: &Plan,
    members: &[MemberRecord],
    conf_state: ConfState,
) -> Result<(), OfflineError> {
    let directory = &plan.log.directory;
    let (parent, _) = directory.rsplit_once('/').unwrap_or_default();
    disk.make_directory(parent)?;
    let aside = wal::Options {
        directory: format!("{directory}.restoring"),
        ..plan.log.clone()
    };
    let mut log = Wal::create(disk.clone(), aside.clone(), plan.own)?;
    let changes: Vec<_> = members.iter().map(bootstrap_change).collect();
    let entries = apply::bootstrap_entries(&changes);
    let commit = entries.len() as u64;
    let first = members.first().expect("a cluster has members");
    let write = |number, entries, hard_state, snapshot| Write {
        number: WriteNumber(number),
        entries,
        hard_state,
        install: None,
        snapshot,
        purge_before: None,
        must_sync: true,
    };
    let hard_state = HardState {
        term: FIRST_TERM,
        vote: first.id.0,
        commit,
    };
    log.append(&write(1, entries, Some(hard_state), None))?;
    log.sync()?;
    let record = SnapshotRecord {
        index: Index(commit),
        term: Term(FIRST_TERM),
        conf_state,
    };
    log.append(&write(2, Vec::new(), None, Some(record)))?;
    log.sync()?;
    drop(log);
    disk.rename(&aside.directory, directory)?;
    Ok(disk.sync_directory(parent)?)
}

/// How long the image was, and is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defragmented {
    /// Bytes before.
    pub before: u64,
    /// Bytes now.
    pub after: u64,
}

/// Writes the directory's image anew, with nothing between its pages.
pub fn defragment<D: Disk>(disk: &mut D) -> Result<Defragmented, OfflineError> {
    rewrite(disk, |_| {})
}

/// What an image says of its own form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// `storageVersion`; etcd has it since 3.6.
    pub storage_version: Option<String>,
    /// Whether it says the term of the last entry, as etcd does since 3.5.
    pub has_term: bool,
}

/// The form of the directory's image, which need not be one that a member would start on.
pub fn form<D: Disk>(disk: &mut D) -> Result<Form, OfflineError> {
    let image = Image::open(disk.open(DATABASE)?.read()?)?;
    let mut meta = meta(&image)?;
    Ok(Form {
        has_term: meta
            .remove(TERM)
            .is_some_and(|term| term.iter().any(|byte| *byte != 0)),
        storage_version: meta
            .remove(STORAGE_VERSION)
            .map(|version| text(Some(version))),
    })
}

/// Writes the directory's image anew with this storage version, or with none.
pub fn set_storage_version<D: Disk>(
    disk: &mut D,
    version: Option<&str>,
) -> Result<(), OfflineError> {
    rewrite(disk, |meta| {
        match version {
            Some(version) => meta.insert(STORAGE_VERSION.into(), version.to_owned().into()),
            None => meta.remove(STORAGE_VERSION),
        };
    })?;
    Ok(())
}

/// Writes the image anew, with the `meta` bucket changed, and puts it in the old one's place.
fn rewrite<D: Disk>(
    disk: &mut D,
    change_meta: impl FnOnce(&mut BTreeMap<Bytes, Bytes>),
) -> Result<Defragmented, OfflineError> {
    let old = disk.open(DATABASE)?;
    let before = old.length();
    let image = Image::open(old.read()?)?;
    image.check_seal()?;
    image.check()?;
    let mut meta = meta(&image)?;
    change_meta(&mut meta);
    let next = format!("{DATABASE}.tmp");
    let mut writer = Writer::new(disk.create(&next, 0)?)?;
    for bucket in buckets(&image)? {
        let bucket = bucket?;
        writer.bucket(bucket.name())?;
        if bucket.name() == META {
            for (key, value) in &meta {
                writer.put(key, value)?;
            }
            continue;
        }
        for pair in pairs(&bucket)? {
            let (key, value) = pair?;
            writer.put(&key, &value)?;
        }
    }
    let (mut file, written) = writer.finish()?;
    file.sync()?;
    drop((file, old));
    disk.rename(&next, DATABASE)?;
    disk.sync_directory(DIRECTORY)?;
    Ok(Defragmented {
        before,
        after: written.bytes,
    })
}

fn meta(image: &Image) -> Result<BTreeMap<Bytes, Bytes>, ImageError> {
    match image.bucket(META)? {
        Some(bucket) => pairs(&bucket)?.collect(),
        None => Ok(BTreeMap::new()),
    }
}

fn buckets(image: &Image) -> Result<impl Iterator<Item = Result<Bucket, ImageError>>, ImageError> {
    let root = image.root();
    Ok(image.root().items()?.map(move |item| match item? {
        Item::Bucket(bucket) => Ok(bucket),
        Item::Pair { key, .. } => {
            Err(root.damaged(format!("\"{}\" is not a bucket", key.escape_ascii())))
        }
    }))
}

fn pairs(
    bucket: &Bucket,
) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), ImageError>>, ImageError> {
    let outer = bucket.clone();
    Ok(bucket.items()?.map(move |item| match item? {
        Item::Pair { key, value } => Ok((key, value)),
        Item::Bucket(_) => Err(outer.damaged("a bucket in a bucket".to_owned())),
    }))
}

/// The key of a row; empty for the row that only carries a revision.
fn name_of(row: &Row) -> Result<Bytes, ImageError> {
    let decoded: Result<KeyValue, _> = prost::Message::decode(row.key_value.clone());
    Ok(decoded.map_err(|_| no_message(row))?.key)
}

fn no_message(row: &Row) -> ImageError {
    ImageError::Record {
        bucket: "key",
        key: format!("{}/{}", row.main, row.sub),
        problem: "the value is no key-value message".to_owned(),
    }
}

fn text(value: Option<Bytes>) -> String {
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}
