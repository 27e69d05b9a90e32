//! Load whose clients record what they saw, and the judgement of it: linearizable, nothing lost, all members alike.
//!
//! ```text
//!   load: clients ──operations──► history ─┐
//!   tail: one watch ──events────► log ─────┴─► judge, with what each member shows in the end
//! ```

pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod tail;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb;

pub(crate) use judge::judge;
pub(crate) use load::{Manner, Shared, client, connect};
pub(crate) use tail::Tail;

/// What the store says was written to the judged keys, in order: revision, key, value; no value for a deletion.
pub(crate) type Written = Vec<(i64, String, String)>;

/// A watch of all judged keys from a revision on.
fn watch_from(revision: i64) -> pb::WatchRequest {
    let keys = load::all_keys();
    let create = pb::WatchCreateRequest {
        key: keys.key.into(),
        range_end: keys.range_end.unwrap_or_default().into(),
        start_revision: revision,
        ..Default::default()
    };
    pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    }
}

/// What the events of a watch say was written.
fn rows(events: Vec<mvccpb::Event>) -> impl Iterator<Item = (i64, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    events
        .into_iter()
        .filter_map(|event| event.kv)
        .map(move |kv| (kv.mod_revision, text(&kv.key), text(&kv.value)))
}
