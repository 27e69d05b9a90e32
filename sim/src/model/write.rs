//! Writing the model: one transaction is one revision, if it changes anything.

use bytes::Bytes;
use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::mvccpb::KeyValue;

use super::{Change, Model, header};

/// The operations that a transaction's conditions chose, all of them decided before the first is done.
pub(super) struct Path<'a> {
    succeeded: bool,
    operations: Vec<Operation<'a>>,
}

enum Operation<'a> {
    Plain(&'a Request),
    Nested(Path<'a>),
}

/// Changes that become one revision.
pub(super) struct Write<'a> {
    model: &'a mut Model,
    before: i64,
    changed: bool,
}

impl Model {
    /// Does some changes as one revision.
    pub(super) fn write<T>(&mut self, change: impl FnOnce(&mut Write<'_>) -> T) -> T {
        let before = self.revision;
        let mut write = Write {
            before,
            changed: false,
            model: self,
        };
        let result = change(&mut write);
        if write.changed {
            self.revision = before + 1;
        }
        result
    }

    pub(super) fn check_put(&self, put: &pb::PutRequest) -> Result<(), RequestError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(RequestError::LeaseNotFound);
        }
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.get(&put.key, self.revision).is_none() {
            return Err(RequestError::KeyNotFound);
        }
        Ok(())
    }

    pub(super) fn choose<'a>(&self, txn: &'a pb::TxnRequest) -> Path<'a> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let list = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let requests = list
            .iter()
            .filter_map(|operation| operation.request.as_ref());
        let operations = requests.map(|request| match request {
            Request::RequestTxn(nested) => Operation::Nested(self.choose(nested)),
            plain => Operation::Plain(plain),
        });
        Path {
            succeeded,
            operations: operations.collect(),
        }
    }

    /// What is refused is refused before anything is done.
    pub(super) fn check_path(&self, path: &Path<'_>) -> Result<(), RequestError> {
        for operation in &path.operations {
            match operation {
                Operation::Nested(path) => self.check_path(path)?,
                Operation::Plain(Request::RequestPut(put)) => self.check_put(put)?,
                Operation::Plain(Request::RequestRange(range)) => {
                    self.range(range, self.revision, self.compacted)?;
                }
                Operation::Plain(_) => {}
            }
        }
        Ok(())
    }
}

impl Write<'_> {
    /// The revision as it is in the middle of the transaction.
    fn revision(&self) -> i64 {
        self.before + i64::from(self.changed)
    }

    pub(super) fn put(&mut self, put: &pb::PutRequest) -> pb::PutResponse {
        let previous = self.model.get(&put.key, self.revision()).cloned();
        let old = previous.clone().unwrap_or_default();
        let revision = self.begin();
        let lease = if put.ignore_lease {
            old.lease
        } else {
            put.lease
        };
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if previous.is_some() {
                old.create_revision
            } else {
                revision
            },
            mod_revision: revision,
            version: old.version + 1,
            value: if put.ignore_value {
                old.value
            } else {
                put.value.clone()
            },
            lease,
        };
        self.detach(old.lease, &put.key);
        if let Some(keys) = self.model.leases.get_mut(&lease) {
            keys.insert(put.key.clone());
        }
        self.note(Change {
            kv,
            deleted: false,
            before: previous.clone(),
        });
        pb::PutResponse {
            header: Some(header(revision)),
            prev_kv: previous.filter(|_| put.prev_kv),
        }
    }

    pub(super) fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let range = pb::RangeRequest {
            key: delete.key.clone(),
            range_end: delete.range_end.clone(),
            ..pb::RangeRequest::default()
        };
        let found = self.range(&range).kvs;
        for kv in &found {
            self.delete_key(&kv.key);
        }
        pb::DeleteRangeResponse {
            header: Some(header(self.revision())),
            deleted: found.len() as i64,
            prev_kvs: if delete.prev_kv { found } else { Vec::new() },
        }
    }

    pub(super) fn delete_key(&mut self, key: &Bytes) {
        let Some(before) = self.model.get(key, self.revision()).cloned() else {
            return;
        };
        let mod_revision = self.begin();
        self.detach(before.lease, key);
        let kv = KeyValue {
            key: key.clone(),
            mod_revision,
            ..KeyValue::default()
        };
        self.note(Change {
            kv,
            deleted: true,
            before: Some(before),
        });
    }

    pub(super) fn txn(&mut self, path: &Path<'_>) -> pb::TxnResponse {
        let mut responses = Vec::new();
        for operation in &path.operations {
            let response = match operation {
                Operation::Nested(path) => Response::ResponseTxn(self.txn(path)),
                Operation::Plain(Request::RequestPut(put)) => Response::ResponsePut(self.put(put)),
                Operation::Plain(Request::RequestDeleteRange(delete)) => {
                    Response::ResponseDeleteRange(self.delete(delete))
                }
                Operation::Plain(Request::RequestRange(range)) => {
                    Response::ResponseRange(self.range(range))
                }
                Operation::Plain(Request::RequestTxn(_)) => unreachable!("nested ones are paths"),
            };
            responses.push(pb::ResponseOp {
                response: Some(response),
            });
        }
        pb::TxnResponse {
            // That of a nested one stays empty in etcd, too.
            header: Some(header(0)),
            succeeded: path.succeeded,
            responses,
        }
    }

    fn range(&self, request: &pb::RangeRequest) -> pb::RangeResponse {
        let answer = self
            .model
            .range(request, self.revision(), self.model.compacted);
        answer.expect("checked before the first write")
    }

    /// The first change makes the revision.
    fn begin(&mut self) -> i64 {
        if !self.changed {
            self.changed = true;
            self.model.changes_of.push(self.model.changes.len());
        }
        self.before + 1
    }

    fn detach(&mut self, lease: i64, key: &Bytes) {
        if let Some(keys) = self.model.leases.get_mut(&lease) {
            keys.remove(key);
        }
    }

    fn note(&mut self, change: Change) {
        let versions = self.model.keys.entry(change.kv.key.clone()).or_default();
        versions.push(change.clone());
        self.model.changes.push(change);
    }
}
