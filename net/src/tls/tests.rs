//! Both sides against each other, over a pipe, with certificates that are made here.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::{CipherSuite, ProtocolVersion};

use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// An authority, with a directory for its files.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Clone, Copy)]
struct Leaf<'a> {
    common_name: &'a str,
    hosts: &'a [&'a str],
    serial: u64,
    /// From when it is valid until when, in days from now.
    days: (i64, i64),
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self {
            common_name: "",
            hosts: &["localhost", "127.0.0.1"],
            serial: 77,
            days: (-1, 1),
        }
    }
}

fn in_days(days: i64) -> SystemTime {
    let distance = Duration::from_secs(days.unsigned_abs() * 24 * 3600);
    if days < 0 {
        SystemTime::now() - distance
    } else {
        SystemTime::now() + distance
    }
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("written");
        Self {
            directory,
            issuer: Issuer::new(parameters, key),
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("it is text").to_owned()
    }

    /// Writes `name.pem` and `name.key`.
    fn issue(&self, name: &str, leaf: Leaf<'_>) {
        let hosts: Vec<_> = leaf.hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("they are hosts");
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if !leaf.common_name.is_empty() {
            parameters
                .distinguished_name
                .push(DnType::CommonName, leaf.common_name);
        }
        parameters.serial_number = Some(SerialNumber::from(leaf.serial));
        parameters.not_before = in_days(leaf.days.0).into();
        parameters.not_after = in_days(leaf.days.1).into();
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    /// Writes `crl.der`.
    fn revoke(&self, serials: &[u64]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: in_days(-1).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: in_days(-1).into(),
            next_update: in_days(1).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(self.path("crl.der"), list.der()).expect("written");
    }

    /// Settings with one of the pairs and, if asked, this authority.
    fn settings(&self, name: &str, trusting: bool) -> TlsInfo {
        TlsInfo {
            cert_file: self.path(&format!("{name}.pem")),
            key_file: self.path(&format!("{name}.key")),
            trusted_ca_file: if trusting {
                self.path("ca.pem")
            } else {
                String::new()
            },
            ..TlsInfo::default()
        }
    }

    /// Settings of a client without a certificate.
    fn stranger(&self) -> TlsInfo {
        TlsInfo {
            trusted_ca_file: self.path("ca.pem"),
            ..TlsInfo::default()
        }
    }
}

/// What one sees of a connection that stands.
#[derive(Debug)]
struct Seen {
    certificate: Option<PeerCertificate>,
    version: Option<ProtocolVersion>,
    suite: CipherSuite,
    protocol: Option<Vec<u8>>,
}

async fn meet(server: &ServerTls, client: &ClientTls, from: IpAddr) -> io::Result<Seen> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = async {
        let mut accepted = server.accept(far, Some(from)).await?;
        accepted.stream.write_all(b"hello").await?;
        accepted.stream.flush().await?;
        let state = accepted.stream.get_ref().1;
        Ok::<_, io::Error>(Seen {
            certificate: accepted.certificate.clone(),
            version: state.protocol_version(),
            suite: state.negotiated_cipher_suite().expect("agreed").suite(),
            protocol: state.alpn_protocol().map(<[u8]>::to_vec),
        })
    };
    let asking = async {
        let mut stream = client.connect("localhost", near).await?;
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await?;
        assert_eq!(&heard, b"hello");
        Ok::<_, io::Error>(())
    };
    let (served, asked) = tokio::join!(serving, asking);
    asked.and(served)
}

async fn meet_by(server: &TlsInfo, client: &TlsInfo) -> io::Result<Seen> {
    let server = ServerTls::new(server).expect("the server's settings are good");
    let client = ClientTls::new(client).expect("the client's settings are good");
    meet(&server, &client, LOOPBACK).await
}

