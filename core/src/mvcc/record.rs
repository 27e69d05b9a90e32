//! The encoded `mvccpb.KeyValue`: written once, canonically, and from then on only sliced.
//!
//! `HashKV` covers these bytes, so a row keeps the encoding that it was made with for its whole life. Nothing here
//! allocates but [`decode`], whose key and value are views into the record.
//!
//! ```text
//! 0a key  10 create_revision  18 mod_revision  20 version  2a value  30 lease       zeros and empties left out
//! ```

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use quorate_proto::mvccpb::KeyValue;

const TAG_KEY: u8 = 0x0a;
const TAG_CREATE: u8 = 0x10;
const TAG_MODIFIED: u8 = 0x18;
const TAG_VERSION: u8 = 0x20;
const TAG_VALUE: u8 = 0x2a;
const TAG_LEASE: u8 = 0x30;

/// Where everything stands in a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) key: Range<usize>,
    pub(super) create: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    pub(super) value: Range<usize>,
    pub(super) lease: i64,
}

/// Appends the record of a put.
pub(super) fn encode(out: &mut Vec<u8>, key: &[u8], numbers: &Fields, value: &[u8]) {
    put_bytes(out, TAG_KEY, key);
    put_number(out, TAG_CREATE, numbers.create);
    put_number(out, TAG_MODIFIED, numbers.modified);
    put_number(out, TAG_VERSION, numbers.version);
    put_bytes(out, TAG_VALUE, value);
    put_number(out, TAG_LEASE, numbers.lease);
}

/// Appends the record of a deletion, which holds the key alone.
pub(super) fn encode_tombstone(out: &mut Vec<u8>, key: &[u8]) {
    put_bytes(out, TAG_KEY, key);
}

/// No record with this key and value is longer.
pub(super) fn len_max(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + 2 * 11 + 4 * 11
}

/// The key of a record; empty for the empty record that a revision bump leaves behind.
pub(super) fn key(encoded: &[u8]) -> &[u8] {
    if encoded.first() != Some(&TAG_KEY) {
        return &[];
    }
    let mut at = 1;
    let len = varint(encoded, &mut at).map_or(0, |len| usize::try_from(len).unwrap_or(0));
    encoded.get(at..at + len).unwrap_or(&[])
}

/// Finds the fields; `None` if this is not an encoded `KeyValue` whose key comes first.
pub(super) fn parse(encoded: &[u8]) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut at = 0;
    while at < encoded.len() {
        let first = at == 0;
        let tag = encoded[at];
        at += 1;
        match tag {
            TAG_KEY if first => fields.key = chunk(encoded, &mut at)?,
            TAG_VALUE => fields.value = chunk(encoded, &mut at)?,
            TAG_CREATE => fields.create = varint(encoded, &mut at)?.cast_signed(),
            TAG_MODIFIED => fields.modified = varint(encoded, &mut at)?.cast_signed(),
            TAG_VERSION => fields.version = varint(encoded, &mut at)?.cast_signed(),
            TAG_LEASE => fields.lease = varint(encoded, &mut at)?.cast_signed(),
            _ => return None,
        }
    }
    Some(fields)
}

/// The fields of a record of the store, all of which have been parsed when they came in.
pub(super) fn fields(encoded: &[u8]) -> Fields {
    parse(encoded).expect("a record of the store is a KeyValue")
}

/// The message, its key and value being views of the record.
pub(super) fn decode(encoded: Bytes) -> KeyValue {
    let fields = fields(&encoded);
    let kv = numbers(&encoded, &fields);
    let mut value = encoded;
    value.truncate(fields.value.end);
    value.advance(fields.value.start.min(value.len()));
    KeyValue {
        value,
        lease: fields.lease,
        ..kv
    }
}

/// What the index alone would know: the message without value and lease.
pub(super) fn decode_key_only(encoded: Bytes) -> KeyValue {
    numbers(&encoded, &fields(&encoded))
}

fn numbers(encoded: &Bytes, fields: &Fields) -> KeyValue {
    KeyValue {
        key: encoded.slice(fields.key.clone()),
        create_revision: fields.create,
        mod_revision: fields.modified,
        version: fields.version,
        ..KeyValue::default()
    }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        put_varint(out, number.cast_unsigned());
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint(encoded: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *encoded.get(*at)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn chunk(encoded: &[u8], at: &mut usize) -> Option<Range<usize>> {
    let len = usize::try_from(varint(encoded, at)?).ok()?;
    let range = *at..at.checked_add(len)?;
    encoded.get(range.clone())?;
    *at = range.end;
    Some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        #[test]
        fn encoding_is_the_canonical_one(
            key in proptest::collection::vec(any::<u8>(), 0..200),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            create in 0i64..300, modified in any::<i64>(), version in 0i64..3, lease in any::<i64>(),
        ) {
            let message = KeyValue {
                key: key.clone().into(), create_revision: create, mod_revision: modified, version,
                value: value.clone().into(), lease,
            };
            let mut encoded = Vec::new();
            encode(&mut encoded, &key, &Fields { create, modified, version, lease, ..Fields::default() }, &value);
            prop_assert_eq!(&encoded, &message.encode_to_vec());
            prop_assert!(encoded.len() <= len_max(&key, &value));
            prop_assert_eq!(super::key(&encoded), &key[..]);
            prop_assert_eq!(decode(Bytes::from(encoded)), message);
        }

        #[test]
        fn any_bytes_parse_or_do_not_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = key(&bytes);
            if let Some(fields) = parse(&bytes) {
                prop_assert_eq!(key(&bytes), &bytes[fields.key]);
            }
        }
    }

    #[test]
    fn a_record_is_read_only_if_its_key_comes_first() {
        assert_eq!(parse(b"\x10\x02\x0a\x01k"), None);
        assert_eq!(parse(b"\x0a\x05foo"), None);
        assert_eq!(parse(b""), Some(Fields::default()));
        assert_eq!(key(b"\x0a\x03foo\x10\x02"), b"foo");
    }
}
