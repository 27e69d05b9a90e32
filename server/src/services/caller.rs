//! Who makes a call, and whether it may: the checks that are made before something runs.
//!
//! A write is checked when it is applied; its entry carries the user and the auth revision of this place. A read is
//! checked here: first the rules, then the read, then once more that the rules are the same, so that nothing is shown
//! that a change had forbidden before it was written.

use std::sync::Arc;

use quorate_core::auth::{Identity, Rules};
use quorate_core::boundary::{Request as NodeRequest, Response as Answer};
use quorate_core::error::RequestError;
use quorate_core::types::{Index, LeaseId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use super::{mismatch, status};
use crate::auth::Told;
use crate::io::core;
use crate::state::ServerState;

/// The metadata that may carry a token, in this order: etcd's clients send the first, the JSON gateway the second.
const TOKEN_KEYS: [&str; 2] = ["token", "authorization"];
/// May stand before a token.
const BEARER: &str = "Bearer ";

/// Says that a call came through a JSON gateway, whose certificate is not its caller's.
const GATEWAY_KEY: &str = "grpcgateway-accept";

/// Goes with a request whose client has shown a certificate that names a user.
#[derive(Clone, Debug)]
pub(crate) struct CertificateName(pub(crate) Arc<str>);

/// What a call shows of its maker.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    token: Option<MetadataValue<Ascii>>,
    /// The common name of the client's certificate.
    certificate: Option<Arc<str>>,
}

/// A read that was allowed at this auth revision; 0 is that of nobody, when auth was off.
#[derive(Clone, Copy, Debug)]
#[must_use = "a read is over when the rules are still those that allowed it"]
pub(super) struct Permit {
    revision: u64,
}

impl Caller {
    /// Whoever made this call.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata();
        Self {
            token: TOKEN_KEYS
                .iter()
                .find_map(|key| metadata.get(*key))
                .cloned(),
            certificate: certificate_name(request),
        }
    }

    /// Whoever showed this token to another member.
    pub(super) fn with_token(token: Option<http::HeaderValue>) -> Self {
        let token = token.and_then(|token| MetadataValue::try_from(token.as_bytes()).ok());
        Self {
            token,
            certificate: None,
        }
    }

    /// The token, for another member.
    pub(super) fn token(&self) -> Option<http::HeaderValue> {
        let token = self.token.as_ref()?;
        http::HeaderValue::from_bytes(token.as_bytes()).ok()
    }

    /// This member itself.
    pub(super) fn nobody() -> Self {
        Self::default()
    }

    /// The user; none while auth is off, and none without credentials.
    pub(super) async fn identity(&self) -> Result<Option<Identity>, RequestError> {
        let state = core::state();
        if !state.guard.rules.is_enabled() {
            return Ok(None);
        }
        let Some(token) = &self.token else {
            let revision = state.guard.rules.rules().revision();
            let known = |user: &Arc<str>| Identity {
                user: user.as_ref().into(),
                revision,
            };
            return Ok(self.certificate.as_ref().map(known));
        };
        let token = token.to_str().map_err(|_| RequestError::InvalidAuthToken)?;
        let token = token.strip_prefix(BEARER).unwrap_or(token);
        match state.guard.look_up(token) {
            Told::User(who) => Ok(Some(who)),
            Told::Invalid => Err(RequestError::InvalidAuthToken),
            Told::After(index) => look_up_later(&state, token, index).await.map(Some),
        }
    }

    /// Any user will do.
    pub(super) async fn require_user(&self) -> Result<(), Status> {
        if !core::state().guard.rules.is_enabled() {
            return Ok(());
        }
        match self.identity().await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(status(&RequestError::UserEmpty)),
            Err(error) => Err(status(&error)),
        }
    }

    /// Only who may administer.
    pub(super) async fn require_admin(&self) -> Result<(), Status> {
        self.permit(Rules::permit_admin).await.map(drop)
    }

    /// Asks the rules; with what they allow goes the duty to ask again when the read is over.
    pub(super) async fn permit(
        &self,
        check: impl Fn(&Rules, &Identity) -> Result<(), RequestError>,
    ) -> Result<Permit, Status> {
        if !core::state().guard.rules.is_enabled() {
            return Ok(Permit { revision: 0 });
        }
        let who = self.identity().await.map_err(|error| status(&error))?;
        let who = who.unwrap_or_default();
        let rules = core::state().guard.rules.rules();
        check(&rules, &who).map_err(|error| status(&error))?;
        Ok(Permit {
            revision: who.revision,
        })
    }

    /// Whether the keys of a lease, or of all, may be written or read. The node knows which they are.
    pub(super) async fn permit_lease(
        &self,
        id: Option<LeaseId>,
        writes: bool,
    ) -> Result<Permit, RequestError> {
        if !core::state().guard.rules.is_enabled() {
            return Ok(Permit { revision: 0 });
        }
        let who = self.identity().await?.ok_or(RequestError::UserEmpty)?;
        let revision = core::state().guard.rules.rules().revision();
        match core::request(NodeRequest::PermitLease { who, id, writes }).await? {
            Answer::Permitted => Ok(Permit { revision }),
            _ => Err(RequestError::Other(mismatch().message().to_owned().into())),
        }
    }
}

impl Permit {
    /// Whether the rules are still the same.
    pub(super) fn check_again(self) -> Result<(), Status> {
        let is_same =
            || core::with(|core| core.state().guard.rules.rules().revision()) == self.revision;
        if self.revision == 0 || is_same() {
            Ok(())
        } else {
            Err(status(&RequestError::AuthOldRevision))
        }
    }
}

fn certificate_name<T>(request: &Request<T>) -> Option<Arc<str>> {
    let CertificateName(name) = request.extensions().get()?;
    let is_callers = !request.metadata().contains_key(GATEWAY_KEY);
    is_callers.then(|| Arc::clone(name))
}

/// A token that another member knows already: this one has yet to apply its login. The token names the entry before.
async fn look_up_later(
    state: &ServerState,
    token: &str,
    index: Index,
) -> Result<Identity, RequestError> {
    let login = index.next();
    if state.status().applied < login {
        let mut status = state.watch_status();
        let applied = status.wait_for(|status| status.applied >= login);
        // Also an invented token waits; no longer than any request.
        let waited = tokio::time::timeout(state.limits.request_timeout, applied).await;
        if waited.is_err() {
            return Err(RequestError::InvalidAuthToken);
        }
    }
    match state.guard.look_up(token) {
        Told::User(who) => Ok(who),
        Told::After(_) | Told::Invalid => Err(RequestError::InvalidAuthToken),
    }
}
