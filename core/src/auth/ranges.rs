//! Sets of keys as ranges: what a user may read or write.
//!
//! A range is `[begin, end)`, in byte order. Ranges that touch are one, so that a request is covered if it lies within
//! one of them.

use bytes::Bytes;
use quorate_proto::authpb::Permission;

/// A range end that stands for no end.
const NO_END: &[u8] = b"\0";

/// Where a range ends; ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Bytes),
    Never,
}

/// Ascending ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(Bytes, End)>);

impl Ranges {
    /// The union of what permissions cover, whatever they permit.
    pub(super) fn union<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Self {
        let mut ranges: Vec<_> = permissions.filter_map(range_of).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(Bytes, End)> = Vec::with_capacity(ranges.len());
        for (begin, end) in ranges {
            match merged.last_mut() {
                Some((_, last)) if reaches(last, &begin) => {
                    if *last < end {
                        *last = end;
                    }
                }
                _ => merged.push((begin, end)),
            }
        }
        Self(merged)
    }

    /// Whether all keys of a request are covered; no end means the single key. A range that ends before it begins
    /// holds no key at all: as in etcd, its first key decides.
    pub(super) fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(begin, _)| begin[..] <= *key);
        let Some((_, end)) = after.checked_sub(1).map(|at| &self.0[at]) else {
            return false;
        };
        match end {
            End::Never => true,
            End::Before(end) if end[..] <= *key => false,
            End::Before(_) if range_end == NO_END => false,
            End::Before(end) => range_end <= &end[..],
        }
    }
}

/// Whether a range goes on at least to where another one begins.
fn reaches(end: &End, begin: &Bytes) -> bool {
    match end {
        End::Before(end) => begin <= end,
        End::Never => true,
    }
}

/// The range of a permission; none if it covers nothing.
fn range_of(permission: &Permission) -> Option<(Bytes, End)> {
    let Permission { key, range_end, .. } = permission;
    if key.is_empty() {
        return None;
    }
    let end = match &range_end[..] {
        b"" => End::Before([key, NO_END].concat().into()),
        NO_END => End::Never,
        _ => End::Before(range_end.clone()),
    };
    (!matches!(&end, End::Before(end) if end <= key)).then(|| (key.clone(), end))
}

/// Whether a permission may be granted on a range: a key, a range of keys, or all keys from one on.
pub(super) fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end == NO_END)
}
