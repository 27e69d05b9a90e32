//! Who is answered what, against what etcd answers.

use crate::auth_matrix::{self, CERTIFICATES, Doors};
use crate::authority::Authority;
use crate::ports::free_port;
use crate::support::Member;
use quorate_net::tls::TlsInfo;

/// What etcd 3.7.1 answers; made by `quorate-bench auth-matrix --beside`.
const ETCD: &str = include_str!("auth_matrix/table.txt");

/// Prints what differs, line by line.
fn differences(ours: &str, etcd: &str) -> Vec<String> {
    let (ours, etcd): (Vec<_>, Vec<_>) = (ours.lines().collect(), etcd.lines().collect());
    let only = |sign: &str, these: &[&str], those: &[&str]| -> Vec<String> {
        let mut row = "";
        let mut found = Vec::new();
        for line in these {
            if !line.starts_with(' ') {
                row = line;
            }
            // A line means something together with its row only.
            let at = those.iter().position(|other| *other == row);
            let theirs = at.map_or(&[][..], |at| &those[at + 1..]);
            let theirs = theirs.iter().take_while(|line| line.starts_with(' '));
            let is_there = *line == row && at.is_some();
            if !is_there && !theirs.clone().any(|other| other == line) {
                found.push(format!("{sign} {row}\n    {}", line.trim()));
            }
        }
        found
    };
    let mut all = only("here:", &ours, &etcd);
    all.extend(only("etcd:", &etcd, &ours));
    all
}

#[tokio::test]
async fn everybody_is_answered_what_etcd_answers() {
    let authority = Authority::new();
    authority.issue("server", "", &["127.0.0.1"]);
    let mut member = Member::cluster(1).remove(0);
    let secure = format!("127.0.0.1:{}", free_port());
    let urls = format!("http://{},https://{secure}", member.client_address());
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    member = member
        .with(&["--listen-client-urls", &urls, "--client-cert-auth"])
        .with(&["--cert-file", &certificate, "--key-file", &key])
        .with(&["--trusted-ca-file", &authority.certificate()])
        .with(&["--bcrypt-cost", "4"]);
    member.start();
    let mut by_certificate = Vec::new();
    for name in CERTIFICATES {
        authority.issue(name, name, &[]);
        let info = TlsInfo {
            trusted_ca_file: authority.certificate(),
            cert_file: authority.path(&format!("{name}.pem")),
            key_file: authority.path(&format!("{name}.key")),
            ..TlsInfo::default()
        };
        let connected = auth_matrix::connect_as(secure.clone(), &info).await;
        by_certificate.push(connected.expect("the certificate is good"));
    }
    let doors = Doors {
        plain: member.channel().await,
        by_certificate,
    };
    let table = auth_matrix::run(doors).await.expect("root may");
    let differences = differences(&auth_matrix::render(&table), ETCD);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_table_that_says_something_else_is_seen() {
    assert!(differences(ETCD, ETCD).is_empty());
    let altered = ETCD.replacen("<- auth off, alice, ", "<- auth off, ", 1);
    let found = differences(&altered, ETCD);
    assert_eq!(found.len(), 2, "{found:?}");
    let shorter = ETCD.replacen("KV/Range: k/a\n", "", 1);
    assert!(!differences(&shorter, ETCD).is_empty());
}
