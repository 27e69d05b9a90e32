//! From an image to [`Contents`] and rows.

use bytes::Bytes;
use prost::Message;
use quorate_proto::authpb::{Role, User};
use quorate_proto::etcdserverpb::AlarmMember;
use quorate_proto::leasepb::Lease;
use serde::de::DeserializeOwned;

use super::encode::hex;
use super::{
    ConfStateJson, Contents, Downgrade, MemberRecord, REVISION_SEPARATOR, TOMBSTONE, bucket, name,
};
use crate::checkpoint::bolt::{Bucket, Image, Item, Items};
use crate::checkpoint::{ImageError, version};
use crate::mvcc::Row;
use crate::types::{Index, MemberId, Revision, Term};

/// The keys' history of an image, oldest first, read as it is asked for.
#[derive(Debug)]
pub struct Rows {
    items: Option<Items>,
}

impl Iterator for Rows {
    type Item = Result<Row, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let items = self.items.as_mut()?;
        let row = match items.next()? {
            Ok(Item::Pair { key, value }) => row(&key, value),
            Ok(Item::Bucket(inner)) => Err(nested(bucket::KEY, &inner)),
            Err(error) => Err(error),
        };
        if row.is_err() {
            self.items = None;
        }
        Some(row)
    }
}

/// Everything but the rows, which are still to be read.
pub(in crate::checkpoint) fn read(image: &Image) -> Result<(Contents, Rows), ImageError> {
    let mut contents = Contents::default();
    let mut rows = Rows { items: None };
    for item in image.root().items()? {
        // A bucket that we do not know is none of etcd's up to 3.7; etcd itself would not look at it.
        let Item::Bucket(bucket) = item? else {
            continue;
        };
        match std::str::from_utf8(bucket.name()).unwrap_or_default() {
            bucket::KEY => rows.items = Some(bucket.items()?),
            bucket::META => read_meta(&bucket, &mut contents)?,
            bucket::AUTH => read_auth(&bucket, &mut contents)?,
            bucket::CLUSTER => read_cluster(&bucket, &mut contents)?,
            bucket::ALARM => {
                contents.alarms = collect(bucket::ALARM, &bucket, |key, _| {
                    let alarm: AlarmMember = message(bucket::ALARM, key, key)?;
                    named(bucket::ALARM, key, &alarm.encode_to_vec())?;
                    Ok(alarm)
                })?;
            }
            bucket::AUTH_ROLES => {
                let name = |role: &Role| role.name.to_vec();
                contents.auth.roles = messages(bucket::AUTH_ROLES, &bucket, name)?;
            }
            bucket::AUTH_USERS => {
                let name = |user: &User| user.name.to_vec();
                contents.auth.users = messages(bucket::AUTH_USERS, &bucket, name)?;
            }
            bucket::LEASE => {
                let name = |lease: &Lease| lease.id.to_be_bytes().to_vec();
                contents.leases = messages(bucket::LEASE, &bucket, name)?;
            }
            bucket::MEMBERS => contents.members = collect(bucket::MEMBERS, &bucket, member)?,
            bucket::MEMBERS_REMOVED => {
                contents.members_removed = collect(bucket::MEMBERS_REMOVED, &bucket, |key, _| {
                    id(bucket::MEMBERS_REMOVED, key)
                })?;
            }
            _ => {}
        }
    }
    version::check(&contents)?;
    Ok((contents, rows))
}

