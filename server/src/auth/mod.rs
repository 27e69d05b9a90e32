//! Who a caller is: tokens, their kinds, and passwords.
//!
//! What a user may do is the core's question (`quorate_core::auth`); here a token becomes a user, and a password the
//! right to a token. Nothing here is replicated, and nothing of it may hold up an IO core: passwords are hashed on
//! threads of their own.
//!
//! ```text
//!   token  ──► simple: known since its login was applied, until it was not used for a while
//!          ──► JWT:    signed by this cluster's key, at the auth revision of its login
//!   password ──► bcrypt, a few at a time ──► login through the log ──► token
//! ```

mod jwt;
mod keys;
mod options;
mod password;
mod tokens;

use quorate_core::auth::{AuthView, Identity, TokenChange};
use quorate_core::types::Index;

pub use self::options::{AuthOptionsError, TokenKind};
pub(crate) use self::password::Passwords;
use self::tokens::Tokens;
use crate::config::Config;
use crate::driver::clock::Clock;

/// The random letters of a simple token; etcd's number.
const PREFIX_LETTERS: usize = 16;

/// What turns credentials into users.
#[derive(Debug)]
pub struct Guard {
    /// The rules as they are applied.
    pub(crate) rules: AuthView,
    /// Hashes and compares.
    pub(crate) passwords: Passwords,
    kind: TokenKind,
    tokens: Tokens,
    clock: Clock,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Whose it is.
    User(Identity),
    /// It may be good once this member has applied so much.
    After(Index),
    /// It is good for nothing.
    Invalid,
}

impl Guard {
    /// With the token kind and the cost of the configuration.
    pub fn new(config: &Config, rules: AuthView, clock: Clock) -> Result<Self, AuthOptionsError> {
        Ok(Self {
            rules,
            passwords: Passwords::new(config.bcrypt_cost),
            kind: TokenKind::parse(&config.auth_token)?,
            tokens: Tokens::new(config.auth_token_ttl),
            clock,
        })
    }

    /// Takes up what an applied entry means for tokens.
    pub(crate) fn on_change(&self, change: TokenChange) {
        if matches!(self.kind, TokenKind::Simple) {
            self.tokens.on_change(self.clock.now(), change);
        }
    }

    /// Whose a token is; the use of a simple token prolongs it.
    pub(crate) fn look_up(&self, token: &str) -> Told {
        match &self.kind {
            TokenKind::Simple => {
                // The rules first: what is checked at this revision may not have changed since.
                let revision = self.rules.rules().revision();
                match self.tokens.use_token(self.clock.now(), token) {
                    Some(user) => Told::User(Identity { user, revision }),
                    None => tokens::index_of(token).map_or(Told::Invalid, Told::After),
                }
            }
            TokenKind::Jwt(jwt) => jwt.verify(token).map_or(Told::Invalid, Told::User),
            TokenKind::None => Told::Invalid,
        }
    }

    /// The random part of the next token.
    pub(crate) fn token_prefix(&self) -> String {
        match self.kind {
            TokenKind::Simple => tokens::random_letters(PREFIX_LETTERS),
            TokenKind::Jwt(_) | TokenKind::None => String::new(),
        }
    }

    /// The token of a login that was applied, given the simple one that the entry makes.
    pub(crate) fn issue(&self, simple: String, who: &Identity) -> Result<String, IssueError> {
        match &self.kind {
            TokenKind::Simple => Ok(simple),
            TokenKind::Jwt(jwt) => jwt.sign(who),
            TokenKind::None => Err(IssueError::NoTokens),
        }
    }
}

/// Why there is no token for a user who knows the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IssueError {
    /// `--auth-token` is empty.
    #[error("no tokens are given out")]
    NoTokens,
    /// There is no private key here.
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// The key does not sign.
    #[error("auth: the key cannot sign")]
    Unsigned,
}