#[tokio::test]
async fn a_client_needs_the_authority_of_the_server_but_no_certificate() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    let server = authority.settings("server", false);
    let seen = meet_by(&server, &authority.stranger()).await;
    assert_eq!(seen.expect("they meet").certificate, None);
    meet_by(&server, &Authority::new().stranger())
        .await
        .expect_err("another authority");
    let careless = TlsInfo {
        insecure_skip_verify: true,
        ..Authority::new().stranger()
    };
    meet_by(&server, &careless).await.expect("anybody will do");
}

#[tokio::test]
async fn who_trusts_an_authority_demands_its_certificates() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    let leaf = Leaf {
        common_name: "alice",
        ..Leaf::default()
    };
    authority.issue("client", leaf);
    let server = authority.settings("server", true);
    let client = authority.settings("client", true);
    let seen = meet_by(&server, &client).await.expect("they meet");
    let shown = seen.certificate.expect("it was demanded");
    assert_eq!(shown.common_name, "alice");
    assert_eq!(shown.dns_names, ["localhost"]);
    assert_eq!(shown.addresses, [LOOPBACK]);

    meet_by(&server, &authority.stranger())
        .await
        .expect_err("no certificate");
    let other = Authority::new();
    other.issue("client", leaf);
    let client = TlsInfo {
        trusted_ca_file: authority.path("ca.pem"),
        ..other.settings("client", false)
    };
    meet_by(&server, &client)
        .await
        .expect_err("a certificate of another authority");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    let server = authority.settings("server", true);
    for days in [(-3, -1), (1, 3)] {
        let leaf = Leaf {
            days,
            ..Leaf::default()
        };
        authority.issue("client", leaf);
        let refused = meet_by(&server, &authority.settings("client", true)).await;
        refused.expect_err("out of its time");
        authority.issue("late", leaf);
        let late = authority.settings("late", false);
        let refused = meet_by(&late, &authority.stranger()).await;
        refused.expect_err("the server's is out of its time");
    }
}

#[tokio::test]
async fn only_listed_names_are_let_in() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    authority.issue(
        "client",
        Leaf {
            common_name: "alice",
            hosts: &["*.example.com", "10.0.0.7"],
            ..Leaf::default()
        },
    );
    let client = authority.settings("client", true);
    for (cns, hosts, is_let_in) in [
        (vec!["bob", "alice"], vec![], true),
        (vec!["bob"], vec![], false),
        (vec![], vec!["alice"], false),
        (vec![], vec!["a.example.com"], true),
        (vec![], vec!["a.b.example.com", "10.0.0.8"], false),
        (vec![], vec!["10.0.0.7"], true),
    ] {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let server = TlsInfo {
            allowed_cns: texts(&cns),
            allowed_hostnames: texts(&hosts),
            ..authority.settings("server", true)
        };
        let met = meet_by(&server, &client).await;
        assert_eq!(met.is_ok(), is_let_in, "{cns:?} {hosts:?}: {met:?}");
        if let Err(refused) = met {
            assert_eq!(reason(&refused), "remote error: tls: bad certificate");
        }
    }
}

#[tokio::test]
async fn a_revoked_number_is_refused_as_soon_as_the_list_names_it() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    let leaf = Leaf {
        serial: 0x80_12_34,
        ..Leaf::default()
    };
    authority.issue("client", leaf);
    authority.revoke(&[1, 0x12_34]);
    let server = ServerTls::new(&TlsInfo {
        crl_file: authority.path("crl.der"),
        ..authority.settings("server", true)
    });
    let server = server.expect("the settings are good");
    let client = ClientTls::new(&authority.settings("client", true)).expect("good, too");
    meet(&server, &client, LOOPBACK).await.expect("not revoked");
    authority.revoke(&[1, 0x12_34, 0x80_12_34]);
    let refused = meet(&server, &client, LOOPBACK).await;
    refused.expect_err("revoked");
    std::fs::write(authority.path("crl.der"), b"no list").expect("written");
    let refused = meet(&server, &client, LOOPBACK).await;
    refused.expect_err("nobody knows what is revoked");
    authority.revoke(&[]);
    meet(&server, &client, LOOPBACK).await.expect("pardoned");
}

