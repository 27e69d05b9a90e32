//! Keys that sign and verify JWT: PEM files, and ring's algorithms under the names of JWT.
//!
//! A private key verifies as well, with the public key inside it; a public key alone verifies only. What ring does not
//! offer is refused by name: RSA keys under 2048 bits, and ES512.

use std::fmt;

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair,
    KeyPair as _, RsaEncoding, RsaKeyPair, RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};

use super::IssueError;

/// DER of the algorithm identifiers of `id-ecPublicKey` on P-256 and P-384.
const P256: &[u8] =
    b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";

/// A signing method of JWT.
#[derive(Clone, Copy)]
pub(super) struct Method {
    name: &'static str,
    family: Family,
}

#[derive(Clone, Copy)]
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static RsaParameters),
    Ecdsa(
        &'static EcdsaSigningAlgorithm,
        &'static EcdsaVerificationAlgorithm,
        &'static [u8],
    ),
    Ed25519,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not the key that the method needs.
    #[error("auth: missing key data")]
    Missing,
    /// They do not belong together.
    #[error("auth: public and private keys don't match")]
    Mismatch,
    /// A file that holds no such key.
    #[error("auth: the {0} key cannot be read: {1}")]
    Unreadable(&'static str, String),
}

/// The keys of one method.
pub(super) struct Keys {
    method: Method,
    private: Option<Private>,
    /// As ring takes it; empty for a shared secret.
    public: Vec<u8>,
    random: SystemRandom,
}

enum Private {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Method {
    /// The method of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        use Family::{Ecdsa, Ed25519, Hmac, Rsa};
        let methods = [
            ("HS256", Hmac(hmac::HMAC_SHA256)),
            ("HS384", Hmac(hmac::HMAC_SHA384)),
            ("HS512", Hmac(hmac::HMAC_SHA512)),
            (
                "RS256",
                Rsa(
                    &signature::RSA_PKCS1_SHA256,
                    &signature::RSA_PKCS1_2048_8192_SHA256,
                ),
            ),
            (
                "RS384",
                Rsa(
                    &signature::RSA_PKCS1_SHA384,
                    &signature::RSA_PKCS1_2048_8192_SHA384,
                ),
            ),
            (
                "RS512",
                Rsa(
                    &signature::RSA_PKCS1_SHA512,
                    &signature::RSA_PKCS1_2048_8192_SHA512,
                ),
            ),
            (
                "PS256",
                Rsa(
                    &signature::RSA_PSS_SHA256,
                    &signature::RSA_PSS_2048_8192_SHA256,
                ),
            ),
            (
                "PS384",
                Rsa(
                    &signature::RSA_PSS_SHA384,
                    &signature::RSA_PSS_2048_8192_SHA384,
                ),
            ),
            (
                "PS512",
                Rsa(
                    &signature::RSA_PSS_SHA512,
                    &signature::RSA_PSS_2048_8192_SHA512,
                ),
            ),
            (
                "ES256",
                Ecdsa(
                    &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                    &signature::ECDSA_P256_SHA256_FIXED,
                    P256,
                ),
            ),
            (
                "ES384",
                Ecdsa(
                    &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
                    &signature::ECDSA_P384_SHA384_FIXED,
                    P384,
                ),
            ),
            ("EdDSA", Ed25519),
        ];
        methods
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(name, family)| Self { name, family })
    }

    /// Its name in the header of a token.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

impl Keys {
    /// The keys in these files; for HMAC the private one is the secret itself.
    pub(super) fn load(
        method: Method,
        public: Option<&[u8]>,
        private: Option<&[u8]>,
    ) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let private = private.filter(|pem| !pem.is_empty());
        let private = private
            .map(|pem| load_private(method, pem, &random))
            .transpose()?;
        let public = public.filter(|pem| !pem.is_empty());
        let public = public.map(|pem| load_public(method, pem)).transpose()?;
        let inside = private.as_ref().map(Private::public);
        let public = match (public, inside) {
            (Some(public), Some(inside)) if public != inside && !inside.is_empty() => {
                return Err(KeyError::Mismatch);
            }
            (_, Some(inside)) => inside,
            (Some(public), None) => public,
            (None, None) => return Err(KeyError::Missing),
        };
        if private.is_none() && matches!(method.family, Family::Hmac(_)) {
            return Err(KeyError::Missing);
        }
        Ok(Self {
            method,
            private,
            public,
            random,
        })
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }

    pub(super) fn sign(&self, text: &[u8]) -> Result<Vec<u8>, IssueError> {
        let private = self.private.as_ref().ok_or(IssueError::VerifyOnly)?;
        match (private, self.method.family) {
            (Private::Hmac(key), _) => Ok(hmac::sign(key, text).as_ref().to_vec()),
            (Private::Rsa(pair), Family::Rsa(encoding, _)) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &self.random, text, &mut signature)
                    .map_err(|_| IssueError::Unsigned)?;
                Ok(signature)
            }
            (Private::Ecdsa(pair), _) => pair
                .sign(&self.random, text)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| IssueError::Unsigned),
            (Private::Ed25519(pair), _) => Ok(pair.sign(text).as_ref().to_vec()),
            (Private::Rsa(_), _) => unreachable!("keys are loaded for their method"),
        }
    }

    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm =
            match (self.method.family, &self.private) {
                (Family::Hmac(_), Some(Private::Hmac(key))) => {
                    return hmac::verify(key, text, signature).is_ok();
                }
                (Family::Hmac(_), _) => unreachable!("HMAC has a secret"),
                (Family::Rsa(_, parameters), _) => parameters,
                (Family::Ecdsa(_, algorithm, _), _) => algorithm,
                (Family::Ed25519, _) => &signature::ED25519,
            };
        UnparsedPublicKey::new(algorithm, &self.public)
            .verify(text, signature)
            .is_ok()
    }
}

