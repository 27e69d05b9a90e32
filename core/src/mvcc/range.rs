//! Reading ranges: etcd's options in etcd's order.
//!
//! Pick the revision, collect the keys in byte order, filter, sort, cut, blank the values. Only collecting holds the
//! lock, and only in slices; between them writes go on, which a reader at its revision does not see.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::mvccpb::KeyValue;

use super::arena::Location;
use super::record;
use super::state::{KeyRange, Shared, State};
use crate::error::RequestError;

/// A walk over the keys of a range at one revision, over several holds of the lock.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    shared: &'a Shared,
    keys: KeyRange<'a>,
    revision: i64,
    /// The record of the key to go on after.
    resume: Option<Bytes>,
    begun: bool,
    pinned: bool,
    /// Room for the rows of a slice.
    rows: Vec<Location>,
}

impl<'a> Scan<'a> {
    /// A walk that has not begun.
    pub(super) fn new(shared: &'a Shared, keys: KeyRange<'a>, revision: i64) -> Self {
        Self {
            shared,
            keys,
            revision,
            resume: None,
            begun: false,
            pinned: false,
            rows: Vec::new(),
        }
    }

    /// Adds the records of the next slice, until there are `max` of them.
    pub(super) fn collect(
        &mut self,
        state: &State,
        max: usize,
        records: &mut Vec<Bytes>,
    ) -> Result<(), RequestError> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let wanted = max - records.len();
        self.step(state, |row| {
            rows.push(row);
            rows.len() < wanted
        })?;
        state.arena.share_all(&rows, records);
        self.rows = rows;
        Ok(())
    }

    /// Adds the number of keys of the next slice.
    pub(super) fn count(&mut self, state: &State, count: &mut u64) -> Result<(), RequestError> {
        self.check(state)?;
        self.resume = state.count(self.keys, self.resume.as_ref(), self.revision, count);
        self.note_progress();
        Ok(())
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.begun && self.resume.is_none()
    }

    fn step(
        &mut self,
        state: &State,
        visit: impl FnMut(Location) -> bool,
    ) -> Result<(), RequestError> {
        self.check(state)?;
        self.resume = state.walk(self.keys, self.resume.as_ref(), self.revision, visit);
        self.note_progress();
        Ok(())
    }

    /// Fails only if the whole store was replaced: everything else the pin prevents.
    fn check(&self, state: &State) -> Result<(), RequestError> {
        if self.revision < state.floor {
            return Err(RequestError::Compacted);
        }
        Ok(())
    }

    /// Called under the lock. Whoever comes back must find what is there now.
    fn note_progress(&mut self) {
        self.begun = true;
        if self.resume.is_some() && !self.pinned {
            self.shared.pin(self.revision);
            self.pinned = true;
        }
    }
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        if self.pinned {
            self.shared.unpin(self.revision);
        }
    }
}

/// Whether the number of keys in the range is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Wanted,
    Unwanted,
}

/// Answers a range. `current` is the revision that counts as the current one, by default the store's.
pub(super) fn range(
    shared: &Shared,
    current: Option<i64>,
    request: &pb::RangeRequest,
    total: Count,
) -> Result<pb::RangeResponse, RequestError> {
    let keys = KeyRange::new(&request.key, &request.range_end);
    let state = shared.read();
    let current = current.unwrap_or(state.revision);
    let revision = state.readable(request.revision, current)?;
    let count_at_once = state.count_at_once(keys, revision);
    let mut scan = Scan::new(shared, keys, revision);
    let mut response = pb::RangeResponse {
        header: Some(super::header(current)),
        ..pb::RangeResponse::default()
    };

    if !request.count_only {
        let fetch = fetch_max(request);
        let keys_only = request.keys_only && request.sort_target() != SortTarget::Value;
        let decode = if keys_only {
            record::decode_key_only
        } else {
            record::decode
        };
        let mut records = Vec::new();
        let expected = count_at_once.map_or(0, |count| usize::try_from(count).unwrap_or(0));
        response.kvs.reserve_exact(expected.min(fetch));
        scan.collect(&state, fetch, &mut records)?;
        drop(state);
        response.kvs.extend(records.drain(..).map(decode));
        while !scan.is_done() && response.kvs.len() < fetch {
            scan.collect(&shared.read(), fetch - response.kvs.len(), &mut records)?;
            response.kvs.extend(records.drain(..).map(decode));
        }
        let count = match count_at_once {
            Some(count) => count,
            None if response.kvs.len() < fetch || total == Count::Unwanted => {
                response.kvs.len() as u64
            }
            None => count_slowly(shared, keys, revision)?,
        };
        response.count = count.cast_signed();
        filter(&mut response.kvs, request);
        sort(&mut response.kvs, request);
        cut(&mut response, request);
        return Ok(response);
    }
    drop(state);
    let count = count_at_once.map_or_else(|| count_slowly(shared, keys, revision), Ok)?;
    response.count = count.cast_signed();
    Ok(response)
}

