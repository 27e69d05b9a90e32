//! Changes of the members in a form that raft-rs can read.
//!
//! raft-rs parses each change that is proposed, to see that it is one, and refuses the whole batch of proposals if it
//! does not know the type: its enum ends at 2, and etcd's goes up to 3 (add a learner). It looks at nothing else. While
//! a change is inside raft-rs, its type therefore has another field number, which raft-rs skips. Length, order and
//! everything else stay, so that what comes out is what went in, byte for byte.

use bytes::Bytes;

/// `ConfChange.type`, a varint in field 2.
const TYPE: u8 = 2 << 3;
/// The same in a field that neither side has.
const DISGUISED: u8 = 15 << 3;

/// For raft-rs.
pub(super) fn put_on(data: &Bytes) -> Bytes {
    replaced(data, TYPE, DISGUISED)
}

/// For everybody else.
pub(super) fn take_off(data: &Bytes) -> Bytes {
    replaced(data, DISGUISED, TYPE)
}

/// The same message with another tag in the place of one; as it is if there is none, or if it is no message.
fn replaced(data: &Bytes, tag: u8, by: u8) -> Bytes {
    let mut at = 0;
    while at < data.len() {
        if data[at] == tag {
            let mut bytes = data.to_vec();
            bytes[at] = by;
            return Bytes::from(bytes);
        }
        let Some(next) = field_end(data, at) else {
            break;
        };
        at = next;
    }
    data.clone()
}

/// Where the field that begins here ends.
fn field_end(data: &[u8], at: usize) -> Option<usize> {
    let (tag, after) = varint(data, at)?;
    match tag & 7 {
        0 => varint(data, after).map(|(_, end)| end),
        2 => {
            let (length, start) = varint(data, after)?;
            start.checked_add(usize::try_from(length).ok()?)
        }
        _ => None,
    }
}

fn varint(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, &byte) in data.get(at..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place as u32).min(63);
        if byte < 0x80 {
            return Some((value, at + place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use quorate_proto::raftpb::{ConfChange, ConfChangeType};

    use super::*;

    #[test]
    fn a_change_loses_its_type_and_gets_it_back() {
        for kind in [
            ConfChangeType::ConfChangeAddNode,
            ConfChangeType::ConfChangeRemoveNode,
            ConfChangeType::ConfChangeUpdateNode,
            ConfChangeType::ConfChangeAddLearnerNode,
        ] {
            let change = ConfChange::new(1 << 60, kind, 7, Bytes::from_static(b"\x10\x03 {}"));
            let data = Bytes::from(change.encode_to_vec());
            let inside = put_on(&data);
            let read = ConfChange::decode(inside.clone()).expect("an unknown field is skipped");
            assert_eq!((read.r#type, read.node_id), (0, 7));
            assert_eq!(read.context, change.context);
            assert_eq!(take_off(&inside), data);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_or_stay(data: Vec<u8>) {
            let data = Bytes::from(data);
            let inside = put_on(&data);
            if !data.contains(&DISGUISED) {
                prop_assert_eq!(take_off(&inside), data);
            } else {
                prop_assert_eq!(inside.len(), data.len());
            }
        }
    }
}
