//! Whether a request may be carried out: etcd's checks in etcd's order, since the order decides the error.

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::request_op::Request;

use super::rules::{Access, has_role};
use super::{Identity, Rules};
use crate::error::RequestError;
use crate::lease::Lessor;
use crate::types::LeaseId;

/// The check of an entry that only an administrator may make. It comes before all others.
pub(crate) fn permit_admin(
    rules: &Rules,
    who: &Identity,
    request: &pb::InternalRaftRequest,
) -> Result<(), RequestError> {
    let needs_admin = request.auth_enable.is_some()
        || request.auth_disable.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_change_password.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_user_list.is_some()
        || request.auth_role_list.is_some();
    if needs_admin {
        rules.permit_admin(who)
    } else {
        Ok(())
    }
}

/// The check of every other entry.
pub(crate) fn permit(
    rules: &Rules,
    lessor: &Lessor,
    who: &Identity,
    request: &pb::InternalRaftRequest,
) -> Result<(), RequestError> {
    let asking = Asking { rules, lessor, who };
    if let Some(put) = &request.put {
        asking.put(put)
    } else if let Some(delete) = &request.delete_range {
        asking.delete(delete)?;
        asking.read_previous(delete)
    } else if let Some(txn) = &request.txn {
        asking.txn(txn)
    } else if let Some(revoke) = &request.lease_revoke {
        asking.lease(LeaseId(revoke.id), Access::Write)
    } else if let Some(get) = &request.auth_user_get {
        let is_own = get.name == who.user;
        rules
            .permit_admin(who)
            .or_else(|error| if is_own { Ok(()) } else { Err(error) })
    } else if let Some(get) = &request.auth_role_get {
        let has = rules
            .user(&who.user)
            .is_some_and(|user| has_role(user, &get.role));
        rules
            .permit_admin(who)
            .or_else(|error| if has { Ok(()) } else { Err(error) })
    } else {
        Ok(())
    }
}

/// The check of a transaction that does not go through the log, since it only reads.
pub fn permit_read_txn(
    rules: &Rules,
    who: &Identity,
    txn: &pb::TxnRequest,
) -> Result<(), RequestError> {
    let lessor = Lessor::default();
    let asking = Asking {
        rules,
        lessor: &lessor,
        who,
    };
    asking.txn(txn)
}

/// The check of a watch. Without a key it begins at the smallest one.
pub fn permit_watch(
    rules: &Rules,
    who: &Identity,
    create: &pb::WatchCreateRequest,
) -> Result<(), RequestError> {
    let key = if create.key.is_empty() {
        b"\0"
    } else {
        &create.key[..]
    };
    rules.permit_range(who, key, &create.range_end)
}

/// The check of a call that shows or touches leases without the log; no lease means all of them. Whoever may
/// administer may do so; others need access to the keys.
pub(crate) fn permit_lease(
    rules: &Rules,
    lessor: &Lessor,
    who: &Identity,
    lease: Option<LeaseId>,
    writes: bool,
) -> Result<(), RequestError> {
    let access = if writes { Access::Write } else { Access::Read };
    let asking = Asking { rules, lessor, who };
    match lease {
        Some(lease) => asking.lease(lease, access),
        None => lessor
            .leases()
            .into_iter()
            .try_for_each(|lease| asking.lease(lease, access)),
    }
}

struct Asking<'a> {
    rules: &'a Rules,
    lessor: &'a Lessor,
    who: &'a Identity,
}

impl Asking<'_> {
    /// A lease that holds keys which the user may not write cannot be revoked by it: then it may not add one either.
    fn put(&self, put: &pb::PutRequest) -> Result<(), RequestError> {
        self.rules.permit(self.who, &put.key, &[], Access::Write)?;
        self.lease(LeaseId(put.lease), Access::Write)?;
        if put.prev_kv {
            self.rules.permit(self.who, &put.key, &[], Access::Read)?;
        }
        Ok(())
    }

    fn delete(&self, delete: &pb::DeleteRangeRequest) -> Result<(), RequestError> {
        self.rules
            .permit(self.who, &delete.key, &delete.range_end, Access::Write)
    }

    fn read_previous(&self, delete: &pb::DeleteRangeRequest) -> Result<(), RequestError> {
        if delete.prev_kv {
            self.rules
                .permit(self.who, &delete.key, &delete.range_end, Access::Read)?;
        }
        Ok(())
    }

    /// Both lists, whichever will be run: the answer must not tell which keys exist.
    fn txn(&self, txn: &pb::TxnRequest) -> Result<(), RequestError> {
        for compare in &txn.compare {
            self.rules
                .permit(self.who, &compare.key, &compare.range_end, Access::Read)?;
        }
        for operation in txn.success.iter().chain(&txn.failure) {
            match &operation.request {
                Some(Request::RequestRange(range)) => {
                    self.rules
                        .permit(self.who, &range.key, &range.range_end, Access::Read)?;
                }
                Some(Request::RequestPut(put)) => self.put(put)?,
                Some(Request::RequestDeleteRange(delete)) => {
                    self.read_previous(delete)?;
                    self.delete(delete)?;
                }
                Some(Request::RequestTxn(txn)) => self.txn(txn)?,
                None => {}
            }
        }
        Ok(())
    }

    fn lease(&self, lease: LeaseId, access: Access) -> Result<(), RequestError> {
        if self.rules.permit_admin(self.who).is_ok() {
            return Ok(());
        }
        self.lessor
            .keys(lease)
            .try_for_each(|key| self.rules.permit(self.who, key, &[], access))
    }
}
