//! Alarms: who has raised which, and what is refused while one is.

use quorate_core::error::RequestError;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::request_op::Request;

use super::{Model, header};

impl Model {
    /// The alarms that are raised, as members list them.
    pub fn alarms(&self) -> Vec<pb::AlarmMember> {
        let raised = self.alarms.iter();
        let raised = raised.map(|&(member_id, alarm)| pb::AlarmMember { member_id, alarm });
        raised.collect()
    }

    /// Whether anybody has raised an alarm of this type.
    pub fn has_alarm(&self, alarm: pb::AlarmType) -> bool {
        let mut raised = self.alarms.iter();
        raised.any(|(_, other)| *other == alarm as i32)
    }

    pub(super) fn switch_alarm(&mut self, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let (member_id, alarm) = (request.member_id, request.alarm);
        let this = pb::AlarmMember { member_id, alarm };
        let is_none = alarm == pb::AlarmType::None as i32;
        let alarms = match request.action() {
            AlarmAction::Get => {
                let mut all = self.alarms();
                all.retain(|raised| is_none || raised.alarm == alarm);
                all
            }
            AlarmAction::Activate if is_none => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.insert((member_id, alarm));
                vec![this]
            }
            AlarmAction::Deactivate => {
                let was_raised = self.alarms.remove(&(member_id, alarm));
                was_raised.then_some(this).into_iter().collect()
            }
        };
        pb::AlarmResponse {
            header: Some(header(self.revision)),
            alarms,
        }
    }

    /// A corrupt cluster changes nothing any more; one without space takes nothing that needs some.
    pub(super) fn refuse_by_alarm(
        &self,
        request: &pb::InternalRaftRequest,
    ) -> Result<(), RequestError> {
        if self.alarms.is_empty() {
            return Ok(());
        }
        let changes = request.put.is_some()
            || request.txn.is_some()
            || request.delete_range.is_some()
            || request.compaction.is_some()
            || request.lease_grant.is_some()
            || request.lease_revoke.is_some();
        if changes && self.has_alarm(pb::AlarmType::Corrupt) {
            return Err(RequestError::Corrupt);
        }
        if takes_space(request) && self.has_alarm(pb::AlarmType::Nospace) {
            return Err(RequestError::NoSpace);
        }
        Ok(())
    }
}

/// Whether a request needs space: it may put a key, or grants a lease.
fn takes_space(request: &pb::InternalRaftRequest) -> bool {
    request.put.is_some()
        || request.lease_grant.is_some()
        || request.txn.as_ref().is_some_and(may_put)
}

fn may_put(txn: &pb::TxnRequest) -> bool {
    let operations = txn.success.iter().chain(&txn.failure);
    let mut requests = operations.filter_map(|operation| operation.request.as_ref());
    requests.any(|request| match request {
        Request::RequestPut(_) => true,
        Request::RequestTxn(txn) => may_put(txn),
        Request::RequestRange(_) | Request::RequestDeleteRange(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Applied;

    fn alarm(model: &mut Model, action: AlarmAction, alarm: pb::AlarmType) -> Applied {
        let request = pb::InternalRaftRequest {
            alarm: Some(pb::AlarmRequest {
                action: action as i32,
                member_id: 7,
                alarm: alarm as i32,
            }),
            ..pb::InternalRaftRequest::default()
        };
        model.apply_request(1, &request)
    }

    fn put() -> pb::InternalRaftRequest {
        pb::InternalRaftRequest {
            put: Some(pb::PutRequest::default()),
            ..pb::InternalRaftRequest::default()
        }
    }

    fn delete() -> pb::InternalRaftRequest {
        pb::InternalRaftRequest {
            delete_range: Some(pb::DeleteRangeRequest::default()),
            ..pb::InternalRaftRequest::default()
        }
    }

    #[test]
    fn a_cluster_without_space_still_deletes_and_a_corrupt_one_changes_nothing() {
        let mut model = Model::new(1);
        alarm(&mut model, AlarmAction::Activate, pb::AlarmType::Nospace).unwrap();
        assert_eq!(model.apply_request(2, &put()), Err(RequestError::NoSpace));
        assert!(model.apply_request(3, &delete()).is_ok());
        alarm(&mut model, AlarmAction::Activate, pb::AlarmType::Corrupt).unwrap();
        assert_eq!(model.apply_request(4, &put()), Err(RequestError::Corrupt));
        assert_eq!(
            model.apply_request(5, &delete()),
            Err(RequestError::Corrupt)
        );
        assert_eq!(model.alarms().len(), 2);
        alarm(&mut model, AlarmAction::Deactivate, pb::AlarmType::Corrupt).unwrap();
        alarm(&mut model, AlarmAction::Deactivate, pb::AlarmType::Nospace).unwrap();
        assert!(model.apply_request(6, &put()).is_ok());
    }

    #[test]
    fn only_what_may_put_takes_space() {
        let txn = |request| pb::TxnRequest {
            failure: vec![pb::RequestOp {
                request: Some(request),
            }],
            ..pb::TxnRequest::default()
        };
        let put = txn(Request::RequestPut(pb::PutRequest::default()));
        assert!(may_put(&put));
        assert!(may_put(&txn(Request::RequestTxn(put))));
        assert!(!may_put(&txn(Request::RequestRange(
            pb::RangeRequest::default()
        ))));
        assert!(takes_space(&self::put()) && !takes_space(&delete()));
    }
}