#[tokio::test]
async fn a_new_pair_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let named = |common_name| Leaf {
        common_name,
        ..Leaf::default()
    };
    authority.issue("server", Leaf::default());
    authority.issue("client", named("before"));
    let server = ServerTls::new(&authority.settings("server", true)).expect("good");
    let client = ClientTls::new(&authority.settings("client", true)).expect("good");
    let name = async || {
        let seen = meet(&server, &client, LOOPBACK).await.expect("they meet");
        seen.certificate.expect("demanded").common_name
    };
    assert_eq!(name().await, "before");
    authority.issue("client", named("afterwards"));
    assert_eq!(name().await, "afterwards");
    std::fs::write(authority.path("client.key"), b"").expect("written");
    assert_eq!(name().await, "afterwards");

    let expired = Leaf {
        days: (-3, -1),
        ..Leaf::default()
    };
    authority.issue("client", named("client"));
    authority.issue("server", expired);
    let refused = meet(&server, &client, LOOPBACK).await;
    refused.expect_err("the server shows the expired one");
    authority.issue("server", Leaf::default());
    assert_eq!(name().await, "client");
}

#[tokio::test]
async fn a_client_must_come_from_where_its_certificate_says() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    for (hosts, from, is_let_in) in [
        (&["10.0.0.7"][..], "10.0.0.7", true),
        (&["10.0.0.7"], "::ffff:10.0.0.7", true),
        (&["10.0.0.7"], "10.0.0.8", false),
        (&["10.0.0.7", "localhost"], "127.0.0.1", true),
        (&["localhost"], "10.0.0.8", false),
        (&[], "10.0.0.8", true),
    ] {
        let leaf = Leaf {
            hosts,
            ..Leaf::default()
        };
        authority.issue("client", leaf);
        let client = ClientTls::new(&authority.settings("client", true)).expect("good");
        let from = from.parse().expect("an address");
        let info = authority.settings("server", true);
        let server = ServerTls::new(&info).expect("good");
        let met = meet(&server, &client, from).await;
        met.expect("nobody compares");
        let comparing = server.clone().comparing_addresses(&info);
        let met = meet(&comparing, &client, from).await;
        assert_eq!(met.is_ok(), is_let_in, "{hosts:?} from {from}: {met:?}");
        let skipping = TlsInfo {
            skip_client_san_verify: true,
            ..info
        };
        let skipping = server.comparing_addresses(&skipping);
        let met = meet(&skipping, &client, from).await;
        met.expect("the check is left out");
    }
}