fn read_meta(bucket: &Bucket, contents: &mut Contents) -> Result<(), ImageError> {
    const IN: &str = bucket::META;
    for pair in pairs(IN, bucket)? {
        let (key, value) = pair?;
        match &key[..] {
            name::CONSISTENT_INDEX => contents.consistent_index = Index(number(IN, &key, &value)?),
            name::TERM => contents.term = Term(number(IN, &key, &value)?),
            name::CONF_STATE => {
                contents.conf_state = json::<ConfStateJson>(IN, &key, &value)?.into()
            }
            name::STORAGE_VERSION => contents.storage_version = Some(text(IN, &key, &value)?),
            name::SCHEDULED_COMPACT => {
                contents.scheduled_compact = Some(compact_revision(&key, &value)?)
            }
            name::FINISHED_COMPACT => {
                contents.finished_compact = Some(compact_revision(&key, &value)?)
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_auth(bucket: &Bucket, contents: &mut Contents) -> Result<(), ImageError> {
    const IN: &str = bucket::AUTH;
    for pair in pairs(IN, bucket)? {
        let (key, value) = pair?;
        match &key[..] {
            // etcd takes all but a single 01 for off.
            name::AUTH_ENABLED => contents.auth.enabled = Some(value[..] == [1]),
            name::AUTH_REVISION => contents.auth.revision = number(IN, &key, &value)?,
            _ => {}
        }
    }
    Ok(())
}

fn read_cluster(bucket: &Bucket, contents: &mut Contents) -> Result<(), ImageError> {
    const IN: &str = bucket::CLUSTER;
    for pair in pairs(IN, bucket)? {
        let (key, value) = pair?;
        match &key[..] {
            name::CLUSTER_VERSION => contents.cluster_version = Some(text(IN, &key, &value)?),
            name::DOWNGRADE => contents.downgrade = Some(json::<Downgrade>(IN, &key, &value)?),
            _ => {}
        }
    }
    Ok(())
}

/// A pair of the `key` bucket.
pub(crate) fn row(key: &[u8], key_value: Bytes) -> Result<Row, ImageError> {
    let tombstone = key.len() == 18;
    let is_right = (key.len() == 17 || tombstone)
        && key[8] == REVISION_SEPARATOR
        && (!tombstone || key[17] == TOMBSTONE);
    if !is_right {
        return Err(ImageError::record(
            bucket::KEY,
            key,
            "expected 8 bytes, '_', 8 bytes, and 't' for a tombstone",
        ));
    }
    let number = |range: std::ops::Range<usize>| {
        i64::from_be_bytes(key[range].try_into().expect("eight bytes"))
    };
    let (main, sub) = (number(0..8), number(9..17));
    if main < 0 || sub < 0 {
        return Err(ImageError::record(bucket::KEY, key, "a negative revision"));
    }
    Ok(Row {
        main,
        sub,
        tombstone,
        key_value,
    })
}

fn compact_revision(key: &[u8], value: &[u8]) -> Result<Revision, ImageError> {
    let row = row(value, Bytes::new())
        .map_err(|_| ImageError::record(bucket::META, key, "the value is no revision"))?;
    Ok(Revision(row.main))
}

fn member(key: &Bytes, value: &Bytes) -> Result<MemberRecord, ImageError> {
    let member: MemberRecord = json(bucket::MEMBERS, key, value)?;
    named(bucket::MEMBERS, key, &hex(member.id.0))?;
    Ok(member)
}

fn id(bucket: &'static str, key: &[u8]) -> Result<MemberId, ImageError> {
    let text = std::str::from_utf8(key).ok();
    let number = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    let id = number
        .filter(|id| hex(*id) == key)
        .ok_or_else(|| ImageError::record(bucket, key, "expected an id in hexadecimal"))?;
    Ok(MemberId(id))
}

/// All pairs of a bucket as messages of their values; each must say its own name.
fn messages<M: Message + Default>(
    bucket_name: &'static str,
    bucket: &Bucket,
    name: impl Fn(&M) -> Vec<u8>,
) -> Result<Vec<M>, ImageError> {
    collect(bucket_name, bucket, |key, value| {
        let message = message(bucket_name, key, value)?;
        named(bucket_name, key, &name(&message))?;
        Ok(message)
    })
}

/// A record under another's name could not be written back, and would hide that other one.
fn named(bucket: &'static str, key: &[u8], name: &[u8]) -> Result<(), ImageError> {
    if key != name {
        let problem = format!(
            "the record belongs to {:?}",
            name.escape_ascii().to_string()
        );
        return Err(ImageError::record(bucket, key, problem));
    }
    Ok(())
}

fn collect<T>(
    name: &'static str,
    bucket: &Bucket,
    mut of: impl FnMut(&Bytes, &Bytes) -> Result<T, ImageError>,
) -> Result<Vec<T>, ImageError> {
    pairs(name, bucket)?
        .map(|pair| pair.and_then(|(key, value)| of(&key, &value)))
        .collect()
}

fn pairs(
    name: &'static str,
    bucket: &Bucket,
) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), ImageError>>, ImageError> {
    Ok(bucket.items()?.map(move |item| match item? {
        Item::Pair { key, value } => Ok((key, value)),
        Item::Bucket(inner) => Err(nested(name, &inner)),
    }))
}

fn nested(name: &'static str, inner: &Bucket) -> ImageError {
    ImageError::record(name, inner.name(), "a bucket, expected a pair")
}

fn message<M: Message + Default>(
    bucket: &'static str,
    key: &[u8],
    bytes: &Bytes,
) -> Result<M, ImageError> {
    M::decode(bytes.clone()).map_err(|error| ImageError::record(bucket, key, error.to_string()))
}

fn json<T: DeserializeOwned>(
    bucket: &'static str,
    key: &[u8],
    value: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(value)
        .map_err(|error| ImageError::record(bucket, key, format!("JSON: {error}")))
}

fn text(bucket: &'static str, key: &[u8], value: &[u8]) -> Result<String, ImageError> {
    String::from_utf8(value.to_vec())
        .map_err(|_| ImageError::record(bucket, key, "the value is no text"))
}

fn number(bucket: &'static str, key: &[u8], value: &[u8]) -> Result<u64, ImageError> {
    let bytes = value.try_into().map_err(|_| {
        ImageError::record(
            bucket,
            key,
            format!("a number of {} bytes, expected 8", value.len()),
        )
    })?;
    Ok(u64::from_be_bytes(bytes))
}
