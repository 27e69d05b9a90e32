//! JSON Web Tokens as etcd makes and reads them: the claims `username`, `revision` and `exp`.
//!
//! The algorithm is the configured one and never the token's choice. A token is bound to the auth revision of its
//! login: every change of users or roles makes all of them old.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quorate_core::auth::Identity;
use serde::{Deserialize, Serialize};

use super::IssueError;
use super::keys::Keys;

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Signs and verifies tokens.
#[derive(Debug)]
pub struct Jwt {
    keys: Keys,
    ttl: Duration,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: String,
}

/// In Go's order. Numbers are floating point in JSON, and so in etcd.
#[derive(Serialize)]
struct Claims<'a> {
    exp: u64,
    revision: u64,
    username: &'a str,
}

#[derive(Deserialize)]
struct ReadClaims {
    exp: Option<f64>,
    nbf: Option<f64>,
    revision: f64,
    username: String,
}

impl Jwt {
    pub(super) fn new(keys: Keys, ttl: Duration) -> Self {
        Self { keys, ttl }
    }

    /// A token for a user at an auth revision.
    pub(super) fn sign(&self, who: &Identity) -> Result<String, IssueError> {
        self.sign_until(who, unix_time().saturating_add(self.ttl))
    }

    fn sign_until(&self, who: &Identity, end: Duration) -> Result<String, IssueError> {
        let header = Header {
            alg: self.keys.method().name().to_owned(),
            typ: "JWT".to_owned(),
        };
        let claims = Claims {
            exp: end.as_secs(),
            revision: who.revision,
            username: &who.user,
        };
        let text = format!("{}.{}", part(&header), part(&claims));
        let signature = self.keys.sign(text.as_bytes())?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose a token is; `None` if it is not signed by our key, or over.
    pub(super) fn verify(&self, token: &str) -> Option<Identity> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        let header: Header = read(header)?;
        if header.alg != self.keys.method().name() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.keys.verifies(text.as_bytes(), &signature) {
            return None;
        }
        let claims: ReadClaims = read(claims)?;
        let now = unix_time().as_secs_f64();
        let is_over = claims.exp.is_some_and(|end| now >= end);
        let is_early = claims.nbf.is_some_and(|begin| now < begin);
        (!is_over && !is_early).then_some(Identity {
            user: claims.username,
            revision: claims.revision as u64,
        })
    }
}

fn part(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("texts and numbers are JSON"))
}

fn read<T: for<'a> Deserialize<'a>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::keys::Method;
    use super::*;

    fn jwt(secret: &[u8]) -> Jwt {
        let method = Method::named("HS256").expect("it is known");
        let keys = Keys::load(method, None, Some(secret)).expect("any bytes are a secret");
        Jwt::new(keys, Duration::from_secs(60))
    }

    fn alice() -> Identity {
        Identity {
            user: "alice".into(),
            revision: 9,
        }
    }

    #[test]
    fn a_token_tells_its_user_to_those_with_the_key() {
        let token = jwt(b"secret").sign(&alice()).expect("it signs");
        assert_eq!(jwt(b"secret").verify(&token), Some(alice()));
        assert_eq!(jwt(b"other").verify(&token), None);
    }

    #[test]
    fn tokens_that_were_touched_are_worth_nothing() {
        let jwt = jwt(b"secret");
        let token = jwt.sign(&alice()).expect("it signs");
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(bytes).expect("it is ASCII");
            assert_eq!(jwt.verify(&touched), None, "byte {at}");
        }
        for bad in ["", ".", "..", "a.b", "a.b.c", &token[..token.len() - 1]] {
            assert_eq!(jwt.verify(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_token_does_not_choose_the_algorithm() {
        let jwt = jwt(b"secret");
        let claims = Claims {
            exp: u64::from(u32::MAX),
            revision: 9,
            username: "root",
        };
        for alg in ["none", "HS384", "RS256", ""] {
            let header = Header {
                alg: alg.to_owned(),
                typ: "JWT".to_owned(),
            };
            let text = format!("{}.{}", part(&header), part(&claims));
            assert_eq!(jwt.verify(&format!("{text}.")), None);
            let signature = jwt.keys.sign(text.as_bytes()).expect("it signs");
            let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(jwt.verify(&token), None, "{alg}");
        }
    }

    #[test]
    fn a_token_is_over_when_its_time_is() {
        let jwt = jwt(b"secret");
        let over = jwt.sign_until(&alice(), unix_time()).expect("it signs");
        assert_eq!(jwt.verify(&over), None);
    }
}
