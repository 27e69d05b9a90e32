//! The ids of requests, as etcd makes them, and where those of a restarted member begin.
//!
//! An applied entry finds whoever waits for it by its id, so that no id may come again while an earlier request of that id
//! is on its way: the answer of one would be taken for that of the other. etcd trusts the wall clock for that; but a clock
//! may have been set back, may begin at the same time after each start where nothing keeps it, and is overtaken by a
//! member that answers more than 256 requests in a millisecond. Here ids begin after those of the member's own log, with
//! room for what was on its way to the leader then, and after up to a minute that is drawn, for what the log does not show.
//!
//! ```text
//!   63        48 47                                   8 7       0
//!   ├─ member ──┼─ milliseconds, of the start at first ┼─ count ─┤      the count overflows into the time on purpose
//! ```

use prost::Message;
use quorate_proto::etcdserverpb::RequestHeader;
use quorate_proto::raftpb::{ConfChange, Entry, EntryType};

use crate::types::MemberId;

/// Bits of an id that count within a millisecond.
const COUNT_BITS: u32 = 8;
/// Bits of an id that are a time.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Ids of an earlier life that are left free after the last one in the member's log, in milliseconds: what was on its way
/// to the leader then is not in it. A member draws as many in a minute only if it answers 256,000 requests a second.
const IN_FLIGHT_MS: u64 = 60_000;

/// Where ids begin is later by less than this, so that lives whose clocks begin at the same time have different ones.
const DRAWN_MS: u64 = 1 << 16;

/// The ids of requests, as etcd makes them: 16 bits of the member, 40 of the time of its start, 8 of a counter
/// that overflows into the time on purpose. Several generators of one member share the space by striding.
#[derive(Clone, Debug)]
pub struct RequestIds {
    prefix: u64,
    next: u64,
    step: u64,
}

impl RequestIds {
    /// The generator number `slot` of `slots` for a member whose ids begin at this time; [`begin_ms`] says which.
    pub fn new(member: MemberId, begin_ms: u64, slot: u64, slots: u64) -> Self {
        assert!(slot < slots, "slot {slot} of {slots}");
        let suffix = (begin_ms & TIME_MASK) << COUNT_BITS;
        Self {
            prefix: (member.0 & 0xffff) << (TIME_BITS + COUNT_BITS),
            next: suffix + 1 + slot,
            step: slots,
        }
    }

    /// The next id.
    pub fn take(&mut self) -> u64 {
        let id = self.prefix | (self.next & ((1 << (TIME_BITS + COUNT_BITS)) - 1));
        self.next += self.step;
        id
    }
}

/// Where the ids of a member begin that starts at this wall clock time with these entries in its log: there, or after all
/// that an earlier life of it can have used.
pub(crate) fn begin_ms(member: MemberId, unix_ms: u64, entropy: u64, entries: &[Entry]) -> u64 {
    let own = entries
        .iter()
        .filter_map(id_of)
        .filter(|id| id >> (TIME_BITS + COUNT_BITS) == member.0 & 0xffff);
    let begin_ms = own.fold(unix_ms, |begin_ms, id| {
        let free_ms = (id >> COUNT_BITS) + 1 + IN_FLIGHT_MS;
        // The time begins anew every 35 years: what is less than half of that ahead is later.
        let ahead_ms = free_ms.wrapping_sub(begin_ms) & TIME_MASK;
        let is_later = ahead_ms < 1 << (TIME_BITS - 1);
        begin_ms + if is_later { ahead_ms } else { 0 }
    });
    begin_ms + entropy % DRAWN_MS
}

/// The id that an entry was proposed under.
fn id_of(entry: &Entry) -> Option<u64> {
    let data = entry.data.as_deref()?;
    match entry.kind() {
        Ok(EntryType::EntryNormal) => Some(OnlyHeader::decode(data).ok()?.header?.id),
        Ok(EntryType::EntryConfChange) => ConfChange::decode(data).ok()?.id,
        _ => None,
    }
}

/// Of an `InternalRaftRequest` what is needed here; the rest is skipped.
#[derive(Clone, PartialEq, Message)]
struct OnlyHeader {
    #[prost(message, optional, tag = "100")]
    header: Option<RequestHeader>,
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb as pb;

    use super::*;

    const MEMBER: MemberId = MemberId(0x8e9e_05c5_2164_694d);
    const NOW_MS: u64 = 1_700_000_000_000;

    fn ids(begin_ms: u64) -> RequestIds {
        RequestIds::new(MEMBER, begin_ms, 0, 1)
    }

    fn entry(id: u64) -> Entry {
        let request = pb::InternalRaftRequest {
            header: Some(RequestHeader {
                id,
                ..RequestHeader::default()
            }),
            put: Some(pb::PutRequest {
                key: "key".into(),
                ..pb::PutRequest::default()
            }),
            ..pb::InternalRaftRequest::default()
        };
        Entry {
            data: Some(request.encode_to_vec().into()),
            ..Entry::default()
        }
    }

    #[test]
    fn first_request_id_equals_etcds() {
        let mut ids = ids(begin_ms(MEMBER, NOW_MS, 0, &[]));
        assert_eq!(ids.take(), 0x694d_8bcf_e568_0001);
        assert_eq!(ids.take(), 0x694d_8bcf_e568_0002);
    }

    #[test]
    fn generators_of_one_member_never_meet() {
        let mut seen = std::collections::BTreeSet::new();
        for slot in 0..3 {
            let mut ids = RequestIds::new(MemberId(7), 5, slot, 3);
            for _ in 0..1000 {
                assert!(seen.insert(ids.take()));
            }
        }
    }

    #[test]
    fn ids_never_come_again_wherever_the_clock_is_set() {
        let mut used = std::collections::BTreeSet::new();
        let mut log = Vec::new();
        // Forward, back by a day, to the same millisecond twice, and to where the 40 bits begin anew.
        let hours = [0, 30, 6, 6, 6, 0];
        let times = hours.map(|hour| NOW_MS + hour * 3_600_000);
        for unix_ms in times.into_iter().chain([2 * TIME_MASK, 0, 2 * TIME_MASK]) {
            let mut ids = ids(begin_ms(MEMBER, unix_ms, 0, &log));
            for _ in 0..10 {
                let id = ids.take();
                assert!(used.insert(id), "{id:x} comes again at {unix_ms}");
                log.push(entry(id));
            }
            // On their way to the leader when the process ends: in no log of this member.
            used.extend((0..1000).map(|_| ids.take()));
        }
    }

    #[test]
    fn lives_whose_logs_show_nothing_differ_by_what_is_drawn() {
        let begins = [7, 7 + DRAWN_MS, 8].map(|entropy| begin_ms(MEMBER, NOW_MS, entropy, &[]));
        assert_eq!(begins, [7, 7, 8].map(|later_ms| NOW_MS + later_ms));
    }

    #[test]
    fn a_clock_that_is_right_is_what_ids_begin_with() {
        let old = ids(NOW_MS).take();
        let later_ms = NOW_MS + IN_FLIGHT_MS + 1;
        assert_eq!(begin_ms(MEMBER, later_ms, 0, &[entry(old)]), later_ms);
        let other = MemberId(MEMBER.0 + 1);
        assert_eq!(begin_ms(other, NOW_MS, 0, &[entry(old)]), NOW_MS);
        assert_eq!(begin_ms(MEMBER, NOW_MS, 0, &[Entry::default()]), NOW_MS);
    }
}
