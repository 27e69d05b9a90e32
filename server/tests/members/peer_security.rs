//! Members that recognise each other by their certificates.

use quorate_net::tls::{ClientTls, TlsInfo};
use quorate_proto::etcdserverpb as pb;

use crate::authority::Authority;
use crate::support::{Member, free_port};
use crate::three_members::{has, start};

const HERE: &[&str] = &["localhost", "127.0.0.1"];

/// Members of a new cluster that listen for peers by TLS.
fn cluster(size: usize) -> Vec<Member> {
    let urls: Vec<_> = (0..size)
        .map(|_| format!("https://127.0.0.1:{}", free_port()))
        .collect();
    let all: Vec<_> = (0..size)
        .map(|number| format!("m{number}={}", urls[number]))
        .collect();
    let all = all.join(",");
    let members = Member::cluster(size).into_iter().zip(urls);
    members
        .map(|(mut member, url)| {
            member.peer_url.clone_from(&url);
            member.with(&[
                "--listen-peer-urls",
                &url,
                "--initial-advertise-peer-urls",
                &url,
                "--initial-cluster",
                &all,
            ])
        })
        .collect()
}

/// With certificates on both sides, issued by this authority.
fn mutual(member: Member, authority: &Authority, name: &str) -> Member {
    member.with(&[
        "--peer-cert-file",
        &authority.path(&format!("{name}.pem")),
        "--peer-key-file",
        &authority.path(&format!("{name}.key")),
        "--peer-client-cert-auth",
        "--peer-trusted-ca-file",
        &authority.certificate(),
    ])
}

async fn put(member: &Member, key: &str) {
    let request = pb::PutRequest {
        key: key.to_owned().into(),
        ..pb::PutRequest::default()
    };
    let answer = member.kv().await.put(request).await;
    answer.expect("there is a leader");
}

/// The certificate that a peer port shows.
async fn shown(member: &Member, authority: &Authority, name: &str) -> Vec<u8> {
    let info = TlsInfo {
        cert_file: authority.path(&format!("{name}.pem")),
        key_file: authority.path(&format!("{name}.key")),
        trusted_ca_file: authority.certificate(),
        ..TlsInfo::default()
    };
    let tls = ClientTls::new(&info).expect("the files are there");
    let address = member.peer_url.trim_start_matches("https://");
    let stream = tokio::net::TcpStream::connect(address).await;
    let stream = tls.connect("127.0.0.1", stream.expect("it listens")).await;
    let stream = stream.expect("it shakes hands");
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.expect("it shows one")[0].to_vec()
}

#[tokio::test]
async fn certificates_are_renewed_while_the_members_run() {
    let authority = Authority::new();
    let names = ["a", "b", "c"];
    for name in names {
        authority.issue(name, "peer", HERE);
    }
    let members = cluster(3).into_iter().zip(names);
    let mut members: Vec<_> = members
        .map(|(member, name)| mutual(member, &authority, name))
        .collect();
    start(&mut members);
    put(&members[0], "before").await;
    let old = shown(&members[0], &authority, "a").await;
    for name in names {
        authority.issue(name, "peer", HERE);
    }
    let new = shown(&members[0], &authority, "b").await;
    assert_ne!(old, new, "the new certificate is shown at once");
    // Restarted, this one shakes hands with the others anew.
    members[2].kill();
    // A read waits for a leader, if that was one; a write to it would be lost.
    assert!(has(&members[0], "before", false).await);
    put(&members[0], "after").await;
    members[2].start();
    assert!(has(&members[2], "after", false).await);
}

#[tokio::test]
async fn a_member_of_another_authority_stays_outside() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.issue("a", "peer", HERE);
    theirs.issue("a", "peer", HERE);
    let mut members = cluster(3).into_iter();
    let mut stranger = mutual(members.next().expect("of three"), &theirs, "a");
    let mut members: Vec<_> = members.map(|member| mutual(member, &ours, "a")).collect();
    stranger.launch();
    start(&mut members);
    members[0].wait_for_log("rejected connection on peer endpoint");
    put(&members[0], "k").await;
    assert!(has(&members[1], "k", false).await);
    assert!(!stranger.has_logged("ready to serve client requests"));
    assert!(!stranger.has_logged("became active"));
}

#[tokio::test]
async fn only_members_with_an_allowed_name_are_peers() {
    let authority = Authority::new();
    authority.issue("peer", "peer", HERE);
    authority.issue("other", "other", HERE);
    let members = cluster(3).into_iter().zip(["peer", "other", "peer"]);
    let mut members: Vec<_> = members
        .map(|(member, name)| {
            mutual(member, &authority, name).with(&["--peer-cert-allowed-cn", "peer"])
        })
        .collect();
    let mut stranger = members.remove(1);
    stranger.launch();
    start(&mut members);
    members[0].wait_for_log("client certificate authentication failed");
    put(&members[0], "k").await;
    assert!(has(&members[1], "k", false).await);
    assert!(!stranger.has_logged("became active"));
}

#[tokio::test]
async fn a_client_certificate_must_be_for_the_address_it_comes_from() {
    let authority = Authority::new();
    authority.issue("server", "peer", HERE);
    authority.issue("elsewhere", "peer", &["10.1.2.3"]);
    let client = [
        "--peer-client-cert-file".to_owned(),
        authority.path("elsewhere.pem"),
        "--peer-client-key-file".to_owned(),
        authority.path("elsewhere.key"),
    ];
    let client: Vec<_> = client.iter().map(String::as_str).collect();
    let with_client = |member: Member| mutual(member, &authority, "server").with(&client);
    let mut refused: Vec<_> = cluster(2).into_iter().map(with_client).collect();
    refused.iter_mut().for_each(Member::launch);
    refused[0].wait_for_log("x509: certificate is valid for 10.1.2.3, not 127.0.0.1");
    let mut taken: Vec<_> = cluster(2)
        .into_iter()
        .map(|member| with_client(member).with(&["--peer-skip-client-san-verification"]))
        .collect();
    start(&mut taken);
    put(&taken[0], "k").await;
    assert!(!refused[0].has_logged("became active"));
}

#[tokio::test]
async fn members_make_certificates_for_themselves() {
    let mut members: Vec<_> = cluster(2)
        .into_iter()
        .map(|member| member.with(&["--peer-auto-tls"]))
        .collect();
    start(&mut members);
    put(&members[0], "k").await;
    let made = members[0].data_dir().join("fixtures/peer/cert.pem");
    let before = std::fs::read(&made).expect("it was made");
    members[0].terminate();
    members[0].start();
    assert!(has(&members[0], "k", false).await);
    assert_eq!(std::fs::read(&made).expect("it is there"), before);
}

#[test]
fn what_cannot_be_listened_to_is_refused() {
    let mut member = cluster(1).remove(0);
    member.launch();
    let (status, log) = member.wait_exit();
    assert!(!status.success());
    assert!(
        log.contains("KeyFile and CertFile are not presented"),
        "{log}"
    );
}