#[tokio::test]
async fn versions_suites_and_protocols_are_those_asked_for() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305";
    let old = TlsInfo {
        max_version: TlsVersion::parse("TLS1.2").expect("there is"),
        cipher_suites: vec!["TLS_RSA_WITH_AES_128_CBC_SHA".to_owned(), suite.to_owned()],
        ..authority.settings("server", false)
    };
    let seen = meet_by(&old, &authority.stranger()).await.expect("met");
    assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_2));
    assert_eq!(
        seen.suite,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    );
    assert_eq!(seen.protocol, None);
    let new = TlsInfo {
        min_version: TlsVersion::parse("TLS1.3").expect("there is"),
        ..authority.stranger()
    };
    meet_by(&old, &new).await.expect_err("no common version");

    let server = ServerTls::new(&authority.settings("server", false)).expect("good");
    let client = ClientTls::new(&authority.stranger()).expect("good");
    for (offered, agreed) in [(&["h2"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let client = client.clone().offering(offered);
        let seen = meet(&server, &client, LOOPBACK).await.expect("met");
        assert_eq!(seen.version, Some(ProtocolVersion::TLSv1_3));
        assert_eq!(seen.protocol.as_deref(), Some(agreed.as_bytes()));
    }
}

#[tokio::test]
async fn a_generated_certificate_is_kept_and_trusted_by_whoever_has_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let fixtures = directory.path().join("fixtures/client");
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = self_signed::certificate(&fixtures, &hosts, 1).expect("it is made");
    let kept = self_signed::certificate(&fixtures, &hosts, 1).expect("it is there");
    let read = |path: &str| std::fs::read(path).expect("it is there");
    let before = read(&made.cert_file);
    assert_eq!(made, kept);
    assert_eq!(before, read(&kept.cert_file));
    assert_eq!(mode_of(Path::new(&made.key_file)), 0o600);

    let believer = TlsInfo {
        trusted_ca_file: made.cert_file.clone(),
        ..TlsInfo::default()
    };
    meet_by(&made, &believer)
        .await
        .expect("it is its own issuer");
    meet_by(&made, &made).await.expect("members take any");
    meet_by(&made, &Authority::new().stranger())
        .await
        .expect_err("others do not");

    std::fs::write(&made.key_file, b"another key").expect("written");
    self_signed::certificate(&fixtures, &hosts, 1).expect("made anew");
    assert_ne!(before, read(&made.cert_file));
    let error = self_signed::certificate(&fixtures, &hosts, 0).expect_err("never valid");
    assert_eq!(
        error.to_string(),
        "selfSignedCertValidity is invalid,it should be greater than 0"
    );
}

fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path).expect("it is there");
    metadata.permissions().mode() & 0o777
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_given_up() {
    let authority = Authority::new();
    authority.issue("server", Leaf::default());
    let server = ServerTls::new(&authority.settings("server", false)).expect("good");
    let (_near, far) = tokio::io::duplex(1024);
    let error = server.accept(far, Some(LOOPBACK)).await;
    assert_eq!(
        error.expect_err("it said nothing").kind(),
        io::ErrorKind::TimedOut
    );
}

#[test]
fn settings_that_contradict_each_other_have_etcds_words() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let pair = TlsInfo {
        cert_file: "c".to_owned(),
        key_file: "k".to_owned(),
        ..TlsInfo::default()
    };
    for (info, words) in [
        (
            TlsInfo {
                key_file: String::new(),
                ..pair.clone()
            },
            "KeyFile and CertFile must both be present[key: , cert: c]",
        ),
        (
            TlsInfo {
                client_cert_file: "d".to_owned(),
                ..pair.clone()
            },
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: d]",
        ),
        (
            TlsInfo {
                allowed_cns: texts(&["a", "b"]),
                allowed_hostnames: texts(&["h"]),
                ..pair.clone()
            },
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], hostnames=[\"h\"])",
        ),
        (
            TlsInfo {
                cipher_suites: texts(&["NO_SUCH"]),
                ..pair.clone()
            },
            "unexpected TLS cipher suite \"NO_SUCH\"",
        ),
        (
            TlsInfo {
                cipher_suites: texts(&["TLS_RSA_WITH_RC4_128_SHA"]),
                ..pair.clone()
            },
            "none of the TLS cipher suites [\"TLS_RSA_WITH_RC4_128_SHA\"] is offered here",
        ),
        (pair.clone(), "open c: no such file or directory"),
    ] {
        let error = ServerTls::new(&info).expect_err(words);
        assert_eq!(error.to_string(), words);
    }
    assert_eq!(
        TlsVersion::parse("TLS1.1")
            .expect_err("too old")
            .to_string(),
        "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"
    );
}

#[test]
fn a_key_must_belong_to_its_certificate() {
    let authority = Authority::new();
    authority.issue("one", Leaf::default());
    authority.issue("other", Leaf::default());
    let mixed = TlsInfo {
        key_file: authority.path("other.key"),
        ..authority.settings("one", false)
    };
    let error = ServerTls::new(&mixed).expect_err("they do not belong together");
    assert!(
        error
            .to_string()
            .ends_with("tls: private key does not match public key"),
        "{error}"
    );
}
