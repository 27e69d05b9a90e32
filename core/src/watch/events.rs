//! From rows of the history to events, and the recent events that all watchers of a hub share.

use std::collections::VecDeque;

use prost::Message as _;
use quorate_proto::mvccpb;
use quorate_proto::mvccpb::event::EventType;

use crate::mvcc::{Row, View};
use crate::types::Revision;

/// The key of a row, without decoding the rest: it is the first field, since the encoding is canonical.
pub(super) fn key_of(row: &Row) -> &[u8] {
    let mut rest = &row.key_value[..];
    let tag = prost::encoding::decode_varint(&mut rest).expect("a record has a key");
    assert_eq!(tag, 0x0a, "the key is the first field of a record");
    let length = prost::encoding::decode_varint(&mut rest).expect("a record has a whole key");
    &rest[..usize::try_from(length).expect("a key fits the memory")]
}

/// The event of a row; its key and value are views of the row's bytes.
pub(super) fn event_of(row: &Row) -> mvccpb::Event {
    let mut kv =
        mvccpb::KeyValue::decode(row.key_value.clone()).expect("the store reads what it wrote");
    let mut kind = EventType::Put;
    if row.tombstone {
        kv = mvccpb::KeyValue {
            key: kv.key,
            mod_revision: row.main,
            ..mvccpb::KeyValue::default()
        };
        kind = EventType::Delete;
    }
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(kv),
        prev_kv: None,
    }
}

/// The key as it was before an event; nothing for a creation, or when that revision is compacted.
pub(super) fn previous(view: &View, event: &mvccpb::Event) -> Option<mvccpb::KeyValue> {
    let kv = event.kv.as_ref().expect("an event has a key");
    let creates = event.r#type == EventType::Put as i32 && kv.create_revision == kv.mod_revision;
    if creates {
        None
    } else {
        view.get_before(&kv.key, Revision(kv.mod_revision))
    }
}

/// The rows of the revisions from `first` to `last`, of which about `rows_max` are read: the last revision is whole.
/// Also the first revision that was not read.
pub(super) fn revisions(view: &View, first: i64, last: i64, rows_max: usize) -> (Vec<Row>, i64) {
    let mut rows = view.history((first, 0), rows_max);
    let mut next = last + 1;
    if rows.len() == rows_max {
        let (main, mut sub) = rows
            .last()
            .map(|row| (row.main, row.sub))
            .expect("rows_max is not zero");
        next = next.min(main + 1);
        // The last revision may go on.
        let mut cut = main <= last;
        while cut {
            let more = view.history((main, sub + 1), rows_max);
            cut = more.len() == rows_max && more.iter().all(|row| row.main == main);
            sub = more.last().map_or(sub, |row| row.sub);
            rows.extend(more.into_iter().take_while(|row| row.main == main));
        }
    }
    rows.retain(|row| row.main <= last);
    (rows, next)
}

/// An event that at least one watcher of the hub wants.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) event: mvccpb::Event,
    /// Known only if one of these watchers wants it.
    pub(super) previous: Option<mvccpb::KeyValue>,
    bytes: usize,
}

/// The newest events, up to a number of bytes: read and decoded once for all watchers.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: VecDeque<Shared>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
}

impl Recent {
    /// Adds an event and answers its number; old ones go when all of them are larger than `bytes_max`.
    pub(super) fn push(
        &mut self,
        event: mvccpb::Event,
        previous: Option<mvccpb::KeyValue>,
        bytes_max: usize,
    ) -> u64 {
        let of = |kv: &Option<mvccpb::KeyValue>| {
            kv.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len())
        };
        let bytes = size_of::<Shared>() + of(&event.kv) + of(&previous);
        self.events.push_back(Shared {
            event,
            previous,
            bytes,
        });
        self.bytes += bytes;
        while self.bytes > bytes_max
            && self.events.len() > 1
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.first += 1;
        }
        self.first + self.events.len() as u64 - 1
    }

    /// The event of a number, if it is still there.
    pub(super) fn get(&self, number: u64) -> Option<&Shared> {
        self.events
            .get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Forgets all events.
    pub(super) fn clear(&mut self) {
        self.first += self.events.len() as u64;
        self.bytes = 0;
        self.events.clear();
    }
}
