//! The kinds of load: a method and an endless supply of encoded requests.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Put,
    /// Puts that go through the key space once, for filling it.
    Fill,
    LinearizableGet,
    SerializableGet,
    /// Ranges of this many keys.
    Range(i64),
}

impl Work {
    pub(super) fn name(self) -> String {
        match self {
            Self::Put => "put".into(),
            Self::Fill => "fill".into(),
            Self::LinearizableGet => "get, linearizable".into(),
            Self::SerializableGet => "get, serializable".into(),
            Self::Range(keys) => format!("range of {keys}"),
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Put | Self::Fill => "/etcdserverpb.KV/Put",
            _ => "/etcdserverpb.KV/Range",
        }
    }

    /// Requests for connection `number` of `connections` over `keys` keys.
    pub(super) fn requests(
        self,
        number: u64,
        connections: u64,
        keys: u64,
    ) -> impl FnMut(&mut Vec<u8>) + Send {
        let mut random = SmallRng::seed_from_u64(number);
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        let mut next = number;
        move |out| match self {
            Self::Put | Self::Fill => {
                let key = if self == Self::Fill {
                    next % keys
                } else {
                    random.random_range(0..keys)
                };
                next += connections;
                let put = pb::PutRequest {
                    key: key_bytes(key),
                    value: value.clone(),
                    ..Default::default()
                };
                put.encode(out).expect("a buffer grows");
            }
            Self::LinearizableGet | Self::SerializableGet => {
                let key = key_bytes(random.random_range(0..keys));
                let serializable = self == Self::SerializableGet;
                let get = pb::RangeRequest {
                    key,
                    serializable,
                    ..Default::default()
                };
                get.encode(out).expect("a buffer grows");
            }
            Self::Range(limit) => {
                let first =
                    random.random_range(0..keys.saturating_sub(limit.unsigned_abs()).max(1));
                let range = pb::RangeRequest {
                    key: key_bytes(first),
                    range_end: key_bytes(first + limit.unsigned_abs()),
                    ..Default::default()
                };
                range.encode(out).expect("a buffer grows");
            }
        }
    }
}

fn key_bytes(number: u64) -> Bytes {
    let mut key = format!("{number:0width$}", width = KEY_BYTES).into_bytes();
    key.truncate(KEY_BYTES);
    Bytes::from(key)
}

/// Loads that fill the key space exactly once need to know how many requests that is.
pub(super) fn fill_requests(keys: u64, connections: u64, number: u64) -> u64 {
    (keys + connections - 1 - number) / connections
}
