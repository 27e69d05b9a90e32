//! Passwords: bcrypt, on threads of its own and a few at a time.
//!
//! One hash takes some 50 ms of a core by intention. Whoever tries passwords must not take the member's cores with it:
//! no more than [`Passwords::at_once`] are hashed at one time, and those who wait are counted.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use quorate_core::auth::{Identity, Rules};
use quorate_core::error::RequestError;
use tokio::sync::Semaphore;

/// Longer passwords would be cut, and are refused.
const PASSWORD_BYTES_MAX: usize = 72;
/// Passwords that wait for their turn; more are refused at once.
const WAITING_MAX: usize = 256;

/// etcd's words when a user without password is asked for one.
const NO_PASSWORD_USER: &str =
    "auth: authentication failed, password was given for no password user";

/// What hashes passwords and compares them.
#[derive(Debug)]
pub(crate) struct Passwords {
    cost: u32,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(cost: u32) -> Self {
        Self {
            cost,
            turns: Arc::new(Semaphore::new(Self::at_once())),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// All cores but one, which is left for everybody else.
    fn at_once() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
    }

    /// The hash of a new password, as an entry carries it.
    pub(crate) async fn hash(&self, password: String) -> Result<String, RequestError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(RequestError::Other(
                "bcrypt: password length exceeds 72 bytes".into(),
            ));
        }
        let cost = self.cost;
        let salt: [u8; 16] = rand::random();
        let hashed = self
            .run(move || bcrypt::hash_with_salt(password, cost, salt))
            .await?;
        match hashed {
            Ok(parts) => Ok(STANDARD.encode(parts.format_for_version(Version::TwoA))),
            Err(error) => Err(RequestError::Other(format!("bcrypt: {error}").into())),
        }
    }

    /// Whether a user knows its password; answers as whom, and at which auth revision that was so.
    pub(crate) async fn check(
        &self,
        rules: &Rules,
        name: &str,
        password: &str,
    ) -> Result<Identity, RequestError> {
        if !rules.is_enabled() {
            return Err(RequestError::AuthNotEnabled);
        }
        let user = rules.user(name).ok_or(RequestError::AuthFailed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(RequestError::Other(NO_PASSWORD_USER.into()));
        }
        let who = Identity {
            user: name.to_owned(),
            revision: rules.revision(),
        };
        let (hash, password) = (user.password.clone(), password.to_owned());
        let fits = self
            .run(move || {
                std::str::from_utf8(&hash)
                    .is_ok_and(|hash| bcrypt::verify(password, hash).unwrap_or(false))
            })
            .await?;
        if fits {
            Ok(who)
        } else {
            Err(RequestError::AuthFailed)
        }
    }

    /// Runs `work` on another thread when it is its turn. Who goes away gives up the place, not the work.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let _waiting = Arc::clone(&self.waiting)
            .try_acquire_owned()
            .map_err(|_| RequestError::RequestTooManyRequests)?;
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .expect("it is never closed");
        let run = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(run)
            .await
            .map_err(|_| RequestError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::auth::Auth;
    use quorate_core::checkpoint::AuthContents;
    use quorate_proto::authpb::{User, UserAddOptions};

    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(4)
    }

    fn rules(password: &[u8]) -> Auth {
        let user = |name: &'static str, no_password| User {
            name: name.into(),
            password: password.to_vec().into(),
            options: Some(UserAddOptions { no_password }),
            ..User::default()
        };
        Auth::restore(AuthContents {
            enabled: Some(true),
            revision: 7,
            users: vec![user("alice", false), user("machine", true)],
            ..AuthContents::default()
        })
    }

    #[tokio::test]
    async fn a_hash_fits_its_password_alone() {
        let hashed = passwords()
            .hash("pässword".into())
            .await
            .expect("it is short");
        let hash = STANDARD.decode(hashed).expect("base64");
        assert!(hash.starts_with(b"$2a$04$"));
        let auth = rules(&hash);
        let who = passwords().check(auth.rules(), "alice", "pässword").await;
        assert_eq!(
            who.map(|who| (who.user, who.revision)),
            Ok(("alice".into(), 7))
        );
        for (name, password, error) in [
            ("alice", "passwort", RequestError::AuthFailed),
            ("alice", "", RequestError::AuthFailed),
            ("bob", "pässword", RequestError::AuthFailed),
            ("machine", "x", RequestError::Other(NO_PASSWORD_USER.into())),
        ] {
            assert_eq!(
                passwords().check(auth.rules(), name, password).await,
                Err(error)
            );
        }
        let off = Auth::default();
        let refused = passwords().check(off.rules(), "alice", "pässword").await;
        assert_eq!(refused, Err(RequestError::AuthNotEnabled));
    }

    #[tokio::test]
    async fn hashes_that_go_has_made_are_understood() {
        // bcrypt.GenerateFromPassword([]byte("allmine"), 10) of golang.org/x/crypto, from its own tests.
        let auth = rules(b"$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga");
        assert!(
            passwords()
                .check(auth.rules(), "alice", "allmine")
                .await
                .is_ok()
        );
        let damaged = rules(b"\xff");
        let refused = passwords().check(damaged.rules(), "alice", "allmine").await;
        assert_eq!(refused, Err(RequestError::AuthFailed));
    }

    #[tokio::test]
    async fn long_passwords_are_refused_rather_than_cut() {
        assert!(passwords().hash("x".repeat(72)).await.is_ok());
        let refused = passwords().hash("x".repeat(73)).await;
        assert_eq!(
            refused,
            Err(RequestError::Other(
                "bcrypt: password length exceeds 72 bytes".into()
            ))
        );
    }

    #[tokio::test]
    async fn those_who_wait_for_their_turn_are_counted() {
        let passwords = passwords();
        let places = Arc::clone(&passwords.waiting)
            .try_acquire_many_owned(WAITING_MAX as u32)
            .expect("nobody waits");
        assert_eq!(
            passwords.hash("x".into()).await,
            Err(RequestError::RequestTooManyRequests)
        );
        drop(places);
        assert!(passwords.hash("x".into()).await.is_ok());
    }
}
