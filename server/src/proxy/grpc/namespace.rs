//! Keys below a prefix that clients do not see: `--namespace`.
//!
//! Owns how keys and ranges are moved below the prefix and back. An empty prefix changes nothing.

use bytes::{Bytes, BytesMut};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request as Asked;
use quorate_proto::etcdserverpb::response_op::Response as Answered;
use quorate_proto::mvccpb::{Event, KeyValue};

/// The range end that means "to the last key".
const TO_THE_LAST: &[u8] = b"\0";

/// A prefix; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    prefix: Bytes,
    /// The first key after all with the prefix.
    end: Bytes,
}

impl Namespace {
    pub(super) fn new(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        let end = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bytes::from(end)
            }
            None => Bytes::from_static(TO_THE_LAST),
        };
        Self {
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            end,
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.prefix.is_empty()
    }

    fn key(&self, key: &mut Bytes) {
        let mut whole = BytesMut::with_capacity(self.prefix.len() + key.len());
        whole.extend_from_slice(&self.prefix);
        whole.extend_from_slice(key);
        *key = whole.freeze();
    }

    /// Moves a range below the prefix.
    pub(super) fn range(&self, key: &mut Bytes, range_end: &mut Bytes) {
        if self.is_everything() {
            return;
        }
        self.key(key);
        if range_end.as_ref() == TO_THE_LAST {
            *range_end = self.end.clone();
        } else if !range_end.is_empty() {
            self.key(range_end);
        }
    }

    pub(super) fn put(&self, request: &mut pb::PutRequest) {
        if !self.is_everything() {
            self.key(&mut request.key);
        }
    }

    /// Moves a transaction with all that is nested in it below the prefix.
    pub(super) fn txn(&self, request: &mut pb::TxnRequest) {
        if self.is_everything() {
            return;
        }
        for compare in &mut request.compare {
            self.range(&mut compare.key, &mut compare.range_end);
        }
        for operation in request.success.iter_mut().chain(&mut request.failure) {
            match &mut operation.request {
                Some(Asked::RequestRange(range)) => {
                    self.range(&mut range.key, &mut range.range_end)
                }
                Some(Asked::RequestPut(put)) => self.put(put),
                Some(Asked::RequestDeleteRange(delete)) => {
                    self.range(&mut delete.key, &mut delete.range_end);
                }
                Some(Asked::RequestTxn(txn)) => self.txn(txn),
                None => {}
            }
        }
    }

    /// A key as the client knows it.
    pub(super) fn strip(&self, key: &mut Bytes) {
        if key.starts_with(&self.prefix) {
            *key = key.slice(self.prefix.len()..);
        }
    }

    pub(super) fn strip_all<'a>(&self, kvs: impl IntoIterator<Item = &'a mut KeyValue>) {
        if self.is_everything() {
            return;
        }
        for kv in kvs {
            self.strip(&mut kv.key);
        }
    }

    pub(super) fn strip_events(&self, events: &mut [Event]) {
        for event in events {
            self.strip_all(event.kv.iter_mut().chain(&mut event.prev_kv));
        }
    }

    /// The keys of a lease: those of other namespaces are not shown.
    pub(super) fn strip_keys(&self, keys: &mut Vec<Bytes>) {
        keys.retain(|key| key.starts_with(&self.prefix));
        for key in keys {
            self.strip(key);
        }
    }

    pub(super) fn strip_txn(&self, response: &mut pb::TxnResponse) {
        for operation in &mut response.responses {
            match &mut operation.response {
                Some(Answered::ResponseRange(range)) => self.strip_all(&mut range.kvs),
                Some(Answered::ResponsePut(put)) => self.strip_all(&mut put.prev_kv),
                Some(Answered::ResponseDeleteRange(delete)) => self.strip_all(&mut delete.prev_kvs),
                Some(Answered::ResponseTxn(txn)) => self.strip_txn(txn),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(prefix: &str, key: &str, end: &str) -> (Bytes, Bytes) {
        let mut key = Bytes::copy_from_slice(key.as_bytes());
        let mut end = Bytes::copy_from_slice(end.as_bytes());
        Namespace::new(prefix).range(&mut key, &mut end);
        (key, end)
    }

    #[test]
    fn ranges_stay_below_the_prefix() {
        assert_eq!(moved("p/", "a", ""), ("p/a".into(), "".into()));
        assert_eq!(moved("p/", "a", "c"), ("p/a".into(), "p/c".into()));
        assert_eq!(moved("p/", "\0", "\0"), ("p/\0".into(), "p0".into()));
        assert_eq!(moved("", "a", "\0"), ("a".into(), "\0".into()));
    }

    #[test]
    fn the_end_of_a_prefix_is_the_key_after_all_that_have_it() {
        let end = |prefix: &[u8]| {
            let text = String::from_utf8_lossy(prefix).into_owned();
            Namespace::new(&text).end
        };
        assert_eq!(end(b"a"), "b");
        assert_eq!(end(b"a/"), "a0");
        assert_eq!(end(b""), "\0");
    }

    #[test]
    fn a_transaction_is_moved_with_all_that_is_in_it() {
        let put = pb::PutRequest {
            key: "k".into(),
            ..pb::PutRequest::default()
        };
        let operation = |request| pb::RequestOp {
            request: Some(request),
        };
        let inner = pb::TxnRequest {
            success: vec![operation(Asked::RequestPut(put))],
            ..pb::TxnRequest::default()
        };
        let mut outer = pb::TxnRequest {
            compare: vec![pb::Compare {
                key: "c".into(),
                ..pb::Compare::default()
            }],
            failure: vec![operation(Asked::RequestTxn(inner))],
            ..pb::TxnRequest::default()
        };
        Namespace::new("p/").txn(&mut outer);
        assert_eq!(outer.compare[0].key, "p/c");
        let Some(Asked::RequestTxn(inner)) = &outer.failure[0].request else {
            panic!("it was one");
        };
        let Some(Asked::RequestPut(put)) = &inner.success[0].request else {
            panic!("it was one");
        };
        assert_eq!(put.key, "p/k");
    }
}
