//! Keys as openssl writes them.

mod pem;

use super::*;
use pem::*;

fn load(method: &str, public: Option<&str>, private: Option<&str>) -> Result<Keys, KeyError> {
    let method = Method::named(method).expect("it is known");
    Keys::load(
        method,
        public.map(str::as_bytes),
        private.map(str::as_bytes),
    )
}

#[test]
fn what_a_private_key_signs_its_public_key_verifies() {
    for (method, private, public) in [
        ("RS256", RSA_PKCS1, RSA_PUBLIC),
        ("RS512", RSA_PKCS8, RSA_PUBLIC),
        ("PS256", RSA_PKCS8, RSA_PUBLIC),
        ("ES256", P256_SEC1, P256_PUBLIC),
        ("ES256", P256_PKCS8, P256_PUBLIC),
        ("ES384", P384_SEC1, P384_PUBLIC),
        ("EdDSA", ED25519_PKCS8, ED25519_PUBLIC),
    ] {
        let signing =
            load(method, None, Some(private)).unwrap_or_else(|error| panic!("{method}: {error}"));
        let both = load(method, Some(public), Some(private));
        assert!(both.is_ok(), "{method}: {both:?}");
        let verifying =
            load(method, Some(public), None).unwrap_or_else(|error| panic!("{method}: {error}"));
        let signature = signing.sign(b"text").expect("it signs");
        for keys in [&signing, &verifying] {
            assert!(keys.verifies(b"text", &signature), "{method}");
            assert!(!keys.verifies(b"other", &signature), "{method}");
        }
        assert_eq!(verifying.sign(b"text"), Err(IssueError::VerifyOnly));
    }
}

#[test]
fn keys_that_do_not_belong_together_are_refused() {
    let error =
        |method, public, private| load(method, public, private).expect_err("no").to_string();
    let mismatch = "auth: public and private keys don't match";
    assert_eq!(
        error("ES256", Some(P256_OTHER_PUBLIC), Some(P256_SEC1)),
        mismatch
    );
    assert_eq!(error("RS256", None, None), "auth: missing key data");
    assert_eq!(
        error("HS256", Some(RSA_PUBLIC), None),
        "auth: missing key data"
    );
    for (method, public, private) in [
        ("ES256", None, Some(RSA_PKCS8)),
        ("ES256", None, Some(P384_SEC1)),
        ("RS256", None, Some(P256_SEC1)),
        ("EdDSA", None, Some(P256_PKCS8)),
        ("RS256", Some("nonsense"), None),
        ("RS256", None, Some("nonsense")),
    ] {
        assert!(
            error(method, public, private).contains("cannot be read"),
            "{method}"
        );
    }
}

#[test]
fn a_secret_is_never_shown() {
    let keys = load("HS256", None, Some("a secret")).expect("a secret");
    assert_eq!(
        format!("{keys:?}"),
        "Keys { method: HS256, signs: true, .. }"
    );
}

#[test]
fn a_certificate_is_as_good_as_the_public_key_in_it() {
    for (method, private, public) in [
        ("RS256", RSA_PKCS8, RSA_CERTIFICATE),
        ("ES256", P256_SEC1, P256_CERTIFICATE),
    ] {
        let both = load(method, Some(public), Some(private));
        assert!(both.is_ok(), "{method}: {both:?}");
        let verifying = load(method, Some(public), None).expect("the key is found");
        let signature = both.expect("seen above").sign(b"text").expect("it signs");
        assert!(verifying.verifies(b"text", &signature), "{method}");
    }
    let cut = &RSA_CERTIFICATE.replace("MII", "MIA");
    assert!(load("RS256", Some(cut), None).is_err());
    assert!(load("EdDSA", Some(P256_CERTIFICATE), None).is_err());
    let other = load("RS256", Some(P256_CERTIFICATE), Some(RSA_PKCS8));
    assert!(other.is_err(), "a key of another kind");
}
