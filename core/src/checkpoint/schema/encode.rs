//! From [`Contents`] and rows to an image. Equal contents give equal bytes, in whatever order their lists are.

use prost::Message;

use super::{ConfStateJson, Contents, REVISION_SEPARATOR, TOMBSTONE, bucket, name};
use crate::checkpoint::bolt::{Writer, Written};
use crate::checkpoint::json::to_go_json;
use crate::disk::{DiskError, DiskFile};
use crate::mvcc::Row;
use crate::types::Revision;

/// A bucket's key and value.
type Pair = (Vec<u8>, Vec<u8>);

/// Writes the image of `contents` and `rows` (ascending) into an empty file, and hands it back, not yet synced.
pub(in crate::checkpoint) fn write<F: DiskFile, E: From<DiskError>>(
    file: F,
    contents: &Contents,
    rows: impl Iterator<Item = Result<Row, E>>,
) -> Result<(F, Written), E> {
    let mut writer = Writer::new(file)?;
    let auth = &contents.auth;
    let alarms = contents
        .alarms
        .iter()
        .map(|alarm| (alarm.encode_to_vec(), Vec::new()));
    put_all(&mut writer, bucket::ALARM, alarms.collect())?;
    put_all(&mut writer, bucket::AUTH, auth_pairs(contents))?;
    let roles = auth
        .roles
        .iter()
        .map(|role| (role.name.to_vec(), role.encode_to_vec()));
    put_all(&mut writer, bucket::AUTH_ROLES, roles.collect())?;
    let users = auth
        .users
        .iter()
        .map(|user| (user.name.to_vec(), user.encode_to_vec()));
    put_all(&mut writer, bucket::AUTH_USERS, users.collect())?;
    put_all(&mut writer, bucket::CLUSTER, cluster_pairs(contents))?;
    writer.bucket(bucket::KEY.as_bytes())?;
    for row in rows {
        let row = row?;
        let (key, length) = row_key(&row);
        writer.put(&key[..length], &row.key_value)?;
    }
    let leases = contents
        .leases
        .iter()
        .map(|lease| (lease.id.to_be_bytes().to_vec(), lease.encode_to_vec()));
    put_all(&mut writer, bucket::LEASE, leases.collect())?;
    let members = contents
        .members
        .iter()
        .map(|member| (hex(member.id.0), member.to_json()));
    put_all(&mut writer, bucket::MEMBERS, members.collect())?;
    let removed = contents
        .members_removed
        .iter()
        .map(|id| (hex(id.0), b"removed".to_vec()));
    put_all(&mut writer, bucket::MEMBERS_REMOVED, removed.collect())?;
    put_all(&mut writer, bucket::META, meta_pairs(contents))?;
    Ok(writer.finish()?)
}

fn put_all<F: DiskFile>(
    writer: &mut Writer<F>,
    bucket: &str,
    mut pairs: Vec<Pair>,
) -> Result<(), DiskError> {
    pairs.sort_unstable();
    writer.bucket(bucket.as_bytes())?;
    for (key, value) in pairs {
        writer.put(&key, &value)?;
    }
    Ok(())
}

fn auth_pairs(contents: &Contents) -> Vec<Pair> {
    let mut pairs = vec![(
        name::AUTH_REVISION.to_vec(),
        contents.auth.revision.to_be_bytes().to_vec(),
    )];
    if let Some(enabled) = contents.auth.enabled {
        pairs.push((name::AUTH_ENABLED.to_vec(), vec![u8::from(enabled)]));
    }
    pairs
}

fn cluster_pairs(contents: &Contents) -> Vec<Pair> {
    let mut pairs = Vec::new();
    if let Some(version) = &contents.cluster_version {
        pairs.push((name::CLUSTER_VERSION.to_vec(), version.clone().into_bytes()));
    }
    if let Some(downgrade) = &contents.downgrade {
        pairs.push((name::DOWNGRADE.to_vec(), to_go_json(downgrade)));
    }
    pairs
}

fn meta_pairs(contents: &Contents) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut put = |name: &[u8], value: Vec<u8>| pairs.push((name.to_vec(), value));
    // etcd never writes a zero here: absent means that nothing was applied.
    if contents.consistent_index.0 != 0 {
        put(
            name::CONSISTENT_INDEX,
            contents.consistent_index.0.to_be_bytes().to_vec(),
        );
    }
    if contents.term.0 != 0 {
        put(name::TERM, contents.term.0.to_be_bytes().to_vec());
    }
    if contents.conf_state != Default::default() {
        put(
            name::CONF_STATE,
            to_go_json(&ConfStateJson::from(&contents.conf_state)),
        );
    }
    if let Some(version) = &contents.storage_version {
        put(name::STORAGE_VERSION, version.clone().into_bytes());
    }
    if let Some(revision) = contents.scheduled_compact {
        put(name::SCHEDULED_COMPACT, compact_value(revision));
    }
    if let Some(revision) = contents.finished_compact {
        put(name::FINISHED_COMPACT, compact_value(revision));
    }
    pairs
}

fn compact_value(revision: Revision) -> Vec<u8> {
    revision_bytes(revision.0, 0).to_vec()
}

/// The row's key, and how many bytes of it count.
fn row_key(row: &Row) -> ([u8; 18], usize) {
    let mut key = [TOMBSTONE; 18];
    key[..17].copy_from_slice(&revision_bytes(row.main, row.sub));
    (key, if row.tombstone { 18 } else { 17 })
}

fn revision_bytes(main: i64, sub: i64) -> [u8; 17] {
    let mut bytes = [REVISION_SEPARATOR; 17];
    bytes[..8].copy_from_slice(&main.to_be_bytes());
    bytes[9..].copy_from_slice(&sub.to_be_bytes());
    bytes
}

/// Ids in keys are hexadecimal without leading zeros.
pub(super) fn hex(id: u64) -> Vec<u8> {
    format!("{id:x}").into_bytes()
}
