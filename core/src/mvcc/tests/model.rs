//! The store as one would write it without a thought of speed: a list of all rows.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::mvccpb::KeyValue;

use crate::error::RequestError;
use crate::mvcc::{HashKv, Row};
use crate::types::Revision;

/// A row of the model; `kv` is `None` for a tombstone.
#[derive(Clone, Debug)]
pub(super) struct ModelRow {
    pub(super) main: i64,
    pub(super) sub: i64,
    pub(super) key: Vec<u8>,
    pub(super) kv: Option<KeyValue>,
}

impl ModelRow {
    pub(super) fn to_row(&self) -> Row {
        let tombstone = KeyValue {
            key: self.key.clone().into(),
            ..KeyValue::default()
        };
        let key_value = self
            .kv
            .as_ref()
            .unwrap_or(&tombstone)
            .encode_to_vec()
            .into();
        Row {
            main: self.main,
            sub: self.sub,
            tombstone: self.kv.is_none(),
            key_value,
        }
    }
}

/// All rows, compacted ones removed at once.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) rows: Vec<ModelRow>,
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) hashes: Vec<HashKv>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            revision: 1,
            compacted: -1,
            hashes: Vec::new(),
        }
    }

    /// The keys at a revision.
    pub(super) fn at(&self, revision: i64) -> BTreeMap<Vec<u8>, KeyValue> {
        let mut keys = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.main <= revision) {
            match &row.kv {
                Some(kv) => keys.insert(row.key.clone(), kv.clone()),
                None => keys.remove(&row.key),
            };
        }
        keys
    }

    /// Puts in the transaction that makes revision `main`; `sub` counts its changes.
    pub(super) fn put(&mut self, main: i64, sub: &mut i64, key: &[u8], value: &[u8], lease: i64) {
        let old = self.at(main).remove(key);
        let kv = KeyValue {
            key: key.to_vec().into(),
            create_revision: old.as_ref().map_or(main, |old| old.create_revision),
            mod_revision: main,
            version: old.map_or(0, |old| old.version) + 1,
            value: value.to_vec().into(),
            lease,
        };
        self.rows.push(ModelRow {
            main,
            sub: *sub,
            key: key.to_vec(),
            kv: Some(kv),
        });
        *sub += 1;
    }

    pub(super) fn delete_range(
        &mut self,
        main: i64,
        sub: &mut i64,
        key: &[u8],
        range_end: &[u8],
    ) -> i64 {
        let doomed: Vec<Vec<u8>> = self
            .at(main)
            .into_keys()
            .filter(|other| within(other, key, range_end))
            .collect();
        for key in &doomed {
            self.rows.push(ModelRow {
                main,
                sub: *sub,
                key: key.clone(),
                kv: None,
            });
            *sub += 1;
        }
        doomed.len() as i64
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), RequestError> {
        if revision <= self.compacted {
            return Err(RequestError::Compacted);
        }
        if revision > self.revision {
            return Err(RequestError::FutureRev);
        }
        let mut kept = self.newest(revision);
        kept.retain(|place| {
            let row = &self.rows[*place];
            row.kv.is_some() || row.main == revision
        });
        let hash = HashKv {
            hash: self.hash_rows(self.compacted, revision, &kept),
            compact_revision: Revision(self.compacted),
            hash_revision: Revision(revision),
        };
        self.hashes.push(hash);
        if self.hashes.len() > 10 {
            self.hashes.remove(0);
        }
        let mut place = 0;
        self.rows.retain(|row| {
            place += 1;
            row.main > revision || kept.contains(&(place - 1))
        });
        self.compacted = revision;
        Ok(())
    }

    pub(super) fn hash_kv(&self, revision: i64) -> Result<HashKv, RequestError> {
        if let Some(cached) = self
            .hashes
            .iter()
            .find(|hash| hash.hash_revision.0 == revision)
        {
            return Ok(*cached);
        }
        if revision > 0 && revision < self.compacted {
            return Err(RequestError::Compacted);
        }
        if revision > self.revision {
            return Err(RequestError::FutureRev);
        }
        let at = if revision == 0 {
            self.revision
        } else {
            revision
        };
        let mut keep = self.newest(at);
        keep.retain(|place| self.rows[*place].kv.is_some());
        let hash = self.hash_rows(self.compacted, at, &keep);
        Ok(HashKv {
            hash,
            compact_revision: Revision(self.compacted),
            hash_revision: Revision(at),
        })
    }

    /// The rule of etcd's hasher, word by word.
    fn hash_rows(&self, compacted: i64, revision: i64, keep: &BTreeSet<usize>) -> u32 {
        let mut hashed = b"key".to_vec();
        for (place, row) in self.rows.iter().enumerate() {
            let superseded = row.main <= compacted && !keep.is_empty() && !keep.contains(&place);
            let old_tombstone = row.main == compacted && row.kv.is_none();
            if row.main > revision || superseded || old_tombstone {
                continue;
            }
            hashed.extend_from_slice(&row.main.to_be_bytes());
            hashed.push(b'_');
            hashed.extend_from_slice(&row.sub.to_be_bytes());
            if row.kv.is_none() {
                hashed.push(b't');
            }
            hashed.extend_from_slice(&row.to_row().key_value);
        }
        crc32c::crc32c(&hashed)
    }

    /// The place of the newest row of each key up to a revision.
    fn newest(&self, revision: i64) -> BTreeSet<usize> {
        let rows = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.main <= revision);
        let newest: BTreeMap<&[u8], usize> =
            rows.map(|(place, row)| (&row.key[..], place)).collect();
        newest.into_values().collect()
    }

    pub(super) fn range(
        &self,
        request: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, RequestError> {
        if request.revision > self.revision {
            return Err(RequestError::FutureRev);
        }
        let revision = if request.revision <= 0 {
            self.revision
        } else {
            request.revision
        };
        if revision < self.compacted {
            return Err(RequestError::Compacted);
        }
        let keys = self.at(revision).into_values();
        let mut kvs: Vec<KeyValue> = keys
            .filter(|kv| within(&kv.key, &request.key, &request.range_end))
            .collect();
        let mut response = pb::RangeResponse {
            count: kvs.len() as i64,
            ..pb::RangeResponse::default()
        };
        response.header = Some(pb::ResponseHeader {
            revision: self.revision,
            ..pb::ResponseHeader::default()
        });
        if request.count_only {
            return Ok(response);
        }
        let limit = if request.limit > 0 {
            request.limit as usize
        } else {
            usize::MAX
        };
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        if request.sort_order() == SortOrder::None && !filtered {
            kvs.truncate(limit.saturating_add(1)); // The quirk: cut, then sort.
        }
        kvs.retain(|kv| {
            request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision
        });
        kvs.retain(|kv| {
            request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision
        });
        kvs.retain(|kv| {
            request.max_create_revision == 0 || kv.create_revision <= request.max_create_revision
        });
        kvs.retain(|kv| {
            request.min_create_revision == 0 || kv.create_revision >= request.min_create_revision
        });
        let number = |kv: &KeyValue| match request.sort_target() {
            SortTarget::Version => kv.version,
            SortTarget::Create => kv.create_revision,
            SortTarget::Mod => kv.mod_revision,
            SortTarget::Key | SortTarget::Value => 0,
        };
        let word = |kv: &KeyValue| match request.sort_target() {
            SortTarget::Key => kv.key.clone(),
            SortTarget::Value => kv.value.clone(),
            _ => bytes::Bytes::new(),
        };
        let descend = request.sort_order() == SortOrder::Descend;
        kvs.sort_by(|a, b| {
            let ordering = (number(a), word(a)).cmp(&(number(b), word(b)));
            if descend {
                ordering.reverse()
            } else {
                ordering
            }
        });
        response.more = kvs.len() > limit;
        kvs.truncate(limit);
        for kv in &mut kvs {
            if request.keys_only {
                kv.value = bytes::Bytes::new();
                if request.sort_target() != SortTarget::Value {
                    kv.lease = 0;
                }
            }
        }
        response.kvs = kvs;
        Ok(response)
    }
}

/// Whether a key is in a range, by the table of the API.
fn within(other: &[u8], key: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => other == key,
        [0] => other >= key,
        end => key <= other && other < end,
    }
}