impl Private {
    fn public(&self) -> Vec<u8> {
        match self {
            Self::Hmac(_) => Vec::new(),
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }
}

fn load_private(method: Method, pem: &[u8], random: &SystemRandom) -> Result<Private, KeyError> {
    let refuse = |reason: &dyn fmt::Display| KeyError::Unreadable("private", reason.to_string());
    if let Family::Hmac(algorithm) = method.family {
        return Ok(Private::Hmac(hmac::Key::new(algorithm, pem)));
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| refuse(&error))?;
    let der = key.secret_der();
    let is_bare = !matches!(key, PrivateKeyDer::Pkcs8(_));
    match method.family {
        Family::Rsa(..) => match &key {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(der),
            _ => RsaKeyPair::from_pkcs8(der),
        }
        .map(Private::Rsa),
        Family::Ecdsa(algorithm, _, identifier) => {
            let wrapped = if is_bare {
                to_pkcs8(identifier, der)
            } else {
                der.to_vec()
            };
            EcdsaKeyPair::from_pkcs8(algorithm, &wrapped, random).map(Private::Ecdsa)
        }
        Family::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Private::Ed25519),
        Family::Hmac(_) => unreachable!("returned above"),
    }
    .map_err(|error| refuse(&error))
}

/// A key of SEC 1 as PKCS #8, which is what ring reads.
fn to_pkcs8(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let inner = [b"\x02\x01\x00", algorithm, &der(0x04, key)].concat();
    der(0x30, &inner)
}

/// Content with its DER tag and length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..0x80), _) => vec![tag, length],
        (Ok(length), _) => vec![tag, 0x81, length],
        (_, Ok(length)) => [&[tag, 0x82][..], &length.to_be_bytes()].concat(),
        _ => panic!("a key of {length} bytes"),
    };
    [&head, content].concat()
}

fn load_public(method: Method, pem: &[u8]) -> Result<Vec<u8>, KeyError> {
    if matches!(method.family, Family::Hmac(_)) {
        return Ok(Vec::new());
    }
    let refuse = |reason: String| KeyError::Unreadable("public", reason);
    let info =
        SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|error| refuse(error.to_string()));
    let info = match info {
        // As in etcd, only these two may also stand in a certificate.
        Err(no_key) if matches!(method.family, Family::Rsa(..) | Family::Ecdsa(..)) => {
            let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| no_key)?;
            let info = key_in_certificate(&certificate).map(<[u8]>::to_vec);
            info.ok_or_else(|| refuse("it is no certificate".into()))?
        }
        info => info?.to_vec(),
    };
    subject_public_key(&info).ok_or_else(|| refuse("it is no public key".into()))
}

/// The SubjectPublicKeyInfo of an X.509 certificate: what follows the subject.
fn key_in_certificate(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = read_der(0x30, certificate)?;
    let (mut rest, _) = read_der(0x30, certificate)?;
    const VERSION: u8 = 0xa0;
    if let Some((_version, after)) = read_der(VERSION, rest) {
        rest = after;
    }
    let (_serial, rest) = read_der(0x02, rest)?;
    let (_algorithm, rest) = read_der(0x30, rest)?;
    let (_issuer, rest) = read_der(0x30, rest)?;
    let (_validity, rest) = read_der(0x30, rest)?;
    let (_subject, rest) = read_der(0x30, rest)?;
    Some(rest)
}

/// The bits of a SubjectPublicKeyInfo: a sequence of an algorithm identifier and a bit string.
fn subject_public_key(info: &[u8]) -> Option<Vec<u8>> {
    let (sequence, _) = read_der(0x30, info)?;
    let (_algorithm, rest) = read_der(0x30, sequence)?;
    let (bits, _) = read_der(0x03, rest)?;
    // The first byte counts unused bits.
    bits.strip_prefix(&[0]).map(<[u8]>::to_vec)
}

/// The content of the value with this tag, and what comes after it.
fn read_der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0x00..=0x7f => (usize::from(*first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_at_checked(2)?;
            (
                usize::from(u16::from_be_bytes([length[0], length[1]])),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

impl fmt::Debug for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Never shows a key.
impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Keys")
            .field("method", &self.method)
            .field("signs", &self.private.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
