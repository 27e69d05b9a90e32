//! Simple tokens: random letters and the index of their login, kept in memory for as long as they are used.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_core::auth::TokenChange;
use quorate_core::types::{Index, Time};
use rand::RngExt as _;

/// etcd's alphabet.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// What `--auth-token-ttl=0` means.
const TTL_DEFAULT: Duration = Duration::from_secs(300);
/// Between two searches for tokens whose time is over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The tokens that are good on this member.
#[derive(Debug)]
pub(super) struct Tokens {
    ttl: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    logins: HashMap<String, Login>,
    sweep_at: Time,
}

#[derive(Debug)]
struct Login {
    user: String,
    ends: Time,
}

impl Tokens {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl: if ttl.is_zero() { TTL_DEFAULT } else { ttl },
            known: Mutex::default(),
        }
    }

    pub(super) fn on_change(&self, now: Time, change: TokenChange) {
        let mut known = self.lock();
        match change {
            TokenChange::Assigned { token, user } => {
                known.sweep(now);
                let ends = now.after(self.ttl);
                known.logins.insert(token, Login { user, ends });
            }
            TokenChange::UserChanged(user) => known.logins.retain(|_, login| login.user != user),
            TokenChange::AllVoid => known.logins.clear(),
        }
    }

    /// The user of a token, which is good for its whole time again.
    pub(super) fn use_token(&self, now: Time, token: &str) -> Option<String> {
        let mut known = self.lock();
        let login = known
            .logins
            .get_mut(token)
            .filter(|login| now < login.ends)?;
        login.ends = now.after(self.ttl);
        Some(login.user.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Forgets tokens whose time is over. Each login may look at all, but not more often than once a while.
    fn sweep(&mut self, now: Time) {
        if now >= self.sweep_at {
            self.logins.retain(|_, login| now < login.ends);
            self.sweep_at = now.after(SWEEP_INTERVAL);
        }
    }
}

/// The number in a token, if it has the shape of one.
pub(super) fn index_of(token: &str) -> Option<Index> {
    let (_, number) = token.split_once('.')?;
    // What Go reads as a number has digits alone; a second dot is none.
    let has_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    has_digits.then(|| number.parse().ok().map(Index)).flatten()
}

pub(super) fn random_letters(count: usize) -> String {
    let mut random = rand::rng();
    (0..count)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    fn assigned(token: &str, user: &str) -> TokenChange {
        TokenChange::Assigned {
            token: token.into(),
            user: user.into(),
        }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let tokens = Tokens::new(TTL);
        tokens.on_change(at(0), assigned("a.1", "alice"));
        assert_eq!(tokens.use_token(at(299), "a.1").as_deref(), Some("alice"));
        assert_eq!(tokens.use_token(at(598), "a.1").as_deref(), Some("alice"));
        assert_eq!(tokens.use_token(at(898), "a.1"), None);
        tokens.on_change(at(900), assigned("b.2", "bob"));
        assert_eq!(tokens.lock().logins.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn a_changed_user_and_a_switched_off_auth_void_tokens() {
        let tokens = Tokens::new(Duration::ZERO);
        for (token, user) in [("a.1", "alice"), ("b.2", "bob"), ("c.3", "alice")] {
            tokens.on_change(at(0), assigned(token, user));
        }
        tokens.on_change(at(1), TokenChange::UserChanged("alice".into()));
        assert_eq!(tokens.use_token(at(1), "a.1"), None);
        assert_eq!(tokens.use_token(at(1), "c.3"), None);
        assert!(tokens.use_token(at(1), "b.2").is_some());
        tokens.on_change(at(1), TokenChange::AllVoid);
        assert_eq!(tokens.use_token(at(1), "b.2"), None);
    }

    #[test]
    fn the_number_of_a_token_is_read_as_etcd_reads_it() {
        assert_eq!(index_of("abc.27"), Some(Index(27)));
        for bad in [
            "abc",
            "abc.",
            "abc.x",
            "a.b.27",
            "abc.+1",
            "abc.-1",
            "abc.99999999999999999999",
        ] {
            assert_eq!(index_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn prefixes_are_letters_and_differ() {
        let prefix = random_letters(16);
        assert!(prefix.len() == 16 && prefix.bytes().all(|byte| byte.is_ascii_alphabetic()));
        assert_ne!(prefix, random_letters(16));
    }
}
