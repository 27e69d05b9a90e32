//! The quota, before a request is proposed: one that does not fit raises the alarm and is refused, as in etcd.
//!
//! What was on its way already is looked at again when it is applied.

use quorate_core::error::RequestError;
use quorate_core::request::fits_quota;
use quorate_proto::etcdserverpb as pb;
use tonic::Status;

use super::caller::Caller;
use super::propose::propose;
use super::status;
use crate::io::core;

/// Refuses a request of this cost if it does not fit.
pub(super) async fn check(cost_bytes: u64) -> Result<(), Status> {
    // Almost every request fits: nothing is shared with other cores for it but a number that is read.
    let (fits, member) = core::with(|core| {
        let state = core.state();
        let fits = fits_quota(state.size_bytes(), cost_bytes, state.limits.quota_bytes);
        (fits, state.member)
    });
    if fits {
        return Ok(());
    }
    let alarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        member_id: member.0,
        alarm: pb::AlarmType::Nospace.into(),
    };
    // The request is refused whether or not the others have heard of it.
    let _ = propose(&Caller::nobody(), |internal| internal.alarm = Some(alarm)).await;
    Err(status(&RequestError::NoSpace))
}
