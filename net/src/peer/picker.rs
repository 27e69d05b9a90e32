//! Which of a peer's URLs is used at the moment.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::endpoint::Endpoint;

/// The endpoints of a peer and which of them is used at the moment.
#[derive(Debug, Default)]
pub(crate) struct EndpointPicker {
    state: Mutex<Picked>,
}

#[derive(Debug, Default)]
struct Picked {
    endpoints: Vec<Endpoint>,
    /// Below the length, unless there is none.
    current: usize,
}

impl EndpointPicker {
    /// Uses these from now on; what does not parse is left out, with a warning.
    pub(super) fn replace<'a>(&self, urls: impl Iterator<Item = &'a str>) {
        let parsed = urls
            .map(|url| Endpoint::parse(url).inspect_err(|error| warn!(%error, "ignored peer URL")));
        *self.lock() = Picked {
            endpoints: parsed.filter_map(Result::ok).collect(),
            current: 0,
        };
    }

    /// The one in use; `None` if there is none at all.
    pub(crate) fn pick(&self) -> Option<Endpoint> {
        let state = self.lock();
        state.endpoints.get(state.current).cloned()
    }

    /// Goes on to the next endpoint, if this one is still the one in use.
    pub(crate) fn unreachable(&self, endpoint: &Endpoint) {
        let mut state = self.lock();
        if state.endpoints.get(state.current) == Some(endpoint) {
            state.current = (state.current + 1) % state.endpoints.len();
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Endpoint> {
        self.lock().endpoints.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Picked> {
        // Both fields are replaced together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
