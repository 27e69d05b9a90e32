//! `--auth-token`: the kind of token, and the options of JWT.

use std::collections::BTreeMap;
use std::time::Duration;

use super::jwt::Jwt;
use super::keys::{KeyError, Keys, Method};
use crate::config::go_duration;

/// What JWT tokens live for unless `ttl` says otherwise.
const JWT_TTL: Duration = Duration::from_secs(300);

/// The kinds of token.
#[derive(Debug)]
pub enum TokenKind {
    /// Random letters, kept by each member.
    Simple,
    /// Signed.
    Jwt(Box<Jwt>),
    /// Nobody gets one: users are known by their certificates alone.
    None,
}

/// Why the options cannot be used; in etcd's words where it has some.
#[derive(Debug, thiserror::Error)]
pub enum AuthOptionsError {
    /// Not of the form `kind,name=value,…`, or of an unknown kind.
    #[error("auth: invalid auth options")]
    Shape,
    /// An option of JWT that cannot be read.
    #[error("auth: invalid auth options ({0})")]
    Option(String),
    /// The keys do not fit.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl TokenKind {
    /// Reads the flag, and the files that it names.
    pub fn parse(text: &str) -> Result<Self, AuthOptionsError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(AuthOptionsError::Shape)?;
            if value.contains('=') || options.insert(name, value).is_some() {
                return Err(AuthOptionsError::Shape);
            }
        }
        match kind {
            "simple" => Ok(Self::Simple),
            "jwt" => Ok(Self::Jwt(Box::new(jwt(&options)?))),
            "" => Ok(Self::None),
            _ => Err(AuthOptionsError::Shape),
        }
    }
}

fn jwt(options: &BTreeMap<&str, &str>) -> Result<Jwt, AuthOptionsError> {
    let option = |name: &str| options.get(name).copied().filter(|value| !value.is_empty());
    let ttl = match option("ttl") {
        Some(text) => go_duration(text).map_err(AuthOptionsError::Option)?,
        None => JWT_TTL,
    };
    let public = option("pub-key").map(read).transpose()?;
    let private = option("priv-key").map(read).transpose()?;
    let name = option("sign-method").unwrap_or_default();
    let method = Method::named(name).ok_or_else(|| {
        AuthOptionsError::Option(format!("auth: invalid auth signature method {name:?}"))
    })?;
    let keys = Keys::load(method, public.as_deref(), private.as_deref())?;
    Ok(Jwt::new(keys, ttl))
}

fn read(path: &str) -> Result<Vec<u8>, AuthOptionsError> {
    std::fs::read(path).map_err(|error| AuthOptionsError::Option(format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_and_nonsense_is_refused() {
        assert!(matches!(TokenKind::parse("simple"), Ok(TokenKind::Simple)));
        assert!(matches!(TokenKind::parse(""), Ok(TokenKind::None)));
        for bad in [
            "nonsense",
            "simple,a",
            "jwt,a=b=c",
            "jwt,ttl=1m,ttl=1m",
            "jwt",
            "jwt,sign-method=none",
        ] {
            let error = TokenKind::parse(bad).expect_err(bad).to_string();
            assert!(
                error.starts_with("auth: invalid auth options"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn hmac_needs_a_private_key_and_files_must_exist() {
        let missing = TokenKind::parse("jwt,sign-method=HS256").expect_err("no key");
        assert_eq!(missing.to_string(), "auth: missing key data");
        let absent = TokenKind::parse("jwt,sign-method=HS256,priv-key=/nonexistent/key");
        assert!(
            absent
                .expect_err("no file")
                .to_string()
                .contains("/nonexistent/key")
        );
    }
}