/// How many keys to collect: one more than the limit, if nothing needs to see the others.
fn fetch_max(request: &pb::RangeRequest) -> usize {
    if request.limit <= 0 || !is_default_order(request) || has_filters(request) {
        return usize::MAX;
    }
    usize::try_from(request.limit)
        .unwrap_or(usize::MAX)
        .saturating_add(1)
}

/// Whether the keys come in the right order by themselves. Order `NONE` counts as such with any target, though
/// [`sort`] sorts then: etcd cuts such an answer before it sorts it, and clients see that.
pub(crate) fn is_default_order(request: &pb::RangeRequest) -> bool {
    match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    }
}

/// Whether any bound on revisions is set.
pub(crate) fn has_filters(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn count_slowly(shared: &Shared, keys: KeyRange<'_>, revision: i64) -> Result<u64, RequestError> {
    let mut scan = Scan::new(shared, keys, revision);
    let mut count = 0;
    while !scan.is_done() {
        scan.count(&shared.read(), &mut count)?;
    }
    Ok(count)
}

fn filter(kvs: &mut Vec<KeyValue>, request: &pb::RangeRequest) {
    if !has_filters(request) {
        return;
    }
    let within = |number: i64, min: i64, max: i64| {
        (max == 0 || number <= max) && (min == 0 || number >= min)
    };
    kvs.retain(|kv| {
        within(
            kv.mod_revision,
            request.min_mod_revision,
            request.max_mod_revision,
        ) && within(
            kv.create_revision,
            request.min_create_revision,
            request.max_create_revision,
        )
    });
}

fn sort(kvs: &mut [KeyValue], request: &pb::RangeRequest) {
    let descend = request.sort_order() == SortOrder::Descend;
    match request.sort_target() {
        SortTarget::Key if !descend => {}
        SortTarget::Key => kvs.sort_by(|a, b| b.key.cmp(&a.key)),
        SortTarget::Value => kvs.sort_by(|a, b| directed(a.value.cmp(&b.value), descend)),
        SortTarget::Version => kvs.sort_by(|a, b| directed(a.version.cmp(&b.version), descend)),
        SortTarget::Create => {
            kvs.sort_by(|a, b| directed(a.create_revision.cmp(&b.create_revision), descend))
        }
        SortTarget::Mod => {
            kvs.sort_by(|a, b| directed(a.mod_revision.cmp(&b.mod_revision), descend))
        }
    }
}

fn directed(ordering: std::cmp::Ordering, descend: bool) -> std::cmp::Ordering {
    if descend {
        ordering.reverse()
    } else {
        ordering
    }
}

fn cut(response: &mut pb::RangeResponse, request: &pb::RangeRequest) {
    if let Ok(limit) = usize::try_from(request.limit)
        && limit > 0
        && response.kvs.len() > limit
    {
        response.kvs.truncate(limit);
        response.more = true;
    }
    if request.keys_only {
        for kv in &mut response.kvs {
            kv.value = Bytes::new();
        }
    }
}
