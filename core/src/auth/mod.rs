//! Auth: who the users are, what their roles allow, and whether anybody looks.
//!
//! [`Auth`] is the single mutator, a pure function of the entries applied: passwords come hashed in the entry, tokens
//! come with their random part, and nothing here hashes, draws or expires anything. [`AuthView`] reads the same rules
//! from other threads.
//!
//! ```text
//!   entry ─► Auth::apply ─► new Rules ──► AuthView (reads, watches, logins: checked before they run)
//!                │              └───────► permit (entries: checked when they are applied)
//!                └─► TokenChange ──► Output::Token ──► the server's tokens
//! ```
//!
//! What a user may do is merged from its roles whenever one of them changes, and when an image is read: the merged
//! ranges are a cache and never stored. [`Rules::check`] compares it with its origin.
//!
//! Architecture invariant: rules are replaced before the next entry is applied. Who reads the store first and the auth
//! revision after that, and finds the revision that it was checked at, has read nothing that it may not see.

mod change;
mod permit;
mod ranges;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use quorate_proto::etcdserverpb as pb;

use crate::checkpoint::AuthContents;

pub(crate) use permit::{permit, permit_admin, permit_lease};
pub use permit::{permit_read_txn, permit_watch};
pub use rules::{Identity, Rules};

/// The user that always may do everything, and the role that lets it.
pub const ROOT: &str = "root";

/// What an applied entry means for the tokens of this member. Tokens are never part of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A user has logged in somewhere: the token is good on every member.
    Assigned {
        /// The token.
        token: String,
        /// Its user.
        user: String,
    },
    /// The user was deleted or has a new password: its tokens are void.
    UserChanged(String),
    /// Auth was switched off: all tokens are void.
    AllVoid,
}

/// The auth store of a member.
#[derive(Debug)]
pub struct Auth {
    /// The rules as they are now; the same as the view's.
    rules: Arc<Rules>,
    shared: Arc<Shared>,
    /// What the last entries mean for tokens, until somebody takes it.
    tokens: Vec<TokenChange>,
}

/// Reads the rules while entries are applied; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthView {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whether auth is on: looked at by every request, so that it takes no lock.
    enabled: AtomicBool,
    rules: RwLock<Arc<Rules>>,
}

impl Auth {
    /// The store in an image; the default contents are those of a new member.
    pub fn restore(contents: AuthContents) -> Self {
        let rules = Arc::new(Rules::restore(contents));
        Self {
            shared: Arc::new(Shared {
                enabled: AtomicBool::new(rules.is_enabled()),
                rules: RwLock::new(Arc::clone(&rules)),
            }),
            rules,
            tokens: Vec::new(),
        }
    }

    /// Takes over what an image holds, for the views that exist as well.
    pub fn replace(&mut self, contents: AuthContents) {
        self.publish(Rules::restore(contents));
    }

    /// What an image holds of this.
    pub fn export(&self) -> AuthContents {
        self.rules.export()
    }

    /// The rules as they are now.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A reader of the rules.
    pub fn view(&self) -> AuthView {
        AuthView {
            shared: Arc::clone(&self.shared),
        }
    }

    /// What the entries applied since the last call mean for tokens, in order.
    pub fn take_token_changes(&mut self) -> Vec<TokenChange> {
        std::mem::take(&mut self.tokens)
    }

    /// The header of a proposal of the member itself. What ends a lease acts as root, as etcd does it: the keys of the
    /// lease may be anybody's.
    pub(crate) fn own_header(&self, id: u64, as_root: bool) -> pb::RequestHeader {
        if as_root && self.rules.is_enabled() {
            return pb::RequestHeader {
                id,
                username: ROOT.to_string(),
                auth_revision: self.rules.revision(),
            };
        }
        pb::RequestHeader {
            id,
            ..Default::default()
        }
    }

    /// Checks every invariant; panics with the name of the one that does not hold.
    pub fn check(&self) {
        self.rules.check();
        assert_eq!(
            *self.view().rules(),
            *self.rules,
            "readers_see_the_applied_rules"
        );
    }

    fn publish(&mut self, rules: Rules) {
        self.rules = Arc::new(rules);
        let mut shared = self
            .shared
            .rules
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *shared = Arc::clone(&self.rules);
        self.shared
            .enabled
            .store(self.rules.is_enabled(), Ordering::Release);
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self::restore(AuthContents::default())
    }
}

impl AuthView {
    /// Whether auth is on.
    pub fn is_enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Acquire)
    }

    /// The rules as they are now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(
            &self
                .shared
                .rules
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
