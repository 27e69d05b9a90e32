//! `Maintenance.Downgrade`: whether the cluster may go to the version before, the beginning of it, and its end.
//!
//! Owns the order of the checks, which is etcd's; what they are is the core's.

use quorate_core::error::RequestError;
use quorate_core::member::version::{check_downgrade, downgrade_target, major_minor};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::membershippb::DowngradeInfoSetRequest;
use tonic::Status;
use tracing::warn;

use super::caller::Caller;
use super::propose::{propose, read_index};
use super::status;
use crate::io::core;

/// Answers the request of an administrator.
pub(super) async fn downgrade(
    request: pb::DowngradeRequest,
) -> Result<pb::DowngradeResponse, Status> {
    // What the cluster has now, also if it changes at once: etcd takes some seconds to change it.
    let version = shown_version();
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => drop(validate(&request.version).await?),
        Ok(DowngradeAction::Enable) => enable(&request.version).await?,
        Ok(DowngradeAction::Cancel) => {
            // etcd says that all is well, too.
            if let Err(error) = cancel().await {
                warn!(error = error.message(), "failed to cancel downgrade");
            }
        }
        Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
    }
    Ok(pb::DowngradeResponse {
        header: Some(core::state().header(0)),
        version,
    })
}

/// Whether the cluster may go to this version now; gives it in full.
async fn validate(text: &str) -> Result<String, Status> {
    let refused = |error| status(&error);
    let target = downgrade_target(text).map_err(refused)?;
    if core::state().status().cluster_version.is_none() {
        return Err(status(&RequestError::ClusterVersionUnavailable));
    }
    // What others have begun must be seen.
    read_index().await?;
    let seen = core::state().status();
    let cluster = seen.cluster_version.as_deref().and_then(major_minor);
    let cluster = cluster.ok_or_else(|| status(&RequestError::ClusterVersionUnavailable))?;
    check_downgrade(cluster, target, seen.downgrade.as_ref()).map_err(refused)?;
    Ok(format!("{}.{}.0", target.0, target.1))
}

async fn enable(text: &str) -> Result<(), Status> {
    let ver = validate(text).await.inspect_err(|error| {
        warn!(error = error.message(), "reject downgrade request");
    })?;
    set(DowngradeInfoSetRequest { enabled: true, ver }).await
}

async fn cancel() -> Result<(), Status> {
    read_index().await?;
    let seen = core::state().status();
    if !seen.downgrade.as_ref().is_some_and(|it| it.enabled) {
        return Err(status(&RequestError::NoInflightDowngrade));
    }
    set(DowngradeInfoSetRequest::default()).await
}

async fn set(request: DowngradeInfoSetRequest) -> Result<(), Status> {
    propose(&Caller::nobody(), |internal| {
        internal.downgrade_info_set = Some(request);
    })
    .await
    .map(drop)
}

/// The cluster version as etcd shows it: `3.7`.
fn shown_version() -> String {
    let seen = core::state().status();
    let version = seen.cluster_version.as_deref().and_then(major_minor);
    version.map_or_else(String::new, |(major, minor)| format!("{major}.{minor}"))
}
